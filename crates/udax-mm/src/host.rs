//! What the host says about an open file, and how it maps it.
//!
//! This file owns the decisions that turn a file into a medium: what kind of memory it is, how its
//! stores survive, and what a refusal means. The answers of sysfs are read in
//! [`sysfs`](crate::sysfs), the mapping itself is made in [`reserve`](crate::reserve).

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::{FsWord, OFlags};
use rustix::io::Errno;

use crate::media::{Durability, MediaError, Persistence};
use crate::reserve::{Fresh, Reservation, Sharing};
use crate::sysfs::{DaxDevice, Sysfs};
use crate::units::PAGE_SIZE;
use crate::vma::Access;

/// What the host says about an open file.
#[derive(Debug)]
pub(crate) struct Host {
    kind: Kind,
    /// Whether the file has no name, and so vanishes with its last handle.
    is_nameless: bool,
    is_writable: bool,
    /// Bytes in a page.
    page: usize,
}

/// What a file is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// tmpfs, also a memfd.
    Memory,
    /// hugetlbfs, also a memfd of huge pages.
    HugePages,
    /// `/dev/daxX.Y`.
    Dax(DaxDevice),
    /// ramfs, or a block device in memory: as a device, but all is gone with the power.
    Ram,
    /// A filesystem on a device, or a block device. Persistent memory if it says so when mapped.
    Device,
}

/// What a host that gave a page back has promised about the next one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Promise {
    /// Nothing but what it gives to every process: memory, or an error when there is none.
    None,
    /// The pages were set aside for the file (hugetlb). One that is given back is anybody's, and a
    /// touch of its place fails while there is no other.
    OfThesePages,
}

/// How a file was mapped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Mapped {
    pub(crate) sharing: Sharing,
    /// Whether loads and stores reach the memory of a device, and no page cache.
    pub(crate) is_dax: bool,
    /// Whether the host is asked for huge pages, which it may refuse.
    wants_huge: bool,
}

impl Mapped {
    /// Huge pages of the host, or its page cache.
    pub(crate) const CACHED: Mapped =
        Mapped { sharing: Sharing::Shared, is_dax: false, wants_huge: false };
    /// Memory of the host's own.
    const IN_MEMORY: Mapped = Mapped { wants_huge: true, ..Mapped::CACHED };
    /// The memory of a device.
    const DIRECT: Mapped = Mapped { is_dax: true, ..Mapped::CACHED };
    /// The memory of a device, and the host keeps what finds it again as durable as its bytes.
    const SYNCHRONOUS: Mapped = Mapped { sharing: Sharing::Synchronous, ..Mapped::DIRECT };

    /// Maps bytes of a file over the same bytes of `mapping`. A part that is mapped again is mapped
    /// as the rest is, so that the host joins it to that: a process may have only so many areas.
    pub(crate) fn map(
        self,
        mapping: &Reservation,
        bytes: Range<usize>,
        file: BorrowedFd<'_>,
        access: Access,
    ) -> io::Result<()> {
        let offset = u64::try_from(bytes.start).expect("usize has at most 64 bits");
        mapping.map_file(bytes.clone(), file, offset, access, self.sharing)?;
        if self.wants_huge {
            mapping.advise_huge(bytes);
        }
        Ok(())
    }
}

impl Host {
    pub(crate) fn of(file: &File) -> Result<Host, MediaError> {
        let metadata = file.metadata()?;
        let filesystem = rustix::fs::fstatfs(file).map_err(io::Error::from)?;
        let kind = Kind::of(&metadata, filesystem.f_type)?;
        let page = match kind {
            Kind::HugePages => usize::try_from(filesystem.f_bsize).unwrap_or(PAGE_SIZE),
            Kind::Dax(device) => device.align.max(rustix::param::page_size()),
            Kind::Memory | Kind::Ram | Kind::Device => rustix::param::page_size(),
        };
        let mode = rustix::fs::fcntl_getfl(file).map_err(io::Error::from)? & OFlags::ACCMODE;
        let is_writable = mode != OFlags::RDONLY;
        // The node of a device is only a name for it.
        let is_nameless = metadata.is_file() && metadata.nlink() == 0;
        Ok(Host { kind, is_nameless, is_writable, page })
    }

    /// Bytes in a page, to multiples of which the file can be mapped.
    pub(crate) fn page(&self) -> usize {
        self.page
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// Whether the host kernel lets devices use this memory for as long as they like. It refuses
    /// files whose filesystem has to know of every store: those on a device, DAX or not, and on
    /// ramfs. And it pins for storing, so it refuses what is mapped for reading.
    pub(crate) fn is_registrable(&self) -> bool {
        let keeps_no_account = match self.kind {
            Kind::Memory | Kind::HugePages | Kind::Dax(_) => true,
            Kind::Ram | Kind::Device => false,
        };
        self.is_writable && keeps_no_account
    }

    /// What the host has promised about the file's pages.
    pub(crate) fn promise(&self) -> Promise {
        match self.kind {
            Kind::HugePages => Promise::OfThesePages,
            Kind::Memory | Kind::Ram | Kind::Dax(_) | Kind::Device => Promise::None,
        }
    }

    /// The length of a file, which is a positive number of whole pages.
    pub(crate) fn check_len(&self, file: &File) -> Result<usize, MediaError> {
        let end = match self.kind {
            Kind::Dax(device) => device.len,
            // Not the metadata, which has no length for a block device.
            _ => rustix::fs::seek(file, rustix::fs::SeekFrom::End(0)).map_err(io::Error::from)?,
        };
        match usize::try_from(end) {
            Ok(0) => Err(MediaError::Empty),
            Ok(len) if len.is_multiple_of(self.page) => Ok(len),
            _ => Err(MediaError::PartialPage { len: end, page: self.page }),
        }
    }

    /// Refuses what the file cannot promise, before it is mapped.
    ///
    /// What lies below a filesystem or a device that is made of others (overlayfs, a loop device)
    /// is not looked at.
    pub(crate) fn check(&self, durability: Durability) -> Result<(), MediaError> {
        let is_persistent = match self.kind {
            _ if self.is_nameless => false,
            Kind::Memory | Kind::HugePages | Kind::Ram => false,
            Kind::Dax(device) => device.is_persistent,
            Kind::Device => true,
        };
        if durability == Durability::Power && !is_persistent {
            return Err(MediaError::InMemory);
        }
        Ok(())
    }

    /// Maps the whole file.
    pub(crate) fn map(
        &self,
        mapping: &Reservation,
        file: &File,
        durability: Durability,
    ) -> Result<Mapped, MediaError> {
        let access = if self.is_writable { Access::Write } else { Access::Read };
        let len = mapping.window().len();
        // Elsewhere first: a mapping over the reservation that is refused may leave a hole in it,
        // and the host would give those addresses to the next who asks.
        let attempt = |sharing| Fresh::of_file(len, file.as_fd(), 0, access, sharing);
        let attempted = match self.kind {
            Kind::Memory => map_as(Mapped::IN_MEMORY, attempt),
            Kind::HugePages => map_as(Mapped::CACHED, attempt),
            Kind::Dax(_) => map_as(Mapped::DIRECT, attempt),
            Kind::Ram | Kind::Device => map_device(attempt, durability),
        };
        let (mapped, accepted) = attempted.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOMEM) if self.kind == Kind::HugePages => {
                no_huge_pages(&Sysfs::of_this_host(), self.page, len, error)
            }
            _ => MediaError::Io(error),
        })?;
        mapped.map(mapping, 0..len, file.as_fd(), access)?;
        // It held the huge pages that the mapping needs.
        drop(accepted);
        Ok(mapped)
    }

    /// How stores to the file survive that was mapped like this.
    pub(crate) fn persistence(&self, durability: Durability, mapped: Mapped) -> Persistence {
        match durability {
            _ if self.is_nameless => Persistence::Volatile,
            Durability::Process => Persistence::Process,
            Durability::Power if mapped.is_dax => Persistence::CacheLines,
            Durability::Power => Persistence::Msync,
        }
    }
}

impl Kind {
    /// Looks at what a file is. A block device is told from others by its numbers: the filesystem
    /// is the one that holds its name.
    fn of(metadata: &Metadata, filesystem: FsWord) -> Result<Kind, MediaError> {
        let file_type = metadata.file_type();
        let (major, minor) =
            (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let sysfs = Sysfs::of_this_host();
        if file_type.is_char_device() {
            return sysfs.dax_device(major, minor)?.map(Kind::Dax).ok_or(MediaError::NotAMedium);
        }
        if file_type.is_block_device() {
            return Ok(if sysfs.is_ram_disk(major, minor) { Kind::Ram } else { Kind::Device });
        }
        if file_type.is_file() { Ok(Kind::on(filesystem)) } else { Err(MediaError::NotAMedium) }
    }

    /// What a plain file on a filesystem of this type is made of.
    fn on(filesystem: FsWord) -> Kind {
        const RAMFS_MAGIC: FsWord = 0x8584_58f6;
        match filesystem {
            libc::HUGETLBFS_MAGIC => Kind::HugePages,
            libc::TMPFS_MAGIC => Kind::Memory,
            RAMFS_MAGIC => Kind::Ram,
            _ => Kind::Device,
        }
    }
}

fn map_as<T>(mapped: Mapped, map: impl Fn(Sharing) -> io::Result<T>) -> io::Result<(Mapped, T)> {
    Ok((mapped, map(mapped.sharing)?))
}

/// Maps a file that may be persistent memory, where stores bypass the page cache. The host accepts
/// a synchronous mapping of such a file only. It makes a written-back cache line as durable as the
/// file's metadata, at the price of a commit in each first store to a page; so it stays only where
/// power loss is to be survived.
fn map_device<T>(
    map: impl Fn(Sharing) -> io::Result<T>,
    durability: Durability,
) -> io::Result<(Mapped, T)> {
    match map(Sharing::Synchronous) {
        Ok(made) if durability == Durability::Power => Ok((Mapped::SYNCHRONOUS, made)),
        Ok(_) => map_as(Mapped::DIRECT, map),
        Err(error) if is_no_dax(&error) => map_as(Mapped::CACHED, map),
        Err(error) => Err(error),
    }
}

/// Whether a synchronous mapping was refused because the file is not persistent memory, or because
/// the host is older than such mappings (EINVAL).
fn is_no_dax(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP | Errno::INVAL))
}

/// Why the host answered with `error` to a request for `len` bytes in huge pages of `page` bytes:
/// how to get the pages if too few are free, else what it said.
pub(crate) fn no_huge_pages(
    sysfs: &Sysfs,
    page: usize,
    len: usize,
    error: io::Error,
) -> MediaError {
    let needed = u64::try_from(len.div_ceil(page)).expect("usize has at most 64 bits");
    match sysfs.huge_pages(page) {
        Ok(pages) if pages.free < needed => {
            let total = pages.total + (needed - pages.free);
            MediaError::NoHugePages { page, needed, free: pages.free, total }
        }
        // A limit of the process or of its group, say.
        Ok(_) => MediaError::Io(error),
        Err(_) => MediaError::NoSuchHugePage { page },
    }
}

#[cfg(test)]
mod tests {
    use super::{Host, Kind, Mapped, is_no_dax, map_device, no_huge_pages};
    use crate::media::{Durability, MediaError, Persistence};
    use crate::reserve::{Reservation, Sharing};
    use crate::sysfs::{DaxDevice, Sysfs};
    use rustix::fs::MemfdFlags;
    use rustix::io::Errno;
    use std::cell::RefCell;
    use std::fs;
    use tempfile::TempDir;

    fn host(kind: Kind) -> Host {
        Host { kind, is_nameless: false, is_writable: true, page: 4096 }
    }

    fn dax(is_persistent: bool) -> Kind {
        Kind::Dax(DaxDevice { len: 1 << 30, align: 2 << 20, is_persistent })
    }

    #[test]
    fn power_loss_is_survived_by_cache_lines_on_persistent_memory_and_by_msync_elsewhere() {
        let device = host(Kind::Device);
        assert_eq!(
            device.persistence(Durability::Power, Mapped::SYNCHRONOUS),
            Persistence::CacheLines
        );
        assert_eq!(device.persistence(Durability::Power, Mapped::CACHED), Persistence::Msync);
        assert_eq!(device.persistence(Durability::Process, Mapped::DIRECT), Persistence::Process);
        let dax = host(dax(true));
        assert_eq!(dax.persistence(Durability::Power, Mapped::DIRECT), Persistence::CacheLines);
    }

    #[test]
    fn a_file_without_a_name_is_volatile() {
        let file = Host { is_nameless: true, ..host(Kind::Memory) };
        assert_eq!(file.persistence(Durability::Process, Mapped::CACHED), Persistence::Volatile);
        let file = Host { is_nameless: true, ..host(Kind::Device) };
        assert_eq!(file.persistence(Durability::Power, Mapped::CACHED), Persistence::Volatile);
        let refused = file.check(Durability::Power);
        assert!(matches!(refused, Err(MediaError::InMemory)), "{refused:?}");
        file.check(Durability::Process).unwrap();
    }

    #[test]
    fn filesystems_in_memory_are_told_from_those_on_a_device() {
        assert_eq!(Kind::on(0x0102_1994), Kind::Memory, "tmpfs");
        assert_eq!(Kind::on(0x9584_58f6), Kind::HugePages, "hugetlbfs");
        assert_eq!(Kind::on(0x8584_58f6), Kind::Ram, "ramfs");
        assert_eq!(Kind::on(0xef53), Kind::Device, "ext4");
    }

    #[test]
    fn memory_that_forgets_cannot_promise_to_survive_power_loss() {
        for kind in [Kind::Memory, Kind::HugePages, Kind::Ram, dax(false)] {
            let refused = host(kind).check(Durability::Power);
            assert!(matches!(refused, Err(MediaError::InMemory)), "{kind:?}");
            host(kind).check(Durability::Process).unwrap();
        }
        for kind in [Kind::Device, dax(true)] {
            host(kind).check(Durability::Power).unwrap();
        }
    }

    #[test]
    fn all_that_is_writable_but_files_on_a_device_can_be_registered() {
        for kind in [Kind::Memory, Kind::HugePages, dax(true), dax(false)] {
            assert!(host(kind).is_registrable(), "{kind:?}");
            let read_only = Host { is_writable: false, ..host(kind) };
            assert!(!read_only.is_registrable(), "{kind:?}");
        }
        for kind in [Kind::Ram, Kind::Device] {
            assert!(!host(kind).is_registrable(), "{kind:?}");
        }
    }

    /// Maps with a host that answers a synchronous mapping with `answer`; returns what was asked.
    fn mapped(answer: Result<(), Errno>, durability: Durability) -> (Vec<Sharing>, Option<Mapped>) {
        let asked = RefCell::new(Vec::new());
        let map = |sharing| {
            asked.borrow_mut().push(sharing);
            let answer = if sharing == Sharing::Synchronous { answer } else { Ok(()) };
            answer.map_err(Into::into)
        };
        let mapped = map_device(map, durability).ok().map(|(mapped, ())| mapped);
        (asked.into_inner(), mapped)
    }

    #[test]
    fn persistent_memory_is_mapped_synchronously_only_to_survive_power_loss() {
        let both = vec![Sharing::Synchronous, Sharing::Shared];
        assert_eq!(
            mapped(Ok(()), Durability::Power),
            (vec![Sharing::Synchronous], Some(Mapped::SYNCHRONOUS))
        );
        assert_eq!(mapped(Ok(()), Durability::Process), (both, Some(Mapped::DIRECT)));
    }

    #[test]
    fn a_file_that_is_no_persistent_memory_is_mapped_through_the_page_cache() {
        for durability in [Durability::Process, Durability::Power] {
            let both = vec![Sharing::Synchronous, Sharing::Shared];
            assert_eq!(mapped(Err(Errno::OPNOTSUPP), durability), (both, Some(Mapped::CACHED)));
        }
    }

    #[test]
    fn another_refusal_of_a_synchronous_mapping_is_no_answer_about_the_file() {
        for errno in [Errno::NOMEM, Errno::ACCESS, Errno::AGAIN, Errno::PERM, Errno::NODEV] {
            assert!(!is_no_dax(&errno.into()), "{errno:?}");
            let asked = vec![Sharing::Synchronous];
            assert_eq!(mapped(Err(errno), Durability::Power), (asked, None), "{errno:?}");
        }
    }

    /// A mapping over the reservation that the host refuses late would give its addresses away,
    /// and the next thread to ask for memory would get them.
    #[test]
    fn a_file_that_is_refused_leaves_no_hole_in_the_reservation() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        let Ok(file) = rustix::fs::memfd_create("refused", flags) else {
            crate::skipped::skipped("the host has no huge pages");
            return;
        };
        let file = fs::File::from(file);
        file.set_len(1 << 40).unwrap();
        let host = Host::of(&file).unwrap();
        let mapping = Reservation::new(1 << 40).unwrap();

        let refused = host.map(&mapping, &file, Durability::Process);

        assert!(matches!(refused, Err(MediaError::NoHugePages { .. })), "{refused:?}");
        let first = format!("{:x}-", mapping.window().start().addr());
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.starts_with(&first));
        assert!(line.is_some_and(|line| line.contains("---p")), "{line:?} in {maps}");
    }

    #[test]
    fn an_error_about_huge_pages_says_how_many_are_missing_and_how_to_reserve_them() {
        let root = TempDir::new().unwrap();
        let pool = root.path().join("kernel/mm/hugepages/hugepages-2048kB");
        fs::create_dir_all(&pool).unwrap();
        for (name, value) in
            [("nr_hugepages", "10"), ("free_hugepages", "5"), ("resv_hugepages", "2")]
        {
            fs::write(pool.join(name), value).unwrap();
        }
        let sysfs = Sysfs::of_test(root.path());
        let why = |page, len| no_huge_pages(&sysfs, page, len, Errno::NOMEM.into());
        assert_eq!(
            why(2 << 20, 16 << 20).to_string(),
            "8 huge pages of 2 MiB are needed and 3 are free; reserve more with \
             `echo 15 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`"
        );
        assert_eq!(why(1 << 30, 1 << 30).to_string(), "the host has no huge pages of 1 GiB");
        let other = why(2 << 20, 6 << 20);
        assert!(matches!(other, MediaError::Io(_)), "there are three: {other:?}");
    }
}
