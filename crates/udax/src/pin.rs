//! Pins: ranges of a file that stay where they are, for a device or a long copy.

use std::fmt;
use std::ops::{Deref, Range};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use udax_fs::{HeldPin, Ino, Inode};
use udax_mapping::{FilePin, PinnedFolios};
use udax_mm::sync::Arc;
use udax_mm::{Iovec, PinInfo, PinKind, PinOwner, PinTerm, Recall, RecallEvent, RecallReason};

use crate::devdax;
use crate::error::{At, Cause, Result};
use crate::pool::Inner;
use crate::range::{byte_count, check, to_pages};

/// Who pins, and what for.
///
/// ```
/// use udax::{PinKind, PinOptions};
/// let options = PinOptions::new("nic receive ring").kind(PinKind::Write);
/// # let _ = options;
/// ```
#[derive(Clone)]
pub struct PinOptions {
    label: String,
    kind: PinKind,
    term: PinTerm,
    is_registrable: bool,
    on_recall: Option<OnRecall>,
}

type OnRecall = Arc<dyn Fn(&Recalled) + Send + Sync>;

/// What the holder of a pin is told when somebody wants its pages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recalled {
    /// The bytes of the file that are wanted, whole pages.
    pub range: Range<u64>,
    /// When whoever waits gives up, if it does.
    pub deadline: Option<Instant>,
    /// What becomes of the bytes if the holder keeps them.
    pub why: RecallReason,
}

/// A pinned range of a file or of a device. Dropping it unpins.
///
/// It reads and writes the memory it pinned, whatever becomes of the file.
///
/// It is a lease: whoever wants to take the range away from the file and waits for the pin asks
/// the holder first, by [`PinOptions::on_recall`] and [`Pin::recall_fd`]. Nothing is taken by
/// force.
///
/// ```
/// use udax::{PinOptions, Pool};
///
/// let pool = Pool::create_in_memory("example", 8 << 20)?;
/// pool.write("/data", b"still here")?;
/// let pin = pool.open_file("/data")?.pin(0..10, &PinOptions::new("example"))?;
/// pool.remove_file("/data")?;
/// assert!(pool.usage().limbo.0 > 0);
///
/// let mut bytes = [0; 10];
/// pin.read(&mut bytes, 0)?;
/// assert_eq!(&bytes, b"still here");
/// drop(pin);
/// assert_eq!(pool.usage().limbo.0, 0);
/// # Ok::<(), udax::Error>(())
/// ```
#[derive(Debug)]
pub struct Pin {
    pinned: Pinned,
    range: Range<u64>,
    skip: u64,
    path: PathBuf,
}

/// What is pinned, and what it keeps: a pin is given back before its pool or device may close.
#[derive(Debug)]
enum Pinned {
    File(HeldPin, #[expect(dead_code, reason = "kept open")] Arc<Inner>),
    Device(PinnedFolios, #[expect(dead_code, reason = "kept open")] Arc<devdax::Inner>),
}

/// What a call that did not wait has left to pins: the bytes are free with their last unpin.
///
/// ```
/// use udax::{FreePolicy, PinOptions, Pool};
///
/// let pool = Pool::create_in_memory("example", 8 << 20)?;
/// let file = pool.create_file("/data")?;
/// file.write_all_at(&[1; 8192], 0)?;
/// let pin = file.pin(4096..8192, &PinOptions::new("nic"))?;
///
/// let deferred = file.set_len_with(0, FreePolicy::Defer)?;
/// assert_eq!(&*deferred.pins()[0].owner().label, "nic");
/// assert_eq!(deferred.pins()[0].range(), 4096..8192);
/// assert!(pin.is_recalled());
/// # Ok::<(), udax::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Deferred {
    pins: Vec<PoolPin>,
}

/// A pin as [`Pool::pins`](crate::Pool::pins) lists it.
#[derive(Clone, Debug)]
pub struct PoolPin {
    file: PinnedFile,
    range: Range<u64>,
    info: PinInfo,
}

/// What a pinned range belongs to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PinnedFile {
    /// A file with this path (one of its names), or a device.
    Path(PathBuf),
    /// A file without a name, that is still open.
    Inode(Ino),
    /// No file any more: the pages are in limbo. The range counts bytes of the device then.
    Limbo,
}

impl PinOptions {
    /// For a device that reads, for long; `label` says to others who holds the pin.
    pub fn new(label: &str) -> PinOptions {
        let (kind, term) = (PinKind::Read, PinTerm::Long);
        let (label, on_recall) = (label.to_owned(), None);
        PinOptions { label, kind, term, is_registrable: false, on_recall }
    }

    /// Sets what the device does.
    #[must_use]
    pub fn kind(mut self, kind: PinKind) -> PinOptions {
        self.kind = kind;
        self
    }

    /// Sets how long the pin is meant to last.
    ///
    /// A pin for [`PinTerm::Long`], which may be given to a device, is recorded in the pool before
    /// it is granted: should this process die with it, its pages are not given to other files until
    /// [`Pool::release_quarantine`](crate::Pool::release_quarantine) or the next start of the host.
    /// One for [`PinTerm::Short`] is not: drop it in the call that took it, and give it to no device.
    /// `udax-uring` registers only pins for [`PinTerm::Long`].
    #[must_use]
    pub fn term(mut self, term: PinTerm) -> PinOptions {
        self.term = term;
        self
    }

    /// Calls `callback` whenever somebody wants pages of the pin back: once for each truncate, punch,
    /// removal or freeze that waits for it or defers them, in the thread that does so, with no lock
    /// held. It may use the pool and drop the pin; it should not take long.
    ///
    /// Data that several files share is wanted when the last of them gives it up; the range is then
    /// all of the pin.
    ///
    /// If somebody waits already when the pin is taken, the call comes before [`File::pin`] returns;
    /// [`Pin::is_recalled`] then says so.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use udax::{FreePolicy, PinOptions, Pool, Wait};
    ///
    /// let pool = Pool::create_in_memory("example", 8 << 20)?;
    /// let file = pool.create_file("/data")?;
    /// file.write_all_at(b"cache me", 0)?;
    ///
    /// // A cache that keeps what it has pinned until somebody else needs it.
    /// let cached = Arc::new(Mutex::new(None));
    /// let options = PinOptions::new("cache").on_recall({
    ///     let cached = Arc::clone(&cached);
    ///     move |_| drop(cached.lock().unwrap().take())
    /// });
    /// *cached.lock().unwrap() = Some(file.pin(0..8, &options)?);
    ///
    /// file.set_len_with(0, FreePolicy::Wait(Wait::Forever))?;
    /// assert!(cached.lock().unwrap().is_none());
    /// # Ok::<(), udax::Error>(())
    /// ```
    ///
    /// [`File::pin`]: crate::File::pin
    #[must_use]
    pub fn on_recall(mut self, callback: impl Fn(&Recalled) + Send + Sync + 'static) -> PinOptions {
        self.on_recall = Some(Arc::new(callback));
        self
    }

    /// Asks for memory that the host kernel registers for input and output (`io_uring`, RDMA, GPU);
    /// the pin is refused where it does not.
    #[must_use]
    pub fn registrable(mut self) -> PinOptions {
        self.is_registrable = true;
        self
    }

    pub(crate) fn is_write(&self) -> bool {
        self.kind == PinKind::Write
    }

    fn recall(&self) -> Recall {
        let Some(callback) = self.on_recall.clone() else { return Recall::default() };
        Recall::call(move |event: &RecallEvent| {
            let RecallEvent { range, deadline, why } = event.clone();
            callback(&Recalled { range: range.start.byte()..range.end.byte(), deadline, why });
        })
    }
}

impl fmt::Debug for PinOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinOptions")
            .field("label", &self.label)
            .field("kind", &self.kind)
            .field("term", &self.term)
            .field("is_registrable", &self.is_registrable)
            .field("on_recall", &self.on_recall.is_some())
            .finish()
    }
}

impl Deferred {
    /// The pins, each with the bytes that it held of the range.
    pub fn pins(&self) -> &[PoolPin] {
        &self.pins
    }

    /// Whether nothing was pinned.
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty()
    }

    pub(crate) fn new(path: &Path, pins: &[FilePin]) -> Deferred {
        let place = PinnedFile::Path(path.to_owned());
        Deferred { pins: pins.iter().map(|pin| PoolPin::new(place.clone(), pin)).collect() }
    }
}

impl Pin {
    /// The range of the file that was pinned, in bytes.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Who holds it.
    pub fn owner(&self) -> &PinOwner {
        &self.pinned.info().owner
    }

    /// How long it is held.
    pub fn age(&self) -> Duration {
        self.pinned.info().since.elapsed()
    }

    /// What the device does.
    pub fn kind(&self) -> PinKind {
        self.pinned.info().kind
    }

    /// Whether it ends with a call or is a lease, which a device may be given.
    pub fn term(&self) -> PinTerm {
        self.pinned.info().term
    }

    /// Whether anybody has wanted pages of it since it was taken.
    pub fn is_recalled(&self) -> bool {
        self.pinned.lease().is_recalled()
    }

    /// A file descriptor to poll: an eventfd that is readable from the first recall on. Reading it
    /// gives how many there were, and makes it unreadable until the next.
    ///
    /// # Errors
    ///
    /// Fails if the host has no descriptor left for the first call.
    pub fn recall_fd(&self) -> Result<BorrowedFd<'_>> {
        self.pinned.lease().fd().at(&self.path)
    }

    /// Copies pinned bytes out, from byte `from` of the range on.
    ///
    /// # Errors
    ///
    /// Fails if that is not inside the range, or the medium fails.
    pub fn read(&self, into: &mut [u8], from: u64) -> Result<()> {
        let from = self.locate(from, into.len())?;
        self.pinned.read(from, into).at(&self.path)
    }

    /// Copies bytes into the pinned memory, from byte `at` of the range on, as a device would.
    ///
    /// # Errors
    ///
    /// Fails if that is not inside the range, if the pin is for reading, or the medium fails.
    pub fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        if self.pinned.info().kind != PinKind::Write {
            return Err(Cause::BadHandle("writing")).at(&self.path);
        }
        let at = self.locate(at, bytes.len())?;
        self.pinned.write(at, bytes).at(&self.path)
    }

    /// Where the bytes are in this process, in order: what a device or the kernel is told. The
    /// addresses stay good for as long as the pin does, whatever becomes of the file.
    ///
    /// # Errors
    ///
    /// Fails if the medium is not mapped into this process, or failed.
    pub fn iovecs(&self) -> Result<Vec<Iovec>> {
        let len = self.range.end - self.range.start;
        self.pinned.iovecs_of(self.skip, len).at(&self.path)
    }

    pub(crate) fn new(
        pool: Arc<Inner>,
        inode: &Arc<Inode>,
        range: Range<u64>,
        options: &PinOptions,
        path: &Path,
    ) -> Result<Pin, Cause> {
        if options.is_registrable && !pool.facts().is_registrable {
            return Err(Cause::NotRegistrable);
        }
        let (pages, skip) = to_pages(&range)?;
        let info = info(&options.label, options.kind, options.term);
        let pinned = inode.pin_leased(pages, info, options.recall())?;
        let pinned = Pinned::File(pinned, pool);
        Ok(Pin { pinned, range, skip, path: path.to_owned() })
    }

    /// Pins the folios of a device that hold `range`.
    pub(crate) fn of_device(
        device: Arc<devdax::Inner>,
        range: Range<u64>,
        options: &PinOptions,
        path: &Path,
    ) -> Result<Pin, Cause> {
        if options.is_registrable && !device.core().device().facts().is_registrable {
            return Err(Cause::NotRegistrable);
        }
        let (pages, skip) = device.folios(&range);
        let info = info(&options.label, options.kind, options.term);
        let pinned = device.core().mapping().pin_leased(pages, info, options.recall())?;
        let pinned = Pinned::Device(pinned, device);
        Ok(Pin { pinned, range, skip, path: path.to_owned() })
    }

    fn locate(&self, at: u64, wanted: usize) -> Result<u64> {
        let len = self.range.end - self.range.start;
        check("pin", at, byte_count(wanted), len).at(&self.path)?;
        Ok(self.skip + at)
    }
}

impl Deref for Pinned {
    type Target = PinnedFolios;

    fn deref(&self) -> &PinnedFolios {
        match self {
            Pinned::File(pinned, _) => pinned,
            Pinned::Device(pinned, _) => pinned,
        }
    }
}

impl PoolPin {
    pub(crate) fn new(file: PinnedFile, pin: &FilePin) -> PoolPin {
        let range = pin.range.start.byte()..pin.range.end.byte();
        PoolPin { file, range, info: pin.info.clone() }
    }

    /// What the pages belong to.
    pub fn file(&self) -> &PinnedFile {
        &self.file
    }

    /// The bytes of the whole pages that are pinned.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Who holds it.
    pub fn owner(&self) -> &PinOwner {
        &self.info.owner
    }

    /// How long it is held.
    pub fn age(&self) -> Duration {
        self.info.since.elapsed()
    }

    /// What the device does.
    pub fn kind(&self) -> PinKind {
        self.info.kind
    }

    /// Whether it ends with a call or is a lease.
    pub fn term(&self) -> PinTerm {
        self.info.term
    }
}

/// What is recorded of a pin of this process that starts at this moment.
pub(crate) fn info(label: &str, kind: PinKind, term: PinTerm) -> PinInfo {
    let owner = PinOwner { process: std::process::id(), connection: 0, label: label.into() };
    PinInfo { owner, since: Instant::now(), kind, term }
}
