//! How a file is opened, shaped like [`std::fs::OpenOptions`].

use std::path::Path;

use udax_fs::{FreePolicy, FsError, Inode, Kind};
use udax_mm::sync::Arc;

use crate::error::{At, Cause, Result};
use crate::file::{File, Rights};
use crate::path::{self, LastSymlink, Walked};
use crate::paths::caller;
use crate::pool::Pool;

/// The permissions of a file that nobody chose.
const FILE_MODE: u32 = 0o644;

/// What a file is opened for, and what happens if it is or is not there.
///
/// ```
/// use udax::{ErrorKind, OpenOptions, Pool};
///
/// let pool = Pool::create_in_memory("example", 8 << 20)?;
/// let mut options = OpenOptions::new();
/// options.write(true).create_new(true).mode(0o600);
/// options.open(&pool, "/secret")?;
/// let again = options.open(&pool, "/secret").unwrap_err();
/// assert_eq!(again.kind(), ErrorKind::AlreadyExists);
/// # Ok::<(), udax::Error>(())
/// ```
// The options of `std::fs::OpenOptions`, which are independent of each other.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    mode: u32,
}

impl OpenOptions {
    /// Nothing: at least one of read, write and append has to be set.
    pub fn new() -> OpenOptions {
        OpenOptions {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            mode: FILE_MODE,
        }
    }

    /// Sets whether the file may be read.
    pub fn read(&mut self, read: bool) -> &mut OpenOptions {
        self.read = read;
        self
    }

    /// Sets whether the file may be written.
    pub fn write(&mut self, write: bool) -> &mut OpenOptions {
        self.write = write;
        self
    }

    /// Sets whether every write goes to the end of the file, atomically.
    pub fn append(&mut self, append: bool) -> &mut OpenOptions {
        self.append = append;
        self
    }

    /// Sets whether an existing file is emptied.
    pub fn truncate(&mut self, truncate: bool) -> &mut OpenOptions {
        self.truncate = truncate;
        self
    }

    /// Sets whether a missing file is created.
    pub fn create(&mut self, create: bool) -> &mut OpenOptions {
        self.create = create;
        self
    }

    /// Sets whether the file must not exist and is created.
    pub fn create_new(&mut self, create_new: bool) -> &mut OpenOptions {
        self.create_new = create_new;
        self
    }

    /// Sets the permission bits of a file that is created.
    pub fn mode(&mut self, mode: u32) -> &mut OpenOptions {
        self.mode = mode & 0o7777;
        self
    }

    /// Opens the file at `path`.
    ///
    /// # Errors
    ///
    /// Fails if the path leads to a directory or nowhere, if it is there and should be new, or if
    /// the options contradict each other.
    pub fn open(&self, pool: &Pool, path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref();
        let inode = self.check().and_then(|()| self.find(pool, path)).at(path)?;
        let rights = Rights { read: self.read, write: self.write, append: self.append };
        Ok(File::new(pool.keep(), inode, path, rights))
    }

    fn check(&self) -> Result<(), Cause> {
        let writes = self.write || self.append;
        if !self.read && !writes {
            return Err(Cause::InvalidInput("open for reading, writing or appending"));
        }
        if !writes && (self.create || self.create_new || self.truncate) {
            return Err(Cause::InvalidInput("creating or truncating needs write access"));
        }
        if self.append && self.truncate && !self.create_new {
            return Err(Cause::InvalidInput("appending and truncating contradict each other"));
        }
        Ok(())
    }

    fn find(&self, pool: &Pool, path: &Path) -> Result<Arc<Inode>, Cause> {
        let last = if self.create_new { LastSymlink::Keep } else { LastSymlink::Follow };
        match path::walk(pool.filesystem(), path, last)? {
            Walked::Found(_) if self.create_new => Err(FsError::Exists.into()),
            Walked::Found(inode) => self.take(inode),
            Walked::Missing { dir, name } if self.create || self.create_new => {
                let (uid, gid) = caller();
                match pool.filesystem().create(&dir, &name, Kind::File, self.mode, uid, gid) {
                    // Somebody else made it between the look and the call.
                    Err(FsError::Exists) if !self.create_new => {
                        self.take(pool.filesystem().lookup(&dir, &name)?)
                    }
                    made => Ok(made?),
                }
            }
            Walked::Missing { .. } => Err(FsError::NotFound.into()),
        }
    }

    fn take(&self, inode: Arc<Inode>) -> Result<Arc<Inode>, Cause> {
        if inode.attr().kind == Kind::Dir {
            return Err(FsError::IsADirectory.into());
        }
        if self.truncate {
            inode.truncate(0, FreePolicy::Defer)?;
        }
        Ok(inode)
    }
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions::new()
    }
}
