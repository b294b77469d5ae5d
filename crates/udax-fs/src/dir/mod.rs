//! Directories: a file of 64-byte cells on the medium, and an index of it in memory.
//!
//! [`cell`] owns how an entry is written; [`Index`] owns which names there are and where room is.
//! This file reads the one into the other. Directories are changed by a
//! [`Batch`](crate::batch::Batch), in transactions.

pub(crate) mod cell;
mod index;

pub(crate) use cell::{CELL_BYTES, CELLS_PER_PAGE, Cell, cells_for};
pub(crate) use index::{Entry, Index};

use udax_mm::{FileIndex, PAGE_SIZE};

use crate::FsError;
use crate::inode::{Node, State};

impl Node {
    /// Asks the names of this directory, which are read when they are asked for the first time. The
    /// caller holds the namespace lock, so they do not change meanwhile.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Corrupt`] if an entry cannot be read.
    pub(crate) fn with_index<R>(&self, ask: impl FnOnce(&Index) -> R) -> Result<R, FsError> {
        if let Some(index) = &*self.index.read() {
            return Ok(ask(index));
        }
        // Before the index: who changes directories holds their states when it changes the names.
        let state = self.read().clone();
        let mut slot = self.index.write();
        let index = match slot.take() {
            Some(index) => index,
            None => self.load_index(&state)?,
        };
        Ok(ask(slot.insert(index)))
    }

    /// Changes the names, after a transaction changed them on the medium.
    pub(crate) fn edit_index(&self, edit: impl FnOnce(&mut Index)) {
        if let Some(index) = &mut *self.index.write() {
            edit(index);
        }
    }

    /// Reads every entry.
    pub(crate) fn load_index(&self, state: &State) -> Result<Index, FsError> {
        let mut index = Index::default();
        let mut page = [0; PAGE_SIZE];
        for at in 0..state.end().0 {
            index.add_page();
            self.copy_out(state, &mut page, FileIndex(at).byte())?;
            for (number, cell) in cell::decode_page(self.ino, at, &page) {
                let corrupt = |found| {
                    FsError::corrupt(format!("directory {}, cell {number}", self.ino.0), found)
                };
                let cell = cell.map_err(corrupt)?;
                let name = cell.name.clone();
                if !index.insert(number, cell) {
                    return Err(corrupt(format!("a second entry named {name}")));
                }
            }
        }
        Ok(index)
    }
}
