//! The superblock, its mirror, and the session record.
//!
//! This file owns how a pool is recognised and who has it open. It changes nothing when it fails.

use crate::FsError;
use crate::format::Geometry;
use udax_dev::DaxBytes;

/// The facts of a pool that never change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Superblock {
    /// Where everything lies.
    pub(crate) geometry: Geometry,
    /// The name of the pool for programs.
    pub(crate) uuid: [u8; 16],
    /// The name of the pool for people, at most 64 bytes.
    pub(crate) label: String,
    /// Nanoseconds since 1970.
    pub(crate) created: i64,
}

/// Which copy of the superblock was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Copy {
    /// The one in page 0.
    Primary,
    /// The one in the last page, because the primary is bad.
    Mirror,
}

/// How the session before this one ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Session {
    /// It closed the pool.
    Closed,
    /// It did not.
    Open {
        /// Its process, 0 if the record itself is torn.
        pid: u32,
        /// Whether the host has been started again since.
        rebooted: bool,
    },
}

#[allow(unused_variables, missing_docs)]
impl Superblock {
    /// Wipes both superblocks, an old journal and session. Until [`Superblock::write`], the device is no pool.
    #[track_caller]
    pub(crate) fn wipe(bytes: &DaxBytes, geometry: &Geometry) -> Result<(), FsError> { todo!() }
    /// Writes both copies: the last step of formatting, or the repair of the primary.
    #[track_caller]
    pub(crate) fn write(&self, bytes: &DaxBytes) -> Result<(), FsError> { todo!() }
    /// Reads the superblock, or its mirror.
    pub(crate) fn read(bytes: &DaxBytes) -> Result<(Superblock, Copy), FsError> { todo!() }
}

#[allow(unused_variables, missing_docs)]
impl Session {
    pub(crate) fn read(bytes: &DaxBytes) -> Result<Session, FsError> { todo!() }
    /// Records that this process has the pool open; durable at return.
    #[track_caller]
    pub(crate) fn open(bytes: &DaxBytes) -> Result<(), FsError> { todo!() }
    /// Records that this process closed the pool; durable at return.
    #[track_caller]
    pub(crate) fn close(bytes: &DaxBytes) -> Result<(), FsError> { todo!() }
}
