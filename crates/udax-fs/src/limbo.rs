//! Pages in limbo: freed by their file, and still used by somebody.
//!
//! This file owns what is known of such pages, and decides what happens when the last put gives
//! one back. That may come before the transaction that frees the page commits, or after it failed;
//! so a page is freed only when both have happened. Nothing of this is on the medium.

use std::ops::Range;

use crate::alloc::Extent;
use crate::ranges::Ranges;
use udax_mm::{IdleSpan, Pages};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Limbo {
    /// Freed by a transaction, in use.
    freed: Ranges,
    /// In use, and to stay with their file, because the transaction did not commit.
    kept: Ranges,
    /// Given back before it was decided which of the two they are.
    undecided: Vec<(Extent, IdleSpan)>,
}

/// What was decided of pages that came back.
#[must_use]
#[derive(Debug, Default)]
pub(crate) struct Decided {
    /// Claims to let go.
    pub(crate) claims: Vec<IdleSpan>,
    /// Pages to free once they are let go.
    pub(crate) free: Vec<Extent>,
}

impl Limbo {
    /// Freed pages that are still in use.
    pub(crate) fn pages(&self) -> Pages {
        Pages(self.freed.count())
    }

    /// The parts of `pages` that were freed and are still in use, in order.
    pub(crate) fn freed_in(&self, pages: &Range<u64>) -> Vec<Range<u64>> {
        self.freed.overlapping(pages)
    }

    /// The transaction that frees these pages committed.
    pub(crate) fn free(&mut self, extents: &[Extent]) -> Decided {
        for extent in extents {
            self.kept.take(&extent.range());
            self.freed.insert(extent.range());
        }
        self.decide()
    }

    /// The transaction that would have freed these pages did not commit.
    pub(crate) fn keep(&mut self, extents: &[Extent]) -> Decided {
        for extent in extents {
            self.kept.insert(extent.range());
        }
        self.decide()
    }

    /// The last put came for these pages.
    pub(crate) fn returned(&mut self, pages: Vec<(Extent, IdleSpan)>) -> Decided {
        self.undecided.extend(pages);
        self.decide()
    }

    fn decide(&mut self) -> Decided {
        let mut decided = Decided::default();
        let mut open = std::mem::take(&mut self.undecided);
        while let Some((extent, claim)) = open.pop() {
            let range = extent.range();
            if self.freed.covers(&range) {
                self.freed.take(&range);
                decided.free.push(extent);
                decided.claims.push(claim);
            } else if self.kept.covers(&range) {
                self.kept.take(&range);
                decided.claims.push(claim);
            } else if !self.meets(extent) {
                self.undecided.push((extent, claim));
            } else {
                open.extend(halves(extent, claim));
            }
        }
        decided
    }

    fn meets(&self, extent: Extent) -> bool {
        let meets = |set: &Ranges| {
            set.iter().any(|range| range.start < extent.end().0 && extent.start.0 < range.end)
        };
        meets(&self.freed) || meets(&self.kept)
    }
}

/// Halves pages of which different things are known; one page alone is never such.
fn halves(extent: Extent, claim: IdleSpan) -> [(Extent, IdleSpan); 2] {
    let pages = Pages(extent.pages.0 / 2);
    let at = claim.pages().start + pages;
    let (first, second) = claim.split(at);
    let middle = extent.start + pages;
    [
        (Extent { start: extent.start, pages }, first),
        (Extent { start: middle, pages: extent.pages - pages }, second),
    ]
}
