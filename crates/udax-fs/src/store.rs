//! The store: the bytes of a device, its geometry, its journal and its free space under one roof.
//!
//! This file owns allocation joined with claims, and in-place access to data. It knows no inodes.
//! After a media error in the middle of a commit the store refuses every further write.

use crate::alloc::{Allocator, DoubleUse, Extent, Goal};
use crate::format::Geometry;
use crate::journal::Journal;
use crate::FsError;
use std::ops::Range;
use udax_dev::{DaxBytes, DaxDevice, DaxSpan};
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{FileIndex, IdleSpan, LimboSink, Pages};

/// See the module. Shared as `Arc<Store>`, which is also the [`LimboSink`] of its pages.
#[derive(Debug)]
pub struct Store {
    bytes: DaxBytes,
    geometry: Geometry,
    journal: Mutex<Journal>,
    alloc: Arc<Mutex<Allocator>>,
}

/// Pages that no object uses yet, claimed. Dropping gives them back, so a failed call undoes itself.
#[must_use]
#[derive(Debug)]
pub struct Fresh {
    extent: Extent,
    claim: Option<IdleSpan>,
    alloc: Arc<Mutex<Allocator>>,
}

/// The proof that file pages may be freed: nobody uses them, or their last put comes to the store.
#[must_use]
#[derive(Debug)]
pub struct Vacant {
    store: Arc<Store>,
    idle: Vec<(Extent, IdleSpan)>,
    limbo: Vec<Extent>,
}

#[allow(unused_variables, missing_docs)]
impl Store {
    /// A store whose data pages are all free.
    pub(crate) fn new(device: Arc<dyn DaxDevice>, geometry: Geometry, uuid: [u8; 16]) -> Arc<Store> { todo!() }
    pub(crate) fn geometry(&self) -> &Geometry { &self.geometry }
    pub(crate) fn device(&self) -> &Arc<dyn DaxDevice> { self.bytes.device() }
    /// Replays the last transaction, if it is valid. Returns whether that changed anything.
    pub(crate) fn recover(&self) -> Result<bool, FsError> { todo!() }
    /// Whether `recover` would change anything (for a read-only mount, which must not).
    pub(crate) fn needs_recovery(&self) -> Result<bool, FsError> { todo!() }
    /// Allocates and claims `pages` pages, in as few pieces as possible; all or nothing.
    pub(crate) fn allocate(&self, pages: Pages, goal: Goal) -> Result<Vec<Fresh>, FsError> { todo!() }
    /// Allocates for a hole of a file: every aligned 2 MiB of `range` gets a whole 2 MiB block while there are any. In file order.
    pub(crate) fn allocate_range(&self, range: Range<FileIndex>, goal: Goal) -> Result<Vec<(FileIndex, Fresh)>, FsError> { todo!() }
    /// Marks pages as used while mounting.
    pub(crate) fn reserve(&self, extent: Extent) -> Result<(), DoubleUse> { todo!() }
    /// Free pages; pages in limbo are not free.
    pub(crate) fn free_pages(&self) -> Pages { todo!() }
    /// Pages that were freed and that somebody still uses.
    pub(crate) fn limbo_pages(&self) -> Pages { todo!() }
    /// Wholly free 2 MiB blocks.
    pub(crate) fn huge_free(&self) -> u64 { todo!() }
    /// The free extents, for `check` and `verify`.
    pub(crate) fn free_extents(&self) -> Vec<Extent> { todo!() }
    /// The address of `extent` (or of its first part, where it crosses page maps).
    pub(crate) fn span(&self, extent: Extent) -> Result<DaxSpan, FsError> { todo!() }
    /// Reads bytes of the device.
    pub(crate) fn read(&self, from: u64, into: &mut [u8]) -> Result<(), FsError> { todo!() }
    /// Overwrites data bytes in place and flushes them; durable after [`Store::fence`].
    ///
    /// Only bytes of data pages: a byte that a transaction writes must never be written in place,
    /// because recovery would put the bytes of the transaction back.
    #[track_caller]
    pub(crate) fn write_in_place(&self, at: u64, bytes: &[u8]) -> Result<(), FsError> { todo!() }
    /// Like `write_in_place`, with zeros.
    #[track_caller]
    pub(crate) fn zero_in_place(&self, at: u64, len: u64) -> Result<(), FsError> { todo!() }
    /// Makes everything flushed by this thread durable.
    #[track_caller]
    pub(crate) fn fence(&self) -> Result<(), FsError> { todo!() }
    /// Refuses if the store stopped writing after a media error.
    pub(crate) fn check_writable(&self) -> Result<(), FsError> { todo!() }
    /// Makes the last transaction durable at its home (before the session is marked closed).
    #[track_caller]
    pub(crate) fn settle(&self) -> Result<(), FsError> { todo!() }
}

#[allow(unused_variables, missing_docs)]
impl Fresh {
    pub(crate) fn extent(&self) -> Extent { self.extent }
    /// Splits after `pages` pages.
    pub(crate) fn split(self, pages: Pages) -> (Fresh, Fresh) { todo!() }
}

#[allow(unused_variables, missing_docs)]
impl Vacant {
    /// Takes what breaking the layout claimed or deferred (to the store as sink). Dropped without a commit, the pages stay with the file.
    pub(crate) fn take(store: &Arc<Store>, broken: &mut udax_mapping::LayoutBroken<'_>) -> Vacant { todo!() }
    /// Claims pages that no mapping ever showed: of directories, and of files while mounting.
    ///
    /// # Panics
    ///
    /// Panics if somebody uses one of them (I-50).
    pub(crate) fn claim(store: &Arc<Store>, extents: &[Extent]) -> Result<Vacant, FsError> { todo!() }
}

#[allow(unused_variables)]
impl LimboSink for Store {
    fn returned(&self, span: IdleSpan) { todo!() }
}
