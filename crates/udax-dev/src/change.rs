//! Tables that a device followed before: who still uses them, and where pages of a holder were that
//! wants them in place.

use crate::holder::Changing;
use crate::mapped::Version;
use crate::plan::{Lost, Plan};
use crate::swap::{Drained, SwapError};
use udax_mm::Wait;
use udax_mm::sync::{Arc, Weak};

/// What the lock of changes is around.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Tables that were replaced and are used still, or are being dropped.
    retired: Vec<Retired>,
    /// Pages that fail for a while under a holder that wants them in place: they come back where they
    /// were.
    lost: Vec<Lost>,
}

/// A table that was replaced.
#[derive(Debug)]
struct Retired {
    version: Weak<Version>,
    drained: Arc<Drained>,
}

impl Change {
    /// Remembers a table that was replaced, for as long as somebody uses it.
    pub(crate) fn retire(&mut self, version: &Arc<Version>) {
        self.retired.retain(|retired| !retired.drained.wait(Wait::Never));
        let retired = version.drained().map(|drained| (Arc::downgrade(version), drained));
        self.retired.extend(retired.map(|(version, drained)| Retired { version, drained }));
    }

    /// Tables that were replaced and are used still.
    pub(crate) fn used(&self) -> impl Iterator<Item = Arc<Version>> {
        self.retired.iter().filter_map(|retired| retired.version.upgrade())
    }

    /// What tells that nobody uses one that was replaced any more.
    pub(crate) fn drained(&self) -> impl Iterator<Item = Arc<Drained>> {
        self.retired.iter().map(|retired| Arc::clone(&retired.drained))
    }

    /// Those that are being dropped.
    pub(crate) fn dropped(&self) -> Vec<Arc<Drained>> {
        let dropped = self.retired.iter().filter(|retired| retired.version.strong_count() == 0);
        dropped.map(|retired| Arc::clone(&retired.drained)).collect()
    }

    /// Refuses a table that moves pages of a holder that wants them in place. Only the device that
    /// such a holder holds may let pages fail for a while, because only there is it known where they
    /// were; the tables below it leave every page as it is.
    pub(crate) fn check_places(
        &mut self,
        changing: &Changing,
        old: &Plan,
        new: &Plan,
    ) -> Result<(), SwapError> {
        if changing.permits_move() {
            self.lost.clear();
            return Ok(());
        }
        let found = new.compared(old);
        let is_below = changing.slots().len() > 1;
        if found.moves || is_below && (found.gains || !found.lost.is_empty()) {
            return Err(SwapError::InPlace);
        }
        let mut lost = found.lost;
        for before in &self.lost {
            lost.extend(new.still_lost(before).ok_or(SwapError::InPlace)?);
        }
        self.lost = lost;
        Ok(())
    }
}
