//! Leases: pins whose holder can be asked to let go.
//!
//! This file owns how a holder is told: a call, and a file descriptor to poll. Who tells it, and
//! when, is the business of whoever wants the pages; a pin is never taken by force. A lease hangs
//! on the pin, and not on the file, so that it is found by the pages alone: the file may be gone.

use crate::sync::{Arc, Mutex, OnceLock};
use crate::units::FileIndex;
use rustix::event::{EventfdFlags, eventfd};
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// What a holder is told when somebody wants its pages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecallEvent {
    /// The pages of the file that are wanted, of those that the holder pins. The first and the last
    /// folio of a pin may reach outside the range that was asked for.
    pub range: Range<FileIndex>,
    /// When whoever waits gives up; `None` if it waits for as long as it takes, or does not wait.
    pub deadline: Option<Instant>,
    /// What becomes of the pages if the holder keeps them.
    pub why: RecallReason,
}

/// What somebody who wants pinned pages does about the pin.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RecallReason {
    /// It waits: the file keeps its pages for as long as they are pinned.
    Wait,
    /// It does not wait: the file has given up the range already, and the pages are free with the
    /// last unpin. The holder keeps its bytes until then.
    Deferred,
}

type Callback = Box<dyn Fn(&RecallEvent) + Send + Sync>;

/// How a holder wants to be told. By default only by [`Lease::fd`] and [`Lease::is_recalled`].
#[derive(Default)]
pub struct Recall {
    callback: Option<Callback>,
}

/// The right to ask the holder of a pin to let go. A clone is the same lease.
///
/// ```
/// use udax_mm::{FileIndex, Lease, Recall, RecallEvent, RecallReason};
/// use std::sync::{Arc, Mutex};
///
/// let heard = Arc::new(Mutex::new(Vec::new()));
/// let recall = Recall::call({
///     let heard = Arc::clone(&heard);
///     move |event: &RecallEvent| heard.lock().unwrap().push(event.range.clone())
/// });
/// let lease = Lease::new(FileIndex(0)..FileIndex(8), recall);
/// assert!(!lease.is_recalled());
///
/// let range = FileIndex(2)..FileIndex(4);
/// let event = RecallEvent { range: range.clone(), deadline: None, why: RecallReason::Wait };
/// lease.recall(&event);
/// assert!(lease.is_recalled());
/// assert_eq!(*heard.lock().unwrap(), [range]);
/// ```
#[derive(Clone)]
pub struct Lease {
    inner: Arc<Inner>,
}

struct Inner {
    range: Range<FileIndex>,
    recall: Recall,
    /// How often it was recalled. Held while the descriptor is made or written to, so that one that
    /// is made late says it as well.
    recalls: Mutex<u32>,
    fd: OnceLock<OwnedFd>,
}

impl Recall {
    /// Calls `callback` once for each recall, with no lock of udax held, in the thread that wants
    /// the pages: it may drop the pin, and should not take long.
    pub fn call(callback: impl Fn(&RecallEvent) + Send + Sync + 'static) -> Recall {
        Recall { callback: Some(Box::new(callback)) }
    }
}

impl Lease {
    /// A lease on `range` of a file, which nobody has recalled.
    pub fn new(range: Range<FileIndex>, recall: Recall) -> Lease {
        let (recalls, fd) = (Mutex::new(0), OnceLock::new());
        Lease { inner: Arc::new(Inner { range, recall, recalls, fd }) }
    }

    /// The pages of the file that the holder asked for.
    pub fn range(&self) -> Range<FileIndex> {
        self.inner.range.clone()
    }

    /// Whether anybody has wanted pages back since the pin was taken.
    pub fn is_recalled(&self) -> bool {
        *self.inner.recalls.lock() > 0
    }

    /// An eventfd that is readable from the first recall on. Reading it gives the number of recalls
    /// since it was last read, also of those before this was first called, and makes it unreadable
    /// until the next.
    ///
    /// # Errors
    ///
    /// What the host says if it has no descriptor for the first call.
    pub fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        let recalls = self.inner.recalls.lock();
        if let Some(fd) = self.inner.fd.get() {
            return Ok(fd.as_fd());
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let made = eventfd(*recalls, flags)?;
        let fd = self.inner.fd.get_or_init(|| made);
        Ok(fd.as_fd())
    }

    /// Tells the holder. Not to be called with a lock of udax held.
    pub fn recall(&self, event: &RecallEvent) {
        let mut recalls = self.inner.recalls.lock();
        *recalls = recalls.saturating_add(1);
        if let Some(fd) = self.inner.fd.get() {
            // A counter that is full is readable too.
            let _ = rustix::io::write(fd, &1_u64.to_ne_bytes());
        }
        drop(recalls);
        if let Some(callback) = &self.inner.recall.callback {
            callback(event);
        }
    }

    /// Whether both are one lease.
    pub fn is_same(&self, other: &Lease) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl fmt::Debug for Recall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recall").field("calls", &self.callback.is_some()).finish()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("range", &self.inner.range)
            .field("is_recalled", &self.is_recalled())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(lease: &Lease) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(lease.fd().unwrap(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    fn recall(lease: &Lease) {
        let (range, why) = (lease.range(), RecallReason::Wait);
        lease.recall(&RecallEvent { range, deadline: None, why });
    }

    #[test]
    fn the_descriptor_is_readable_from_the_recall_on_whenever_it_was_made() {
        let early = Lease::new(FileIndex(0)..FileIndex(1), Recall::default());
        assert!(!is_readable(&early));
        recall(&early);
        assert!(is_readable(&early));

        let late = Lease::new(FileIndex(0)..FileIndex(1), Recall::default());
        recall(&late);
        assert!(is_readable(&late));
    }

    #[test]
    fn a_descriptor_that_is_made_late_tells_every_recall() {
        let lease = Lease::new(FileIndex(0)..FileIndex(1), Recall::default());
        let mut count = [0; 8];
        for _ in 0..3 {
            recall(&lease);
        }
        rustix::io::read(lease.fd().unwrap(), &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 3);
        recall(&lease);
        rustix::io::read(lease.fd().unwrap(), &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }

    #[test]
    fn each_recall_is_counted_and_what_was_read_is_over() {
        let lease = Lease::new(FileIndex(0)..FileIndex(1), Recall::default());
        let mut count = [0; 8];
        assert!(rustix::io::read(lease.fd().unwrap(), &mut count).is_err(), "it does not block");
        recall(&lease);
        recall(&lease);
        rustix::io::read(lease.fd().unwrap(), &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 2);
        assert!(!is_readable(&lease));
        assert!(lease.is_recalled());
    }
}
