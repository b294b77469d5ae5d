//! Inodes: handles of files, directories and symbolic links.
//!
//! This file owns what an inode is in memory. [`Inode`] is the handle that callers share; the last
//! one to go writes back what is left, and frees an inode without a name. [`Node`] is what the
//! mapping asks for extents: it never frees anything, so the thread that answers a fault may be the
//! last to let it go.
//!
//! Three locks order the changes of one inode, outer to inner. *writer*: one write, append, growing
//! or freezing at a time. *layout* (of the mapping): shared while bytes are copied and pages are
//! added, exclusive while pages are taken away. *state*: the record and the tree. A truncate that
//! waits for a pin holds none of them, so whoever holds the pin can still read, write and fault.

pub(crate) mod attr;
mod clone;
mod copy;
mod dedupe;
mod evict;
mod failed;
mod fill;
mod freeze;
mod iomap;
mod kept;
mod mapped;
mod pair;
mod punch;
mod read;
pub(crate) mod record;
mod seek;
mod state;
mod truncate;
mod write;
mod write_access;

use std::fmt;

use udax_mapping::Mapping;
use udax_mm::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use udax_mm::units::PAGE_BYTES;
use udax_mm::{FileIndex, Pages, UseCount};

pub use attr::{Attr, SetAttr};
pub use dedupe::Deduped;
pub use mapped::{FileExtent, FileMapping};
pub use truncate::FreePolicy;
pub use write_access::WriteAccess;

pub(crate) use iomap::spans;
pub(crate) use kept::Keeper;
pub(crate) use mapped::join_pin;
pub(crate) use state::State;

use crate::core::Core;
use crate::dir::Index;
use crate::format::{InodeRecord, MAX_FILE_BYTES};
use crate::txn::{Slot, Txn};
use crate::{FsError, Ino, Kind};

/// The index after the last page of the largest file.
pub(crate) const END: FileIndex = FileIndex(MAX_FILE_BYTES / PAGE_BYTES);

/// An open inode.
///
/// There is one object for each inode; handles share it, and a pin for writing keeps it for as long
/// as it has a name. The last handle of an inode without a name frees it: what is pinned goes to
/// limbo.
pub struct Inode {
    node: Arc<Node>,
    mapping: Arc<Mapping>,
    writer: Mutex<Writer>,
    kept: Mutex<kept::Kept>,
    /// Who may write the file after a call; counted under the lock of the state.
    writers: UseCount,
}

/// The state of an inode, without its mapping.
pub(crate) struct Node {
    pub(crate) core: Arc<Core>,
    pub(crate) ino: Ino,
    pub(crate) kind: Kind,
    state: RwLock<State>,
    /// The names of a directory, read at first use.
    pub(crate) index: RwLock<Option<Index>>,
}

/// What the writer lock is around: the turn of one writer.
#[derive(Debug, Default)]
struct Writer;

impl Inode {
    pub(crate) fn new(node: Arc<Node>, mapping: Arc<Mapping>) -> Inode {
        Inode {
            node,
            mapping,
            writer: Mutex::default(),
            kept: Mutex::default(),
            writers: UseCount::default(),
        }
    }

    /// The number.
    pub fn ino(&self) -> Ino {
        self.node.ino
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.node.kind
    }

    /// The attributes.
    pub fn attr(&self) -> Attr {
        self.node.read().record.attr(self.node.kind)
    }

    /// Sets attributes, all or none, durably.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::ReadOnly`] on a read-only mount, and [`FsError::Device`] if the device
    /// fails. A frozen file keeps its bytes, not its attributes.
    pub fn set_attr(&self, set: &SetAttr) -> Result<Attr, FsError> {
        self.node.core.check_writable()?;
        let mut state = self.node.write();
        let mut next = state.clone();
        next.set(set);
        self.node.commit(&mut state, next, Txn::new(&self.node.core.store))?;
        if set.mtime.is_some() {
            // It is later than the stores so far, and is to stay when they are found.
            let _ = self.mapping.take_stores();
        }
        Ok(state.record.attr(self.node.kind))
    }

    /// Waits for calls that are under way, and takes every translation back. The filesystem is
    /// closed, so that no further call changes anything.
    pub(crate) fn retire(&self) {
        drop(self.writer.lock());
        drop(self.node.write());
        self.mapping.zap_all();
    }

    /// Runs `look` on the state of the file, whose pages and nodes stay what they are meanwhile.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        // The layout lock holds off everything else that could free them.
        let _faults = self.mapping.faults();
        self.node.look(look)
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Refuses what is not a regular file.
    fn check_file(&self) -> Result<(), FsError> {
        match self.node.kind {
            Kind::File => Ok(()),
            Kind::Dir => Err(FsError::IsADirectory),
            Kind::Symlink => Err(FsError::NotAFile),
        }
    }
}

impl Node {
    pub(crate) fn new(core: Arc<Core>, ino: Ino, (kind, state): (Kind, State)) -> Node {
        Node { core, ino, kind, state: RwLock::new(state), index: RwLock::default() }
    }

    /// The state, to read.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// As [`Inode::look`], for who holds the layout lock, on either side.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        let state = self.read();
        if state.tree.may_share {
            // A store through a mapping may move the file away from pages that it shares, and from
            // nodes that held nothing else; the others may free the pages: not meanwhile (rule 28).
            return look(&state);
        }
        let copy = state.clone();
        drop(state);
        look(&copy)
    }

    /// The state, to change.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }

    /// Commits `txn` together with the next state of this inode, and only then shows that state.
    #[track_caller]
    fn commit(&self, state: &mut State, next: State, mut txn: Txn<'_>) -> Result<(), FsError> {
        let next = next.settled();
        txn.write(self.slot()?, &next.record);
        txn.commit()?;
        *state = next;
        Ok(())
    }

    /// Where the record lies.
    pub(crate) fn slot(&self) -> Result<Slot<InodeRecord>, FsError> {
        self.core.itable.slot(self.ino)
    }
}

/// The pages that hold bytes `from..to`.
fn pages_holding(from: u64, to: u64) -> std::ops::Range<FileIndex> {
    FileIndex::of_byte(from)..end_of(to)
}

/// The first page that holds no byte before `size`.
pub(crate) fn end_of(size: u64) -> FileIndex {
    FileIndex(Pages::holding(size).0)
}

impl fmt::Debug for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Inode").field(&self.node.ino.0).finish()
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.ino.0).finish()
    }
}
