//! File media: files that this process maps.
//!
//! This file owns how a file is opened or made, and how it is a [`Media`]. What the host says about
//! it and how it is mapped is in [`host`](crate::host); the bytes are copied in
//! [`bytes`](crate::bytes), and reach the disk in [`persist`](crate::persist).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::active::Active;
use crate::host::{Host, Mapped, Promise, no_huge_pages};
use crate::media::{Media, MediaError, MediaFacts, Site};
use crate::persist::Persist;
use crate::reserve::{Fresh, Reservation};
use crate::sysfs::Sysfs;
use crate::vma::Access;

/// What a file medium is asked to survive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// The death of the process at any instruction.
    Process,
    /// Power loss as well: a fence is an msync, or writes back cache lines where the file is
    /// persistent memory.
    ///
    /// Refused to what is known to be in memory. What lies below a filesystem or a device that is
    /// made of others (overlayfs with its upper layer on tmpfs, a loop device, a mapped device) the
    /// host does not tell: there it is up to whoever asks.
    Power,
}

/// The size of the pages that [`FileMedia::huge_memfd`] is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HugePage {
    /// 2 MiB.
    TwoMib,
    /// 1 GiB.
    OneGib,
}

impl HugePage {
    /// The number of bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            HugePage::TwoMib => 2 << 20,
            HugePage::OneGib => 1 << 30,
        }
    }
}

/// A file that is mapped shared: a plain file, a memfd, a file on tmpfs, hugetlbfs or a DAX
/// filesystem, a block device such as `/dev/pmem0`, a DAX device such as `/dev/dax0.0`.
///
/// [`Media::facts`] tells what it turned out to be. The mapping is aligned to 2 MiB (1 GiB) when
/// the file is that long, so that the host can use huge pages for it.
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
    mapped: Mapped,
    facts: MediaFacts,
    promise: Promise,
    persist: Persist,
    active: Active,
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
    /// Opening a file twice makes two media that do not know of each other: page maps may then
    /// describe the same bytes twice. A pool takes a lock on its file for that reason.
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
    /// gives such to ordinary memory. Their length is sealed: nobody who gets the file can
    /// truncate it.
    ///
    /// # Errors
    ///
    /// What [`FileMedia::from_file`] returns.
    pub fn memfd(name: &str, len: u64) -> Result<FileMedia, MediaError> {
        let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
        FileMedia::sealed(File::from(file.map_err(io::Error::from)?), len)
    }

    /// As [`FileMedia::memfd`], of huge pages that the host has reserved. All that `len` needs are
    /// taken at once, and kept until the last handle goes: [`Media::discard`] gives none back,
    /// because another process could take it, and the next store would fail.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::NoHugePages`], which says how to reserve them,
    /// [`MediaError::NoSuchHugePage`], and what [`FileMedia::from_file`] returns.
    pub fn huge_memfd(name: &str, len: u64, page: HugePage) -> Result<FileMedia, MediaError> {
        let size = match page {
            HugePage::TwoMib => MemfdFlags::HUGE_2MB,
            HugePage::OneGib => MemfdFlags::HUGE_1GB,
        };
        let page = page.bytes();
        let bytes = usize::try_from(len).ok().filter(|len| len.is_multiple_of(page));
        let bytes = bytes.ok_or(MediaError::PartialPage { len, page })?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | size;
        match rustix::fs::memfd_create(name, flags) {
            Ok(file) => FileMedia::sealed(File::from(file), len),
            // The kernel was built without them, or the processor does not have them.
            Err(error @ (Errno::NODEV | Errno::NOENT | Errno::INVAL)) => {
                Err(no_huge_pages(&Sysfs::of_this_host(), page, bytes, error.into()))
            }
            Err(error) => Err(MediaError::Io(error.into())),
        }
    }

    /// Gives an empty memfd its length for good, and maps it.
    fn sealed(file: File, len: u64) -> Result<FileMedia, MediaError> {
        file.set_len(len)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)
            .map_err(io::Error::from)?;
        FileMedia::from_file(file, Durability::Process)
    }

    /// Maps an open file, for reading if that is all it is open for.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::NotAMedium`], [`MediaError::Empty`], [`MediaError::PartialPage`],
    /// [`MediaError::InMemory`], [`MediaError::NoHugePages`], [`MediaError::Device`], or
    /// [`MediaError::Io`] if the host does not map the file.
    pub fn from_file(file: File, durability: Durability) -> Result<FileMedia, MediaError> {
        let host = Host::of(&file)?;
        host.check(durability)?;
        let len = host.check_len(&file)?;
        let mapping = Reservation::new(len)?;
        let mapped = host.map(&mapping, &file, durability)?;
        let persistence = host.persistence(durability, mapped);
        let facts = MediaFacts {
            persistence,
            host_page: host.page(),
            is_registrable: host.is_registrable(),
            is_writable: host.is_writable(),
            is_dax: mapped.is_dax,
        };
        let (promise, persist) = (host.promise(), Persist::new(persistence));
        let active = Active::default();
        // INVARIANT: 1 by `Host::map`.
        Ok(FileMedia { file, mapping, mapped, facts, promise, persist, active })
    }

    /// The mapping, for tests that make it fail.
    #[cfg(test)]
    pub(crate) fn mapping(&self) -> &Reservation {
        &self.mapping
    }

    /// The same, as if its host had pages of this size.
    #[cfg(test)]
    pub(crate) fn of_pages(mut self, host_page: usize) -> FileMedia {
        self.facts.host_page = host_page;
        self
    }

    /// Gives the host's pages of a range back, failed ones too, and maps the range again: it then
    /// shows what is in the file.
    fn renew(&self, at: u64, len: u64) -> Result<(), MediaError> {
        self.punch(at, len)?;
        self.remap(at, len)
    }

    /// Gives the host's pages of a range back. Nothing happens where the host cannot.
    fn punch(&self, at: u64, len: u64) -> Result<(), MediaError> {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, punch, at, len) {
            // A DAX device, which is no file of a filesystem, says that it is no device.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => Ok(()),
            Err(error) => Err(MediaError::Io(error.into())),
        }
    }

    /// Maps a range again. If the host refuses, the range stays mapped as it was.
    fn remap(&self, at: u64, len: u64) -> Result<(), MediaError> {
        let first = usize::try_from(at).expect("the range lies in the mapping");
        let last = usize::try_from(at + len).expect("the range lies in the mapping");
        let (file, sharing) = (self.file.as_fd(), self.mapped.sharing);
        // Elsewhere first, as in `Host::map`. With a huge page its promise was given back too, and
        // another process may have it.
        let accepted = Fresh::of_file(last - first, file, at, Access::Write, sharing)?;
        self.mapped.map(&self.mapping, first..last, file, Access::Write)?;
        drop(accepted);
        Ok(())
    }

    /// Refuses a range that is no whole number of the host's pages, or that lies outside.
    fn check_pages(&self, at: u64, len: u64) -> Result<(), MediaError> {
        let page = self.facts.host_page;
        let bytes = u64::try_from(page).expect("usize has at most 64 bits");
        if !at.is_multiple_of(bytes) || !len.is_multiple_of(bytes) {
            return Err(MediaError::PartialRecovery { at, len, page });
        }
        match at.checked_add(len) {
            Some(end) if end <= self.len() => Ok(()),
            _ => Err(MediaError::OutOfRange { at, len }),
        }
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

    fn read_part(&self, at: u64, into: &mut [u8], whole: u64) -> Result<(), MediaError> {
        self.mapping.window().read_part(at, into, whole)
    }

    fn write_part(&self, at: u64, bytes: &[u8], whole: u64) -> Result<(), MediaError> {
        self.check_writable()?;
        self.mapping.window().write_part(at, bytes, whole)
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), MediaError> {
        self.check_writable()?;
        self.mapping.window().zero(at, len)
    }

    fn recover(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        self.check_writable()?;
        let len = u64::try_from(bytes.len()).expect("usize has at most 64 bits");
        self.check_pages(at, len)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let metadata = self.file.metadata()?;
        if metadata.is_file() && metadata.len() < at {
            return Err(MediaError::Fault { at });
        }
        self.renew(at, len)?;
        // By the file: the host replaces memory that failed when it is asked to write all of a
        // page, and a file that was shortened grows.
        match self.file.write_all_at(bytes, at) {
            Ok(()) => {}
            // hugetlbfs has no write; its pages were given back, and the ones that come are others.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.write(at, bytes)?,
            Err(error) => return Err(error.into()),
        }
        self.read(at, &mut vec![0; bytes.len()])
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
        if first >= last || self.promise == Promise::OfThesePages {
            return Ok(());
        }
        self.punch(first, last - first)
    }

    fn active(&self) -> &Active {
        &self.active
    }

    fn address(&self) -> Option<NonNull<u8>> {
        Some(self.mapping.window().start())
    }
}

#[cfg(test)]
mod tests {
    use super::{FileMedia, HugePage};
    use crate::active::Active;
    use crate::host::{Mapped, Promise};
    use crate::media::{Media, MediaError, MediaFacts, Persistence};
    use crate::persist::Persist;
    use crate::reserve::Reservation;
    use rustix::fs::MemfdFlags;
    use std::fs::{self, File};

    /// A medium of so many huge pages that no host has them, of which nothing is mapped yet. None,
    /// which it says, where the host has no huge pages.
    fn too_many_huge_pages() -> Option<FileMedia> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        let Ok(file) = rustix::fs::memfd_create("refused", flags) else {
            crate::skipped::skipped("the host has no huge pages");
            return None;
        };
        let file = File::from(file);
        file.set_len(1 << 40).unwrap();
        let facts = MediaFacts {
            persistence: Persistence::Volatile,
            host_page: HugePage::TwoMib.bytes(),
            is_registrable: true,
            is_writable: true,
            is_dax: false,
        };
        Some(FileMedia {
            file,
            mapping: Reservation::new(1 << 40).unwrap(),
            mapped: Mapped::CACHED,
            facts,
            promise: Promise::OfThesePages,
            persist: Persist::new(facts.persistence),
            active: Active::default(),
        })
    }

    #[test]
    fn discard_keeps_pages_that_the_host_might_not_give_again() {
        let media = FileMedia::memfd("promised", 4096).unwrap();
        let media = FileMedia { promise: Promise::OfThesePages, ..media };
        media.store_u64(8, 42).unwrap();

        media.discard(0, 4096).unwrap();

        assert_eq!(media.load_u64(8).unwrap(), 42);
    }

    /// The host gives a process only so many areas of memory: a long run of failures and recoveries
    /// that leaves one behind each would end with a zap that is refused.
    #[test]
    fn what_was_recovered_is_one_area_with_the_rest() {
        let page = 4096;
        let media = FileMedia::memfd("areas", 8 * page).unwrap();
        for at in [2, 3, 5] {
            media.recover(at * page, &[7; 4096]).unwrap();
        }

        let start = media.mapping.window().start().addr().get();
        let area = format!("{start:x}-{:x} ", start + media.mapping.window().len());
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        assert!(maps.lines().any(|line| line.starts_with(&area)), "{area} in {maps}");
        assert_eq!(media.load_u64(5 * page).unwrap(), u64::from_ne_bytes([7; 8]));
    }

    /// A hole would belong to the next thread that asks for memory, and a write to the medium
    /// would then store to that.
    #[test]
    fn a_recovery_write_that_gets_no_huge_page_leaves_no_hole() {
        let Some(media) = too_many_huge_pages() else { return };

        let refused = media.renew(0, media.len());

        assert!(matches!(refused, Err(MediaError::Io(_))), "{refused:?}");
        let first = format!("{:x}-", media.mapping.window().start().addr());
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.starts_with(&first));
        assert!(line.is_some_and(|line| line.contains("---p")), "{line:?} in {maps}");
    }
}
