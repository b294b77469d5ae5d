//! The address space of one DAX file: index entries and their locks, faults, user mappings, pins, break layout.
#![forbid(unsafe_code)]
use std::ops::Range;
use udax_dev::DaxSpan;
use udax_mm::sync::{Arc, Weak};
use udax_mm::*;

/// What lies behind a file index (named after Linux iomap)
#[derive(Debug)]
pub enum Iomap { /// Data from `index` of the query on: the span may be longer than asked; it starts exactly at the page asked for
    /// and `before` pages of the same contiguous run lie before it (so that an order-9 fault can align down).
    Data { /// the whole contiguous run of the file around the index
        span: DaxSpan, /// file index of span's first page (<= the index asked for)
        start: FileIndex }, /// reads as zeros
    Hole { /// known to be hole for that many pages from the index
        pages: Pages }, /// at or past EOF rounded up
    PastEnd }
/// The owner of the file says where its pages lie. Called with the entry lock held (B-12): must not fault or take the layout lock.
pub trait IomapOps: Send + Sync {
    /// Write: allocates holes (durably) before returning Data.
    fn iomap(&self, index: FileIndex, access: Access) -> Result<Iomap, IomapError>;
    /// All data behind the range (clipped to it), called with the layout lock held exclusively.
    fn spans(&self, range: Range<FileIndex>) -> Result<Vec<(FileIndex, DaxSpan)>, IomapError>;
}
/// Failure of the owner (out of space, dead device, poison, corrupt); carries the owner's error
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct IomapError(#[from] pub Box<dyn std::error::Error + Send + Sync>);
/// x
#[derive(Debug, thiserror::Error)]
#[error("fault")]
pub enum FaultError { /// x
    PastEnd(FileIndex), /// x
    Iomap(#[from] IomapError), /// x
    Request(#[from] RequestError), /// x
    Io(#[from] std::io::Error) }
/// x
#[derive(Debug, thiserror::Error)]
#[error("break")]
pub enum BreakError { /// first pinned index, who, since when
    Pinned { /// x
        index: FileIndex, /// x
        pins: Vec<FilePin> }, /// x
    Iomap(#[from] IomapError) }
/// A pin as a file lists it
#[derive(Clone, Debug)]
pub struct FilePin { /// x
    pub range: Range<FileIndex>, /// x
    pub info: PinInfo }
/// The address space of one file (struct address_space)
#[derive(Debug)]
pub struct Mapping(());
/// Shared side of the invalidate lock
#[derive(Debug)]
pub struct FaultGuard<'m>(std::marker::PhantomData<&'m Mapping>);
/// The locked entry of one index: the only way to insert, map or pin
#[derive(Debug)]
pub struct EntryGuard<'g, 'm>(std::marker::PhantomData<&'g FaultGuard<'m>>);
/// Exclusive invalidate lock + claims on every page behind the range (or, deferred: on those that were idle)
#[must_use]
#[derive(Debug)]
pub struct LayoutBroken<'m>(std::marker::PhantomData<&'m Mapping>);
/// The exclusive side without any claim: for changes that free nothing (growing, freezing checks)
/// How a user mapping is filled
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Populate { /// by userfaultfd at first touch (falls back to Eager where not permitted, and says so)
    Lazy, /// at once
    Eager }
/// A user mapping of a range of the file; drop unmaps. Sync. read/write/atomics/addr delegates to Vma.
#[derive(Debug)]
pub struct UserMapping(());
/// A pinned range: bytes stay where they are until dropped. Does not borrow the Mapping (a lease outlives calls).
#[derive(Debug)]
pub struct PinnedRange(());
#[allow(unused_variables)]
impl Mapping {
    /// `service`: None where userfaultfd is not permitted
    pub fn new(ops: Weak<dyn IomapOps>, service: Option<Arc<FaultService>>) -> Arc<Mapping> { todo!() }
    /// x
    pub fn faults(&self) -> FaultGuard<'_> { todo!() }
    /// # Blocking. Zaps, waits for pins *without* holding the lock, claims all pages behind range.
    pub fn break_layout(&self, range: Range<FileIndex>, wait: Wait) -> Result<LayoutBroken<'_>, BreakError> { todo!() }
    /// Never waits: what is pinned goes to limbo, and `sink` gets it with the last put.
    pub fn break_layout_deferred(&self, range: Range<FileIndex>, sink: &Arc<dyn LimboSink>) -> Result<LayoutBroken<'_>, BreakError> { todo!() }
    /// Maps `pages` from `start` on. Write access to a frozen file is refused by the fs before.
    pub fn map(self: &Arc<Self>, start: FileIndex, pages: Pages, access: Access, populate: Populate) -> Result<UserMapping, FaultError> { todo!() }
    /// Faults in and pins range (allocating holes if kind is Write; a hole pinned for read is allocated too)
    pub fn pin(self: &Arc<Self>, range: Range<FileIndex>, info: PinInfo) -> Result<PinnedRange, FaultError> { todo!() }
    /// x
    pub fn pins(&self) -> Vec<FilePin> { todo!() }
    /// Takes translations of holes in range back, so that what was just allocated becomes visible (B-12). Shared guard suffices.
    pub fn invalidate_holes(&self, range: Range<FileIndex>) { todo!() }
    /// Flushes every dirty entry in range (mapped stores); caller fences.
    pub fn writeback(&self, range: Range<FileIndex>) -> Result<(), MediaError> { todo!() }
    /// zap all user mappings (device removal); later touches SIGBUS
    pub fn zap_all(&self) { todo!() }
    /// I-15.. checks; used after every step of random tests
    pub fn verify(&self) -> Result<(), String> { todo!() }
}
#[allow(unused_variables)]
impl<'m> FaultGuard<'m> {
    /// x
    pub fn lock_entry<'g>(&'g self, index: FileIndex) -> EntryGuard<'g, 'm> { todo!() }
}
#[allow(unused_variables)]
impl EntryGuard<'_, '_> {
    /// x
    pub fn fault(&mut self, at: &DaxSpan, order: Order) -> Result<FolioRef<'_>, FaultError> { todo!() }
    /// x
    pub fn map(&self, vma: &Vma, at: VmaOff, access: Access) -> Result<(), FaultError> { todo!() }
    /// x
    pub fn pin(&self, info: PinInfo) -> Option<PinnedFolio> { todo!() }
}
#[allow(unused_variables)]
impl LayoutBroken<'_> {
    /// x
    pub fn range(&self) -> Range<FileIndex> { todo!() }
    /// claimed spans (in file order), and ranges that went to limbo (deferred only). The exclusive lock stays held by the returned guard
    /// until it is dropped.
    pub fn take_idle(&mut self) -> Vec<IdleSpan> { todo!() }
    /// pages deferred to limbo
    pub fn limbo(&self) -> &[(PgmapRef, Range<PgmapOff>)] { todo!() }
}
#[allow(unused_variables)]
impl UserMapping {
    /// x
    pub fn vma(&self) -> &Vma { todo!() }
}
#[allow(unused_variables)]
impl PinnedRange {
    /// x
    pub fn range(&self) -> Range<FileIndex> { todo!() }
    /// x
    pub fn info(&self) -> &PinInfo { todo!() }
    /// bytes of the pinned pages, wherever the file went. offset from range start
    pub fn read(&self, from: u64, into: &mut [u8]) -> Result<(), MediaError> { todo!() }
    /// x
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> { todo!() }
    /// x
    pub fn folios(&self) -> &[PinnedFolio] { todo!() }
}
