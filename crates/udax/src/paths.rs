//! The calls on paths, shaped like the functions of [`std::fs`].
//!
//! Paths are absolute inside the pool; a relative one starts at the root too.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use udax_fs::{FreePolicy, FsError, Inode, Kind, RenameMode, SetAttr};
use udax_mm::sync::Arc;

use crate::dir::ReadDir;
use crate::error::{At, Cause, Result};
use crate::file::File;
use crate::kind::ErrorKind;
use crate::metadata::{Metadata, Times};
use crate::options::OpenOptions;
use crate::path::{self, LastSymlink};
use crate::pin::Deferred;
use crate::pool::Pool;

/// The permissions of a directory that nobody chose.
const DIR_MODE: u32 = 0o755;

impl Pool {
    /// Opens an existing file for reading.
    ///
    /// # Errors
    ///
    /// Fails if the path does not lead to a file.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File> {
        OpenOptions::new().read(true).open(self, path)
    }

    /// Creates a file, or empties it if it exists, for reading and writing.
    ///
    /// # Errors
    ///
    /// Fails if the path does not lead to a file or to a free name in a directory.
    pub fn create_file(&self, path: impl AsRef<Path>) -> Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self, path)
    }

    /// Reads a whole file.
    ///
    /// # Errors
    ///
    /// Fails if the path does not lead to a file, or the medium fails.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        self.open_file(path)?.read_to_vec()
    }

    /// Writes a whole file: creates it, or replaces its content.
    ///
    /// # Errors
    ///
    /// Fails if the path does not lead to a file or a free name, or if the pool is full.
    pub fn write(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(self, path)?;
        file.write_all_at(bytes.as_ref(), 0)
    }

    /// The attributes of what `path` leads to.
    ///
    /// # Errors
    ///
    /// Fails if it leads nowhere.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        Ok(Metadata::new(self.resolve(path.as_ref(), LastSymlink::Follow)?.attr()))
    }

    /// The attributes at `path`, of the link itself if it is a symbolic link.
    ///
    /// # Errors
    ///
    /// Fails if there is nothing.
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        Ok(Metadata::new(self.resolve(path.as_ref(), LastSymlink::Keep)?.attr()))
    }

    /// Whether `path` leads to something.
    ///
    /// # Errors
    ///
    /// Fails if that cannot be told, as when a directory on the way cannot be read.
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool> {
        match self.resolve(path.as_ref(), LastSymlink::Follow) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The absolute path without symbolic links, `.` and `..` that leads where `path` leads.
    ///
    /// # Errors
    ///
    /// Fails if it leads nowhere.
    pub fn canonicalize(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        path::canonicalize(self.filesystem(), path.as_ref()).at(path.as_ref())
    }

    /// The entries of a directory, without `.` and `..`.
    ///
    /// # Errors
    ///
    /// Fails if the path does not lead to a directory.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<ReadDir> {
        let path = path.as_ref();
        let dir = self.resolve(path, LastSymlink::Follow)?;
        if dir.attr().kind != Kind::Dir {
            return Err(FsError::NotADirectory).at(path);
        }
        Ok(ReadDir::new(self.keep(), dir, path))
    }

    /// Creates an empty directory.
    ///
    /// # Errors
    ///
    /// Fails if the name is taken or not valid, or if its parent is missing.
    pub fn create_dir(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let made = self.parent(path).and_then(|(dir, name)| {
            let (uid, gid) = caller();
            Ok(self.filesystem().create(&dir, &name, Kind::Dir, DIR_MODE, uid, gid)?)
        });
        made.map(drop).at(path)
    }

    /// Creates a directory and those above it that are missing.
    ///
    /// # Errors
    ///
    /// Fails if something on the way is no directory.
    pub fn create_dir_all(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut missing = Vec::new();
        for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
            match self.metadata(dir) {
                Ok(found) if found.is_dir() => break,
                Ok(_) if dir == path => return Err(FsError::Exists).at(dir),
                Ok(_) => return Err(FsError::NotADirectory).at(dir),
                Err(error) if error.kind() == ErrorKind::NotFound => missing.push(dir),
                Err(error) => return Err(error),
            }
        }
        missing.into_iter().rev().try_for_each(|dir| match self.create_dir(dir) {
            // Somebody else made it between the look and the call.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            made => made,
        })
    }

    /// Removes the name of a file or symbolic link.
    ///
    /// The bytes go when nobody has the file open; what is pinned then goes to limbo.
    ///
    /// # Errors
    ///
    /// Fails if there is no such name, or it is a directory's.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let removed =
            self.parent(path).and_then(|(dir, name)| Ok(self.filesystem().unlink(&dir, &name)?));
        removed.at(path)
    }

    /// Removes the name of a file; `policy` says what happens to pins if it is the last name.
    /// Returns those that the file has then; what they hold goes to limbo when nobody has the file
    /// open. Pins of data that the file shares, or shared when they were taken, hold nobody off,
    /// and are not returned.
    ///
    /// # Blocking
    ///
    /// With [`FreePolicy::Wait`], recalls the pins and waits for them, holding no lock.
    ///
    /// # Errors
    ///
    /// As [`Pool::remove_file`], and with [`ErrorKind::Pinned`], naming the holders, if the wait
    /// runs out; the name is then still there.
    pub fn remove_file_with(
        &self,
        path: impl AsRef<Path>,
        policy: FreePolicy<'_>,
    ) -> Result<Deferred> {
        let path = path.as_ref();
        let removed = self
            .parent(path)
            .and_then(|(dir, name)| Ok(self.filesystem().unlink_with(&dir, &name, policy)?));
        Ok(Deferred::new(path, &removed.at(path)?))
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// Fails if it is not empty, or no directory.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let removed =
            self.parent(path).and_then(|(dir, name)| Ok(self.filesystem().rmdir(&dir, &name)?));
        removed.at(path)
    }

    /// Removes a directory and everything in it; symbolic links are removed, not followed.
    ///
    /// # Errors
    ///
    /// Stops at the first entry that cannot be removed.
    pub fn remove_dir_all(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        match self.symlink_metadata(path)?.kind() {
            Kind::Dir => {}
            Kind::Symlink => return self.remove_file(path),
            Kind::File => return Err(FsError::NotADirectory).at(path),
        }
        for entry in self.read_dir(path)?.collect::<Result<Vec<_>>>()? {
            match entry.kind() {
                Kind::Dir => self.remove_dir_all(entry.path())?,
                Kind::File | Kind::Symlink => self.remove_file(entry.path())?,
            }
        }
        self.remove_dir(path)
    }

    /// Gives a file or directory another name; replaces what has that name, atomically.
    ///
    /// # Errors
    ///
    /// Fails if a file would replace a directory, a directory anything but an empty directory, or
    /// a directory would go into itself.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        self.rename_with(from, to, RenameMode::Replace)
    }

    /// Like [`Pool::rename`]; `mode` says what happens to the one that has the name.
    ///
    /// # Errors
    ///
    /// As [`Pool::rename`], and with [`ErrorKind::AlreadyExists`] in [`RenameMode::NoReplace`].
    pub fn rename_with(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        mode: RenameMode,
    ) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let (from_dir, from_name) = self.parent(from).at(from)?;
        let (to_dir, to_name) = self.parent(to).at(to)?;
        let blamed = |error: &FsError| if matches!(error, FsError::NotFound) { from } else { to };
        self.filesystem().rename(&from_dir, &from_name, &to_dir, &to_name, mode).or_else(|error| {
            let path = blamed(&error);
            Err(error).at(path)
        })
    }

    /// Gives a file another name beside the ones it has.
    ///
    /// # Errors
    ///
    /// Fails if `original` is a directory, or the name is taken.
    pub fn hard_link(&self, original: impl AsRef<Path>, link: impl AsRef<Path>) -> Result<()> {
        let inode = self.resolve(original.as_ref(), LastSymlink::Keep)?;
        let link = link.as_ref();
        let linked = self
            .parent(link)
            .and_then(|(dir, name)| Ok(self.filesystem().link(&inode, &dir, &name)?));
        linked.at(link)
    }

    /// Makes `link` a symbolic link to `target`, which need not exist.
    ///
    /// # Errors
    ///
    /// Fails if the name is taken, or the target empty or too long.
    pub fn symlink(&self, target: impl AsRef<Path>, link: impl AsRef<Path>) -> Result<()> {
        let link = link.as_ref();
        let target = target.as_ref().as_os_str().as_bytes();
        let linked = self.parent(link).and_then(|(dir, name)| {
            let (uid, gid) = caller();
            Ok(self.filesystem().symlink(&dir, &name, target, uid, gid)?)
        });
        linked.map(drop).at(link)
    }

    /// Where a symbolic link points.
    ///
    /// # Errors
    ///
    /// Fails if it is none.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = path.as_ref();
        let target = self.resolve(path, LastSymlink::Keep)?.read_link().at(path)?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(target)))
    }

    /// Sets the permission bits of what `path` leads to.
    ///
    /// # Errors
    ///
    /// Fails if it leads nowhere, or the pool is read-only.
    pub fn set_permissions(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let set = SetAttr { mode: Some(mode & 0o7777), ..SetAttr::default() };
        self.set_attr(path.as_ref(), LastSymlink::Follow, &set)
    }

    /// Sets the owner at `path`, of the link itself if it is a symbolic link.
    ///
    /// # Errors
    ///
    /// Fails if there is nothing, or the pool is read-only.
    pub fn set_owner(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> Result<()> {
        let set = SetAttr { uid: Some(uid), gid: Some(gid), ..SetAttr::default() };
        self.set_attr(path.as_ref(), LastSymlink::Keep, &set)
    }

    /// Sets the times at `path`, of the link itself if it is a symbolic link.
    ///
    /// # Errors
    ///
    /// Fails if there is nothing, or the pool is read-only.
    pub fn set_times(&self, path: impl AsRef<Path>, times: &Times) -> Result<()> {
        self.set_attr(path.as_ref(), LastSymlink::Keep, &times.to_set_attr())
    }

    pub(crate) fn resolve(&self, path: &Path, last: LastSymlink) -> Result<Arc<Inode>> {
        path::resolve(self.filesystem(), path, last).at(path)
    }

    fn parent(&self, path: &Path) -> Result<(Arc<Inode>, udax_fs::Name), Cause> {
        path::parent(self.filesystem(), path)
    }

    fn set_attr(&self, path: &Path, last: LastSymlink, set: &SetAttr) -> Result<()> {
        self.resolve(path, last)?.set_attr(set).map(drop).at(path)
    }
}

/// The user and group that new files belong to.
pub(crate) fn caller() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}
