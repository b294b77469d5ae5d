//! Where the pages of a page map lie: runs of pages of media, one behind the other.
//!
//! This file owns the addresses and nothing that changes.

use crate::active::Lease;
use crate::block::Run;
use crate::media::{Media, MediaFacts, MediaRange};
use crate::pgmap::PgmapError;
use crate::sync::Arc;
use crate::units::{Order, PAGE_BYTES, Pages, PgmapOff};
use std::ops::Range;

/// The ranges of one page map, in order. At least one, none empty, none overlapping another.
#[derive(Debug)]
pub(crate) struct Ranges {
    ranges: Vec<Placed>,
    size: Pages,
}

/// A media range at its place in the page map.
#[derive(Debug)]
pub(crate) struct Placed {
    first: PgmapOff,
    range: MediaRange,
}

impl Placed {
    pub(crate) fn media(&self) -> &Arc<dyn Media> {
        &self.range.media
    }

    /// The byte of the medium behind byte `at` of the page map.
    pub(crate) fn byte_in_media(&self, at: u64) -> u64 {
        self.range.start + (at - self.first.byte())
    }

    /// The byte of the page map at byte `at` of the medium.
    pub(crate) fn byte_in_pgmap(&self, at: u64) -> u64 {
        at.saturating_sub(self.range.start) + self.first.byte()
    }

    fn end(&self) -> PgmapOff {
        self.first + self.range.pages
    }
}

impl Ranges {
    /// Lays `ranges` out one behind the other.
    pub(crate) fn new(ranges: Vec<MediaRange>) -> Result<Ranges, PgmapError> {
        check_ranges(&ranges)?;
        let mut size = Pages(0);
        let place = |range: MediaRange| {
            let first = PgmapOff(size.0);
            size = size + range.pages;
            Placed { first, range }
        };
        let ranges = ranges.into_iter().map(place).collect();
        Ok(Ranges { ranges, size })
    }

    pub(crate) fn size(&self) -> Pages {
        self.size
    }

    /// The range that holds `at`, which lies in the page map.
    pub(crate) fn of(&self, at: PgmapOff) -> &Placed {
        let after = self.ranges.partition_point(|placed| placed.first <= at);
        let placed = &self.ranges[after - 1];
        assert!(at < placed.end(), "page {at} lies outside the pgmap");
        placed
    }

    /// How far the memory from `at` on lies in one medium.
    pub(crate) fn contiguous(&self, at: PgmapOff) -> Pages {
        self.of(at).end().since(at)
    }

    /// The largest block, of `largest` at most, that starts where `pages` do, ends within them, and
    /// lies in one medium, and those of its order behind it that lie in `pages`, the same medium and the
    /// same block above.
    pub(crate) fn largest_run(&self, pages: &Range<PgmapOff>, largest: Order) -> Run {
        let at = pages.start;
        let room = pages.end.since(at).min(self.contiguous(at));
        let fits =
            |order: &Order| *order <= largest && at.is_aligned(*order) && order.pages() <= room;
        let order = [Order::Pud, Order::Pmd].into_iter().find(fits).unwrap_or(Order::Base);
        Run::within(&at.span(room), order)
    }

    /// Takes all ranges for one page map, or none (I-05, I-06).
    pub(crate) fn lease(&self) -> Result<Vec<Lease>, PgmapError> {
        let lease = |(range, placed): (usize, &Placed)| {
            let start = placed.range.start;
            let bytes = start..start + placed.range.pages.bytes();
            let in_use = |taken| PgmapError::InUse { range, taken };
            Lease::new(placed.media(), &bytes).map_err(in_use)
        };
        self.ranges.iter().enumerate().map(lease).collect()
    }

    /// The first range that does not begin and end at a folio of `order`, in its medium.
    pub(crate) fn first_not_whole(&self, order: Order) -> Option<usize> {
        let is_whole = |bytes: u64| bytes.is_multiple_of(order.pages().bytes());
        let range = |placed: &Placed| placed.range.clone();
        self.ranges.iter().map(range).position(|r| !is_whole(r.start) || !is_whole(r.pages.bytes()))
    }

    /// Every medium, once.
    pub(crate) fn media(&self) -> impl Iterator<Item = &Arc<dyn Media>> {
        let first_of_its_medium = |(n, placed): &(usize, &Placed)| {
            !self.ranges[..*n].iter().any(|before| is_same(before.media(), placed.media()))
        };
        self.ranges.iter().enumerate().filter(first_of_its_medium).map(|(_, p)| p.media())
    }

    /// What holds for all media together: the weakest of each promise.
    pub(crate) fn facts(&self) -> MediaFacts {
        let facts = self.media().map(|media| media.facts()).reduce(MediaFacts::weakest);
        facts.expect("a pgmap has at least one range")
    }
}

fn check_ranges(ranges: &[MediaRange]) -> Result<(), PgmapError> {
    if ranges.is_empty() {
        return Err(PgmapError::Empty);
    }
    for (n, range) in ranges.iter().enumerate() {
        check_range(n, range)?;
        if let Some(other) = ranges[..n].iter().position(|before| overlap(before, range)) {
            return Err(PgmapError::Overlap { first: other, second: n });
        }
    }
    Ok(())
}

fn check_range(n: usize, range: &MediaRange) -> Result<(), PgmapError> {
    if range.pages.is_empty() {
        return Err(PgmapError::ZeroLength { range: n });
    }
    if !range.start.is_multiple_of(PAGE_BYTES) {
        return Err(PgmapError::Misaligned { range: n, start: range.start });
    }
    let len = range.media.len();
    let end = range.pages.0.checked_mul(PAGE_BYTES).and_then(|n| range.start.checked_add(n));
    if end.is_none_or(|end| end > len) {
        return Err(PgmapError::OutOfRange { range: n, len });
    }
    Ok(())
}

/// I-05: compares the whole ranges, not their ends.
fn overlap(a: &MediaRange, b: &MediaRange) -> bool {
    is_same(&a.media, &b.media)
        && a.start < b.start + b.pages.bytes()
        && b.start < a.start + a.pages.bytes()
}

fn is_same(a: &Arc<dyn Media>, b: &Arc<dyn Media>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}
