//! Creating: files, directories, symbolic links, and further names.

use udax_mm::PAGE_SIZE;
use udax_mm::sync::Arc;

use super::{check_linked, find};
use crate::batch::Batch;
use crate::dir::Cell;
use crate::inode::record::NewInode;
use crate::{Filesystem, FsError, Inode, Kind, Name};

/// The most names an inode has.
const MAX_LINKS: u32 = 1 << 31;

impl Filesystem {
    /// Creates an empty file or directory.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Exists`] if the name is taken, [`FsError::NoSpace`] if the pool is full,
    /// [`FsError::NotFound`] if `dir` was removed meanwhile, [`FsError::NotADirectory`] and
    /// [`FsError::ReadOnly`]. Nothing has changed then.
    pub fn create(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        kind: Kind,
        mode: u32,
        uid: u32,
        gid: u32,
    ) -> Result<Arc<Inode>, FsError> {
        if kind == Kind::Symlink {
            return Err(FsError::BadTarget(0));
        }
        self.create_with(dir, name, NewInode { kind, mode, uid, gid }, &[])
    }

    /// Creates a symbolic link to `target`, which is not looked at.
    ///
    /// # Errors
    ///
    /// As [`Filesystem::create`]; [`FsError::BadTarget`] for an empty target, or one longer than
    /// 4,095 bytes.
    pub fn symlink(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> Result<Arc<Inode>, FsError> {
        if target.is_empty() || target.len() >= PAGE_SIZE {
            return Err(FsError::BadTarget(target.len()));
        }
        let new = NewInode { kind: Kind::Symlink, mode: 0o777, uid, gid };
        self.create_with(dir, name, new, target)
    }

    /// Gives a file or symbolic link one more name.
    ///
    /// # Errors
    ///
    /// As [`Filesystem::create`]; [`FsError::IsADirectory`] for a directory, and
    /// [`FsError::NotFound`] for an inode whose last name is gone.
    pub fn link(&self, inode: &Arc<Inode>, dir: &Arc<Inode>, name: &Name) -> Result<(), FsError> {
        self.core().check_writable()?;
        if inode.kind() == Kind::Dir {
            return Err(FsError::IsADirectory);
        }
        let _names = self.core().namespace.write();
        check_free(dir, name)?;
        let mut batch = Batch::new(self.core());
        let state = batch.state(inode.node());
        match state.record.links.get() {
            0 => return Err(FsError::NotFound),
            MAX_LINKS.. => return Err(FsError::TooManyLinks),
            _ => state.add_links(1)?,
        }
        state.touch_attributes();
        let cell = Cell { name: name.clone(), ino: inode.ino(), kind: inode.kind() };
        batch.insert(dir.node(), cell)?;
        batch.commit()
    }

    fn create_with(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        new: NewInode,
        data: &[u8],
    ) -> Result<Arc<Inode>, FsError> {
        self.core().check_writable()?;
        let _names = self.core().namespace.write();
        check_free(dir, name)?;
        let mut batch = Batch::new(self.core());
        let ino = batch.create(&new, dir.node(), data)?;
        if new.kind == Kind::Dir {
            batch.state(dir.node()).add_links(1)?;
        }
        batch.insert(dir.node(), Cell { name: name.clone(), ino, kind: new.kind })?;
        batch.commit()?;
        self.open(ino)
    }
}

/// Refuses a name that is taken.
fn check_free(dir: &Arc<Inode>, name: &Name) -> Result<(), FsError> {
    check_linked(dir)?;
    if find(dir, name)?.is_some() { Err(FsError::Exists) } else { Ok(()) }
}
