//! The inodes the kernel knows. Owns a handle of each, and how often the kernel was told of it.
//!
//! The kernel names an inode by number until it has forgotten it as often as it was told; meanwhile
//! the handle here keeps a file without a name alive, and its number from being given out again.

use std::collections::HashMap;

use fuser::{Errno, INodeNo};
use udax::fs::{Filesystem, Inode};
use udax_mm::sync::{Arc, Mutex};

use crate::errno::errno;

/// The table of inodes the kernel knows.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    known: Mutex<HashMap<u64, Handle>>,
}

#[derive(Debug)]
struct Handle {
    inode: Arc<Inode>,
    told: u64,
}

impl Handles {
    /// Finds what the kernel calls `ino`.
    pub(crate) fn find(&self, fs: &Filesystem, ino: INodeNo) -> Result<Arc<Inode>, Errno> {
        if ino == INodeNo::ROOT {
            return fs.root().map_err(|error| errno(&error));
        }
        self.known.lock().get(&ino.0).map(|handle| Arc::clone(&handle.inode)).ok_or(Errno::ESTALE)
    }

    /// Counts that the kernel is told of `inode`; to be called before the reply.
    pub(crate) fn tell(&self, inode: &Arc<Inode>) {
        let mut known = self.known.lock();
        let handle = known
            .entry(inode.ino().0)
            .or_insert_with(|| Handle { inode: Arc::clone(inode), told: 0 });
        handle.told += 1;
    }

    /// Counts that the kernel has forgotten `ino` `times` times.
    pub(crate) fn forget(&self, ino: INodeNo, times: u64) {
        let gone = {
            let mut known = self.known.lock();
            let Some(handle) = known.get_mut(&ino.0) else { return };
            handle.told = handle.told.saturating_sub(times);
            if handle.told > 0 { None } else { known.remove(&ino.0) }
        };
        // Outside of the lock: the last handle of a file without a name frees it.
        drop(gone);
    }
}
