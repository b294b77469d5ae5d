//! What a copy needs of a tree of files, wherever it lies: the host's, or a pool's.
//!
//! Paths are those of the tree, and every error names the one it is about. Symbolic links are never
//! followed except by [`Tree::stat_through`].

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A tree of files that can be read and written.
pub(crate) trait Tree {
    /// How `path` is named to people.
    fn show(&self, path: &Path) -> String;

    /// What lies at `path` itself; none if nothing does.
    fn stat(&self, path: &Path) -> anyhow::Result<Option<Stat>>;

    /// What lies at `path`, or where the symbolic link there leads; none if nothing does.
    fn stat_through(&self, path: &Path) -> anyhow::Result<Option<Stat>>;

    /// The names in the directory `path`, in no order.
    fn list(&self, path: &Path) -> anyhow::Result<Vec<OsString>>;

    /// Opens the file `path`, or the one where the symbolic link there leads.
    fn open(&self, path: &Path) -> anyhow::Result<Box<dyn Source>>;

    /// Where the symbolic link `path` leads.
    fn read_link(&self, path: &Path) -> anyhow::Result<PathBuf>;

    /// Makes an empty file at `path`, or empties the one that is there; it will get `stat`.
    fn create(&self, path: &Path, stat: &Stat) -> anyhow::Result<Box<dyn Sink>>;

    /// Makes a directory that its owner can fill.
    fn make_dir(&self, path: &Path) -> anyhow::Result<()>;

    /// Makes a symbolic link to `target`.
    fn make_link(&self, path: &Path, target: &Path) -> anyhow::Result<()>;

    /// Removes the file or symbolic link `path`.
    fn remove(&self, path: &Path) -> anyhow::Result<()>;

    /// Gives the directory or symbolic link `path` the mode and time of `stat`.
    fn dress(&self, path: &Path, stat: &Stat) -> anyhow::Result<()>;
}

/// A file that is read.
pub(crate) trait Source {
    /// Reads at byte `at`; short only at the end of the file.
    fn read_at(&self, into: &mut [u8], at: u64) -> anyhow::Result<usize>;

    /// The first run of data at or after byte `at`; none if only a hole follows.
    fn data(&self, at: u64) -> anyhow::Result<Option<Range<u64>>>;

    /// The file, if it is one of a pool.
    fn as_pool_file(&self) -> Option<&udax::File>;
}

/// A file that is written; what is never written reads as zeros.
pub(crate) trait Sink {
    /// Writes all of `bytes` at byte `at`.
    fn write_at(&self, bytes: &[u8], at: u64) -> anyhow::Result<()>;

    /// Makes this file, which is empty, a clone of the first `len` bytes of `source`.
    ///
    /// # Errors
    ///
    /// Returns why it cannot be one; it is empty as before then.
    fn clone_from(&self, source: &dyn Source, len: u64) -> anyhow::Result<()>;

    /// Makes the file `len` bytes long and gives it the mode and time of `stat`.
    fn finish(&self, len: u64, stat: &Stat) -> anyhow::Result<()>;
}

/// What is known of a file before it is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) kind: FileKind,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) mtime: SystemTime,
    pub(crate) id: FileId,
}

/// What a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FileKind {
    File,
    Dir,
    Symlink,
    /// A socket, a device or a fifo: it has no bytes to copy.
    Special(&'static str),
}

/// Tells one file from every other that this process can reach.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FileId {
    pub(crate) volume: Volume,
    pub(crate) number: u64,
}

/// Where file numbers are unique.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Volume {
    /// A device number of the host.
    Host(u64),
    /// A pool, by the file it lies in.
    Pool {
        /// The device of that file.
        device: u64,
        /// Its number.
        number: u64,
    },
}

impl Volume {
    /// The pool in the file `host` of the host.
    pub(crate) const fn of_pool(host: FileId) -> Volume {
        match host.volume {
            Volume::Host(device) | Volume::Pool { device, .. } => {
                Volume::Pool { device, number: host.number }
            }
        }
    }

    /// The file that holds the pool, if this is one.
    pub(crate) const fn host_file(self) -> Option<FileId> {
        match self {
            Volume::Host(_) => None,
            Volume::Pool { device, number } => {
                Some(FileId { volume: Volume::Host(device), number })
            }
        }
    }
}
