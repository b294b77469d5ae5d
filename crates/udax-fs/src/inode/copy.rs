//! Copy on write: a file gets pages of its own for data that other places of trees have too.
//!
//! Nobody stores to shared data (I-36): a write, a zeroed tail and a store through a mapping first
//! move the file to pages of its own. The copy is written out of place and published by one
//! transaction, so that one which fails (bad memory, no space) has changed nothing (O-3).

use std::ops::Range;

use udax_mapping::BreakError;
use udax_mm::units::PAGE_BYTES;
use udax_mm::{FileIndex, Wait};

use super::fill::{Pieces, next_chunk};
use super::{Inode, Node, State, end_of};
use crate::FsError;
use crate::alloc::Extent;
use crate::num::{to_u64, to_usize};
use crate::proof::{Txn, Vacant};
use crate::replace::Content;
use crate::store::Fresh;
use crate::stored::{Data, Dirty, Stored};
use crate::tree::Run;

/// Bytes that go over a copy, from a byte of the file on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overlay<'b> {
    pub(super) bytes: &'b [u8],
    pub(super) at: u64,
}

impl Overlay<'_> {
    /// The copy is what was there.
    pub(super) const NONE: Overlay<'static> = Overlay { bytes: &[], at: 0 };

    fn end(&self) -> u64 {
        self.at + to_u64(self.bytes.len())
    }

    /// Whether nothing of these bytes is left.
    pub(super) fn covers(&self, bytes: &Range<u64>) -> bool {
        self.at <= bytes.start && bytes.end <= self.end()
    }
}

impl Inode {
    /// Gives the file pages of its own for the bytes of `range`, rounded to whole pages: where it
    /// shares them with other files they are copied. Holes stay holes, and no byte changes; a
    /// frozen file may be told to, too.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::NoSpace`] if the pool cannot hold the copy, [`FsError::PartlyLost`] if memory
    /// of what is shared failed, and [`FsError::Device`] if the medium fails otherwise. Data before that is the file's own then, the rest is shared as it was.
    pub fn unshare(&self, range: Range<u64>) -> Result<(), FsError> {
        self.node.core.check_writable()?;
        self.check_file()?;
        let _writer = self.writer.lock();
        self.unshare_locked(range)
    }

    /// As [`Inode::unshare`]. The caller holds the writer lock.
    pub(super) fn unshare_locked(&self, range: Range<u64>) -> Result<(), FsError> {
        let mut from = FileIndex::of_byte(range.start);
        while let Some(shared) = self.first_shared(from..end_of(range.end))? {
            let chunk = FileIndex::of_byte(next_chunk(shared.start.byte()));
            let pages = shared.start..shared.end.min(chunk);
            self.copy(&pages, Overlay::NONE)?;
            // Not behind them: perhaps they had to be looked at again.
            from = pages.start;
        }
        Ok(())
    }

    /// The first pages in `range` that the file shares.
    pub(super) fn first_shared(
        &self,
        range: Range<FileIndex>,
    ) -> Result<Option<Range<FileIndex>>, FsError> {
        if !self.node.read().tree.may_share {
            return Ok(None);
        }
        let _faults = self.mapping.faults();
        let state = self.node.read();
        self.node.first_shared(&state, range)
    }

    /// Moves `pages`, all of which the file shared a moment ago, to pages of its own, with `new`
    /// over them. False, and nothing, if they are not what they were then.
    pub(super) fn copy(&self, pages: &Range<FileIndex>, new: Overlay<'_>) -> Result<bool, FsError> {
        let mut broken = match self.mapping.break_layout(pages.clone(), Wait::Never) {
            Ok(broken) => broken,
            // Who waits here for shared pages is nobody: these are the file's own meanwhile.
            Err(BreakError::Pinned { .. } | BreakError::Busy(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let vacant = Vacant::take(&self.node.core.store, &mut broken);
        let mut state = self.node.write();
        if !new.bytes.is_empty() {
            state.check_not_frozen()?;
        }
        let done = self.node.copy(&mut state, pages, new, vacant);
        if !matches!(done, Ok(true)) {
            // With the entries, the break removed the knowledge of what was stored to pages that
            // stay.
            self.node.flush_runs(&state, broken.range())?;
        }
        drop(state);
        drop(broken);
        done.map_err(|error| self.lost_in(pages, new, error))
    }

    /// Makes the page of byte `at` the file's own, if that byte is not the first of its page: bytes
    /// from there on are going to be zeroed.
    pub(super) fn own_page_of(&self, at: u64) -> Result<(), FsError> {
        if at.is_multiple_of(PAGE_BYTES) {
            return Ok(());
        }
        let page = FileIndex::of_byte(at)..end_of(at);
        while let Some(shared) = self.first_shared(page.clone())? {
            self.copy(&shared, Overlay::NONE)?;
        }
        Ok(())
    }

    /// Makes the page in which the file ends its own, before the bytes behind its end are zeroed.
    pub(super) fn own_tail(&self) -> Result<(), FsError> {
        let size = self.node.read().size();
        self.own_page_of(size)
    }
}

impl Node {
    /// The first pages in `range` that the file shares, up to the first that it does not. What is not
    /// shared stays so while the caller has the layout locked.
    pub(super) fn first_shared(
        &self,
        state: &State,
        range: Range<FileIndex>,
    ) -> Result<Option<Range<FileIndex>>, FsError> {
        if !state.tree.may_share || range.is_empty() {
            return Ok(None);
        }
        let mut found: Option<Range<FileIndex>> = None;
        for run in state.tree.runs(&self.core.store, range.start..range.end.min(state.end()))? {
            let extent = Extent { start: run.device, pages: run.pages };
            let shared = self.core.store.first_shared(extent).map(|shared| {
                let start = run.index + shared.start.since(run.device);
                start..start + shared.pages
            });
            match (&mut found, shared) {
                (None, None) => (),
                (None, shared) => found = shared,
                // What is adjacent in the file is copied at once, wherever it lies.
                (Some(found), Some(more)) if found.end == more.start => found.end = more.end,
                (Some(_), _) => break,
            }
        }
        Ok(found)
    }

    /// The data in `range` that others may have had when its layout was broken.
    pub(super) fn maybe_shared(
        &self,
        state: &State,
        range: Range<FileIndex>,
    ) -> Result<Vec<Run>, FsError> {
        if !state.tree.may_share {
            return Ok(Vec::new());
        }
        state.tree.runs(&self.core.store, range)
    }

    /// Whether the file shares any of `range`.
    pub(super) fn shares(&self, state: &State, range: Range<FileIndex>) -> Result<bool, FsError> {
        Ok(self.first_shared(state, range)?.is_some())
    }

    /// Whether the file shares the page that byte `at` lies in, and is not the first byte of.
    pub(super) fn shares_page_of(&self, state: &State, at: u64) -> Result<bool, FsError> {
        let page = FileIndex::of_byte(at)..end_of(at);
        Ok(!at.is_multiple_of(PAGE_BYTES) && self.shares(state, page)?)
    }

    /// Moves `pages` to new ones, with `new` over what they hold, and lets the file grow to the end
    /// of that. Behind the end of the file the copy holds zeros. False, and nothing, if not all of
    /// them are data.
    ///
    /// `vacant` is the proof for those that are not shared any more.
    #[track_caller]
    pub(super) fn copy(
        &self,
        state: &mut State,
        pages: &Range<FileIndex>,
        new: Overlay<'_>,
        vacant: Vacant,
    ) -> Result<bool, FsError> {
        let store = &self.core.store;
        let runs = state.tree.runs(store, pages.clone())?;
        let found: u64 = runs.iter().map(|run| run.pages.0).sum();
        if found < pages.end.since(pages.start).0 {
            return Ok(false);
        }
        let mut copies = Pieces::new();
        for run in &runs {
            copies.extend(self.copies(state, run, new)?);
        }
        let size = state.size().max(new.end());
        let mut txn = Txn::new(store);
        let mut next = state.clone();
        let swap = state.tree.replace(store, pages.clone(), Content::Fresh(copies))?;
        next.tree = txn.cut(swap.flush(store)?.fence(store)?, vacant)?;
        if !new.bytes.is_empty() {
            next.record.size.set(size);
            next.touch();
        }
        self.commit(state, next, txn)?;
        Ok(true)
    }

    /// New pages with what a run holds, and `new` over it.
    fn copies(&self, state: &State, run: &Run, new: Overlay<'_>) -> Result<Pieces, FsError> {
        let goal = self.goal(&state.tree, run.index)?;
        let range = run.index..run.index + run.pages;
        let mut copies = Pieces::new();
        for (index, fresh) in self.core.store.allocate_range(range, goal)? {
            let from = run.device + index.since(run.index);
            let source = Run { index, device: from, pages: fresh.extent().pages, ..*run };
            copies.push((index, self.copy_of(state, &source, fresh, new)?));
        }
        Ok(copies)
    }

    /// Writes what a run holds, and `new` over it, to as many new pages. What `new` covers is not
    /// read: it may be bad.
    fn copy_of(
        &self,
        state: &State,
        run: &Run,
        to: Fresh,
        new: Overlay<'_>,
    ) -> Result<Stored<Data, Dirty>, FsError> {
        let (store, start) = (&self.core.store, run.index.byte());
        let len = run.pages.bytes();
        let at_byte = |byte: u64| byte.clamp(start, start + len) - start;
        let over = at_byte(new.at)..at_byte(new.end());
        let old = at_byte(state.size());
        let mut bytes = vec![0; to_usize(len)];
        for part in [0..over.start.min(old), over.end.min(old)..old] {
            let into = &mut bytes[to_usize(part.start)..to_usize(part.end)];
            store.read(run.device.byte() + part.start, into)?;
        }
        if !over.is_empty() {
            let from = to_usize(start + over.start - new.at);
            let part = &new.bytes[from..from + to_usize(over.end - over.start)];
            bytes[to_usize(over.start)..to_usize(over.end)].copy_from_slice(part);
        }
        Stored::data(store, to, 0, &bytes)
    }
}
