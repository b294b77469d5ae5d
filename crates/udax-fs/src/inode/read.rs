//! Reading bytes, and the target of a symbolic link.

use udax_mm::FileIndex;
use udax_mm::units::PAGE_BYTES;

use super::{Inode, Node, State, pages_holding};
use crate::num::{to_u64, to_usize};
use crate::tree::Lookup;
use crate::{FsError, Kind};

impl Inode {
    /// Reads bytes from `at` on, and returns how many: fewer than asked at the end of the file, and
    /// before bytes that are lost because their memory failed. Holes read as zeros.
    ///
    /// Runs beside writes to the same file; where both touch the same bytes, each byte read is the
    /// old one or the one written.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::IsADirectory`] and [`FsError::NotAFile`] for what has no bytes to read,
    /// [`FsError::Lost`] if the first byte is lost, and [`FsError::Device`] if the device is gone.
    pub fn read_at(&self, into: &mut [u8], at: u64) -> Result<usize, FsError> {
        self.node.core.check_open()?;
        self.check_file()?;
        let (read, wanted) = self.look(|state| {
            let wanted = state.size().saturating_sub(at).min(to_u64(into.len()));
            (self.node.copy_out(state, into, at), to_usize(wanted))
        });
        if !matches!(read, Ok(read) if read == wanted) {
            self.report_failures(at..at + to_u64(wanted));
        }
        read
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::NotASymlink`] for anything else.
    pub fn read_link(&self) -> Result<Vec<u8>, FsError> {
        self.node.core.check_open()?;
        if self.node.kind != Kind::Symlink {
            return Err(FsError::NotASymlink);
        }
        let state = self.node.read().clone();
        let mut target = vec![0; to_usize(state.size().min(PAGE_BYTES))];
        self.node.copy_out(&state, &mut target, 0)?;
        Ok(target)
    }
}

impl Node {
    /// Copies bytes of the file out, up to its end, or up to the first that is lost.
    pub(crate) fn copy_out(
        &self,
        state: &State,
        into: &mut [u8],
        at: u64,
    ) -> Result<usize, FsError> {
        let left = state.size().saturating_sub(at);
        let len = to_usize(left.min(to_u64(into.len())));
        let into = &mut into[..len];
        let pages = pages_holding(at, at + to_u64(len));
        let mut done = 0;
        while done < len {
            let from = at + to_u64(done);
            let index = FileIndex::of_byte(from);
            let in_page = from % PAGE_BYTES;
            let found = state.tree.lookup(&self.core.store, index, pages.clone())?;
            let (pages, device) = match found {
                Lookup::Hole(pages) => (pages, None),
                Lookup::Run(run) => {
                    let before = index.since(run.index);
                    (run.pages - before, Some(run.device + before))
                }
            };
            let piece = to_usize((pages.bytes() - in_page).min(to_u64(len - done)));
            let into = &mut into[done..done + piece];
            match device {
                Some(page) => {
                    let good = self.copy_good(page.byte() + in_page, into)?;
                    if good < piece && done + good == 0 {
                        return Err(FsError::Lost { at, page: at / PAGE_BYTES * PAGE_BYTES });
                    }
                    if good < piece {
                        return Ok(done + good);
                    }
                }
                None => into.fill(0),
            }
            done += piece;
        }
        Ok(len)
    }

    /// Reads bytes of the device up to the first that is lost, and returns how many.
    fn copy_good(&self, at: u64, into: &mut [u8]) -> Result<usize, FsError> {
        match self.core.store.read(at, into) {
            Ok(()) => Ok(into.len()),
            Err(error) if error.is_lost_memory() => self.read_good(at, into),
            Err(error) => Err(error),
        }
    }
}
