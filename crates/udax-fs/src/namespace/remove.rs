//! Removing names.

use udax_mm::sync::Arc;

use super::{check_dir, find_existing};
use crate::batch::Batch;
use crate::{Filesystem, FsError, Inode, Kind, Name};

impl Filesystem {
    /// Removes a name of a file or symbolic link.
    ///
    /// The last name to go takes the file with it, once no handle is left: its blocks are free, or
    /// in limbo until the last pin of them is dropped. This never waits for a pin.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::NotFound`], [`FsError::IsADirectory`], [`FsError::NotADirectory`] and
    /// [`FsError::ReadOnly`]. Nothing has changed then.
    pub fn unlink(&self, dir: &Arc<Inode>, name: &Name) -> Result<(), FsError> {
        self.core().check_writable()?;
        check_dir(dir)?;
        let names = self.core().namespace.write();
        let entry = find_existing(dir, name)?;
        if entry.kind == Kind::Dir {
            return Err(FsError::IsADirectory);
        }
        let inode = self.core().inode(entry.ino)?;
        let mut batch = Batch::new(self.core());
        batch.remove(dir.node(), name, entry)?;
        let state = batch.state(inode.node());
        state.add_links(-1)?;
        state.touch_attributes();
        batch.commit()?;
        drop(names);
        drop(inode);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::NotEmpty`], [`FsError::NotFound`], [`FsError::NotADirectory`] and
    /// [`FsError::ReadOnly`]. Nothing has changed then.
    pub fn rmdir(&self, dir: &Arc<Inode>, name: &Name) -> Result<(), FsError> {
        self.core().check_writable()?;
        check_dir(dir)?;
        let names = self.core().namespace.write();
        let entry = find_existing(dir, name)?;
        if entry.kind != Kind::Dir {
            return Err(FsError::NotADirectory);
        }
        let removed = self.core().inode(entry.ino)?;
        check_empty(&removed)?;
        let mut batch = Batch::new(self.core());
        batch.remove(dir.node(), name, entry)?;
        batch.state(dir.node()).add_links(-1)?;
        let state = batch.state(removed.node());
        state.record.links.set(0);
        state.touch_attributes();
        batch.commit()?;
        drop(names);
        self.forget_dir(&removed);
        Ok(())
    }
}

/// Refuses a directory that has entries.
pub(super) fn check_empty(dir: &Inode) -> Result<(), FsError> {
    if dir.node().with_index(crate::dir::Index::is_empty)? {
        Ok(())
    } else {
        Err(FsError::NotEmpty)
    }
}
