//! Looking names up and listing them.

use udax_mm::sync::Arc;

use super::{DirEntry, check_dir, find_existing};
use crate::{Filesystem, FsError, Ino, Inode, Name};

impl Filesystem {
    /// The inode that `name` names in `dir`.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::NotFound`], [`FsError::NotADirectory`], and [`FsError::Corrupt`] if the
    /// directory or the inode cannot be read.
    pub fn lookup(&self, dir: &Arc<Inode>, name: &Name) -> Result<Arc<Inode>, FsError> {
        self.core().check_open()?;
        check_dir(dir)?;
        let _names = self.core().namespace.read();
        let entry = find_existing(dir, name)?;
        self.open(entry.ino)
    }

    /// At most `max` entries of `dir`, from `cookie` on; 0 is the start, and [`DirEntry::next`] is
    /// where reading continues after an entry. `.` and `..` are not among them.
    ///
    /// An entry that is there during all of a listing appears in it once.
    ///
    /// # Errors
    ///
    /// As [`Filesystem::lookup`].
    pub fn read_dir(
        &self,
        dir: &Arc<Inode>,
        cookie: u64,
        max: usize,
    ) -> Result<Vec<DirEntry>, FsError> {
        self.core().check_open()?;
        check_dir(dir)?;
        let _names = self.core().namespace.read();
        dir.node().with_index(|index| {
            let entries = index.entries_from(cookie).take(max);
            entries
                .map(|(name, entry)| DirEntry {
                    name: name.clone(),
                    ino: entry.ino,
                    kind: entry.kind,
                    next: entry.cell + 1,
                })
                .collect()
        })
    }

    /// The directory that holds directory `dir`; the root holds itself.
    ///
    /// # Errors
    ///
    /// As [`Filesystem::lookup`].
    pub fn parent(&self, dir: &Arc<Inode>) -> Result<Arc<Inode>, FsError> {
        self.core().check_open()?;
        check_dir(dir)?;
        let _names = self.core().namespace.read();
        let parent = Ino(dir.node().read().record.parent.get());
        self.open(parent)
    }
}
