//! The one error of this crate: what failed, on which path, and why.
//!
//! The kinds a program may branch on are in `kind.rs`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use udax_dev::{AccessError, HolderError, IoError, NoDax, TextError};
use udax_fs::FsError;
use udax_mapping::FaultError;
use udax_mm::{MediaError, PgmapError, StillBusy};

use crate::devdax::DevDaxError;
use crate::floor::BelowFloor;
use crate::kind::{ErrorKind, of_access, of_devdax, of_device, of_fault, of_host, of_media};
use crate::synchronous::NotSynchronous;

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

/// The cause of an [`Error`], before a path is added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    DevDax(#[from] DevDaxError),
    #[error(transparent)]
    Fault(#[from] FaultError),
    #[error(transparent)]
    Device(#[from] IoError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    NoDax(#[from] NoDax),
    #[error(transparent)]
    Holder(#[from] HolderError),
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
    #[error("it is open in process {0} already; wait until that closes it")]
    InUse(u32),
    #[error("it is open elsewhere; wait for its holder, `lslocks` may name it")]
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

    #[error("{0}")]
    Table(TextError),

    #[error("there is a pool on the devices of the table already; `--force` would lose it")]
    HoldsPool,

    #[error(transparent)]
    BelowFloor(#[from] BelowFloor),
    #[error(transparent)]
    NotSynchronous(#[from] NotSynchronous),
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

    pub(crate) fn cause(&self) -> &Cause {
        &self.cause
    }

    pub(crate) fn new(path: &Path, cause: impl Into<Cause>) -> Error {
        Error { path: Some(path.to_owned()), cause: Box::new(cause.into()) }
    }
}

impl Cause {
    fn kind(&self) -> ErrorKind {
        match self {
            Cause::Fs(error) => ErrorKind::from(error),
            Cause::DevDax(error) => of_devdax(error),
            Cause::Fault(error) => of_fault(error),
            Cause::Device(error) => of_device(error),
            Cause::Access(error) => of_access(error),
            Cause::NoDax(_) => ErrorKind::NoDax,
            Cause::Holder(HolderError::Removed) => ErrorKind::DeviceGone,
            Cause::Media(error) | Cause::Pgmap(PgmapError::Media(error)) => of_media(error),
            Cause::Pgmap(_) | Cause::InvalidInput(_) => ErrorKind::InvalidInput,
            Cause::Busy(_) => ErrorKind::Pinned,
            Cause::Host(error) => of_host(error),
            Cause::PoolExists | Cause::HoldsPool => ErrorKind::AlreadyExists,
            Cause::InUse(_) | Cause::InUseByUnknown | Cause::Holder(HolderError::Held) => {
                ErrorKind::InUse
            }
            Cause::PartialPages(_) => ErrorKind::NotAPool,
            Cause::StillOpen(_) => ErrorKind::StillOpen,
            Cause::SymlinkLoop(_) => ErrorKind::SymlinkLoop,
            Cause::BadHandle(_) => ErrorKind::BadHandle,
            Cause::OutOfRange { .. } => ErrorKind::OutOfRange,
            Cause::NotRegistrable => ErrorKind::NotRegistrable,
            Cause::BelowFloor(_) => ErrorKind::TooFragmented,
            Cause::NotSynchronous(_) => ErrorKind::NotSynchronous,
            Cause::Table(_) => ErrorKind::BadTable,
        }
    }
}

impl<T, E: Into<Cause>> At<T> for std::result::Result<T, E> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|error| Error::new(path, error))
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
            | ErrorKind::Misaligned
            | ErrorKind::OutOfRange => io::ErrorKind::InvalidInput,
            ErrorKind::NameTooLong => io::ErrorKind::InvalidFilename,
            ErrorKind::TooManyLinks => io::ErrorKind::TooManyLinks,
            ErrorKind::Frozen | ErrorKind::BadHandle => io::ErrorKind::PermissionDenied,
            ErrorKind::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            ErrorKind::TooLarge => io::ErrorKind::FileTooLarge,
            ErrorKind::Full => io::ErrorKind::StorageFull,
            ErrorKind::Pinned
            | ErrorKind::MappedForWriting
            | ErrorKind::OpenForWriting
            | ErrorKind::InUse
            | ErrorKind::StillOpen => io::ErrorKind::ResourceBusy,
            ErrorKind::Interrupted => io::ErrorKind::Interrupted,
            ErrorKind::OtherPool => io::ErrorKind::CrossesDevices,
            ErrorKind::Stale => io::ErrorKind::StaleNetworkFileHandle,
            ErrorKind::NotAPool | ErrorKind::Truncated | ErrorKind::Corrupt => {
                io::ErrorKind::InvalidData
            }
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
