//! What the kernel and a userfaultfd say to each other.
//!
//! This file owns the numbers and structures of `linux/userfaultfd.h` (of which the names are
//! kept), the decoding of messages, and what is told of a refusal. It makes no call: [`reserve`](crate::reserve) and
//! [`faults`](crate::faults) do.

use std::io;

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
