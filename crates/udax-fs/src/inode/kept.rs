//! What keeps an inode in memory without a handle of it: pins by which a device stores.
//!
//! A device tells nobody of its stores. Writeback flushes them because the mapping of the file
//! lists the pin, and whoever opens the file again has to find that mapping (I-41). A file that has
//! lost its last name needs no writeback: nothing keeps it, and its end sends what is pinned to
//! limbo.

use udax_mm::sync::{Arc, Weak};

use super::Inode;

/// The keepers of one inode.
#[derive(Debug, Default)]
pub(super) struct Kept {
    keepers: usize,
    /// The inode itself, for as long as there is a keeper and a name.
    inode: Option<Arc<Inode>>,
}

/// Keeps an inode in memory until it is dropped, or the inode has no name.
#[derive(Debug)]
pub(crate) struct Keeper(Weak<Inode>);

impl Inode {
    /// Keeps the inode in memory.
    pub(super) fn keep(self: &Arc<Inode>) -> Keeper {
        // Held until the inode is kept: who takes the last name comes before, or lets go of it.
        let state = self.node.read();
        let mut kept = self.kept.lock();
        kept.keepers += 1;
        if state.record.links.get() > 0 {
            kept.inode = Some(Arc::clone(self));
        }
        Keeper(Arc::downgrade(self))
    }

    /// Lets go of a file that has no name any more, which its last handle frees then.
    pub(crate) fn let_go_unnamed(&self) {
        if self.node.read().record.links.get() == 0 {
            let kept = self.kept.lock().inode.take();
            drop(kept);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let Some(inode) = self.0.upgrade() else { return };
        let mut kept = inode.kept.lock();
        kept.keepers -= 1;
        let last = if kept.keepers == 0 { kept.inode.take() } else { None };
        drop(kept);
        drop(last);
    }
}
