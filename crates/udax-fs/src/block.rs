//! The bitmap of one 2 MiB block: which of its 512 pages are free.

use std::ops::Range;

/// Pages in a block.
pub(crate) const BLOCK_PAGES: u64 = 512;

/// A bit per page, set while the page is free.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    bits: [u64; 8],
    free: u64,
}

impl Block {
    /// A block of free pages.
    pub(crate) fn all_free() -> Block {
        Block { bits: [u64::MAX; 8], free: BLOCK_PAGES }
    }

    /// How many pages are free.
    pub(crate) fn free(&self) -> u64 {
        self.free
    }

    /// Marks pages as used.
    ///
    /// # Panics
    ///
    /// Panics if one of them is used already.
    pub(crate) fn take(&mut self, pages: Range<u64>) {
        for (word, mask) in masks(pages.clone()) {
            assert!(self.bits[word] & mask == mask, "alloc: pages {pages:?} are taken twice");
            self.bits[word] &= !mask;
        }
        self.free -= pages.end - pages.start;
    }

    /// Marks pages as free.
    ///
    /// # Panics
    ///
    /// Panics if one of them is free already.
    pub(crate) fn release(&mut self, pages: Range<u64>) {
        for (word, mask) in masks(pages.clone()) {
            assert!(self.bits[word] & mask == 0, "alloc: pages {pages:?} are freed twice");
            self.bits[word] |= mask;
        }
        self.free += pages.end - pages.start;
    }

    /// How many pages are free from `page` on.
    pub(crate) fn free_run(&self, page: u64) -> u64 {
        self.next(page, false) - page
    }

    /// The maximal runs of free pages, in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next(at, true);
            at = self.next(start, false);
            (start < BLOCK_PAGES).then_some(start..at)
        })
    }

    /// The first `pages` adjacent free pages.
    pub(crate) fn find_run(&self, pages: u64) -> Option<Range<u64>> {
        let run = self.runs().find(|run| run.end - run.start >= pages)?;
        Some(run.start..run.start + pages)
    }

    /// The longest run of free pages; empty if there are none.
    pub(crate) fn longest(&self) -> Range<u64> {
        self.runs().max_by_key(|run| run.end - run.start).unwrap_or(0..0)
    }

    /// The first page at or after `page` that is free, or that is not; else the end of the block.
    fn next(&self, page: u64, is_free: bool) -> u64 {
        let mut at = page;
        while at < BLOCK_PAGES {
            let bits = self.bits[word_of(at)];
            let wanted = (if is_free { bits } else { !bits }) >> (at % 64);
            if wanted != 0 {
                return at + u64::from(wanted.trailing_zeros());
            }
            at = at / 64 * 64 + 64;
        }
        BLOCK_PAGES
    }
}

/// The words that `pages` touches, with the bits of each.
fn masks(pages: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    (pages.start / 64..pages.end.div_ceil(64)).map(move |word| {
        let (from, to) = (pages.start.max(word * 64) % 64, (pages.end - word * 64).min(64));
        (word_of(word * 64), u64::MAX << from & u64::MAX >> (64 - to))
    })
}

fn word_of(page: u64) -> usize {
    usize::try_from(page / 64).expect("a block has eight words")
}
