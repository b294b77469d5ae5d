//! The address space of one file: the locks, lists and counters that its parts share.
//!
//! Owns who is mapped and the layout lock. Faults, breaks, pins and writeback are in the files of
//! those names.

use crate::fault::{FaultError, FaultGuard};
use crate::holders::WantedRanges;
use crate::index::{Block, Index};
use crate::iomap::IomapOps;
use crate::pins::{FilePin, Pins};
use crate::stats::{Counters, Stats};
use crate::table::Spare;
use crate::user::{MapMode, Populate, User, UserMapping, WritableMapping};
use std::ops::Range;
use std::panic::Location;
use udax_dev::IoError;
use udax_mm::sync::atomic::{AtomicUsize, Ordering};
use udax_mm::sync::{Arc, Mutex, RwLock, Weak};
use udax_mm::{FaultService, FileIndex, Pages, VmaOff};

/// Pages that one round of populating holds the layout lock for.
const ROUND: Pages = Pages(1 << 18);

/// The address space of one file (`struct address_space`).
///
/// Faults and pins take its layout lock shared, [`break_layout`](Mapping::break_layout) takes it
/// exclusively. The order of its locks is in `docs/protocol.md`.
///
/// # Examples
///
/// ```
/// # mod owner { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/owner.inc")); }
/// # use owner::WholeDevice;
/// # use udax_mapping::MapMode;
/// # use udax_mm::{Access, FileIndex, Pages, Wait};
/// // The owner of this file is the one in the example of `IomapOps`.
/// let file = WholeDevice::new(Pages(4))?;
/// let mode = MapMode { access: Access::Write, ..MapMode::default() };
/// let mapped = file.mapping.map(FileIndex(0), Pages(4), mode)?;
/// mapped.vma().write(0x2000, b"stored")?;
///
/// // Nobody pins the pages, so they can be taken back, mapped or not.
/// let mut broken = file.mapping.break_layout(FileIndex(2)..FileIndex(4), Wait::Never)?;
/// assert_eq!(broken.take_idle().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Mapping {
    owner: Weak<dyn IomapOps>,
    service: Option<Arc<FaultService>>,
    layout: RwLock<Layout>,
    index: Index,
    users: Mutex<Vec<Arc<User>>>,
    pins: Arc<Pins>,
    wanted: WantedRanges,
    counters: Counters,
    writeback: Mutex<Writeback>,
    /// Faults that may have made data of holes, and have not yet taken back the zeros shown there.
    filling: AtomicUsize,
}

/// What the layout lock protects beyond the places of data.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// The device was taken away: nothing is mapped or pinned again.
    pub(crate) is_removed: bool,
}

/// What the writeback lock is around: the turn of one writeback.
#[derive(Debug, Default)]
pub(crate) struct Writeback;

impl Mapping {
    /// Makes the address space of the file that `owner` answers for.
    ///
    /// `service` answers faults of lazy mappings; without one every mapping is eager.
    #[must_use]
    pub fn new(owner: Weak<dyn IomapOps>, service: Option<Arc<FaultService>>) -> Arc<Mapping> {
        Arc::new(Mapping {
            owner,
            service,
            layout: RwLock::default(),
            index: Index::default(),
            users: Mutex::default(),
            pins: Arc::default(),
            wanted: WantedRanges::default(),
            counters: Counters::default(),
            writeback: Mutex::default(),
            filling: AtomicUsize::new(0),
        })
    }

    /// Takes the shared side of the layout lock.
    ///
    /// # Blocking
    ///
    /// Waits for a layout change that is going on, never for a pin (rule 7).
    pub fn faults(&self) -> FaultGuard<'_> {
        FaultGuard::new(self)
    }

    /// Maps `pages` pages of the file, from `start` on, at addresses of its own.
    ///
    /// The range may reach past the end of the file: a touch there is SIGBUS until the file grows.
    /// The mapping ends with the returned value, which must go before the owner of the file.
    ///
    /// # Blocking
    ///
    /// An eager mapping brings in every page before this returns.
    ///
    /// # Errors
    ///
    /// [`FaultError`]; for an eager mapping also that of any page, and nothing stays mapped. A lazy
    /// one with a floor fails with [`FaultError::BelowFloor`] if data that the file has cannot be
    /// mapped so.
    pub fn map(
        self: &Arc<Self>,
        start: FileIndex,
        pages: Pages,
        mode: MapMode,
    ) -> Result<UserMapping, FaultError> {
        if pages.is_empty() {
            return Err(FaultError::Empty);
        }
        self.faults().owner()?;
        let mapped = UserMapping::new(self, start.span(pages), mode)?;
        self.faults().check_floor(mapped.user())?;
        if mapped.populate() == Populate::Eager {
            self.populate(mapped.user())?;
        }
        Ok(mapped)
    }

    /// Lists the pins that were taken through this mapping, oldest first.
    ///
    /// A pin on pages that the file has given up is not listed: they are in limbo, and the page map
    /// lists it. One on shared pages stays listed when a store moves the file to a copy: of a file
    /// that shares, only the page maps know who pins the pages that it has.
    pub fn pins(&self) -> Vec<FilePin> {
        self.pins.list()
    }

    /// The user mappings by which stores reach the file, oldest first.
    pub fn writable_mappings(&self) -> Vec<WritableMapping> {
        let users = self.users.lock();
        let writers = users.iter().filter(|user| user.stores_to_file());
        let place = |user: &Arc<User>| WritableMapping {
            addr: user.table().vma().addr(),
            pages: user.range().clone(),
        };
        writers.map(place).collect()
    }

    /// What happened in the file so far: faults by size, fallbacks by reason, waits, pins, failed memory.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// Whether there may have been stores that the owner was not told of
    /// ([`IomapOps::note_stores`]). It knows from here on: for who sets the time of the last change, or
    /// takes away the pages without a writeback.
    pub fn take_stores(&self) -> bool {
        self.index.take_stores(&(FileIndex(0)..FileIndex(u64::MAX)))
    }

    /// The pages that entries cover (`nrpages`).
    pub fn entry_pages(&self) -> Pages {
        self.index.pages()
    }

    /// The bytes of memory that its entries take. They go with what was touched, not with the size of
    /// the file, and are given back with the entries.
    pub fn entry_bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Makes what became data in `range`, all of it, visible in every user mapping: translations
    /// that show zeros or SIGBUS there are taken back or replaced.
    ///
    /// To be called after an allocation outside of [`IomapOps::iomap`] is published, and before it
    /// is reported done. Not needed where a [`LayoutBroken`](crate::LayoutBroken) covers the range,
    /// because a break takes all translations back.
    ///
    /// # Blocking
    ///
    /// Takes the layout lock shared: not to be called with a [`LayoutBroken`](crate::LayoutBroken)
    /// of this file, nor with a [`FaultGuard`], which has a method of the same name.
    pub fn invalidate_holes(&self, range: Range<FileIndex>) {
        self.faults().invalidate_holes(range);
    }

    /// Makes what came into the file because it grew visible in every user mapping: translations
    /// that show SIGBUS in `range` are taken back or replaced. What holes it has stay known as such.
    ///
    /// To be called after a growth is published, and before it is reported done. What of it is data
    /// is for [`Mapping::invalidate_holes`].
    ///
    /// # Blocking
    ///
    /// As [`Mapping::invalidate_holes`].
    pub fn invalidate_end(&self, range: Range<FileIndex>) {
        self.faults().invalidate_end(range);
    }

    /// Whether user mappings may show zeros where the owner has data, because a fault that filled a
    /// hole is not through. Whoever stores to data by another way, and is about to say so, asks this
    /// after the lock under which the data was found, and takes the zeros back first
    /// ([`Mapping::invalidate_holes`]).
    pub fn may_show_zeros(&self) -> bool {
        self.filling.load(Ordering::Acquire) > 0
    }

    pub(crate) fn filling(&self) -> &AtomicUsize {
        &self.filling
    }

    /// Takes every translation back and lets none come again, because the device goes away. A
    /// touch is SIGBUS from then on. Pins stay: the device waits for them.
    ///
    /// # Blocking
    ///
    /// Waits for faults and layout changes that are going on.
    pub fn zap_all(&self) {
        let mut layout = self.layout.write();
        layout.is_removed = true;
        let all = FileIndex(0)..FileIndex(u64::MAX);
        self.zap_sparing(&all, Spare::Own);
        self.index.forget_all();
    }

    /// Takes every translation back, and runs `change` while none can come back: pages may lie
    /// elsewhere from then on. What was stored is flushed where it was stored; what is touched next is
    /// found anew, and pins stay where they are. Pages that a pin may store to stay dirty if they are
    /// still there; of others the file knows nothing any more, and who pins them flushes them.
    ///
    /// # Blocking
    ///
    /// Waits for faults and layout changes that are going on, and for the media.
    ///
    /// # Errors
    ///
    /// [`IoError`] if what was stored could not be flushed. The change is made all the same.
    #[track_caller]
    pub fn suspended(&self, change: impl FnOnce()) -> Result<(), IoError> {
        let site = Location::caller();
        let layout = self.layout.write();
        let all = FileIndex(0)..FileIndex(u64::MAX);
        self.zap_sparing(&all, Spare::Own);
        let flushed = self.flush_before_forgetting(site);
        change();
        for block in self.index.blocks() {
            if !self.is_stored_to_in_place(&block) {
                self.index.remove(&block.range());
            }
        }
        drop(layout);
        if !self.eager_users(&all).is_empty() {
            self.faults().refill(&all);
        }
        flushed
    }

    /// Whether a pin may store to a dirty block, which lies where it did. The caller holds the layout
    /// lock exclusively.
    fn is_stored_to_in_place(&self, block: &Block) -> bool {
        let Some(place) = block.place().filter(|place| place.is_dirty) else { return false };
        let range = block.range();
        if !self.pins.has_writer(&range) {
            return false;
        }
        let spans = self.owner().and_then(|owner| owner.spans(range.clone()).ok());
        matches!(spans.as_deref(), Some([(start, span)]) if *start == range.start
            && *span.pgmap().pgmap() == place.pgmap
            && span.at() == place.first
            && span.pages() == range.end.since(range.start))
    }

    /// Brings in every page of an eager mapping. Stops at the first that fails.
    fn populate(&self, user: &Arc<User>) -> Result<(), FaultError> {
        let end = VmaOff(user.table().vma().pages().0);
        let mut at = VmaOff(0);
        while at < end {
            let faults = self.faults();
            let round_end = end.min(at + ROUND);
            while let Some(next) = user.table().next_absent(&(at..round_end)) {
                at = next + faults.fault_in(user, next, user.populating())?;
                if at >= round_end {
                    break;
                }
            }
            at = at.max(round_end);
        }
        Ok(())
    }

    /// Takes back every translation of pages in `range`, but not what private mappings have stored.
    /// Returns from where to where something went that eager mappings have to show again: also outside
    /// of the range, because it was of the same folio.
    pub(crate) fn zap(&self, range: &Range<FileIndex>) -> Option<Range<FileIndex>> {
        self.zap_sparing(range, Spare::Own)
    }

    /// The same, and what private mappings have stored if nothing is spared.
    pub(crate) fn zap_sparing(
        &self,
        range: &Range<FileIndex>,
        spare: Spare,
    ) -> Option<Range<FileIndex>> {
        let users = self.users.lock();
        let taken = users.iter().filter_map(|user| user.zap(range, spare));
        taken.reduce(|one, other| one.start.min(other.start)..one.end.max(other.end))
    }

    /// Takes back what lazy mappings show of nothing in `range`. Returns whether an eager mapping
    /// shows it too, which has to be filled.
    pub(crate) fn zap_absent(&self, range: &Range<FileIndex>) -> bool {
        let mut is_outdated = false;
        for user in self.users.lock().iter() {
            let part = user.part(range);
            if user.is_lazy() {
                user.table().zap_absent(&part);
            } else {
                // It cannot wait for a fault, so what it shows stays until something is in its place.
                is_outdated |= user.table().has_absent(&part);
            }
        }
        is_outdated
    }

    pub(crate) fn add_user(&self, user: &Arc<User>) {
        self.users.lock().push(Arc::clone(user));
    }

    /// Takes everything back from a mapping that is being dropped, and forgets it.
    pub(crate) fn remove_user(&self, user: &Arc<User>) {
        let mut users = self.users.lock();
        // Under the lock of the list: a break that no longer finds it there finds its pages idle.
        user.table().close();
        users.retain(|other| !Arc::ptr_eq(other, user));
    }

    /// The mappings that show any of `range` and cannot fault for themselves.
    pub(crate) fn eager_users(&self, range: &Range<FileIndex>) -> Vec<Arc<User>> {
        let users = self.users.lock();
        let is_concerned = |user: &&Arc<User>| !user.is_lazy() && !user.part(range).is_empty();
        users.iter().filter(is_concerned).cloned().collect()
    }

    /// Every mapping.
    pub(crate) fn users(&self) -> Vec<Arc<User>> {
        self.users.lock().clone()
    }

    /// Whether a user mapping may store to any of `range`.
    pub(crate) fn is_mapped_writable(&self, range: &Range<FileIndex>) -> bool {
        let users = self.users.lock();
        users.iter().any(|user| user.table().has_writable(&user.part(range)))
    }

    pub(crate) fn owner(&self) -> Option<Arc<dyn IomapOps>> {
        self.owner.upgrade()
    }

    pub(crate) fn service(&self) -> Option<&FaultService> {
        self.service.as_deref()
    }

    pub(crate) fn layout(&self) -> &RwLock<Layout> {
        &self.layout
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn pin_list(&self) -> &Arc<Pins> {
        &self.pins
    }

    pub(crate) fn wanted(&self) -> &WantedRanges {
        &self.wanted
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Held by the one writeback that runs.
    pub(crate) fn writeback_lock(&self) -> &Mutex<Writeback> {
        &self.writeback
    }
}
