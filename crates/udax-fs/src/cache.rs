//! The inodes in memory: at most one object for each number.
//!
//! The cache holds weak references only; handles keep an inode in memory. An inode whose last
//! handle is gone writes what it still has to write, and perhaps frees its blocks, before it leaves
//! the cache. Until then its number is *leaving*, and who asks for it waits: two objects of one
//! inode would each have a tree of their own.

use std::collections::HashMap;

use udax_mm::sync::{Arc, Condvar, Mutex, Weak};

use crate::{FsError, Ino, Inode};

/// The inodes in memory, by number.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    inodes: Mutex<HashMap<Ino, Weak<Inode>>>,
    left: Condvar,
}

impl Cache {
    /// The inode of that number, brought in by `load` if it is not in memory.
    ///
    /// # Blocking
    ///
    /// Waits for an inode of that number that is leaving.
    pub(crate) fn get_or_load(
        &self,
        ino: Ino,
        load: impl FnOnce() -> Result<Arc<Inode>, FsError>,
    ) -> Result<Arc<Inode>, FsError> {
        let mut inodes = self.inodes.lock();
        while let Some(weak) = inodes.get(&ino) {
            if let Some(inode) = weak.upgrade() {
                return Ok(inode);
            }
            inodes = self.left.wait(inodes);
        }
        // Under the lock, so that nobody else loads it; loading takes no other handle.
        let inode = load()?;
        inodes.insert(ino, Arc::downgrade(&inode));
        Ok(inode)
    }

    /// Every inode in memory that is not leaving.
    pub(crate) fn all(&self) -> Vec<Arc<Inode>> {
        self.inodes.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Forgets a leaving inode and lets in who waits for its number.
    pub(crate) fn forget(&self, ino: Ino) {
        self.inodes.lock().remove(&ino);
        self.left.notify_all();
    }
}
