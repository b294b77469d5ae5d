//! The one error of this crate: what failed, on which path, and why.
//!
//! Owns the kinds a program may branch on. Knows no errno: `udax-fuse` maps kinds to numbers.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use udax_fs::FsError;
use udax_mapping::{BreakError, FaultError};
use udax_mm::{MediaError, PgmapError, StillBusy};

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed: a kind, the path it was about, and the cause.
///
/// ```
/// use udax::{ErrorKind, Pool};
///
/// let pool = Pool::create_in_memory("example", 8 << 20)?;
/// let error = pool.read("/a/b").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert_eq!(error.to_string(), "/a/b: no such file or directory");
/// # Ok::<(), udax::Error>(())
/// ```
#[derive(Debug)]
pub struct Error {
    path: Option<PathBuf>,
    cause: Box<Cause>,
}

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
    /// The pool or the medium is open read-only.
    ReadOnly,
    /// The handle was not opened for this.
    BadHandle,
    /// The file would be larger than a file can be.
    TooLarge,
    /// The pool has no room; the call changed nothing.
    Full,
    /// Somebody holds a pin and the caller did not want to wait longer.
    Pinned,
    /// The file was removed for good.
    Stale,
    /// The offset or the range lies outside the file or the mapping.
    OutOfRange,
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
    /// The host kernel cannot register this memory for input and output.
    NotRegistrable,
    /// The device was taken away.
    DeviceGone,
    /// The medium failed.
    Media,
    /// The host refused something.
    Host,
}

/// The cause of an [`Error`], before a path is added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    Media(#[from] MediaError),
    #[error(transparent)]
    Pgmap(#[from] PgmapError),
    #[error(transparent)]
    Busy(#[from] StillBusy),
    #[error(transparent)]
    Host(#[from] io::Error),
    #[error("the file exists already; a pool is never created over one, remove it first")]
    PoolExists,
    #[error("the pool is open in process {0} already; wait for it, or attach to it when it serves")]
    InUse(u32),
    #[error("the pool is open elsewhere; wait for its holder, `lslocks` may name it")]
    InUseByUnknown,
    #[error(
        "{0} bytes are no whole number of pages: this is no udax pool, or a truncated one; restore \
         the file to its full size, or create a pool with `udax create`"
    )]
    PartialPages(u64),
    #[error("{0} open files, mappings, pins or directories hold the pool; drop them first")]
    StillOpen(usize),
    #[error("more than {0} symbolic links on the way")]
    SymlinkLoop(usize),
    #[error("the handle is not open for {0}")]
    BadHandle(&'static str),
    #[error("{0}")]
    InvalidInput(&'static str),
    #[error("bytes {at}..{} lie outside the {len} bytes of the {what}", at.saturating_add(*wanted))]
    OutOfRange { what: &'static str, at: u64, wanted: u64, len: u64 },
    #[error(
        "the host does not register this memory for input and output; use a pool in memory, on \
         tmpfs or on a DAX device"
    )]
    NotRegistrable,
}

/// Adds the path a call was about to its error.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T>;
}

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.cause.kind()
    }

    /// The path the call was about, inside the pool or on the host.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The filesystem's own error, if it is the cause.
    pub fn as_fs_error(&self) -> Option<&FsError> {
        match &*self.cause {
            Cause::Fs(error) => Some(error),
            _ => None,
        }
    }

    pub(crate) fn new(path: &Path, cause: impl Into<Cause>) -> Error {
        Error { path: Some(path.to_owned()), cause: Box::new(cause.into()) }
    }
}

impl Cause {
    fn kind(&self) -> ErrorKind {
        match self {
            Cause::Fs(error) => ErrorKind::from(error),
            Cause::Media(error) => of_media(error),
            Cause::Pgmap(PgmapError::Media(error)) => of_media(error),
            Cause::Pgmap(_) | Cause::InvalidInput(_) => ErrorKind::InvalidInput,
            Cause::Busy(_) => ErrorKind::Pinned,
            Cause::Host(error) => of_host(error),
            Cause::PoolExists => ErrorKind::AlreadyExists,
            Cause::InUse(_) | Cause::InUseByUnknown => ErrorKind::InUse,
            Cause::PartialPages(_) => ErrorKind::NotAPool,
            Cause::StillOpen(_) => ErrorKind::StillOpen,
            Cause::SymlinkLoop(_) => ErrorKind::SymlinkLoop,
            Cause::BadHandle(_) => ErrorKind::BadHandle,
            Cause::OutOfRange { .. } => ErrorKind::OutOfRange,
            Cause::NotRegistrable => ErrorKind::NotRegistrable,
        }
    }
}

impl<T, E: Into<Cause>> At<T> for std::result::Result<T, E> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|error| Error::new(path, error))
    }
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
            FsError::NoSpace { .. } => ErrorKind::Full,
            FsError::NotFound => ErrorKind::NotFound,
            FsError::Exists => ErrorKind::AlreadyExists,
            FsError::NotADirectory => ErrorKind::NotADirectory,
            FsError::IsADirectory => ErrorKind::IsADirectory,
            FsError::NotEmpty => ErrorKind::DirectoryNotEmpty,
            FsError::BadName { .. } => ErrorKind::InvalidName,
            FsError::NameTooLong(_) => ErrorKind::NameTooLong,
            FsError::Loop => ErrorKind::MoveIntoItself,
            FsError::TooManyLinks => ErrorKind::TooManyLinks,
            FsError::NotASymlink => ErrorKind::NotASymlink,
            FsError::Frozen => ErrorKind::Frozen,
            FsError::NotFrozen => ErrorKind::NotFrozen,
            FsError::ReadOnly => ErrorKind::ReadOnly,
            FsError::TooLarge { .. } => ErrorKind::TooLarge,
            FsError::Stale(_) => ErrorKind::Stale,
            FsError::NotAFile => ErrorKind::NotAFile,
            FsError::BadTarget(_) => ErrorKind::InvalidName,
            FsError::Closed => ErrorKind::Closed,
            FsError::Pinned { .. } => ErrorKind::Pinned,
            FsError::Map(_) => ErrorKind::Host,
            FsError::Holder(_) => ErrorKind::InUse,
            FsError::Layout(error) => of_break(error),
            FsError::Fault(error) => of_fault(error),
            FsError::Device(error) => of_device(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: {}", path.display(), self.cause),
            None => write!(f, "{}", self.cause),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match error.kind() {
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
            ErrorKind::NotADirectory => io::ErrorKind::NotADirectory,
            ErrorKind::IsADirectory => io::ErrorKind::IsADirectory,
            ErrorKind::DirectoryNotEmpty => io::ErrorKind::DirectoryNotEmpty,
            ErrorKind::InvalidName
            | ErrorKind::InvalidInput
            | ErrorKind::MoveIntoItself
            | ErrorKind::NotASymlink
            | ErrorKind::OutOfRange => io::ErrorKind::InvalidInput,
            ErrorKind::NameTooLong => io::ErrorKind::InvalidFilename,
            ErrorKind::TooManyLinks => io::ErrorKind::TooManyLinks,
            ErrorKind::Frozen | ErrorKind::BadHandle => io::ErrorKind::PermissionDenied,
            ErrorKind::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            ErrorKind::TooLarge => io::ErrorKind::FileTooLarge,
            ErrorKind::Full => io::ErrorKind::StorageFull,
            ErrorKind::Pinned | ErrorKind::InUse | ErrorKind::StillOpen => {
                io::ErrorKind::ResourceBusy
            }
            ErrorKind::Stale => io::ErrorKind::StaleNetworkFileHandle,
            ErrorKind::NotAPool | ErrorKind::Truncated | ErrorKind::Corrupt => {
                io::ErrorKind::InvalidData
            }
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

fn of_break(error: &BreakError) -> ErrorKind {
    match error {
        BreakError::Pinned { .. } => ErrorKind::Pinned,
        BreakError::Iomap(error) => of_owner(error),
    }
}

fn of_fault(error: &FaultError) -> ErrorKind {
    match error {
        FaultError::PastEnd(_) => ErrorKind::OutOfRange,
        FaultError::Iomap(error) => of_owner(error),
        FaultError::Request(_) => ErrorKind::Media,
        FaultError::Io(_) => ErrorKind::Host,
    }
}

/// The kind of an error that the filesystem gave to the mapping and got back from it.
fn of_owner(error: &udax_mapping::IomapError) -> ErrorKind {
    error.0.downcast_ref::<FsError>().map_or(ErrorKind::Media, ErrorKind::from)
}

fn of_device(error: &udax_dev::IoError) -> ErrorKind {
    match error {
        udax_dev::IoError::Access(udax_dev::AccessError::Dead) => ErrorKind::DeviceGone,
        udax_dev::IoError::Access(udax_dev::AccessError::OutOfRange { .. }) => {
            ErrorKind::OutOfRange
        }
        udax_dev::IoError::Media(error) => of_media(error),
    }
}

fn of_media(error: &MediaError) -> ErrorKind {
    match error {
        MediaError::Fault { .. } => ErrorKind::Media,
        MediaError::OutOfRange { .. } => ErrorKind::OutOfRange,
        MediaError::Misaligned { .. } | MediaError::InMemory => ErrorKind::InvalidInput,
        MediaError::Frozen { .. } => ErrorKind::Frozen,
        MediaError::ReadOnly => ErrorKind::ReadOnly,
        MediaError::Empty | MediaError::PartialPage { .. } => ErrorKind::NotAPool,
        MediaError::Open { source, .. } | MediaError::Create { source, .. } => of_host(source),
        MediaError::Io(error) => of_host(error),
    }
}

fn of_host(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::IsADirectory => ErrorKind::IsADirectory,
        io::ErrorKind::NotADirectory => ErrorKind::NotADirectory,
        io::ErrorKind::StorageFull => ErrorKind::Full,
        io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        _ => ErrorKind::Host,
    }
}
