//! The locked entry of one block of a file: the only way to insert, map or pin.
//!
//! Owns the entry lock while it exists, and the reference of a folio between its fault and its
//! mapping (I-13). Which order to ask for, and what to do about holes, is decided in
//! [`crate::fault`].

use crate::fault::{FaultError, FaultGuard};
use crate::index::{Block, Entry, Index, Place};
use crate::iomap::Iomap;
use crate::poison::check_good;
use crate::table::{Sharing, Shown};
use crate::user::{User, UserMapping};
use std::fmt;
use std::ops::Range;
use std::panic::Location;
use udax_dev::DaxSpan;
use udax_mm::sync::lock_order::Held;
use udax_mm::vma::Prefault;
use udax_mm::{Access, FileIndex, FolioSpan, Order, Pages, PgmapOff, RequestError};

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
///     assert_eq!(folio.pages().start, page.at());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EntryGuard<'g, 'm> {
    faults: &'g FaultGuard<'m>,
    /// The index that was asked for.
    index: FileIndex,
    block: Block,
    /// Counted while the entry is locked, until it is mapped or pinned.
    folio: Option<FolioSpan>,
    _held: Held,
}

/// How the lock of an entry is called where the order of locks is recorded.
const LOCK: &str = "udax_mapping::entry lock";

impl<'g, 'm> EntryGuard<'g, 'm> {
    /// Takes over the lock of `block`, which `index` lies in.
    #[track_caller]
    pub(crate) fn new(
        faults: &'g FaultGuard<'m>,
        index: FileIndex,
        block: Block,
    ) -> EntryGuard<'g, 'm> {
        let held = Held::new(LOCK, Location::caller());
        EntryGuard { faults, index, block, folio: None, _held: held }
    }

    /// The same for a lock that was there to be had, while others are held.
    pub(crate) fn tried(
        faults: &'g FaultGuard<'m>,
        index: FileIndex,
        block: Block,
    ) -> EntryGuard<'g, 'm> {
        EntryGuard { faults, index, block, folio: None, _held: Held::tried(LOCK) }
    }

    /// The pages of the file that the lock covers.
    pub fn range(&self) -> Range<FileIndex> {
        self.block.range()
    }

    /// The size of the block.
    pub fn order(&self) -> Order {
        self.block.order
    }

    /// Asks the owner what lies behind the index.
    ///
    /// # Errors
    ///
    /// [`FaultError::Request`] if memory of the page failed and could not be copied;
    /// [`FaultError::Iomap`] with any other reason of the owner; [`FaultError::Closed`] and
    /// [`FaultError::Removed`] if there is no owner or no device any more.
    pub fn iomap(&self, access: Access) -> Result<Iomap, FaultError> {
        let access = self.faults.permitted(access);
        if access == Access::Write {
            self.faults.begin_filling();
            if self.block.place().is_some_and(|place| place.is_shared) {
                // Before the file moves away: then the others may store to what is shown here.
                self.faults.outdate(&self.block.range());
            }
        }
        let found = self.faults.owner()?.iomap(self.index, access);
        found.map_err(|error| self.lost().unwrap_or_else(|| error.into()))
    }

    /// That memory of the page failed, if it did: then it could not be copied for a store, either.
    fn lost(&self) -> Option<FaultError> {
        let found = self.faults.owner().ok()?.iomap(self.index, Access::Read);
        let Ok(Iomap::Data { span, start, .. }) = found else { return None };
        check_good(&span.slice(self.index.since(start), Pages(1)), Pages(1)).err()
    }

    /// Whether the owner has a hole in all of the block.
    pub(crate) fn is_hole(&self) -> Result<bool, FaultError> {
        let found = self.faults.owner()?.iomap(self.block.head, Access::Read)?;
        Ok(matches!(found, Iomap::Hole { pages } if pages >= self.block.order.pages()))
    }

    /// Brings in the folio at `at`: for order 9 and 18 the first page of the block, for order 0 the
    /// page of the index that was locked.
    ///
    /// If the entry has a folio, of whatever order, this is it. Otherwise the entry gets one of
    /// `order`; an empty block that is larger shrinks to it. The folio stays counted while the
    /// entry is locked.
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
    pub fn fault(&mut self, at: &DaxSpan, order: Order) -> Result<&FolioSpan, FaultError> {
        self.bring_in(at, order, false)?;
        Ok(self.folio.as_ref().expect("it was brought in"))
    }

    /// As [`fault`](EntryGuard::fault); `is_shared` says whether the owner shares the data, which
    /// comes in page by page. What was shared may have moved: a store gave the file a copy of its
    /// own.
    pub(crate) fn bring_in(
        &mut self,
        at: &DaxSpan,
        order: Order,
        is_shared: bool,
    ) -> Result<(), FaultError> {
        assert!(at.pages() >= order.pages(), "I-62: a folio lies inside its span");
        check_good(at, order.pages())?;
        let locked = self.block.order;
        if let Some(page) = self.expel_failed() {
            return Err(RequestError::Poisoned(page).into());
        }
        if self.block.order < order.min(locked) {
            // Memory of the block failed just now, and it was divided.
            return Err(RequestError::Poisoned(at.at()).into());
        }
        assert!(order <= self.block.order, "I-22: a folio is not larger than its locked block");
        let target = self.index.align_down(order);
        if let Some(place) = self.block.place() {
            let within = target.since(self.block.head);
            let is_there = place.first + within == at.at() && place.pgmap == *at.pgmap().pgmap();
            // Of a frozen file, which others began to share.
            let is_divided = is_shared && self.block.order > Order::Base;
            if is_there && !is_divided {
                return self.acquire_again(at, is_shared);
            }
            let may_move = place.is_shared || is_there;
            assert!(may_move, "I-20: only what is shared moves, and only for a store");
        }
        let folio = acquire(at, at.at(), order)?;
        self.make_room(order);
        let pgmap = at.pgmap().pgmap().clone();
        let place = Place { pgmap, first: at.at(), is_dirty: false, is_shared };
        self.block = self.index().insert(self.block.head, &place);
        self.folio = Some(folio);
        Ok(())
    }

    /// Shows the folio in a user mapping, as much of it as lies in the block and the mapping, and
    /// returns how many pages from the index on that are.
    ///
    /// A shared mapping for writing shows it writable whatever the fault was, because no second
    /// fault tells of the first store; the entry is dirty from then on (I-34). A file whose owner
    /// does not [permit stores](crate::IomapOps::permits_stores) is shown for reading only.
    ///
    /// # Errors
    ///
    /// [`FaultError::Closed`] and [`FaultError::Removed`] as [`EntryGuard::iomap`] returns them;
    /// [`FaultError::Io`] if the host refuses to map it.
    ///
    /// # Panics
    ///
    /// Panics if nothing was faulted in, or if `user` does not show the index.
    pub fn map(&mut self, user: &UserMapping) -> Result<Pages, FaultError> {
        let user = user.user();
        let (start, pages, shown) = self.take_shown(user)?;
        let (at, wanted) = (user.at(start), user.at(self.index));
        let end = user.table().map_folios(at.span(pages), wanted, shown, Prefault::No)?;
        Ok(end.since(wanted))
    }

    /// Takes the folio to show it in `user`: from which index on, how many pages, and how. The
    /// entry is dirty from here on if that can be stored to.
    pub(crate) fn take_shown(
        &mut self,
        user: &User,
    ) -> Result<(FileIndex, Pages, Shown), FaultError> {
        let place = self.block.place().expect("a fault inserts the entry");
        let (block, mapped) = (self.block.range(), user.range());
        let start = block.start.max(mapped.start);
        let pages = block.end.min(mapped.end).since(start);
        let first = place.first + start.since(block.start);
        let access = self.access_of(user, place.is_shared)?;
        if access == Access::Write && user.sharing() == Sharing::Shared {
            self.mark_dirty();
        }
        let folios = self.folio.take().expect("I-13: only a folio that is counted is mapped");
        Ok((start, pages, Shown { folios, first, access, sharing: user.sharing() }))
    }

    /// Takes the folio to pin it. If a device will write the entry is dirty from here on, and stays
    /// so: nobody tells when it stores. Writeback has to find the pin listed before.
    pub(crate) fn take_pinned(&mut self, access: Access) -> FolioSpan {
        if access == Access::Write {
            self.mark_dirty();
        }
        self.folio.take().expect("I-13: only a folio that is counted is pinned")
    }

    /// What `user` may do with the folio.
    fn access_of(&self, user: &User, is_shared: bool) -> Result<Access, FaultError> {
        let can_store = match user.sharing() {
            Sharing::Shared => !is_shared && self.faults.owner()?.permits_stores(),
            Sharing::Private => true,
        };
        Ok(if can_store { user.access() } else { Access::Read })
    }

    /// Takes the pages that failed out of the block, which nothing shows any more.
    pub(crate) fn divide(&mut self, failed: &[FileIndex]) {
        self.block = self.index().divide(self.block.head, self.index, failed);
    }

    /// Notes that the block shows a hole.
    pub(crate) fn insert_zero(&mut self) {
        self.block = self.index().insert_zero(self.block.head);
    }

    /// Exchanges a block without a folio for the smaller one of `order` around the index. Nothing
    /// of it is shown any more.
    pub(crate) fn shrink(&mut self, order: Order) {
        if order < self.block.order {
            self.make_room(order);
        }
    }

    /// Takes back what the entry shows, which is not so any more, and leaves a block of `order`.
    fn make_room(&mut self, order: Order) {
        match &self.block.entry {
            None => (),
            Some(Entry::Zero) => self.faults.outdate_absent(&self.block.range()),
            Some(Entry::Real(_)) => self.faults.outdate(&self.block.range()),
        }
        if order < self.block.order {
            self.block = self.index().shrink(self.block.head, self.index, order);
        }
    }

    /// Counts the folio of the entry, which is where `at` says.
    fn acquire_again(&mut self, at: &DaxSpan, is_shared: bool) -> Result<(), FaultError> {
        let place = self.block.place().expect("the entry has a folio").clone();
        self.folio = Some(acquire(at, place.first, self.block.order)?);
        if place.is_shared != is_shared {
            // Copies that are shown of it would hide the stores that nobody faults for.
            self.faults.outdate_absent(&self.block.range());
            let place = Place { is_shared, ..place };
            self.block = self.index().insert(self.block.head, &place);
        }
        Ok(())
    }

    /// The block and its entry.
    pub(crate) fn block(&self) -> &Block {
        &self.block
    }

    /// The index that was asked for.
    pub(crate) fn asked(&self) -> FileIndex {
        self.index
    }

    pub(crate) fn faults(&self) -> &'g FaultGuard<'m> {
        self.faults
    }

    /// Where the page of the index lies.
    pub(crate) fn page(&self) -> Option<PgmapOff> {
        let place = self.block.place()?;
        Some(place.first + self.index.since(self.block.head))
    }

    /// Takes the DIRTY mark off: every store was flushed, and none can come without a fault.
    pub(crate) fn mark_clean(&self) {
        self.index().set_dirty(self.block.head, false);
    }

    /// Takes the TOWRITE tag off.
    pub(crate) fn untag(&self) {
        self.index().untag(self.block.head);
    }

    fn mark_dirty(&self) {
        self.index().set_dirty(self.block.head, true);
    }

    fn index(&self) -> &'m Index {
        self.faults.mapping().index()
    }
}

impl Drop for EntryGuard<'_, '_> {
    fn drop(&mut self) {
        // A reference that nobody took is put under the entry lock (I-13).
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

/// A reference of the folio of `order` at `first`, on the page map of `span`; or of a larger one
/// that covers it, if that is what somebody counts: it is as good.
fn acquire(span: &DaxSpan, first: PgmapOff, order: Order) -> Result<FolioSpan, FaultError> {
    let pgmap = span.pgmap();
    loop {
        let busy = match pgmap.acquire_folios(first, order, 1) {
            Err((_, RequestError::Busy(page))) => RequestError::Busy(page),
            other => return other.map_err(|(_, error)| error.into()),
        };
        // Counted for as long as it is looked at, so that its order stays.
        let Some(larger) = pgmap.get_folio(first).filter(|folio| folio.order() > order) else {
            return Err(busy.into());
        };
        if let Ok(folio) = pgmap.acquire_folios(larger.head(), larger.order(), 1) {
            return Ok(folio);
        }
    }
}
