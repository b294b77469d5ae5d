//! Media: what memory is made of.
//!
//! This file owns the seam between udax and the host: the [`Media`] trait, what is known of a
//! medium, and the one medium that is memory, [`FileMedia`]. It does not know pages' lifetimes:
//! whoever has a medium may touch all of it, and only a page map says who should.
//!
//! The other implementations are the recorder and the crash image; both hold plain buffers.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;

use crate::persist::Persist;
use crate::reserve::{Reservation, Sharing};
use crate::sync::Arc;
use crate::units::{PAGE_SIZE, Pages};

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
    /// [`PAGE_SIZE`] with hugetlbfs only.
    pub host_page: usize,
    /// Whether the host kernel registers its memory for input and output by devices (`io_uring`,
    /// RDMA, CUDA). It does for memory filesystems, and refuses for filesystems on a disk.
    pub is_registrable: bool,
    /// Whether stores are possible.
    pub is_writable: bool,
}

/// What a file medium is asked to survive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// The death of the process at any instruction.
    Process,
    /// Power loss as well: a fence is an msync, or writes back cache lines where the file is
    /// persistent memory.
    Power,
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

    /// Durability against power loss was asked of a file in memory.
    #[error("the file is in memory and cannot survive power loss: ask for durability `process`")]
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
    /// The number of bytes, a multiple of [`PAGE_SIZE`] and not zero.
    fn len(&self) -> u64;

    /// What was found out about the medium.
    fn facts(&self) -> MediaFacts;

    /// Copies bytes out.
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

    /// Stores zeros.
    ///
    /// # Errors
    ///
    /// As [`Media::write`].
    fn zero(&self, at: u64, len: u64) -> Result<(), MediaError>;

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

    /// Waits until everything that any thread flushed before is in the place that survives.
    ///
    /// # Blocking
    ///
    /// Waits for the disk where persistence is [`Persistence::Msync`].
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::Io`] if the host could not write. What was flushed stays flushed, so
    /// the next fence tries again.
    fn fence(&self, site: Site) -> Result<(), MediaError>;

    /// The file to map for users, and its byte at which the medium starts. None where there is no
    /// file: a recorder, a crash image.
    fn backing(&self) -> Option<(BorrowedFd<'_>, u64)> {
        None
    }

    /// Gives the host memory of whole pages back. Their bytes are zeros or unchanged afterwards;
    /// nothing happens where the host cannot.
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

/// A file that is mapped shared: a plain file, a memfd, persistent memory, huge pages.
///
/// The mapping is aligned to 2 MiB (1 GiB) when the file is that long, so that the host can use
/// huge pages for it.
///
/// # Examples
///
/// ```
/// use udax_mm::Media;
/// use udax_mm::media::FileMedia;
///
/// let media = FileMedia::memfd("example", 1 << 20)?;
/// media.write(4096, b"hello")?;
/// let mut bytes = [0; 5];
/// media.read(4096, &mut bytes)?;
/// assert_eq!(&bytes, b"hello");
/// # Ok::<(), udax_mm::MediaError>(())
/// ```
///
/// # Invariants
///
/// 1. The whole of `mapping` maps `file` from byte 0 on, for as long as this exists. The file may
///    be shorter meanwhile; then accesses fail.
#[derive(Debug)]
pub struct FileMedia {
    file: File,
    mapping: Reservation,
    facts: MediaFacts,
    persist: Persist,
}

impl FileMedia {
    /// Creates a sparse file of `len` bytes and maps it.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::Create`] if the file exists or cannot be that long, and what
    /// [`FileMedia::from_file`] returns. No file is left behind then.
    pub fn create(path: &Path, len: u64, durability: Durability) -> Result<FileMedia, MediaError> {
        if len == 0 {
            return Err(MediaError::Empty);
        }
        let create = |source| MediaError::Create { path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        let file = file.map_err(create)?;
        let media = file.set_len(len).map_err(create);
        let media = media.and_then(|()| FileMedia::from_file(file, durability));
        if media.is_err() {
            // The error that is being returned says more than one of the removal would.
            let _ = std::fs::remove_file(path);
        }
        media
    }

    /// Opens an existing file and maps it.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::Open`], and what [`FileMedia::from_file`] returns.
    pub fn open(path: &Path, durability: Durability) -> Result<FileMedia, MediaError> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|source| MediaError::Open { path: path.to_owned(), source })?;
        FileMedia::from_file(file, durability)
    }

    /// Opens an existing file and maps it for reading.
    ///
    /// # Errors
    ///
    /// As [`FileMedia::open`].
    pub fn open_read_only(path: &Path) -> Result<FileMedia, MediaError> {
        let file = File::open(path);
        let file = file.map_err(|source| MediaError::Open { path: path.to_owned(), source })?;
        FileMedia::from_file(file, Durability::Process)
    }

    /// Creates `len` bytes of memory that vanish with the last handle, in huge pages if the host
    /// has them to give. Their length is sealed: nobody who gets the file can truncate it.
    ///
    /// # Errors
    ///
    /// What [`FileMedia::from_file`] returns.
    pub fn memfd(name: &str, len: u64) -> Result<FileMedia, MediaError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create(name, flags).map_err(io::Error::from)?);
        file.set_len(len)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)
            .map_err(io::Error::from)?;
        FileMedia::from_file(file, Durability::Process)
    }

    /// Maps an open file, for reading if that is all it is open for.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::Empty`], [`MediaError::PartialPage`], [`MediaError::InMemory`], or
    /// [`MediaError::Io`] if the host does not map the file.
    pub fn from_file(file: File, durability: Durability) -> Result<FileMedia, MediaError> {
        let host = Host::of(&file)?;
        let len = host.check_len(&file)?;
        let mapping = Reservation::new(len)?;
        let persistence = host.map(&mapping, &file, durability)?;
        let facts = MediaFacts {
            persistence,
            host_page: host.page,
            is_registrable: host.is_memory,
            is_writable: host.is_writable,
        };
        // INVARIANT: 1 by `Host::map`.
        Ok(FileMedia { file, mapping, facts, persist: Persist::new(persistence) })
    }

    /// Refuses a store if the mapping permits none.
    fn check_writable(&self) -> Result<(), MediaError> {
        if self.facts.is_writable { Ok(()) } else { Err(MediaError::ReadOnly) }
    }
}

impl Media for FileMedia {
    fn len(&self) -> u64 {
        u64::try_from(self.mapping.window().len()).expect("usize has at most 64 bits")
    }

    fn facts(&self) -> MediaFacts {
        self.facts
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MediaError> {
        self.mapping.window().read(at, into)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        self.check_writable()?;
        self.mapping.window().write(at, bytes)
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), MediaError> {
        self.check_writable()?;
        self.mapping.window().zero(at, len)
    }

    fn load_u64(&self, at: u64) -> Result<u64, MediaError> {
        self.mapping.window().load_u64(at)
    }

    fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> {
        self.check_writable()?;
        self.mapping.window().store_u64(at, value)
    }

    fn flush(&self, at: u64, len: u64, _site: Site) -> Result<(), MediaError> {
        self.persist.flush(self.mapping.window(), at, len)
    }

    fn fence(&self, _site: Site) -> Result<(), MediaError> {
        self.persist.fence(self.mapping.window())
    }

    fn backing(&self) -> Option<(BorrowedFd<'_>, u64)> {
        Some((self.file.as_fd(), 0))
    }

    fn discard(&self, at: u64, len: u64) -> Result<(), MediaError> {
        self.check_writable()?;
        let outside = || MediaError::OutOfRange { at, len };
        let end = at.checked_add(len).filter(|&end| end <= self.len()).ok_or_else(outside)?;
        let page = u64::try_from(self.facts.host_page).expect("usize has at most 64 bits");
        let (first, last) = (at.next_multiple_of(page), end - end % page);
        if first >= last {
            return Ok(());
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, punch, first, last - first) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(MediaError::Io(error.into())),
        }
    }
}

/// What the host says about an open file.
struct Host {
    /// Whether the file is in a filesystem of memory: tmpfs (also memfd), hugetlbfs.
    is_memory: bool,
    /// Whether the file has no name, and so vanishes with its last handle.
    is_nameless: bool,
    is_writable: bool,
    /// Bytes in a page.
    page: usize,
}

impl Host {
    fn of(file: &File) -> io::Result<Host> {
        let filesystem = rustix::fs::fstatfs(file)?;
        let is_huge = filesystem.f_type == libc::HUGETLBFS_MAGIC;
        let huge_page = usize::try_from(filesystem.f_bsize).unwrap_or(PAGE_SIZE);
        let mode = rustix::fs::fcntl_getfl(file)? & OFlags::ACCMODE;
        Ok(Host {
            is_memory: is_huge || filesystem.f_type == libc::TMPFS_MAGIC,
            is_nameless: rustix::fs::fstat(file)?.st_nlink == 0,
            is_writable: mode != OFlags::RDONLY,
            page: if is_huge { huge_page } else { rustix::param::page_size() },
        })
    }

    /// The length of a file, which is a positive number of whole pages.
    fn check_len(&self, file: &File) -> Result<usize, MediaError> {
        // Not the metadata, which has no length for a block device.
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::End(0)).map_err(io::Error::from)?;
        match usize::try_from(end) {
            Ok(0) => Err(MediaError::Empty),
            Ok(len) if len.is_multiple_of(self.page) => Ok(len),
            _ => Err(MediaError::PartialPage { len: end, page: self.page }),
        }
    }

    /// Maps the whole file and says how its stores survive.
    fn map(
        &self,
        mapping: &Reservation,
        file: &File,
        durability: Durability,
    ) -> Result<Persistence, MediaError> {
        let access = if self.is_writable { crate::Access::Write } else { crate::Access::Read };
        let whole = || 0..mapping.window().len();
        let map = |sharing| mapping.map_file(whole(), file.as_fd(), 0, access, sharing);
        if durability == Durability::Process || self.is_memory {
            if durability == Durability::Power {
                return Err(MediaError::InMemory);
            }
            map(Sharing::Shared)?;
            mapping.advise_huge();
            let volatile = self.is_nameless;
            return Ok(if volatile { Persistence::Volatile } else { Persistence::Process });
        }
        // The host accepts a synchronous mapping of persistent memory only, where stores bypass
        // the page cache and a written-back cache line is as durable as the file's metadata.
        if map(Sharing::Synchronous).is_ok() {
            return Ok(Persistence::CacheLines);
        }
        map(Sharing::Shared)?;
        Ok(Persistence::Msync)
    }
}
