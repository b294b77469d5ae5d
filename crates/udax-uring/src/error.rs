//! Why the host, or this crate, refused something.

use std::io;
use std::ops::Range;

use rustix::io::Errno;

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// `io_uring` is switched off (`kernel.io_uring_disabled`, seccomp), or the kernel has none.
    #[error("this host does not permit io_uring: {0}")]
    NotPermitted(#[source] io::Error),

    /// Anything else that the host says.
    #[error("the host made no ring: {0}")]
    Host(#[source] io::Error),
}

/// Why buffers were not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The pages of a pin have no addresses.
    #[error(transparent)]
    Pin(#[from] udax::Error),

    /// More runs of addresses than the kernel has numbers for.
    #[error("the buffers have more than 65536 runs of addresses")]
    TooMany,

    /// The buffer is pinned for the length of a call: the pool has no record of the pin, and would give
    /// its pages to another file while the kernel uses them, should this process die (rule 35 of
    /// docs/protocol.md).
    #[error("buffer {0} is pinned for a call only; pin it with PinTerm::Long")]
    ShortTerm(usize),

    /// The buffer is pinned for reading, and the other process could have it written.
    #[error("buffer {0} is pinned for reading, so it cannot be lent")]
    ReadOnly(usize),

    /// More memory than the user may lock.
    #[error("the memory to register exceeds the limit of locked memory (`ulimit -l`): {0}")]
    MemoryLimit(#[source] io::Error),

    /// The kernel does not let devices keep these pages: they belong to a file whose filesystem has
    /// to know of every store, are mapped for reading, or lie past the end of their file.
    #[error("the kernel lets no device keep pages of this file: {0}")]
    NotRegistrable(#[source] io::Error),

    /// Anything else that the kernel says.
    #[error("the kernel did not register the buffers: {0}")]
    Host(#[source] io::Error),
}

/// Why a transfer was not begun or not waited for.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// There is no buffer of that number.
    #[error("there is no buffer {buffer}; {count} are registered")]
    NoSuchBuffer {
        /// The number that was asked for.
        buffer: usize,
        /// How many there are.
        count: usize,
    },

    /// The range is empty, or not inside the buffer.
    #[error("bytes {}..{} are no bytes of a buffer of {len}", range.start, range.end)]
    OutOfRange {
        /// The range that was asked for.
        range: Range<u64>,
        /// The bytes of the buffer.
        len: u64,
    },

    /// The bytes of the file reach past the last that a file can have, `i64::MAX`. The host reads the
    /// offset [`u64::MAX`] as the position of the file, which no transfer uses.
    #[error("no file has {len} bytes from byte {at} on")]
    PastLastByte {
        /// The first byte of the file that was asked for.
        at: u64,
        /// How many were to be moved.
        len: u64,
    },

    /// The buffer is pinned for reading, so nothing may be read into it.
    #[error("buffer {0} is pinned for reading, so the kernel must not store to it")]
    ReadOnly(usize),

    /// What the host says.
    #[error("the host did not take the request: {0}")]
    Host(#[from] io::Error),
}

/// Why buffers could not be unregistered. Their pins are held until the process ends.
#[derive(Debug, thiserror::Error)]
#[error("the kernel did not let go of the buffers, so they stay pinned: {0}")]
pub struct UnregisterError(#[source] pub(crate) io::Error);

impl SetupError {
    pub(crate) fn of(error: io::Error) -> SetupError {
        match Errno::from_io_error(&error) {
            Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => SetupError::NotPermitted(error),
            _ => SetupError::Host(error),
        }
    }
}

impl RegisterError {
    pub(crate) fn of(error: io::Error) -> RegisterError {
        match Errno::from_io_error(&error) {
            Some(Errno::NOMEM) => RegisterError::MemoryLimit(error),
            // What is registered is mapped, so it is not the address that is bad.
            Some(Errno::FAULT | Errno::OPNOTSUPP) => RegisterError::NotRegistrable(error),
            _ => RegisterError::Host(error),
        }
    }
}
