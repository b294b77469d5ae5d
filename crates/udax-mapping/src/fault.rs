//! Faults: from an index of the file to a translation, in the largest order that fits.
//!
//! Owns the shared side of the layout lock and the choice of order. A fault locks the entry, asks
//! the owner, brings in the folio and maps it; each of these is a method of
//! [`EntryGuard`](crate::EntryGuard).

use crate::entry::EntryGuard;
use crate::fallback::Fallback;
use crate::iomap::{Iomap, IomapError, IomapOps};
use crate::mapping::{Layout, Mapping};
use crate::table::{Leaf, Target};
use crate::user::User;
use std::fmt;
use std::ops::Range;
use udax_dev::DaxSpan;
use udax_mm::sync::{Arc, RwLockReadGuard};
use udax_mm::{Access, FileIndex, Order, Pages, RequestError, VmaOff};

/// The window of fault-around: 64 KiB, as in the kernel.
const FAULT_AROUND: Pages = Pages(16);
/// The most that one fault of an eager mapping brings in beyond the first folio.
const EAGER_BATCH: Pages = Pages(512);

/// Why a page could not be faulted in, mapped or pinned.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// The file has no such page.
    #[error("page {0} lies past the end of the file")]
    PastEnd(FileIndex),

    /// A store through a mapping that is only for reading.
    #[error("page {0} is mapped for reading only; map it for writing to store")]
    ReadOnly(FileIndex),

    /// A range of no pages.
    #[error("the range has no pages; give it at least one")]
    Empty,

    /// The device was taken away.
    #[error("the device of the file was removed")]
    Removed,

    /// The owner of the file is gone.
    #[error("the file was closed")]
    Closed,

    /// The owner answered a fault for writing with a hole.
    #[error("page {0} is a hole that was not allocated for a store")]
    NotAllocated(FileIndex),

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
pub struct FaultGuard<'m> {
    layout: RwLockReadGuard<'m, Layout>,
    mapping: &'m Mapping,
    // Put after the lock is released: the last reference of an owner may break its layout.
    owner: Option<Arc<dyn IomapOps>>,
}

/// Data around an index.
pub(crate) struct Run {
    span: DaxSpan,
    start: FileIndex,
}

impl<'m> FaultGuard<'m> {
    pub(crate) fn new(mapping: &'m Mapping) -> FaultGuard<'m> {
        // Before the lock, for the same reason that it is dropped after.
        let owner = mapping.owner();
        FaultGuard { layout: mapping.layout().read(), mapping, owner }
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

    /// Locks the block of 2 MiB around `index` if `wanted` says that it is of use and no smaller
    /// entries exist; else the entry that covers `index`. Says why a block was not locked.
    pub(crate) fn lock_largest<'g>(
        &'g self,
        index: FileIndex,
        wanted: Result<FileIndex, Fallback>,
    ) -> (EntryGuard<'g, 'm>, Option<Fallback>) {
        let reason = match wanted {
            Ok(_) => match self.mapping.index().lock(index, Order::Pmd) {
                Ok(block) => return (EntryGuard::new(self, index, block), None),
                Err(_conflict) => Fallback::SmallerEntries,
            },
            Err(reason) => reason,
        };
        (self.lock_entry(index), Some(reason))
    }

    /// Locks the first dirty entry in `range`.
    pub(crate) fn lock_dirty<'g>(&'g self, range: Range<FileIndex>) -> Option<EntryGuard<'g, 'm>> {
        let block =
            self.mapping.index().lock_next(range.start, range.end, |entry| entry.is_dirty)?;
        Some(EntryGuard::new(self, block.head, block))
    }

    /// Serves a touch of page `at` of a user mapping. Returns how many pages from there on show
    /// something.
    ///
    /// Adds to `outdated`, whether it fails or not, what may have been a hole before and is still
    /// shown as one by an eager mapping. The caller refills it.
    pub(crate) fn fault_in(
        &self,
        user: &Arc<User>,
        at: VmaOff,
        access: Access,
        outdated: &mut Vec<Range<FileIndex>>,
    ) -> Result<Pages, FaultError> {
        let index = user.index(at);
        if access == Access::Write && user.access() == Access::Read {
            return Err(FaultError::ReadOnly(index));
        }
        loop {
            let seen = self.mapping.holes().current();
            let (mut entry, reason) = self.lock_largest(index, user.block_around(index));
            let absent = match entry.iomap(access)? {
                Iomap::Data { span, start, .. } => {
                    let run = Run::new(span, start);
                    // First: what was allocated stays so whatever fails below (B-12).
                    if access == Access::Write && self.mapping.forget_holes(&run.range()) {
                        outdated.push(run.range());
                    }
                    entry.fault_run(&run, reason)?;
                    let mapped = index + entry.map_user(user)?;
                    drop(entry);
                    return Ok(self.map_behind(user, &run, mapped).since(index));
                }
                Iomap::Hole { .. } if access == Access::Write => {
                    return Err(FaultError::NotAllocated(index));
                }
                Iomap::Hole { pages } => (pages, Target::Hole),
                Iomap::PastEnd => (user.pages_from(at), Target::PastEnd),
            };
            let pages = shown_at_once(user, at, absent.0);
            let leaf = Leaf { at, pages, target: absent.1 };
            let is_true = || self.mapping.holes().current() == seen;
            if let Some(pages) = user.table().map_absent(leaf, is_true)? {
                return Ok(pages);
            }
        }
    }

    /// Maps what follows in a run of data, from `index` on, without asking the owner again: data
    /// stays where it is while this guard exists. Returns where it ended.
    ///
    /// A page that cannot be had ends it, and its own fault says why.
    fn map_behind(&self, user: &User, run: &Run, mut index: FileIndex) -> FileIndex {
        let end = fault_around_end(user, index).min(run.range().end);
        while index < end && !user.shows_folio(index) {
            let (mut entry, reason) = self.lock_largest(index, user.block_around(index));
            let mapped = entry.fault_run(run, reason).and_then(|()| entry.map_user(user));
            let Ok(pages) = mapped else { break };
            index = index + pages;
        }
        index
    }

    /// Fills every page of `range` that shows no folio, in every user mapping that cannot fault
    /// for itself. What fails is SIGBUS, and remembered there.
    pub(crate) fn refill(&self, range: Range<FileIndex>) {
        let mut work = vec![range];
        while let Some(range) = work.pop() {
            for user in self.mapping.eager_users(&range) {
                let part = user.part(&range);
                let mut at = part.start;
                while let Some(next) = user.table().next_absent(&(at..part.end)) {
                    let served = self.fault_in(&user, next, user.access(), &mut work);
                    let pages = served.unwrap_or_else(|why| {
                        user.fail(next, why);
                        Pages(1)
                    });
                    at = next + pages;
                }
            }
        }
    }

    /// Makes what became data since it was mapped as a hole, or as the space past the end, visible
    /// in every user mapping. See [`Mapping::invalidate_holes`].
    pub fn invalidate_holes(&self, range: Range<FileIndex>) {
        if self.mapping.forget_holes(&range) {
            self.refill(range);
        }
    }
}

impl EntryGuard<'_, '_> {
    /// Brings in the folio of the index out of a run of data around it, in order 9 if the locked
    /// block and the run allow it. `reason` says why the block was not locked.
    pub(crate) fn fault_run(
        &mut self,
        run: &Run,
        reason: Option<Fallback>,
    ) -> Result<(), FaultError> {
        let counters = self.counters();
        let reason = match reason {
            None if self.order() == Order::Pmd => match self.fault_block(run)? {
                None => {
                    counters.count_huge();
                    return Ok(());
                }
                reason => reason,
            },
            reason => reason,
        };
        self.fault(&run.page(self.asked()), Order::Base)?;
        if let Some(reason) = reason {
            counters.count(reason);
        }
        Ok(())
    }

    /// Tries order 9. On a fallback the block is locked as before.
    fn fault_block(&mut self, run: &Run) -> Result<Option<Fallback>, FaultError> {
        let head = self.range().start;
        let block = match run.block(head) {
            Ok(block) => block,
            Err(reason) => return Ok(Some(reason)),
        };
        let faulted = self.fault(&block, Order::Pmd).map(|_counted| ());
        match faulted {
            Ok(()) => Ok(None),
            Err(FaultError::Request(RequestError::Busy(_) | RequestError::Poisoned(_)))
                if !self.is_real() =>
            {
                Ok(Some(Fallback::PagesBusy))
            }
            Err(other) => Err(other),
        }
    }
}

impl Run {
    pub(crate) fn new(span: DaxSpan, start: FileIndex) -> Run {
        Run { span, start }
    }

    /// The pages of the file that it covers.
    pub(crate) fn range(&self) -> Range<FileIndex> {
        self.start.span(self.span.pages())
    }

    fn page(&self, index: FileIndex) -> DaxSpan {
        self.span.slice(index.since(self.start), Pages(1))
    }

    /// The block of 2 MiB at `head`, if the run covers it and is aligned as it is (I-37).
    fn block(&self, head: FileIndex) -> Result<DaxSpan, Fallback> {
        let pages = Order::Pmd.pages();
        if head < self.start || (head + pages) > self.start + self.span.pages() {
            return Err(Fallback::ExtentTooShort);
        }
        let block = self.span.slice(head.since(self.start), pages);
        if !block.at().is_aligned(Order::Pmd) {
            return Err(Fallback::DeviceMisaligned);
        }
        Ok(block)
    }
}

impl fmt::Debug for FaultGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultGuard").field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// Up to where one fault at `index` may map data.
///
/// A lazy mapping for reading gets the rest of an aligned window, as `fault_around_bytes` gives in
/// the kernel. One for writing does not, because each page would be dirty.
fn fault_around_end(user: &User, index: FileIndex) -> FileIndex {
    let end = match (user.is_lazy(), user.access()) {
        (false, _) => index + EAGER_BATCH,
        (true, Access::Read) => FileIndex(index.0.next_multiple_of(FAULT_AROUND.0)),
        (true, Access::Write) => index,
    };
    end.min(user.range().end)
}

/// How much of a hole is shown by one fault. A lazy mapping pays for each page, and the next touch
/// asks again; an eager one has to show all of it.
fn shown_at_once(user: &User, at: VmaOff, pages: Pages) -> Pages {
    if user.is_lazy() { Pages(1) } else { pages.min(user.pages_from(at)) }
}
