//! Tables that a device followed before: who still uses them, and where pages of a holder were that
//! wants them in place.

use crate::Table;
use crate::holder::Changing;
use crate::mapped::Version;
use crate::swap::{Drained, SwapError};
use udax_mm::Wait;
use udax_mm::sync::{Arc, Weak};

/// What the lock of changes is around.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Tables that were replaced and are used still, or are being dropped.
    retired: Vec<Retired>,
    /// Tables under a holder that wants its pages in place, as far as later ones do not say all that
    /// they say: a page that fails for a while comes back where it was.
    before: Vec<Arc<Table>>,
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

    /// Refuses a table that moves pages of a holder that wants them in place.
    pub(crate) fn check_places(
        &mut self,
        changing: &Changing,
        old: &Arc<Table>,
        new: &Arc<Table>,
    ) -> Result<(), SwapError> {
        if changing.permits_move() {
            self.before.clear();
            return Ok(());
        }
        let plan = new.plan();
        let tables = self.before.iter().chain([old]);
        let mut compared: Vec<_> =
            tables.map(|table| (table, plan.compared(&table.plan()))).collect();
        if compared.iter().any(|(_, found)| found.moves) {
            return Err(SwapError::InPlace);
        }
        compared.retain(|(_, found)| found.loses);
        self.before = compared.into_iter().map(|(table, _)| Arc::clone(table)).collect();
        Ok(())
    }
}
