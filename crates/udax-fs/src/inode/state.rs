//! The state of an inode: its record and its tree, as they are on the medium.

use udax_mm::FileIndex;

use super::attr::SetAttr;
use super::end_of;
use crate::format::InodeRecord;
use crate::itable::Itable;
use crate::store::Store;
use crate::superblock::now;
use crate::tree::Tree;
use crate::{FsError, Ino, Kind};

/// The record and the tree of an inode. A change makes a copy, commits it, and puts it in place.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) record: InodeRecord,
    pub(crate) tree: Tree,
    /// Whether the record has times that the medium does not have yet: overwriting bytes in place,
    /// or by a mapping, costs no transaction of its own.
    pub(crate) has_lazy_times: bool,
}

impl State {
    /// Reads the inode `ino`, which must be in use.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Stale`] for a number that is not in use or only waits to be freed, and
    /// [`FsError::Corrupt`] if the record is not valid.
    pub(crate) fn load(store: &Store, itable: &Itable, ino: Ino) -> Result<(Kind, State), FsError> {
        let record = itable.read(store, ino)?;
        let kind = record
            .examine(ino)
            .map_err(|found| FsError::corrupt(format!("inode {}", ino.0), found))?;
        match kind {
            Some(kind) if record.links.get() > 0 => {
                Ok((kind, State { record, tree: Tree::of(&record)?, has_lazy_times: false }))
            }
            _ => Err(FsError::Stale(ino)),
        }
    }

    /// The size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.record.size.get()
    }

    /// The first index that no byte of the file lies at.
    pub(crate) fn end(&self) -> FileIndex {
        end_of(self.size())
    }

    /// Refuses to change the bytes of a frozen file.
    pub(crate) fn check_not_frozen(&self) -> Result<(), FsError> {
        if self.record.is_frozen() { Err(FsError::Frozen) } else { Ok(()) }
    }

    /// Counts names that came or went.
    pub(crate) fn add_links(&mut self, more: i32) -> Result<(), FsError> {
        let links = self.record.links.get().checked_add_signed(more);
        self.record.links.set(links.ok_or(FsError::TooManyLinks)?);
        Ok(())
    }

    /// Records a change of the bytes.
    pub(crate) fn touch(&mut self) {
        let now = now();
        self.record.mtime.set(now);
        self.record.ctime.set(now);
    }

    /// The same without a transaction: the times become durable with the next one.
    pub(crate) fn touch_lazily(&mut self) {
        self.touch();
        self.has_lazy_times = true;
    }

    /// Records a change of the attributes.
    pub(crate) fn touch_attributes(&mut self) {
        self.record.ctime.set(now());
    }

    /// Sets attributes.
    pub(crate) fn set(&mut self, set: &SetAttr) {
        let record = &mut self.record;
        if let Some(mode) = set.mode {
            record.set_permissions(mode);
        }
        if let Some(uid) = set.uid {
            record.uid.set(uid);
        }
        if let Some(gid) = set.gid {
            record.gid.set(gid);
        }
        if let Some(atime) = set.atime {
            record.atime.set(atime);
        }
        if let Some(mtime) = set.mtime {
            record.mtime.set(mtime);
        }
        self.touch_attributes();
    }

    /// The state whose record says everything, ready to be written.
    pub(crate) fn settled(mut self) -> State {
        self.tree.store_in(&mut self.record);
        self.has_lazy_times = false;
        self.record = self.record.sealed();
        self
    }
}
