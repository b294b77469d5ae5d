//! Which signals threads of this crate take.
//!
//! This file owns the mask of a thread that serves faults. What happens at a signal of a copy that
//! failed is in [`bytes`](crate::bytes).

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use std::io;

/// The signals that tell a thread of what it does itself.
const OF_THE_THREAD: [Signal; 6] = [
    Signal::SIGBUS,
    Signal::SIGSEGV,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGSYS,
];

/// Starts a thread that takes no signal but those of what it does itself.
///
/// A handler of the program, run by a thread that has a file locked, could touch that file, and wait
/// for ever. And a program that has blocked SIGBUS for its own threads must not keep a copy that
/// meets bad memory from being told so.
pub(crate) fn start_without<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mut mask = SigSet::all();
    for signal in OF_THE_THREAD {
        mask.remove(signal);
    }
    // A thread begins with the mask of who starts it.
    let before = mask.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = start();
    before.thread_set_mask()?;
    started
}
