//! The addresses of a user mapping, and the faults that are being answered there.
//!
//! This file owns which addresses they are and who answers their faults. What is mapped there is
//! up to [`vma`](crate::vma) and [`show`](crate::show).

use crate::areas::{self, Cost};
use crate::faults::{FaultService, FaultSink};
use crate::reserve::{self, Reservation};
use crate::sync::{Arc, Mutex};
use crate::units::{PAGE_SIZE, Pages, VmaOff};
use crate::vma::Access;
use std::fmt;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The addresses of a vma, and who answers their faults.
#[derive(Debug)]
pub(crate) struct Space {
    reservation: Reservation,
    lazy: Option<Lazy>,
}

/// What a lazy space has more.
struct Lazy {
    service: FaultService,
    sink: Arc<dyn FaultSink>,
    faults: Mutex<Faults>,
}

/// The faults whose sinks have not returned. Few: there are as many as threads that serve them.
#[derive(Debug, Default)]
struct Faults {
    pending: Vec<PendingFault>,
    /// Numbers them.
    next: u64,
}

/// A fault whose sink has not returned.
#[derive(Debug)]
struct PendingFault {
    number: u64,
    page: Range<usize>,
    access: Access,
    is_answered: bool,
    is_refused: bool,
}

impl Space {
    /// Addresses where a touch is SIGBUS.
    pub(crate) fn eager(pages: Pages) -> io::Result<Space> {
        let space = Space::new(pages, None)?;
        space.reservation.map_void(space.whole())?;
        Ok(space)
    }

    /// Addresses whose pages `sink` maps when they are first touched.
    pub(crate) fn lazy(
        pages: Pages,
        service: &FaultService,
        sink: Arc<dyn FaultSink>,
    ) -> io::Result<Space> {
        let lazy = Lazy { service: service.clone(), sink, faults: Mutex::default() };
        let space = Space::new(pages, Some(lazy))?;
        space.reservation.map_missing(space.whole(), service.uffd())?;
        Ok(space)
    }

    fn new(pages: Pages, lazy: Option<Lazy>) -> io::Result<Space> {
        let len = pages.0.checked_mul(wide(PAGE_SIZE)).and_then(|len| usize::try_from(len).ok());
        let reservation = Reservation::new(len.ok_or(io::ErrorKind::OutOfMemory)?)?;
        // A touch that cannot be served has to be SIGBUS also when descriptors have run out.
        reserve::open_void()?;
        areas::keep_spare();
        Ok(Space { reservation, lazy })
    }

    pub(crate) fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// Who answers the faults of a lazy space.
    pub(crate) fn service(&self) -> Option<&FaultService> {
        self.lazy.as_ref().map(|lazy| &lazy.service)
    }

    /// The number of pages.
    pub(crate) fn pages(&self) -> Pages {
        Pages::holding(wide(self.whole().end))
    }

    /// The first address.
    pub(crate) fn first_address(&self) -> usize {
        self.reservation.window().start().addr().get()
    }

    /// Whether an address is one of this space.
    pub(crate) fn holds(&self, address: usize) -> bool {
        address.checked_sub(self.first_address()).is_some_and(|at| self.whole().contains(&at))
    }

    /// Has the sink map the page of a fault, and maps a void if it does not. Returns whether the sink
    /// has refused it.
    pub(crate) fn answer(&self, address: usize, access: Access) -> bool {
        let lazy = self.lazy.as_ref().expect("vma: only lazy spaces are registered");
        let at = VmaOff::of_byte(wide(address - self.first_address()));
        let page = self.bytes(at, Pages(1));
        let number = lazy.faults.lock().begin(page.clone(), access);
        // A sink that panics has said so; the threads that wait must not pay for it.
        let _ = catch_unwind(AssertUnwindSafe(|| lazy.sink.fault(at, access)));
        let fault = lazy.faults.lock().end(number);
        if !fault.is_answered {
            // If the host refuses this too, the thread faults again, and is answered again.
            let _ = areas::with_spare(Cost::Some, || self.reservation.map_void(page.clone()));
        }
        fault.is_refused
    }

    /// Lets the next touch of a page ask the sink that has refused one.
    pub(crate) fn retry(&self, address: usize) {
        let lazy = self.lazy.as_ref().expect("vma: only lazy spaces are registered");
        let at = VmaOff::of_byte(wide(address - self.first_address()));
        let _ = catch_unwind(AssertUnwindSafe(|| lazy.sink.retry(at)));
    }

    /// Notes that faults in `bytes` that are being answered got what they wanted.
    pub(crate) fn answered(&self, bytes: &Range<usize>, satisfies: impl Fn(Access) -> bool) {
        let Some(lazy) = &self.lazy else { return };
        for fault in &mut lazy.faults.lock().pending {
            if bytes.contains(&fault.page.start) && satisfies(fault.access) {
                fault.is_answered = true;
            }
        }
    }

    /// Notes that faults in `bytes` that are being answered could not be served.
    pub(crate) fn refused(&self, bytes: &Range<usize>) {
        let Some(lazy) = &self.lazy else { return };
        for fault in &mut lazy.faults.lock().pending {
            if bytes.contains(&fault.page.start) {
                (fault.is_answered, fault.is_refused) = (true, true);
            }
        }
    }

    /// All bytes.
    pub(crate) fn whole(&self) -> Range<usize> {
        0..self.reservation.window().len()
    }

    /// The bytes of `pages` pages from `at` on.
    pub(crate) fn bytes(&self, at: VmaOff, pages: Pages) -> Range<usize> {
        let end =
            at.0.checked_add(pages.0)
                .filter(|&end| at.0 < end && end <= Pages::holding(wide(self.whole().end)).0);
        let end = end.expect("vma: a range of pages is not empty and lies inside the vma");
        let byte = |page: u64| usize::try_from(page).expect("the vma has that many") * PAGE_SIZE;
        byte(at.0)..byte(end)
    }
}

impl Faults {
    /// Notes a fault, and returns its number.
    fn begin(&mut self, page: Range<usize>, access: Access) -> u64 {
        let number = self.next;
        self.next += 1;
        let (is_answered, is_refused) = (false, false);
        self.pending.push(PendingFault { number, page, access, is_answered, is_refused });
        number
    }

    /// Forgets a fault.
    fn end(&mut self, number: u64) -> PendingFault {
        let at = self.pending.iter().position(|fault| fault.number == number);
        self.pending.swap_remove(at.expect("vma: a fault ends once"))
    }
}

impl fmt::Debug for Lazy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazy").field("faults", &self.faults).finish_non_exhaustive()
    }
}

/// An address or a length in the unit of media.
fn wide(value: usize) -> u64 {
    u64::try_from(value).expect("usize has at most 64 bits")
}
