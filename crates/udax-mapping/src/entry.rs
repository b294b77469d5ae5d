//! The locked entry of one block of a file: the only way to insert, map or pin.
//!
//! Owns the entry lock while it exists, and one transient folio reference after a fault (I-13).
//! Which order to ask for, and what to do about holes, is decided in [`crate::fault`].

use crate::fallback::Counters;
use crate::fault::{FaultError, FaultGuard};
use crate::index::{Block, Entry, Index};
use crate::iomap::Iomap;
use crate::user::{User, UserMapping};
use std::fmt;
use std::ops::Range;
use udax_dev::DaxSpan;
use udax_mm::{
    Access, FileIndex, Folio, FolioRef, Order, Pages, PgmapOff, PgmapRef, PinInfo, PinKind,
    PinnedFolio, RequestError,
};

/// How often a page that looks busy is looked at again. A page of a file is busy without being
/// counted only for the moment of a last put.
const TRIES: u32 = 1 << 20;
/// The same for a block of order 9, where giving up only means a smaller folio.
const BLOCK_TRIES: u32 = 16;

/// The locked entry of one index.
///
/// Whatever it inserts, maps or pins is serialised with every other fault, pin and writeback of the
/// same block. Asking the owner for the extent is a method of this guard, so a fault cannot act on
/// an answer that a concurrent allocation has outdated (B-12).
///
/// # Examples
///
/// ```
/// # mod owner { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/owner.inc")); }
/// # use owner::WholeDevice;
/// # use udax_mapping::Iomap;
/// # use udax_mm::{Access, FileIndex, Order, Pages};
/// let file = WholeDevice::new(Pages(8))?;
/// let faults = file.mapping.faults();
/// let mut entry = faults.lock_entry(FileIndex(7));
/// if let Iomap::Data { span, start, .. } = entry.iomap(Access::Read)? {
///     let page = span.slice(FileIndex(7).since(start), Pages(1));
///     let folio = entry.fault(&page, Order::Base)?;
///     assert_eq!(folio.head(), page.at());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EntryGuard<'g, 'm> {
    faults: &'g FaultGuard<'m>,
    /// The index that was asked for.
    index: FileIndex,
    block: Block,
    /// Counted while the entry is locked, so that it can be mapped or pinned.
    folio: Option<Folio>,
}

impl<'g, 'm> EntryGuard<'g, 'm> {
    /// Takes over the lock of `block`, which `index` lies in.
    pub(crate) fn new(
        faults: &'g FaultGuard<'m>,
        index: FileIndex,
        block: Block,
    ) -> EntryGuard<'g, 'm> {
        EntryGuard { faults, index, block, folio: None }
    }

    /// The pages of the file that the lock covers.
    pub fn range(&self) -> Range<FileIndex> {
        self.block.range()
    }

    /// The size of the block.
    pub fn order(&self) -> Order {
        self.block.order
    }

    /// Whether the block has a folio.
    pub(crate) fn is_real(&self) -> bool {
        self.block.entry.is_some()
    }

    /// Asks the owner what lies behind the index.
    ///
    /// # Errors
    ///
    /// [`FaultError::Iomap`] with the owner's reason; [`FaultError::Closed`] and
    /// [`FaultError::Removed`] if there is no owner or no device any more.
    pub fn iomap(&self, access: Access) -> Result<Iomap, FaultError> {
        Ok(self.faults.owner()?.iomap(self.index, access)?)
    }

    /// Brings in the folio at `at`: for order 9 the first page of the block, for order 0 the page
    /// of the index that was locked.
    ///
    /// If the entry has a folio, of whatever order, this is it. Otherwise the entry gets one of
    /// `order`; an empty block that is larger shrinks to the page. The folio stays counted while
    /// the entry is locked.
    ///
    /// # Errors
    ///
    /// [`FaultError::Request`] if the pages cannot be had, because they are poisoned, misaligned or
    /// counted as folios of another size. The entry stays as it was.
    ///
    /// # Panics
    ///
    /// Panics if the span is shorter than `order`, if `order` is larger than the locked block, or
    /// if the entry has a folio that is elsewhere: the owner has moved data without
    /// [`break_layout`](crate::Mapping::break_layout).
    pub fn fault(&mut self, at: &DaxSpan, order: Order) -> Result<FolioRef<'_>, FaultError> {
        assert!(at.pages() >= order.pages(), "I-62: a folio lies inside its span");
        assert!(order <= self.block.order, "I-22: a folio is not larger than its locked block");
        let target = if order == Order::Base { self.index } else { self.block.head };
        let folio = if let Some(entry) = &self.block.entry {
            let within = target.since(self.block.head);
            let is_same = entry.first + within == at.at();
            assert!(is_same && entry.pgmap == *at.pgmap().pgmap(), "I-20: an entry stays put");
            acquire(at.pgmap(), entry.first, self.block.order)?
        } else {
            let folio = acquire(at.pgmap(), at.at(), order)?;
            self.insert(target, order, at);
            folio
        };
        Ok(self.folio.insert(folio).borrow())
    }

    /// Shows the folio in a user mapping, as much of it as lies in the block and the mapping, and
    /// returns how many pages from the index on that are.
    ///
    /// A mapping for writing shows it writable whatever the fault was, because no second fault
    /// tells of the first store; the entry is dirty from then on (I-34). A file whose owner does
    /// not [permit stores](crate::IomapOps::permits_stores) is shown for reading only.
    ///
    /// # Errors
    ///
    /// [`FaultError::Closed`] and [`FaultError::Removed`] as [`EntryGuard::iomap`] returns them;
    /// [`FaultError::Io`] if the host refuses to map it.
    ///
    /// # Panics
    ///
    /// Panics if nothing was faulted in, or if `user` does not show the index.
    pub fn map(&self, user: &UserMapping) -> Result<Pages, FaultError> {
        self.map_user(user.user())
    }

    pub(crate) fn map_user(&self, user: &User) -> Result<Pages, FaultError> {
        let folio = self.folio.as_ref().expect("I-13: only a folio that is counted is mapped");
        let first = self.first().expect("a fault inserts the entry");
        let (block, shown) = (self.block.range(), user.range());
        let start = block.start.max(shown.start);
        let end = block.end.min(shown.end);
        let pages = (first + start.since(block.start)).span(end.since(start));
        let permits_stores = self.faults.owner()?.permits_stores();
        let access = if permits_stores { user.access() } else { Access::Read };
        if access == Access::Write {
            self.mark_dirty();
        }
        let at = user.part(&(start..end)).start;
        user.table().map_folio(at, folio, pages, access)?;
        Ok(end.since(self.index))
    }

    /// Pins the folio, or returns `None` if nothing was faulted in.
    ///
    /// A pin for writing makes the entry dirty, and keeps it so: nobody tells when a device stores.
    ///
    /// Only [`Mapping::pin`](crate::Mapping::pin) calls it: writeback has to find the pin listed.
    pub(crate) fn pin(&self, info: PinInfo) -> Option<PinnedFolio> {
        let folio = self.folio.as_ref()?;
        if info.kind == PinKind::Write {
            self.mark_dirty();
        }
        Some(folio.pin(info))
    }

    /// The block and its entry.
    pub(crate) fn block(&self) -> Block {
        self.block.clone()
    }

    /// The index that was asked for.
    pub(crate) fn asked(&self) -> FileIndex {
        self.index
    }

    pub(crate) fn counters(&self) -> &'m Counters {
        self.faults.mapping().counters()
    }

    /// Takes the DIRTY mark off: every store was flushed, and none can come without a fault.
    pub(crate) fn mark_clean(&self) {
        self.index().update(self.block.head, |entry| {
            entry.as_mut().expect("a dirty block has an entry").is_dirty = false;
        });
    }

    /// Where the first page of the block lies.
    fn first(&self) -> Option<PgmapOff> {
        self.block.entry.as_ref().map(|entry| entry.first)
    }

    /// Exchanges an empty larger block for the page that was asked for.
    pub(crate) fn shrink(&mut self) {
        if self.block.order != Order::Base {
            self.block = self.index().shrink(self.block.head, self.index);
        }
    }

    fn insert(&mut self, target: FileIndex, order: Order, at: &DaxSpan) {
        if order < self.block.order {
            self.shrink();
        }
        assert!(self.block.head == target, "I-22: an entry starts where its block does");
        let entry = Entry { pgmap: at.pgmap().pgmap().clone(), first: at.at(), is_dirty: false };
        self.block.entry = Some(entry.clone());
        self.index().update(self.block.head, |slot| *slot = Some(entry));
    }

    fn mark_dirty(&self) {
        self.index().update(self.block.head, |entry| {
            entry.as_mut().expect("a fault inserts the entry").is_dirty = true;
        });
    }

    fn index(&self) -> &'m Index {
        self.faults.mapping().index()
    }
}

impl Drop for EntryGuard<'_, '_> {
    fn drop(&mut self) {
        // The transient reference is put under the entry lock (I-13).
        self.folio = None;
        self.index().unlock(self.block.head);
    }
}

impl fmt::Debug for EntryGuard<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryGuard")
            .field("index", &self.index)
            .field("block", &self.block)
            .field("folio", &self.folio)
            .finish_non_exhaustive()
    }
}

/// Gets a reference of the folio at `at` if somebody counts it already, and requests it if not.
///
/// A folio that is larger than asked for is as good: somebody still counts it as a whole.
fn acquire(pgmap: &PgmapRef, at: PgmapOff, order: Order) -> Result<Folio, RequestError> {
    let tries = if order == Order::Base { TRIES } else { BLOCK_TRIES };
    for _ in 0..tries {
        if let Some(folio) = pgmap.get_folio(at) {
            let is_large_enough = folio.order() >= order;
            return if is_large_enough { Ok(folio) } else { Err(RequestError::Busy(at)) };
        }
        match pgmap.request_folio(at, order) {
            Err(RequestError::Busy(_)) => std::thread::yield_now(),
            other => return other,
        }
    }
    Err(RequestError::Busy(at))
}
