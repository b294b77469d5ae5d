//! Faults: from an index of the file to a translation, in the largest order that fits.
//!
//! Owns the shared side of the layout lock and the way of a fault: lock the entry, ask the owner,
//! bring in the folio, show it. Each step is a method of [`EntryGuard`](crate::EntryGuard); which
//! order a block can have is in [`crate::run`].

use crate::entry::EntryGuard;
use crate::events;
use crate::iomap::{Iomap, IomapError, IomapOps, New};
use crate::mapping::{Layout, Mapping};
use crate::poison::check_good;
use crate::run::{Bounds, Run};
use crate::stats::{Event, Fallback};
use crate::table::{Absent, Sharing, Shown};
use crate::user::User;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use udax_mm::sync::atomic::Ordering;
use udax_mm::sync::{Arc, RwLockReadGuard};
use udax_mm::vma::Prefault;
use udax_mm::{Access, FileIndex, Order, PAGE_SIZE, Pages, RequestError, VmaOff};

/// Why a page could not be faulted in, mapped or pinned.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// The file has no such page.
    #[error("page {0} lies past the end of the file")]
    PastEnd(FileIndex),

    /// A pin for stores, of a file whose owner permits none.
    #[error("page {0} belongs to a file that permits no stores")]
    Forbidden(FileIndex),

    /// A range of no pages.
    #[error("the range has no pages; give it at least one")]
    Empty,

    /// The device was taken away.
    #[error("the device of the file was removed")]
    Removed,

    /// The owner of the file is gone.
    #[error("the file was closed")]
    Closed,

    /// The owner answered a fault for writing with a hole, or with shared data.
    #[error("page {0} was not made the file's own for a store")]
    NotAllocated(FileIndex),

    /// The mapping was made with a floor, and this block cannot be had in that order.
    #[error("page {index} cannot be mapped in order {floor}: {reason}")]
    BelowFloor {
        /// The page that was touched.
        index: FileIndex,
        /// What the mapping promises.
        floor: Order,
        /// Why it is not so here.
        reason: Fallback,
    },

    /// The owner could not say where the page lies.
    #[error(transparent)]
    Iomap(#[from] IomapError),

    /// The page could not be had.
    #[error("the folio cannot be used")]
    Request(#[from] RequestError),

    /// The host refused to map it.
    #[error("the host refused the mapping")]
    Io(#[from] std::io::Error),
}

/// The shared side of the layout lock: while it exists, data of the file stays where it is.
///
/// Not to be taken twice by one thread: a truncate that waits in between would block both.
///
/// Dropping it fills eager mappings with what faults under it have made outdated there.
pub struct FaultGuard<'m> {
    layout: RwLockReadGuard<'m, Layout>,
    mapping: &'m Mapping,
    /// Where eager mappings show what is not so any more.
    outdated: RefCell<Vec<Range<FileIndex>>>,
    /// What faults under this guard have allocated.
    allocated: RefCell<Vec<Range<FileIndex>>>,
    /// Whether this guard counts among those that may be filling holes.
    is_filling: Cell<bool>,
    /// Whether what is left to show is what eager mappings have made outdated for one another while
    /// they were filled. No page is copied for that: what a refused copy takes back, and its retry,
    /// would go on for ever.
    is_settling: Cell<bool>,
    // Put after the lock is released: the last reference of an owner may break its layout.
    owner: Option<Arc<dyn IomapOps>>,
}

/// A locked entry, with what the owner says lies there.
pub(crate) struct Entered<'g, 'm> {
    pub(crate) entry: EntryGuard<'g, 'm>,
    pub(crate) found: Iomap,
    /// Why the entry is not of the next larger order, if the user could have that.
    pub(crate) reason: Option<Fallback>,
}

impl<'m> FaultGuard<'m> {
    pub(crate) fn new(mapping: &'m Mapping) -> FaultGuard<'m> {
        // Before the lock, for the same reason that it is dropped after.
        let owner = mapping.owner();
        let (outdated, allocated) = (RefCell::default(), RefCell::default());
        let (layout, is_filling) = (mapping.layout().read(), Cell::new(false));
        let is_settling = Cell::new(false);
        FaultGuard { layout, mapping, outdated, allocated, is_filling, is_settling, owner }
    }

    pub(crate) fn mapping(&self) -> &'m Mapping {
        self.mapping
    }

    /// The owner of the file, if it and the device are still there.
    pub(crate) fn owner(&self) -> Result<&dyn IomapOps, FaultError> {
        if self.layout.is_removed {
            return Err(FaultError::Removed);
        }
        self.owner.as_deref().ok_or(FaultError::Closed)
    }

    /// Locks the entry that covers `index`, or makes an empty one of order 0.
    ///
    /// # Blocking
    ///
    /// Waits for whoever has locked it: one fault, pin or writeback.
    pub fn lock_entry<'g>(&'g self, index: FileIndex) -> EntryGuard<'g, 'm> {
        EntryGuard::new(self, index, self.mapping.index().lock_page(index))
    }

    /// Locks the block of 2 MiB around `index` if `bounds` have it and no smaller entries exist; else
    /// the entry that covers `index`. Says why what was locked is not of the next larger order, if
    /// the user could have one; whether there is data for it is for [`EntryGuard::fault_run`] to say.
    pub(crate) fn lock_block<'g>(
        &'g self,
        index: FileIndex,
        bounds: &dyn Bounds,
    ) -> (EntryGuard<'g, 'm>, Option<Fallback>) {
        let refused = |order| bounds.block_around(index, order).err();
        let reason = match refused(Order::Pmd) {
            Some(reason) => reason,
            None => match self.mapping.index().lock(index, Order::Pmd) {
                Ok(block) => {
                    let reason = refused(Order::Pud).unwrap_or(Fallback::Conflict);
                    return (EntryGuard::new(self, index, block), Some(reason));
                }
                Err(_conflict) => Fallback::Conflict,
            },
        };
        let entry = self.lock_entry(index);
        // A larger entry serves more than the user could have.
        let reason = (entry.order() < Order::Pmd).then_some(reason);
        (entry, reason)
    }

    /// Locks the entry of `index` and asks the owner, in this order (rule 12). The block is of
    /// 1 GiB if there is one to be had, which only the answer tells.
    pub(crate) fn enter<'g>(
        &'g self,
        index: FileIndex,
        access: Access,
        bounds: &dyn Bounds,
    ) -> Result<Entered<'g, 'm>, FaultError> {
        let (entry, reason) = self.lock_block(index, bounds);
        let found = entry.iomap(access)?;
        let is_candidate = entry.block().entry.is_none()
            && found.may_fill(index, Order::Pud)
            && bounds.block_around(index, Order::Pud).is_ok();
        if !is_candidate {
            return Ok(Entered { entry, found, reason });
        }
        // The next answer finds it there and does not tell (B-12).
        self.note_new(found.into_new());
        drop(entry);
        let (entry, reason) = match self.mapping.index().lock(index, Order::Pud) {
            Ok(block) => (EntryGuard::new(self, index, block), None),
            Err(_conflict) => self.lock_block(index, bounds),
        };
        let found = entry.iomap(access)?;
        Ok(Entered { entry, found, reason })
    }

    /// Serves a touch of page `at` of a user mapping. Returns how many pages from there on show
    /// something.
    pub(crate) fn fault_in(
        &self,
        user: &Arc<User>,
        at: VmaOff,
        access: Access,
    ) -> Result<Pages, FaultError> {
        loop {
            match self.try_fault_in(user, at, access) {
                // Another page of the block failed after the block was looked at.
                Err(why) if self.is_good(user.index(at), &why) => (),
                served => return served,
            }
        }
    }

    fn try_fault_in(
        &self,
        user: &Arc<User>,
        at: VmaOff,
        access: Access,
    ) -> Result<Pages, FaultError> {
        let index = user.index(at);
        // Who locks pages in memory touches them as if to store. A real store finds the page that is
        // shown protected, as in any mapping for reading.
        let access = if user.access() == Access::Read { Access::Read } else { access };
        let of_file = access_of_file(user, access);
        let entered = self.enter(index, of_file, user.as_ref());
        let order = entered.as_ref().map_or(Order::Base, |entered| entered.entry.order());
        let span = events::fault(index, order, access);
        let served = span.run("mapped", || self.show(user, at, access, entered?))?;
        span.pages(served);
        Ok(served)
    }

    /// Shows what the owner says lies at the page. Returns how many pages from there on show
    /// something.
    fn show<'g>(
        &'g self,
        user: &User,
        at: VmaOff,
        access: Access,
        entered: Entered<'g, 'm>,
    ) -> Result<Pages, FaultError> {
        let Entered { mut entry, found, reason } = entered;
        let index = entry.asked();
        let of_file = access_of_file(user, access);
        match found {
            Iomap::Data { span, start, is_shared, new } => {
                let run = Run::new(span, start, is_shared);
                if is_shared && user.stores_to_file() {
                    return show_snapshot(entry, user, at, &run, of_file);
                }
                // First: what was allocated stays so whatever fails below (B-12).
                self.note_new(new);
                if access == Access::Write && entry.block().place().is_some() {
                    events::make_writable(index, entry.order());
                }
                entry.fault_run(&run, reason, user.floor())?;
                self.show_run(entry, user, &run)
            }
            Iomap::Hole { .. } if of_file == Access::Write => Err(FaultError::NotAllocated(index)),
            Iomap::Hole { pages } => self.show_hole(entry, user, at, pages, access),
            Iomap::PastEnd => {
                let pages = if user.is_lazy() { Pages(1) } else { user.pages_from(at) };
                let shown = user.table().map_absent(at.span(pages), at, Absent::PastEnd)?;
                Ok(shown.end.since(at))
            }
        }
    }

    /// Shows the folio of the entry, and what follows in the run for as far as one fault goes,
    /// without asking the owner again: data stays where it is while this guard exists. What is shared
    /// does so only while its entries are locked. Returns how many pages from the index on show
    /// something.
    ///
    /// What cannot be had at once ends it, and its own fault says why.
    fn show_run(
        &self,
        mut entry: EntryGuard<'_, '_>,
        user: &User,
        run: &Run,
    ) -> Result<Pages, FaultError> {
        let (index, order) = (entry.asked(), entry.order());
        let (start, mut pages, mut shown) = entry.take_shown(user)?;
        let limit = user.fault_around(index, order).min(run.range().end);
        let mut ahead = if run.is_shared() {
            self.lock_shared(&entry, limit, |at| user.shows(&at.span(Pages(1)))).into_iter()
        } else {
            Vec::new().into_iter()
        };
        // Locked until all is mapped.
        let mut locked = vec![entry];
        while start + pages < limit {
            let next = if run.is_shared() {
                ahead.next()
            } else {
                self.next_of_run(user, start + pages, order, run)
            };
            let Some(mut next) = next else { break };
            let (_, more, Shown { folios, access, .. }) = next.take_shown(user)?;
            let is_next = shown.folios.pages().end == folios.pages().start;
            if access != shown.access || !is_next || shown.folios.append(folios).is_err() {
                break;
            }
            pages = pages + more;
            locked.push(next);
        }
        // The host finds the pages of a lazy mapping as fast when they are touched, and only those.
        let prefault = if user.is_lazy() { Prefault::No } else { Prefault::Yes };
        let access = shown.access;
        let (at, wanted) = (user.at(start), user.at(index));
        let mapped = user.table().map_folios(at.span(pages), wanted, shown, prefault);
        let end = mapped.map_err(|error| EntryGuard::refusal_of(&locked, error))?;
        events::insert_mapping(start.span(pages), order, access);
        drop(locked);
        Ok(end.since(wanted))
    }

    /// The next block of a run, with its folio, if it has the same order and nobody is in the way.
    fn next_of_run<'g>(
        &'g self,
        user: &User,
        index: FileIndex,
        order: Order,
        run: &Run,
    ) -> Option<EntryGuard<'g, 'm>> {
        let owner = self.owner().ok()?;
        let block = run.block(index, order, || owner.end()).ok()?;
        let is_inside = order == Order::Base || user.block_around(index, order).is_ok();
        if !is_inside || user.shows(&index.span(order.pages())) {
            return None;
        }
        let locked = self.mapping.index().try_lock(index, order)?;
        let mut next = EntryGuard::tried(self, index, locked);
        next.bring_in(&block, order, false).ok()?;
        self.mapping.counters().fault(order);
        Some(next)
    }

    /// Shows zeros for as much of a hole as one fault covers.
    fn show_hole(
        &self,
        mut entry: EntryGuard<'_, '_>,
        user: &User,
        at: VmaOff,
        hole: Pages,
        access: Access,
    ) -> Result<Pages, FaultError> {
        self.mapping.counters().event(Event::Hole);
        // Zeros that can be stored to are paid for page by page.
        let is_cheap = user.access() == Access::Read || !user.is_lazy();
        if !is_cheap || !entry.is_hole()? {
            entry.shrink(Order::Base);
        }
        if user.sharing() == Sharing::Shared || access == Access::Read {
            entry.insert_zero();
        }
        let block = if entry.order() == Order::Base {
            at.span(Pages(1).min(hole))
        } else {
            user.part(&entry.range())
        };
        let absent = match user.access() {
            Access::Read => Absent::ReadOnlyHole,
            Access::Write if user.is_lazy() && access == Access::Read => Absent::Hole,
            Access::Write => Absent::Own,
        };
        let shown = user.table().map_absent(block, at, absent)?;
        let pages = shown.end.since(shown.start);
        events::load_hole(user.index(shown.start), entry.order(), pages);
        if access == Access::Write {
            events::make_writable(user.index(at), Order::Base);
        }
        Ok(shown.end.since(at))
    }

    /// Takes back every translation of `range`, because the data moves. Eager mappings get the new
    /// place when this guard is dropped.
    pub(crate) fn outdate(&self, range: &Range<FileIndex>) {
        if let Some(taken) = self.mapping.zap(range) {
            self.note_outdated(&taken);
        }
    }

    /// Takes back what shows nothing of the file in `range`.
    pub(crate) fn outdate_absent(&self, range: &Range<FileIndex>) {
        if self.mapping.zap_absent(range) {
            self.note_outdated(range);
        }
    }

    /// Remembers what is new, and so not a hole any more, until no entry is locked.
    pub(crate) fn note_new(&self, new: New) {
        let range = match new {
            New::Nothing => return,
            New::Allocated(range) => range,
            New::Copied(page) => {
                self.mapping.counters().event(Event::Copy);
                page.span(Pages(1))
            }
        };
        self.allocated.borrow_mut().push(range);
    }

    /// Makes what became data since it was mapped as a hole, or as the space past the end, visible
    /// in every user mapping. See [`Mapping::invalidate_holes`]. Not to be called with an entry
    /// locked.
    pub fn invalidate_holes(&self, range: Range<FileIndex>) {
        // Who asked the owner before the allocation shows its answer while it has the entry locked;
        // who locks it later asks later (B-12).
        let index = self.mapping.index();
        index.settle(&range);
        // Before the entries go: who finds none brings in data and looks for no zeros.
        let shown = index.with_zeros(&range);
        self.outdate_absent(&shown);
        let removed = index.remove_zeros(&range);
        if removed != shown {
            self.outdate_absent(&removed);
        }
    }

    /// Makes what came into the file because it grew visible in every user mapping. See
    /// [`Mapping::invalidate_end`]. Not to be called with an entry locked.
    pub fn invalidate_end(&self, range: Range<FileIndex>) {
        self.mapping.index().settle(&range);
        // No entry goes: a fault since the growth may show a hole, and who fills that looks for it.
        self.outdate_absent(&range);
    }

    /// To be called before the owner may make data of holes: until this guard is dropped, zeros may be
    /// shown where others find the data. Faults look for the entries of the zeros; whoever takes no
    /// entry asks [`Mapping::may_show_zeros`].
    pub(crate) fn begin_filling(&self) {
        if !self.is_filling.replace(true) {
            self.mapping.filling().fetch_add(1, Ordering::Relaxed);
        }
    }

    fn note_outdated(&self, range: &Range<FileIndex>) {
        if !self.mapping.eager_users(range).is_empty() {
            self.outdated.borrow_mut().push(range.clone());
        }
    }

    /// Fills every page of `range` that shows no folio, in every user mapping that cannot fault
    /// for itself. What fails is SIGBUS, and remembered there.
    pub(crate) fn refill(&self, range: &Range<FileIndex>) {
        for user in self.mapping.eager_users(range) {
            let part = user.part(range);
            let mut at = part.start;
            while let Some(next) = user.table().next_absent(&(at..part.end)) {
                let served = self.fault_in(&user, next, user.populating());
                let left = part.end.since(next);
                at = next + served.unwrap_or_else(|why| self.fail(&user, next, left, why));
            }
        }
    }
}

impl FaultGuard<'_> {
    /// Makes page `at` of a mapping that cannot fault for itself SIGBUS, of which `left` pages are
    /// still to be filled. Returns how many are lost with it.
    fn fail(&self, user: &User, at: VmaOff, left: Pages, why: FaultError) -> Pages {
        if self.is_settling.get() && matches!(why, FaultError::NotAllocated(_)) {
            // It has failed before, for a better reason.
            user.fail_again(at);
            return Pages(1);
        }
        self.mapping.counters().lost(&why);
        let lost = self.lost_with(user.index(at), &why).min(left);
        user.fail(at, lost, why);
        lost
    }

    /// What the owner may be asked for instead of `access`.
    pub(crate) fn permitted(&self, access: Access) -> Access {
        if self.is_settling.get() { Access::Read } else { access }
    }
}

impl Drop for FaultGuard<'_> {
    fn drop(&mut self) {
        loop {
            for range in self.allocated.take() {
                self.invalidate_holes(range);
            }
            if self.is_filling.replace(false) {
                // Release, and Acquire where it is read: who sees no filling sees no zeros.
                self.mapping.filling().fetch_sub(1, Ordering::Release);
            }
            let outdated = self.outdated.take();
            if outdated.is_empty() {
                return;
            }
            for range in &outdated {
                self.refill(range);
            }
            self.is_settling.set(true);
        }
    }
}

impl fmt::Debug for FaultGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultGuard").field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// What a touch does to the file: a private store changes the program's copy, and nothing of the
/// file (I-39).
fn access_of_file(user: &User, access: Access) -> Access {
    match user.sharing() {
        Sharing::Shared => access,
        Sharing::Private => Access::Read,
    }
}

/// Shows a protected copy of shared data where the program may store: no second fault would
/// tell of the store if the pages themselves were shown.
///
/// The entry tells of the copy: whoever finds that the page is the file's own takes it back.
fn show_snapshot(
    mut entry: EntryGuard<'_, '_>,
    user: &User,
    at: VmaOff,
    run: &Run,
    access: Access,
) -> Result<Pages, FaultError> {
    if access == Access::Write || !user.is_lazy() {
        return Err(FaultError::NotAllocated(entry.asked()));
    }
    let page = run.page(entry.asked());
    check_good(&page, Pages(1))?;
    entry.bring_in(&page, Order::Base, true)?;
    let mut bytes = [0; PAGE_SIZE];
    page.pgmap().read(page.at().byte(), &mut bytes).map_err(std::io::Error::other)?;
    let shown = user.table().map_absent(at.span(Pages(1)), at, Absent::Snapshot(&bytes))?;
    Ok(shown.end.since(at))
}
