//! Bytes of media: copies that a failing medium cannot kill.
//!
//! This file owns the only instructions that touch media, and the signal handler that ends them
//! early. It does not own the addresses: a file medium or a reservation does, and keeps them for
//! as long as its [`Window`] is used.
//!
//! A page of a shared mapping may be gone when it is touched: somebody truncated the file, the
//! disk under it failed, the memory is poisoned. The kernel answers with SIGBUS (with SIGSEGV
//! where a mapping forbids the access). All accesses are made by a few functions in assembly
//! whose text is known. A fault inside that text ends the access, and its caller gets an error
//! that names the byte; any other fault goes to the handler that was there before. A thread that
//! has blocked the signal is not helped: the kernel calls no handler for it and kills the
//! process.
//!
//! Accesses are in assembly for a second reason: media are shared with other threads, processes
//! and devices, so an ordinary load or store would be a data race. Aligned units of eight bytes
//! are never torn, neither for a concurrent reader nor by a crash: on the side of the medium
//! every one of them is moved by a single load or store, alone or as part of a vector. `rep movsb`
//! would not do, because it may stop after any byte.

use std::arch::global_asm;
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};

use crate::copies::{Copies, Parts, WORD, Way};
use crate::media::MediaError;
use crate::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
global_asm!(include_str!("bytes/x86_64.s"), options(raw));
#[cfg(target_arch = "aarch64")]
global_asm!(include_str!("bytes/aarch64.s"), options(raw));
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("udax-mm has guarded copies for x86-64 and AArch64 only");

unsafe extern "C" {
    static udax_mm_guarded: u8;
    static udax_mm_guarded_end: u8;
    static udax_mm_not_done: u8;

    fn udax_mm_copy_bytes(to: *mut u8, from: *const u8, bytes: usize) -> usize;
    fn udax_mm_copy_words(to: *mut u8, from: *const u8, words: usize) -> usize;
    fn udax_mm_zero_bytes(to: *mut u8, bytes: usize) -> usize;
    fn udax_mm_zero_words(to: *mut u8, words: usize) -> usize;
    fn udax_mm_load_word(word: *const u8, into: *mut u64) -> usize;
    fn udax_mm_store_word(word: *mut u8, value: u64) -> usize;
    fn udax_mm_exchange_word(word: *mut u8, expected: *mut u64, value: u64) -> usize;
}

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    static udax_mm_avx: u8;
    static udax_mm_avx_failed: u8;
    static udax_mm_streaming: u8;
    static udax_mm_streaming_failed: u8;
    static udax_mm_zeros: u8;
    static udax_mm_zeros_failed: u8;

    fn udax_mm_copy_avx(to: *mut u8, from: *const u8, words: usize) -> usize;
    fn udax_mm_copy_streaming(to: *mut u8, from: *const u8, words: usize) -> usize;
    fn udax_mm_zero_avx(to: *mut u8, words: usize) -> usize;
    fn udax_mm_clwb(line: *mut u8, lines: usize) -> usize;
    fn udax_mm_clflushopt(line: *mut u8, lines: usize) -> usize;
    fn udax_mm_clflush(line: *mut u8, lines: usize) -> usize;
}

#[cfg(target_arch = "aarch64")]
unsafe extern "C" {
    static udax_mm_pairs: u8;
    static udax_mm_pairs_failed: u8;

    fn udax_mm_dc_cvac(line: *mut u8, lines: usize) -> usize;
}

/// Bytes in a cache line, as far as writing back is concerned.
const LINE: u64 = 64;

/// The instruction that writes a cache line back to memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WriteBack {
    /// Keeps the line in the cache.
    #[cfg(target_arch = "x86_64")]
    Clwb,
    /// Evicts the line.
    #[cfg(target_arch = "x86_64")]
    Clflushopt,
    /// Evicts the line, one after the other.
    #[cfg(target_arch = "x86_64")]
    Clflush,
    /// Cleans the line to the point of coherency.
    #[cfg(target_arch = "aarch64")]
    DcCvac,
}

/// Addresses that are accessed by the copies of this module only.
///
/// # Invariants
///
/// 1. The owner of the window keeps `start..start + len` reserved while it uses the window: the
///    kernel gives those addresses to nobody else. What is mapped there may change and may fail.
/// 2. No Rust reference covers a byte that a method of the window may change.
/// 3. The fault handler is installed.
#[derive(Debug)]
pub(crate) struct Window {
    start: NonNull<u8>,
    len: usize,
    copies: Copies,
}

// SAFETY: the window owns no thread's state; every access is made by assembly, for which
// concurrent accesses are not data races (invariants 1 and 2 do not depend on the thread).
unsafe impl Send for Window {}
// SAFETY: as for Send.
unsafe impl Sync for Window {}

impl Window {
    /// Describes `len` bytes from `start` on.
    ///
    /// # Safety
    ///
    /// The caller keeps invariants 1 and 2.
    pub(crate) unsafe fn new(start: NonNull<u8>, len: usize) -> Window {
        install_handler();
        // INVARIANT: 1 and 2 by the caller, 3 by the line above.
        Window { start, len, copies: Copies::of_this_processor() }
    }

    /// The same addresses, copied as `copies` say.
    #[cfg(test)]
    pub(crate) fn copied(&self, copies: Copies) -> Window {
        Window { start: self.start, len: self.len, copies }
    }

    /// The first address.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies bytes out.
    pub(crate) fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MediaError> {
        self.read_part(at, into, len_of(into))
    }

    /// The same for a part of a copy of `whole` bytes.
    pub(crate) fn read_part(&self, at: u64, into: &mut [u8], whole: u64) -> Result<(), MediaError> {
        let from = self.range(at, into.len())?;
        // SAFETY: `from` is valid for the length by invariant 1, `into` by its type.
        let left = unsafe { self.copy(into.as_mut_ptr(), from, into.len(), from.addr(), whole) };
        done(at, into.len(), left)
    }

    /// Copies bytes in.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        self.write_part(at, bytes, len_of(bytes))
    }

    /// The same for a part of a copy of `whole` bytes.
    pub(crate) fn write_part(&self, at: u64, bytes: &[u8], whole: u64) -> Result<(), MediaError> {
        let to = self.range(at, bytes.len())?;
        // SAFETY: `to` is valid for the length by invariants 1 and 2, `bytes` by its type.
        let left = unsafe { self.copy(to, bytes.as_ptr(), bytes.len(), to.addr(), whole) };
        done(at, bytes.len(), left)
    }

    /// Stores zeros.
    pub(crate) fn zero(&self, at: u64, len: u64) -> Result<(), MediaError> {
        let outside = |_| MediaError::OutOfRange { at, len };
        let len = usize::try_from(len).map_err(outside)?;
        let to = self.range(at, len)?;
        // SAFETY: `to` is valid for the length by invariants 1 and 2.
        let left = unsafe { self.fill(to, len) };
        done(at, len, left)
    }

    /// Loads an aligned word with acquire ordering.
    pub(crate) fn load_u64(&self, at: u64) -> Result<u64, MediaError> {
        let word = self.word(at)?;
        let mut value = 0;
        // SAFETY: `word` is valid and aligned by `Window::word` and invariant 1.
        let left = unsafe { udax_mm_load_word(word, &raw mut value) };
        done(at, left, left).map(|()| u64::from_le(value))
    }

    /// Stores an aligned word with release ordering.
    pub(crate) fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> {
        let word = self.word(at)?;
        // SAFETY: `word` is valid and aligned by `Window::word` and invariants 1 and 2.
        let left = unsafe { udax_mm_store_word(word, value.to_le()) };
        done(at, left, left)
    }

    /// Stores `new` in an aligned word if it holds `current`; else returns what it holds.
    pub(crate) fn compare_exchange_u64(
        &self,
        at: u64,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, MediaError> {
        let word = self.word(at)?;
        let mut found = current.to_le();
        // SAFETY: `word` is valid and aligned by `Window::word` and invariants 1 and 2.
        let left = unsafe { udax_mm_exchange_word(word, &raw mut found, new.to_le()) };
        done(at, left, left)?;
        let found = u64::from_le(found);
        Ok(if found == current { Ok(found) } else { Err(found) })
    }

    /// Starts the cache lines that hold a range on their way to memory.
    pub(crate) fn write_back(&self, at: u64, len: u64, how: WriteBack) -> Result<(), MediaError> {
        let bytes = usize::try_from(len).map_err(|_| MediaError::OutOfRange { at, len })?;
        self.range(at, bytes)?;
        if len == 0 {
            return Ok(());
        }
        let first = at - at % LINE;
        let line = self.range(first, 0)?;
        let lines = (at + len).div_ceil(LINE) - first / LINE;
        let lines = usize::try_from(lines).expect("there are fewer lines than bytes");
        let left = match how {
            // SAFETY: windows start and end at page boundaries, so the lines lie inside it and
            // are valid by invariant 1.
            #[cfg(target_arch = "x86_64")]
            WriteBack::Clwb => unsafe { udax_mm_clwb(line, lines) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            WriteBack::Clflushopt => unsafe { udax_mm_clflushopt(line, lines) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            WriteBack::Clflush => unsafe { udax_mm_clflush(line, lines) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            WriteBack::DcCvac => unsafe { udax_mm_dc_cvac(line, lines) },
        };
        if left == 0 {
            return Ok(());
        }
        let written = u64::try_from(lines - left).expect("usize has at most 64 bits");
        Err(MediaError::Fault { at: at.max(first + written * LINE) })
    }

    /// Checks that a range lies inside the window and returns its first address.
    fn range(&self, at: u64, len: usize) -> Result<*mut u8, MediaError> {
        let fits = usize::try_from(at)
            .ok()
            .filter(|at| at.checked_add(len).is_some_and(|end| end <= self.len));
        let Some(offset) = fits else {
            let len = u64::try_from(len).expect("usize has at most 64 bits");
            return Err(MediaError::OutOfRange { at, len });
        };
        Ok(self.start.as_ptr().wrapping_add(offset))
    }

    /// Checks that `at` is the start of a word inside the window and returns its address.
    fn word(&self, at: u64) -> Result<*mut u8, MediaError> {
        let word = self.range(at, WORD)?;
        if word.addr().is_multiple_of(WORD) { Ok(word) } else { Err(MediaError::Misaligned { at }) }
    }

    /// Copies with whole words wherever `aligned`, the address on the side of the medium, permits;
    /// returns the bytes not done. They are a part of `whole` bytes, which decide whether they go
    /// past the caches.
    ///
    /// # Safety
    ///
    /// `to` and `from` are addresses of `len` bytes each, which do not overlap. One of them may
    /// fault.
    unsafe fn copy(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
        aligned: usize,
        whole: u64,
    ) -> usize {
        let Parts { head, words, tail } = Parts::of(aligned, len);
        if head > 0 {
            // SAFETY: the head lies in the range the caller describes.
            let left = unsafe { udax_mm_copy_bytes(to, from, head) };
            if left > 0 {
                return len - head + left;
            }
        }
        let (to, from) = (to.wrapping_add(head), from.wrapping_add(head));
        let left = match self.copies.way(to.addr(), usize::try_from(whole).unwrap_or(usize::MAX)) {
            // SAFETY: as above, for the words after the head.
            Way::Words => unsafe { udax_mm_copy_words(to, from, words) },
            // SAFETY: as above, and the processor has AVX.
            #[cfg(target_arch = "x86_64")]
            Way::Avx => unsafe { udax_mm_copy_avx(to, from, words) },
            // SAFETY: as above, and `to` is aligned to words.
            #[cfg(target_arch = "x86_64")]
            Way::Streaming => unsafe { udax_mm_copy_streaming(to, from, words) },
        };
        if left > 0 || tail == 0 {
            return left * WORD + tail;
        }
        let (to, from) = (to.wrapping_add(words * WORD), from.wrapping_add(words * WORD));
        // SAFETY: as above, for the tail after the words.
        unsafe { udax_mm_copy_bytes(to, from, tail) }
    }

    /// Stores `len` zeros; returns the bytes not done.
    ///
    /// # Safety
    ///
    /// `to` is the address of `len` bytes, which may fault.
    unsafe fn fill(&self, to: *mut u8, len: usize) -> usize {
        let Parts { head, words, tail } = Parts::of(to.addr(), len);
        if head > 0 {
            // SAFETY: the head lies in the range the caller describes.
            let left = unsafe { udax_mm_zero_bytes(to, head) };
            if left > 0 {
                return len - head + left;
            }
        }
        let to = to.wrapping_add(head);
        let left = match self.copies.way_of_zeros(words * WORD) {
            // SAFETY: as above, and the processor has AVX.
            #[cfg(target_arch = "x86_64")]
            Way::Avx => unsafe { udax_mm_zero_avx(to, words) },
            // SAFETY: as above, for the words after the head.
            _ => unsafe { udax_mm_zero_words(to, words) },
        };
        if left > 0 || tail == 0 {
            return left * WORD + tail;
        }
        // SAFETY: as above, for the tail after the words.
        unsafe { udax_mm_zero_bytes(to.wrapping_add(words * WORD), tail) }
    }
}

/// The length of a buffer.
fn len_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("usize has at most 64 bits")
}

/// Turns what a copy of `len` bytes from `at` on left undone into a result.
fn done(at: u64, len: usize, left: usize) -> Result<(), MediaError> {
    if left == 0 {
        return Ok(());
    }
    let done = u64::try_from(len - left).expect("usize has at most 64 bits");
    Err(MediaError::Fault { at: at + done })
}

/// The signals that a failing access raises.
const SIGNALS: [c_int; 2] = [libc::SIGBUS, libc::SIGSEGV];

/// What was to be done with [`SIGNALS`] before the handler was installed.
static PREVIOUS: OnceLock<[libc::sigaction; 2]> = OnceLock::new();

/// Whether the handler is installed.
static INSTALLED: OnceLock<()> = OnceLock::new();

/// Installs the handler, once in the life of the process.
///
/// A program that installs a handler of its own later, and does not chain, takes the guard away.
fn install_handler() {
    INSTALLED.get_or_init(|| {
        // Read before the handler is in place: it may be called the moment it is.
        let previous = PREVIOUS.get_or_init(|| SIGNALS.map(current_action));
        for (signal, previous) in SIGNALS.into_iter().zip(previous) {
            replace_action(signal, previous);
        }
    });
}

/// Reads what is to be done with `signal`.
fn current_action(signal: c_int) -> libc::sigaction {
    // SAFETY: all fields are integers or optional function pointers, for which zero is valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only reads, into `action`.
    let failed = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    assert_eq!(failed, 0, "bytes: SIGBUS and SIGSEGV have an action");
    action
}

/// Makes [`on_fault`] the handler of `signal`, with the mask of the one before it.
fn replace_action(signal: c_int, previous: &libc::sigaction) {
    let mut action = *previous;
    #[expect(clippy::as_conversions, reason = "the address of a function has no other conversion")]
    let handler = on_fault as *const c_void;
    action.sa_sigaction = handler.expose_provenance();
    // The alternate stack, because a chained handler may be that of a stack overflow.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `on_fault` is an async-signal-safe function of the type SA_SIGINFO asks for.
    let failed = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    assert_eq!(failed, 0, "bytes: SIGBUS and SIGSEGV can be caught");
}

/// What raised a signal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cause {
    /// The instruction that was interrupted: it faulted, and would again.
    Instruction,
    /// A program, or the kernel on account of something else.
    Sender,
}

/// Ends a guarded access that faulted, and passes on everything else.
extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo_t to a handler with SA_SIGINFO.
    let code = unsafe { (*info).si_code };
    // Codes from zero down are sent by programs, and BUS_MCEERR_AO tells of memory that nobody
    // has touched: neither is about the instruction that was interrupted.
    let is_sent = code <= 0 || signal == libc::SIGBUS && code == libc::BUS_MCEERR_AO;
    let cause = if is_sent { Cause::Sender } else { Cause::Instruction };
    if cause == Cause::Instruction && leave_guarded_text(context) {
        return;
    }
    chain(signal, cause, info, context);
}

/// Moves the interrupted thread out of the guarded text, if it is there.
fn leave_guarded_text(context: *mut c_void) -> bool {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes a valid ucontext_t, which nobody else uses during the handler.
    let context = unsafe { &mut *context };
    let pc = program_counter(context);
    let next = usize::try_from(*pc).ok().and_then(after_fault_at);
    if let Some(next) = next {
        *pc = next.try_into().expect("an address fits the program counter");
    }
    next.is_some()
}

/// The exception table: where a thread goes on that faulted at `pc`; None outside the guarded
/// text.
fn after_fault_at(pc: usize) -> Option<usize> {
    let guarded = (&raw const udax_mm_guarded).addr()..(&raw const udax_mm_guarded_end).addr();
    let loops = vector_loops();
    let inside = loops.into_iter().find(|(first, failed)| (*first..*failed).contains(&pc));
    let exact = || guarded.contains(&pc).then_some((&raw const udax_mm_not_done).addr());
    inside.map(|(_, failed)| failed).or_else(exact)
}

/// The loops over vectors: where each starts, and where it ends and a fault of it continues.
#[cfg(target_arch = "x86_64")]
fn vector_loops() -> [(usize, usize); 3] {
    [
        (&raw const udax_mm_avx, &raw const udax_mm_avx_failed),
        (&raw const udax_mm_streaming, &raw const udax_mm_streaming_failed),
        (&raw const udax_mm_zeros, &raw const udax_mm_zeros_failed),
    ]
    .map(|(first, failed)| (first.addr(), failed.addr()))
}

/// The loop over pairs of words: where it starts, and where it ends and a fault of it continues.
#[cfg(target_arch = "aarch64")]
fn vector_loops() -> [(usize, usize); 1] {
    [((&raw const udax_mm_pairs).addr(), (&raw const udax_mm_pairs_failed).addr())]
}

/// The program counter of an interrupted thread.
#[cfg(target_arch = "x86_64")]
fn program_counter(context: &mut libc::ucontext_t) -> &mut libc::greg_t {
    let rip = usize::try_from(libc::REG_RIP).expect("REG_RIP is an index");
    &mut context.uc_mcontext.gregs[rip]
}

/// The program counter of an interrupted thread.
#[cfg(target_arch = "aarch64")]
fn program_counter(context: &mut libc::ucontext_t) -> &mut libc::c_ulonglong {
    &mut context.uc_mcontext.pc
}

/// Does with a signal what would have been done without this module, but that a handler of before
///
/// - runs with the signal blocked, also if it was installed with `SA_NODEFER`;
/// - stays after its first signal, also if it was installed with `SA_RESETHAND`;
/// - runs on the alternate stack if there is one, also without `SA_ONSTACK`;
/// - interrupts a system call for good, also if it was installed with `SA_RESTART`.
fn chain(signal: c_int, cause: Cause, info: *mut libc::siginfo_t, context: *mut c_void) {
    let which = usize::from(signal == SIGNALS[1]);
    let previous = PREVIOUS.get().expect("bytes: read before the handler was installed")[which];
    let handler = ptr::with_exposed_provenance::<c_void>(previous.sa_sigaction);
    match previous.sa_sigaction {
        libc::SIG_IGN if cause == Cause::Sender => {}
        // A fault cannot be ignored: the kernel takes the default action for it, too.
        libc::SIG_DFL | libc::SIG_IGN => take_default_action(signal, cause),
        _ if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
            // SAFETY: an action with SA_SIGINFO holds a function of this type.
            let handler = unsafe { std::mem::transmute::<*const c_void, Handler>(handler) };
            handler(signal, info, context);
        }
        _ => {
            // SAFETY: an action without SA_SIGINFO holds a function of this type.
            let handler =
                unsafe { std::mem::transmute::<*const c_void, extern "C" fn(c_int)>(handler) };
            handler(signal);
        }
    }
}

/// Restores the default action and lets it happen when the handler returns: to a fault because
/// the instruction is made again, to a signal that was sent because it is raised again.
fn take_default_action(signal: c_int, cause: Cause) {
    // SAFETY: all fields are integers or optional function pointers, for which zero is valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = libc::SIG_DFL;
    // SAFETY: the default action needs no handler.
    let _ = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    if cause == Cause::Sender {
        // SAFETY: raises a signal that is blocked until the handler returns.
        let _ = unsafe { libc::raise(signal) };
    }
}

#[cfg(test)]
mod copy_tests;

#[cfg(test)]
mod tests {
    use super::install_handler;
    use crate::{PAGE_SIZE, reserve::Reservation};
    use std::ffi::{c_int, c_void};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus, Output, exit};
    use std::ptr;

    /// The environment variable that makes this test binary one of the programs below.
    const PROGRAM: &str = "UDAX_TEST_SIGNAL_PROGRAM";

    /// Runs a program in a process of its own: it changes what signals do, and may die of them.
    fn run(program: &str) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "bytes::tests::signal_program", "--nocapture"]);
        command.env(PROGRAM, program).output().unwrap()
    }

    fn exits(program: &str) -> ExitStatus {
        run(program).status
    }

    #[test]
    fn a_fault_elsewhere_reaches_the_handler_that_was_there_before() {
        assert_eq!(exits("with siginfo").code(), Some(21));
        assert_eq!(exits("without siginfo").code(), Some(22));
    }

    #[test]
    fn a_fault_elsewhere_kills_where_nobody_handles_it() {
        assert_eq!(exits("default").signal(), Some(libc::SIGSEGV));
        assert_eq!(exits("ignored").signal(), Some(libc::SIGSEGV));
    }

    #[test]
    fn a_signal_that_was_sent_does_what_it_did_before() {
        assert_eq!(exits("sent, default").signal(), Some(libc::SIGBUS));
        assert_eq!(exits("sent, ignored").code(), Some(20));
        assert_eq!(exits("sent, with siginfo").code(), Some(21));
    }

    extern "C" fn with_siginfo(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
        exit(21);
    }

    extern "C" fn without_siginfo(_: c_int) {
        exit(22);
    }

    fn set(handler: usize, flags: c_int) {
        for signal in super::SIGNALS {
            let mut action = super::current_action(signal);
            (action.sa_sigaction, action.sa_flags) = (handler, flags);
            // SAFETY: the handlers have the types their flags ask for.
            assert_eq!(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) }, 0);
        }
    }

    /// Not a test of its own: the body of the programs that the tests above run.
    #[test]
    #[expect(clippy::as_conversions, reason = "the address of a function has no other conversion")]
    fn signal_program() {
        let Ok(program) = std::env::var(PROGRAM) else { return };
        match program.trim_start_matches("sent, ") {
            "with siginfo" => set(with_siginfo as *const c_void as usize, libc::SA_SIGINFO),
            "without siginfo" => set(without_siginfo as *const c_void as usize, 0),
            "ignored" => set(libc::SIG_IGN, 0),
            _ => set(libc::SIG_DFL, 0),
        }
        install_handler();
        let reservation = Reservation::new(PAGE_SIZE).unwrap();
        assert!(reservation.window().load_u64(0).is_err());
        if program.starts_with("sent, ") {
            // SAFETY: raising a signal is what is tested.
            unsafe { libc::raise(libc::SIGBUS) };
            exit(20);
        }
        let start = reservation.window().start().as_ptr();
        // SAFETY: none; the fault is what is tested, and the process ends with it.
        unsafe { start.read_volatile() };
    }
}
