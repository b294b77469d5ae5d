//! User mappings: a range of a file as real memory.
//!
//! Gives copies, atomics and an address; never a reference, because the bytes may change.

use std::error::Error as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use udax_fs::{FileMapping, Inode};
use udax_mapping::{MapMode, Populate, Sharing, Stats, UserMapping};
use udax_mm::sync::Arc;
use udax_mm::{Access, MediaError, MediaFacts, Order, Pages, Vma, VmaOff};

use crate::devdax;
use crate::error::{At, Cause, Result};
use crate::faulting::WhyEager;
use crate::floor;
use crate::pool::Inner;
use crate::range::{byte_count, check, to_pages};
use crate::synchronous::{self, NotSynchronous};

/// How a range is mapped.
///
/// ```
/// use udax::{Access, MapOptions, Populate};
/// let options = MapOptions::new().access(Access::Write).populate(Populate::Eager);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MapOptions {
    mode: MapMode,
    is_sync: bool,
}

/// A range of a file or of a device, mapped. Dropping it unmaps.
///
/// A load or store of a part that is past the end of the file, or whose medium failed, is an error
/// of the methods here, and a SIGBUS through the address.
///
/// ```
/// use udax::{Access, MapOptions, Pool};
///
/// let pool = Pool::create_in_memory("example", 8 << 20)?;
/// let file = pool.create_file("/counter")?;
/// file.set_len(4096)?;
/// let map = file.map(0..4096, &MapOptions::new().access(Access::Write))?;
/// map.store(0, 41)?;
/// assert_eq!(map.compare_exchange(0, 41, 42)?, Ok(41));
/// map.flush(0..8)?;
/// let mut bytes = [0; 8];
/// file.read_at(&mut bytes, 0)?;
/// assert_eq!(u64::from_le_bytes(bytes), 42);
/// # Ok::<(), udax::Error>(())
/// ```
#[derive(Debug)]
pub struct Mapping {
    mapped: Mapped,
    /// Bytes between the start of the first page and the start of the range.
    skip: usize,
    len: u64,
    access: Access,
    path: PathBuf,
}

/// What is mapped, and what it keeps: a mapping is taken back before its pool or device may close.
#[derive(Debug)]
enum Mapped {
    File(FileMapping, Arc<Inner>),
    Device(UserMapping, Arc<devdax::Inner>),
}

impl MapOptions {
    /// For reading, shared, filled at the first touch, in folios of any size.
    pub fn new() -> MapOptions {
        MapOptions::default()
    }

    /// Sets what the mapping is for.
    #[must_use]
    pub fn access(mut self, access: Access) -> MapOptions {
        self.mode.access = access;
        self
    }

    /// Sets when pages are mapped.
    #[must_use]
    pub fn populate(mut self, populate: Populate) -> MapOptions {
        self.mode.populate = populate;
        self
    }

    /// Makes stores change a copy that only this mapping sees (`MAP_PRIVATE`). The file need not be
    /// open for writing, and may be frozen.
    #[must_use]
    pub fn private(mut self) -> MapOptions {
        self.mode.sharing = Sharing::Private;
        self
    }

    /// Sets the smallest folio that the range may be mapped by. With [`Order::Pmd`] it is mapped by
    /// 2 MiB or not at all: mapping fails with [`ErrorKind::TooFragmented`](crate::ErrorKind), the
    /// reason and what would help, and so does a touch of what is allocated later (see
    /// [`Mapping::last_fault_error`]).
    #[must_use]
    pub fn floor(mut self, order: Order) -> MapOptions {
        self.mode.floor = order;
        self
    }

    /// Asks for a mapping whose stores are durable when the program has flushed its caches, without
    /// a call (`MAP_SYNC`): refused where the medium cannot do that, of a table where one of its
    /// devices cannot, with [`ErrorKind::NotSynchronous`](crate::ErrorKind) and the reason. A page
    /// appears in any mapping only after its place in the file is durable.
    #[must_use]
    pub fn sync(mut self) -> MapOptions {
        self.is_sync = true;
        self
    }

    pub(crate) fn is_private(&self) -> bool {
        self.mode.sharing == Sharing::Private
    }

    pub(crate) fn access_to_map(&self) -> Access {
        self.mode.access
    }

    /// Refuses what was asked to be synchronous and cannot be.
    fn check_sync(&self, facts: MediaFacts) -> Result<(), NotSynchronous> {
        if self.is_sync { synchronous::check(facts) } else { Ok(()) }
    }

    pub(crate) fn is_write(&self) -> bool {
        (self.mode.access, self.mode.sharing) == (Access::Write, Sharing::Shared)
    }
}

impl Mapping {
    /// The number of bytes mapped.
    // A mapping is never empty.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The address of the first byte.
    pub fn addr(&self) -> usize {
        self.user().vma().addr() + self.skip
    }

    /// A pointer to the first byte.
    ///
    /// The bytes may change at any time, and a touch may be a SIGBUS: use it for volatile or atomic
    /// access, or in system calls such as read(2), which fail with EFAULT then. Before it is given to
    /// a device, or to a call that pins pages and stores to them later (`O_DIRECT`,
    /// `process_vm_writev`), the range is [pinned](crate::File::pin): the host tells nobody of its own
    /// pins, and what the file loses meanwhile may be another file's.
    pub fn as_ptr(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.addr())
    }

    /// How pages are mapped: at their first touch, or all of them when the mapping was made. It is
    /// [`Populate::Eager`] also where the host permits no userfaultfd; [`Mapping::why_eager`] says
    /// why it is.
    pub fn faulting(&self) -> Populate {
        self.user().populate()
    }

    /// Why the mapping is eager, if it is: it was asked to be, or lazy ones cannot be had, and what
    /// would help.
    pub fn why_eager(&self) -> Option<WhyEager> {
        match (self.faulting(), self.user().mode().populate) {
            (Populate::Lazy, _) => None,
            (Populate::Eager, Populate::Eager) => Some(WhyEager::Asked),
            (Populate::Eager, Populate::Lazy) => self.mapped.why_eager().cloned(),
        }
    }

    /// What happened to the pages of the file since it was opened: faults by size, and for what
    /// reasons others were not larger.
    pub fn stats(&self) -> Stats {
        self.mapped.stats()
    }

    /// Why the last touch that became SIGBUS could not be served, if there was one, with the causes
    /// of that.
    pub fn last_fault_error(&self) -> Option<String> {
        let why = self.user().last_fault_error()?;
        let causes = std::iter::successors(why.source(), |&cause| cause.source());
        Some(causes.fold(why.to_string(), |why, cause| format!("{why}: {cause}")))
    }

    /// Copies bytes out, from byte `from` of the mapping on.
    ///
    /// # Errors
    ///
    /// Fails if the range is not inside the mapping, or cannot be touched.
    pub fn read(&self, into: &mut [u8], from: u64) -> Result<()> {
        let from = self.locate(from, byte_count(into.len()))?;
        self.touch(from, byte_count(into.len()), |vma| vma.read(from, into))
    }

    /// Copies bytes in, from byte `at` of the mapping on.
    ///
    /// They are in the file at once, for every reader; [`Mapping::flush`] makes them durable.
    ///
    /// # Errors
    ///
    /// Fails if the mapping is for reading, or the range is not inside of it or cannot be touched.
    pub fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.require_write()?;
        let at = self.locate(at, byte_count(bytes.len()))?;
        self.touch(at, byte_count(bytes.len()), |vma| vma.write(at, bytes))
    }

    /// Loads the eight bytes at `at` as one little-endian number, atomically.
    ///
    /// # Errors
    ///
    /// Fails if they are not aligned or not inside the mapping, or cannot be touched.
    pub fn load(&self, at: u64) -> Result<u64> {
        let at = self.locate_word(at)?;
        self.touch(at, 8, |vma| vma.load_u64(at))
    }

    /// Stores a number into the eight bytes at `at`, atomically.
    ///
    /// # Errors
    ///
    /// As [`Mapping::load`], and if the mapping is for reading.
    pub fn store(&self, at: u64, value: u64) -> Result<()> {
        self.require_write()?;
        let at = self.locate_word(at)?;
        self.touch(at, 8, |vma| vma.store_u64(at, value))
    }

    /// Replaces `current` by `new` in the eight bytes at `at`, atomically; the inner result is that
    /// of [`std::sync::atomic::AtomicU64::compare_exchange`].
    ///
    /// # Errors
    ///
    /// As [`Mapping::store`].
    pub fn compare_exchange(
        &self,
        at: u64,
        current: u64,
        new: u64,
    ) -> Result<std::result::Result<u64, u64>> {
        self.require_write()?;
        let at = self.locate_word(at)?;
        self.touch(at, 8, |vma| vma.compare_exchange_u64(at, current, new))
    }

    /// Waits until what was stored into a range is durable.
    ///
    /// # Errors
    ///
    /// Fails if the range is not inside the mapping, or the medium fails.
    pub fn flush(&self, range: Range<u64>) -> Result<()> {
        let len = range.end.saturating_sub(range.start);
        let start = self.user().range().start.byte() + self.locate(range.start, len)?;
        self.mapped.flush(start..start + len).at(&self.path)
    }

    pub(crate) fn new(
        pool: Arc<Inner>,
        inode: &Arc<Inode>,
        range: Range<u64>,
        options: &MapOptions,
        path: &Path,
    ) -> Result<Mapping, Cause> {
        let (pages, skip) = to_pages(&range)?;
        let count = pages.end.since(pages.start);
        options.check_sync(pool.facts())?;
        let user = inode.map(pages.start, count, options.mode).map_err(floor::of_file)?;
        let skip = usize::try_from(skip).expect("less than a page");
        let (len, path) = (range.end - range.start, path.to_owned());
        let mapped = Mapped::File(user, pool);
        Ok(Mapping { mapped, skip, len, access: options.mode.access, path })
    }

    /// Maps whole folios of a device.
    pub(crate) fn of_device(
        device: Arc<devdax::Inner>,
        range: Range<u64>,
        options: &MapOptions,
        path: &Path,
    ) -> Result<Mapping, Cause> {
        options.check_sync(device.core().device().facts())?;
        let (pages, _) = to_pages(&range)?;
        let count = pages.end.since(pages.start);
        let mapping = device.core().mapping();
        let user = mapping.map(pages.start, count, options.mode).map_err(floor::of_device)?;
        let (len, access) = (range.end - range.start, options.mode.access);
        let mapped = Mapped::Device(user, device);
        Ok(Mapping { mapped, skip: 0, len, access, path: path.to_owned() })
    }

    fn user(&self) -> &UserMapping {
        match &self.mapped {
            Mapped::File(user, _) => user,
            Mapped::Device(user, _) => user,
        }
    }

    /// Touches `len` bytes from `at` on. Where a touch before could not be served, this one asks again:
    /// what stood in the way may be gone, such as a full pool.
    fn touch<T>(
        &self,
        at: u64,
        len: u64,
        mut touch: impl FnMut(&Vma) -> std::result::Result<T, MediaError>,
    ) -> Result<T> {
        let user = self.user();
        let touched = touch(user.vma()).or_else(|error| {
            let pages = VmaOff::of_byte(at)..VmaOff(Pages::holding(at + len).0);
            if user.retry(pages) { touch(user.vma()) } else { Err(error) }
        });
        touched.at(&self.path)
    }

    fn require_write(&self) -> Result<()> {
        match self.access {
            Access::Write => Ok(()),
            Access::Read => Err(Cause::BadHandle("writing")).at(&self.path),
        }
    }

    /// Where byte `at` is in the pages, if `wanted` bytes from it on are inside.
    fn locate(&self, at: u64, wanted: u64) -> Result<u64> {
        check("mapping", at, wanted, self.len).at(&self.path)?;
        Ok(byte_count(self.skip) + at)
    }

    fn locate_word(&self, at: u64) -> Result<u64> {
        let at = self.locate(at, 8)?;
        if at % 8 == 0 {
            Ok(at)
        } else {
            Err(Cause::InvalidInput("an atomic access needs an address that is a multiple of 8"))
                .at(&self.path)
        }
    }
}

impl Mapped {
    /// Why no mapping of what is mapped is lazy, if none is.
    fn why_eager(&self) -> Option<&WhyEager> {
        match self {
            Mapped::File(_, pool) => pool.why_eager(),
            Mapped::Device(_, device) => device.why_eager(),
        }
    }

    fn stats(&self) -> Stats {
        match self {
            Mapped::File(user, _) => user.inode().stats(),
            Mapped::Device(_, device) => device.core().mapping().stats(),
        }
    }

    fn flush(&self, range: Range<u64>) -> Result<(), Cause> {
        match self {
            Mapped::File(user, _) => Ok(user.inode().flush(range)?),
            Mapped::Device(_, device) => Ok(device.core().flush(range)?),
        }
    }
}
