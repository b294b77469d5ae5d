//! The pages of a model file, told apart: it is known which of them several files have.
//!
//! What a crash may leave of a write depends on that: bytes of a page that a file has alone change
//! in place, those of a shared page appear at once, in a copy.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Bytes in a page.
pub(crate) const PAGE: u64 = 4096;

/// A page of data, wherever it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PageId(u64);

impl PageId {
    /// Whether the page was made after `before`, and so lies behind it.
    pub(crate) fn follows(self, before: PageId) -> bool {
        self.0 == before.0 + 1
    }
}

/// Gives out new pages.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewPages(u64);

impl NewPages {
    fn next(&mut self) -> PageId {
        self.0 += 1;
        PageId(self.0)
    }
}

/// The pages of a file that are not holes, by number.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PageMap(BTreeMap<u64, PageId>);

/// A change of the pages of a file.
pub(crate) struct Change<'a> {
    pub(crate) pages: &'a mut PageMap,
    pub(crate) new: &'a mut NewPages,
    /// The pages that more than one place of a file has.
    pub(crate) shared: &'a BTreeSet<PageId>,
}

impl PageMap {
    /// The numbers of the pages, in order.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.0.keys().copied()
    }

    /// The pages, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = PageId> {
        self.0.values().copied()
    }

    /// The page behind a number, `None` for a hole.
    pub(crate) fn id(&self, number: u64) -> Option<PageId> {
        self.0.get(&number).copied()
    }

    /// Keeps the pages that hold bytes before `size`.
    pub(crate) fn truncate(&mut self, size: u64) {
        self.0.retain(|number, _| number * PAGE < size);
    }

    /// Takes out the pages that lie wholly in a range of bytes.
    pub(crate) fn punch(&mut self, range: &Range<u64>) {
        let stays = |number: u64| number * PAGE < range.start || (number + 1) * PAGE > range.end;
        self.0.retain(|number, _| stays(*number));
    }

    /// Puts the pages of another file from `from` on in the place of `count` pages from `to` on.
    pub(crate) fn take_over(&mut self, other: &PageMap, from: u64, to: u64, count: u64) {
        for number in 0..count {
            match other.id(from + number) {
                Some(id) => self.0.insert(to + number, id),
                None => self.0.remove(&(to + number)),
            };
        }
    }
}

impl Change<'_> {
    /// Fills the holes in a range of bytes.
    pub(crate) fn fill(&mut self, range: &Range<u64>) {
        for number in touched(range) {
            self.pages.0.entry(number).or_insert_with(|| self.new.next());
        }
    }

    /// Copies what is shared in a range of bytes.
    pub(crate) fn own(&mut self, range: &Range<u64>) {
        // A range may be far longer than its file.
        for id in self.pages.0.range_mut(touched(range)).map(|(_, id)| id) {
            if self.shared.contains(id) {
                *id = self.new.next();
            }
        }
    }

    /// Copies the page of a byte, if it is shared and that is not its first one: bytes from there
    /// on are going to be zeroed.
    pub(crate) fn own_page_of(&mut self, byte: u64) {
        if !byte.is_multiple_of(PAGE) {
            self.own(&(byte..byte + 1));
        }
    }
}

/// The numbers of the pages that a range of bytes touches.
pub(crate) fn touched(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / PAGE..range.end.div_ceil(PAGE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole file, as an operation names it that does not know how long that is.
    #[test]
    fn owning_all_there_is_copies_the_shared_pages_and_no_others() {
        let (mut pages, mut new) = (PageMap::default(), NewPages::default());
        let mut change = Change { pages: &mut pages, new: &mut new, shared: &BTreeSet::new() };
        change.fill(&(0..3 * PAGE));
        let before = pages.clone();
        let shared = before.id(1).into_iter().collect();
        Change { pages: &mut pages, new: &mut new, shared: &shared }.own(&(0..u64::MAX / 2));
        let is_kept: Vec<bool> = (0..3).map(|page| pages.id(page) == before.id(page)).collect();
        assert_eq!(is_kept, [true, false, true]);
    }
}
