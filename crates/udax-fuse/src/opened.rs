//! The handles of files that the kernel has open for writing. Owns the write access of each.
//!
//! The kernel releases a handle when nobody has the file open *or mapped* by it any more, and before
//! that writes back what was stored through the mapping: `munmap` and the end of a process wait for
//! it. So a file without such a handle gets no store that the server does not know of. Files that
//! are open for reading, and directories, need nothing, and share one handle.

use std::collections::HashMap;

use fuser::FileHandle;
use udax::fs::WriteAccess;
use udax_mm::sync::Mutex;

/// The handle of whatever is not open for writing.
pub(crate) const FOR_READING: FileHandle = FileHandle(0);

/// The table of handles that are open for writing.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// The last number that was given out. None is given out twice.
    last: u64,
    accesses: HashMap<u64, WriteAccess>,
}

impl Opened {
    /// Keeps `access` until its handle is released.
    pub(crate) fn open(&self, access: WriteAccess) -> FileHandle {
        let mut table = self.table.lock();
        table.last += 1;
        let number = table.last;
        table.accesses.insert(number, access);
        FileHandle(number)
    }

    /// Gives back what was kept for `handle`.
    pub(crate) fn release(&self, handle: FileHandle) {
        let access = self.table.lock().accesses.remove(&handle.0);
        // Outside of the lock: the last handle of a file without a name frees it.
        drop(access);
    }
}

/// Whether flags of an open ask for more than reading.
pub(crate) fn is_for_writing(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY
}
