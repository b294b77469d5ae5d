//! The fault service: the threads that answer the faults of lazy user mappings.
//!
//! This file owns the two threads and the list of mappings they answer for. It does not decide
//! what a fault maps: a [`FaultSink`] does.
//!
//! Two threads, because a zap waits until the kernel's message about it was read (see vma.rs), and
//! a sink that holds a lock may be waiting for the one who zaps. So one thread only reads: it takes
//! no lock that is held during a zap, and hands the faults to the other, which calls the sinks.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use crate::reserve::Uffd;
use crate::space::Space;
use crate::sync::{Arc, Mutex, Weak, mpsc};
use crate::uffd::{MESSAGE_SIZE, PageFault};
use crate::units::{PAGE_SIZE, VmaOff};
use crate::vma::Access;

/// Messages that the reader takes with one call.
const BATCH: usize = 16;

/// Resolves the faults of a lazy [`Vma`](crate::Vma).
///
/// Called on the thread of the service with no lock of this crate held, for one fault after the
/// other. It maps something over the page: pages, a hole if the access is a read, or a void. What
/// it leaves unmapped becomes a void, so that no thread waits for ever. The faulting thread is
/// woken when it returns.
pub trait FaultSink: Send + Sync {
    /// Maps at `at` what belongs there.
    ///
    /// A fault may be stale: it is reported once per thread, and the page may have been mapped for
    /// another thread since. So a sink maps what the file has at this moment; one that maps a hole
    /// for every read would undo the block that a store between has allocated.
    fn fault(&self, at: VmaOff, access: Access);
}

/// The threads that answer faults; one pool needs one.
///
/// They end when the service and every [`Vma`](crate::Vma) reserved with it are dropped, and a
/// call of a sink that is under way has returned.
#[derive(Clone, Debug)]
pub struct FaultService {
    shared: Arc<Shared>,
}

/// What the service, its vmas and its threads share.
#[derive(Debug)]
struct Shared {
    registry: Arc<Registry>,
    /// Readable when the reader has to end.
    stop: Arc<OwnedFd>,
    reader: Option<JoinHandle<()>>,
}

/// The spaces whose faults are answered, by their first address.
#[derive(Debug)]
struct Registry {
    uffd: Uffd,
    spaces: Mutex<BTreeMap<usize, Weak<Space>>>,
}

impl FaultService {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// Returns an error of kind [`io::ErrorKind::PermissionDenied`] or
    /// [`io::ErrorKind::Unsupported`] where the host gives no userfaultfd that sees faults in
    /// system calls too; then mappings have to be populated eagerly.
    pub fn new() -> io::Result<FaultService> {
        let uffd = Uffd::open()?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let registry = Arc::new(Registry { uffd, spaces: Mutex::default() });
        let (sender, receiver) = mpsc::channel();
        let reader = Reader { registry: Arc::clone(&registry), stop: Arc::clone(&stop), sender };
        let reader = spawn("udax-fault-read", move || reader.run())?;
        let shared = Arc::new(Shared { registry, stop, reader: Some(reader) });
        // Without a worker the service is dropped here, which ends the reader.
        let registry = Arc::clone(&shared.registry);
        spawn("udax-fault", move || receiver.into_iter().for_each(|fault| registry.answer(fault)))?;
        Ok(FaultService { shared })
    }

    /// The descriptor that ranges are registered with.
    pub(crate) fn uffd(&self) -> &Uffd {
        &self.shared.registry.uffd
    }

    /// Answers the faults of `space` from here on.
    pub(crate) fn add(&self, space: &Arc<Space>) {
        let mut spaces = self.shared.registry.spaces.lock();
        spaces.insert(space.first_address(), Arc::downgrade(space));
    }

    /// Answers no fault of `space` any more. One that is being answered may still be.
    pub(crate) fn remove(&self, space: &Space) {
        self.shared.registry.spaces.lock().remove(&space.first_address());
    }
}

impl Drop for Shared {
    /// Ends the reader, and the worker with it, for which nobody waits: it may be the thread that
    /// drops this, or be in a sink that needs a lock of this thread.
    fn drop(&mut self) {
        if rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).is_err() {
            return;
        }
        if let Some(reader) = self.reader.take() {
            // If it panicked, it has said so.
            let _ = reader.join();
        }
    }
}

impl Registry {
    /// Has the page of a fault mapped and wakes who waits for it.
    fn answer(&self, fault: PageFault) {
        if let Some(space) = self.find(fault.address) {
            let access = if fault.is_write { Access::Write } else { Access::Read };
            space.answer(fault.address, access);
        }
        // Also without a space: the mapping was dropped, and the thread has to find out.
        self.uffd.wake(fault.address, PAGE_SIZE);
    }

    /// The space that holds an address.
    fn find(&self, address: usize) -> Option<Arc<Space>> {
        let spaces = self.spaces.lock();
        let (_, space) = spaces.range(..=address).next_back()?;
        space.upgrade().filter(|space| space.holds(address))
    }
}

/// The thread that reads messages, and does nothing that can wait for anything else.
struct Reader {
    registry: Arc<Registry>,
    stop: Arc<OwnedFd>,
    sender: mpsc::Sender<PageFault>,
}

impl Reader {
    /// Reads until the service stops.
    fn run(self) {
        let (uffd, stop) = (self.registry.uffd.as_fd(), &*self.stop);
        loop {
            let mut ready = [PollFd::new(&uffd, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => panic!("faults: cannot wait for faults: {error}"),
            }
            if !ready[1].revents().is_empty() {
                return;
            }
            self.read_batch();
        }
    }

    /// Queues the faults that have arrived.
    fn read_batch(&self) {
        let mut bytes = [0; MESSAGE_SIZE * BATCH];
        let len = match rustix::io::read(self.registry.uffd.as_fd(), &mut bytes) {
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(error) => panic!("faults: cannot read faults: {error}"),
        };
        let (messages, _) = bytes[..len].as_chunks::<MESSAGE_SIZE>();
        for fault in messages.iter().filter_map(PageFault::decode) {
            // The worker ends after the reader only.
            let _ = self.sender.send(fault);
        }
    }
}

/// Starts a named thread.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(body)
}

/// A service for a test, which says that it skips where the host permits none.
#[cfg(test)]
pub(crate) fn of_test() -> Option<FaultService> {
    FaultService::new().inspect_err(|error| crate::skipped::skipped(error)).ok()
}
