//! The namespace: names of directories, and what changes them.
//!
//! Each change is one transaction: after a crash it has happened as a whole or not at all. All of
//! them hold the namespace lock exclusively; looking names up holds it shared. What a change lets
//! go of (the last handle of an inode without a name) goes after the locks, because freeing takes
//! locks of its own.

mod create;
mod lookup;
mod remove;
mod rename;

use udax_mm::sync::Arc;

pub use rename::RenameMode;

use crate::dir::Entry;
use crate::{FsError, Ino, Inode, Kind, Name};

/// An entry of a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// The name.
    pub name: Name,
    /// The inode it names.
    pub ino: Ino,
    /// What that is.
    pub kind: Kind,
    /// Where reading continues after this entry.
    pub next: u64,
}

/// Refuses what is not a directory.
fn check_dir(dir: &Inode) -> Result<(), FsError> {
    if dir.kind() == Kind::Dir { Ok(()) } else { Err(FsError::NotADirectory) }
}

/// Refuses a directory that was removed while it was open.
fn check_linked(dir: &Inode) -> Result<(), FsError> {
    check_dir(dir)?;
    if dir.node().read().record.links.get() == 0 { Err(FsError::NotFound) } else { Ok(()) }
}

/// The entry `name` of a directory, if there is one.
fn find(dir: &Arc<Inode>, name: &Name) -> Result<Option<Entry>, FsError> {
    dir.node().with_index(|index| index.find(name))
}

/// The entry `name` of a directory.
fn find_existing(dir: &Arc<Inode>, name: &Name) -> Result<Entry, FsError> {
    find(dir, name)?.ok_or(FsError::NotFound)
}
