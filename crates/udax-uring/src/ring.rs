//! Rings: queues of requests to the kernel, with no buffers yet.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use io_uring::IoUring;

use crate::buffer::{FixedBuffer, Layout};
use crate::error::{RegisterError, SetupError};
use crate::registered::Registered;
use crate::shared::Foreign;
use crate::table::Table;

/// A ring of the kernel without buffers.
///
/// ```
/// use udax_uring::Ring;
/// match Ring::new(8) {
///     Ok(ring) => drop(ring),
///     Err(refused) => println!("{refused}"),
/// }
/// ```
pub struct Ring {
    uring: IoUring,
}

/// Buffers that the kernel did not take, and why.
///
/// As an error it says why; the buffers are dropped with it unless they are taken out.
pub struct Refused<B> {
    /// What was to be registered.
    pub buffers: Vec<B>,
    /// Why it was not.
    pub error: RegisterError,
}

impl Ring {
    /// Makes a ring that takes up to `entries` requests at a time, rounded up to a power of two.
    ///
    /// More requests than that wait in this process.
    ///
    /// # Errors
    ///
    /// [`SetupError::NotPermitted`] where the host has no `io_uring` or forbids it.
    pub fn new(entries: u32) -> Result<Ring, SetupError> {
        IoUring::new(entries).map(|uring| Ring { uring }).map_err(SetupError::of)
    }

    /// Registers `buffers`, each of them under its place in the list.
    ///
    /// The kernel counts them as locked memory of the user (`ulimit -l`), and takes references of
    /// their pages, which it then keeps: it does not look at the mapping again.
    ///
    /// # Errors
    ///
    /// Gives the buffers back if the kernel refuses them, or one of them is pinned for
    /// [`PinTerm::Short`](udax::PinTerm::Short); [`RegisterError`] says why.
    pub fn register<B: FixedBuffer>(self, buffers: Vec<B>) -> Result<Registered<B>, Refused<B>> {
        let layout = match Layout::of(&buffers) {
            Ok(layout) => layout,
            Err(error) => return Err(Refused { buffers, error }),
        };
        let runs: Vec<_> = layout.runs().collect();
        let writable = buffers.iter().map(B::is_writable).collect();
        match Table::register(self.uring, buffers, &runs) {
            Ok(table) => Ok(Registered::new(table, layout, writable)),
            Err((buffers, error)) => Err(Refused { buffers, error: RegisterError::of(error) }),
        }
    }

    /// Uses the buffers that another process registers with this ring by [`lend`](crate::lend).
    ///
    /// The ring is the device then, and the other process who holds the memory: requests go on when
    /// that process is gone. Until it has registered them, requests end with an error. A process
    /// that is started from here gets the ring as one of its standard streams.
    ///
    /// # Errors
    ///
    /// [`RegisterError::TooMany`], with the description given back.
    pub fn adopt(self, foreign: Foreign) -> Result<Registered<Foreign>, Refused<Foreign>> {
        match foreign.layout() {
            Ok(layout) => {
                let table = Table::adopt(self.uring, vec![foreign]);
                Ok(Registered::new(table, layout, vec![true]))
            }
            Err(error) => Err(Refused { buffers: vec![foreign], error }),
        }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.uring.as_fd()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("entries", &self.uring.params().sq_entries()).finish()
    }
}

impl<B> fmt::Debug for Refused<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut refused = f.debug_struct("Refused");
        refused.field("buffers", &self.buffers.len()).field("error", &self.error).finish()
    }
}

impl<B> fmt::Display for Refused<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<B> std::error::Error for Refused<B> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}
