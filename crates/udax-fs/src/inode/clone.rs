//! Cloning: a range of one file becomes data of another, without a copy.
//!
//! This file owns how a tree comes to refer to data of another one, in steps that fit in the
//! journal. Each step is a transaction, so a crash shows a number of whole steps, from the start of
//! the range on. Copies are made when one of the files is stored to; see copy.rs.

use std::ops::Range;

use udax_mm::sync::Arc;
use udax_mm::units::PAGE_BYTES;
use udax_mm::{FileIndex, Pages, Patience};

use super::pair::{Pair, Role, Side};
use super::{Inode, Node, State, end_of, pages_holding};
use crate::FsError;
use crate::alloc::Extent;
use crate::block::BLOCK_PAGES;
use crate::graft::Piece;
use crate::proof::{Txn, Vacant};
use crate::replace::Content;
use crate::store::Store;
use crate::tree::{Run, Tree};

/// Tree entries that one step adds, at most: with those that it takes out they fit in the journal of
/// any pool.
const ENTRIES: u64 = 1024;

/// Whole pages that come to lie in another place, too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    /// First page of the source.
    pub(super) from: FileIndex,
    /// First page of the target.
    pub(super) to: FileIndex,
    /// How many.
    pub(super) pages: Pages,
    /// Bytes; the last page counts only as far as both files reach.
    pub(super) len: u64,
    pub(super) why: Why,
}

/// What a file is changed for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// Its bytes become others.
    Clone,
    /// Its bytes stay the same, and so do its size and its times.
    Dedupe,
}

impl Inode {
    /// Makes the bytes of `range` appear in `target` from byte `at` on, without a copy: both files
    /// refer to the same pages until one of them is stored to. Holes of the range become holes.
    ///
    /// Returns how many bytes: all, unless the pool becomes full or the device fails in the middle.
    /// `target` may be the same file. What is cloned is what the range held at one moment between
    /// call and return, with everything stored before through mappings, and is durable. A crash
    /// leaves the clone done up to some page. A range that is empty is cloned at once.
    ///
    /// # Blocking
    ///
    /// Waits as `wait` says for pins of both ranges, because a device would go on storing to what
    /// is shared; within one file also for those of what lies between. Pins of data that is shared
    /// already are for reading, and are not waited for.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::NotAligned`] unless all three places are at the border of a page; the end
    /// may be that of the source, where then the target must end, too. Returns
    /// [`FsError::PastEnd`], [`FsError::Overlap`], [`FsError::OtherPool`], [`FsError::Source`] with
    /// the holders of pins of this file and [`FsError::Layout`] with those of the target (and of both
    /// ranges if it is the same file), [`FsError::Quarantined`] if the device of a dead owner may
    /// still store to the range, [`FsError::NoSpace`] if not even the first step fits, and what
    /// [`Inode::write_at`] returns for a target that cannot be written. The source may be frozen.
    pub fn clone_range<'i>(
        &self,
        range: Range<u64>,
        target: &Inode,
        at: u64,
        wait: impl Into<Patience<'i>>,
    ) -> Result<u64, FsError> {
        self.check_move(&range, target, at)?;
        if range.is_empty() {
            return Ok(0);
        }
        let len = range.end - range.start;
        let from = self.side(Role::Source, range.start, len);
        let to = target.side(Role::Target, at, len);
        let pages = from.pages.end.since(from.pages.start);
        let plan = Move { from: from.pages.start, to: to.pages.start, pages, len, why: Why::Clone };
        let patience = wait.into();
        loop {
            if target.node.read().size() < at {
                target.own_tail()?;
            }
            let mut pair = Pair::hold(&from, &to, patience)?;
            self.check_clone(&range, target, at)?;
            let grown = target.node.read().size()..at;
            let done = self.share(target, &plan, &mut pair)?;
            drop(pair);
            target.show(FileIndex(0)..FileIndex(0), grown);
            if let Some(done) = done {
                return Ok(done);
            }
            // The target has begun to share the page in which it ends.
        }
    }

    /// The pages of `len` bytes at `at`.
    pub(super) fn side(&self, role: Role, at: u64, len: u64) -> Side<'_> {
        Side { inode: self, pages: pages_holding(at, at + len), role }
    }

    /// Refuses what can be seen to be wrong without a lock.
    pub(super) fn check_move(
        &self,
        range: &Range<u64>,
        target: &Inode,
        at: u64,
    ) -> Result<(), FsError> {
        let len = range.end.saturating_sub(range.start);
        target.check_can_write(at.saturating_add(len))?;
        self.check_file()?;
        if !Arc::ptr_eq(&self.node.core, &target.node.core) {
            return Err(FsError::OtherPool);
        }
        if let Some(&byte) = [range.start, at].iter().find(|byte| !byte.is_multiple_of(PAGE_BYTES))
        {
            return Err(FsError::NotAligned(byte));
        }
        let is_apart = range.end <= at || at + len <= range.start;
        if self.ino() == target.ino() && !is_apart && len > 0 {
            return Err(FsError::Overlap);
        }
        Ok(())
    }

    /// Refuses a range that is not one of the source, or would put the end of a page into the
    /// middle of the target. Both layouts are held.
    fn check_clone(&self, range: &Range<u64>, target: &Inode, at: u64) -> Result<(), FsError> {
        let size = self.node.read().size();
        if range.end > size {
            return Err(FsError::PastEnd { size, wanted: range.end });
        }
        let end = at + (range.end - range.start);
        let ends_both = range.end == size && end >= target.node.read().size();
        if range.end.is_multiple_of(PAGE_BYTES) || ends_both {
            return Ok(());
        }
        Err(FsError::NotAligned(range.end))
    }

    /// Lets the target refer to pages of this file, in steps, and returns how many bytes that are.
    /// `None`, and nothing, if the target shares the page in which it ends, whose end would have to
    /// be zeroed.
    pub(super) fn share(
        &self,
        target: &Inode,
        plan: &Move,
        pair: &mut Pair<'_>,
    ) -> Result<Option<u64>, FsError> {
        let mut vacant = Vacant::take(&self.node.core.store, pair.target());
        self.node.check_no_late_writer(plan)?;
        self.node.clean_tail(plan)?;
        let is_same = self.ino() == target.ino();
        if !is_same {
            self.node.begin_to_share()?;
        }
        let source = self.node.read().tree;
        let mut state = target.node.write();
        state.check_not_frozen()?;
        let (size, at) = (state.size(), plan.to.byte());
        let is_behind = plan.why == Why::Clone && size < at;
        if is_behind && target.node.shares_page_of(&state, size)? {
            return Ok(None);
        }
        if is_behind {
            target.node.zero_tail(&state, at)?;
            // Durable before the size that shows them: whether a commit makes F1 by itself depends
            // on what others have committed.
            self.node.core.store.fence_all()?;
        }
        let mut done = Pages(0);
        while done < plan.pages {
            let tree = if is_same { state.tree } else { source };
            match target.node.share_step(&mut state, &tree, plan, done, &mut vacant) {
                Ok(more) => done = done + more,
                Err(error) if done.is_empty() => return Err(error),
                Err(_) => return Ok(Some(done.bytes())),
            }
        }
        Ok(Some(plan.len))
    }
}

impl Node {
    /// Refuses pages that the device of a dead owner may still store to: a store would reach all
    /// files that share them.
    fn check_no_late_writer(&self, plan: &Move) -> Result<(), FsError> {
        let store = &self.core.store;
        for run in self.read().tree.runs(store, plan.from..plan.from + plan.pages)? {
            let extent = Extent { start: run.device, pages: run.pages };
            if let Some(label) = store.quarantine.writer_of(extent) {
                return Err(FsError::Quarantined { label });
            }
        }
        Ok(())
    }

    /// Says on the medium that others may have data of this file, before one has.
    #[track_caller]
    fn begin_to_share(&self) -> Result<(), FsError> {
        let mut state = self.write();
        if state.tree.may_share {
            return Ok(());
        }
        let mut next = state.clone();
        next.tree.may_share = true;
        self.commit(&mut state, next, Txn::new(&self.core.store))
    }

    /// Zeros what mappings left behind the end of the source, if that page is to be shared: the
    /// target's mappings would show it. The zeros are durable at return, before anything refers to
    /// the page.
    #[track_caller]
    fn clean_tail(&self, plan: &Move) -> Result<(), FsError> {
        let state = self.write();
        let is_whole = end_of(state.size()) > plan.from + plan.pages;
        if is_whole || state.record.is_frozen() || self.shares_page_of(&state, state.size())? {
            return Ok(());
        }
        self.zero_tail(&state, u64::MAX)?;
        self.core.store.fence_all()
    }

    /// Makes one step of `plan`, of which `done` pages are done. Returns how many more that are.
    #[track_caller]
    fn share_step(
        &self,
        state: &mut State,
        source: &Tree,
        plan: &Move,
        done: Pages,
        vacant: &mut Vacant,
    ) -> Result<Pages, FsError> {
        let store = &self.core.store;
        let (from, to) = (plan.from + done, plan.to + done);
        let runs = source.runs(store, from..plan.from + plan.pages)?;
        let (pieces, pages) = next_pieces(&runs, from, to, plan.pages - done);
        let range = to..to + pages;
        let mut txn = Txn::new(store);
        let mut next = state.clone();
        next.tree.may_share = true;
        let pieces = in_one_medium_each(store, pieces)?;
        let swap = next.tree.replace(store, range, Content::Shared(pieces))?;
        let part = vacant.split_off(swap.freed());
        next.tree = txn.cut(swap.flush(store)?.fence(store)?, part)?;
        if plan.why == Why::Clone {
            let bytes = plan.len.min((done + pages).bytes());
            next.record.size.set(state.size().max(plan.to.byte() + bytes));
            next.touch();
        }
        self.commit(state, next, txn)?;
        Ok(pages)
    }
}

/// What one step adds at `to`, out of `runs` of a source from `from` on: pieces of at most
/// [`ENTRIES`] tree entries, and how many of `left` pages the step is done with.
fn next_pieces(runs: &[Run], from: FileIndex, to: FileIndex, left: Pages) -> (Vec<Piece>, Pages) {
    let mut room = ENTRIES;
    let mut pieces = Vec::new();
    for run in runs {
        let index = to + run.index.since(from);
        let entries = entries(index, run);
        let pages = if entries <= room { run.pages } else { Pages(room) };
        if !pages.is_empty() {
            pieces.push(Piece { index: index.0, extent: Extent { start: run.device, pages } });
        }
        if pages < run.pages {
            return (pieces, index.since(to) + pages);
        }
        room -= entries;
    }
    (pieces, left)
}

/// Cuts pieces where one medium ends: what is one entry has to be one folio (I-62).
fn in_one_medium_each(store: &Store, pieces: Vec<Piece>) -> Result<Vec<Piece>, FsError> {
    let mut cut = Vec::with_capacity(pieces.len());
    for mut piece in pieces {
        while !piece.extent.pages.is_empty() {
            let pages = store.span(piece.extent)?.pages();
            let first = Extent { pages, ..piece.extent };
            cut.push(Piece { extent: first, ..piece });
            let rest = Extent { start: first.end(), pages: piece.extent.pages - pages };
            piece = Piece { index: piece.index + pages.0, extent: rest };
        }
    }
    Ok(cut)
}

/// The tree entries that refer to a run at `index` of a file.
fn entries(index: FileIndex, run: &Run) -> u64 {
    let pages = run.pages.0;
    if index.0 % BLOCK_PAGES != run.device.0 % BLOCK_PAGES {
        return pages;
    }
    let head = (index.0.next_multiple_of(BLOCK_PAGES) - index.0).min(pages);
    head + (pages - head) / BLOCK_PAGES + (pages - head) % BLOCK_PAGES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::to_u64;
    use udax_mm::{DeviceOff, Order};

    fn run(index: u64, device: u64, pages: u64) -> Run {
        let (index, device, pages) = (FileIndex(index), DeviceOff(device), Pages(pages));
        Run { index, device, pages, order: Order::Base }
    }

    #[test]
    fn aligned_blocks_take_one_entry() {
        let cases = [
            (0, run(0, 512, 512), 1),
            (0, run(0, 513, 512), 512),
            (510, run(0, 1022, 2 + 512 + 3), 6),
            (3, run(0, 515, 100), 100),
        ];
        for (index, run, expected) in cases {
            assert_eq!(entries(FileIndex(index), &run), expected, "{run:?}");
        }
    }

    #[test]
    fn a_step_ends_where_the_journal_would_be_full_and_goes_over_holes() {
        let runs = [run(10, 100, 1000), run(2000, 3000, 100), run(9000, 1, 5)];
        let (pieces, pages) = next_pieces(&runs, FileIndex(10), FileIndex(0), Pages(9000));
        assert_eq!(pages, Pages(1990 + 24));
        assert_eq!(to_u64(pieces.len()), 2);
        assert_eq!(pieces[1].extent, Extent { start: DeviceOff(3000), pages: Pages(24) });
        let (_, pages) = next_pieces(&runs[..1], FileIndex(10), FileIndex(0), Pages(9000));
        assert_eq!(pages, Pages(9000), "the rest is a hole");
    }
}
