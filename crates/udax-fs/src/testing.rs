//! What the unit tests of this crate share: devices of volatile memory, and objects on them.

use crate::alloc::Goal;
use crate::cut::Cut;
use crate::format::{Geometry, Ino, InodeRecord};
use crate::graft::Graft;
use crate::store::{Store, Vacant};
use crate::stored::{Data, Dirty, Durable, Stored};
use crate::tree::Tree;
use crate::txn::Txn;
use std::ops::Range;
use udax_dev::{DaxBytes, DaxDevice, PgmapDevice};
use udax_mm::media::{Durability, FileMedia, Media, MediaError, MediaFacts, MediaRange, Site};
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::{Arc, OnceLock};
use udax_mm::{Active, FileIndex, MemoryType, Pages, Pgmap};
use zerocopy::FromZeros;

pub(crate) const UUID: [u8; 16] = *b"a pool for tests";

/// A device over `media`. If it is a file, over a mapping of its own, as another process would have
/// it: tests look at a medium that is mounted.
pub(crate) fn device_of(media: Arc<dyn Media>) -> Arc<dyn DaxDevice> {
    let media = mapped_again(&*media).unwrap_or(media);
    let pages = Pages::holding(media.len());
    let ranges = vec![MediaRange { media, start: 0, pages }];
    Arc::new(PgmapDevice::new(Pgmap::new(ranges, MemoryType::FsDax).unwrap()))
}

fn mapped_again(media: &dyn Media) -> Option<Arc<dyn Media>> {
    let (file, _) = media.backing()?;
    let file = file.try_clone_to_owned().unwrap().into();
    Some(Arc::new(FileMedia::from_file(file, Durability::Process).unwrap()))
}

/// A device of zeros.
pub(crate) fn device(pages: Pages) -> Arc<dyn DaxDevice> {
    device_of(Arc::new(FileMedia::memfd("udax-fs tests", pages.bytes()).unwrap()))
}

/// A store on a device of zeros.
pub(crate) fn store(pages: Pages) -> Arc<Store> {
    store_on(device(pages))
}

/// A store that takes all data pages of `device` for free.
pub(crate) fn store_on(device: Arc<dyn DaxDevice>) -> Arc<Store> {
    let geometry = Geometry::of(device.size());
    Store::new(device, geometry, UUID)
}

/// The bytes of the device below a store.
pub(crate) fn bytes(store: &Store) -> DaxBytes {
    DaxBytes::new(Arc::clone(store.device()))
}

/// A record of a file without pages.
pub(crate) fn record(ino: Ino) -> InodeRecord {
    let mut record = InodeRecord::new_zeroed();
    record.mode = 0o100_644.into();
    record.ino = ino.0.into();
    record
}

/// A tree without pages.
pub(crate) fn tree(ino: Ino) -> Tree {
    Tree::of(&record(ino)).unwrap()
}

/// Fresh zeros for `range` of a file.
pub(crate) fn zeros(store: &Store, range: Range<u64>) -> Vec<(FileIndex, Stored<Data, Dirty>)> {
    let range = FileIndex(range.start)..FileIndex(range.end);
    let fresh = store.allocate_range(range, Goal::Packed).unwrap();
    fresh.into_iter().map(|(index, fresh)| (index, Stored::zeros(store, fresh).unwrap())).collect()
}

/// A graft of zeros that may be published.
pub(crate) fn graft(store: &Store, tree: &Tree, range: Range<u64>) -> Stored<Graft, Durable> {
    let graft = tree.insert(store, zeros(store, range)).unwrap();
    graft.flush(store).unwrap().fence(store).unwrap()
}

/// A cut that may be made.
pub(crate) fn cut(store: &Store, tree: &Tree, range: Range<u64>) -> Stored<Cut, Durable> {
    let cut = tree.clear(store, FileIndex(range.start)..FileIndex(range.end)).unwrap();
    cut.flush(store).unwrap().fence(store).unwrap()
}

/// Inserts zeros, and commits.
pub(crate) fn insert(store: &Arc<Store>, tree: &Tree, range: Range<u64>) -> Tree {
    let mut txn = Txn::new(store);
    let tree = txn.publish(graft(store, tree, range));
    txn.commit().unwrap();
    tree
}

/// Frees what lies in the range, and commits.
pub(crate) fn clear(store: &Arc<Store>, tree: &Tree, range: Range<u64>) -> Tree {
    let cut = cut(store, tree, range);
    let vacant = Vacant::claim(store, cut.freed()).unwrap();
    let mut txn = Txn::new(store);
    let tree = txn.cut(cut, vacant).unwrap();
    txn.commit().unwrap();
    tree
}

/// Memory whose flushes fail once it is told to.
#[derive(Debug)]
pub(crate) struct Failing {
    inner: FileMedia,
    fails: AtomicBool,
    watch: OnceLock<Watch>,
}

/// Is called before a word is stored, with its place.
struct Watch(Box<dyn Fn(u64) + Send + Sync>);

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Failing {
    /// Zeros that do not fail yet.
    pub(crate) fn new(pages: Pages) -> Arc<Failing> {
        let inner = FileMedia::memfd("failing", pages.bytes()).unwrap();
        Arc::new(Failing { inner, fails: AtomicBool::new(false), watch: OnceLock::new() })
    }

    /// The same bytes, as another process would have them.
    pub(crate) fn again(&self) -> Arc<Failing> {
        let (file, _) = self.inner.backing().unwrap();
        let file = file.try_clone_to_owned().unwrap().into();
        let inner = FileMedia::from_file(file, Durability::Process).unwrap();
        Arc::new(Failing { inner, fails: AtomicBool::new(false), watch: OnceLock::new() })
    }

    /// Calls `watch` before each word that is stored from here on.
    pub(crate) fn watch(&self, watch: impl Fn(u64) + Send + Sync + 'static) {
        assert!(self.watch.set(Watch(Box::new(watch))).is_ok(), "one watches");
    }

    /// Lets every flush from here on fail, or none.
    pub(crate) fn set(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }
}

impl Media for Failing {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn facts(&self) -> MediaFacts {
        self.inner.facts()
    }
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MediaError> {
        self.inner.read(at, into)
    }
    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        self.inner.write(at, bytes)
    }
    fn zero(&self, at: u64, len: u64) -> Result<(), MediaError> {
        self.inner.zero(at, len)
    }
    fn load_u64(&self, at: u64) -> Result<u64, MediaError> {
        self.inner.load_u64(at)
    }
    fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> {
        if let Some(Watch(watch)) = self.watch.get() {
            watch(at);
        }
        self.inner.store_u64(at, value)
    }
    fn flush(&self, at: u64, len: u64, site: Site) -> Result<(), MediaError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(MediaError::Fault { at });
        }
        self.inner.flush(at, len, site)
    }
    fn fence(&self, site: Site) -> Result<(), MediaError> {
        self.inner.fence(site)
    }
    fn active(&self) -> &Active {
        self.inner.active()
    }
}
