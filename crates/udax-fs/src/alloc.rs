//! Free space: which pages no object uses, with 2 MiB blocks kept whole for as long as possible.
//!
//! This file owns the sets in memory and the choice of pages. Nothing of it is stored: mounting
//! walks the inode table and the trees and reserves what they use. It knows no claims; the store
//! joins each allocation with the claim on its pages.

use crate::block::{BLOCK_PAGES, Block};
use crate::ranges::Ranges;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use udax_mm::{DeviceOff, Pages};

/// How many cut blocks are searched for adjacent pages before scattered ones are taken.
const TRIES: usize = 8;

/// Adjacent pages of the device.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Extent {
    /// The first page.
    pub(crate) start: DeviceOff,
    /// How many.
    pub(crate) pages: Pages,
}

/// Where the pages of an allocation should lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Goal {
    /// In blocks that are cut already, adjacent if possible.
    Packed,
    /// From this page on if it is free, so that a file that grows stays in one piece; else packed.
    At(DeviceOff),
}

/// A page is used by two objects, or lies outside the data pages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DoubleUse(pub(crate) DeviceOff);

/// The free pages of a store: whole 2 MiB blocks as ranges, cut blocks with a bitmap each.
///
/// A block that is neither whole nor cut has no free page. An operation on one block takes
/// logarithmic time; a pool of 1 TiB starts with one range.
#[derive(Debug)]
pub(crate) struct Allocator {
    /// Numbers of the blocks that are wholly free.
    whole: Ranges,
    /// The blocks with some free pages, by number.
    cut: BTreeMap<u64, Block>,
    /// The same, by their number of free pages.
    by_free: BTreeSet<(u64, u64)>,
    free: u64,
    huge_misses: u64,
}

impl Extent {
    /// The pages from `start` to `end`.
    pub(crate) fn of(pages: Range<u64>) -> Extent {
        Extent { start: DeviceOff(pages.start), pages: Pages(pages.end - pages.start) }
    }

    /// The numbers of its pages.
    pub(crate) fn range(self) -> Range<u64> {
        self.start.0..self.end().0
    }

    /// The first page after it.
    pub(crate) fn end(self) -> DeviceOff {
        self.start + self.pages
    }
}

impl Allocator {
    /// Everything in `data` is free.
    pub(crate) fn new(data: Range<DeviceOff>) -> Allocator {
        let mut alloc = Allocator {
            whole: Ranges::default(),
            cut: BTreeMap::new(),
            by_free: BTreeSet::new(),
            free: 0,
            huge_misses: 0,
        };
        let (start, end) = (data.start.0, data.end.0);
        let whole = start.div_ceil(BLOCK_PAGES)..end / BLOCK_PAGES;
        if whole.is_empty() {
            alloc.release(Extent::of(start..end));
            return alloc;
        }
        alloc.release(Extent::of(start..whole.start * BLOCK_PAGES));
        alloc.release(Extent::of(whole.end * BLOCK_PAGES..end));
        alloc.free += (whole.end - whole.start) * BLOCK_PAGES;
        alloc.whole.insert(whole);
        alloc
    }

    /// Free pages.
    pub(crate) fn free(&self) -> Pages {
        Pages(self.free)
    }

    /// Wholly free 2 MiB blocks.
    pub(crate) fn huge_free(&self) -> u64 {
        self.whole.count()
    }

    /// How often a whole block was wanted and none was left, though there were pages enough.
    pub(crate) fn huge_misses(&self) -> u64 {
        self.huge_misses
    }

    /// Every free extent, in order.
    pub(crate) fn extents(&self) -> Vec<Extent> {
        let mut free: Ranges =
            self.whole.iter().map(|run| run.start * BLOCK_PAGES..run.end * BLOCK_PAGES).collect();
        for (&number, block) in &self.cut {
            let base = number * BLOCK_PAGES;
            block.runs().for_each(|run| free.insert(base + run.start..base + run.end));
        }
        free.iter().map(Extent::of).collect()
    }

    /// Takes `pages` pages in as few extents as it can; `None`, and nothing, if fewer are free.
    pub(crate) fn allocate(&mut self, pages: Pages, goal: Goal) -> Option<Vec<Extent>> {
        if pages.0 > self.free {
            return None;
        }
        let mut taken = Vec::new();
        let mut left = pages.0;
        if let Goal::At(page) = goal {
            left -= self.take_at(page, left, &mut taken);
        }
        while left > 0 {
            left -= self.take_some(left, &mut taken);
        }
        Some(taken)
    }

    /// Takes up to `count` whole 2 MiB blocks, the lowest ones.
    pub(crate) fn allocate_blocks(&mut self, count: u64) -> Vec<Extent> {
        let mut taken = Vec::new();
        let mut left = count;
        while left > 0 {
            let Some(run) = self.whole.first() else { break };
            let run = run.start..run.end.min(run.start + left);
            self.whole.take(&run);
            left -= run.end - run.start;
            taken.push(Extent::of(run.start * BLOCK_PAGES..run.end * BLOCK_PAGES));
        }
        self.free -= (count - left) * BLOCK_PAGES;
        if self.free >= left * BLOCK_PAGES {
            self.huge_misses += left;
        }
        taken
    }

    /// Takes exactly these pages.
    ///
    /// # Errors
    ///
    /// The first page that is not free; pages before it are taken.
    pub(crate) fn reserve(&mut self, extent: Extent) -> Result<(), DoubleUse> {
        for (number, pages) in blocks(extent) {
            let base = number * BLOCK_PAGES;
            if self.whole.contains(number) {
                self.open(number);
            }
            let free = self.cut.get(&number).map_or(0, |block| block.free_run(pages.start));
            if free < pages.end - pages.start {
                return Err(DoubleUse(DeviceOff(base + pages.start + free)));
            }
            self.take_in(number, pages);
        }
        Ok(())
    }

    /// Gives pages back.
    ///
    /// # Panics
    ///
    /// Panics if one of them is free already.
    pub(crate) fn release(&mut self, extent: Extent) {
        let (start, end) = (extent.start.0, extent.end().0);
        let whole = start.div_ceil(BLOCK_PAGES)..end / BLOCK_PAGES;
        if whole.is_empty() {
            return self.release_parts(extent);
        }
        self.release_parts(Extent::of(start..whole.start * BLOCK_PAGES));
        self.release_blocks(whole.clone());
        self.release_parts(Extent::of(whole.end * BLOCK_PAGES..end));
    }

    /// Takes whole blocks back, of which no page is free.
    fn release_blocks(&mut self, whole: Range<u64>) {
        let is_cut = self.cut.range(whole.clone()).next().is_some();
        assert!(!is_cut, "alloc: a page of blocks {whole:?} is freed twice");
        let is_free = !self.whole.overlapping(&whole).is_empty();
        assert!(!is_free, "alloc: a block of {whole:?} is freed twice");
        self.free += (whole.end - whole.start) * BLOCK_PAGES;
        self.whole.insert(whole);
    }

    fn release_parts(&mut self, extent: Extent) {
        for (number, pages) in blocks(extent) {
            assert!(!self.whole.contains(number), "alloc: block {number} is freed twice");
            let block = self.cut.entry(number).or_default();
            self.by_free.remove(&(block.free(), number));
            self.free += pages.end - pages.start;
            block.release(pages);
            if block.free() == BLOCK_PAGES {
                self.cut.remove(&number);
                self.whole.insert(number..number + 1);
            } else {
                self.by_free.insert((block.free(), number));
            }
        }
    }

    /// Takes up to `wanted` adjacent pages from `page` on, in one cut block.
    fn take_at(&mut self, page: DeviceOff, wanted: u64, taken: &mut Vec<Extent>) -> u64 {
        let (number, first) = (page.0 / BLOCK_PAGES, page.0 % BLOCK_PAGES);
        let Some(block) = self.cut.get(&number) else { return 0 };
        let pages = block.free_run(first).min(wanted);
        if pages > 0 {
            self.take_in(number, first..first + pages);
            taken.push(Extent { start: page, pages: Pages(pages) });
        }
        pages
    }

    /// Takes 1 to `wanted` pages where they do least harm, and returns how many.
    ///
    /// In this order: adjacent pages of a cut block; a whole block for a whole block's worth;
    /// scattered pages of a cut block that has enough; a whole block, which is cut; what is left.
    fn take_some(&mut self, wanted: u64, taken: &mut Vec<Extent>) -> u64 {
        if wanted >= BLOCK_PAGES && self.whole.count() > 0 {
            taken.extend(self.allocate_blocks(1));
            return BLOCK_PAGES;
        }
        let roomy = self.by_free.range((wanted, 0)..).map(|&(_, number)| number);
        let adjacent = roomy
            .clone()
            .take(TRIES)
            .find_map(|number| self.cut[&number].find_run(wanted).map(|run| (number, run)));
        let scattered = || roomy.clone().next().map(|number| (number, self.cut[&number].longest()));
        let Some((number, run)) = adjacent.or_else(scattered) else {
            return self.take_opened(wanted, taken);
        };
        self.take_run(number, run, taken)
    }

    /// Opens a whole block for `wanted` pages, or takes from the cut block that has most.
    fn take_opened(&mut self, wanted: u64, taken: &mut Vec<Extent>) -> u64 {
        if let Some(run) = self.whole.first() {
            self.open(run.start);
            return self.take_run(run.start, 0..wanted, taken);
        }
        let &(_, number) = self.by_free.last().expect("the caller counted the free pages");
        let longest = self.cut[&number].longest();
        let run = longest.start..longest.end.min(longest.start + wanted);
        self.take_run(number, run, taken)
    }

    fn take_run(&mut self, number: u64, run: Range<u64>, taken: &mut Vec<Extent>) -> u64 {
        let base = number * BLOCK_PAGES;
        let extent = Extent::of(base + run.start..base + run.end);
        self.take_in(number, run);
        taken.push(extent);
        extent.pages.0
    }

    /// Turns a whole block into a cut one.
    fn open(&mut self, number: u64) {
        self.whole.take(&(number..number + 1));
        self.cut.insert(number, Block::all_free());
        self.by_free.insert((BLOCK_PAGES, number));
    }

    /// Takes free pages of a cut block.
    fn take_in(&mut self, number: u64, pages: Range<u64>) {
        let block = self.cut.get_mut(&number).expect("the caller found the block");
        self.by_free.remove(&(block.free(), number));
        self.free -= pages.end - pages.start;
        block.take(pages);
        if block.free() == 0 {
            self.cut.remove(&number);
        } else {
            self.by_free.insert((block.free(), number));
        }
    }
}

/// The blocks that `extent` touches, with the pages it touches in each.
fn blocks(extent: Extent) -> impl Iterator<Item = (u64, Range<u64>)> {
    let Range { start, end } = extent.range();
    (start / BLOCK_PAGES..end.div_ceil(BLOCK_PAGES)).map(move |number| {
        let base = number * BLOCK_PAGES;
        (number, start.max(base) - base..end.min(base + BLOCK_PAGES) - base)
    })
}

#[cfg(test)]
#[path = "alloc_tests.rs"]
mod tests;
