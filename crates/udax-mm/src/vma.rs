//! Reserved addresses: real virtual memory that pages of media are mapped into.
use crate::*;
use crate::sync::Arc;
use std::ops::Range;
/// x
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access { /// x
    Read, /// x
    Write }
/// Resolves a fault of a lazily populated Vma; called on the service's thread with no lock held. It maps something (pages, a hole or
/// `map_void`) over the page; the service wakes the faulting thread afterwards.
pub trait FaultSink: Send + Sync {
    /// x
    fn fault(&self, at: VmaOff, access: Access);
}
/// The threads that answer userfaultfd; one per pool. `new` fails where userfaultfd is not permitted.
#[derive(Debug)]
pub struct FaultService(());
impl FaultService {
    /// x
    pub fn new() -> std::io::Result<FaultService> { todo!() }
}
/// A reserved range of addresses (aligned to 2 MiB when it is that long). Drop unmaps it. `Sync`.
#[derive(Debug)]
pub struct Vma(());
#[allow(unused_variables)]
impl Vma {
    /// Reserves, faults are errors (SIGBUS) until something is mapped.
    pub fn reserve(pages: Pages) -> std::io::Result<Vma> { todo!() }
    /// Reserves; the first touch of each page asks `sink`.
    pub fn reserve_lazy(pages: Pages, service: &FaultService, sink: Arc<dyn FaultSink>) -> std::io::Result<Vma> { todo!() }
    /// x
    pub fn pages(&self) -> Pages { todo!() }
    /// x
    pub fn is_lazy(&self) -> bool { todo!() }
    /// first address
    pub fn addr(&self) -> usize { todo!() }
    /// Maps the pages of a folio, or of a part of it, at `at` (mmap MAP_FIXED|MAP_SHARED). `pages` lies inside the folio.
    pub fn map(&self, at: VmaOff, folio: FolioRef<'_>, pages: Range<PgmapOff>, access: Access) -> std::io::Result<()> { todo!() }
    /// Zeros to read; the first store asks the sink (lazy) or is SIGSEGV (not lazy).
    pub fn map_hole(&self, at: VmaOff, pages: Pages) -> std::io::Result<()> { todo!() }
    /// A touch is SIGBUS.
    pub fn map_void(&self, at: VmaOff, pages: Pages) -> std::io::Result<()> { todo!() }
    /// Takes the translations back, atomically: the next touch asks the sink (lazy) or is SIGBUS (not lazy).
    pub fn zap(&self, at: VmaOff, pages: Pages) -> std::io::Result<()> { todo!() }
    /// SIGBUS-safe copies through the user addresses (they fault like any access). byte offsets from the start.
    pub fn read(&self, from: u64, into: &mut [u8]) -> Result<(), MediaError> { todo!() }
    /// x
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> { todo!() }
    /// aligned atomic ops through the addresses
    pub fn load_u64(&self, at: u64) -> Result<u64, MediaError> { todo!() }
    /// x
    pub fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> { todo!() }
    /// x
    pub fn compare_exchange_u64(&self, at: u64, current: u64, new: u64) -> Result<Result<u64, u64>, MediaError> { todo!() }
}
/// Bytes that cannot change: a read-only mapping of pinned, frozen pages; derefs to [u8].
#[derive(Debug)]
pub struct FrozenBytes(());
#[allow(unused_variables)]
impl FrozenBytes {
    /// see docs: every page must be frozen (PgmapRef::freeze) for as long as this lives
    pub fn map(pages: Vec<frozen::FrozenFolio>, len: usize) -> std::io::Result<FrozenBytes> { todo!() }
}
impl std::ops::Deref for FrozenBytes { type Target = [u8]; fn deref(&self) -> &[u8] { todo!() } }
/// see frozen.rs
pub mod frozen {
    use crate::*;
    /// A pinned folio whose bytes udax-mm refuses to write or to map writable while any FrozenFolio of it exists.
    #[derive(Debug)]
    pub struct FrozenFolio(());
    #[allow(unused_variables)]
    impl FrozenFolio {
        /// from idle pages: nobody maps them
        pub fn freeze(span: IdleSpan, order: Order, info: PinInfo) -> Result<Vec<FrozenFolio>, (IdleSpan, RequestError)> { todo!() }
        /// another, of pages frozen already
        pub fn get(pgmap: &PgmapRef, at: PgmapOff, info: PinInfo) -> Option<FrozenFolio> { todo!() }
    }
}
