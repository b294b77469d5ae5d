//! The one error of the filesystem. It says what was found and, where a user meets it, the cure;
//! errno is none of its business.

use udax_dev::{AccessError, HolderError, IoError};
use udax_mapping::{BreakError, FaultError, WritableMapping};
use udax_mm::units::PAGE_BYTES;
use udax_mm::{MediaError, Pages};

use crate::Ino;

/// Why an operation of the filesystem failed.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// Neither end of the device holds a superblock.
    #[error("not a udax pool: no superblock at either end; create one with `udax create`")]
    NotAPool,

    /// The device is shorter than the filesystem on it.
    #[error(
        "the pool has {found} pages but its superblock says {expected}: it was truncated; \
         restore the file to its full size or use a copy"
    )]
    Truncated {
        /// Pages that the superblock counts.
        expected: Pages,
        /// Pages of the device.
        found: Pages,
    },

    /// The filesystem is written in a later version of the format.
    #[error("the pool has format version {found}, this udax knows up to {known}; use a newer udax")]
    NewerVersion {
        /// The version on the medium.
        found: u32,
        /// The latest version this crate reads.
        known: u32,
    },

    /// The filesystem uses features that this version does not know.
    #[error("the pool uses features {0:#x} that this udax does not know; use a newer udax")]
    UnknownFeatures(u64),

    /// A structure on the medium contradicts its checksum, or another one.
    #[error("{object} is corrupt: {found}; {}", cure(object))]
    Corrupt {
        /// What is corrupt: "inode 12".
        object: String,
        /// What was found there.
        found: String,
    },

    /// A read-only mount writes nothing, and here something must be written first.
    #[error(
        "the pool needs recovery, which a read-only open may not do; open it for writing once, as \
         `udax df` does"
    )]
    NeedsRecovery,

    /// The device is too small for a filesystem.
    #[error("a pool needs at least {} bytes, this device has {}; make it larger", .min.bytes(), .found.bytes())]
    TooSmall {
        /// The smallest size.
        min: Pages,
        /// Pages of the device.
        found: Pages,
    },

    /// No space is left; the operation was undone.
    #[error(
        "the pool is full: {wanted} pages wanted, {free} free; remove files, or copy all into a \
         larger pool"
    )]
    NoSpace {
        /// Pages the operation asked for.
        wanted: Pages,
        /// Pages that were free.
        free: Pages,
    },

    /// The directory has no entry of that name.
    #[error("no such file or directory")]
    NotFound,

    /// The directory has an entry of that name.
    #[error("the name exists already")]
    Exists,

    /// A path leads through something that is not a directory.
    #[error("not a directory")]
    NotADirectory,

    /// A file was expected and a directory was met.
    #[error("is a directory")]
    IsADirectory,

    /// Only a regular file has bytes that can be written, mapped, pinned or frozen.
    #[error("not a regular file")]
    NotAFile,

    /// The directory still has entries.
    #[error("the directory is not empty")]
    NotEmpty,

    /// The bytes cannot be a name.
    #[error("not a valid name: {why}")]
    BadName {
        /// The rule that is broken.
        why: &'static str,
    },

    /// The name is longer than a name may be.
    #[error("a name has at most 255 bytes, this one has {0}")]
    NameTooLong(usize),

    /// The target of a symbolic link is empty or too long.
    #[error("the target of a symbolic link has 1 to 4095 bytes, this one has {0}")]
    BadTarget(usize),

    /// A directory would become its own ancestor.
    #[error("a directory cannot be moved into itself")]
    Loop,

    /// The link count of the inode is at its maximum.
    #[error("too many links")]
    TooManyLinks,

    /// Only a symbolic link has a target.
    #[error("not a symbolic link")]
    NotASymlink,

    /// The file is immutable.
    #[error("the file is frozen: its bytes cannot change")]
    Frozen,

    /// The bytes of a file can be borrowed only once they cannot change any more.
    #[error("the file is not frozen; freeze it first")]
    NotFrozen,

    /// The file cannot be frozen while it is mapped for writing.
    #[error("the file is mapped for writing at {}; unmap it before it is frozen", places(.mappings))]
    MappedForWriting {
        /// The mappings, all of them of this process.
        mappings: Vec<WritableMapping>,
    },

    /// The file cannot be frozen while somebody has it open for writing, as programs have over a
    /// mount.
    #[error("the file is open for writing {}; close it there before it is frozen", times(*.handles))]
    OpenForWriting {
        /// How many handles there are, at least one.
        handles: usize,
    },

    /// The wait for handles that are open for writing was interrupted. Nothing was changed.
    #[error("the wait for a file that is open for writing {} was interrupted", times(*.handles))]
    Interrupted {
        /// How many handles there are, at least one.
        handles: usize,
    },

    /// The filesystem is mounted read-only.
    #[error("the pool is open read-only")]
    ReadOnly,

    /// The filesystem was unmounted while this handle was held.
    #[error("the pool was closed")]
    Closed,

    /// The filesystem cannot be unmounted while its pages are pinned.
    #[error("{pins} pins are still held, the first one by {first}; drop them before closing")]
    Pinned {
        /// How many there are.
        pins: usize,
        /// The owner of the oldest.
        first: String,
    },

    /// The range ends beyond the largest file.
    #[error("the file would be larger than {max} bytes")]
    TooLarge {
        /// The size of the largest file.
        max: u64,
    },

    /// Only whole pages are shared, and the rest of a page only where both files end in it.
    #[error(
        "byte {0} is not at the border of a page; share whole pages, or up to the end of the file"
    )]
    NotAligned(u64),

    /// Files share data with files of the same filesystem only.
    #[error("the files lie in different pools; copy the bytes instead")]
    OtherPool,

    /// The two ranges of one file have bytes in common.
    #[error("the two ranges of the file overlap")]
    Overlap,

    /// The source ends before the range does.
    #[error("the file ends at byte {size}, before byte {wanted}")]
    PastEnd {
        /// The size of the file.
        size: u64,
        /// The end of the range.
        wanted: u64,
    },

    /// No inode of that number is in use.
    #[error("inode {} does not exist", .0.0)]
    Stale(Ino),

    /// The pages could not be freed, because they are pinned.
    #[error(transparent)]
    Layout(#[from] BreakError),

    /// The same for pages of the file that a clone is made of.
    #[error(transparent)]
    Source(BreakError),

    /// The pages could not be mapped or pinned.
    #[error(transparent)]
    Fault(#[from] FaultError),

    /// The host refused to map the bytes of a frozen file.
    #[error("mapping the bytes of a frozen file failed")]
    Map(#[source] std::io::Error),

    /// The medium failed while metadata was written; what is on it is consistent, what is in
    /// memory may not be.
    #[error("the pool takes no more writes, because its medium failed ({0}); open it again")]
    Stopped(String),

    /// A long-term pin is recorded on the medium, and nothing can be written there.
    #[error(
        "a long-term pin is recorded in the pool, which is open read-only; open it for writing, or \
         pin for the short term"
    )]
    ReadOnlyLease,

    /// No place is left for the records of a long-term pin.
    #[error(
        "the pin table has no place for {wanted} more records and the pool no page to make it \
         longer; remove files, drop pins, or release those of dead owners with `udax release`"
    )]
    PinTableFull {
        /// How many are missing.
        wanted: u64,
    },

    /// A device may still store to pages of the file for a process that died.
    #[error(
        "a device of {label}, whose owner died, may still write to the file; release the pin with \
         `udax release` when no device does"
    )]
    Quarantined {
        /// What the owner of the pin called itself.
        label: String,
    },

    /// A pin in quarantine belongs to a process that runs.
    #[error(
        "process {process}, owner of the pin of {label}, is alive; stop it, or force the release"
    )]
    OwnerAlive {
        /// The process.
        process: u32,
        /// What it called itself.
        label: String,
    },

    /// The bytes are gone: memory of the medium failed.
    #[error(
        "byte {at} is lost, because its memory failed; overwrite bytes {page}..{} at once to heal \
         them, or restore the file from a copy", .page + PAGE_BYTES
    )]
    Lost {
        /// The first lost byte of the file that was asked for.
        at: u64,
        /// The first byte of its page.
        page: u64,
    },

    /// The change would leave a part of a page that is lost. Nothing was changed.
    #[error(
        "bytes {start}..{end} are lost, because their memory failed; only a write of all of them \
         at once heals them"
    )]
    PartlyLost {
        /// The first byte of the file in the page.
        start: u64,
        /// Where the page, or the file in it, ends.
        end: u64,
    },

    /// The change does not fit in the journal. Nothing was written.
    #[error("the change takes {bytes} bytes of journal and {max} fit; make it in smaller steps")]
    TransactionTooLarge {
        /// Bytes of the change.
        bytes: u64,
        /// Bytes that fit.
        max: u64,
    },

    /// Somebody else holds the device.
    #[error(transparent)]
    Holder(#[from] HolderError),

    /// The device failed.
    #[error(transparent)]
    Device(#[from] IoError),
}

impl FsError {
    /// Names an object of the medium and what was found there.
    pub(crate) fn corrupt(object: impl Into<String>, found: impl Into<String>) -> FsError {
        FsError::Corrupt { object: object.into(), found: found.into() }
    }
}

/// Where the first mapping is, and how many there are.
fn places(mappings: &[WritableMapping]) -> String {
    let Some(WritableMapping { addr, pages }) = mappings.first() else { return String::new() };
    let bytes = pages.end.since(pages.start).bytes();
    let more = match mappings.len() {
        1 => String::new(),
        count => format!(" and in {} more mappings", count - 1),
    };
    format!("address {addr:#x} ({bytes} bytes){more}")
}

/// How often something is open.
fn times(handles: usize) -> String {
    match handles {
        1 => "by one handle".to_owned(),
        more => format!("by {more} handles"),
    }
}

/// What to do about a corrupt object.
fn cure(object: &str) -> &'static str {
    match object {
        "the superblock" | "the inode table" => {
            "nothing can be read without it, restore the pool from a copy"
        }
        "the pin table" => {
            "pages that a device may write to are not known until the host is started again; \
             until then the pool opens read-only"
        }
        _ => "run `udax check`, and copy out what is readable",
    }
}

impl From<AccessError> for FsError {
    fn from(error: AccessError) -> FsError {
        FsError::Device(error.into())
    }
}

impl From<MediaError> for FsError {
    fn from(error: MediaError) -> FsError {
        FsError::Device(error.into())
    }
}
