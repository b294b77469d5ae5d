//! Reserved addresses: real virtual memory that pages of media are mapped into.
use crate::bytes::Window;
use crate::sync::Arc;
use crate::*;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

/// How a file is mapped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sharing {
    /// `MAP_SHARED`.
    Shared,
    /// `MAP_SHARED_VALIDATE | MAP_SYNC`: refused by all but persistent memory.
    Synchronous,
}

/// Addresses of this process that are mapped and unmapped as a whole.
///
/// # Invariants
///
/// 1. The addresses of `window` were reserved by this value, and only its drop gives them back.
/// 2. No Rust reference covers them, except those of [`FrozenBytes`], which maps them read-only.
#[derive(Debug)]
pub(crate) struct Reservation {
    window: Window,
}

impl Reservation {
    /// Reserves `len` bytes that nobody may touch, a positive multiple of the page size.
    ///
    /// The first address is aligned to the largest host page that fits into `len`, so that huge
    /// pages of media can be mapped at congruent addresses.
    pub(crate) fn new(len: usize) -> io::Result<Reservation> {
        let align = [Order::Pud, Order::Pmd, Order::Base]
            .map(|order| usize::try_from(order.pages().bytes()).expect("at most 1 GiB"))
            .into_iter()
            .find(|&size| size <= len)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let slack = align - PAGE_SIZE;
        let reserved = len.checked_add(slack).ok_or(io::ErrorKind::OutOfMemory)?;
        let (protection, flags) = (ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: without MAP_FIXED the kernel chooses addresses that nobody uses.
        let first =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), reserved, protection, flags) }?;
        let before = first.addr().wrapping_neg() % align;
        let start = first.wrapping_byte_add(before);
        unmap(first, before);
        unmap(start.wrapping_byte_add(len), slack - before);
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at zero");
        // SAFETY: the addresses were just reserved; invariant 2 holds because nobody has them.
        let window = unsafe { Window::new(start, len) };
        // INVARIANT: 1 by the mmap above, of which only the slack was given back.
        Ok(Reservation { window })
    }

    /// Access to the bytes.
    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// Maps a file over a range of bytes, from its byte `offset` on.
    pub(crate) fn map_file(
        &self,
        at: Range<usize>,
        file: BorrowedFd<'_>,
        offset: u64,
        access: Access,
        sharing: Sharing,
    ) -> io::Result<()> {
        let address = self.address(&at);
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        let flags = match sharing {
            Sharing::Shared => MapFlags::SHARED,
            Sharing::Synchronous => MapFlags::SHARED_VALIDATE | MapFlags::SYNC,
        };
        let flags = flags | MapFlags::FIXED;
        // SAFETY: the range is inside the reservation (invariant 1), so what it replaces is ours.
        unsafe { rustix::mm::mmap(address, at.len(), protection, flags, file, offset) }?;
        Ok(())
    }

    /// Asks for huge pages, which the host may refuse.
    pub(crate) fn advise_huge(&self) {
        let start = self.window.start().as_ptr().cast();
        // SAFETY: the range is ours by invariant 1, and the advice changes no bytes.
        let _ = unsafe { rustix::mm::madvise(start, self.window.len(), Advice::LinuxHugepage) };
    }

    /// The address of a range of bytes, which lies inside the reservation.
    fn address(&self, at: &Range<usize>) -> *mut c_void {
        assert!(at.start < at.end, "vma: a range of addresses has a length");
        assert!(at.end <= self.window.len(), "vma: a range lies inside its reservation");
        self.window.start().as_ptr().wrapping_add(at.start).cast()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        unmap(self.window.start().as_ptr().cast(), self.window.len());
    }
}

/// Gives addresses back that the caller has reserved and that nobody uses.
fn unmap(start: *mut c_void, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: the only callers are the constructor of a reservation, for what it reserved too
    // much, and its drop.
    let unmapped = unsafe { rustix::mm::munmap(start, len) };
    unmapped.expect("vma: a reservation can be given back");
}

use std::ops::Range;
/// x
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// x
    Read,
    /// x
    Write,
}
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
    pub fn new() -> std::io::Result<FaultService> {
        todo!()
    }
}
/// A reserved range of addresses (aligned to 2 MiB when it is that long). Drop unmaps it. `Sync`.
#[derive(Debug)]
pub struct Vma(());
#[allow(unused_variables)]
impl Vma {
    /// Reserves, faults are errors (SIGBUS) until something is mapped.
    pub fn reserve(pages: Pages) -> std::io::Result<Vma> {
        todo!()
    }
    /// Reserves; the first touch of each page asks `sink`.
    pub fn reserve_lazy(
        pages: Pages,
        service: &FaultService,
        sink: Arc<dyn FaultSink>,
    ) -> std::io::Result<Vma> {
        todo!()
    }
    /// x
    pub fn pages(&self) -> Pages {
        todo!()
    }
    /// x
    pub fn is_lazy(&self) -> bool {
        todo!()
    }
    /// first address
    pub fn addr(&self) -> usize {
        todo!()
    }
    /// Maps the pages of a folio, or of a part of it, at `at` (mmap MAP_FIXED|MAP_SHARED). `pages` lies inside the folio.
    pub fn map(
        &self,
        at: VmaOff,
        folio: FolioRef<'_>,
        pages: Range<PgmapOff>,
        access: Access,
    ) -> std::io::Result<()> {
        todo!()
    }
    /// Zeros to read; the first store asks the sink (lazy) or is SIGSEGV (not lazy).
    pub fn map_hole(&self, at: VmaOff, pages: Pages) -> std::io::Result<()> {
        todo!()
    }
    /// A touch is SIGBUS.
    pub fn map_void(&self, at: VmaOff, pages: Pages) -> std::io::Result<()> {
        todo!()
    }
    /// Takes the translations back, atomically: the next touch asks the sink (lazy) or is SIGBUS (not lazy).
    pub fn zap(&self, at: VmaOff, pages: Pages) -> std::io::Result<()> {
        todo!()
    }
    /// SIGBUS-safe copies through the user addresses (they fault like any access). byte offsets from the start.
    pub fn read(&self, from: u64, into: &mut [u8]) -> Result<(), MediaError> {
        todo!()
    }
    /// x
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        todo!()
    }
    /// aligned atomic ops through the addresses
    pub fn load_u64(&self, at: u64) -> Result<u64, MediaError> {
        todo!()
    }
    /// x
    pub fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> {
        todo!()
    }
    /// x
    pub fn compare_exchange_u64(
        &self,
        at: u64,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, MediaError> {
        todo!()
    }
}
/// Bytes that cannot change: a read-only mapping of pinned, frozen pages; derefs to [u8].
#[derive(Debug)]
pub struct FrozenBytes(());
#[allow(unused_variables)]
impl FrozenBytes {
    /// see docs: every page must be frozen (PgmapRef::freeze) for as long as this lives
    pub fn map(pages: Vec<frozen::FrozenFolio>, len: usize) -> std::io::Result<FrozenBytes> {
        todo!()
    }
}
impl std::ops::Deref for FrozenBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        todo!()
    }
}
