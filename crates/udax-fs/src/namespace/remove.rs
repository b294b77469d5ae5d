//! Removing names.

use std::convert::Infallible;

use udax_mapping::FilePin;
use udax_mm::sync::Arc;

use super::{check_dir, find_existing};
use crate::batch::Batch;
use crate::{Filesystem, FreePolicy, FsError, Inode, Kind, Name};

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
        let removed = self.try_unlink(dir, name, |_| Ok::<(), Infallible>(()))?;
        removed.map_err(|(_, never)| match never {})
    }

    /// The same; `policy` says what to do about pins if this is the last name. Returns those that
    /// the file has then. Whoever has the file open may pin it later as well. Pins of pages that
    /// the file shares, or shared when they were taken, hold nobody off, and are not returned.
    ///
    /// # Blocking
    ///
    /// Waits for the pins as `policy` says, with no lock held.
    ///
    /// # Errors
    ///
    /// As [`Filesystem::unlink`], and [`FsError::Layout`] with the holders if the wait runs out.
    pub fn unlink_with(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        policy: FreePolicy<'_>,
    ) -> Result<Vec<FilePin>, FsError> {
        loop {
            let mut pins = Vec::new();
            let removed = self.try_unlink(dir, name, |inode| {
                let is_last = inode.node().read().record.links.get() == 1;
                if is_last && inode.kind() == Kind::File {
                    pins = inode.pins_in_the_way();
                }
                match policy.patience() {
                    Some(patience) if !pins.is_empty() => Err(patience),
                    _ => Ok(()),
                }
            })?;
            match removed {
                Ok(()) => return Ok(pins),
                Err((inode, patience)) => inode.wait_unpinned(patience)?,
            }
        }
    }

    /// Removes a name if `check` lets it; gives back the inode and why if not. `check` is called
    /// with the namespace locked.
    fn try_unlink<T>(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        check: impl FnOnce(&Arc<Inode>) -> Result<(), T>,
    ) -> Result<Result<(), (Arc<Inode>, T)>, FsError> {
        self.core().check_writable()?;
        check_dir(dir)?;
        let names = self.core().namespace.write();
        let entry = find_existing(dir, name)?;
        if entry.kind == Kind::Dir {
            return Err(FsError::IsADirectory);
        }
        let inode = self.core().inode(entry.ino)?;
        if let Err(why) = check(&inode) {
            drop(names);
            return Ok(Err((inode, why)));
        }
        let mut batch = Batch::new(self.core());
        batch.remove(dir.node(), name, entry)?;
        let state = batch.state(inode.node());
        state.add_links(-1)?;
        state.touch_attributes();
        batch.commit()?;
        inode.let_go_unnamed();
        drop(names);
        drop(inode);
        Ok(Ok(()))
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
