//! Opens pools for commands: says what had to be recovered, and reads a damaged pool all the same.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use udax::{Durability, ErrorKind, OpenPool, Pool};

use crate::output::note;

/// An error of a pool that names the pool beside the path in it.
#[derive(Debug)]
pub(crate) struct PoolError {
    pool: PathBuf,
    error: udax::Error,
}

/// Adds the pool to the error of a call on it.
pub(crate) trait InPool<T> {
    /// Names `pool` in the error.
    fn of(self, pool: &Path) -> Result<T, PoolError>;
}

/// How the commands of this run open pools.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opener {
    durability: Durability,
}

impl Opener {
    /// Opens pools so that completed operations survive what `durability` says.
    pub(crate) const fn new(durability: Durability) -> Opener {
        Opener { durability }
    }

    /// What completed operations survive.
    pub(crate) const fn durability(self) -> Durability {
        self.durability
    }

    /// Opens the pool at `path` for a command that changes it.
    ///
    /// # Errors
    ///
    /// Returns why the pool cannot be opened for writing.
    pub(crate) fn to_write(self, path: &Path) -> Result<Pool, PoolError> {
        let options = OpenPool::new().durability(self.durability);
        let pool = Pool::open_with(path, &options).of(path)?;
        announce(&pool);
        Ok(pool)
    }

    /// Opens the pool at `path` for a command that only reads it.
    ///
    /// Recovers it if need be; where it is corrupt, or may not be written by us, reads what is
    /// there.
    ///
    /// # Errors
    ///
    /// Returns why the pool cannot be opened at all.
    pub(crate) fn to_read(self, path: &Path) -> Result<Pool, PoolError> {
        if path.exists() && access(path, Access::WRITE_OK).is_err() {
            return read_only(path);
        }
        match self.to_write(path) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                note(format_args!("{error}"));
                note(format_args!("{}: opened read-only, for what is readable", path.display()));
                read_only(path)
            }
            opened => opened,
        }
    }
}

impl PoolError {
    /// What kind of failure it is.
    pub(crate) fn kind(&self) -> ErrorKind {
        self.error.kind()
    }
}

impl<T> InPool<T> for udax::Result<T> {
    fn of(self, pool: &Path) -> Result<T, PoolError> {
        self.map_err(|error| PoolError { pool: pool.to_owned(), error })
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error.path() {
            Some(path) if path != self.pool => write!(f, "{}:{}", self.pool.display(), self.error),
            _ => self.error.fmt(f),
        }?;
        if self.kind() == ErrorKind::Media {
            // A pool is a sparse file: what its pages need is taken when they are first stored to.
            write!(f, "; the disk under the pool may be full (`df {}`)", self.pool.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for PoolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

fn read_only(path: &Path) -> Result<Pool, PoolError> {
    let pool = Pool::open_with(path, &OpenPool::new().read_only(true)).of(path)?;
    announce(&pool);
    Ok(pool)
}

/// Says what opening the pool had to repair.
fn announce(pool: &Pool) {
    let path = pool.path().display();
    let recovered = pool.recovered();
    if recovered.mirror_used {
        note(format_args!("{path}: the superblock was damaged; its mirror was used"));
    }
    if let Some(pid) = recovered.unclean {
        let then = if recovered.rebooted { ", and the host rebooted since" } else { "" };
        note(format_args!("{path}: recovered: process {pid} did not close it{then}"));
    }
    if recovered.quarantined > 0 {
        let pins = recovered.quarantined;
        note(format_args!(
            "{path}: pages of {pins} long-term pins are in quarantine, because their owners died; \
             see `udax pins {path}`"
        ));
    }
    if recovered.released > 0 {
        let pins = recovered.released;
        note(format_args!("{path}: the start of the host released {pins} long-term pins"));
    }
    if recovered.rebooted {
        note(format_args!("{path}: run `udax check {path}`: bytes may be lost with the power"));
    }
    for ino in &recovered.corrupt {
        note(format_args!("{path}: inode {} is corrupt and cannot be read", ino.0));
    }
}
