//! Media: what memory is made of.
//!
//! This file owns the seam between udax and the host: the [`Media`] trait, what is known of a
//! medium, and how it fails. It does not know pages' lifetimes: whoever has a medium may touch all
//! of it, and only a page map says who should.
//!
//! [`FileMedia`] and [`RangeMedia`] are memory; the recorder and the crash image hold plain
//! buffers.

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::panic::Location;
use std::path::PathBuf;
use std::ptr::NonNull;

use crate::active::Active;
use crate::sync::Arc;
use crate::units::Pages;

pub use crate::file_media::{Durability, FileMedia, HugePage};
pub use crate::range_media::RangeMedia;

/// The source line that asked for a flush or a fence. The recorder names it, and a test of crash
/// consistency leaves it out.
pub type Site = &'static Location<'static>;

/// How stores to a medium reach the place that survives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Persistence {
    /// A store survives the process at once, and power loss never surely: flush and fence cost
    /// nothing.
    Process,
    /// A store survives power loss when its cache line was flushed and a fence was made.
    CacheLines,
    /// A store survives power loss when its page was flushed and a fence was made, which is an
    /// msync.
    Msync,
    /// Everything is gone with the last handle.
    Volatile,
}

/// What was found out about a medium.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MediaFacts {
    /// How stores survive.
    pub persistence: Persistence,
    /// Bytes in a page of the host behind it, as far as the host tells: more than
    /// [`PAGE_SIZE`](crate::PAGE_SIZE) with hugetlbfs and DAX devices only. The host maps parts of
    /// the medium that start and end at multiples of it.
    pub host_page: usize,
    /// Whether the host kernel registers its memory for input and output by devices (`io_uring`,
    /// RDMA, CUDA). It does for tmpfs, hugetlbfs and DAX devices, and refuses for filesystems on a
    /// disk, DAX or not. It pins for storing, so a medium for reading is not registrable.
    pub is_registrable: bool,
    /// Whether stores are possible.
    pub is_writable: bool,
    /// Whether loads and stores reach the memory of a device, with no page cache between: a DAX
    /// device, or a file on a DAX filesystem, for which the host accepts `MAP_SYNC`. The mapping
    /// of such a file is synchronous if its persistence is [`Persistence::CacheLines`].
    pub is_dax: bool,
}

impl MediaFacts {
    /// What two media both promise: the weaker of each.
    #[must_use]
    pub fn weakest(self, other: MediaFacts) -> MediaFacts {
        let strength = |facts: &MediaFacts| match facts.persistence {
            Persistence::Volatile => 0,
            Persistence::Process => 1,
            Persistence::Msync => 2,
            Persistence::CacheLines => 3,
        };
        let is_weaker = strength(&self) <= strength(&other);
        MediaFacts {
            persistence: if is_weaker { self.persistence } else { other.persistence },
            host_page: self.host_page.min(other.host_page),
            is_registrable: self.is_registrable && other.is_registrable,
            is_writable: self.is_writable && other.is_writable,
            is_dax: self.is_dax && other.is_dax,
        }
    }
}

/// Why an access to a medium failed, or why there is no medium.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The first byte that the host could not give: the file was truncated, the disk or the
    /// memory under it failed. Bytes before it were copied.
    #[error("the medium failed at byte {at}")]
    Fault {
        /// The byte of the medium.
        at: u64,
    },

    /// The page is known to have failed; nothing was touched. `PgmapRef::recover` gives it new
    /// bytes.
    #[error("byte {at} lies in a poisoned page")]
    Poisoned {
        /// The first such byte of the access.
        at: u64,
    },

    /// A recovery write does not cover whole pages, so it would leave bytes that are lost.
    #[error("bytes {at}..+{len} are no whole pages of {page} bytes, as a recovery write needs")]
    PartialRecovery {
        /// The first byte.
        at: u64,
        /// The number of bytes.
        len: u64,
        /// The bytes of a page.
        page: usize,
    },

    /// The range does not lie inside the medium.
    #[error("bytes {at}..+{len} lie outside the medium")]
    OutOfRange {
        /// The first byte.
        at: u64,
        /// The number of bytes.
        len: u64,
    },

    /// An atomic access is not aligned.
    #[error("byte {at} is not the start of an aligned 8-byte word")]
    Misaligned {
        /// The byte of the medium.
        at: u64,
    },

    /// The memory of a pinned page was to be replaced.
    #[error("byte {at} lies in a page that is pinned, and its memory cannot be replaced")]
    Pinned {
        /// The byte of the medium.
        at: u64,
    },

    /// The memory is private to its device.
    #[error("byte {at} is in memory that only its device can address")]
    NotAddressable {
        /// The byte of the medium.
        at: u64,
    },

    /// A store would change a frozen page.
    #[error("byte {at} lies in a frozen page")]
    Frozen {
        /// The byte of the medium.
        at: u64,
    },

    /// A store to a medium that was opened for reading.
    #[error("the medium is read-only")]
    ReadOnly,

    /// The file has no bytes, or none were asked for.
    #[error("a medium has at least one page, and this one has none")]
    Empty,

    /// The file does not end at the end of a host page.
    #[error("the medium has {len} bytes, which is no whole number of {page}-byte pages")]
    PartialPage {
        /// The bytes of the file.
        len: u64,
        /// The bytes of a host page.
        page: usize,
    },

    /// The range of an existing mapping does not start at a page of the host.
    #[error("address {address:#x} is not a multiple of {page}, the bytes of a host page")]
    UnalignedRange {
        /// The first address.
        address: usize,
        /// The bytes of a host page.
        page: usize,
    },

    /// The file that a range is said to map ends before it, or starts behind it.
    #[error("bytes {start}..+{len} lie outside the file, which has {file_len}")]
    NotInFile {
        /// The first byte.
        start: u64,
        /// The number of bytes.
        len: u64,
        /// The bytes of the file.
        file_len: u64,
    },

    /// The file is something that cannot be memory.
    #[error("the file is no plain file, no block device and no DAX device")]
    NotAMedium,

    /// The host has too few huge pages that are free.
    #[error(
        "{needed} huge pages of {} are needed and {free} are free; reserve more with \
         `echo {total} > /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages`",
        size_of_page(*.page), .page / 1024
    )]
    NoHugePages {
        /// The bytes of a huge page.
        page: usize,
        /// The pages that the medium needs.
        needed: u64,
        /// The pages that nobody has, and that are promised to nobody.
        free: u64,
        /// The pages that the host has to have, free or not.
        total: u64,
    },

    /// The host has no huge pages of this size at all.
    #[error("the host has no huge pages of {}", size_of_page(*.page))]
    NoSuchHugePage {
        /// The bytes of a huge page.
        page: usize,
    },

    /// The host does not tell what a device is.
    #[error("cannot find out about the device at {}", .path.display())]
    Device {
        /// Where the host describes the device.
        path: PathBuf,
        /// What was found instead.
        source: io::Error,
    },

    /// Durability against power loss was asked of a file in memory, or of one that has no name and
    /// so vanishes with its last handle.
    #[error(
        "the file is in memory or has no name, and cannot survive power loss: ask for durability \
         `process`"
    )]
    InMemory,

    /// A file could not be opened.
    #[error("cannot open {}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },

    /// A file could not be created at its full length.
    #[error("cannot create {}", .path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },

    /// The host refused something else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The seam: every load, store, flush and fence of a medium goes through here.
///
/// Offsets are bytes of the medium. Aligned units of eight bytes are never torn, neither for a
/// reader at the same time nor by a crash.
#[expect(clippy::len_without_is_empty, reason = "no medium is empty")]
pub trait Media: Send + Sync + Debug {
    /// The number of bytes, a multiple of [`PAGE_SIZE`](crate::PAGE_SIZE) and not zero.
    fn len(&self) -> u64;

    /// What was found out about the medium.
    fn facts(&self) -> MediaFacts;

    /// Copies bytes out.
    ///
    /// Mapped memory that fails is an error by way of SIGBUS or SIGSEGV, here as in every other
    /// access. In a thread that has blocked the signal it ends the process.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::OutOfRange`] before anything is copied, or [`MediaError::Fault`] with
    /// the first byte that was not.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MediaError>;

    /// Copies bytes in. They are persistent when they were flushed and a fence was made.
    ///
    /// # Errors
    ///
    /// As [`Media::read`], and [`MediaError::ReadOnly`].
    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError>;

    /// Copies out a part of a read of `whole` bytes, which decide how it is best done.
    ///
    /// # Errors
    ///
    /// As [`Media::read`].
    fn read_part(&self, at: u64, into: &mut [u8], whole: u64) -> Result<(), MediaError> {
        let _ = whole;
        self.read(at, into)
    }

    /// Copies in a part of a write of `whole` bytes, which decide how it is best done.
    ///
    /// # Errors
    ///
    /// As [`Media::write`].
    fn write_part(&self, at: u64, bytes: &[u8], whole: u64) -> Result<(), MediaError> {
        let _ = whole;
        self.write(at, bytes)
    }

    /// Stores zeros.
    ///
    /// # Errors
    ///
    /// As [`Media::write`].
    fn zero(&self, at: u64, len: u64) -> Result<(), MediaError>;

    /// Copies whole pages in where memory failed, and finds out that they can be read. The bytes
    /// there before are lost, also if this fails.
    ///
    /// # Errors
    ///
    /// As [`Media::write`], and [`MediaError::PartialRecovery`]. [`MediaError::Fault`] if the
    /// memory still fails, or if bytes before the range are missing that this would bring back as
    /// zeros.
    fn recover(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        self.write(at, bytes)?;
        self.read(at, &mut vec![0; bytes.len()])
    }

    /// Loads an aligned little-endian word atomically, with acquire ordering.
    ///
    /// # Errors
    ///
    /// As [`Media::read`], and [`MediaError::Misaligned`].
    fn load_u64(&self, at: u64) -> Result<u64, MediaError>;

    /// Stores an aligned little-endian word atomically, with release ordering.
    ///
    /// # Errors
    ///
    /// As [`Media::write`], and [`MediaError::Misaligned`].
    fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError>;

    /// Starts the bytes on their way to the place that survives.
    ///
    /// # Errors
    ///
    /// As [`Media::read`].
    fn flush(&self, at: u64, len: u64, site: Site) -> Result<(), MediaError>;

    /// Waits until everything that the calling thread flushed before is in the place that survives.
    ///
    /// What other threads flushed may or may not be: a processor orders the cache lines of the
    /// thread that fences only.
    ///
    /// # Blocking
    ///
    /// Waits for the disk where persistence is [`Persistence::Msync`].
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::Io`] if the host could not write. Then every later fence of the same
    /// medium fails as well: the host reports a lost write once, so nobody can tell what has
    /// arrived. Opening the medium again starts from what is there.
    fn fence(&self, site: Site) -> Result<(), MediaError>;

    /// Which parts of the medium page maps describe.
    fn active(&self) -> &Active;

    /// The address at which this process has all of the medium mapped for as long as the medium
    /// exists. None where it is no mapped memory.
    fn address(&self) -> Option<NonNull<u8>> {
        None
    }

    /// The file to map for users, and its byte at which the medium starts. None where there is no
    /// file: a recorder, a crash image. [`MediaFacts::host_page`] is that of this file.
    fn backing(&self) -> Option<(BorrowedFd<'_>, u64)> {
        None
    }

    /// Gives the host memory of whole pages back. Their bytes are zeros or unchanged afterwards;
    /// nothing happens where the host cannot, or could not promise other memory in their place
    /// (huge pages that were set aside).
    ///
    /// # Errors
    ///
    /// As [`Media::write`], and [`MediaError::Io`].
    fn discard(&self, at: u64, len: u64) -> Result<(), MediaError> {
        let _ = (at, len);
        Ok(())
    }
}

/// A run of whole pages of one medium.
#[derive(Clone, Debug)]
pub struct MediaRange {
    /// The medium.
    pub media: Arc<dyn Media>,
    /// The first byte, at the start of a page.
    pub start: u64,
    /// The number of pages.
    pub pages: Pages,
}

/// The size of a page as people say it.
fn size_of_page(bytes: usize) -> String {
    match bytes.trailing_zeros() {
        30.. => format!("{} GiB", bytes >> 30),
        20..30 => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    }
}
