//! Reserved addresses, and the calls to the host's memory management.
//!
//! This file owns ranges of addresses of this process: which are taken, what is mapped there, and
//! the promises about a range that somebody else has mapped. It does not know why: file media and user mappings do.
//!
//! Everything that changes the address space is here, so that it can be seen in one place that
//! only addresses of a [`Reservation`] are ever mapped over.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags};

use crate::bytes::Window;
use crate::media::{MediaError, MediaFacts, RangeMedia};
use crate::sync::OnceLock;
use crate::uffd;
use crate::units::{Order, PAGE_SIZE};
use crate::vma::Access;

pub(crate) use crate::uffd::Uffd;

/// How a file is mapped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sharing {
    /// `MAP_SHARED`.
    Shared,
    /// `MAP_SHARED | MAP_POPULATE`.
    Prefaulted,
    /// `MAP_PRIVATE`: the host copies a page with its first store.
    Private,
    /// `MAP_SHARED_VALIDATE | MAP_SYNC`: refused by all but persistent memory.
    Synchronous,
}

impl Sharing {
    fn flags(self) -> MapFlags {
        match self {
            Sharing::Shared => MapFlags::SHARED,
            Sharing::Prefaulted => MapFlags::SHARED | MapFlags::POPULATE,
            Sharing::Private => MapFlags::PRIVATE | MapFlags::NORESERVE,
            Sharing::Synchronous => MapFlags::SHARED_VALIDATE | MapFlags::SYNC,
        }
    }
}

impl Access {
    fn protection(self) -> ProtFlags {
        match self {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        }
    }
}

/// Addresses of this process that are mapped and unmapped as a whole.
///
/// # Invariants
///
/// 1. The addresses of `window` were reserved by this value, and only its drop gives them back.
/// 2. No Rust reference covers them, but those of [`FrozenBytes`](crate::FrozenBytes), which maps
///    them for reading only.
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

    /// Maps a file over a range of bytes, from its byte `offset` on. Both are aligned to the pages
    /// of the file's host, and the host has mapped the file before: one that refuses late would
    /// leave a hole that belongs to nobody.
    pub(crate) fn map_file(
        &self,
        at: Range<usize>,
        file: BorrowedFd<'_>,
        offset: u64,
        access: Access,
        sharing: Sharing,
    ) -> io::Result<()> {
        let address = self.address(&at);
        let (protection, flags) = (access.protection(), sharing.flags() | MapFlags::FIXED);
        // SAFETY: the range is inside the reservation (invariant 1), so what it replaces is ours.
        unsafe { rustix::mm::mmap(address, at.len(), protection, flags, file, offset) }?;
        Ok(())
    }

    /// Maps nothing over a range: a touch is SIGBUS.
    pub(crate) fn map_void(&self, at: Range<usize>) -> io::Result<()> {
        // Each page has its own place in the file, so that the host joins neighbours to one area:
        // a process may have only so many.
        let offset = wide(at.start);
        self.map_file(at, empty_file()?, offset, Access::Write, Sharing::Shared)
    }

    /// Maps zeros over a range, for reading: a store is SIGSEGV.
    pub(crate) fn map_zeros(&self, at: Range<usize>) -> io::Result<()> {
        self.map_anonymous(at, ProtFlags::READ)
    }

    /// Maps zeros over a range, for loads and stores.
    pub(crate) fn map_private_zeros(&self, at: Range<usize>) -> io::Result<()> {
        self.map_anonymous(at, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Forbids every access to a range: a touch is SIGSEGV.
    pub(crate) fn forbid(&self, at: Range<usize>) -> io::Result<()> {
        self.map_anonymous(at, ProtFlags::empty())
    }

    /// Makes every page of a range missing, in one step: a touch stops the thread until the page
    /// was mapped and the thread woken.
    ///
    /// # Blocking
    ///
    /// Waits until somebody has read a message from `uffd`.
    pub(crate) fn map_missing(&self, at: Range<usize>, uffd: &Uffd) -> io::Result<()> {
        let fresh = Fresh::missing(at.len(), uffd)?;
        self.replace(&at, fresh)
    }

    /// Makes a touch of a range fail as that of memory that was found to be bad, in one step, until
    /// something is mapped over it.
    ///
    /// # Blocking
    ///
    /// As [`Reservation::map_missing`].
    ///
    /// # Errors
    ///
    /// Returns the host's error; one before Linux 6.6 cannot do it. Everything is as it was then.
    pub(crate) fn map_failed(&self, at: Range<usize>, uffd: &Uffd) -> io::Result<()> {
        let fresh = Fresh::missing(at.len(), uffd)?;
        uffd.poison(fresh.start.addr(), fresh.len)?;
        self.replace(&at, fresh)
    }

    /// The same for missing pages of a range that was made missing before, where they are: it takes no
    /// area of the host, and may end in the middle.
    pub(crate) fn mark_failed(&self, at: Range<usize>, uffd: &Uffd) -> Result<(), Errno> {
        uffd.poison(self.address(&at).addr(), at.len())
    }

    /// Moves fresh memory over a range of the same length.
    fn replace(&self, at: &Range<usize>, fresh: Fresh) -> io::Result<()> {
        assert!(at.len() == fresh.len, "vma: what replaces a range has its length");
        let target = self.address(at);
        let flags = MremapFlags::MAYMOVE;
        // SAFETY: nobody has the fresh range, and the target is inside the reservation
        // (invariant 1), so what it replaces is ours.
        unsafe { rustix::mm::mremap_fixed(fresh.start, fresh.len, fresh.len, flags, target) }?;
        fresh.moved_away();
        Ok(())
    }

    /// Fills the missing pages of a range with zeros that are protected against writing: a store
    /// stops the thread as a missing page does. Wakes nobody.
    ///
    /// # Errors
    ///
    /// Returns [`Errno::NOENT`] if part of the range was not made missing in one piece.
    pub(crate) fn fill_hole(&self, at: Range<usize>, uffd: &Uffd) -> Result<(), Errno> {
        let first = self.address(&at).addr();
        let mut done = 0;
        while done < at.len() {
            match uffd.copy(first + done, &ZEROS[..(at.len() - done).min(ZEROS.len())]) {
                Ok(copied) => done += copied,
                // The page is part of a hole already.
                Err(Errno::EXIST) => done += PAGE_SIZE,
                // Another thread is moving a range; it is about to finish.
                Err(Errno::AGAIN) => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills the missing pages of a range with a copy of `bytes`, in the way of a hole.
    ///
    /// # Errors
    ///
    /// Returns [`Errno::NOENT`] if part of the range was not made missing in one piece, and
    /// [`Errno::EXIST`] if a page of it is not missing.
    pub(crate) fn fill_copy(
        &self,
        at: Range<usize>,
        bytes: &[u8],
        uffd: &Uffd,
    ) -> Result<(), Errno> {
        let first = self.address(&at).addr();
        let mut done = 0;
        while done < bytes.len() {
            match uffd.copy(first + done, &bytes[done..]) {
                Ok(copied) => done += copied,
                Err(Errno::AGAIN) => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Permits stores to a range of a hole or a copy. Wakes nobody.
    pub(crate) fn unprotect(&self, at: Range<usize>, uffd: &Uffd) -> Result<(), Errno> {
        let first = self.address(&at).addr();
        loop {
            match uffd.unprotect(first, at.len()) {
                // Another thread is moving a range; it is about to finish.
                Err(Errno::AGAIN) => std::thread::yield_now(),
                done => return done,
            }
        }
    }

    /// Keeps a range out of the children of this process, where no zap would reach it.
    pub(crate) fn keep_from_children(&self, at: Range<usize>) -> io::Result<()> {
        let address = self.address(&at);
        // SAFETY: the range is ours by invariant 1, and the advice changes no bytes here.
        unsafe { rustix::mm::madvise(address, at.len(), Advice::LinuxDontFork) }?;
        Ok(())
    }

    /// Forbids every access to what is mapped in a range, which stays there.
    pub(crate) fn forbid_in_place(&self, at: Range<usize>) -> io::Result<()> {
        let address = self.address(&at);
        // SAFETY: the range is ours by invariant 1; a touch is SIGSEGV, as in a new reservation.
        unsafe { rustix::mm::mprotect(address, at.len(), MprotectFlags::empty()) }?;
        Ok(())
    }

    /// Lets the host swap a range again, in a process that locks its memory.
    pub(crate) fn unlock(&self, at: Range<usize>) {
        let address = self.address(&at);
        // SAFETY: the range is ours by invariant 1, and no byte changes.
        let _ = unsafe { rustix::mm::munlock(address, at.len()) };
    }

    /// Asks for huge pages in a range, which the host may refuse.
    pub(crate) fn advise_huge(&self, at: Range<usize>) {
        let address = self.address(&at);
        // SAFETY: the range is ours by invariant 1, and the advice changes no bytes.
        let _ = unsafe { rustix::mm::madvise(address, at.len(), Advice::LinuxHugepage) };
    }

    /// Makes a range fail when it is touched, as memory does that was found to be bad, until it is
    /// mapped again. It must not have been touched before.
    #[cfg(test)]
    pub(crate) fn fail(&self, at: Range<usize>) -> io::Result<Uffd> {
        let uffd = Uffd::with_features(0)?;
        let (start, len) = (self.address(&at).addr(), at.len());
        // SAFETY: the range is ours by invariant 1, and every touch of it is answered by the mark.
        unsafe { uffd.register(start, len, uffd::UFFDIO_REGISTER_MODE_MISSING) }?;
        uffd.poison(start, len)?;
        Ok(uffd)
    }

    /// Maps anonymous memory over a range.
    fn map_anonymous(&self, at: Range<usize>, protection: ProtFlags) -> io::Result<()> {
        let address = self.address(&at);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the range is inside the reservation (invariant 1), so what it replaces is ours.
        unsafe { rustix::mm::mmap_anonymous(address, at.len(), protection, flags) }?;
        Ok(())
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

impl RangeMedia {
    /// Makes `len` bytes from `start` on a medium. They may be mapped to anything, and may fail.
    ///
    /// # Safety
    ///
    /// Until the medium is dropped:
    ///
    /// 1. The addresses stay mapped, or at least are given to nobody else: whoever unmaps them
    ///    keeps them reserved.
    /// 2. No Rust reference covers a byte of them. Others may load and store through pointers, as
    ///    other threads, processes and devices do.
    /// 3. If `facts` permit stores, every store to them is harmless: a device's window may start
    ///    something.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::Empty`], or [`MediaError::UnalignedRange`] or
    /// [`MediaError::PartialPage`] if the range is no whole number of the pages that `facts` tell.
    pub unsafe fn new(
        start: NonNull<u8>,
        len: usize,
        facts: MediaFacts,
    ) -> Result<RangeMedia, MediaError> {
        RangeMedia::check(start.addr().get(), len, facts)?;
        // SAFETY: the invariants of a window are the caller's promises 1 and 2.
        let window = unsafe { Window::new(start, len) };
        Ok(RangeMedia::of_window(window, facts))
    }

    /// Says which file the range maps, from its byte `start` on, so that users can map it too and
    /// frozen pages can be read in place ([`FrozenBytes`](crate::FrozenBytes)).
    ///
    /// # Safety
    ///
    /// Until the medium and every mapping of its pages are dropped:
    ///
    /// 1. The bytes of the file from `start` on are those of the range: what is stored to the one
    ///    is loaded from the other.
    /// 2. Nobody stores to the bytes of a page while the page is frozen. Page maps refuse to; for
    ///    everybody else with access to the file or the range, such as a guest or a device, it is
    ///    the caller's promise. [`FrozenBytes`](crate::FrozenBytes) lends references to the bytes.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::UnalignedRange`], [`MediaError::PartialPage`] or
    /// [`MediaError::Misaligned`] if the file's pages are larger than was told and do not fit,
    /// [`MediaError::NotInFile`] if the file is too short, and what
    /// [`FileMedia::from_file`](crate::media::FileMedia::from_file) returns of a file that is no
    /// medium.
    pub unsafe fn backed_by(self, file: File, start: u64) -> Result<RangeMedia, MediaError> {
        self.with_backing(file, start)
    }
}

/// Gives addresses back that the caller has reserved and that nobody uses.
fn unmap(start: *mut c_void, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: the only callers are the constructor of a reservation, for what it reserved too
    // much, its drop, and the drop of a fresh range, so nobody else has the addresses.
    let unmapped = unsafe { rustix::mm::munmap(start, len) };
    // In the middle of an area that cannot be divided they stay taken, which does no other harm.
    let is_kept = unmapped.err().is_some_and(|error| error == Errno::NOMEM);
    assert!(unmapped.is_ok() || is_kept, "vma: a reservation can be given back");
}

/// Opens what is mapped where a touch is SIGBUS, once for this process.
pub(crate) fn open_void() -> io::Result<()> {
    empty_file().map(drop)
}

/// A file without bytes, to be mapped where a touch is SIGBUS.
fn empty_file() -> io::Result<BorrowedFd<'static>> {
    static EMPTY: OnceLock<OwnedFd> = OnceLock::new();
    if EMPTY.get().is_none() {
        let file = rustix::fs::memfd_create("udax-void", MemfdFlags::CLOEXEC)?;
        // Another thread may have been faster; its file is as good.
        let _ = EMPTY.set(file);
    }
    Ok(EMPTY.get().expect("it was set above").as_fd())
}

/// A mapping of its own: anonymous memory on its way to a reservation, or a file that the host is
/// asked to accept.
///
/// # Invariants
///
/// 1. `start..start + len` was mapped by this value, and nobody else knows it.
pub(crate) struct Fresh {
    start: *mut c_void,
    len: usize,
}

impl Fresh {
    /// Memory that can be loaded from and stored to, none of which is there.
    ///
    /// It is forbidden until its faults are reported: in a process that locks its memory (`mlockall`
    /// with `MCL_FUTURE`) the host fills what is permitted at once, and nobody would be asked.
    fn missing(len: usize, uffd: &Uffd) -> io::Result<Fresh> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let forbidden = ProtFlags::empty();
        // SAFETY: without MAP_FIXED the kernel chooses addresses that nobody uses.
        let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, forbidden, flags) }?;
        // INVARIANT: 1 by the line above; from here on drop unmaps it.
        let fresh = Fresh { start, len };
        // SAFETY: the range is ours by invariant 1, and the advice changes no bytes.
        unsafe { rustix::mm::madvise(start, len, Advice::LinuxDontFork) }?;
        let mode = uffd::UFFDIO_REGISTER_MODE_MISSING | uffd::UFFDIO_REGISTER_MODE_WP;
        // SAFETY: the range is ours by invariant 1; whoever it is moved to answers its faults.
        unsafe { uffd.register(start.addr(), len, mode) }?;
        let permitted = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: the range is ours by invariant 1, and nobody knows its addresses.
        unsafe { rustix::mm::mprotect(start, len, permitted) }?;
        Ok(fresh)
    }

    /// Maps a file from its byte `offset` on.
    pub(crate) fn of_file(
        len: usize,
        file: BorrowedFd<'_>,
        offset: u64,
        access: Access,
        sharing: Sharing,
    ) -> io::Result<Fresh> {
        let (protection, flags) = (access.protection(), sharing.flags());
        // SAFETY: without MAP_FIXED the kernel chooses addresses that nobody uses.
        let start =
            unsafe { rustix::mm::mmap(ptr::null_mut(), len, protection, flags, file, offset) }?;
        // INVARIANT: 1 by the line above; from here on drop unmaps it.
        Ok(Fresh { start, len })
    }

    /// Forgets the addresses: mremap has given them back.
    fn moved_away(self) {
        std::mem::forget(self);
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        unmap(self.start, self.len);
    }
}

/// What a hole is filled with, a piece at a time.
static ZEROS: [u8; 16 * PAGE_SIZE] = [0; 16 * PAGE_SIZE];

/// An address or a length in the type of the kernel's structures.
fn wide(value: usize) -> u64 {
    u64::try_from(value).expect("usize has at most 64 bits")
}
