//! The store: the bytes of a device, its geometry, its journal and its free space under one roof.
//!
//! This file owns access to the device for all that lies above it: reads, allocation joined with
//! claims, stores to fresh pages and to data in place, and commits. It knows no inodes. After a
//! media error in the middle of a commit it refuses every further write, because nobody can say
//! whether the transaction happened; opening the pool again decides that.

use crate::FsError;
use crate::ahead::Ahead;
use crate::alloc::{Allocator, DoubleUse, Extent, Goal};
use crate::block::BLOCK_PAGES;
use crate::format::Geometry;
use crate::fresh::claim_all;
use crate::journal::{CommitError, Journal, Writes};
use crate::limbo::Limbo;
use crate::num::to_u64;
use crate::pin_table::PinTable;
use crate::quarantine::Quarantine;
use crate::shares::Shares;
use std::ops::Range;
use std::panic::Location;
use udax_dev::{DaxBytes, DaxDevice, DaxSpan, IoError};
use udax_mm::sync::{Arc, Mutex, OnceLock, Weak};
use udax_mm::{DeviceOff, FileIndex, Pages, Pgmap, PgmapOff};

pub use crate::fresh::Fresh;
pub use crate::vacant::Vacant;

/// See the module. Shared as `Arc<Store>`, which is also the sink of pages in limbo.
///
/// Locks: the pin table's is taken before the journal's, and that before the allocator's, which is
/// also taken under the quarantine's while mounting; those of limbo, of shares and of what is
/// allocated ahead are held alone.
#[derive(Debug)]
pub struct Store {
    bytes: DaxBytes,
    geometry: Geometry,
    journal: Mutex<Journal>,
    pub(crate) alloc: Arc<Mutex<Allocator>>,
    pub(crate) limbo: Mutex<Limbo>,
    pub(crate) shares: Mutex<Shares>,
    pub(crate) ahead: Ahead,
    pub(crate) pins: PinTable,
    pub(crate) quarantine: Quarantine,
    stopped: OnceLock<String>,
    /// For sinks, which must not keep it.
    itself: Weak<Store>,
}

impl Store {
    /// A store all of whose data pages are free.
    pub(crate) fn new(
        device: Arc<dyn DaxDevice>,
        geometry: Geometry,
        uuid: [u8; 16],
    ) -> Arc<Store> {
        Arc::new_cyclic(|itself| Store {
            bytes: DaxBytes::new(device),
            journal: Mutex::new(Journal::new(&geometry, uuid)),
            alloc: Arc::new(Mutex::new(Allocator::new(geometry.data..geometry.end))),
            limbo: Mutex::new(Limbo::default()),
            shares: Mutex::new(Shares::default()),
            ahead: Ahead::default(),
            pins: PinTable::new(&geometry),
            quarantine: Quarantine::default(),
            stopped: OnceLock::new(),
            itself: Weak::clone(itself),
            geometry,
        })
    }

    /// Where sinks of pages find it.
    pub(crate) fn itself(&self) -> &Weak<Store> {
        &self.itself
    }

    /// Where everything lies.
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The device below.
    pub(crate) fn device(&self) -> &Arc<dyn DaxDevice> {
        self.bytes.device()
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &DaxBytes {
        &self.bytes
    }

    /// The address of `extent`, or of its first part where it crosses page maps.
    pub(crate) fn span(&self, extent: Extent) -> Result<DaxSpan, FsError> {
        Ok(self.device().recovery_access(extent.start, extent.pages)?)
    }

    /// Reads bytes of the device.
    pub(crate) fn read(&self, from: u64, into: &mut [u8]) -> Result<(), FsError> {
        Ok(self.bytes.read(from, into)?)
    }

    /// Reads 8 bytes at once.
    pub(crate) fn load_u64(&self, at: u64) -> Result<u64, FsError> {
        Ok(self.bytes.load_u64(at)?)
    }

    /// Refuses once the store has stopped.
    pub(crate) fn check_writable(&self) -> Result<(), FsError> {
        self.stopped.get().map_or(Ok(()), |cause| Err(FsError::Stopped(cause.clone())))
    }
}

/// Free space.
impl Store {
    /// Allocates and claims `pages` pages in as few pieces as possible, all or none.
    ///
    /// # Errors
    ///
    /// [`FsError::NoSpace`]; the device's.
    ///
    /// # Panics
    ///
    /// Panics if somebody uses a page that is free (I-50).
    pub(crate) fn allocate(&self, pages: Pages, goal: Goal) -> Result<Vec<Fresh>, FsError> {
        self.check_writable()?;
        loop {
            let mut alloc = self.alloc.lock();
            let free = alloc.free();
            if let Some(extents) = alloc.allocate(pages, goal) {
                drop(alloc);
                return claim_all(self, extents);
            }
            drop(alloc);
            if !self.ahead.forget_all() {
                return Err(FsError::NoSpace { wanted: pages, free });
            }
        }
    }

    /// Allocates one page.
    ///
    /// # Errors
    ///
    /// As [`Store::allocate`].
    pub(crate) fn allocate_page(&self) -> Result<Fresh, FsError> {
        let mut pages = self.allocate(Pages(1), Goal::Packed)?;
        Ok(pages.pop().expect("one page was allocated"))
    }

    /// Allocates for a hole of a file: each aligned 2 MiB of `range` gets a whole 2 MiB block while
    /// there are any. The pieces are in file order; all or none.
    ///
    /// # Errors
    ///
    /// As [`Store::allocate`].
    pub(crate) fn allocate_range(
        &self,
        range: Range<FileIndex>,
        goal: Goal,
    ) -> Result<Vec<(FileIndex, Fresh)>, FsError> {
        let (start, end) = (range.start.0, range.end.0);
        let (head, tail) = (start.next_multiple_of(BLOCK_PAGES), end / BLOCK_PAGES * BLOCK_PAGES);
        let mut pieces = Vec::new();
        if head >= tail {
            pieces.extend(self.allocate(Pages(end - start), goal)?);
        } else {
            pieces.extend(self.allocate(Pages(head - start), goal)?);
            pieces.extend(self.allocate_huge(Pages(tail - head))?);
            pieces.extend(self.allocate(Pages(end - tail), Goal::Packed)?);
        }
        let mut at = range.start;
        let place = |fresh: Fresh| {
            let index = at;
            at = at + fresh.extent().pages;
            (index, fresh)
        };
        Ok(pieces.into_iter().map(place).collect())
    }

    /// Marks pages as used while mounting.
    ///
    /// # Errors
    ///
    /// The first page that something else uses already.
    pub(crate) fn reserve(&self, extent: Extent) -> Result<(), DoubleUse> {
        self.alloc.lock().reserve(extent)
    }

    /// Free pages, with those that wait for a growing file. Pages in limbo and in quarantine are not
    /// free.
    pub(crate) fn free_pages(&self) -> Pages {
        let ahead = self.ahead.pages();
        self.alloc.lock().free() + ahead
    }

    /// Wholly free 2 MiB blocks.
    pub(crate) fn huge_free(&self) -> u64 {
        self.alloc.lock().huge_free()
    }

    /// How often a whole 2 MiB block was wanted and free space was too scattered to give one.
    pub(crate) fn huge_misses(&self) -> u64 {
        self.alloc.lock().huge_misses()
    }

    /// Every free extent, with those that wait for a growing file.
    pub(crate) fn free_extents(&self) -> Vec<Extent> {
        let mut extents = self.ahead.extents();
        extents.extend(self.alloc.lock().extents());
        extents
    }

    /// Pages that were freed while somebody used them, and still does.
    pub(crate) fn limbo_pages(&self) -> Pages {
        self.limbo.lock().pages()
    }

    fn allocate_huge(&self, pages: Pages) -> Result<Vec<Fresh>, FsError> {
        let blocks = self.alloc.lock().allocate_blocks(pages.0 / BLOCK_PAGES);
        let given: u64 = blocks.iter().map(|extent| extent.pages.0).sum();
        let mut pieces = claim_all(self, blocks)?;
        pieces.extend(self.allocate(Pages(pages.0 - given), Goal::Packed)?);
        Ok(pieces)
    }
}

/// Stores to the medium.
impl Store {
    /// Overwrites data in place and flushes it; durable after [`Store::fence`].
    ///
    /// Never a byte that a transaction writes: recovery would put the transaction's bytes back.
    ///
    /// # Errors
    ///
    /// The device's; a part may be written then.
    #[track_caller]
    pub(crate) fn write_in_place(&self, at: u64, bytes: &[u8]) -> Result<(), FsError> {
        self.check_writable()?;
        self.bytes.write(at, bytes)?;
        Ok(self.bytes.flush(at, to_u64(bytes.len()))?)
    }

    /// Replaces one page of data whose memory failed, flushes it and ends its mark; durable after
    /// [`Store::fence`].
    ///
    /// # Errors
    ///
    /// The device's; the mark stands then.
    #[track_caller]
    pub(crate) fn recover_in_place(&self, page: &DaxSpan, bytes: &[u8]) -> Result<(), FsError> {
        self.check_writable()?;
        let at = page.at().byte();
        page.pgmap().recover(at, bytes)?;
        Ok(page.pgmap().flush(at, to_u64(bytes.len()), Location::caller())?)
    }

    /// Zeros data in place, which is for the caller to flush. Never a byte that a transaction
    /// writes.
    ///
    /// # Errors
    ///
    /// As [`Store::write_in_place`].
    pub(crate) fn zero(&self, at: u64, len: u64) -> Result<(), FsError> {
        self.check_writable()?;
        Ok(self.bytes.zero(at, len)?)
    }

    /// Like [`Store::write_in_place`], with zeros.
    ///
    /// # Errors
    ///
    /// As [`Store::write_in_place`].
    #[track_caller]
    pub(crate) fn zero_in_place(&self, at: u64, len: u64) -> Result<(), FsError> {
        self.zero(at, len)?;
        self.flush(at, len)
    }

    /// Makes durable what this thread flushed.
    ///
    /// # Errors
    ///
    /// The device's.
    #[track_caller]
    pub(crate) fn fence(&self) -> Result<(), FsError> {
        Ok(self.bytes.fence()?)
    }

    /// Like [`Store::fence`], and makes the last transaction durable at home with the same fence.
    ///
    /// # Errors
    ///
    /// The device's; the store stops then.
    #[track_caller]
    pub(crate) fn fence_all(&self) -> Result<(), FsError> {
        let mut journal = self.journal.lock();
        journal.fence(&self.bytes).map_err(|error| self.stop(error))
    }

    /// Makes the last transaction durable at home, if it is not: before a session is closed.
    ///
    /// # Errors
    ///
    /// The device's; the store stops then.
    pub(crate) fn settle(&self) -> Result<(), FsError> {
        let mut journal = self.journal.lock();
        journal.settle(&self.bytes).map_err(|error| self.stop(error))
    }

    /// Starts the lines of `len` bytes at `at` on their way.
    #[track_caller]
    pub(crate) fn flush(&self, at: u64, len: u64) -> Result<(), FsError> {
        Ok(self.bytes.flush(at, len)?)
    }

    /// Writes bytes of a page that nothing refers to.
    pub(crate) fn write_fresh(&self, to: &Fresh, at: u64, bytes: &[u8]) -> Result<(), FsError> {
        assert!(
            at + to_u64(bytes.len()) <= to.extent().pages.bytes(),
            "an object stays in its pages"
        );
        Ok(self.bytes.write(to.extent().start.byte() + at, bytes)?)
    }

    /// Zeros bytes of a page that nothing refers to.
    pub(crate) fn zero_fresh(&self, to: &Fresh, range: Range<u64>) -> Result<(), FsError> {
        assert!(range.end <= to.extent().pages.bytes(), "an object stays in its pages");
        let at = to.extent().start.byte() + range.start;
        Ok(self.bytes.zero(at, range.end - range.start)?)
    }
}

/// Transactions.
impl Store {
    /// Repeats the last transaction, if it is valid. Returns whether that changed anything.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn recover(&self) -> Result<bool, FsError> {
        Ok(self.journal.lock().recover(&self.bytes)?)
    }

    /// Whether [`Store::recover`] would change anything. A read-only mount must not.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn needs_recovery(&self) -> Result<bool, FsError> {
        Ok(self.journal.lock().needs_recovery(&self.bytes)?)
    }

    /// Makes `writes` happen as one.
    pub(crate) fn commit(&self, writes: &Writes) -> Result<(), FsError> {
        // Under the lock, so that nobody overwrites the record of a commit that failed half-way.
        let mut journal = self.journal.lock();
        self.check_writable()?;
        journal.commit(&self.bytes, writes).map_err(|error| match error {
            CommitError::TooLarge { bytes, max } => FsError::TransactionTooLarge { bytes, max },
            CommitError::Io(error) => self.stop(error),
        })
    }

    /// Takes no more writes, because memory that holds `object` failed.
    pub(crate) fn stop_for(&self, object: &str) {
        self.stopped.get_or_init(|| format!("memory that holds {object} failed"));
    }

    /// Takes no more writes, because of this error of the device.
    pub(crate) fn stop(&self, error: IoError) -> FsError {
        self.stopped.get_or_init(|| error.to_string());
        FsError::Device(error)
    }
}

/// From page maps back to the device.
impl Store {
    /// The extents of the device behind pages of a page map, in order.
    pub(crate) fn extents_of(&self, pgmap: &Pgmap, pages: Range<PgmapOff>) -> Vec<Extent> {
        let extents = self.extents_within(pgmap, pages.clone());
        let found: u64 = extents.iter().map(|extent| extent.pages.0).sum();
        let wanted = pages.end.0.saturating_sub(pages.start.0);
        assert!(found == wanted, "a file's pages lie on the device of its pool");
        extents
    }

    /// The same, without the pages that do not lie on the device.
    pub(crate) fn extents_within(&self, pgmap: &Pgmap, pages: Range<PgmapOff>) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut page = pages.start;
        while page < pages.end {
            let Some(at) = self.device().device_off(pgmap, page) else {
                page = page + Pages(1);
                continue;
            };
            let more = self.adjacent(pgmap, page, at, pages.end.since(page));
            page = page + more;
            match extents.last_mut() {
                Some(last) if last.end() == at => last.pages = last.pages + more,
                _ => extents.push(Extent { start: at, pages: more }),
            }
        }
        extents
    }

    /// How many of `most` pages, from `page` on, are adjacent on the device too, where `page` lies
    /// at `at`. One, if the device is gone and cannot say.
    fn adjacent(&self, pgmap: &Pgmap, page: PgmapOff, at: DeviceOff, most: Pages) -> Pages {
        match self.device().recovery_access(at, most) {
            Ok(span) if span.at() == page && span.pgmap().pgmap() == pgmap => span.pages(),
            _ => Pages(1),
        }
    }
}
