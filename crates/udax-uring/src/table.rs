//! The kernel's table of fixed buffers, and the requests that use it.
//!
//! This file owns the one promise that the kernel asks for and the compiler cannot check: memory
//! that is registered stays what it is until it is unregistered and no request is under way. Which
//! requests belong together is the business of [`registered`](crate::registered).
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use io_uring::{IoUring, opcode, squeue, types};
use udax_mm::sync::Arc;

use crate::buffer::{FixedBuffer, Piece, Run};

/// What a request does, as seen from the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    /// The kernel stores to the buffer.
    Read,
    /// The kernel loads from the buffer.
    Write,
}

/// A request for one piece of a buffer.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Unique among those under way, and not [`CANCEL`].
    pub(crate) id: u64,
    pub(crate) direction: Direction,
    pub(crate) file: Arc<OwnedFd>,
    /// The byte of the file.
    pub(crate) at: u64,
    pub(crate) piece: Piece,
}

/// Buffers that the kernel knows.
///
/// # Invariants
///
/// 1. While the kernel has the buffers registered, or a request under way, `buffers` holds them, or
///    they were forgotten; they are never dropped. So each of the addresses that were registered is
///    mapped, and stays so (the promise of [`FixedBuffer`]).
/// 2. `under_way` has an entry, with the open file, for each request that was put into the queue
///    and whose completion was not taken out.
/// 3. `buffers` is empty only in a table that is being closed.
pub(crate) struct Table<B> {
    uring: IoUring,
    buffers: Option<Vec<B>>,
    under_way: BTreeMap<u64, Arc<OwnedFd>>,
    /// Requests to cancel that have not been answered.
    cancels: usize,
}

/// Marks the completion of a request to cancel.
const CANCEL: u64 = u64::MAX;

impl<B: FixedBuffer> Table<B> {
    /// Tells the kernel `runs`, which are those of `buffers`.
    pub(crate) fn register(
        uring: IoUring,
        buffers: Vec<B>,
        runs: &[Run],
    ) -> Result<Table<B>, (Vec<B>, io::Error)> {
        // INVARIANT: 1 because the buffers are given back only if none was registered.
        match register(&uring, runs) {
            Ok(()) => Ok(Table::adopt(uring, buffers)),
            Err(error) => Err((buffers, error)),
        }
    }
}

impl<B> Table<B> {
    /// The table of a ring whose buffers another process registers and keeps.
    pub(crate) fn adopt(uring: IoUring, buffers: Vec<B>) -> Table<B> {
        Table { uring, buffers: Some(buffers), under_way: BTreeMap::new(), cancels: 0 }
    }

    /// What is registered.
    pub(crate) fn buffers(&self) -> &[B] {
        self.buffers.as_ref().expect("invariant 3: it is not being closed")
    }

    /// Whether another request has room. The answers to a full queue, and to as many requests to
    /// cancel, fit into the kernel's queue of completions.
    pub(crate) fn has_room(&self) -> bool {
        self.under_way.len() < self.entries()
    }

    /// Whether no request is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.under_way.is_empty() && self.cancels == 0
    }

    /// Puts a request into the queue, which has room; [`enter`](Table::enter) hands it over.
    pub(crate) fn push(&mut self, request: &Request) {
        let Request { id, direction, file, at, piece } = request;
        let fd = types::Fd(file.as_raw_fd());
        let start: *mut u8 = ptr::with_exposed_provenance_mut(piece.addr);
        let entry = match direction {
            Direction::Read => {
                opcode::ReadFixed::new(fd, start, piece.len, piece.slot).offset(*at).build()
            }
            Direction::Write => {
                opcode::WriteFixed::new(fd, start, piece.len, piece.slot).offset(*at).build()
            }
        };
        let entry = entry.user_data(*id);
        assert!(!self.uring.submission().is_full(), "the caller looked for room");
        // INVARIANT: 2, before the kernel can see the request.
        let before = self.under_way.insert(*id, Arc::clone(file));
        assert!(before.is_none(), "two requests under way have the number {id}");
        // SAFETY: the request is a read or write of a fixed buffer, so the kernel refuses
        // addresses that are not registered under its slot, and those that are stay mapped until
        // it has ended (invariant 1; `close` and `drop` wait for it). The file stays open as long
        // (invariant 2).
        unsafe { self.enqueue(&entry) };
    }

    /// Hands over what is in the queue, and waits for `want` completions.
    pub(crate) fn enter(&mut self, want: usize) -> io::Result<()> {
        uninterrupted(|| self.uring.submit_and_wait(want)).map(drop)
    }

    /// Takes out the completion of a request: its number, and what the kernel returns.
    pub(crate) fn pop(&mut self) -> Option<(u64, i32)> {
        loop {
            let completion = self.uring.completion().next()?;
            if completion.user_data() == CANCEL {
                self.cancels -= 1;
                continue;
            }
            let ended = self.under_way.remove(&completion.user_data());
            assert!(ended.is_some(), "the kernel ends what is under way");
            return Some((completion.user_data(), completion.result()));
        }
    }

    /// Ends every request, unregisters the buffers, and gives them back.
    ///
    /// # Errors
    ///
    /// What the host says; the buffers are forgotten then, as [`drop`](Table::drop) does.
    pub(crate) fn close(mut self) -> io::Result<Vec<B>> {
        self.quiesce()?;
        Ok(self.buffers.take().expect("invariant 3: it is not being closed"))
    }

    /// Waits until the kernel uses no buffer, and has it unregister all.
    fn quiesce(&mut self) -> io::Result<()> {
        let ids: Vec<u64> = self.under_way.keys().copied().collect();
        for id in ids {
            self.cancel(id)?;
        }
        while !self.is_quiet() {
            self.enter(1)?;
            while self.pop().is_some() {}
        }
        // The kernel may sleep here, too, until the last request has let go of them; what a signal
        // ended has unregistered nothing.
        match uninterrupted(|| self.uring.submitter().unregister_buffers()) {
            // None is registered (any more).
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
            result => result,
        }
    }

    /// Asks for the end of a request that may wait for a pipe for ever. One that has reached a disk
    /// goes on to its end.
    fn cancel(&mut self, id: u64) -> io::Result<()> {
        while self.uring.submission().is_full() {
            self.enter(0)?;
        }
        let entry = opcode::AsyncCancel::new(id).build().user_data(CANCEL);
        self.cancels += 1;
        // SAFETY: it names no memory and no file.
        unsafe { self.enqueue(&entry) };
        Ok(())
    }

    /// Puts an entry into the queue, which has room.
    ///
    /// # Safety
    ///
    /// What the entry names stays valid until its completion was taken out.
    unsafe fn enqueue(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller's promise.
        let pushed = unsafe { self.uring.submission().push(entry) };
        pushed.expect("there is room");
    }

    fn entries(&self) -> usize {
        usize::try_from(self.uring.params().sq_entries()).expect("a queue fits into memory")
    }
}

impl<B> Drop for Table<B> {
    /// Ends every request and unregisters the buffers, and only then drops them. Where the host
    /// does not do that, they are forgotten: they stay pinned until the process ends.
    fn drop(&mut self) {
        // INVARIANT: 1. Closing the ring unregisters too, but at some later time.
        if self.buffers.is_some() && self.quiesce().is_err() {
            mem::forget(self.buffers.take());
        }
    }
}

impl<B> fmt::Debug for Table<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = f.debug_struct("Table");
        table.field("under_way", &self.under_way.len()).finish_non_exhaustive()
    }
}

/// Registers buffers that are never dropped with a ring that anybody has.
pub(crate) fn register_for_good<B: FixedBuffer>(
    ring: BorrowedFd<'_>,
    buffers: Vec<B>,
    runs: &[Run],
) -> Result<(), (Vec<B>, io::Error)> {
    let iovecs = iovecs(runs);
    let Ok(count) = libc::c_uint::try_from(iovecs.len()) else {
        return Err((buffers, io::ErrorKind::InvalidInput.into()));
    };
    // SAFETY: the call reads `count` iovecs. What they name is mapped, and stays so because
    // `buffers` is forgotten if they were registered.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_BUFFERS,
            iovecs.as_ptr(),
            count,
        )
    };
    if result < 0 {
        return Err((buffers, io::Error::last_os_error()));
    }
    mem::forget(buffers);
    Ok(())
}

/// `IORING_REGISTER_BUFFERS`.
const REGISTER_BUFFERS: libc::c_uint = 0;

/// Tells the kernel where buffers are that the caller keeps.
fn register(uring: &IoUring, runs: &[Run]) -> io::Result<()> {
    // SAFETY: the runs are mapped, and stay so by invariant 1 of the table that the caller makes.
    unsafe { uring.submitter().register_buffers(&iovecs(runs)) }
}

fn iovecs(runs: &[Run]) -> Vec<libc::iovec> {
    let iovec = |run: &Run| libc::iovec {
        iov_base: ptr::with_exposed_provenance_mut(run.addr),
        iov_len: run.len,
    };
    runs.iter().map(iovec).collect()
}

/// Makes a call again for as long as a signal ends it.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel unregistered nothing when a signal ended the call; who gave up had all pins forgotten.
    #[test]
    fn a_call_that_signals_end_is_made_again_and_every_other_end_is_one() {
        let check = |last: i32| {
            let mut ends =
                [libc::EINTR, libc::EINTR, last].map(io::Error::from_raw_os_error).into_iter();
            let found =
                uninterrupted(|| Err::<(), _>(ends.next().expect("no call after the last")));
            assert_eq!(found.unwrap_err().raw_os_error(), Some(last));
            assert_eq!(ends.len(), 0);
        };
        check(libc::ENXIO);
        check(libc::EAGAIN);
        assert_eq!(uninterrupted(|| Ok(7)).ok(), Some(7));
    }
}
