//! User mappings: a range of a file at real addresses of this process.
//!
//! Owns the life of one mapping from `map` to drop, and the way from a touched address to the
//! fault engine. What the addresses show is in [`Table`](crate::table::Table).

use crate::events;
use crate::fault::FaultError;
use crate::mapping::Mapping;
use crate::run::Bounds;
use crate::stats::{Event, Fallback};
use crate::stream::Stream;
use crate::table::{Absent, Sharing, Spare, Table};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use udax_mm::sync::{Arc, Mutex, RwLock, Weak};
use udax_mm::units::PAGE_BYTES;
use udax_mm::{Access, FaultSink, FileIndex, Order, Pages, RequestError, Vma, VmaOff};

/// How a user mapping is filled.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Populate {
    /// Each page at its first touch. Where userfaultfd is not permitted the mapping is eager, and
    /// [`UserMapping::populate`] says so.
    #[default]
    Lazy,
    /// Every page at once. Holes of a shared, writable mapping are allocated; any other shows them
    /// as zeros.
    Eager,
}

/// How a file is mapped: `mmap`'s protection and flags.
///
/// ```
/// use udax_mapping::{MapMode, Sharing};
/// use udax_mm::{Access, Order};
///
/// let private = MapMode { access: Access::Write, sharing: Sharing::Private, ..MapMode::default() };
/// assert_eq!(private.floor, Order::Base);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MapMode {
    /// What the program may do.
    pub access: Access,
    /// When pages are mapped.
    pub populate: Populate,
    /// What a store changes.
    pub sharing: Sharing,
    /// The smallest folio that may be mapped: an order above 0 is a promise, and what cannot keep
    /// it fails with the reason instead of falling back.
    pub floor: Order,
}

impl Default for MapMode {
    /// Shared, for reading, filled at the first touch, in any order.
    fn default() -> MapMode {
        let (populate, sharing) = (Populate::Lazy, Sharing::Shared);
        MapMode { access: Access::Read, populate, sharing, floor: Order::Base }
    }
}

/// A range of a file, mapped at real addresses. Dropping it unmaps them.
///
/// A touch past the end of the file, or of a page that cannot be had, is SIGBUS, as with any file;
/// [`last_fault_error`](UserMapping::last_fault_error) tells why the latter could not, and
/// [`retry`](UserMapping::retry) lets it be asked for again. Copies through
/// [`vma`](UserMapping::vma) return an error instead.
///
/// An eager mapping cannot wait for a fault. Where a layout change takes pages back from it, and
/// in the block around that is one folio, a touch may be SIGBUS until the change is done.
///
/// Dropping it waits for faults that are being served, so a thread does not drop it while it has
/// the layout lock of the file.
///
/// # Examples
///
/// ```
/// # mod owner { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/owner.inc")); }
/// # use owner::WholeDevice;
/// # use udax_mapping::MapMode;
/// # use udax_mm::{Access, FileIndex, Pages};
/// let file = WholeDevice::new(Pages(4))?;
/// let for_stores = MapMode { access: Access::Write, ..MapMode::default() };
/// let stores = file.mapping.map(FileIndex(0), Pages(4), for_stores)?;
/// let loads = file.mapping.map(FileIndex(1), Pages(2), MapMode::default())?;
///
/// stores.vma().store_u64(0x1000, 42)?;
/// assert_eq!(loads.vma().load_u64(0)?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct UserMapping {
    mapping: Arc<Mapping>,
    user: Arc<User>,
    sink: Arc<Sink>,
}

/// A user mapping by which stores reach the file, as it is named to whoever is in its way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WritableMapping {
    /// The first address.
    pub addr: usize,
    /// The pages of the file.
    pub pages: Range<FileIndex>,
}

/// What a mapping knows of one of its user mappings.
#[derive(Debug)]
pub(crate) struct User {
    range: Range<FileIndex>,
    mode: MapMode,
    table: Table,
    stream: Stream,
    last_error: Mutex<Option<Arc<FaultError>>>,
}

/// Where faults of a lazy mapping arrive. Empty before the mapping is made and when it is dropped.
///
/// Faults hold its lock shared, so that dropping the mapping waits for them to end.
#[derive(Debug, Default)]
struct Sink {
    target: RwLock<Option<(Weak<Mapping>, Weak<User>)>>,
}

impl UserMapping {
    /// Reserves addresses for `range` and makes `mapping` know them. Nothing is populated.
    pub(crate) fn new(
        mapping: &Arc<Mapping>,
        range: Range<FileIndex>,
        mode: MapMode,
    ) -> Result<UserMapping, FaultError> {
        let pages = range.end.since(range.start);
        if mode.sharing == Sharing::Private {
            // A punch has to tell what was stored, whatever has become of `/proc` by then.
            Vma::open_copied_pages()?;
        }
        let sink = Arc::new(Sink::default());
        // Somebody may touch every address that there is (`mlockall`): such a fault waits until it is
        // known what is mapped, and layout changes know of it.
        let mut target = sink.target.write();
        let vma = match (mode.populate, mapping.service()) {
            (Populate::Lazy, Some(service)) => {
                let sink: Arc<dyn FaultSink> = sink.clone();
                Vma::reserve_lazy(pages, service, sink)?
            }
            _ => Vma::reserve(pages)?,
        };
        let (table, stream, last_error) = (Table::new(vma), Stream::default(), Mutex::new(None));
        let user = Arc::new(User { range, mode, table, stream, last_error });
        mapping.add_user(&user);
        *target = Some((Arc::downgrade(mapping), Arc::downgrade(&user)));
        drop(target);
        Ok(UserMapping { mapping: Arc::clone(mapping), user, sink })
    }

    pub(crate) fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// The addresses.
    pub fn vma(&self) -> &Vma {
        self.user.table.vma()
    }

    /// The pages of the file that are mapped.
    pub fn range(&self) -> Range<FileIndex> {
        self.user.range.clone()
    }

    /// How it was asked to be mapped.
    pub fn mode(&self) -> MapMode {
        self.user.mode
    }

    /// Whether the program may store through it.
    pub fn access(&self) -> Access {
        self.user.mode.access
    }

    /// How it is filled, which may differ from what was asked for.
    pub fn populate(&self) -> Populate {
        if self.vma().is_lazy() { Populate::Lazy } else { Populate::Eager }
    }

    /// Lets the next touch of `pages` ask again, where one could not be served: what stood in the way
    /// may be gone, such as a full pool. An eager mapping is filled at once. Returns whether there
    /// was such a page.
    ///
    /// A lazy mapping does the same by itself, 10 ms after each such touch; but not where all of it is
    /// void, because the host had no addresses or memory left when pages were taken back.
    pub fn retry(&self, pages: Range<VmaOff>) -> bool {
        let was_refused = self.user.table.zap_refused(&pages);
        if was_refused && !self.user.is_lazy() {
            let range = self.user.index(pages.start)..self.user.index(pages.end);
            self.mapping.faults().refill(&range);
        }
        was_refused
    }

    /// Why the last touch that became SIGBUS could not be served.
    pub fn last_fault_error(&self) -> Option<Arc<FaultError>> {
        self.user.last_error.lock().clone()
    }
}

impl Drop for UserMapping {
    fn drop(&mut self) {
        // Waits for faults that are being served, so that the last reference is never dropped by
        // a thread that serves faults.
        *self.sink.target.write() = None;
        self.mapping.remove_user(&self.user);
    }
}

impl User {
    pub(crate) fn access(&self) -> Access {
        self.mode.access
    }

    pub(crate) fn sharing(&self) -> Sharing {
        self.mode.sharing
    }

    pub(crate) fn floor(&self) -> Order {
        self.mode.floor
    }

    /// Whether the program may change the file through it.
    pub(crate) fn stores_to_file(&self) -> bool {
        (self.access(), self.sharing()) == (Access::Write, Sharing::Shared)
    }

    /// What an eager mapping asks for when it is filled.
    pub(crate) fn populating(&self) -> Access {
        if self.stores_to_file() { Access::Write } else { Access::Read }
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn is_lazy(&self) -> bool {
        self.table.vma().is_lazy()
    }

    /// The pages of the file it shows.
    pub(crate) fn range(&self) -> &Range<FileIndex> {
        &self.range
    }

    pub(crate) fn index(&self, at: VmaOff) -> FileIndex {
        self.range.start + at.since(VmaOff(0))
    }

    /// Where it shows page `index`, which it does.
    pub(crate) fn at(&self, index: FileIndex) -> VmaOff {
        VmaOff(index.since(self.range.start).0)
    }

    /// Where it shows the pages of `range`; empty if it does not.
    pub(crate) fn part(&self, range: &Range<FileIndex>) -> Range<VmaOff> {
        let start = range.start.max(self.range.start);
        let end = range.end.min(self.range.end);
        if start < end { self.at(start)..self.at(end) } else { VmaOff(0)..VmaOff(0) }
    }

    /// Takes back every translation of pages in `range`, and of a larger folio that covers any of
    /// them all of it: it is counted as a whole. Returns from where to where something went.
    pub(crate) fn zap(&self, range: &Range<FileIndex>, spare: Spare) -> Option<Range<FileIndex>> {
        let taken = self.table.zap(range, |at| self.index(at), spare)?;
        Some(self.index(taken.start)..self.index(taken.end))
    }

    /// The pages from `at` to the end of the mapping.
    pub(crate) fn pages_from(&self, at: VmaOff) -> Pages {
        self.table.vma().pages() - at.since(VmaOff(0))
    }

    /// Whether any page of `range` shows a folio, or what stands for one.
    pub(crate) fn shows(&self, range: &Range<FileIndex>) -> bool {
        self.table.next_shown(&self.part(range)).is_some()
    }

    /// Up to where one fault at `index`, served by a folio of `order`, maps data: never into the
    /// next block that could be a larger folio.
    pub(crate) fn fault_around(&self, index: FileIndex, order: Order) -> FileIndex {
        let end = if self.is_lazy() {
            self.stream.fault_around(index, order, self.stores_to_file())
        } else {
            let larger = order.larger().unwrap_or(order);
            index.align_down(larger) + larger.pages()
        };
        end.min(self.range.end)
    }

    /// Makes a touch of these pages SIGBUS, and remembers why. A page that shows a folio keeps it: the
    /// fault came late, and the thread looks again.
    pub(crate) fn fail(&self, at: VmaOff, pages: Pages, why: FaultError) {
        let absent = match &why {
            FaultError::Request(RequestError::Poisoned(_)) => {
                events::poison(self.index(at));
                Absent::Poisoned
            }
            _ => Absent::Failed,
        };
        *self.last_error.lock() = Some(Arc::new(why));
        self.show_failure(at, pages, absent);
    }

    /// Makes a touch of this page SIGBUS, for the reason that is remembered.
    pub(crate) fn fail_again(&self, at: VmaOff) {
        self.show_failure(at, Pages(1), Absent::Failed);
    }

    fn show_failure(&self, at: VmaOff, pages: Pages, absent: Absent<'_>) {
        // If the host has no area left for that either (`vm.max_map_count`), nothing is shown: SIGBUS in
        // an eager mapping, and in a lazy one the thread asks again.
        let _ = self.table.map_absent(at.span(pages), at, absent);
    }
}

impl Bounds for User {
    fn block_around(&self, index: FileIndex, order: Order) -> Result<FileIndex, Fallback> {
        let head = index.align_down(order);
        if head < self.range.start || head + order.pages() > self.range.end {
            return Err(Fallback::Bounds);
        }
        let addr = u64::try_from(self.table.vma().addr()).expect("an address has at most 64 bits");
        let head_addr = addr + self.at(head).byte();
        if !(head_addr / PAGE_BYTES).is_multiple_of(order.pages().0) {
            return Err(Fallback::Colour);
        }
        Ok(head)
    }
}

impl FaultSink for Sink {
    fn fault(&self, at: VmaOff, access: Access) {
        let target = self.target.read();
        let Some((mapping, user)) = target.as_ref() else { return };
        if let (Some(mapping), Some(user)) = (mapping.upgrade(), user.upgrade()) {
            let serve = || mapping.fault_user(&user, at, access);
            if catch_unwind(AssertUnwindSafe(serve)).is_err() {
                // It has said so. The table has to know that the touch fails.
                let _ = user.table.map_absent(at.span(Pages(1)), at, Absent::Failed);
            }
        }
    }

    fn retry(&self, at: VmaOff) {
        let target = self.target.read();
        if let Some(user) = target.as_ref().and_then(|(_, user)| user.upgrade()) {
            user.table.zap_refused(&at.span(Pages(1)));
        }
    }
}

impl Mapping {
    /// Serves a touch of a lazy mapping. What fails is SIGBUS, and remembered there.
    fn fault_user(&self, user: &Arc<User>, at: VmaOff, access: Access) {
        let faults = self.faults();
        if let Err(why) = faults.fault_in(user, at, access) {
            self.counters().event(Event::Failure);
            self.counters().lost(&why);
            user.fail(at, Pages(1), why);
        }
    }
}
