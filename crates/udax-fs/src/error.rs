//! The one error of the filesystem; no errno here.
use crate::Ino;
use udax_mm::Pages;
/// Why an operation of the filesystem failed
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// No magic number in either superblock.
    #[error("not a udax pool: no superblock at either end; create one with `udax create`")]
    NotAPool,
    /// x
    #[error("the pool has {found} pages but its superblock says {expected}: it was truncated; restore the file to its full size or use a copy")]
    Truncated { /// x
        expected: Pages, /// x
        found: Pages },
    /// x
    #[error("the pool has format version {found}, this udax knows up to {known}; use a newer udax")]
    NewerVersion { /// x
        found: u32, /// x
        known: u32 },
    /// features this version does not know
    #[error("the pool uses features {0:#x} that this udax does not know; use a newer udax")]
    UnknownFeatures(u64),
    /// x
    #[error("{object} is corrupt: {found}; run `udax check`, and copy out what is readable")]
    Corrupt { /// x
        object: String, /// x
        found: String },
    /// x
    #[error("the pool needs recovery, which a read-only open may not do; open it for writing once")]
    NeedsRecovery,
    /// x
    #[error("a pool needs at least {min} pages, this device has {found}")]
    TooSmall { /// x
        min: Pages, /// x
        found: Pages },
    /// x
    #[error("the pool is full: {wanted} pages wanted, {free} free")]
    NoSpace { /// x
        wanted: Pages, /// x
        free: Pages },
    /// x
    #[error("no such file or directory")]
    NotFound,
    /// x
    #[error("the name exists already")]
    Exists,
    /// a path through a file
    #[error("not a directory")]
    NotADirectory,
    /// x
    #[error("is a directory")]
    IsADirectory,
    /// x
    #[error("the directory is not empty")]
    NotEmpty,
    /// x
    #[error("not a valid name: {why}")]
    BadName { /// x
        why: &'static str },
    /// x
    #[error("a name has at most 255 bytes, this one has {0}")]
    NameTooLong(usize),
    /// a directory moved into itself
    #[error("a directory cannot be moved into itself")]
    Loop,
    /// x
    #[error("too many links")]
    TooManyLinks,
    /// x
    #[error("not a symbolic link")]
    NotASymlink,
    /// x
    #[error("the file is frozen: its bytes cannot change")]
    Frozen,
    /// x
    #[error("the file is not frozen")]
    NotFrozen,
    /// x
    #[error("the pool is open read-only")]
    ReadOnly,
    /// x
    #[error("the file would be larger than {max} bytes")]
    TooLarge { /// x
        max: u64 },
    /// inode number not in use
    #[error("inode {} does not exist", .0.0)]
    Stale(Ino),
    /// Err of break_layout
    #[error(transparent)]
    Layout(#[from] udax_mapping::BreakError),
    /// x
    #[error(transparent)]
    Fault(#[from] udax_mapping::FaultError),
    /// x
    #[error(transparent)]
    Device(#[from] udax_dev::IoError),
}
impl From<udax_dev::AccessError> for FsError {
    fn from(error: udax_dev::AccessError) -> FsError { FsError::Device(error.into()) }
}
