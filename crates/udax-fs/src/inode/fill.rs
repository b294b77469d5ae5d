//! Filling holes: pages are allocated, written out of place, made durable and then published
//! together with the size, so that a crash shows all of it or nothing.

use std::ops::Range;

use udax_mm::units::PAGE_BYTES;
use udax_mm::{FileIndex, Pages};

use super::{Inode, Node, State, pages_holding};
use crate::FsError;
use crate::alloc::Goal;
use crate::graft::Graft;
use crate::num::{to_u64, to_usize};
use crate::stored::{Data, Dirty, Stored};
use crate::tree::{Lookup, Tree};
use crate::txn::Txn;

/// Bytes of a file that go into one transaction; a multiple of 2 MiB, so that every chunk but the
/// first and the last is made of whole 2 MiB blocks.
pub(super) const CHUNK: u64 = 4 << 20;

/// New pages for the holes of a file, not yet in its tree.
pub(super) type Pieces = Vec<(FileIndex, Stored<Data, Dirty>)>;

/// New pages with the nodes that hold them, if there are any, not yet in the tree of the file.
pub(super) type NewGraft = Option<Stored<Graft, Dirty>>;

/// What allocating does past the end of a file.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Past {
    Grow,
    Leave,
}

impl Inode {
    /// Allocates what is a hole in the bytes of `range`, and grows the file to the end of it.
    ///
    /// What is new reads as zeros; data that the file has stays as it is, shared or not. A file that is 2 MiB or larger gets 2 MiB blocks wherever a
    /// whole aligned 2 MiB of it is a hole, for as long as there are any.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::NoSpace`] if the pool cannot hold it, before it allocates anything;
    /// [`FsError::Frozen`], [`FsError::TooLarge`], [`FsError::ReadOnly`] as writing does.
    pub fn allocate(&self, range: Range<u64>) -> Result<(), FsError> {
        self.check_can_write(range.end)?;
        let _writer = self.writer.lock();
        self.allocate_chunks(range, Past::Grow)
    }

    /// Allocates what is a hole in the bytes of `range` up to the end of the file, which stays.
    ///
    /// A truncate meanwhile moves that end: what it cuts off does not come back.
    ///
    /// # Errors
    ///
    /// As [`Inode::allocate`].
    pub fn allocate_within(&self, range: Range<u64>) -> Result<(), FsError> {
        self.check_can_write(range.end)?;
        let _writer = self.writer.lock();
        let end = range.end.min(self.node.read().size());
        self.allocate_chunks(range.start..end, Past::Leave)
    }

    fn allocate_chunks(&self, range: Range<u64>, past: Past) -> Result<(), FsError> {
        if range.is_empty() {
            return Ok(());
        }
        self.check_room(&range)?;
        let mut from = range.start;
        while from < range.end {
            let to = range.end.min(next_chunk(from));
            if past == Past::Grow && to > self.node.read().size() {
                self.own_tail()?;
            }
            if self.allocate_chunk(from, to, past)? {
                from = to;
            }
        }
        Ok(())
    }

    /// Refuses what the pool cannot hold, before a part of it is allocated.
    fn check_room(&self, range: &Range<u64>) -> Result<(), FsError> {
        let pages = pages_holding(range.start, range.end);
        let store = &self.node.core.store;
        let wanted = self
            .look(|state| state.tree.pages_to_fill(store, &self.node.holes(&state.tree, pages)?))?;
        let free = store.free_pages();
        if wanted > free { Err(FsError::NoSpace { wanted, free }) } else { Ok(()) }
    }

    /// Allocates in one chunk. False, and nothing, if the file shares the page that it would have to
    /// zero the end of.
    fn allocate_chunk(&self, from: u64, to: u64, past: Past) -> Result<bool, FsError> {
        let (pages, grown) = {
            let _faults = self.mapping.faults();
            let mut state = self.node.write();
            state.check_not_frozen()?;
            let size = state.size();
            let to = if past == Past::Grow { to } else { to.min(size) };
            if from >= to {
                return Ok(true);
            }
            if to > size && self.node.shares_page_of(&state, size)? {
                return Ok(false);
            }
            let pages = pages_holding(from, to);
            let pieces = self.node.zeroed(&state, pages.clone())?;
            let graft = self.node.graft(&state, pieces)?;
            if graft.is_none() && to <= size {
                return Ok(true);
            }
            if to > size {
                self.node.zero_tail(&state, to)?;
            }
            self.node.publish(&mut state, graft, to)?;
            (pages, size..to)
        };
        self.show(pages, grown);
        Ok(true)
    }

    /// Lets user mappings see pages that were holes, or that lay past the end.
    pub(super) fn show(&self, filled: Range<FileIndex>, grown: Range<u64>) {
        self.mapping.invalidate_holes(filled);
        if !grown.is_empty() {
            self.mapping.invalidate_end(pages_holding(grown.start, grown.end));
        }
    }
}

impl Node {
    /// Fills the holes of `pages` with zeros.
    pub(super) fn fill(&self, state: &mut State, pages: Range<FileIndex>) -> Result<(), FsError> {
        let pieces = self.zeroed(state, pages)?;
        let graft = self.graft(state, pieces)?;
        let size = state.size();
        self.publish(state, graft, size)
    }

    /// Builds what hangs `pieces` into the tree; `None` for no pieces. The last step that may find
    /// the pool full.
    pub(super) fn graft(&self, state: &State, pieces: Pieces) -> Result<NewGraft, FsError> {
        if pieces.is_empty() {
            return Ok(None);
        }
        state.tree.insert(&self.core.store, pieces).map(Some)
    }

    /// Hangs `graft` into the tree and grows the file to `size` bytes, in one transaction.
    #[track_caller]
    pub(super) fn publish(
        &self,
        state: &mut State,
        graft: NewGraft,
        size: u64,
    ) -> Result<(), FsError> {
        let store = &self.core.store;
        let mut next = state.clone();
        let mut txn = Txn::new(store);
        match graft {
            // What was written in place is durable before the size that shows it.
            None => store.fence_all()?,
            Some(graft) => next.tree = txn.publish(graft.flush(store)?.fence(store)?),
        }
        next.record.size.set(size.max(state.size()));
        next.touch();
        self.commit(state, next, txn)
    }

    /// New zeroed pages for the holes of `pages`.
    fn zeroed(&self, state: &State, pages: Range<FileIndex>) -> Result<Pieces, FsError> {
        self.new_pages(state, pages, |_| (0, &[]))
    }

    /// New pages for the holes of `pages`, which hold `bytes` from byte `at` of the file on.
    pub(super) fn written(&self, state: &State, bytes: &[u8], at: u64) -> Result<Pieces, FsError> {
        let end = at + to_u64(bytes.len());
        self.new_pages(state, pages_holding(at, end), |piece| {
            let from = piece.start.byte().max(at);
            let to = piece.end.byte().min(end);
            (from - piece.start.byte(), &bytes[to_usize(from - at)..to_usize(to - at)])
        })
    }

    /// Allocates the holes of `pages`; `content` says what to write into each piece, and where.
    fn new_pages<'b>(
        &self,
        state: &State,
        pages: Range<FileIndex>,
        content: impl Fn(&Range<FileIndex>) -> (u64, &'b [u8]),
    ) -> Result<Pieces, FsError> {
        let (store, tree) = (&self.core.store, &state.tree);
        // A hole that reaches past the end goes on for ever.
        let end = state.end();
        let mut pieces = Vec::new();
        for hole in self.holes(tree, pages)? {
            let goal = self.goal(tree, hole.start)?;
            let allocated = if hole.end >= end {
                store.allocate_growing(self.ino, hole, goal)?
            } else {
                store.allocate_range(hole, goal)?
            };
            for (index, fresh) in allocated {
                let (offset, bytes) = content(&(index..index + fresh.extent().pages));
                pieces.push((index, Stored::data(store, fresh, offset, bytes)?));
            }
        }
        Ok(pieces)
    }

    /// The holes in `pages`, in order.
    fn holes(
        &self,
        tree: &Tree,
        pages: Range<FileIndex>,
    ) -> Result<Vec<Range<FileIndex>>, FsError> {
        let mut holes = Vec::new();
        let mut next = pages.start;
        for run in tree.runs(&self.core.store, pages.clone())? {
            if next < run.index {
                holes.push(next..run.index);
            }
            next = run.index + run.pages;
        }
        if next < pages.end {
            holes.push(next..pages.end);
        }
        Ok(holes)
    }

    /// Continues where the page before `index` lies.
    pub(super) fn goal(&self, tree: &Tree, index: FileIndex) -> Result<Goal, FsError> {
        let Some(before) = index.0.checked_sub(1).map(FileIndex) else { return Ok(Goal::Packed) };
        match tree.lookup(&self.core.store, before, before..index)? {
            Lookup::Run(run) => Ok(Goal::At(run.device + index.since(run.index))),
            Lookup::Hole(_) => Ok(Goal::Packed),
        }
    }

    /// Zeros the bytes from the end of the file to the end of its last page, or to byte `to`: a
    /// mapped store may have left something there, and growing must not show it.
    ///
    /// The zeros are durable with the next fence, which comes before the new size.
    ///
    /// # Panics
    ///
    /// Panics if the file shares that page (I-36).
    #[track_caller]
    pub(super) fn zero_tail(&self, state: &State, to: u64) -> Result<(), FsError> {
        let size = state.size();
        let end = size.next_multiple_of(PAGE_BYTES).min(to);
        if end <= size {
            return Ok(());
        }
        let index = FileIndex::of_byte(size);
        assert!(!self.shares_page_of(state, size)?, "I-36: bytes of a shared page are zeroed");
        match state.tree.lookup(&self.core.store, index, index..index + Pages(1))? {
            Lookup::Hole(_) => Ok(()),
            Lookup::Run(run) => {
                let at = run.device.byte() + size % PAGE_BYTES;
                match self.core.store.zero_in_place(at, end - size) {
                    // Nobody sees a byte of a lost page before a write replaces all of it.
                    Err(error) if error.is_lost_memory() => Ok(()),
                    done => done,
                }
            }
        }
    }
}

/// Where the chunk that holds byte `from` ends.
pub(super) fn next_chunk(from: u64) -> u64 {
    (from / CHUNK + 1) * CHUNK
}
