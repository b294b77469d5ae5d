//! Kinds of errors, and which kind an error of a lower layer is.
//!
//! Knows no errno: `udax-fuse` maps kinds to numbers.

use std::io;

use udax_dev::AccessError;
use udax_fs::FsError;
use udax_mapping::{BreakError, FaultError};
use udax_mm::{MediaError, RequestError};

use crate::devdax::DevDaxError;

/// What a program may want to tell apart.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ErrorKind {
    /// The path does not exist.
    NotFound,
    /// The name is taken already.
    AlreadyExists,
    /// The path goes through something that is no directory.
    NotADirectory,
    /// The call wants a file and met a directory.
    IsADirectory,
    /// The call wants a regular file.
    NotAFile,
    /// The directory still has entries.
    DirectoryNotEmpty,
    /// The name may not be given to a file.
    InvalidName,
    /// The name has more than 255 bytes.
    NameTooLong,
    /// The path leads through too many symbolic links.
    SymlinkLoop,
    /// A directory may not be moved into itself.
    MoveIntoItself,
    /// The inode has as many names as it can count.
    TooManyLinks,
    /// The call wants a symbolic link.
    NotASymlink,
    /// The file is frozen, its bytes cannot change.
    Frozen,
    /// The call wants a frozen file.
    NotFrozen,
    /// The call wants a file that nobody has mapped for writing.
    MappedForWriting,
    /// The call wants a file that nobody has open for writing over a mount.
    OpenForWriting,
    /// The pool or the medium is open read-only.
    ReadOnly,
    /// The handle was not opened for this.
    BadHandle,
    /// The file would be larger than a file can be.
    TooLarge,
    /// The pool has no room; the call changed nothing.
    Full,
    /// Somebody holds a pin and the caller did not want to wait longer, or died with one.
    Pinned,
    /// A wait was interrupted; nothing has changed.
    Interrupted,
    /// The file was removed for good.
    Stale,
    /// The offset or the range lies outside the file or the mapping.
    OutOfRange,
    /// The range does not start and end at a folio of the device.
    Misaligned,
    /// An argument cannot be right.
    InvalidInput,
    /// The file holds no pool.
    NotAPool,
    /// The file is shorter than the pool in it.
    Truncated,
    /// The pool was written by a newer version, or uses features this one does not know.
    NewerVersion,
    /// A structure on the medium contradicts its checksum.
    Corrupt,
    /// The pool has to be opened for writing once.
    NeedsRecovery,
    /// There is not enough room for any pool.
    TooSmall,
    /// Another process, or another handle, has the pool open.
    InUse,
    /// The pool was closed under this handle.
    Closed,
    /// Handles of the pool are still open.
    StillOpen,
    /// The files lie in different pools, and share nothing.
    OtherPool,
    /// The host kernel cannot register this memory for input and output.
    NotRegistrable,
    /// Stores to this memory are not durable without a call.
    NotSynchronous,
    /// The range cannot be mapped by folios as large as was asked; the message says why.
    TooFragmented,
    /// A table of devices is wrong.
    BadTable,
    /// The device has no direct access.
    NoDax,
    /// The device was taken away.
    DeviceGone,
    /// The medium failed.
    Media,
    /// The host refused something.
    Host,
}

impl From<&FsError> for ErrorKind {
    fn from(error: &FsError) -> ErrorKind {
        match error {
            FsError::NotAPool => ErrorKind::NotAPool,
            FsError::Truncated { .. } => ErrorKind::Truncated,
            FsError::NewerVersion { .. } | FsError::UnknownFeatures(_) => ErrorKind::NewerVersion,
            FsError::Corrupt { .. } => ErrorKind::Corrupt,
            FsError::NeedsRecovery => ErrorKind::NeedsRecovery,
            FsError::TooSmall { .. } => ErrorKind::TooSmall,
            FsError::NoSpace { .. } | FsError::PinTableFull { .. } => ErrorKind::Full,
            FsError::NotFound => ErrorKind::NotFound,
            FsError::Exists => ErrorKind::AlreadyExists,
            FsError::NotADirectory => ErrorKind::NotADirectory,
            FsError::IsADirectory => ErrorKind::IsADirectory,
            FsError::NotEmpty => ErrorKind::DirectoryNotEmpty,
            FsError::BadName { .. } | FsError::BadTarget(_) => ErrorKind::InvalidName,
            FsError::NameTooLong(_) => ErrorKind::NameTooLong,
            FsError::Loop => ErrorKind::MoveIntoItself,
            FsError::TooManyLinks => ErrorKind::TooManyLinks,
            FsError::NotASymlink => ErrorKind::NotASymlink,
            FsError::Frozen => ErrorKind::Frozen,
            FsError::NotFrozen => ErrorKind::NotFrozen,
            FsError::MappedForWriting { .. } => ErrorKind::MappedForWriting,
            FsError::OpenForWriting { .. } => ErrorKind::OpenForWriting,
            FsError::Interrupted { .. } => ErrorKind::Interrupted,
            FsError::ReadOnly | FsError::ReadOnlyLease => ErrorKind::ReadOnly,
            FsError::TooLarge { .. } | FsError::TransactionTooLarge { .. } => ErrorKind::TooLarge,
            FsError::Stale(_) => ErrorKind::Stale,
            FsError::NotAFile => ErrorKind::NotAFile,
            FsError::Closed => ErrorKind::Closed,
            FsError::Pinned { .. } | FsError::OwnerAlive { .. } | FsError::Quarantined { .. } => {
                ErrorKind::Pinned
            }
            FsError::Map(_) => ErrorKind::Host,
            FsError::Stopped(_) | FsError::Lost { .. } | FsError::PartlyLost { .. } => {
                ErrorKind::Media
            }
            FsError::Holder(_) => ErrorKind::InUse,
            FsError::OtherPool => ErrorKind::OtherPool,
            FsError::NotAligned(_) | FsError::Overlap => ErrorKind::InvalidInput,
            FsError::PastEnd { .. } => ErrorKind::OutOfRange,
            FsError::Layout(error) | FsError::Source(error) => of_break(error),
            FsError::Fault(error) => of_fault(error),
            FsError::Device(error) => of_device(error),
        }
    }
}

fn of_break(error: &BreakError) -> ErrorKind {
    match error {
        BreakError::Pinned { .. } | BreakError::Busy(_) => ErrorKind::Pinned,
        BreakError::Interrupted(_) => ErrorKind::Interrupted,
        BreakError::Closed => ErrorKind::Closed,
        BreakError::Iomap(error) => of_owner(error),
        BreakError::Request(error) => of_request(error),
    }
}

pub(crate) fn of_fault(error: &FaultError) -> ErrorKind {
    match error {
        FaultError::PastEnd(_) => ErrorKind::OutOfRange,
        FaultError::Forbidden(_) => ErrorKind::Frozen,
        FaultError::Empty => ErrorKind::InvalidInput,
        FaultError::Removed => ErrorKind::DeviceGone,
        FaultError::Closed => ErrorKind::Closed,
        FaultError::NotAllocated(_) => ErrorKind::Full,
        FaultError::BelowFloor { .. } => ErrorKind::TooFragmented,
        FaultError::Iomap(error) => of_owner(error),
        FaultError::Request(error) => of_request(error),
        FaultError::Io(error) => of_host(error),
    }
}

/// The kind of a folio that could not be had: somebody has it, or its memory is bad.
fn of_request(error: &RequestError) -> ErrorKind {
    match error {
        RequestError::Busy(_) => ErrorKind::Pinned,
        _ => ErrorKind::Media,
    }
}

/// The kind of an error that a filesystem or a device gave to the mapping and got back from it.
fn of_owner(error: &udax_mapping::IomapError) -> ErrorKind {
    let of_filesystem = error.0.downcast_ref::<FsError>().map(ErrorKind::from);
    let of_device = || error.0.downcast_ref::<AccessError>().map(of_access);
    of_filesystem.or_else(of_device).unwrap_or(ErrorKind::Media)
}

pub(crate) fn of_devdax(error: &DevDaxError) -> ErrorKind {
    match error {
        DevDaxError::Misaligned { .. } => ErrorKind::Misaligned,
        DevDaxError::Private { .. }
        | DevDaxError::AnyOrder
        | DevDaxError::Mixed { .. }
        | DevDaxError::HostPage { .. } => ErrorKind::InvalidInput,
        DevDaxError::Lost { .. } | DevDaxError::PartlyLost { .. } => ErrorKind::Media,
    }
}

pub(crate) fn of_device(error: &udax_dev::IoError) -> ErrorKind {
    match error {
        udax_dev::IoError::Access(error) => of_access(error),
        udax_dev::IoError::Media(error) => of_media(error),
    }
}

pub(crate) fn of_access(error: &AccessError) -> ErrorKind {
    match error {
        AccessError::NoDax(_) => ErrorKind::NoDax,
        AccessError::Dead => ErrorKind::DeviceGone,
        AccessError::OutOfRange { .. } => ErrorKind::OutOfRange,
        AccessError::Failed { .. } => ErrorKind::Media,
    }
}

pub(crate) fn of_media(error: &MediaError) -> ErrorKind {
    match error {
        MediaError::Fault { .. } | MediaError::Poisoned { .. } => ErrorKind::Media,
        MediaError::OutOfRange { .. } => ErrorKind::OutOfRange,
        MediaError::Misaligned { .. }
        | MediaError::PartialRecovery { .. }
        | MediaError::NotAddressable { .. }
        | MediaError::UnalignedRange { .. }
        | MediaError::NotInFile { .. }
        | MediaError::InMemory => ErrorKind::InvalidInput,
        MediaError::Pinned { .. } => ErrorKind::Pinned,
        MediaError::Frozen { .. } => ErrorKind::Frozen,
        MediaError::ReadOnly => ErrorKind::ReadOnly,
        MediaError::Empty | MediaError::PartialPage { .. } | MediaError::NotAMedium => {
            ErrorKind::NotAPool
        }
        MediaError::NoHugePages { .. } => ErrorKind::Full,
        MediaError::NoSuchHugePage { .. } => ErrorKind::Host,
        MediaError::Device { source, .. }
        | MediaError::Open { source, .. }
        | MediaError::Create { source, .. } => of_host(source),
        MediaError::Io(error) => of_host(error),
    }
}

pub(crate) fn of_host(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::IsADirectory => ErrorKind::IsADirectory,
        io::ErrorKind::NotADirectory => ErrorKind::NotADirectory,
        io::ErrorKind::StorageFull => ErrorKind::Full,
        io::ErrorKind::FileTooLarge => ErrorKind::TooLarge,
        io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        _ => ErrorKind::Host,
    }
}
