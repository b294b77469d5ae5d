//! Writing bytes: in place where the file has pages of its own, out of place where it has none, or
//! only pages that it shares.

use udax_mm::{FileIndex, Pages};

use super::copy::Overlay;
use super::fill::next_chunk;
use super::{Inode, Node, State, pages_holding};
use crate::FsError;
use crate::format::MAX_FILE_BYTES;
use crate::num::{to_u64, to_usize};

impl Inode {
    /// Writes `bytes` at `at`, and returns how many: all, unless the pool becomes full or the
    /// device fails in the middle.
    ///
    /// What was written is durable at return. Bytes that exist are overwritten in place, 8 at a
    /// time; what is new (holes, and everything past the end) appears at once, together with the
    /// size. Data that other files have too is copied, and the bytes appear in the copy at once. A
    /// write that crosses a multiple of 4 MiB, or the border of such data, is several such steps,
    /// in order. The time of a write that only overwrites is durable with the next [`Inode::sync`].
    ///
    /// # Errors
    ///
    /// Pages whose memory failed get new bytes if the write covers all of them, and are as good as
    /// before. Returns [`FsError::PartlyLost`] if it does not, before the step changed anything.
    ///
    /// Returns [`FsError::NoSpace`] if not even the first step fits; nothing has changed then.
    /// Returns [`FsError::Frozen`], [`FsError::ReadOnly`], [`FsError::TooLarge`],
    /// [`FsError::IsADirectory`] and [`FsError::NotAFile`] for what cannot be written.
    pub fn write_at(&self, bytes: &[u8], at: u64) -> Result<usize, FsError> {
        self.check_can_write(at.saturating_add(to_u64(bytes.len())))?;
        let _writer = self.writer.lock();
        match self.write_chunks(bytes, at) {
            (0, Err(error)) => Err(error),
            (done, _) => Ok(done),
        }
    }

    /// Writes `bytes` at the end of the file, wherever that is when nobody else writes, and returns
    /// where they went.
    ///
    /// # Errors
    ///
    /// As [`Inode::write_at`]. If not all bytes fit, none of them is kept.
    pub fn append(&self, bytes: &[u8]) -> Result<u64, FsError> {
        self.check_can_write(to_u64(bytes.len()))?;
        let writer = self.writer.lock();
        let at = self.node.read().size();
        self.check_can_write(at.saturating_add(to_u64(bytes.len())))?;
        let (done, ended) = self.write_chunks(bytes, at);
        if done > 0 && ended.is_err() {
            let deferred = self.truncate_locked(at)?;
            drop(writer);
            deferred.tell();
        }
        ended.map(|()| at)
    }

    /// Refuses what cannot be written at all, or not up to byte `end`.
    pub(super) fn check_can_write(&self, end: u64) -> Result<(), FsError> {
        self.node.core.check_writable()?;
        self.check_file()?;
        self.node.read().check_not_frozen()?;
        if end > MAX_FILE_BYTES {
            return Err(FsError::TooLarge { max: MAX_FILE_BYTES });
        }
        Ok(())
    }

    /// Writes step by step, and returns how many bytes, and why not all. The caller holds the writer
    /// lock.
    fn write_chunks(&self, bytes: &[u8], at: u64) -> (usize, Result<(), FsError>) {
        let mut done = 0;
        while done < bytes.len() {
            let from = at + to_u64(done);
            let len = to_usize(next_chunk(from) - from).min(bytes.len() - done);
            match self.write_step(&bytes[done..done + len], from) {
                Ok(written) => done += written,
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    /// Writes the first of some bytes that lie in one chunk, and returns how many: up to where data
    /// that the file shares begins or ends.
    fn write_step(&self, bytes: &[u8], at: u64) -> Result<usize, FsError> {
        let end = at + to_u64(bytes.len());
        loop {
            // What is new appears at once, also in the page in which the file ends.
            if self.node.read().size() < end {
                self.own_tail()?;
            }
            let shared = self.first_shared(pages_holding(at, end))?;
            let from = shared.as_ref().map_or(end, |shared| shared.start.byte().min(end));
            let is_written = if let Some(shared) = shared.filter(|_| from <= at) {
                let part = &bytes[..to_usize(end.min(shared.end.byte()) - at)];
                let is_copied = self.copy(&shared, Overlay { bytes: part, at })?;
                is_copied.then_some(part.len())
            } else {
                let part = &bytes[..to_usize(from - at)];
                self.write_in_place(part, at)?.then_some(part.len())
            };
            // Else others began or ceased to share the data meanwhile.
            if let Some(written) = is_written {
                return Ok(written);
            }
        }
    }

    /// Writes bytes that lie in one chunk, and lets mappings see what that has healed. False, and
    /// nothing, if the file shares a page that would be stored to.
    fn write_in_place(&self, bytes: &[u8], at: u64) -> Result<bool, FsError> {
        let mut healed = Vec::new();
        let mut written = self.write_over(bytes, at, &mut healed);
        if written.as_ref().is_err_and(FsError::is_lost_memory) {
            // Found just now: known to have failed, it is healed or refused.
            self.report_failures(at..at + to_u64(bytes.len()));
            written = self.write_over(bytes, at, &mut healed);
        }
        if let (Some(&first), Some(&last)) = (healed.iter().min(), healed.iter().max()) {
            self.mapping.heal(first..last + Pages(1));
        }
        written
    }

    fn write_over(
        &self,
        bytes: &[u8],
        at: u64,
        healed: &mut Vec<FileIndex>,
    ) -> Result<bool, FsError> {
        let end = at + to_u64(bytes.len());
        let pages = pages_holding(at, end);
        let layout = self.mapping.faults();
        let mut state = self.node.write();
        state.check_not_frozen()?;
        let size = state.size();
        if self.node.shares(&state, pages.clone())?
            || size < at && self.node.shares_page_of(&state, size)?
        {
            return Ok(false);
        }
        let failed = self.node.pages_to_heal(&state, at, end)?;
        let pieces = self.node.written(&state, bytes, at)?;
        // Before the first byte is overwritten, because the pool may have no page for a node.
        let graft = self.node.graft(&state, pieces)?;
        let is_overwrite = graft.is_none() && end <= size;
        if size < at {
            self.node.zero_tail(&state, at)?;
        }
        for page in &failed {
            self.node.heal(page, bytes, at)?;
            healed.push(page.index);
        }
        self.node.overwrite(&state, bytes, at)?;
        if is_overwrite {
            self.node.core.store.fence()?;
            state.touch_lazily();
            let may_be_copied = state.tree.may_share;
            drop(state);
            drop(layout);
            if may_be_copied || self.mapping.may_show_zeros() {
                // Protected copies from when the pages were shared, or zeros of a hole that a fault
                // has filled just now.
                self.mapping.invalidate_holes(pages);
            }
            return Ok(true);
        }
        self.node.publish(&mut state, graft, end)?;
        drop(state);
        drop(layout);
        self.show(pages, size..end.max(size));
        Ok(true)
    }
}

impl Node {
    /// Writes the part of `bytes` for which there are pages. Durable with the next fence.
    #[track_caller]
    fn overwrite(&self, state: &State, bytes: &[u8], at: u64) -> Result<(), FsError> {
        let end = at + to_u64(bytes.len());
        for run in state.tree.runs(&self.core.store, pages_holding(at, end))? {
            let run_end: FileIndex = run.index + run.pages;
            let from = run.index.byte().max(at);
            let to = run_end.byte().min(end);
            let device = run.device.byte() + (from - run.index.byte());
            self.core
                .store
                .write_in_place(device, &bytes[to_usize(from - at)..to_usize(to - at)])?;
        }
        Ok(())
    }
}
