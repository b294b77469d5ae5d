//! The end of the last handle: what is left is written, and an inode without a name is freed.

use udax_mapping::Deferred;
use udax_mm::FileIndex;

use super::{END, Inode};
use crate::inode::FreePolicy;
use crate::proof::{Txn, Vacant};
use crate::{FsError, Kind};

/// Frees the inode if it has no name left, and lets its number go.
///
/// An error here is nobody's to handle: the medium then holds an inode without a name, which the
/// next mount frees, or times that are a little old.
impl Drop for Inode {
    fn drop(&mut self) {
        self.node.core.store.ahead.forget(self.node.ino);
        let is_writable = self.node.core.check_writable().is_ok();
        let deferred = if is_writable { self.settle() } else { Ok(Deferred::default()) };
        self.node.core.cache.forget(self.node.ino);
        // Last: whom this calls may want the number.
        if let Ok(deferred) = deferred {
            deferred.tell();
        }
    }
}

impl Inode {
    fn settle(&self) -> Result<Deferred, FsError> {
        let links = self.node.read().record.links.get();
        match self.node.kind {
            _ if links == 0 => self.free(),
            // The mapping goes, and with it the knowledge of what was stored through it.
            Kind::File => self.sync().map(|()| Deferred::default()),
            Kind::Dir | Kind::Symlink => Ok(Deferred::default()),
        }
    }

    /// Frees all pages and the number, in one transaction. What is pinned goes to limbo.
    fn free(&self) -> Result<Deferred, FsError> {
        let store = &self.node.core.store;
        let mut broken = self.break_layout(FileIndex(0), END, FreePolicy::Defer)?;
        let vacant = Vacant::take(store, &mut broken);
        let mut state = self.node.write();
        let mut txn = Txn::new(store);
        let mut next = state.clone();
        let given_up = self.node.maybe_shared(&state, FileIndex(0)..END)?;
        if !state.tree.is_empty() {
            // Nothing is split where nothing stays.
            let cut = state.tree.clear(store, FileIndex(0)..END)?.without_stores();
            next.tree = txn.cut(cut, vacant)?;
        }
        next.record = next.record.freed().sealed();
        txn.write(self.node.slot()?, &next.record);
        txn.commit()?;
        *state = next;
        drop(state);
        broken.give_up();
        // Not before: see `Inode::punch`.
        let mut deferred = broken.take_deferred();
        store.add_pins_of(given_up, &mut deferred);
        drop(broken);
        self.node.core.itable.release(self.node.ino);
        Ok(deferred)
    }
}
