//! A leaf: a run of addresses that show one thing.
//!
//! Owns what a run shows and how runs are cut and joined. Where they lie is the table's.

use std::ops::Range;
use udax_mm::{Access, FileIndex, FolioSpan, Order, Pages, PgmapOff, VmaOff};

/// A run of addresses that show one thing.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) at: VmaOff,
    pub(crate) pages: Pages,
    pub(crate) target: Target,
}

/// What a leaf shows.
#[derive(Debug)]
pub(crate) enum Target {
    /// Pages of folios, which this leaf counts.
    Folios(Shown),
    /// Zeros, until the hole is allocated.
    Hole,
    /// A protected copy of data that other files share, until a store makes it the file's own.
    Snapshot,
    /// What a private mapping has stored: pages of the program, not of the file.
    Own,
    /// SIGBUS, because the file has no such page.
    PastEnd,
    /// SIGBUS, because the fault failed.
    Failed,
    /// SIGBUS, because the memory failed.
    Poisoned,
}

/// The folios behind a leaf.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Whole folios: one of 2 MiB may reach outside the leaf.
    pub(crate) folios: FolioSpan,
    /// The page that the leaf begins with.
    pub(crate) first: PgmapOff,
    pub(crate) access: Access,
    pub(crate) sharing: Sharing,
}

/// What a store through a mapping changes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sharing {
    /// The file (`MAP_SHARED`).
    #[default]
    Shared,
    /// A copy that only this mapping sees (`MAP_PRIVATE`).
    ///
    /// The first store to a page makes the copy, and a punch, a truncate that spares it or any other
    /// change of the layout asks the host which pages have one. A first store to a page, by another
    /// thread, that falls between that question and the moment at which the rest is taken back is
    /// lost, and a load finds the file's bytes. It may be a store to any page that is taken back with
    /// the one that is changed: those of the same folio, of 2 MiB or 1 GiB, and what lies between. A
    /// page that was stored to before is never lost so. Whoever cannot exclude it stores once to each
    /// page that matters, or changes no layout, while others make first stores.
    Private,
}

impl Leaf {
    pub(crate) fn range(&self) -> Range<VmaOff> {
        self.at.span(self.pages)
    }

    /// The folios that it counts.
    pub(crate) fn shown(&self) -> Option<&Shown> {
        match &self.target {
            Target::Folios(shown) => Some(shown),
            _ => None,
        }
    }

    /// Whether it is void because a page could not be had.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.target, Target::Failed)
    }

    /// The order of the folio that it shows in part, or that may lie around it; else that of a page.
    pub(crate) fn piece_of(&self) -> Order {
        match &self.target {
            Target::Folios(shown) if !shown.is_whole(self.pages) => shown.order(),
            Target::Own => Order::Pud,
            _ => Order::Base,
        }
    }

    /// Whether it shows something that an allocation or a growth of the file makes wrong.
    pub(crate) fn is_absent(&self) -> bool {
        match self.target {
            Target::Hole | Target::Snapshot | Target::PastEnd | Target::Failed => true,
            Target::Folios(_) | Target::Own | Target::Poisoned => false,
        }
    }

    /// Whether a store through it changes the file without a fault.
    pub(crate) fn is_writable(&self) -> bool {
        self.shown()
            .is_some_and(|shown| (shown.access, shown.sharing) == (Access::Write, Sharing::Shared))
    }

    /// What of the leaf has to go so that no page of `range` is counted: whole folios.
    pub(crate) fn counted_in(
        &self,
        index: FileIndex,
        range: &Range<FileIndex>,
    ) -> Option<Range<VmaOff>> {
        let shown = self.shown()?;
        let (order, all) = (shown.folios.order(), shown.folios.pages());
        // Indices may be far from the start of a folio, so count from it.
        let before = shown.first.since(all.start).0;
        let pages = all.end.since(all.start).0;
        let clip = |at: FileIndex| at.0.saturating_add(before).saturating_sub(index.0).min(pages);
        let size = order.pages().0;
        let from = clip(range.start) / size * size;
        let to = clip(range.end).next_multiple_of(size);
        let start = self.at.0 + from.saturating_sub(before);
        let end = (self.at.0 + to.saturating_sub(before)).min(self.range().end.0);
        (start < end).then_some(VmaOff(start)..VmaOff(end))
    }

    /// Cuts the leaf before `at`, which lies inside, and returns the rest. Folios are never cut.
    pub(crate) fn split_off(&mut self, at: VmaOff) -> Leaf {
        let within = at.since(self.at);
        let pages = self.pages - within;
        let target = match &mut self.target {
            Target::Folios(shown) => Target::Folios(shown.split_off(shown.first + within)),
            Target::Hole => Target::Hole,
            Target::Snapshot => Target::Snapshot,
            Target::Own => Target::Own,
            Target::PastEnd => Target::PastEnd,
            Target::Failed => Target::Failed,
            Target::Poisoned => Target::Poisoned,
        };
        self.pages = within;
        Leaf { at, pages, target }
    }

    /// Joins a leaf that begins where this one ends and shows what follows, or hands it back.
    pub(crate) fn join(&mut self, next: Leaf) -> Option<Leaf> {
        if self.range().end != next.at {
            return Some(next);
        }
        let pages = next.pages;
        match (&mut self.target, next.target) {
            (Target::Folios(shown), Target::Folios(follows)) => {
                if let Some(follows) = shown.join(follows, self.pages, pages) {
                    let target = Target::Folios(follows);
                    return Some(Leaf { at: next.at, pages, target });
                }
            }
            (Target::Own, Target::Own) | (Target::Hole, Target::Hole) => (),
            (_, target) => return Some(Leaf { at: next.at, pages, target }),
        }
        self.pages = self.pages + pages;
        None
    }
}

impl Shown {
    fn split_off(&mut self, first: PgmapOff) -> Shown {
        let folios = self.folios.split_off(first);
        Shown { folios, first, access: self.access, sharing: self.sharing }
    }

    /// Whether `pages` pages of the folios are all.
    fn is_whole(&self, pages: Pages) -> bool {
        self.folios.pages() == self.first.span(pages)
    }

    /// Joins what follows if it is of the same kind and both are whole folios.
    fn join(&mut self, next: Shown, pages: Pages, next_pages: Pages) -> Option<Shown> {
        let is_same = (self.access, self.sharing) == (next.access, next.sharing);
        let is_next = self.folios.pages().end == next.folios.pages().start;
        if !is_same || !is_next || !self.is_whole(pages) || !next.is_whole(next_pages) {
            return Some(next);
        }
        let Shown { folios, first, access, sharing } = next;
        let refused = self.folios.append(folios).err()?;
        Some(Shown { folios: refused, first, access, sharing })
    }

    /// Leaves out the pages before `skip` and behind the `pages` that follow, with the folios that
    /// have none of the rest.
    pub(super) fn narrow(&mut self, skip: Pages, pages: Pages) {
        let size = self.folios.order().pages().0;
        self.first = self.first + skip;
        let head = self.folios.pages().start;
        let before = self.first.since(head).0 / size * size;
        if before > 0 {
            let rest = self.folios.split_off(head + Pages(before));
            drop(std::mem::replace(&mut self.folios, rest));
        }
        let head = self.folios.pages().start;
        let kept = (self.first + pages).since(head).0.next_multiple_of(size);
        if head + Pages(kept) < self.folios.pages().end {
            drop(self.folios.split_off(head + Pages(kept)));
        }
    }

    /// The order of the folios.
    pub(crate) fn order(&self) -> Order {
        self.folios.order()
    }
}
