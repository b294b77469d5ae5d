//! User mappings: real virtual memory that pages of media are mapped into.
//!
//! This file owns what a [`Vma`] is and how pages are taken back, and keeps rule 16 of
//! docs/protocol.md (a zap is atomic). How pages of media are shown is in [`show`](crate::show), the
//! addresses are in [`space`](crate::space). None of them knows what belongs where: a file mapping
//! does, and it holds the references of the folios that it maps here.
//!
//! A lazy vma is a range registered with a userfaultfd. A page that is missing stops the thread
//! that touches it until the sink has mapped media over it, as a shared mapping of the medium's
//! file. A page of a hole is a page of zeros that is protected against writing, so that the first
//! store stops the thread as well. Where nothing belongs, past the end of a file, an empty file is
//! mapped, which makes a touch a SIGBUS as with any file.
//!
//! A zap has to make the range missing in one step: unmapping, mapping anew and registering would
//! show zeros to a thread that touches the page in between. So a fresh range is mapped and
//! registered elsewhere, and moved over the old one. The registration moves along
//! (`UFFD_FEATURE_EVENT_REMAP`); in return mremap waits until the fault service has read a message
//! about it.

mod frozen_bytes;
mod own;

use std::io;

use rustix::io::Errno;

use crate::areas::{self, Cost};
use crate::media::MediaError;
use crate::space::Space;
use crate::sync::Arc;
use crate::units::{Pages, VmaOff};

pub use crate::faults::{FaultService, FaultSink};
pub use frozen_bytes::FrozenBytes;

/// What a thread wants to do with a page, or may do with a mapped one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Loads.
    Read,
    /// Loads and stores.
    Write,
}

/// Whether pages are there at once, or each with its first touch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Prefault {
    /// The host finds each page of the medium when it is first touched.
    No,
    /// The host finds all of them now (`MAP_POPULATE`).
    Yes,
}

/// A range of addresses that pages are mapped into.
///
/// It begins at a multiple of 2 MiB (1 GiB) if it is that long, so that huge pages of media can be
/// mapped where [`VmaOff`] and medium are congruent. Dropping it unmaps everything. No child of
/// this process has any of it, except for what is being mapped at the moment of the fork: the host
/// is told of each range only after it was mapped.
///
/// Methods that change the range take offsets inside it.
///
/// # Panics
///
/// They panic if a range of pages is empty or lies outside the vma: a mapping knows its own size.
///
/// # Examples
///
/// ```
/// use udax_mm::{Access, MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff, Vma, VmaOff};
/// use udax_mm::{media::FileMedia, sync::Arc};
///
/// let media = Arc::new(FileMedia::memfd("example", 1 << 20)?);
/// let range = MediaRange { media, start: 0, pages: Pages(256) };
/// let pgmap = Pgmap::new(vec![range], MemoryType::FsDax)?.try_get_live().expect("it is new");
/// pgmap.write(0x7000, b"hello")?;
/// let folio = pgmap.request_folio(PgmapOff(7), Order::Base)?;
///
/// let vma = Vma::reserve(Pages(4))?;
/// vma.map(VmaOff(1), folio.borrow(), folio.pages(), Access::Read)?;
/// let mut bytes = [0; 5];
/// vma.read(0x1000, &mut bytes)?;
/// assert_eq!(&bytes, b"hello");
///
/// vma.zap(VmaOff(1), Pages(1))?;
/// assert!(vma.read(0x1000, &mut bytes).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Vma {
    space: Arc<Space>,
}

impl Vma {
    /// Reserves addresses. A touch is SIGBUS until something is mapped.
    ///
    /// # Errors
    ///
    /// Returns the host's error if there are not that many addresses, or none were asked for.
    pub fn reserve(pages: Pages) -> io::Result<Vma> {
        Ok(Vma { space: Arc::new(Space::eager(pages)?) })
    }

    /// Reserves addresses whose pages `sink` maps when they are first touched.
    ///
    /// # Errors
    ///
    /// As [`Vma::reserve`].
    pub fn reserve_lazy(
        pages: Pages,
        service: &FaultService,
        sink: Arc<dyn FaultSink>,
    ) -> io::Result<Vma> {
        let space = Arc::new(Space::lazy(pages, service, sink)?);
        service.add(&space);
        Ok(Vma { space })
    }

    /// The number of pages.
    pub fn pages(&self) -> Pages {
        self.space.pages()
    }

    /// Whether pages are mapped when they are touched.
    pub fn is_lazy(&self) -> bool {
        self.space.service().is_some()
    }

    /// The first address.
    pub fn addr(&self) -> usize {
        self.space.first_address()
    }

    /// Makes pages read as zeros. The first store asks the sink; it is SIGSEGV if the vma is not
    /// lazy.
    ///
    /// # Errors
    ///
    /// Returns the host's error. Part of the range may be zapped then.
    pub fn map_hole(&self, at: VmaOff, pages: Pages) -> io::Result<()> {
        let bytes = self.space.bytes(at, pages);
        let reservation = self.space.reservation();
        let Some(service) = self.space.service() else {
            return reservation.map_zeros(bytes);
        };
        match reservation.fill_hole(bytes.clone(), service.uffd()) {
            // Something else is mapped in the range.
            Err(Errno::NOENT) => {
                self.zap(at, pages)?;
                reservation.fill_hole(bytes.clone(), service.uffd())?;
            }
            filled => filled?,
        }
        self.space.answered(&bytes, |wanted| wanted == Access::Read);
        Ok(())
    }

    /// Makes a touch of pages SIGBUS.
    ///
    /// # Errors
    ///
    /// Returns the host's error.
    pub fn map_void(&self, at: VmaOff, pages: Pages) -> io::Result<()> {
        let bytes = self.space.bytes(at, pages);
        areas::with_spare(Cost::Some, || self.space.reservation().map_void(bytes.clone()))?;
        self.space.answered(&bytes, |_| true);
        Ok(())
    }

    /// Has threads that wait for these pages look again, whatever is mapped there. A sink whose
    /// fault is stale says so: mapping the page again would undo a private copy of it.
    pub fn look_again(&self, at: VmaOff, pages: Pages) {
        let bytes = self.space.bytes(at, pages);
        self.space.answered(&bytes, |_| true);
    }

    /// Takes pages back: the next touch asks the sink; it is SIGBUS if the vma is not lazy.
    ///
    /// No thread sees anything else in between. When this returns nobody reaches what was mapped.
    ///
    /// # Blocking
    ///
    /// Waits for the fault service to read a message, never for a sink.
    ///
    /// # Errors
    ///
    /// Returns the host's error; then everything is as it was.
    pub fn zap(&self, at: VmaOff, pages: Pages) -> io::Result<()> {
        let bytes = self.space.bytes(at, pages);
        let reservation = self.space.reservation();
        let cost = if bytes == self.space.whole() { Cost::None } else { Cost::Some };
        areas::with_spare(cost, || match self.space.service() {
            Some(service) => reservation.map_missing(bytes.clone(), service.uffd()),
            None => reservation.map_void(bytes.clone()),
        })
    }

    /// Makes a touch of pages SIGSEGV, in a way that asks the host for no addresses and no memory:
    /// the last resort where it has none to give. They are to be [taken back](Vma::zap) when it has.
    ///
    /// # Errors
    ///
    /// Returns the host's error.
    pub fn forbid(&self, at: VmaOff, pages: Pages) -> io::Result<()> {
        self.space.reservation().forbid_in_place(self.space.bytes(at, pages))
    }

    /// Lets the host swap pages again, where the process locks all its memory (`mlockall`): what
    /// replaces them counts against the same limit (`RLIMIT_MEMLOCK`) before they are gone.
    pub fn unlock(&self, at: VmaOff, pages: Pages) {
        self.space.reservation().unlock(self.space.bytes(at, pages));
    }

    /// Copies bytes out through the addresses, faulting as any load does.
    ///
    /// # Blocking
    ///
    /// Waits for the sink where a page is missing: rule 15 of docs/protocol.md.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::Fault`] with the first byte that could not be loaded, or
    /// [`MediaError::OutOfRange`].
    pub fn read(&self, from: u64, into: &mut [u8]) -> Result<(), MediaError> {
        self.space.reservation().window().read(from, into)
    }

    /// Copies bytes in through the addresses, faulting as any store does.
    ///
    /// # Blocking
    ///
    /// As [`Vma::read`].
    ///
    /// # Errors
    ///
    /// As [`Vma::read`].
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        self.space.reservation().window().write(at, bytes)
    }

    /// Loads an aligned little-endian word atomically, with acquire ordering.
    ///
    /// # Blocking
    ///
    /// As [`Vma::read`].
    ///
    /// # Errors
    ///
    /// As [`Vma::read`], and [`MediaError::Misaligned`].
    pub fn load_u64(&self, at: u64) -> Result<u64, MediaError> {
        self.space.reservation().window().load_u64(at)
    }

    /// Stores an aligned little-endian word atomically, with release ordering.
    ///
    /// # Blocking
    ///
    /// As [`Vma::read`].
    ///
    /// # Errors
    ///
    /// As [`Vma::load_u64`].
    pub fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> {
        self.space.reservation().window().store_u64(at, value)
    }

    /// Stores `new` in an aligned little-endian word if it holds `current`, atomically and
    /// sequentially consistent. Returns what it held: `Ok` if that was `current`, else `Err`.
    ///
    /// # Blocking
    ///
    /// As [`Vma::read`].
    ///
    /// # Errors
    ///
    /// As [`Vma::load_u64`].
    pub fn compare_exchange_u64(
        &self,
        at: u64,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, MediaError> {
        self.space.reservation().window().compare_exchange_u64(at, current, new)
    }

    /// The addresses.
    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }
}

impl Drop for Vma {
    fn drop(&mut self) {
        if let Some(service) = self.space.service() {
            service.remove(&self.space);
        }
        // A fault that is being answered keeps the addresses reserved for a moment longer, so what
        // is mapped there goes here. If the host refuses, it goes with the addresses.
        let reservation = self.space.reservation();
        let _ = areas::with_spare(Cost::None, || reservation.forbid(self.space.whole()));
        if let Some(service) = self.space.service() {
            // Threads whose faults nobody answers any more find out, whatever the service does.
            service.uffd().wake(self.space.first_address(), self.space.whole().len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, FaultSink, MediaError, Pages, Vma, VmaOff};
    use crate::show::Failure;
    use crate::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
    use crate::units::PAGE_SIZE;
    use std::ffi::{c_int, c_void};
    use std::io;
    use std::os::fd::AsRawFd;
    use std::process::exit;
    use std::thread::{self, JoinHandle};

    /// Says that it was entered, and maps a hole when it is told to go on.
    struct Gate {
        vma: OnceLock<Weak<Vma>>,
        entered: mpsc::Sender<()>,
        go_on: Mutex<mpsc::Receiver<()>>,
    }

    impl FaultSink for Gate {
        fn fault(&self, at: VmaOff, _access: Access) {
            let _ = self.entered.send(());
            let _ = self.go_on.lock().recv();
            if let Some(vma) = self.vma.get().and_then(Weak::upgrade) {
                vma.map_hole(at, Pages(1)).unwrap();
            }
        }
    }

    /// A lazy vma, what is received when its sink is entered, and what lets it go on.
    fn gated() -> Option<(Arc<Vma>, mpsc::Receiver<()>, mpsc::Sender<()>)> {
        let ((entered, has_entered), (release, go_on)) = (mpsc::channel(), mpsc::channel());
        let gate = Gate { vma: OnceLock::new(), entered, go_on: Mutex::new(go_on) };
        let gate = Arc::new(gate);
        let service = crate::faults::of_test()?;
        let vma = Vma::reserve_lazy(Pages(4), &service, gate.clone()).unwrap();
        let vma = Arc::new(vma);
        gate.vma.set(Arc::downgrade(&vma)).unwrap();
        Some((vma, has_entered, release))
    }

    /// Has the kernel load a byte of a page in a system call.
    fn load_in_system_call(vma: &Vma, page: usize) -> JoinHandle<io::Result<()>> {
        let address = vma.addr() + page * PAGE_SIZE;
        thread::spawn(move || {
            let (_reader, writer) = io::pipe()?;
            let byte = std::ptr::with_exposed_provenance(address);
            // SAFETY: the kernel checks the address.
            let written = unsafe { libc::write(writer.as_raw_fd(), byte, 1) };
            if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
        })
    }

    #[test]
    fn a_system_call_faults_as_a_thread_does() {
        let Some((vma, _, release)) = gated() else { return };
        drop(release);
        load_in_system_call(&vma, 1).join().unwrap().unwrap();
        vma.map_void(VmaOff(1), Pages(1)).unwrap();
        load_in_system_call(&vma, 1).join().unwrap().unwrap_err();
    }

    #[test]
    fn a_vma_may_be_dropped_while_its_faults_are_answered() {
        let Some((vma, has_entered, release)) = gated() else { return };
        let answered = load_in_system_call(&vma, 0);
        has_entered.recv().unwrap();
        let queued = load_in_system_call(&vma, 1);

        // Keeps the addresses, which another test could be given before both have touched them.
        let space = Arc::clone(&vma.space);
        drop(vma);
        // The second fault may have come in time to reach the sink; a third would not.
        drop(release);

        // Nobody maps anything, and nobody waits for ever.
        answered.join().unwrap().unwrap_err();
        queued.join().unwrap().unwrap_err();
        drop(space);
        assert!(has_entered.iter().count() <= 1, "the sink is gone");
    }

    #[test]
    fn dropping_a_vma_unmaps_it_though_a_fault_is_being_answered() {
        let Some((vma, has_entered, release)) = gated() else { return };
        vma.map_hole(VmaOff(2), Pages(1)).unwrap();
        let answered = load_in_system_call(&vma, 0);
        has_entered.recv().unwrap();
        load_in_system_call(&vma, 2).join().unwrap().unwrap();

        let space = Arc::clone(&vma.space);
        drop(vma);
        let address = space.first_address() + 2 * PAGE_SIZE;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| {
            let (range, _) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let bound = |text| usize::from_str_radix(text, 16).unwrap();
            (bound(start)..bound(end)).contains(&address)
        });
        assert!(line.is_some_and(|line| line.contains("---p")), "{line:?}");
        drop(release);
        answered.join().unwrap().unwrap_err();
    }

    /// The environment variable that makes a test below the program that it runs.
    const PROGRAM: &str = "UDAX_TEST_FAILED_MEMORY";

    /// The address that the program touches.
    static TOUCHED: OnceLock<usize> = OnceLock::new();

    /// Ends the process with the code of the signal, if it has the address that was touched, and the
    /// size where memory failed (B-40).
    extern "C" fn end(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
        // SAFETY: the kernel passes what is valid while the handler runs.
        let info = unsafe { &*info };
        // SAFETY: the signal is SIGBUS, which has an address.
        let address = unsafe { info.si_addr() };
        let size = (&raw const *info).cast::<u16>().wrapping_add(12);
        // SAFETY: the kernel writes how large the failed memory is behind the address; libc has no
        // field for it.
        let size = unsafe { size.read() };
        let is_touched = TOUCHED.get() == Some(&address.addr());
        let is_page = info.si_code != libc::BUS_MCEERR_AR || 1 << size == PAGE_SIZE;
        exit(if is_touched && is_page { 64 + info.si_code } else { 1 });
    }

    /// Touches the third page of four whose last three failed, with nothing that catches it.
    #[expect(clippy::as_conversions, reason = "the address of a function has no other conversion")]
    fn touch_failed_memory(vma: &Vma) -> Failure {
        vma.map_hole(VmaOff(0), Pages(4)).unwrap();
        let failure = vma.map_poison(VmaOff(1), Pages(3)).unwrap();
        assert_eq!(vma.load_u64(0).unwrap(), 0);
        let read = vma.read(0, &mut [0; 2 * PAGE_SIZE]);
        assert!(matches!(read, Err(MediaError::Fault { at: 4096 })), "{read:?}");
        if std::env::var_os(PROGRAM).is_none() {
            return failure;
        }
        // SAFETY: all fields are integers or optional function pointers, for which zero is valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        (action.sa_sigaction, action.sa_flags) = (end as *const c_void as usize, libc::SA_SIGINFO);
        // SAFETY: the handler has the type that SA_SIGINFO asks for.
        let set = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
        assert_eq!(set, 0);
        let touched = vma.space.reservation().window().start().as_ptr();
        let touched = touched.wrapping_add(2 * PAGE_SIZE + 24);
        TOUCHED.set(touched.addr()).unwrap();
        // SAFETY: none; the fault is what is tested, and the process ends with it.
        unsafe { touched.read_volatile() };
        unreachable!("failed memory was read");
    }

    /// What a program ends with that runs the named test as its own.
    fn code_of(test: &str) -> Option<i32> {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let name = format!("vma::tests::{test}");
        command.args(["--exact", &name, "--nocapture"]).env(PROGRAM, "1");
        command.output().unwrap().status.code()
    }

    #[test]
    fn a_touch_of_failed_memory_is_its_failure_with_the_address() {
        let Some(service) = crate::faults::of_test() else { return };
        let (entered, _) = mpsc::channel();
        let go_on = Mutex::new(mpsc::channel().1);
        let gate = Arc::new(Gate { vma: OnceLock::new(), entered, go_on });
        let vma = Vma::reserve_lazy(Pages(4), &service, gate).unwrap();
        let code = match touch_failed_memory(&vma) {
            Failure::OfMemory => libc::BUS_MCEERR_AR,
            Failure::OfAddress => {
                crate::skipped::skipped("the host does not signal failed memory; it is a void");
                libc::BUS_ADRERR
            }
        };
        let test = "a_touch_of_failed_memory_is_its_failure_with_the_address";
        assert_eq!(code_of(test), Some(64 + code));

        vma.zap(VmaOff(1), Pages(1)).unwrap();
        vma.map_hole(VmaOff(1), Pages(1)).unwrap();
        assert_eq!(vma.load_u64(4096).unwrap(), 0, "it is healed");
    }

    /// Also where the host does not tell what failed.
    #[test]
    fn a_mark_of_failed_memory_comes_in_one_step_and_stays_until_the_zap() {
        let Some((vma, has_entered, release)) = gated() else { return };
        vma.map_hole(VmaOff(0), Pages(4)).unwrap();
        let service = vma.space.service().unwrap();
        let marked = vma.space.reservation().map_failed(4096..12288, service.uffd());
        if let Err(error) = marked {
            return crate::skipped::skipped(format_args!("no UFFDIO_POISON: {error}"));
        }
        let loads = [0, 1, 2, 3].map(|page| vma.load_u64(page * 4096).is_ok());
        assert_eq!(loads, [true, false, false, true]);
        assert!(has_entered.try_recv().is_err(), "nobody was asked");

        vma.zap(VmaOff(2), Pages(1)).unwrap();
        drop(release);
        assert_eq!(vma.load_u64(8192).unwrap(), 0, "the sink was asked");
        assert!(vma.load_u64(4096).is_err());
    }

    #[test]
    fn failed_memory_of_an_eager_vma_is_a_void() {
        let vma = Vma::reserve(Pages(4)).unwrap();
        assert_eq!(touch_failed_memory(&vma), Failure::OfAddress);
        let test = "failed_memory_of_an_eager_vma_is_a_void";
        assert_eq!(code_of(test), Some(64 + libc::BUS_ADRERR));
    }
}
