//! Pages of a file whose memory failed: which they are, and new bytes for them.
//!
//! Nothing is stored of this: the page map has the marks. A write of whole pages heals them in
//! place; whatever would leave a part of a lost page is refused.

use std::ops::Range;

use udax_dev::{DaxSpan, IoError};
use udax_mm::units::PAGE_BYTES;
use udax_mm::{FileIndex, MediaError, PAGE_SIZE, Pages};

use super::copy::Overlay;
use super::iomap::spans;
use super::{END, Inode, Node, State, pages_holding};
use crate::FsError;
use crate::num::{to_u64, to_usize};
use crate::tree::Tree;

/// A page of a file whose memory failed.
pub(super) struct Failed {
    pub(super) index: FileIndex,
    pub(super) page: DaxSpan,
}

impl Inode {
    /// The bytes that are lost, because their memory failed, in order and up to the end of the
    /// file. To read them is an error, to touch them in a mapping SIGBUS. [`Inode::write_at`] heals
    /// whole pages of them.
    ///
    /// Lists what is known: what nobody has touched yet is found when it is read.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Corrupt`] if the tree of the file cannot be read.
    pub fn bad_ranges(&self) -> Result<Vec<Range<u64>>, FsError> {
        self.node.core.check_open()?;
        let lost = self.lost(FileIndex(0)..END)?;
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for bytes in lost.into_iter().filter(|bytes| !bytes.is_empty()) {
            match ranges.last_mut() {
                Some(last) if last.end == bytes.start => last.end = bytes.end,
                _ => ranges.push(bytes),
            }
        }
        Ok(ranges)
    }

    /// The bytes of each failed page among `pages`, in order and up to the end of the file.
    fn lost(&self, pages: Range<FileIndex>) -> Result<Vec<Range<u64>>, FsError> {
        self.look(|state| {
            let failed = self.node.failed_pages(&state.tree, pages)?;
            Ok(failed.iter().map(|page| page.bytes(state.size())).collect())
        })
    }

    /// Marks the pages of these bytes that fail when they are read, and tells everybody who has
    /// them. Called without any lock, after a medium failed.
    pub(super) fn report_failures(&self, bytes: Range<u64>) {
        let pages = pages_holding(bytes.start, bytes.end);
        let failing = self.look(|state| self.node.find_failing(state, pages));
        // What cannot be looked at has failed in another way, and the caller says how.
        for page in failing.unwrap_or_default() {
            page.pgmap().memory_failure(page.range());
        }
    }
}

impl Inode {
    /// Says of a copy of `pages`, with `new` over them, that failed because memory has, which bytes
    /// are lost that it would have needed. Called without any lock.
    pub(super) fn lost_in(
        &self,
        pages: &Range<FileIndex>,
        new: Overlay<'_>,
        error: FsError,
    ) -> FsError {
        if !error.is_lost_memory() {
            return error;
        }
        self.report_failures(pages.start.byte()..pages.end.byte());
        let lost = self.lost(pages.clone()).unwrap_or_default();
        match lost.iter().find(|bytes| !new.covers(bytes)) {
            Some(lost) => FsError::PartlyLost { start: lost.start, end: lost.end },
            None => error,
        }
    }
}

impl Failed {
    /// Its bytes, up to the end of a file of `size` bytes.
    fn bytes(&self, size: u64) -> Range<u64> {
        let start = self.index.byte();
        start..(start + PAGE_BYTES).min(size).max(start)
    }
}

impl Node {
    /// The failed pages among `pages`, in order.
    pub(super) fn failed_pages(
        &self,
        tree: &Tree,
        pages: Range<FileIndex>,
    ) -> Result<Vec<Failed>, FsError> {
        let store = &self.core.store;
        let mut failed = Vec::new();
        for (index, span) in spans(store, tree.runs(store, pages)?)? {
            let mut from = span.at();
            while let Some(page) = span.pgmap().first_poisoned(from..span.range().end) {
                let before = page.since(span.at());
                from = page + Pages(1);
                failed.push(Failed { index: index + before, page: span.slice(before, Pages(1)) });
            }
        }
        Ok(failed)
    }

    /// The failed pages that a write of `bytes` bytes at `at` replaces.
    ///
    /// # Errors
    ///
    /// [`FsError::PartlyLost`] if it would leave bytes of one of them that are lost.
    pub(super) fn pages_to_heal(
        &self,
        state: &State,
        at: u64,
        end: u64,
    ) -> Result<Vec<Failed>, FsError> {
        let failed = self.failed_pages(&state.tree, pages_holding(at, end))?;
        for page in &failed {
            // Past the end of the file there is nothing to lose.
            let lost = page.bytes(state.size().max(end));
            if at > lost.start || end < lost.end {
                return Err(FsError::PartlyLost { start: lost.start, end: lost.end });
            }
        }
        Ok(failed)
    }

    /// Refuses a file of which bytes are lost.
    pub(super) fn check_not_lost(&self, tree: &Tree) -> Result<(), FsError> {
        match self.failed_pages(tree, FileIndex(0)..END)?.first() {
            Some(failed) => {
                Err(FsError::Lost { at: failed.index.byte(), page: failed.index.byte() })
            }
            None => Ok(()),
        }
    }

    /// Gives a failed page new bytes: what `bytes`, which begin at byte `at` of the file, have for
    /// it, and zeros. Durable with the next fence.
    #[track_caller]
    pub(super) fn heal(&self, failed: &Failed, bytes: &[u8], at: u64) -> Result<(), FsError> {
        let from = to_usize(failed.index.byte() - at);
        let mut page = vec![0; PAGE_SIZE];
        let len = PAGE_SIZE.min(bytes.len() - from);
        page[..len].copy_from_slice(&bytes[from..from + len]);
        self.core.store.recover_in_place(&failed.page, &page)
    }

    /// Reads the pages of `into`, which begin at byte `at` of the device, up to the first that
    /// fails; returns how many bytes are good.
    pub(super) fn read_good(&self, at: u64, into: &mut [u8]) -> Result<usize, FsError> {
        let mut done = 0;
        while done < into.len() {
            let from = at + to_u64(done);
            let left = to_usize(PAGE_BYTES - from % PAGE_BYTES).min(into.len() - done);
            match self.core.store.read(from, &mut into[done..done + left]) {
                Ok(()) => done += left,
                Err(error) if error.is_lost_memory() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// The pages among `pages` that fail when they are read, and are not marked.
    fn find_failing(
        &self,
        state: &State,
        pages: Range<FileIndex>,
    ) -> Result<Vec<DaxSpan>, FsError> {
        let store = &self.core.store;
        let mut scratch = vec![0; PAGE_SIZE];
        let mut failing = Vec::new();
        for (_, span) in spans(store, state.tree.runs(store, pages)?)? {
            for page in (0..span.pages().0).map(|page| span.slice(Pages(page), Pages(1))) {
                let read = page.pgmap().read(page.at().byte(), &mut scratch);
                if let Err(MediaError::Fault { .. }) = read {
                    failing.push(page);
                }
            }
        }
        Ok(failing)
    }
}

impl FsError {
    /// Whether it says that memory of the medium failed.
    pub(crate) fn is_lost_memory(&self) -> bool {
        let FsError::Device(IoError::Media(error)) = self else { return false };
        matches!(error, MediaError::Fault { .. } | MediaError::Poisoned { .. })
    }

    /// Says of an error that memory failed where in the file that is.
    pub(super) fn in_file(self, bytes: Range<u64>) -> FsError {
        if !self.is_lost_memory() {
            return self;
        }
        FsError::PartlyLost { start: bytes.start, end: bytes.end }
    }
}
