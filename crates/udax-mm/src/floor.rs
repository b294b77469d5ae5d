//! The least that faults and zaps cost on this host, for benchmarks to compare with.
//!
//! This file owns a fault handler without anything that makes it useful: one thread, one range, one
//! file, no sink, no list of ranges, and nothing that keeps it reading during a fault.

use crate::reserve::{Reservation, Sharing, Uffd};
use crate::sync::Arc;
use crate::uffd::{MESSAGE_SIZE, PageFault};
use crate::units::{PAGE_SIZE, Pages};
use crate::vma::Access;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};

/// A range whose pages are mapped one by one when they are touched: an event, an mmap, a wake.
#[derive(Debug)]
pub struct BareFaults {
    range: Arc<Range>,
    stop: Arc<OwnedFd>,
    handler: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug)]
struct Range {
    reservation: Reservation,
    uffd: Uffd,
    file: File,
}

impl BareFaults {
    /// Reserves as many addresses as `file`, a whole number of pages, has bytes.
    ///
    /// # Errors
    ///
    /// Returns the host's error.
    pub fn new(file: File) -> io::Result<BareFaults> {
        let len =
            usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let range = Range { reservation: Reservation::new(len)?, uffd: Uffd::open()?, file };
        let (range, stop) = (Arc::new(range), Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?));
        let handler = {
            let (range, stop) = (Arc::clone(&range), Arc::clone(&stop));
            thread::Builder::new().name("bare-faults".into()).spawn(move || range.serve(&stop))?
        };
        let faults = BareFaults { range, stop, handler: Some(handler) };
        faults.make_missing()?;
        Ok(faults)
    }

    /// Makes every page missing again.
    ///
    /// # Errors
    ///
    /// Returns the host's error.
    pub fn make_missing(&self) -> io::Result<()> {
        let whole = 0..self.range.reservation.window().len();
        self.range.reservation.map_missing(whole, &self.range.uffd)
    }

    /// Loads from a page, or stores to it.
    ///
    /// # Panics
    ///
    /// Panics if the page cannot be touched.
    pub fn touch(&self, page: u64, access: Access) {
        let (window, at) = (self.range.reservation.window(), Pages(page).bytes());
        let touched = match access {
            Access::Read => window.load_u64(at).map(drop),
            Access::Write => window.store_u64(at, 1),
        };
        touched.expect("the handler maps it");
    }
}

impl Drop for BareFaults {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(handler) = self.handler.take() {
            let _ = handler.join();
        }
    }
}

impl Range {
    fn serve(&self, stop: &OwnedFd) -> io::Result<()> {
        loop {
            let uffd = self.uffd.as_fd();
            let mut ready = [PollFd::new(&uffd, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            poll(&mut ready, None)?;
            if !ready[1].revents().is_empty() {
                return Ok(());
            }
            let mut message = [0; MESSAGE_SIZE];
            rustix::io::read(uffd, &mut message)?;
            if let Some(fault) = PageFault::decode(&message) {
                self.answer(fault.address)?;
            }
        }
    }

    fn answer(&self, address: usize) -> io::Result<()> {
        let at = address - self.reservation.window().start().addr().get();
        let offset = u64::try_from(at).expect("usize has at most 64 bits");
        let (bytes, file) = (at..at + PAGE_SIZE, self.file.as_fd());
        self.reservation.map_file(bytes, file, offset, Access::Write, Sharing::Shared)?;
        self.uffd.wake(address, PAGE_SIZE);
        Ok(())
    }
}

/// A file that is mapped as a whole, and touched.
#[derive(Debug)]
pub struct BareMapping(Reservation);

impl BareMapping {
    /// Maps `file`, a whole number of pages, with `MAP_POPULATE`.
    ///
    /// # Errors
    ///
    /// Returns the host's error.
    pub fn new(file: &File) -> io::Result<BareMapping> {
        let len =
            usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let reservation = Reservation::new(len)?;
        reservation.map_file(0..len, file.as_fd(), 0, Access::Write, Sharing::Prefaulted)?;
        Ok(BareMapping(reservation))
    }

    /// Unmaps it: one munmap.
    pub fn unmap(self) {
        drop(self.0);
    }
}
