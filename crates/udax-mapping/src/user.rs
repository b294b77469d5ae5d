//! User mappings: a range of a file at real addresses of this process.
//!
//! Owns the life of one mapping from `map` to drop, and the way from a touched address to the
//! fault engine. What the addresses show is in [`Table`](crate::table::Table).

use crate::fallback::Fallback;
use crate::fault::FaultError;
use crate::mapping::Mapping;
use crate::table::{Leaf, Table, Target};
use std::ops::Range;
use udax_mm::sync::{Arc, Mutex, Weak};
use udax_mm::units::PAGE_BYTES;
use udax_mm::{Access, FaultSink, FileIndex, Order, Pages, Vma, VmaOff};

/// How a user mapping is filled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Populate {
    /// Each page at its first touch. Where userfaultfd is not permitted the mapping is eager, and
    /// [`UserMapping::populate`] says so.
    Lazy,
    /// Every page at once. Holes of a writable mapping are allocated; a read-only mapping shows
    /// them as zeros.
    Eager,
}

/// A range of a file, mapped at real addresses. Dropping it unmaps them.
///
/// A touch past the end of the file, or of a page that cannot be had, is SIGBUS, as with any file;
/// [`last_fault_error`](UserMapping::last_fault_error) tells why the latter could not. Copies
/// through [`vma`](UserMapping::vma) return an error instead.
///
/// An eager mapping cannot wait for a fault. Where a layout change takes pages back from it, and
/// in the 2 MiB block around, a touch may be SIGBUS until the change is done.
///
/// Dropping it waits for a fault that is being served, so a thread does not drop it while it has
/// the layout lock of the file.
///
/// # Examples
///
/// ```
/// # mod owner { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/owner.inc")); }
/// # use owner::WholeDevice;
/// # use udax_mapping::Populate;
/// # use udax_mm::{Access, FileIndex, Pages};
/// let file = WholeDevice::new(Pages(4))?;
/// let stores = file.mapping.map(FileIndex(0), Pages(4), Access::Write, Populate::Lazy)?;
/// let loads = file.mapping.map(FileIndex(1), Pages(2), Access::Read, Populate::Lazy)?;
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

/// What a mapping knows of one of its user mappings.
#[derive(Debug)]
pub(crate) struct User {
    range: Range<FileIndex>,
    access: Access,
    table: Table,
    last_error: Mutex<Option<Arc<FaultError>>>,
}

/// Where faults of a lazy mapping arrive. Empty before the mapping is made and while it is dropped.
///
/// Its lock is held during a fault, so that dropping the mapping waits for the fault to end.
#[derive(Debug, Default)]
struct Sink {
    target: Mutex<Option<(Weak<Mapping>, Weak<User>)>>,
}

impl UserMapping {
    /// Reserves addresses for `range` and makes `mapping` know them. Nothing is populated.
    pub(crate) fn new(
        mapping: &Arc<Mapping>,
        range: Range<FileIndex>,
        access: Access,
        populate: Populate,
    ) -> Result<UserMapping, FaultError> {
        let pages = range.end.since(range.start);
        let sink = Arc::new(Sink::default());
        let vma = match (populate, mapping.service()) {
            (Populate::Lazy, Some(service)) => {
                let sink: Arc<dyn FaultSink> = sink.clone();
                Vma::reserve_lazy(pages, service, sink)?
            }
            _ => Vma::reserve(pages)?,
        };
        let last_error = Mutex::new(None);
        let user = Arc::new(User { range, access, table: Table::new(vma), last_error });
        *sink.target.lock() = Some((Arc::downgrade(mapping), Arc::downgrade(&user)));
        mapping.add_user(&user);
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

    /// Whether the program may store through it.
    pub fn access(&self) -> Access {
        self.user.access
    }

    /// How it is filled, which may differ from what was asked for.
    pub fn populate(&self) -> Populate {
        if self.vma().is_lazy() { Populate::Lazy } else { Populate::Eager }
    }

    /// Why the last touch that became SIGBUS could not be served.
    pub fn last_fault_error(&self) -> Option<Arc<FaultError>> {
        self.user.last_error.lock().clone()
    }
}

impl Drop for UserMapping {
    fn drop(&mut self) {
        // Waits for a fault that is being served, so that the last reference is never dropped by
        // the thread that serves faults.
        *self.sink.target.lock() = None;
        self.mapping.remove_user(&self.user);
    }
}

impl User {
    pub(crate) fn access(&self) -> Access {
        self.access
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

    /// Where it shows the pages of `range`; empty if it does not.
    pub(crate) fn part(&self, range: &Range<FileIndex>) -> Range<VmaOff> {
        let start = range.start.max(self.range.start);
        let end = range.end.min(self.range.end).max(start);
        let off = |index: FileIndex| VmaOff(index.since(self.range.start).0);
        if start > self.range.end { VmaOff(0)..VmaOff(0) } else { off(start)..off(end) }
    }

    /// Takes back every translation of pages in `range`, and of a larger folio that covers any of
    /// them all translations in its block: it is counted as a whole.
    pub(crate) fn zap(&self, range: &Range<FileIndex>) {
        let near = Order::Pmd.pages().0;
        let around = FileIndex(range.start.0.saturating_sub(near))
            ..FileIndex(range.end.0.saturating_add(near));
        self.table.zap(&self.part(range), &self.part(&around), |leaf| {
            let counted = self.counted(leaf);
            counted.start < range.end && range.start < counted.end
        });
    }

    /// The pages of the file that a leaf keeps counted.
    fn counted(&self, leaf: &Leaf) -> Range<FileIndex> {
        let index = self.index(leaf.at);
        match &leaf.target {
            Target::Folio { folio, first, .. } => {
                let before = first.since(folio.head());
                let end = index + (folio.order().pages() - before);
                FileIndex(index.0.saturating_sub(before.0))..end
            }
            _ => index.span(leaf.pages),
        }
    }

    /// The pages from `at` to the end of the mapping.
    pub(crate) fn pages_from(&self, at: VmaOff) -> Pages {
        self.table.vma().pages() - at.since(VmaOff(0))
    }

    /// Whether page `index` of the file shows a folio.
    pub(crate) fn shows_folio(&self, index: FileIndex) -> bool {
        let part = self.part(&index.span(Pages(1)));
        self.table.next_absent(&part).is_none()
    }

    /// The 2 MiB block of the file around `index`, if one huge translation can show it (I-37).
    pub(crate) fn block_around(&self, index: FileIndex) -> Result<FileIndex, Fallback> {
        let head = index.align_down(Order::Pmd);
        let block = head.span(Order::Pmd.pages());
        if block.start < self.range.start || block.end > self.range.end {
            return Err(Fallback::RangeTooShort);
        }
        let addr = u64::try_from(self.table.vma().addr()).expect("an address has at most 64 bits");
        let head_addr = addr + head.since(self.range.start).bytes();
        if !(head_addr / PAGE_BYTES).is_multiple_of(Order::Pmd.pages().0) {
            return Err(Fallback::AddressMisaligned);
        }
        Ok(head)
    }

    /// Makes a touch of the page SIGBUS, and remembers why. A page that shows a folio keeps it: the
    /// fault came late, and the thread looks again.
    pub(crate) fn fail(&self, at: VmaOff, why: FaultError) {
        *self.last_error.lock() = Some(Arc::new(why));
        let leaf = Leaf { at, pages: Pages(1), target: Target::Failed };
        let mapped = self.table.map_absent(leaf, || true);
        mapped.expect("a page that cannot be mapped can be SIGBUS; raise vm.max_map_count");
    }
}

impl FaultSink for Sink {
    fn fault(&self, at: VmaOff, access: Access) {
        let target = self.target.lock();
        let Some((mapping, user)) = target.as_ref() else { return };
        if let (Some(mapping), Some(user)) = (mapping.upgrade(), user.upgrade()) {
            mapping.fault_user(&user, at, access);
        }
    }
}
