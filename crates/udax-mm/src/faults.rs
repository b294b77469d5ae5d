//! The fault service: the threads that answer the faults of lazy user mappings.
//!
//! This file owns the threads, the list of mappings they answer for, and when a page that was refused
//! may be asked for again. It does not decide what a fault maps: a [`FaultSink`] does. How many threads there are is up to [`hands`](crate::hands).
//!
//! Every thread waits for a message, reads one, and serves it if it is a fault. There is no thread
//! that only reads, because handing each fault to another thread would cost a switch of threads
//! each time. But somebody waits for messages at all times: a zap waits until the kernel's message
//! about it was read (see vma.rs), and a sink that holds a lock may be waiting for the one who
//! zaps. So whoever takes no fault takes no lock that is held during a zap.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

use crate::hands::{Hands, SPARE, Take};
use crate::reserve::Uffd;
use crate::signals;
use crate::space::Space;
use crate::sync::{Arc, Mutex, Weak};
use crate::uffd::{MESSAGE_SIZE, PageFault};
use crate::units::{PAGE_SIZE, VmaOff};
use crate::vma::Access;

/// How often a thread looks for a fault before it sleeps. Who was woken often faults again a moment
/// later, and to be woken takes longer than these looks.
const LOOKS: usize = 16;
/// How long a thread waits that is not needed.
const IDLE: Duration = Duration::from_secs(2);
/// How long a page stays void that could not be had. The host has signalled whoever waited for it by
/// then; a thread that it has not asks again.
const VOID: Duration = Duration::from_millis(10);

/// Marks the event of a message.
const MESSAGE: u64 = 0;
/// Marks the event of the end.
const STOP: u64 = 1;

/// Resolves the faults of a lazy [`Vma`](crate::Vma).
///
/// Called on a thread of the service with no lock of this crate held. Several threads call it at
/// the same time, for faults of different pages and for those of one page; one that waits keeps
/// none of the others from being answered, as long as they are fewer than 64. It maps something
/// over the page: pages, a hole if the access is a read, or a void. What it leaves unmapped becomes
/// a void, so that no thread waits for ever. The faulting thread is woken when it returns.
pub trait FaultSink: Send + Sync {
    /// Maps at `at` what belongs there.
    ///
    /// A fault may be stale: it is reported once per thread, and the page may have been mapped for
    /// another thread since. So a sink maps what the file has at this moment, or says that the
    /// thread is to [look again](crate::Vma::look_again); one that maps a hole for every read would
    /// undo the block that a store between has allocated.
    fn fault(&self, at: VmaOff, access: Access);

    /// Lets the next touch of `at` ask again, if the page is still void since a fault was
    /// [refused](crate::Vma::refuse). Called a moment after that, by a thread of the service: what
    /// stood in the way may be gone, and nobody tells of it.
    fn retry(&self, at: VmaOff) {
        let _ = at;
    }
}

/// The threads that answer faults; one pool needs one.
///
/// There are two while nothing happens, and as many as there are faults that are served at once, up
/// to 64. They end when the service and every [`Vma`](crate::Vma) reserved with it are dropped, and
/// a call of a sink that is under way has returned.
#[derive(Clone, Debug)]
pub struct FaultService {
    shared: Arc<Shared>,
}

/// What the service and its vmas share.
#[derive(Debug)]
struct Shared(Arc<Crew>);

/// What the threads share: where messages come from, and the spaces whose faults they answer.
#[derive(Debug)]
struct Crew {
    uffd: Uffd,
    /// Readable when the threads have to end.
    stop: OwnedFd,
    /// Tells one of the threads that wait of each message, and all of them of the end.
    events: OwnedFd,
    hands: Mutex<Hands<Task>>,
    /// By their first address.
    spaces: Mutex<BTreeMap<usize, Weak<Space>>>,
    /// In the order in which they were refused.
    refused: Mutex<VecDeque<Refused>>,
}

/// What a thread serves.
#[derive(Debug)]
enum Task {
    Fault(Fault),
    Retry(Refused),
}

/// A page that is void, because it could not be had.
#[derive(Debug)]
struct Refused {
    space: Weak<Space>,
    address: usize,
    since: Instant,
}

/// A fault that was read, and where it belongs.
///
/// The addresses are not given back before it is answered: who is given them next must not get the
/// answer, which may be a void. The thread that faulted may be long gone, because another one that
/// waited for the same page was answered, and both were woken.
#[derive(Debug)]
struct Fault {
    page: PageFault,
    /// None if the mapping was dropped.
    space: Option<Arc<Space>>,
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
        let shared = Shared(Arc::new(Crew::new()?));
        // If one cannot be started the service is dropped here, which ends the others.
        (0..SPARE).try_for_each(|_| start(&shared.0))?;
        Ok(FaultService { shared: Arc::new(shared) })
    }

    /// The descriptor that ranges are registered with.
    pub(crate) fn uffd(&self) -> &Uffd {
        &self.crew().uffd
    }

    /// Answers the faults of `space` from here on.
    pub(crate) fn add(&self, space: &Arc<Space>) {
        let mut spaces = self.crew().spaces.lock();
        spaces.insert(space.first_address(), Arc::downgrade(space));
    }

    /// Answers no fault of `space` any more. One that is being answered may still be.
    pub(crate) fn remove(&self, space: &Space) {
        self.crew().spaces.lock().remove(&space.first_address());
    }

    fn crew(&self) -> &Crew {
        &self.shared.0
    }
}

impl Drop for Shared {
    /// Ends the threads, and waits for none: one may be the thread that drops this, or be in a sink
    /// that needs a lock of this thread.
    fn drop(&mut self) {
        // It is the first write to the counter, which has room for it.
        let _ = rustix::io::write(&self.0.stop, &1_u64.to_ne_bytes());
    }
}

impl Crew {
    fn new() -> io::Result<Crew> {
        let (uffd, stop) = (Uffd::open()?, eventfd(0, EventfdFlags::CLOEXEC)?);
        let events = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&events, uffd.as_fd(), EventData::new_u64(MESSAGE), ONE_MESSAGE)?;
        epoll::add(&events, &stop, EventData::new_u64(STOP), EventFlags::IN)?;
        let (hands, spaces, refused) =
            (Mutex::new(Hands::new()), Mutex::default(), Mutex::default());
        Ok(Crew { uffd, stop, events, hands, spaces, refused })
    }

    /// Serves one fault after the other, until the service ends or this thread is not needed.
    fn run(self: &Arc<Crew>) {
        while let Some(task) = self.next_task() {
            let mut next = Some(task);
            while let Some(task) = next {
                let woken = self.serve(task);
                next = self.hands.lock().done();
                if next.is_none() {
                    // Often the thread that is woken faults again before this one runs on. Then this
                    // one is to read it, who is running, and not one that would have to be woken.
                    self.listen(NOBODY);
                }
                if let Some(address) = woken {
                    self.uffd.wake(address, PAGE_SIZE);
                }
            }
        }
    }

    /// Serves a task. Returns the page whose threads are to be woken.
    fn serve(&self, task: Task) -> Option<usize> {
        match task {
            Task::Fault(fault) => {
                let address = fault.page.address;
                let refused = fault.answer();
                self.refused.lock().extend(refused);
                Some(address)
            }
            Task::Retry(Refused { space, address, .. }) => {
                if let Some(space) = space.upgrade() {
                    space.retry(address);
                }
                None
            }
        }
    }

    /// Waits for a task of this thread. None if it has to end.
    fn next_task(self: &Arc<Crew>) -> Option<Task> {
        loop {
            let found = self.read_message().map(Task::Fault).or_else(|| self.next_retry());
            if let Some(task) = found.and_then(|task| self.take(task)) {
                return Some(task);
            }
            let idle = self.hands.lock().has_surplus().then_some(IDLE);
            let retry = self.until_retry();
            let nothing = Event { flags: EventFlags::empty(), data: EventData::new_u64(STOP) };
            let mut event = [nothing];
            let patience = retry.or(idle).map(timespec);
            match epoll::wait(&self.events, &mut event, patience.as_ref()) {
                Ok(1) if event[0].data.u64() == MESSAGE => {}
                Ok(1) => return None,
                Ok(_) if retry.is_none() && self.hands.lock().leave() => return None,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => panic!("faults: cannot wait for faults: {error}"),
            }
        }
    }

    /// Looks for a fault, and has a thread that waits be told of the next message.
    fn read_message(&self) -> Option<Fault> {
        let fault = (0..LOOKS).find_map(|_| self.look());
        self.listen(ONE_MESSAGE);
        fault
    }

    /// Reads a message if there is one.
    fn look(&self) -> Option<Fault> {
        let mut message = [0; MESSAGE_SIZE];
        // While a message can be read its thread waits, and a mapping that is dropped wakes it: under
        // this lock the mapping is found that the fault is of, and no later one.
        let spaces = self.spaces.lock();
        let fault = match rustix::io::read(self.uffd.as_fd(), &mut message) {
            Ok(_) => PageFault::decode(&message),
            // Another thread has read it, or the one that faulted was killed.
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(error) => panic!("faults: cannot read faults: {error}"),
        };
        fault.map(|page| Fault { page, space: find(&spaces, page.address) })
    }

    /// A page that has been void for long enough.
    fn next_retry(&self) -> Option<Task> {
        let mut refused = self.refused.lock();
        refused.pop_front_if(|first| first.since.elapsed() >= VOID).map(Task::Retry)
    }

    /// How long it is until the first page may be asked for again.
    fn until_retry(&self) -> Option<Duration> {
        self.refused.lock().front().map(|first| VOID.saturating_sub(first.since.elapsed()))
    }

    /// Says which events of messages a thread that waits is told of.
    fn listen(&self, events: EventFlags) {
        let message = EventData::new_u64(MESSAGE);
        let changed = epoll::modify(&self.events, self.uffd.as_fd(), message, events);
        changed.expect("faults: it was added when the service began");
    }

    /// Decides who serves a task. Returns it if this thread does.
    fn take(self: &Arc<Crew>, task: Task) -> Option<Task> {
        // Not locked any more when a thread is started.
        let take = self.hands.lock().take(task);
        match take {
            Take::Serve(task) => Some(task),
            Take::ServeAfterStart(task) if start(self).is_ok() => Some(task),
            Take::ServeAfterStart(task) => self.hands.lock().not_started(task),
            Take::Queued => None,
        }
    }
}

impl Fault {
    /// Has its page mapped. Who waits for it is to be woken then, also without a space: the mapping
    /// was dropped, and the thread has to find out. Returns the page if it could not be had.
    fn answer(self) -> Option<Refused> {
        let Fault { page: PageFault { address, is_write }, space } = self;
        let space = space?;
        let access = if is_write { Access::Write } else { Access::Read };
        let is_refused = space.answer(address, access);
        is_refused.then(|| Refused {
            space: Arc::downgrade(&space),
            address,
            since: Instant::now(),
        })
    }
}

/// The space that holds an address.
fn find(spaces: &BTreeMap<usize, Weak<Space>>, address: usize) -> Option<Arc<Space>> {
    let (_, space) = spaces.range(..=address).next_back()?;
    space.upgrade().filter(|space| space.holds(address))
}

/// One thread is told of one message; reading it asks for the next.
const ONE_MESSAGE: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);
/// No thread is told: one that runs is about to read.
const NOBODY: EventFlags = EventFlags::empty();

/// A timeout for the host.
fn timespec(of: Duration) -> Timespec {
    let seconds = i64::try_from(of.as_secs()).expect("a few seconds");
    Timespec { tv_sec: seconds, tv_nsec: of.subsec_nanos().into() }
}

/// Starts a thread that waits for faults.
fn start(crew: &Arc<Crew>) -> io::Result<()> {
    let (crew, thread) = (Arc::clone(crew), thread::Builder::new().name("udax-fault".into()));
    signals::start_without(|| thread.spawn(move || crew.run()))?;
    Ok(())
}

/// A service for a test, which says that it skips where the host permits none.
#[cfg(test)]
pub(crate) fn of_test() -> Option<FaultService> {
    FaultService::new().inspect_err(|error| crate::skipped::skipped(error)).ok()
}

#[cfg(test)]
mod tests {
    use super::{Access, Crew, FaultService, FaultSink, Shared};
    use crate::sync::atomic::{AtomicU64, Ordering};
    use crate::sync::{Arc, Mutex};
    use crate::units::{Pages, VmaOff};
    use crate::vma::Vma;
    use nix::sys::signal::{SigSet, SigmaskHow, Signal};
    use std::thread;

    #[derive(Default)]
    struct Counts(AtomicU64);

    impl FaultSink for Counts {
        fn fault(&self, _at: VmaOff, _access: Access) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps what of the signals the thread that serves a fault has blocked.
    #[derive(Default)]
    struct Blocked(Mutex<Option<[bool; 2]>>);

    impl FaultSink for Blocked {
        fn fault(&self, _at: VmaOff, _access: Access) {
            let mask = SigSet::thread_get_mask().unwrap();
            let blocked = [Signal::SIGBUS, Signal::SIGTERM].map(|signal| mask.contains(signal));
            *self.0.lock() = Some(blocked);
        }
    }

    #[test]
    fn a_thread_that_serves_faults_takes_the_signals_of_its_own_doing_only() {
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).unwrap();
        let Some(service) = super::of_test() else { return };
        before.thread_set_mask().unwrap();
        let sink = Arc::new(Blocked::default());
        let vma = Vma::reserve_lazy(Pages(1), &service, sink.clone()).unwrap();

        assert!(vma.load_u64(0).is_err(), "nothing is mapped");

        assert_eq!(*sink.0.lock(), Some([false, true]));
    }

    /// Addresses of a service whose only thread is this one.
    fn reserve(service: &FaultService, sink: &Arc<Counts>) -> Vma {
        thread::scope(|scope| {
            let sink = Arc::clone(sink);
            let reserving =
                scope.spawn(move || Vma::reserve_lazy(Pages(1), service, sink).unwrap());
            while !reserving.is_finished() {
                assert!(service.crew().read_message().is_none(), "nobody has the addresses");
                thread::yield_now();
            }
            reserving.join().unwrap()
        })
    }

    /// A thread of the service may have read a fault that another one answered for another thread.
    /// When it comes to serve it, the mapping may be gone, and its addresses another one's.
    #[test]
    fn a_fault_that_was_read_is_of_the_mapping_that_was_there_then() {
        let crew = match Crew::new() {
            Ok(crew) => Arc::new(crew),
            Err(error) => return crate::skipped::skipped(error),
        };
        let service = FaultService { shared: Arc::new(Shared(Arc::clone(&crew))) };
        let [old, new] = [(); 2].map(|()| Arc::new(Counts::default()));
        let vma = reserve(&service, &old);
        let space = Arc::clone(vma.space());
        let touching = thread::spawn(move || space.reservation().window().read(0, &mut [0]));
        let fault = loop {
            if let Some(fault) = crew.read_message() {
                break fault;
            }
            thread::yield_now();
        };
        drop(vma);
        assert!(
            touching.join().unwrap().is_err(),
            "it was woken, and has given the addresses back"
        );

        let others = [(); 8].map(|()| reserve(&service, &new));
        fault.answer();

        let asked = [old, new].map(|sink| sink.0.load(Ordering::Relaxed));
        assert_eq!(asked, [1, 0]);
        drop(others);
    }
}
