//! User mappings: a range of a file as real memory.
//!
//! Gives copies, atomics and an address; never a reference, because the bytes may change.

use std::ops::Range;
use std::path::{Path, PathBuf};

use udax_fs::{FileMapping, Inode};
use udax_mapping::Populate;
use udax_mm::Access;
use udax_mm::sync::Arc;

use crate::error::{At, Cause, Result};
use crate::pool::Inner;
use crate::range::{byte_count, check, to_pages};

/// How a range is mapped.
///
/// ```
/// use udax::{Access, MapOptions, Populate};
/// let options = MapOptions::new().access(Access::Write).populate(Populate::Eager);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MapOptions {
    access: Access,
    populate: Populate,
}

/// A range of a file, mapped. Dropping it unmaps.
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
    // Before the pool: a mapping is taken back before the pool may close.
    user: FileMapping,
    inode: Arc<Inode>,
    /// Bytes between the start of the first page and the start of the range.
    skip: usize,
    len: u64,
    access: Access,
    path: PathBuf,
    _pool: Arc<Inner>,
}

impl MapOptions {
    /// For reading, filled at the first touch.
    pub fn new() -> MapOptions {
        MapOptions { access: Access::Read, populate: Populate::Lazy }
    }

    /// Sets what the mapping is for.
    #[must_use]
    pub fn access(mut self, access: Access) -> MapOptions {
        self.access = access;
        self
    }

    /// Sets when pages are mapped.
    #[must_use]
    pub fn populate(mut self, populate: Populate) -> MapOptions {
        self.populate = populate;
        self
    }

    pub(crate) fn is_write(&self) -> bool {
        self.access == Access::Write
    }
}

impl Default for MapOptions {
    fn default() -> MapOptions {
        MapOptions::new()
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
        self.user.vma().addr() + self.skip
    }

    /// A pointer to the first byte.
    ///
    /// The bytes may change at any time, and a touch may be a SIGBUS: use it for volatile or atomic
    /// access, or give it to a device.
    pub fn as_ptr(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.addr())
    }

    /// Whether pages are mapped at their first touch; otherwise they were when the mapping was
    /// made.
    pub fn is_lazy(&self) -> bool {
        self.user.vma().is_lazy()
    }

    /// Copies bytes out, from byte `from` of the mapping on.
    ///
    /// # Errors
    ///
    /// Fails if the range is not inside the mapping, or cannot be touched.
    pub fn read(&self, into: &mut [u8], from: u64) -> Result<()> {
        let from = self.locate(from, byte_count(into.len()))?;
        self.user.vma().read(from, into).at(&self.path)
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
        self.user.vma().write(at, bytes).at(&self.path)
    }

    /// Loads the eight bytes at `at` as one little-endian number, atomically.
    ///
    /// # Errors
    ///
    /// Fails if they are not aligned or not inside the mapping, or cannot be touched.
    pub fn load(&self, at: u64) -> Result<u64> {
        let at = self.locate_word(at)?;
        self.user.vma().load_u64(at).at(&self.path)
    }

    /// Stores a number into the eight bytes at `at`, atomically.
    ///
    /// # Errors
    ///
    /// As [`Mapping::load`], and if the mapping is for reading.
    pub fn store(&self, at: u64, value: u64) -> Result<()> {
        self.require_write()?;
        let at = self.locate_word(at)?;
        self.user.vma().store_u64(at, value).at(&self.path)
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
        self.user.vma().compare_exchange_u64(at, current, new).at(&self.path)
    }

    /// Waits until what was stored into a range is durable.
    ///
    /// # Errors
    ///
    /// Fails if the range is not inside the mapping, or the medium fails.
    pub fn flush(&self, range: Range<u64>) -> Result<()> {
        self.locate(range.start, range.end.saturating_sub(range.start))?;
        self.inode.sync().at(&self.path)
    }

    pub(crate) fn new(
        pool: Arc<Inner>,
        inode: Arc<Inode>,
        range: Range<u64>,
        options: &MapOptions,
        path: &Path,
    ) -> Result<Mapping, Cause> {
        let (pages, skip) = to_pages(&range)?;
        let count = pages.end.since(pages.start);
        let user = inode.map(pages.start, count, options.access, options.populate)?;
        let skip = usize::try_from(skip).expect("less than a page");
        let (len, path) = (range.end - range.start, path.to_owned());
        Ok(Mapping { user, inode, skip, len, access: options.access, path, _pool: pool })
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
