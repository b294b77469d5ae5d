//! The filesystem: formatting, mounting, closing, and the facts of a whole pool.

use std::collections::VecDeque;
use std::ops::Range;

use udax_dev::{AccessError, DaxBytes, DaxDevice, Hold, Holder};
use udax_mm::sync::{Arc, Mutex, OnceLock, Weak};
use udax_mm::{DeviceOff, FaultService, Pages, Wait};

use crate::core::Core;
use crate::format::{Geometry, ROOT_INO};
use crate::inode::record::NewInode;
use crate::itable::Itable;
use crate::itable::Table;
use crate::pin_table::PinTable;
use crate::recovery::{self, Opened};
use crate::store::Store;
use crate::superblock::{Session, Superblock, now};
use crate::txn::Txn;
use crate::{FsError, Ino, Inode, Kind};

/// Directories that stay in memory after their last handle is gone, so that walking a path again
/// does not read them again.
const RECENT_DIRS: usize = 64;

/// What a new filesystem is called.
#[derive(Clone, Debug, Default)]
pub struct FormatOptions {
    /// The name for people, at most 64 bytes.
    pub label: String,
    /// The name for programs; `None` makes a random one.
    pub uuid: Option<[u8; 16]>,
}

/// How a filesystem is mounted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MountMode {
    /// To read and write.
    ReadWrite,
    /// Nothing is written, not even recovery: a filesystem that needs it is refused.
    ReadOnly,
}

/// What mounting found and repaired.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The process that had the pool open before and did not close it.
    pub unclean: Option<u32>,
    /// Whether the host was started again since that process opened it.
    pub rebooted: bool,
    /// Whether the superblock was bad, and its mirror used (and copied back, if mounted to write).
    pub mirror_used: bool,
    /// Whether the last transaction had to be repeated.
    pub replayed: bool,
    /// How many removed files were freed that somebody had open.
    pub orphans: u64,
    /// How many long-term pins of owners that died hold pages in quarantine.
    pub quarantined: u64,
    /// How many more there were that the start of the host since then ended.
    pub released: u64,
    /// Inodes that contradict themselves. Never with a mount to write, which is refused then.
    pub corrupt: Vec<Ino>,
}

/// How full a filesystem is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Pages of the device.
    pub total: Pages,
    /// Pages in use: what is neither free nor in limbo nor in quarantine.
    pub used: Pages,
    /// Pages that can be allocated.
    pub free: Pages,
    /// Pages that were freed and that somebody has still pinned, and free ones whose memory failed.
    pub limbo: Pages,
    /// Pages of no file to which a device may still store for a process that died.
    pub quarantined: Pages,
    /// Pages in use, counted once, that more than one place of a file refers to.
    pub shared: Pages,
    /// Files, directories and symbolic links.
    pub inodes: u64,
    /// 2 MiB blocks that are wholly free.
    pub huge_free: u64,
    /// How often since mounting a 2 MiB block was wanted and free space was too scattered for one.
    pub huge_misses: u64,
}

/// A mounted filesystem.
///
/// # Examples
///
/// ```
/// # use std::ffi::OsStr;
/// # use udax_mm::{MediaRange, MemoryType, Pages, Pgmap, media::FileMedia, sync::Arc};
/// # use udax_dev::PgmapDevice;
/// use udax_fs::{Filesystem, FormatOptions, Kind, MountMode, Name};
///
/// # let media = Arc::new(FileMedia::memfd("doc", Pages(1024).bytes())?);
/// # let ranges = vec![MediaRange { media, start: 0, pages: Pages(1024) }];
/// # let device = Arc::new(PgmapDevice::new(Pgmap::new(ranges, MemoryType::FsDax)?));
/// Filesystem::format(device.clone(), &FormatOptions::default())?;
/// let (fs, _) = Filesystem::mount(device, MountMode::ReadWrite, None)?;
///
/// let file = fs.create(&fs.root()?, &Name::new(OsStr::new("a"))?, Kind::File, 0o644, 0, 0)?;
/// file.write_at(b"hello", 0)?;
/// let mut read = [0; 5];
/// assert_eq!(file.read_at(&mut read, 0)?, 5);
/// assert_eq!(&read, b"hello");
///
/// drop(file);
/// fs.unmount()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Filesystem {
    core: Arc<Core>,
    superblock: Superblock,
    /// Directories used lately, the latest first.
    recent: Mutex<VecDeque<Arc<Inode>>>,
    /// The right to be told of the device's removal, until the filesystem is closed.
    hold: Mutex<Option<Hold>>,
    _removal: Arc<Removal>,
}

/// Takes translations back when the device goes, or memory of it fails.
#[derive(Debug, Default)]
struct Removal {
    /// Set once the filesystem is mounted.
    core: OnceLock<Weak<Core>>,
}

impl Filesystem {
    /// The smallest device: 2 MiB.
    pub const MIN_PAGES: Pages = Pages(512);

    /// Writes an empty filesystem, over whatever the device holds.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::TooSmall`] below [`Filesystem::MIN_PAGES`], [`FsError::Holder`] if
    /// somebody holds the device, as a mounted filesystem does, and [`FsError::Device`] if the
    /// device fails; it then holds no filesystem.
    pub fn format(device: Arc<dyn DaxDevice>, options: &FormatOptions) -> Result<(), FsError> {
        device.dax().map_err(AccessError::from)?;
        let pages = device.size();
        if pages < Filesystem::MIN_PAGES {
            return Err(FsError::TooSmall { min: Filesystem::MIN_PAGES, found: pages });
        }
        // There is nothing to take back if the device goes meanwhile.
        let removal = Arc::new(Removal::default());
        let holder: Weak<Removal> = Arc::downgrade(&removal);
        let _hold = device.hold(holder)?;
        let superblock = Superblock {
            geometry: Geometry::of(pages),
            uuid: options.uuid.unwrap_or_else(|| *uuid::Uuid::new_v4().as_bytes()),
            label: options.label.clone(),
            created: now(),
        };
        let bytes = DaxBytes::new(Arc::clone(&device));
        Superblock::wipe(&bytes, &superblock.geometry)?;
        let store = Store::new(device, superblock.geometry, superblock.uuid);
        // Durable with the transaction that follows.
        PinTable::wipe(&store)?;
        create_root(&store)?;
        store.settle()?;
        Session::close(&bytes)?;
        superblock.write(&bytes)
    }

    /// Whether there is a filesystem on a device, by its superblock or the copy of it: also one that
    /// is damaged, or newer than this code. One that was begun to be made is none.
    pub fn is_on(device: &Arc<dyn DaxDevice>) -> bool {
        Superblock::is_there(&DaxBytes::new(Arc::clone(device)))
    }

    /// Mounts the filesystem of a device, after repairing what an unclean end left behind.
    ///
    /// Mappings are filled at the first touch with a `service`, and at once without one.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::NotAPool`], [`FsError::Truncated`], [`FsError::NewerVersion`],
    /// [`FsError::UnknownFeatures`] and [`FsError::Corrupt`] for what cannot be mounted,
    /// [`FsError::NeedsRecovery`] for what cannot be mounted without writing, and
    /// [`FsError::Holder`] if somebody else holds the device. Nothing was written then, except
    /// that a transaction which had been committed may have been completed.
    pub fn mount(
        device: Arc<dyn DaxDevice>,
        mode: MountMode,
        service: Option<Arc<FaultService>>,
    ) -> Result<(Arc<Filesystem>, Recovered), FsError> {
        let removal = Arc::new(Removal::default());
        let holder: Weak<Removal> = Arc::downgrade(&removal);
        device.dax().map_err(AccessError::from)?;
        let hold = device.hold(holder)?;
        let Opened { superblock, store, itable, recovered } = recovery::open(device, mode)?;
        let core = Core::new(store, itable, mode, service);
        let _ = removal.core.set(Arc::downgrade(&core));
        core.failed_before();
        let fs = Filesystem {
            core,
            superblock,
            recent: Mutex::default(),
            hold: Mutex::new(Some(hold)),
            _removal: removal,
        };
        Ok((Arc::new(fs), recovered))
    }

    /// Closes the filesystem: everything stored is durable, and the medium says that it was closed.
    ///
    /// Handles that are still held refuse every call from then on, and a touch of a mapping is a
    /// SIGBUS. Dropping a filesystem without this counts as an unclean end; nothing is lost by it.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Pinned`] while pages are pinned; the filesystem stays open then. Returns
    /// [`FsError::Closed`] the second time.
    pub fn unmount(&self) -> Result<(), FsError> {
        self.core.check_open()?;
        self.refuse_pinned()?;
        self.forget_recent();
        for inode in self.core.cache.all() {
            inode.sync()?;
        }
        if self.core.mode() == MountMode::ReadWrite {
            self.core.store.pins.close(&self.core.store)?;
        }
        if !self.core.close() {
            return Err(FsError::Closed);
        }
        for inode in self.core.cache.all() {
            inode.retire();
        }
        if self.core.mode() == MountMode::ReadWrite {
            self.core.store.settle()?;
            Session::close(&DaxBytes::new(Arc::clone(self.core.store.device())))?;
        }
        drop(self.hold.lock().take());
        Ok(())
    }

    /// The name for programs.
    pub fn uuid(&self) -> [u8; 16] {
        self.superblock.uuid
    }

    /// The name for people.
    pub fn label(&self) -> String {
        self.superblock.label.clone()
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let store = &self.core.store;
        let total = store.geometry().pages;
        let (free, limbo) = (store.free_pages(), store.limbo_pages());
        let quarantined = store.quarantine.withheld();
        Usage {
            total,
            used: total - free - limbo - quarantined,
            free,
            limbo,
            quarantined,
            shared: store.shared_pages(),
            inodes: self.core.itable.used(),
            huge_free: store.huge_free(),
            huge_misses: store.huge_misses(),
        }
    }

    /// The root directory.
    ///
    /// # Errors
    ///
    /// As [`Filesystem::inode`].
    pub fn root(&self) -> Result<Arc<Inode>, FsError> {
        self.open(ROOT_INO)
    }

    /// The inode of that number.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Stale`] for a number that is not in use, [`FsError::Corrupt`] for an
    /// inode that cannot be read, and [`FsError::Closed`].
    pub fn inode(&self, ino: Ino) -> Result<Arc<Inode>, FsError> {
        self.open(ino)
    }

    /// Makes everything stored so far durable, in all files. Those that nobody has open became
    /// durable with their last handle.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Device`] if the device fails.
    pub fn sync(&self) -> Result<(), FsError> {
        for inode in self.core.cache.all() {
            inode.sync()?;
        }
        Ok(())
    }

    /// Takes the device away: mappings are taken back, new access is refused at once, and pins are
    /// waited for as `wait` says. May be called again after an error.
    ///
    /// # Blocking
    ///
    /// Waits for the pins.
    ///
    /// # Errors
    ///
    /// Returns the pins and pages that are still in use if the wait runs out.
    pub fn kill_device(&self, wait: Wait) -> Result<(), udax_mm::StillBusy> {
        if let Wait::Until(_) | Wait::Forever = wait {
            let deadline = if let Wait::Until(deadline) = wait { Some(deadline) } else { None };
            self.recall_pins(deadline);
        }
        self.core.store.device().kill(wait)
    }

    /// The device below. Its page maps are where a failure of memory is reported
    /// ([`memory_failure`](udax_mm::PgmapRef::memory_failure)) by who finds one.
    pub fn device(&self) -> &Arc<dyn DaxDevice> {
        self.core.store.device()
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// An inode; a directory is kept in memory for a while.
    pub(crate) fn open(&self, ino: Ino) -> Result<Arc<Inode>, FsError> {
        let inode = self.core.inode(ino)?;
        if inode.kind() == Kind::Dir {
            self.remember_dir(&inode);
        }
        Ok(inode)
    }

    /// Lets a directory that was removed leave memory with its last handle.
    pub(crate) fn forget_dir(&self, dir: &Arc<Inode>) {
        self.recent.lock().retain(|recent| !Arc::ptr_eq(recent, dir));
    }

    fn remember_dir(&self, dir: &Arc<Inode>) {
        // Dropped after the lock: it may be the last handle.
        let _old = {
            let mut recent = self.recent.lock();
            recent.retain(|other| !Arc::ptr_eq(other, dir));
            recent.push_front(Arc::clone(dir));
            if recent.len() > RECENT_DIRS { recent.pop_back() } else { None }
        };
    }

    fn forget_recent(&self) {
        let recent = std::mem::take(&mut *self.recent.lock());
        drop(recent);
    }
}

impl Holder for Removal {
    fn removing(&self) {
        let Some(core) = self.core.get().and_then(Weak::upgrade) else { return };
        core.store.ahead.forget_all();
        for inode in core.cache.all() {
            inode.mapping().zap_all();
        }
    }

    fn failed(&self, pages: Range<DeviceOff>) {
        if let Some(core) = self.core.get().and_then(Weak::upgrade) {
            core.failed(&pages);
        }
    }

    /// Pages stay where they are ([`permits_move`](Holder::permits_move)), or fail and come back there,
    /// so what is shown is looked up again when the table has changed.
    fn suspended(&self, change: &mut dyn FnMut()) {
        change();
        let Some(core) = self.core.get().and_then(Weak::upgrade) else { return };
        for inode in core.cache.all() {
            if let Err(error) = inode.mapping().suspended(|| ()) {
                core.store.stop(error);
            }
        }
    }
}

/// Writes the inode table with the root directory in it.
fn create_root(store: &Arc<Store>) -> Result<(), FsError> {
    let itable = Itable::new(Table::empty());
    let mut txn = Txn::new(store);
    let root = itable.new_ino(store, &mut txn)?;
    assert!(root.ino == ROOT_INO, "the first inode of a filesystem is the root");
    let new = NewInode { kind: Kind::Dir, mode: 0o755, uid: 0, gid: 0 };
    txn.write(root.slot, &new.record(ROOT_INO, ROOT_INO, 1, now()));
    txn.commit()
}
