//! The translations of one user mapping: which of its addresses show which pages.
//!
//! The counterpart of a page table. Each leaf that shows folios holds one reference of each, which
//! is put only after the addresses were unmapped (I-12). Leaves never overlap (I-38), and those
//! that show one thing in a row are one. The table does not know files; the entry lock of the
//! caller makes what it maps true.

mod leaf;
#[cfg(test)]
mod tests;

pub use self::leaf::Sharing;
pub(crate) use self::leaf::{Leaf, Shown, Target};

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use udax_mm::sync::Mutex;
use udax_mm::vma::Prefault;
use udax_mm::{FileIndex, Order, PAGE_SIZE, Pages, Vma, VmaOff};

/// Reserved addresses and what they show.
#[derive(Debug)]
pub(crate) struct Table {
    // Dropped first: the addresses go before the references of what they show.
    vma: Vma,
    leaves: Mutex<Leaves>,
}

/// What is shown where the file has no page to show.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Absent<'a> {
    /// Zeros; a store faults.
    Hole,
    /// Zeros that nobody may store to.
    ReadOnlyHole,
    /// These bytes; a store faults.
    Snapshot(&'a [u8]),
    /// Zeros that the program may store to: they are its own.
    Own,
    /// SIGBUS.
    PastEnd,
    /// SIGBUS for now.
    Failed,
    /// SIGBUS that says the memory failed.
    Poisoned,
}

/// What a zap spares.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Spare {
    /// What private mappings have stored, as a punched hole does (`even_cows` unset).
    Own,
    /// Nothing.
    Nothing,
}

#[derive(Debug, Default)]
struct Leaves {
    by_start: BTreeMap<VmaOff, Leaf>,
    /// Nothing is mapped any more: the user mapping is being dropped.
    is_closed: bool,
    /// The order of the largest folio that may be shown in pieces: around what a private mapping has
    /// stored, or page by page.
    in_pieces: Order,
}

impl Table {
    pub(crate) fn new(vma: Vma) -> Table {
        Table { vma, leaves: Mutex::new(Leaves::default()) }
    }

    pub(crate) fn vma(&self) -> &Vma {
        &self.vma
    }

    /// Shows pages of folios at `range`, on top of what was there. Returns where what is shown
    /// around `wanted` ends.
    ///
    /// What a private mapping has stored in the range stays, and the folios are shown only up to
    /// it. If something is shown at `wanted` already the fault came late: another thread's was
    /// served in between.
    pub(crate) fn map_folios(
        &self,
        range: Range<VmaOff>,
        wanted: VmaOff,
        mut shown: Shown,
        prefault: Prefault,
    ) -> io::Result<VmaOff> {
        let mut leaves = self.leaves.lock();
        if leaves.is_closed {
            return Ok(range.end);
        }
        let gap = match leaves.gap(&range, wanted) {
            Ok(gap) => gap,
            Err(there) => {
                self.show_again(&leaves, wanted)?;
                return Ok(there.end);
            }
        };
        shown.narrow(gap.start.since(range.start), gap.end.since(gap.start));
        let (at, pages) = (gap.start, gap.end.since(gap.start));
        let range = shown.first.span(pages);
        let mapped = match shown.sharing {
            Sharing::Shared => self.vma.map_span(at, &shown.folios, range, shown.access, prefault),
            Sharing::Private => self.vma.map_private(at, &shown.folios, range, shown.access),
        };
        if let Err(error) = mapped {
            let is_in_part = shown.folios.pgmap().contiguous(shown.first) < pages;
            // What the first of several media has there goes with the folios.
            let hidden = is_in_part.then(|| self.unmap(&mut leaves, &at.span(pages)));
            drop(leaves);
            drop(hidden);
            return Err(error);
        }
        let hidden = leaves.put(Leaf { at, pages, target: Target::Folios(shown) });
        drop(leaves);
        drop(hidden);
        Ok(gap.end)
    }

    /// Shows in `range` what is there instead of pages of the file, on top of what was there. Returns
    /// what is shown around `wanted` then: it ends where a folio or what a private mapping has stored
    /// begins, which are never hidden.
    pub(crate) fn map_absent(
        &self,
        range: Range<VmaOff>,
        wanted: VmaOff,
        absent: Absent<'_>,
    ) -> io::Result<Range<VmaOff>> {
        let mut leaves = self.leaves.lock();
        if leaves.is_closed {
            return Ok(range);
        }
        let gap = match leaves.gap(&range, wanted) {
            Ok(gap) => gap,
            Err(there) => {
                self.show_again(&leaves, wanted)?;
                return Ok(there);
            }
        };
        let (at, pages) = (gap.start, gap.end.since(gap.start));
        let target = self.show(at, pages, absent)?;
        let hidden = leaves.put(Leaf { at, pages, target });
        drop(leaves);
        drop(hidden);
        Ok(gap)
    }

    /// Answers a touch of what is shown already: another thread's fault was served first, or the
    /// program gave the page back to the host (`MADV_DONTNEED`), which tells nobody.
    fn show_again(&self, leaves: &Leaves, at: VmaOff) -> io::Result<()> {
        match leaves.covering(at).map(|leaf| &leaf.target) {
            Some(Target::Own) => self.vma.renew_own(at, Pages(1)),
            Some(Target::Poisoned) => self.vma.map_poison(at, Pages(1)).map(drop),
            // The host finds pages of a medium by itself.
            _ => {
                self.vma.look_again(at, Pages(1));
                Ok(())
            }
        }
    }

    fn show(&self, at: VmaOff, pages: Pages, absent: Absent<'_>) -> io::Result<Target> {
        match absent {
            Absent::Hole => self.vma.map_hole(at, pages).map(|()| Target::Hole),
            Absent::ReadOnlyHole => self.vma.map_zeros(at, pages).map(|()| Target::Hole),
            Absent::Snapshot(bytes) => self.vma.map_copy(at, bytes).map(|()| Target::Snapshot),
            Absent::Own => self.show_zeros(at, pages).map(|()| Target::Own),
            Absent::PastEnd => self.vma.map_void(at, pages).map(|()| Target::PastEnd),
            Absent::Failed => self.vma.refuse(at, pages).map(|()| Target::Failed),
            Absent::Poisoned => self.vma.map_poison(at, pages).map(|_| Target::Poisoned),
        }
    }

    /// Shows zeros that the program may store to, also where a hole is shown.
    fn show_zeros(&self, at: VmaOff, pages: Pages) -> io::Result<()> {
        if self.vma.is_lazy() {
            self.vma.map_hole(at, pages)?;
            return self.vma.unprotect(at, pages);
        }
        self.vma.map_private_hole(at, pages)
    }

    /// Takes back every folio of which a page of `range` of the file is counted, and all else that
    /// is shown of it. `index` says which page of the file an address shows. Returns from where to
    /// where something went that is to come again, where nobody can fault for it: a page that could not
    /// be had stays so.
    pub(crate) fn zap(
        &self,
        range: &Range<FileIndex>,
        index: impl Fn(VmaOff) -> FileIndex,
        spare: Spare,
    ) -> Option<Range<VmaOff>> {
        let mut leaves = self.leaves.lock();
        let part = part_of(range, index(VmaOff(0)), self.vma.pages());
        let hull = leaves.hull(&part, range, index)?;
        let zapped = match spare {
            Spare::Nothing => self.unmap(&mut leaves, &hull),
            Spare::Own => self.unmap_but_own(&mut leaves, &hull),
        };
        let (refused, zapped): (Vec<_>, Vec<_>) = zapped.into_iter().partition(Leaf::is_refused);
        if !self.vma.is_lazy() {
            for leaf in refused {
                // Something else is there if the mapping has started over.
                if leaves.overlapping(&leaf.range()).next().is_none() {
                    drop(leaves.put(leaf));
                }
            }
        }
        drop(leaves);
        let taken = zapped.iter().map(Leaf::range);
        taken.reduce(|one, other| one.start.min(other.start)..one.end.max(other.end))
    }

    /// Takes back everything, for good.
    pub(crate) fn close(&self) {
        let mut leaves = self.leaves.lock();
        leaves.is_closed = true;
        let zapped = if leaves.by_start.is_empty() {
            Vec::new()
        } else {
            self.unmap(&mut leaves, &VmaOff(0).span(self.vma.pages()))
        };
        drop(leaves);
        drop(zapped);
    }

    /// Takes back what shows nothing of the file in `range`.
    pub(crate) fn zap_absent(&self, range: &Range<VmaOff>) {
        let _ = self.zap_that(range, Leaf::is_absent);
    }

    /// Takes back what shows in `range` that memory failed.
    pub(crate) fn zap_failed(&self, range: &Range<VmaOff>) {
        let _ = self.zap_that(range, |leaf| matches!(leaf.target, Target::Poisoned));
    }

    /// Takes back what is void in `range` because it could not be had. Returns whether there was any.
    pub(crate) fn zap_refused(&self, range: &Range<VmaOff>) -> bool {
        self.zap_that(range, Leaf::is_refused)
    }

    /// Returns whether there was any.
    fn zap_that(&self, range: &Range<VmaOff>, is_meant: impl Fn(&Leaf) -> bool) -> bool {
        let (mut leaves, mut zapped) = (self.leaves.lock(), Vec::new());
        let mut at = range.start;
        while let Some(found) = leaves.first_that(&(at..range.end), &is_meant) {
            let part = found.start.max(at)..found.end.min(range.end);
            at = part.end;
            zapped.extend(self.unmap(&mut leaves, &part));
        }
        drop(leaves);
        drop(zapped);
        at > range.start
    }

    /// The first page of `range` that an eager mapping would have to fill.
    pub(crate) fn next_absent(&self, range: &Range<VmaOff>) -> Option<VmaOff> {
        let leaves = self.leaves.lock();
        let mut at = range.start;
        while at < range.end {
            match leaves.covering(at) {
                Some(leaf) if !leaf.is_absent() => at = leaf.range().end,
                _ => return Some(at),
            }
        }
        None
    }

    /// Whether a page in `range` shows a hole, a copy or the space past the end.
    pub(crate) fn has_absent(&self, range: &Range<VmaOff>) -> bool {
        self.leaves.lock().first_that(range, Leaf::is_absent).is_some()
    }

    /// Whether a page in `range` can be stored to.
    pub(crate) fn has_writable(&self, range: &Range<VmaOff>) -> bool {
        self.leaves.lock().first_that(range, Leaf::is_writable).is_some()
    }

    /// Where the first run in `range` begins that shows something.
    pub(crate) fn next_shown(&self, range: &Range<VmaOff>) -> Option<VmaOff> {
        let found = self.leaves.lock().first_that(range, |leaf| !leaf.is_absent());
        found.map(|found| found.start.max(range.start))
    }

    /// Calls `each` for every leaf, for checks.
    pub(crate) fn for_each(&self, each: impl FnMut(&Leaf)) {
        self.leaves.lock().by_start.values().for_each(each);
    }

    /// Unmaps `range` and returns what it showed, to be put when the lock is released.
    fn unmap(&self, leaves: &mut Leaves, range: &Range<VmaOff>) -> Vec<Leaf> {
        match self.take_back(range) {
            Ok(()) => leaves.carve(range),
            Err(_) => self.start_over(leaves, range),
        }
    }

    /// The same, but leaves what a private mapping has stored.
    fn unmap_but_own(&self, leaves: &mut Leaves, range: &Range<VmaOff>) -> Vec<Leaf> {
        let own = self.own_in(leaves, range);
        let mut at = range.start;
        for kept in own.iter().cloned().chain([range.end..range.end]) {
            if at < kept.start && self.take_back(&(at..kept.start)).is_err() {
                return self.start_over(leaves, &(range.start..range.start));
            }
            at = kept.end;
        }
        // The pages stay, and the references of the folios that they were copied from go.
        let mut zapped = leaves.carve(range);
        for kept in own {
            let pages = kept.end.since(kept.start);
            zapped.extend(leaves.put(Leaf { at: kept.start, pages, target: Target::Own }));
        }
        zapped
    }

    fn take_back(&self, range: &Range<VmaOff>) -> io::Result<()> {
        self.vma.zap(range.start, range.end.since(range.start))
    }

    /// Takes back everything, because the host has no area left to take back a part. What a private
    /// mapping has stored outside `lost` stays; in an eager one that has no room for it either, it is
    /// SIGBUS from then on. Returns what was shown.
    fn start_over(&self, leaves: &mut Leaves, lost: &Range<VmaOff>) -> Vec<Leaf> {
        let all = VmaOff(0).span(self.vma.pages());
        let is_kept = |page: &VmaOff| !lost.contains(page);
        let own = self.own_in(leaves, &all).into_iter().flat_map(|own| self.there_of(own));
        let own = own.flat_map(|own| (own.start.0..own.end.0).map(VmaOff)).filter(is_kept);
        let own: Vec<_> = own.map(|page| (page, self.bytes_of(page))).collect();
        let is_void = self.take_back_all(&all);
        let mut zapped = leaves.carve(&all);
        if is_void {
            // Until it is filled again, or asked for again.
            let (at, pages) = (all.start, self.vma.pages());
            zapped.extend(leaves.put(Leaf { at, pages, target: Target::Failed }));
        }
        for (at, bytes) in own {
            let target = match bytes.and_then(|bytes| self.show_own(at, &bytes).ok()) {
                Some(()) => Target::Own,
                None => Target::Poisoned,
            };
            zapped.extend(leaves.put(Leaf { at, pages: Pages(1), target }));
        }
        zapped
    }

    /// Takes everything back. Returns whether it is void then.
    ///
    /// It leaves fewer areas than there were. Those that it needs meanwhile are in reserve, or with
    /// another thread that is doing the same.
    fn take_back_all(&self, all: &Range<VmaOff>) -> bool {
        let (at, pages) = (all.start, self.vma.pages());
        loop {
            if self.take_back(all).is_ok() {
                return !self.vma.is_lazy();
            }
            // What takes its place counts beside it against the limit of memory that is locked.
            self.vma.unlock(at, pages);
            if self.take_back(all).is_ok() {
                return !self.vma.is_lazy();
            }
            // These need no other addresses, of which there is a limit, too.
            if self.vma.map_void(at, pages).or_else(|_| self.vma.forbid(at, pages)).is_ok() {
                return true;
            }
            std::thread::yield_now();
        }
    }

    /// The pages of the program's own that it has not given back to the host: a load of one of those
    /// would wait for the lock that is held here.
    fn there_of(&self, own: Range<VmaOff>) -> Vec<Range<VmaOff>> {
        self.vma.copied_pages(own).expect("it was opened when the mapping was made")
    }

    /// A page that a private mapping has stored to.
    fn bytes_of(&self, at: VmaOff) -> Option<Box<[u8]>> {
        let mut bytes = vec![0; PAGE_SIZE].into_boxed_slice();
        self.vma.read(at.byte(), &mut bytes).ok().map(|()| bytes)
    }

    /// Shows a page of the program's own where nothing is shown.
    fn show_own(&self, at: VmaOff, bytes: &[u8]) -> io::Result<()> {
        if self.vma.is_lazy() {
            self.vma.map_copy(at, bytes)?;
            return self.vma.unprotect(at, Pages(1));
        }
        self.vma.map_private_hole(at, Pages(1))?;
        self.vma.write(at.byte(), bytes).map_err(io::Error::other)
    }

    /// What a private mapping has stored to in `range`, in order.
    fn own_in(&self, leaves: &Leaves, range: &Range<VmaOff>) -> Vec<Range<VmaOff>> {
        let mut own = Vec::new();
        for leaf in leaves.overlapping(range) {
            let part = leaf.at.max(range.start)..leaf.range().end.min(range.end);
            match &leaf.target {
                Target::Own => own.push(part),
                Target::Folios(shown) if shown.sharing == Sharing::Private => {
                    let copied = self.vma.copied_pages(part);
                    own.extend(copied.expect("it was opened when the mapping was made"));
                }
                _ => (),
            }
        }
        own
    }
}

impl Leaves {
    fn covering(&self, at: VmaOff) -> Option<&Leaf> {
        let (_, leaf) = self.by_start.range(..=at).next_back()?;
        leaf.range().contains(&at).then_some(leaf)
    }

    /// The range of the first leaf that overlaps `range` and is meant.
    fn first_that(
        &self,
        range: &Range<VmaOff>,
        is_meant: impl Fn(&Leaf) -> bool,
    ) -> Option<Range<VmaOff>> {
        self.overlapping(range).find(|leaf| is_meant(leaf)).map(Leaf::range)
    }

    fn overlapping(&self, range: &Range<VmaOff>) -> impl Iterator<Item = &Leaf> {
        let start = self.covering(range.start).map_or(range.start, |leaf| leaf.at);
        let end = if range.is_empty() { start } else { range.end };
        self.by_start.range(start..end).map(|(_, leaf)| leaf)
    }

    /// The part of `range` around `wanted` where nothing is shown that stays, or what is shown at
    /// `wanted`.
    fn gap(&self, range: &Range<VmaOff>, wanted: VmaOff) -> Result<Range<VmaOff>, Range<VmaOff>> {
        let mut gap = range.clone();
        for leaf in self.overlapping(range).filter(|leaf| !leaf.is_absent()) {
            let there = leaf.range();
            if there.contains(&wanted) {
                return Err(there);
            }
            if there.end <= wanted {
                gap.start = there.end;
            } else {
                gap.end = there.start;
                break;
            }
        }
        Ok(gap)
    }

    /// One range that holds all that has to be unmapped. Of folios larger than a page it may reach
    /// outside `part`, and nothing but theirs lies between.
    fn hull(
        &self,
        part: &Range<VmaOff>,
        range: &Range<FileIndex>,
        index: impl Fn(VmaOff) -> FileIndex,
    ) -> Option<Range<VmaOff>> {
        let inside = self
            .overlapping(part)
            .map(|leaf| leaf.range().start.max(part.start)..leaf.range().end.min(part.end));
        // The folio that the range cuts may be shown before and behind it, too: in one piece, or in
        // several.
        let (pieces, reach) = match self.in_pieces {
            Order::Base => (1, Order::Pud.pages().0),
            order => (usize::MAX, order.pages().0),
        };
        let before = self.by_start.range(..part.start).rev().map(|(_, leaf)| leaf);
        let behind = self.by_start.range(part.end..).map(|(_, leaf)| leaf);
        let before = before.take_while(|leaf| leaf.range().end.0 + reach > part.start.0);
        let behind = behind.take_while(|leaf| leaf.at.0 < part.end.0.saturating_add(reach));
        let near = before.take(pieces).chain(behind.take(pieces));
        let counted = self.overlapping(part).chain(near);
        let counted = counted.filter_map(|leaf| leaf.counted_in(index(leaf.at), range));
        inside
            .chain(counted)
            .reduce(|one, other| one.start.min(other.start)..one.end.max(other.end))
    }

    /// Puts a leaf in the place of what it covers, and joins it to its neighbours. Returns what was
    /// covered.
    fn put(&mut self, leaf: Leaf) -> Vec<Leaf> {
        self.in_pieces = self.in_pieces.max(leaf.piece_of());
        let hidden = self.carve(&leaf.range());
        let mut leaf = leaf;
        let follows = self.by_start.remove(&leaf.range().end);
        if let Some(refused) = follows.and_then(|follows| leaf.join(follows)) {
            self.by_start.insert(refused.at, refused);
        }
        let before = self.by_start.range_mut(..leaf.at).next_back();
        let apart = match before {
            Some((_, before)) => before.join(leaf),
            None => Some(leaf),
        };
        if let Some(leaf) = apart {
            self.by_start.insert(leaf.at, leaf);
        }
        hidden
    }

    /// Takes `range` out of every leaf.
    fn carve(&mut self, range: &Range<VmaOff>) -> Vec<Leaf> {
        let last = self.by_start.range(..range.end).next_back();
        if last.is_none_or(|(_, leaf)| leaf.range().end <= range.start) {
            return Vec::new();
        }
        self.cut(range.start);
        self.cut(range.end);
        self.by_start.extract_if(range.clone(), |_, _| true).map(|(_, leaf)| leaf).collect()
    }

    /// Makes `at` the start of a leaf if it lies inside one.
    fn cut(&mut self, at: VmaOff) {
        let Some((_, leaf)) = self.by_start.range_mut(..at).next_back() else { return };
        if leaf.range().end > at {
            let rest = leaf.split_off(at);
            self.by_start.insert(at, rest);
        }
    }
}

/// Where a table of `pages` pages that begins with page `first` of the file shows `range`.
fn part_of(range: &Range<FileIndex>, first: FileIndex, pages: Pages) -> Range<VmaOff> {
    let clip = |index: FileIndex| VmaOff(index.0.saturating_sub(first.0).min(pages.0));
    clip(range.start)..clip(range.end)
}
