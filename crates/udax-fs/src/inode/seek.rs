//! Where data and holes are.

use udax_mm::FileIndex;

use super::{END, Inode, Node, State};
use crate::FsError;
use crate::tree::Lookup;

impl Inode {
    /// The first byte at or after `at` that is not in a hole; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Device`] if the medium fails, and [`FsError::Corrupt`] if the tree of the
    /// file cannot be read.
    pub fn seek_data(&self, at: u64) -> Result<Option<u64>, FsError> {
        self.seek(at, Sought::Data)
    }

    /// The first byte at or after `at` that is in a hole; the end of the file counts as one.
    /// `None` past the end.
    ///
    /// # Errors
    ///
    /// As [`Inode::seek_data`].
    pub fn seek_hole(&self, at: u64) -> Result<Option<u64>, FsError> {
        self.seek(at, Sought::Hole)
    }

    fn seek(&self, at: u64, sought: Sought) -> Result<Option<u64>, FsError> {
        self.node.core.check_open()?;
        self.check_file()?;
        self.look(|state| self.node.seek(state, at, sought))
    }
}

impl Node {
    fn seek(&self, state: &State, at: u64, sought: Sought) -> Result<Option<u64>, FsError> {
        let size = state.size();
        let mut from = at;
        while from < size {
            let index = FileIndex::of_byte(from);
            let found = state.tree.lookup(&self.core.store, index, FileIndex(0)..END)?;
            let (found, end) = match found {
                Lookup::Hole(pages) => (Sought::Hole, index + pages),
                Lookup::Run(run) => (Sought::Data, run.index + run.pages),
            };
            if found == sought {
                return Ok(Some(from));
            }
            from = end.byte();
        }
        Ok((sought == Sought::Hole && at < size).then_some(size))
    }
}

/// What is looked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sought {
    Data,
    Hole,
}
