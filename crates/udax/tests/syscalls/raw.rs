//! Loads, and system calls, that are told memory by its address, as a C program makes them.
//!
//! The safe wrappers of the world take slices, and nobody may have a slice of a mapping: its bytes
//! change. So this is the one test file with `unsafe`; the addresses are those of a
//! [`Mapping`](udax::Mapping), to whose bytes nobody has a reference.
#![allow(unsafe_code)]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::pipe::pipe;

/// Loads the word at an address, as a program does. It may be SIGBUS.
pub(crate) fn load(at: usize) -> u64 {
    let word: *const u64 = std::ptr::with_exposed_provenance(at);
    assert!(word.is_aligned());
    // SAFETY: the bytes belong to a mapping and any of them are a number. They change while they are
    // loaded, but not by this program's stores.
    unsafe { word.read_volatile() }
}

/// Gives pages back to the host, as a program does that wants them anew.
///
/// # Panics
///
/// Panics if the host refuses.
pub(crate) fn dont_need((at, len): Part) {
    // SAFETY: the bytes belong to a mapping, and no reference covers them.
    let advised = unsafe { libc::madvise(pointer(at), len, libc::MADV_DONTNEED) };
    assert_eq!(advised, 0, "{}", io::Error::last_os_error());
}

/// A part of a mapping: an address and a number of bytes.
pub(crate) type Part = (usize, usize);

/// A way in which the kernel stores into memory or loads from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// read(2) and write(2) of a pipe.
    Pipe,
    /// pread(2) and pwrite(2) of a file of the host.
    File,
    /// readv(2) and writev(2) of a pipe, in two parts.
    Vectors,
    /// recv(2) and send(2) of a socket.
    Socket,
    /// `process_vm_writev`(2) and `process_vm_readv`(2) of this process, which pin the pages instead
    /// of touching them.
    Process,
}

impl Way {
    pub(crate) const ALL: [Way; 5] =
        [Way::Pipe, Way::File, Way::Vectors, Way::Socket, Way::Process];

    /// Has the kernel store `bytes` at an address. They are few enough for the buffer of a pipe.
    ///
    /// # Errors
    ///
    /// Returns that of the system call. What it stored before is told as a success.
    pub(crate) fn store(self, at: usize, bytes: &[u8]) -> io::Result<usize> {
        let part = (at, bytes.len());
        match self {
            Way::Pipe => read(pipe_with(bytes).as_fd(), part),
            Way::File => pread(file_with(bytes).as_fd(), part),
            Way::Vectors => readv(pipe_with(bytes).as_fd(), halves(part)),
            Way::Socket => {
                let (ours, theirs) = socket();
                assert_eq!(rustix::io::write(&theirs, bytes)?, bytes.len());
                recv(ours.as_fd(), part)
            }
            Way::Process => process_write(bytes, part),
        }
    }

    /// Has the kernel load from an address. Returns what it loaded.
    ///
    /// # Errors
    ///
    /// Returns that of the system call.
    pub(crate) fn load(self, part: Part) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; part.1];
        let loaded = match self {
            Way::Pipe => {
                let (reader, writer) = pipe()?;
                write(writer.as_fd(), part).and_then(|_| Ok(rustix::io::read(reader, &mut bytes)?))
            }
            Way::File => {
                let file = tempfile::tempfile()?;
                let written = pwrite(file.as_fd(), part)?;
                Ok(rustix::io::pread(&file, &mut bytes[..written], 0)?)
            }
            Way::Vectors => {
                let (reader, writer) = pipe()?;
                writev(writer.as_fd(), halves(part))
                    .and_then(|_| Ok(rustix::io::read(reader, &mut bytes)?))
            }
            Way::Socket => {
                let (ours, theirs) = socket();
                send(ours.as_fd(), part).and_then(|_| Ok(rustix::io::read(theirs, &mut bytes)?))
            }
            Way::Process => process_read(&mut bytes, part),
        }?;
        bytes.truncate(loaded);
        Ok(bytes)
    }
}

fn pipe_with(bytes: &[u8]) -> OwnedFd {
    let (reader, writer) = pipe().unwrap();
    assert_eq!(rustix::io::write(writer, bytes).unwrap(), bytes.len(), "it fits the pipe");
    reader
}

fn file_with(bytes: &[u8]) -> std::fs::File {
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).unwrap();
    file
}

fn socket() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    (ours.into(), theirs.into())
}

fn halves((at, len): Part) -> [libc::iovec; 2] {
    let vector = |at: usize, len| libc::iovec { iov_base: pointer(at), iov_len: len };
    [vector(at, len / 2), vector(at + len / 2, len - len / 2)]
}

fn pointer(at: usize) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(at)
}

fn done(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn read(from: BorrowedFd<'_>, (at, len): Part) -> io::Result<usize> {
    // SAFETY: the bytes belong to a mapping, and no reference covers them.
    done(unsafe { libc::read(from.as_raw_fd(), pointer(at), len) })
}

fn pread(from: BorrowedFd<'_>, (at, len): Part) -> io::Result<usize> {
    // SAFETY: as for `read`.
    done(unsafe { libc::pread(from.as_raw_fd(), pointer(at), len, 0) })
}

fn readv(from: BorrowedFd<'_>, to: [libc::iovec; 2]) -> io::Result<usize> {
    // SAFETY: as for `read`, and the call reads two vectors.
    done(unsafe { libc::readv(from.as_raw_fd(), to.as_ptr(), 2) })
}

fn recv(from: BorrowedFd<'_>, (at, len): Part) -> io::Result<usize> {
    // SAFETY: as for `read`.
    done(unsafe { libc::recv(from.as_raw_fd(), pointer(at), len, 0) })
}

fn write(to: BorrowedFd<'_>, (at, len): Part) -> io::Result<usize> {
    // SAFETY: the call only loads; what is not there is an error.
    done(unsafe { libc::write(to.as_raw_fd(), pointer(at), len) })
}

fn pwrite(to: BorrowedFd<'_>, (at, len): Part) -> io::Result<usize> {
    // SAFETY: as for `write`.
    done(unsafe { libc::pwrite(to.as_raw_fd(), pointer(at), len, 0) })
}

fn writev(to: BorrowedFd<'_>, from: [libc::iovec; 2]) -> io::Result<usize> {
    // SAFETY: as for `write`, and the call reads two vectors.
    done(unsafe { libc::writev(to.as_raw_fd(), from.as_ptr(), 2) })
}

fn send(to: BorrowedFd<'_>, (at, len): Part) -> io::Result<usize> {
    // SAFETY: as for `write`.
    done(unsafe { libc::send(to.as_raw_fd(), pointer(at), len, 0) })
}

fn process_write(bytes: &[u8], (at, len): Part) -> io::Result<usize> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: pointer(at), iov_len: len };
    let (pid, local, remote) = (this_process(), &raw const local, &raw const remote);
    // SAFETY: it loads from `bytes`, and stores as `read` does.
    done(unsafe { libc::process_vm_writev(pid, local, 1, remote, 1, 0) })
}

fn process_read(bytes: &mut [u8], (at, len): Part) -> io::Result<usize> {
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: pointer(at), iov_len: len };
    let (pid, local, remote) = (this_process(), &raw const local, &raw const remote);
    // SAFETY: it stores into `bytes`, and loads as `write` does.
    done(unsafe { libc::process_vm_readv(pid, local, 1, remote, 1, 0) })
}

fn this_process() -> c_int {
    rustix::process::getpid().as_raw_pid()
}
