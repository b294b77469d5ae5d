//! What all inodes of a mounted filesystem share.
//!
//! [`Core`] outlives the [`Filesystem`](crate::Filesystem) for as long as a handle of an inode
//! exists, but once the filesystem is closed it refuses every call.

use std::fmt;

use udax_mapping::Mapping;
use udax_mm::FaultService;
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::{Arc, RwLock, Weak};

use crate::cache::Cache;
use crate::inode::{Node, State};
use crate::itable::Itable;
use crate::store::Store;
use crate::{FsError, Ino, Inode, MountMode};

/// The store, the inode table and the inodes in memory.
pub(crate) struct Core {
    pub(crate) store: Arc<Store>,
    pub(crate) itable: Itable,
    pub(crate) cache: Cache,
    /// Held shared to look names up, exclusively to change them.
    pub(crate) namespace: RwLock<Names>,
    service: Option<Arc<FaultService>>,
    mode: MountMode,
    is_closed: AtomicBool,
}

/// What the namespace lock is around. The names are on the medium.
#[derive(Debug, Default)]
pub(crate) struct Names;

impl Core {
    /// Joins what mounting found.
    pub(crate) fn new(
        store: Arc<Store>,
        itable: Itable,
        mode: MountMode,
        service: Option<Arc<FaultService>>,
    ) -> Arc<Core> {
        Arc::new(Core {
            store,
            itable,
            cache: Cache::default(),
            namespace: RwLock::default(),
            service,
            mode,
            is_closed: AtomicBool::new(false),
        })
    }

    /// The inode `ino`, which must be in use and intact.
    pub(crate) fn inode(self: &Arc<Core>, ino: Ino) -> Result<Arc<Inode>, FsError> {
        self.check_open()?;
        self.cache.get_or_load(ino, || {
            let state = State::load(&self.store, &self.itable, ino)?;
            let node = Arc::new(Node::new(Arc::clone(self), ino, state));
            let ops: Weak<Node> = Arc::downgrade(&node);
            let mapping = Mapping::new(ops, self.service.clone());
            Ok(Arc::new(Inode::new(node, mapping)))
        })
    }

    /// Refuses once the filesystem is closed.
    pub(crate) fn check_open(&self) -> Result<(), FsError> {
        // Acquire pairs with the Release in `close`.
        if self.is_closed.load(Ordering::Acquire) { Err(FsError::Closed) } else { Ok(()) }
    }

    /// Refuses what changes the medium, where that may not be.
    pub(crate) fn check_writable(&self) -> Result<(), FsError> {
        self.check_open()?;
        match self.mode {
            MountMode::ReadOnly => Err(FsError::ReadOnly),
            MountMode::ReadWrite => self.store.check_writable(),
        }
    }

    /// Refuses every later call. Returns whether this call closed it.
    pub(crate) fn close(&self) -> bool {
        // Release pairs with the Acquire in `check_open`.
        !self.is_closed.swap(true, Ordering::AcqRel)
    }

    /// How it is mounted.
    pub(crate) fn mode(&self) -> MountMode {
        self.mode
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("mode", &self.mode).finish_non_exhaustive()
    }
}
