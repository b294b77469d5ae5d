//! The end of a page map: refuse, drain, dead; and what stands in its way.
//!
//! This file owns the order of the steps. The count that is drained is in [`live`](crate::live).

use crate::handle::Pgmap;
use crate::pin::PinRecord;
use crate::units::PgmapOff;
use crate::wait::Wait;
use std::ops::Range;

/// The most folios and claims that [`StillBusy`] names.
const MOST_NAMED: usize = 64;

/// Proof that nobody uses any page of a page map, and nobody will.
#[must_use]
#[derive(Debug)]
pub struct Dead(());

/// [`Pgmap::kill`] ran out of time. The page map is dying; `kill` may be called again.
#[derive(Debug, thiserror::Error)]
#[error("pgmap is still busy: {}", describe(.pins, .pages))]
pub struct StillBusy {
    /// The pins held, oldest first.
    pub pins: Vec<PinRecord>,
    /// The first folios and claims in use, at most 64. May be empty: somebody can hold a live
    /// reference and no page.
    pub pages: Vec<Range<PgmapOff>>,
}

impl Pgmap {
    /// Refuses further live references at once, then waits until the last one is gone.
    ///
    /// Idempotent: it may be called again after [`StillBusy`], and on a dead page map. When it has
    /// succeeded, the same media can be activated again by a new page map, of any kind, all of
    /// whose pages are idle.
    ///
    /// # Blocking
    ///
    /// Waits for every [`PgmapRef`], folio, claim and pin, as `wait` says. A caller that holds one
    /// waits for itself.
    ///
    /// # Errors
    ///
    /// [`StillBusy`] if `wait` runs out. The page map stays dying.
    ///
    /// # Panics
    ///
    /// Panics if a page is in use and no live reference is left (I-04), which only a bug can do.
    pub fn kill(&self, wait: Wait) -> Result<Dead, StillBusy> {
        if !self.end(wait) {
            return Err(StillBusy { pins: self.pins(), pages: self.busy_pages(MOST_NAMED) });
        }
        assert!(self.busy_pages(1).is_empty(), "I-04: no page of a dead pgmap is in use");
        self.died();
        Ok(Dead(()))
    }

    /// The first folios and claims in use, at most 64: a look, which may be outdated at once.
    pub fn busy(&self) -> Vec<Range<PgmapOff>> {
        self.busy_pages(MOST_NAMED)
    }

    /// Nobody is left: others may describe the media (Absent).
    ///
    /// All of it under the lock, so that whoever finds that another has begun finds it done.
    pub(crate) fn died(&self) {
        self.shared().leases.lock().clear();
    }

    fn busy_pages(&self, most: usize) -> Vec<Range<PgmapOff>> {
        let leaves = self.table().leaves(PgmapOff(0)..PgmapOff(self.size().0));
        let busy = leaves.filter(|(_, value)| value.is_counted() || value.is_claimed());
        busy.map(|(leaf, _)| leaf.pages()).take(most).collect()
    }
}

fn describe(pins: &[PinRecord], pages: &[Range<PgmapOff>]) -> String {
    let in_use = match pages {
        [] => "no page is in use, but a live reference is held".to_owned(),
        [first, ..] => {
            let number = pages.len();
            let number = match number {
                1 => "is one folio or claim".to_owned(),
                MOST_NAMED => format!("are {number} folios and claims at least"),
                _ => format!("are {number} folios and claims"),
            };
            format!("in use {number}, the first on pages {}..{}", first.start, first.end)
        }
    };
    let named: Vec<String> = pins.iter().take(3).map(ToString::to_string).collect();
    match pins.len() {
        0 => in_use,
        1 => format!("{in_use}; pinned {}", named[0]),
        number => format!("{in_use}; {number} pins, the oldest {}", named.join(", ")),
    }
}
