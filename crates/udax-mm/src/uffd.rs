//! What the kernel and a userfaultfd say to each other.
//!
//! This file owns the numbers and structures of `linux/userfaultfd.h` (of which the names are
//! kept), the requests that are made with them, the decoding of messages, and what is told of a
//! refusal. Which ranges they are about is for [`reserve`](crate::reserve) to say, and
//! [`faults`](crate::faults) reads the messages.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::mm::UserfaultfdFlags;

/// The version of the interface.
pub(crate) const UFFD_API: u64 = 0xaa;

/// Faults say whether they are of a write-protected page.
pub(crate) const UFFD_FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;
/// A registration moves along with its pages, and mremap waits until somebody has read so.
pub(crate) const UFFD_FEATURE_EVENT_REMAP: u64 = 1 << 2;

/// Faults of pages that are not there are messages.
pub(crate) const UFFDIO_REGISTER_MODE_MISSING: u64 = 1 << 0;
/// Faults of pages that are write-protected are messages.
pub(crate) const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;

/// Does not wake who waits for the page.
pub(crate) const UFFDIO_COPY_MODE_DONTWAKE: u64 = 1 << 0;
/// Protects the page against writing from the first moment on.
pub(crate) const UFFDIO_COPY_MODE_WP: u64 = 1 << 1;

/// Permitting stores does not wake who waits for the page. (The mode to forbid them is bit 0.)
pub(crate) const UFFDIO_WRITEPROTECT_MODE_DONTWAKE: u64 = 1 << 1;

pub(crate) const USERFAULTFD_IOC_NEW: libc::Ioctl = request(0, 0, 0x00);
pub(crate) const UFFDIO_API: libc::Ioctl = request(READ_WRITE, 24, 0x3f);
pub(crate) const UFFDIO_REGISTER: libc::Ioctl = request(READ_WRITE, 32, 0x00);
pub(crate) const UFFDIO_WAKE: libc::Ioctl = request(READ, 16, 0x02);
pub(crate) const UFFDIO_COPY: libc::Ioctl = request(READ_WRITE, 40, 0x03);
pub(crate) const UFFDIO_POISON: libc::Ioctl = request(READ_WRITE, 32, 0x08);
pub(crate) const UFFDIO_WRITEPROTECT: libc::Ioctl = request(READ_WRITE, 24, 0x06);

const READ: libc::Ioctl = 2;
const READ_WRITE: libc::Ioctl = 3;

/// The number of an ioctl, composed as in `asm-generic/ioctl.h`.
const fn request(direction: libc::Ioctl, size: libc::Ioctl, number: libc::Ioctl) -> libc::Ioctl {
    direction << 30 | size << 16 | 0xaa << 8 | number
}

const _: () = assert!(size_of::<Api>() == 24);
const _: () = assert!(size_of::<Register>() == 32);
const _: () = assert!(size_of::<Region>() == 16);
const _: () = assert!(size_of::<Poison>() == 32);
const _: () = assert!(size_of::<Copy>() == 40);
const _: () = assert!(size_of::<WriteProtect>() == 24);

/// `struct uffdio_api`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Api {
    /// `api`.
    pub(crate) version: u64,
    pub(crate) features: u64,
    pub(crate) ioctls: u64,
}

/// `struct uffdio_range`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// `struct uffdio_register`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Register {
    pub(crate) range: Region,
    pub(crate) mode: u64,
    pub(crate) ioctls: u64,
}

/// `struct uffdio_copy`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Copy {
    pub(crate) dst: u64,
    pub(crate) src: u64,
    pub(crate) len: u64,
    pub(crate) mode: u64,
    /// `copy`, set by the kernel: bytes copied, or a negative error number.
    pub(crate) result: i64,
}

/// `struct uffdio_writeprotect`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct WriteProtect {
    pub(crate) range: Region,
    pub(crate) mode: u64,
}

/// `struct uffdio_poison`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Poison {
    pub(crate) range: Region,
    pub(crate) mode: u64,
    /// `updated`, set by the kernel: bytes marked, or a negative error number.
    pub(crate) result: i64,
}

/// The size of `struct uffd_msg`.
pub(crate) const MESSAGE_SIZE: usize = 32;

const UFFD_EVENT_PAGEFAULT: u8 = 0x12;
const UFFD_PAGEFAULT_FLAG_WRITE: u64 = 1 << 0;

/// A thread that waits for a page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PageFault {
    /// The first address of the page.
    pub(crate) address: usize,
    /// Whether the thread wants to store.
    pub(crate) is_write: bool,
}

impl PageFault {
    /// Decodes one message; None if it tells of anything but a fault.
    pub(crate) fn decode(message: &[u8; MESSAGE_SIZE]) -> Option<PageFault> {
        let word = |at: usize| {
            let bytes = message[at..at + 8].try_into().expect("the slice has eight bytes");
            u64::from_ne_bytes(bytes)
        };
        if message[0] != UFFD_EVENT_PAGEFAULT {
            return None;
        }
        let address = usize::try_from(word(16)).expect("an address fits usize");
        Some(PageFault { address, is_write: word(8) & UFFD_PAGEFAULT_FLAG_WRITE != 0 })
    }
}

/// A userfaultfd.
///
/// # Invariants
///
/// 1. `fd` is a userfaultfd of this process, and speaks [`UFFD_API`] with the features
///    it was opened with.
#[derive(Debug)]
pub(crate) struct Uffd {
    fd: OwnedFd,
}

impl Uffd {
    /// Opens one that sees the faults of system calls too: by the system call if this process may
    /// use it, else by the device.
    pub(crate) fn open() -> io::Result<Uffd> {
        Uffd::with_features(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_EVENT_REMAP)
    }

    pub(crate) fn with_features(features: u64) -> io::Result<Uffd> {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        // SAFETY: the descriptor is used by this type only.
        let opened = unsafe { rustix::mm::userfaultfd(flags) };
        let fd = match opened {
            // The device may not be there at all; what this process may not do is the reason.
            Err(no @ Errno::PERM) => Uffd::open_by_device().map_err(|_| refused(&no.into()))?,
            opened => opened.map_err(|errno| refused(&errno.into()))?,
        };
        let mut api = Api { version: UFFD_API, features, ioctls: 0 };
        // SAFETY: UFFDIO_API takes this structure.
        unsafe { ioctl(fd.as_fd(), UFFDIO_API, &raw mut api) }
            .map_err(|errno| refused(&errno.into()))?;
        // INVARIANT: 1 by the handshake above.
        Ok(Uffd { fd })
    }

    fn open_by_device() -> io::Result<OwnedFd> {
        let device = File::options().read(true).write(true).open("/dev/userfaultfd")?;
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the request takes its flags by value and returns a descriptor.
        let fd = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given this descriptor to us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The descriptor to read messages from.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Wakes the threads that wait for a page of the range; they look again.
    pub(crate) fn wake(&self, start: usize, len: usize) {
        let mut range = Region { start: wide(start), len: wide(len) };
        // SAFETY: UFFDIO_WAKE takes this structure, and changes no memory of any address.
        let woken = unsafe { ioctl(self.as_fd(), UFFDIO_WAKE, &raw mut range) };
        woken.expect("uffd: a page of this process can be woken");
    }

    /// Has faults in a range reported here, of the kinds that `mode` says.
    ///
    /// # Safety
    ///
    /// The range is mapped by the caller, who answers its faults.
    pub(crate) unsafe fn register(&self, start: usize, len: usize, mode: u64) -> Result<(), Errno> {
        let range = Region { start: wide(start), len: wide(len) };
        let mut register = Register { range, mode, ioctls: 0 };
        // SAFETY: UFFDIO_REGISTER takes this structure, and the range is the caller's.
        unsafe { ioctl(self.as_fd(), UFFDIO_REGISTER, &raw mut register) }
    }

    /// Marks all pages of a range that was registered here as failed.
    pub(crate) fn poison(&self, start: usize, len: usize) -> Result<(), Errno> {
        let mut done = 0;
        while done < len {
            match self.poison_part(start + done, len - done) {
                Ok(marked) => done += marked,
                // Another thread is moving a range; it is about to finish.
                Err(Errno::AGAIN) => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Marks missing pages from `start` on as failed. Returns the bytes done: at least one page,
    /// maybe less than `len`.
    fn poison_part(&self, start: usize, len: usize) -> Result<usize, Errno> {
        let range = Region { start: wide(start), len: wide(len) };
        let mut poison = Poison { range, mode: 0, result: 0 };
        // SAFETY: UFFDIO_POISON takes this structure. It changes missing pages only, and only in
        // ranges that were registered, which are those of reservations and of fresh ranges.
        let result = unsafe { ioctl(self.as_fd(), UFFDIO_POISON, &raw mut poison) };
        match (usize::try_from(poison.result), result) {
            (Ok(marked), _) if marked > 0 => Ok(marked),
            (_, Ok(())) => Ok(len),
            (_, Err(error)) => Err(error),
        }
    }

    /// Permits stores to pages that are protected against writing.
    pub(crate) fn unprotect(&self, start: usize, len: usize) -> Result<(), Errno> {
        let range = Region { start: wide(start), len: wide(len) };
        let mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
        let mut protect = WriteProtect { range, mode };
        // SAFETY: UFFDIO_WRITEPROTECT takes this structure. It changes ranges that were registered
        // only, which are those of reservations, and permits what their owner may do.
        unsafe { ioctl(self.as_fd(), UFFDIO_WRITEPROTECT, &raw mut protect) }
    }

    /// Makes missing pages from `start` on a copy of `bytes` that is protected against writing.
    /// Returns the bytes done: at least one page, maybe fewer than there are.
    pub(crate) fn copy(&self, start: usize, bytes: &[u8]) -> Result<usize, Errno> {
        let len = bytes.len();
        let mut copy = Copy {
            dst: wide(start),
            src: wide(bytes.as_ptr().addr()),
            len: wide(len),
            mode: UFFDIO_COPY_MODE_DONTWAKE | UFFDIO_COPY_MODE_WP,
            result: 0,
        };
        // SAFETY: UFFDIO_COPY takes this structure. It fills missing pages only, and only in
        // ranges that were registered, which are those of reservations.
        let result = unsafe { ioctl(self.as_fd(), UFFDIO_COPY, &raw mut copy) };
        match (usize::try_from(copy.result), result) {
            (Ok(copied), _) if copied > 0 => Ok(copied),
            (_, Ok(())) => Ok(len),
            (_, Err(error)) => Err(error),
        }
    }
}

/// Says what a program needs that is refused a userfaultfd.
pub(crate) fn refused(error: &io::Error) -> io::Error {
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; run as root or with CAP_SYS_PTRACE, set the sysctl vm.unprivileged_userfaultfd to 1, \
             or permit /dev/userfaultfd"
        }
        io::ErrorKind::Unsupported => {
            "; the kernel has none, or a filter of system calls keeps it from this process"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("no userfaultfd for lazy mappings: {error}{cure}"))
}

/// Makes a request of a userfaultfd.
///
/// # Safety
///
/// `argument` points to the structure that `request` takes, and what the request does to the
/// address space is sound.
unsafe fn ioctl<T>(
    fd: BorrowedFd<'_>,
    request: libc::Ioctl,
    argument: *mut T,
) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    let result: c_int = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(Errno::from_io_error(&error).expect("the error of a system call has a number"))
}

/// An address or a length in the type of the kernel's structures.
fn wide(value: usize) -> u64 {
    u64::try_from(value).expect("usize has at most 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_numbers_are_those_of_the_kernel() {
        let numbers = [UFFDIO_API, UFFDIO_REGISTER, UFFDIO_WAKE, UFFDIO_COPY, UFFDIO_POISON];
        let expected = [0xc018_aa3f, 0xc020_aa00, 0x8010_aa02, 0xc028_aa03, 0xc020_aa08];
        assert_eq!(numbers, expected);
    }

    #[test]
    fn only_a_fault_message_is_a_fault() {
        let mut message = [0; MESSAGE_SIZE];
        message[0] = 0x12;
        message[8] = 3;
        message[16..24].copy_from_slice(&0x7000_usize.to_ne_bytes());
        let fault = PageFault { address: 0x7000, is_write: true };
        assert_eq!(PageFault::decode(&message), Some(fault));

        message[8] = 0;
        assert_eq!(PageFault::decode(&message), Some(PageFault { is_write: false, ..fault }));
        message[0] = 0x14;
        assert_eq!(PageFault::decode(&message), None);
    }
}
