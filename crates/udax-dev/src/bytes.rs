//! Byte access to a device: copies, 8-byte words, flush and fence, across any boundary below.
//!
//! For metadata and for copies that end with the call. It keeps no page: each step takes a span
//! and gives it back.

use crate::{AccessError, DaxDevice, IoError, Route};
use std::panic::Location;
use udax_mm::sync::Arc;
use udax_mm::units::PAGE_BYTES;
use udax_mm::{DeviceOff, MediaError, Pages, PgmapRef};

/// The bytes of a device, addressed by byte offset. A clone is another handle to the same device.
///
/// A call that reaches outside the device changes nothing. Stores are ordinary: they are persistent
/// once [`flush`](DaxBytes::flush) and then [`fence`](DaxBytes::fence) returned.
///
/// # Examples
///
/// ```
/// # use udax_mm::{MediaRange, MemoryType, Pages, Pgmap, media::FileMedia, sync::Arc};
/// # use udax_dev::{DaxBytes, PgmapDevice};
/// let media = Arc::new(FileMedia::memfd("bytes", Pages(2).bytes())?);
/// let ranges = vec![MediaRange { media, start: 0, pages: Pages(2) }];
/// let device = Arc::new(PgmapDevice::new(Pgmap::new(ranges, MemoryType::FsDax)?));
///
/// let bytes = DaxBytes::new(device);
/// bytes.write(4090, b"across pages")?;
/// bytes.flush(4090, 12)?;
/// bytes.fence()?;
///
/// let mut read = [0; 12];
/// bytes.read(4090, &mut read)?;
/// assert_eq!(&read, b"across pages");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DaxBytes {
    device: Arc<dyn DaxDevice>,
}

/// The part of an access that lies in one span, or reads as zeros.
struct Piece {
    route: Route,
    /// Byte of the first page at which it starts.
    in_page: u64,
    /// Bytes before it in the whole access.
    done: u64,
    len: u64,
}

impl DaxBytes {
    /// Gives byte access to `device`.
    #[must_use]
    pub fn new(device: Arc<dyn DaxDevice>) -> DaxBytes {
        DaxBytes { device }
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn DaxDevice> {
        &self.device
    }

    /// Copies bytes from `from` on into a buffer.
    ///
    /// # Errors
    ///
    /// [`IoError`]; the buffer may then be filled in part.
    pub fn read(&self, from: u64, into: &mut [u8]) -> Result<(), IoError> {
        let whole = byte_len(into);
        self.for_each_piece(from, whole, |piece| {
            let into = &mut into[piece.in_buffer()];
            if let Some((pgmap, byte)) = piece.memory() {
                return Ok(pgmap.read_part(byte, into, whole)?);
            }
            into.fill(0);
            Ok(())
        })
    }

    /// Copies `bytes` to `at`.
    ///
    /// # Errors
    ///
    /// [`IoError`]; unless it says that the range lies outside the device, a part may be written.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), IoError> {
        let whole = byte_len(bytes);
        self.for_each_piece(at, whole, |piece| {
            let bytes = &bytes[piece.in_buffer()];
            piece.on_memory(|pgmap, byte| pgmap.write_part(byte, bytes, whole))
        })
    }

    /// Stores zeros.
    ///
    /// # Errors
    ///
    /// As [`write`](DaxBytes::write).
    pub fn zero(&self, at: u64, len: u64) -> Result<(), IoError> {
        self.for_each_piece(at, len, |piece| {
            piece.on_memory(|pgmap, byte| pgmap.zero(byte, piece.len))
        })
    }

    /// Loads 8 bytes, at once.
    ///
    /// # Errors
    ///
    /// [`IoError`] if the device or its medium fails.
    ///
    /// # Panics
    ///
    /// Panics if `at` is not a multiple of 8.
    pub fn load_u64(&self, at: u64) -> Result<u64, IoError> {
        match self.word(at)?.memory() {
            Some((pgmap, byte)) => Ok(pgmap.load_u64(byte)?),
            None => Ok(0),
        }
    }

    /// Stores 8 bytes, at once: a crash leaves the old value or this one.
    ///
    /// # Errors
    ///
    /// [`IoError`] if the device or its medium fails.
    ///
    /// # Panics
    ///
    /// Panics if `at` is not a multiple of 8.
    pub fn store_u64(&self, at: u64, value: u64) -> Result<(), IoError> {
        self.word(at)?.on_memory(|pgmap, byte| pgmap.store_u64(byte, value))
    }

    /// Starts the cache lines of `len` bytes at `at` on their way to the persistence domain.
    ///
    /// The caller's source line is its site. A function that flushes on behalf of its caller is
    /// `#[track_caller]` too; a caller location does not pass through closures or `dyn` calls.
    ///
    /// # Errors
    ///
    /// [`IoError`] if the device or its medium fails.
    #[track_caller]
    pub fn flush(&self, at: u64, len: u64) -> Result<(), IoError> {
        let site = Location::caller();
        self.for_each_piece(at, len, |piece| {
            piece.on_memory(|pgmap, byte| pgmap.flush(byte, piece.len, site))
        })
    }

    /// Waits until everything that this thread flushed before is in the persistence domain, on
    /// every page map below. The caller's source line is its site.
    ///
    /// # Blocking
    ///
    /// Waits for the media.
    ///
    /// # Errors
    ///
    /// [`IoError`] if the device or a medium below fails.
    #[track_caller]
    pub fn fence(&self) -> Result<(), IoError> {
        self.device.fence(Location::caller())
    }

    /// Calls `each` for the parts of `len` bytes at `at`, in order.
    fn for_each_piece(
        &self,
        at: u64,
        len: u64,
        mut each: impl FnMut(&Piece) -> Result<(), IoError>,
    ) -> Result<(), IoError> {
        self.check_range(at, len)?;
        let mut done = 0;
        while done < len {
            let piece = self.piece(at, done, len - done)?;
            each(&piece)?;
            done += piece.len;
        }
        Ok(())
    }

    /// The first part of the `left` bytes that start `done` bytes after `at`.
    fn piece(&self, at: u64, done: u64, left: u64) -> Result<Piece, IoError> {
        let from = at + done;
        let in_page = from % PAGE_BYTES;
        let route = self.device.route(DeviceOff::of_byte(from), Pages::holding(in_page + left))?;
        let pages = match &route {
            Route::Memory(span) => span.pages(),
            Route::Zeros(pages) => *pages,
        };
        Ok(Piece { route, in_page, done, len: left.min(pages.bytes() - in_page) })
    }

    fn word(&self, at: u64) -> Result<Piece, IoError> {
        assert!(at.is_multiple_of(8), "a word lies at a multiple of 8 bytes");
        self.check_range(at, 8)?;
        self.piece(at, 0, 8)
    }

    /// Refuses an access of which any byte lies outside, before anything is changed.
    fn check_range(&self, at: u64, len: u64) -> Result<(), AccessError> {
        let size = self.device.size();
        if at.checked_add(len).is_some_and(|end| end <= size.bytes()) {
            return Ok(());
        }
        let first_outside = DeviceOff::of_byte(at).max(DeviceOff(size.0));
        Err(AccessError::OutOfRange { at: first_outside, size })
    }
}

impl Piece {
    /// The page map that it lies in, and the first byte there; none if it reads as zeros.
    fn memory(&self) -> Option<(&PgmapRef, u64)> {
        match &self.route {
            Route::Memory(span) => Some((span.pgmap(), span.at().byte() + self.in_page)),
            Route::Zeros(_) => None,
        }
    }

    /// Changes memory, if there is any.
    fn on_memory(
        &self,
        change: impl FnOnce(&PgmapRef, u64) -> Result<(), MediaError>,
    ) -> Result<(), IoError> {
        match self.memory() {
            Some((pgmap, byte)) => Ok(change(pgmap, byte)?),
            None => Ok(()),
        }
    }

    fn in_buffer(&self) -> std::ops::Range<usize> {
        let index = |bytes: u64| usize::try_from(bytes).expect("a buffer fits in memory");
        index(self.done)..index(self.done + self.len)
    }
}

fn byte_len(buffer: &[u8]) -> u64 {
    u64::try_from(buffer.len()).expect("a buffer is shorter than 2^64 bytes")
}
