//! The translations of one user mapping: which of its addresses show which pages.
//!
//! The counterpart of a page table. Each leaf that shows a folio holds one reference of it, which
//! is put only after the addresses were unmapped (I-12). Leaves never overlap (I-38). The table
//! does not know files; the entry lock of the caller makes what it maps true.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use udax_mm::sync::Mutex;
use udax_mm::{Access, Folio, Pages, PgmapOff, Vma, VmaOff};

/// What a leaf shows.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Pages of a folio, from `first` on. Counted by this leaf.
    Folio { folio: Folio, first: PgmapOff, access: Access },
    /// Zeros, until the hole is allocated.
    Hole,
    /// SIGBUS, because the file has no such page.
    PastEnd,
    /// SIGBUS, because the fault failed.
    Failed,
}

/// A run of addresses that show one thing.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) at: VmaOff,
    pub(crate) pages: Pages,
    pub(crate) target: Target,
}

/// Reserved addresses and what they show.
#[derive(Debug)]
pub(crate) struct Table {
    // Dropped first: the addresses go before the references of what they show.
    vma: Vma,
    leaves: Mutex<Leaves>,
}

#[derive(Debug, Default)]
struct Leaves {
    by_start: BTreeMap<VmaOff, Leaf>,
    /// Nothing is mapped any more: the user mapping is being dropped.
    is_closed: bool,
}

impl Leaf {
    pub(crate) fn range(&self) -> Range<VmaOff> {
        self.at.span(self.pages)
    }

    fn is_folio(&self) -> bool {
        matches!(self.target, Target::Folio { .. })
    }
}

impl Table {
    pub(crate) fn new(vma: Vma) -> Table {
        Table { vma, leaves: Mutex::new(Leaves::default()) }
    }

    pub(crate) fn vma(&self) -> &Vma {
        &self.vma
    }

    /// Shows pages of a folio at `at`, on top of what was there. They are mapped again if they are
    /// shown already: a fault that came late has to be answered too.
    pub(crate) fn map_folio(
        &self,
        at: VmaOff,
        folio: &Folio,
        pages: Range<PgmapOff>,
        access: Access,
    ) -> io::Result<()> {
        let mut leaves = self.leaves.lock();
        if leaves.is_closed {
            return Ok(());
        }
        self.vma.map(at, folio.borrow(), pages.clone(), access)?;
        let target = Target::Folio { folio: folio.clone(), first: pages.start, access };
        let hidden = leaves.replace(Leaf { at, pages: pages.end.since(pages.start), target });
        drop(leaves);
        drop(hidden);
        Ok(())
    }

    /// Shows nothing of a folio, if `is_true` still says so under the lock of the table. Returns
    /// how many pages from its start on show something then, or `None` if it is not true.
    ///
    /// A folio is never hidden: what is known of the leaf may be older than the folio. The leaf
    /// ends before it; where it starts with one the folio is mapped again, so that the fault is
    /// answered and the thread looks again.
    pub(crate) fn map_absent(
        &self,
        mut leaf: Leaf,
        is_true: impl FnOnce() -> bool,
    ) -> io::Result<Option<Pages>> {
        let mut leaves = self.leaves.lock();
        if leaves.is_closed {
            return Ok(Some(leaf.pages));
        }
        if !is_true() {
            return Ok(None);
        }
        if let Some(shown) = leaves.overlapping(&leaf.range()).into_iter().find(Leaf::is_folio) {
            if shown.at <= leaf.at {
                self.map_again(&shown)?;
                return Ok(Some(shown.range().end.since(leaf.at)));
            }
            leaf.pages = shown.at.since(leaf.at);
        }
        let pages = leaf.pages;
        match leaf.target {
            Target::Hole => self.vma.map_hole(leaf.at, leaf.pages)?,
            Target::PastEnd | Target::Failed => self.vma.map_void(leaf.at, leaf.pages)?,
            Target::Folio { .. } => unreachable!("a folio is mapped by map_folio"),
        }
        let hidden = leaves.replace(leaf);
        drop(leaves);
        drop(hidden);
        Ok(Some(pages))
    }

    /// Maps the folio of a leaf where it is shown already.
    fn map_again(&self, leaf: &Leaf) -> io::Result<()> {
        let Target::Folio { folio, first, access } = &leaf.target else {
            unreachable!("only a folio is mapped again")
        };
        self.vma.map(leaf.at, folio.borrow(), first.span(leaf.pages), *access)
    }

    /// Takes back what `part` shows of no folio, and every leaf in `around` of a folio that is
    /// `counted_in` what has to become idle.
    pub(crate) fn zap(
        &self,
        part: &Range<VmaOff>,
        around: &Range<VmaOff>,
        counted_in: impl Fn(&Leaf) -> bool,
    ) {
        let mut leaves = self.leaves.lock();
        let Some(hull) = leaves.hull(part, around, counted_in) else { return };
        let zapped = self.unmap(&mut leaves, &hull);
        drop(leaves);
        drop(zapped);
    }

    /// Takes back everything, for good.
    pub(crate) fn close(&self) {
        self.leaves.lock().is_closed = true;
        let all = VmaOff(0).span(self.vma.pages());
        self.zap(&all, &all, |_| true);
    }

    /// Takes back translations in `range` that show nothing of a folio.
    pub(crate) fn zap_absent(&self, range: &Range<VmaOff>) {
        let mut leaves = self.leaves.lock();
        for leaf in leaves.overlapping(range) {
            if !leaf.is_folio() {
                let part = leaf.at.max(range.start)..leaf.range().end.min(range.end);
                drop(self.unmap(&mut leaves, &part));
            }
        }
    }

    /// The first page of `range` that shows no folio.
    pub(crate) fn next_absent(&self, range: &Range<VmaOff>) -> Option<VmaOff> {
        let mut at = range.start;
        for leaf in self.leaves.lock().overlapping(range) {
            if at < leaf.at || !leaf.is_folio() {
                return Some(at);
            }
            at = leaf.range().end;
        }
        (at < range.end).then_some(at)
    }

    /// Whether a page in `range` shows a hole or the space past the end.
    pub(crate) fn has_absent(&self, range: &Range<VmaOff>) -> bool {
        self.leaves.lock().overlapping(range).iter().any(|leaf| !leaf.is_folio())
    }

    /// Whether a page in `range` can be stored to.
    pub(crate) fn has_writable(&self, range: &Range<VmaOff>) -> bool {
        let is_writable =
            |leaf: &Leaf| matches!(leaf.target, Target::Folio { access: Access::Write, .. });
        self.leaves.lock().overlapping(range).iter().any(is_writable)
    }

    /// A copy of every leaf, for checks.
    pub(crate) fn leaves(&self) -> Vec<Leaf> {
        self.leaves.lock().by_start.values().cloned().collect()
    }

    /// Unmaps `range` and returns what it showed, to be put when the lock is released.
    fn unmap(&self, leaves: &mut Leaves, range: &Range<VmaOff>) -> Vec<Leaf> {
        let pages = range.end.since(range.start);
        if self.vma.zap(range.start, pages).is_err() {
            // A process with too many mappings cannot be given a fresh range, but SIGBUS also
            // takes the page back. It stays that way until the next layout change.
            let voided = self.vma.map_void(range.start, pages);
            voided.expect("I-50: a translation can be taken back; raise vm.max_map_count");
        }
        leaves.carve(range)
    }
}

impl Leaves {
    fn covering(&self, at: VmaOff) -> Option<&Leaf> {
        let (_, leaf) = self.by_start.range(..=at).next_back()?;
        leaf.range().contains(&at).then_some(leaf)
    }

    fn overlapping(&self, range: &Range<VmaOff>) -> Vec<Leaf> {
        if range.is_empty() {
            return Vec::new();
        }
        let start = self.covering(range.start).map_or(range.start, |leaf| leaf.at);
        self.by_start.range(start..range.end).map(|(_, leaf)| leaf.clone()).collect()
    }

    /// One range that holds all that has to be unmapped.
    fn hull(
        &self,
        part: &Range<VmaOff>,
        around: &Range<VmaOff>,
        counted_in: impl Fn(&Leaf) -> bool,
    ) -> Option<Range<VmaOff>> {
        let taken = self.overlapping(around).into_iter().filter_map(|leaf| {
            let whole = leaf.range();
            if leaf.is_folio() {
                return counted_in(&leaf).then_some(whole);
            }
            let inside = whole.start.max(part.start)..whole.end.min(part.end);
            (inside.start < inside.end).then_some(inside)
        });
        taken.reduce(|one, other| one.start.min(other.start)..one.end.max(other.end))
    }

    /// Puts a leaf in the place of others. A folio is hidden only by itself.
    fn replace(&mut self, leaf: Leaf) -> Vec<Leaf> {
        let is_fine = |old: &Leaf| !old.is_folio() || (old.at, old.pages) == (leaf.at, leaf.pages);
        let is_zapped = self.overlapping(&leaf.range()).iter().all(is_fine);
        assert!(is_zapped, "I-38: a leaf of a folio is zapped first");
        let hidden = self.carve(&leaf.range());
        self.by_start.insert(leaf.at, leaf);
        hidden
    }

    /// Removes `range` from every leaf. A leaf of a folio lies in the range as a whole.
    fn carve(&mut self, range: &Range<VmaOff>) -> Vec<Leaf> {
        let taken = self.overlapping(range);
        let lies_within = |leaf: &Leaf| range.start <= leaf.at && leaf.range().end <= range.end;
        let is_whole = taken.iter().all(|leaf| !leaf.is_folio() || lies_within(leaf));
        // Before anything is removed: a leaf that went would let go of pages that are mapped.
        assert!(is_whole, "I-38: a leaf of a folio is unmapped as a whole");
        for leaf in &taken {
            self.by_start.remove(&leaf.at);
            let before = leaf.at..range.start;
            let after = range.end..leaf.range().end;
            for rest in [before, after] {
                if rest.start < rest.end {
                    let pages = rest.end.since(rest.start);
                    let rest = Leaf { at: rest.start, pages, target: leaf.target.clone() };
                    self.by_start.insert(rest.at, rest);
                }
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

    use super::{Leaf, Table, Target};
    use udax_mm::media::FileMedia;
    use udax_mm::sync::Arc;
    use udax_mm::{Access, MediaRange, MemoryType, Order, PAGE_SIZE, Pages, Pgmap, PgmapOff};
    use udax_mm::{PgmapRef, Vma, VmaOff};

    fn pgmap() -> PgmapRef {
        let media = Arc::new(FileMedia::memfd("table", 4 * 4096).unwrap());
        let range = MediaRange { media, start: 0, pages: Pages(4) };
        let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).unwrap().try_get_live().unwrap();
        pgmap.write(0, &[7; PAGE_SIZE]).unwrap();
        pgmap
    }

    /// Four addresses, of which the third shows page 0.
    fn table() -> Table {
        let table = Table::new(Vma::reserve(Pages(4)).unwrap());
        let folio = pgmap().request_folio(PgmapOff(0), Order::Base).unwrap();
        table.map_folio(VmaOff(2), &folio, folio.pages(), Access::Read).unwrap();
        table
    }

    fn absent(at: u64, pages: u64, target: Target) -> Leaf {
        Leaf { at: VmaOff(at), pages: Pages(pages), target }
    }

    #[test]
    fn a_late_failure_does_not_hide_a_folio() {
        let table = table();

        let shown = table.map_absent(absent(2, 1, Target::Failed), || true).unwrap();

        assert_eq!(shown, Some(Pages(1)));
        let mut byte = [0];
        table.vma().read(2 * 4096, &mut byte).unwrap();
        assert_eq!(byte, [7]);
        assert!(table.leaves().iter().all(Leaf::is_folio));
    }

    #[test]
    fn an_old_hole_ends_before_a_folio() {
        let table = table();

        let shown = table.map_absent(absent(0, 4, Target::Hole), || true).unwrap();

        assert_eq!(shown, Some(Pages(2)));
        let shown: Vec<_> =
            table.leaves().iter().map(|leaf| (leaf.range(), leaf.is_folio())).collect();
        assert_eq!(shown, [(VmaOff(0)..VmaOff(2), false), (VmaOff(2)..VmaOff(3), true)]);
    }
}
