//! Reading directories. Owns the cursor of one listing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use udax_fs::{Ino, Inode, Kind, Name};
use udax_mm::sync::Arc;

use crate::error::{At, Result};
use crate::metadata::Metadata;
use crate::pool::Inner;

/// Entries asked for at a time.
const BATCH: usize = 256;

/// The entries of a directory, in no particular order.
///
/// An entry that is made or removed meanwhile may be seen or not; every other is seen once.
///
/// ```
/// let pool = udax::Pool::create_in_memory("example", 8 << 20)?;
/// pool.write("/a", b"")?;
/// for entry in pool.read_dir("/")? {
///     assert_eq!(entry?.file_name(), "a");
/// }
/// # Ok::<(), udax::Error>(())
/// ```
#[derive(Debug)]
pub struct ReadDir {
    // Before the pool: the last handle of a directory without a name frees it, for which the pool is
    // open.
    dir: Arc<Inode>,
    pool: Arc<Inner>,
    path: PathBuf,
    batch: std::vec::IntoIter<udax_fs::DirEntry>,
    cookie: u64,
    is_done: bool,
}

/// One entry of a directory.
#[derive(Debug)]
pub struct DirEntry {
    pool: Arc<Inner>,
    path: PathBuf,
    name: Name,
    ino: Ino,
    kind: Kind,
}

impl ReadDir {
    pub(crate) fn new(pool: Arc<Inner>, dir: Arc<Inode>, path: &Path) -> ReadDir {
        let batch = Vec::new().into_iter();
        ReadDir { pool, dir, path: path.to_owned(), batch, cookie: 0, is_done: false }
    }

    fn fill(&mut self) -> Result<()> {
        let batch = self.pool.filesystem().read_dir(&self.dir, self.cookie, BATCH).at(&self.path)?;
        self.is_done = batch.is_empty();
        self.batch = batch.into_iter();
        Ok(())
    }
}

impl DirEntry {
    /// The path of the directory joined with the name.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The name.
    pub fn file_name(&self) -> &OsStr {
        self.name.as_os_str()
    }

    /// What it is, a symbolic link not followed.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of the inode.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// The attributes, of a symbolic link those of itself.
    ///
    /// # Errors
    ///
    /// Fails if the entry was removed meanwhile.
    pub fn metadata(&self) -> Result<Metadata> {
        let inode = self.pool.filesystem().inode(self.ino).at(&self.path)?;
        Ok(Metadata::new(inode.attr()))
    }
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Result<DirEntry>> {
        if self.is_done {
            return None;
        }
        if self.batch.len() == 0
            && let Err(error) = self.fill()
        {
            self.is_done = true;
            return Some(Err(error));
        }
        let entry = self.batch.next()?;
        self.cookie = entry.next;
        let path = self.path.join(entry.name.as_os_str());
        let udax_fs::DirEntry { name, ino, kind, .. } = entry;
        Some(Ok(DirEntry { pool: Arc::clone(&self.pool), path, name, ino, kind }))
    }
}
