//! Devices that are mapped as they are, without a filesystem (device-dax).
//!
//! Owns the handle and what is refused before anything is done. What lies where, and what becomes of
//! it when the device fails or goes, is in [`core`]; what is lost, and how it is healed, in [`lost`];
//! how one is opened in [`open`].

mod core;
mod lost;
mod open;
mod refused;

pub(crate) use self::core::Core;
pub use self::open::OpenDevDax;
pub use self::refused::DevDaxError;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use udax_dev::{DaxDevice, Hold};
use udax_mapping::Stats;
use udax_mm::sync::Arc;
use udax_mm::units::PAGE_BYTES;
use udax_mm::{Access, FileIndex, MediaError, MediaFacts, Order, Wait};

use crate::error::{At, Cause, Error, Result};
use crate::faulting::{WhyEager, service};
use crate::lock::PoolLock;
use crate::mapping::{MapOptions, Mapping};
use crate::pin::{Pin, PinOptions, PinnedFile, PoolPin};
use crate::range::{byte_count, check};

/// A device that is mapped as it is, without a filesystem (device-dax). Clones are handles of the
/// same device.
///
/// It has folios of one size, its alignment: 4 KiB, 2 MiB or 1 GiB. What is mapped or pinned is made
/// of those, and of nothing else: a range that would divide one is refused, and a touch that cannot
/// have one is SIGBUS (I-68). One page of 4 KiB that fails takes its whole folio, until it is
/// overwritten.
///
/// ```
/// use udax::{Access, DevDax, ErrorKind, MapOptions, Order, PinOptions, Wait};
///
/// let device = DevDax::create_in_memory("scratch", 8 << 20, Order::Pmd)?;
/// let map = device.map(2 << 20..6 << 20, &MapOptions::new().access(Access::Write))?;
/// map.store(0, 42)?;
/// map.flush(0..8)?;
/// let mut bytes = [0; 8];
/// device.read_at(&mut bytes, 2 << 20)?;
/// assert_eq!(u64::from_le_bytes(bytes), 42);
///
/// let refused = device.map(0..4096, &MapOptions::new()).unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Misaligned);
///
/// // A device may keep what it has pinned; the end waits for it, and says who it is.
/// let pin = device.pin(0..4096, &PinOptions::new("nic"))?;
/// let busy = device.kill(Wait::Never).unwrap_err();
/// assert!(busy.to_string().contains("nic"));
/// drop(pin);
/// device.kill(Wait::Never)?;
/// assert!(map.load(0).is_err());
/// # Ok::<(), udax::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DevDax {
    inner: Arc<Inner>,
}

/// What every handle of a device keeps alive.
pub(crate) struct Inner {
    path: PathBuf,
    core: Arc<Core>,
    why_eager: Option<WhyEager>,
    _hold: Hold,
    _locks: Vec<PoolLock>,
}

impl DevDax {
    /// Opens the device, or the plain file, at `path` for reading and writing. Whatever is there is
    /// its content: also a pool, which a store may destroy.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::InUse`](crate::ErrorKind), naming the process, if it is open already,
    /// as a device or as a pool; and with [`ErrorKind::Misaligned`](crate::ErrorKind) if it is no
    /// whole number of folios.
    pub fn open(path: impl AsRef<Path>, options: &OpenDevDax) -> Result<DevDax> {
        open::open(path.as_ref(), options)
    }

    /// Makes a device of `size` bytes in memory; it is gone with its last handle.
    ///
    /// # Errors
    ///
    /// Fails if the size is no whole number of folios, or the host has no such memory.
    pub fn create_in_memory(name: &str, size: u64, alignment: Order) -> Result<DevDax> {
        open::create_in_memory(name, size, alignment)
    }

    /// Takes a device that is there already: one of a region, or of a table. `name` stands for the
    /// path in errors.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::NoDax`](crate::ErrorKind) and the reason if it has no direct access,
    /// with [`ErrorKind::InUse`](crate::ErrorKind) if somebody holds it, and with a [`DevDaxError`] if
    /// it is not made of folios of one size.
    pub fn on_device(name: &str, device: Arc<dyn DaxDevice>) -> Result<DevDax> {
        open::on_device(Path::new(name), device, Vec::new(), service(false))
    }

    /// Why no mapping of the device is lazy, if none is.
    pub fn why_eager(&self) -> Option<&WhyEager> {
        self.inner.why_eager()
    }

    /// Whether a pool is on the device, or on any below its table, which a store may destroy. What a
    /// pool on a table has in the middle of one of its devices is not seen.
    pub fn holds_pool(&self) -> bool {
        crate::open::holds_pool(self.device())
    }

    /// Where the device is: its path on the host, or the name it was given.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The number of bytes.
    pub fn size(&self) -> u64 {
        self.core().device().size().bytes()
    }

    /// The size of its folios.
    pub fn alignment(&self) -> Order {
        self.core().order()
    }

    /// What the memory promises: what it survives, and whether the host registers it.
    pub fn facts(&self) -> MediaFacts {
        self.core().device().facts()
    }

    /// The device below.
    pub fn device(&self) -> &Arc<dyn DaxDevice> {
        self.core().device()
    }

    /// What happened to the pages so far: faults by size, and for what reasons others were refused.
    pub fn stats(&self) -> Stats {
        self.core().mapping().stats()
    }

    /// Maps whole folios into the address space.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::Misaligned`](crate::ErrorKind) if the range does not start and end at a
    /// folio, which the message names the size of; if it goes past the end of the device; for a
    /// private mapping, which a device does not have; and for a floor above the alignment.
    pub fn map(&self, range: Range<u64>, options: &MapOptions) -> Result<Mapping> {
        self.check_map(&range, options).at(self.path())?;
        Mapping::of_device(Arc::clone(&self.inner), range, options, self.path()).at(self.path())
    }

    /// Pins a range of bytes, for as long as the holder needs: their folios stay where they are until
    /// the pin is dropped. The end of the device waits for it, and asks the holder first.
    ///
    /// # Errors
    ///
    /// Fails if the range is empty or goes past the end of the device, or if a page of its folios
    /// failed.
    pub fn pin(&self, range: Range<u64>, options: &PinOptions) -> Result<Pin> {
        self.check_range(&range).at(self.path())?;
        if options.is_write() {
            self.check_writable().at(self.path())?;
        }
        Pin::of_device(Arc::clone(&self.inner), range, options, self.path()).at(self.path())
    }

    /// Every pin held on the device, each with its whole folios.
    pub fn pins(&self) -> Vec<PoolPin> {
        let place = PinnedFile::Path(self.path().to_owned());
        let pins = self.core().mapping().pins();
        pins.iter().map(|pin| PoolPin::new(place.clone(), pin)).collect()
    }

    /// Fills `into` from byte `at` on.
    ///
    /// # Errors
    ///
    /// Fails if that goes past the end, with [`ErrorKind::Media`](crate::ErrorKind) and the bytes that
    /// are lost if memory failed, and with [`ErrorKind::DeviceGone`](crate::ErrorKind) after the end.
    pub fn read_at(&self, into: &mut [u8], at: u64) -> Result<()> {
        self.check_bytes(at, byte_count(into.len())).at(self.path())?;
        self.core().read(into, at).at(self.path())
    }

    /// Writes bytes at byte `at`. What it has written is durable, as far as the medium is.
    ///
    /// Whole pages of 4 KiB that failed are healed.
    ///
    /// # Errors
    ///
    /// As [`DevDax::read_at`]; a write of a part of a failed page is refused, and has changed nothing.
    pub fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.check_bytes(at, byte_count(bytes.len())).at(self.path())?;
        self.check_writable().at(self.path())?;
        self.core().write(bytes, at).at(self.path())
    }

    /// Stores zeros. What it has stored is durable, as far as the medium is.
    ///
    /// # Errors
    ///
    /// As [`DevDax::write_at`].
    pub fn zero(&self, range: Range<u64>) -> Result<()> {
        self.check_range(&range).at(self.path())?;
        self.check_writable().at(self.path())?;
        self.core().zero(range).at(self.path())
    }

    /// Waits until what was stored into a range, through mappings and pins, is durable.
    ///
    /// # Errors
    ///
    /// Fails if the range goes past the end, if the medium fails, and after the end of the device.
    pub fn flush(&self, range: Range<u64>) -> Result<()> {
        self.check_range(&range).at(self.path())?;
        self.core().flush(range).at(self.path())
    }

    /// The bytes that are lost because their memory failed, as far as anybody has noticed; in order.
    /// Their whole folios cannot be mapped.
    ///
    /// # Errors
    ///
    /// Fails after the end of the device.
    pub fn bad_ranges(&self) -> Result<Vec<Range<u64>>> {
        self.core().bad_ranges(&(0..self.size())).at(self.path())
    }

    /// Ends the device: mappings lose their pages, what is called later is refused, and the holders
    /// of pins are asked to let go.
    ///
    /// It does not come back. A device of a region can be bound again, which makes another.
    ///
    /// # Blocking
    ///
    /// Waits for the pins, as long as `wait` says. May be called again after it ran out.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::Pinned`](crate::ErrorKind), naming the holders.
    pub fn kill(&self, wait: Wait) -> Result<()> {
        self.core().kill(wait).at(self.path())
    }

    /// Checks what is mapped and pinned against the page maps, and those against themselves.
    ///
    /// Reads everything; meant for tests, after each step.
    ///
    /// # Errors
    ///
    /// Says the first contradiction found.
    pub fn verify(&self) -> std::result::Result<(), String> {
        self.core().mapping().verify()?;
        self.device().pgmaps().iter().try_for_each(udax_mm::Pgmap::verify)
    }

    fn core(&self) -> &Arc<Core> {
        &self.inner.core
    }

    fn check_map(&self, range: &Range<u64>, options: &MapOptions) -> Result<(), Cause> {
        let alignment = self.alignment();
        if options.is_private() {
            return Err(DevDaxError::Private { alignment }.into());
        }
        for (what, at) in [("start", range.start), ("end", range.end)] {
            if !at.is_multiple_of(alignment.pages().bytes()) {
                return Err(DevDaxError::Misaligned { what, at, alignment }.into());
            }
        }
        self.check_range(range)?;
        match options.access_to_map() {
            Access::Write => self.check_writable(),
            Access::Read => Ok(()),
        }
    }

    fn check_range(&self, range: &Range<u64>) -> Result<(), Cause> {
        if range.start >= range.end {
            return Err(Cause::InvalidInput("the range is empty"));
        }
        self.check_bytes(range.start, range.end - range.start)
    }

    fn check_bytes(&self, at: u64, len: u64) -> Result<(), Cause> {
        check("device", at, len, self.size())
    }

    fn check_writable(&self) -> Result<(), Cause> {
        if self.facts().is_writable { Ok(()) } else { Err(MediaError::ReadOnly.into()) }
    }
}

impl Inner {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn why_eager(&self) -> Option<&WhyEager> {
        self.why_eager.as_ref()
    }

    /// The whole folios that hold `range`, and where in the first of them it starts.
    pub(crate) fn folios(&self, range: &Range<u64>) -> (Range<FileIndex>, u64) {
        let folio = self.core.order().pages().bytes();
        let start = range.start - range.start % folio;
        let end = range.end.div_ceil(folio) * folio;
        (FileIndex(start / PAGE_BYTES)..FileIndex(end / PAGE_BYTES), range.start - start)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Error {
    /// What was wrong with a device, or with what was asked of one, if that is the cause.
    pub fn as_devdax_error(&self) -> Option<&DevDaxError> {
        match self.cause() {
            Cause::DevDax(error) => Some(error),
            _ => None,
        }
    }
}
