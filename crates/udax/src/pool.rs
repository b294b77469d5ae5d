//! Pools: a mounted filesystem together with the lock of its file.
//!
//! Owns the life of the mount (open to close) and what concerns the pool as a whole; calls on paths
//! are in `paths.rs`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use udax_fs::{
    CheckReport, Filesystem, Ino, Kind, LivingOwner, RecordedPin, Recovered, Release, Usage,
};
use udax_mm::sync::Arc;
use udax_mm::{MediaFacts, Wait};

use crate::error::{At, Cause, Error, Result};
use crate::faulting::WhyEager;
use crate::lock::PoolLock;
use crate::open::{self, CreateOptions, OpenPool};
use crate::pin::{PinnedFile, PoolPin};

/// A filesystem on a plain file or in memory. Clones are handles of the same pool.
///
/// The pool stays open as long as any handle, file, mapping, pin or frozen slice of it exists, and
/// is closed in good order with the last one.
///
/// ```
/// use udax::{CreateOptions, Pool};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("data.udax");
/// let pool = Pool::create(&path, 8 << 20, &CreateOptions::new())?;
/// pool.write("/hello", b"world")?;
/// pool.close()?;
///
/// let pool = Pool::open(&path)?;
/// assert_eq!(pool.read("/hello")?, b"world");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pool {
    inner: Arc<Inner>,
}

/// What every handle of a pool keeps alive.
#[derive(Debug)]
pub(crate) struct Inner {
    path: PathBuf,
    filesystem: Arc<Filesystem>,
    recovered: Recovered,
    facts: MediaFacts,
    why_eager: Option<WhyEager>,
    _locks: Vec<PoolLock>,
}

impl Pool {
    /// Creates the file `path` of `size` bytes, rounded up to whole pages, with an empty pool.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::AlreadyExists`](crate::ErrorKind) if `path` exists, whatever it is,
    /// and with [`ErrorKind::TooSmall`](crate::ErrorKind) below 2 MiB. Leaves no file behind then.
    pub fn create(path: impl AsRef<Path>, size: u64, options: &CreateOptions) -> Result<Pool> {
        open::create(path.as_ref(), size, options)
    }

    /// Creates an empty pool on the devices of a [table](crate::TableTree), which keep their size.
    ///
    /// The pool is opened by the name of the table from then on.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::BadTable`](crate::ErrorKind), with line and column, if the table is
    /// wrong, with [`ErrorKind::NoDax`](crate::ErrorKind) if a line of it has no direct access, and
    /// with [`ErrorKind::AlreadyExists`](crate::ErrorKind) if there is a pool on the devices.
    pub fn create_on_table(path: impl AsRef<Path>, options: &CreateOptions) -> Result<Pool> {
        open::create_on_table(path.as_ref(), options)
    }

    /// Makes an empty pool of `size` bytes in memory; it is gone with its last handle.
    ///
    /// # Errors
    ///
    /// Fails if `size` is too small or the host has no memory of that kind.
    pub fn create_in_memory(name: &str, size: u64) -> Result<Pool> {
        open::create_in_memory(name, size)
    }

    /// Opens the pool in the file `path` for reading and writing, and recovers it.
    ///
    /// # Errors
    ///
    /// As [`Pool::open_with`].
    pub fn open(path: impl AsRef<Path>) -> Result<Pool> {
        open::open(path.as_ref(), &OpenPool::new())
    }

    /// Opens the pool in the file `path` as `options` say.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::InUse`](crate::ErrorKind), naming the process, if another one has
    /// the pool open (several may read it), and says what is wrong with a file that is no pool, is
    /// shorter than its pool, was written by a newer version, or is corrupt.
    pub fn open_with(path: impl AsRef<Path>, options: &OpenPool) -> Result<Pool> {
        open::open(path.as_ref(), options)
    }

    /// Checks everything in the pool at `path`, and changes nothing.
    ///
    /// # Errors
    ///
    /// Fails if the check cannot even start; what it finds is in the report.
    pub fn check(path: impl AsRef<Path>) -> Result<CheckReport> {
        open::check(path.as_ref())
    }

    /// Where the pool is: the host file, or the name it was given in memory.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What opening the pool had to repair.
    pub fn recovered(&self) -> &Recovered {
        &self.inner.recovered
    }

    /// How full the pool is.
    pub fn usage(&self) -> Usage {
        self.inner.filesystem.usage()
    }

    /// What the medium of the pool promises: what it survives, and whether the host registers it.
    pub fn facts(&self) -> MediaFacts {
        self.inner.facts
    }

    /// Why no mapping of the pool is lazy, if none is.
    pub fn why_eager(&self) -> Option<&WhyEager> {
        self.inner.why_eager()
    }

    /// The label given when the pool was created.
    pub fn label(&self) -> String {
        self.inner.filesystem.label()
    }

    /// The identity of the pool.
    pub fn uuid(&self) -> [u8; 16] {
        self.inner.filesystem.uuid()
    }

    /// The filesystem below, by inodes instead of paths; what a mount uses.
    pub fn filesystem(&self) -> &Arc<Filesystem> {
        &self.inner.filesystem
    }

    /// Every pin held in the pool, with the file it is in.
    ///
    /// Walks the directories to find the paths, if there are pins at all.
    ///
    /// # Errors
    ///
    /// Fails if a directory cannot be read.
    pub fn pins(&self) -> Result<Vec<PoolPin>> {
        let pins = self.inner.filesystem.pins();
        let paths = self.paths_of(pins.iter().filter_map(|(ino, _)| *ino))?;
        let place = |ino: Option<Ino>| match ino {
            None => PinnedFile::Limbo,
            Some(ino) => paths
                .get(&ino)
                .map_or(PinnedFile::Inode(ino), |path| PinnedFile::Path(path.clone())),
        };
        Ok(pins.into_iter().map(|(ino, pin)| PoolPin::new(place(ino), &pin)).collect())
    }

    /// The long-term pins of processes that died with them. Their pages are in quarantine: they are
    /// not given to other files, because a device may still reach them.
    ///
    /// ```
    /// # let pool = udax::Pool::create_in_memory("example", 8 << 20)?;
    /// for pin in pool.quarantine() {
    ///     let bytes = pin.pages().bytes();
    ///     println!("{bytes} bytes of {}, process {}", pin.label(), pin.process());
    /// }
    /// # Ok::<(), udax::Error>(())
    /// ```
    pub fn quarantine(&self) -> Vec<RecordedPin> {
        self.inner.filesystem.quarantine()
    }

    /// Ends the quarantine of the pins that `which` names, and returns them: the caller knows that
    /// no device works for their owners any more.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::Pinned`](crate::ErrorKind) if an owner is alive and `living` says to
    /// refuse then, and releases nothing.
    pub fn release_quarantine(
        &self,
        which: &Release,
        living: LivingOwner,
    ) -> Result<Vec<RecordedPin>> {
        self.inner.filesystem.release_quarantine(which, living).at(self.path())
    }

    /// The long-term pins that the pool at `path` names, also while another process has it open:
    /// those that are held, and those in quarantine. Changes nothing, and may miss a pin that is
    /// taken or dropped at this moment.
    ///
    /// # Errors
    ///
    /// Fails if the file holds no pool that can be read.
    pub fn recorded_pins(path: impl AsRef<Path>) -> Result<Vec<RecordedPin>> {
        open::recorded_pins(path.as_ref())
    }

    /// Waits until everything written so far is as durable as the medium can make it.
    ///
    /// # Errors
    ///
    /// Fails if the medium does.
    pub fn sync(&self) -> Result<()> {
        self.inner.filesystem.sync().at(self.path())
    }

    /// Closes the pool, so that the next open finds nothing to recover. The holders of pins are
    /// asked to let go first.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::StillOpen`](crate::ErrorKind) while other handles exist; the pool is
    /// then closed with the last of them.
    pub fn close(self) -> Result<()> {
        let recalled = Arc::try_unwrap(self.inner).or_else(|inner| {
            inner.filesystem.recall_pins(None);
            Arc::try_unwrap(inner)
        });
        let inner = match recalled {
            Ok(inner) => inner,
            Err(inner) => {
                let others = Arc::strong_count(&inner) - 1;
                return Err(Error::new(&inner.path, Cause::StillOpen(others)));
            }
        };
        inner.filesystem.unmount().at(&inner.path)
    }

    /// Compares the live state of the pool in memory with what is on the medium.
    ///
    /// Reads everything; meant for tests, after each step.
    ///
    /// # Errors
    ///
    /// Says the first contradiction found.
    pub fn verify(&self) -> std::result::Result<(), String> {
        self.inner.filesystem.verify()
    }

    /// Takes the device away from under the pool, as a failing or unplugged one would be.
    ///
    /// Mappings lose their pages and every new access is refused at once; pins are waited for.
    ///
    /// # Blocking
    ///
    /// Waits for the pins, as long as `wait` says. May be called again after it ran out.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::Pinned`](crate::ErrorKind), naming the holders.
    pub fn remove_device(&self, wait: Wait) -> Result<()> {
        self.inner.filesystem.kill_device(wait).at(self.path())
    }

    pub(crate) fn new(
        path: &Path,
        filesystem: Arc<Filesystem>,
        recovered: Recovered,
        facts: MediaFacts,
        locks: Vec<PoolLock>,
        why_eager: Option<WhyEager>,
    ) -> Pool {
        let path = path.to_owned();
        let inner = Inner { path, filesystem, recovered, facts, why_eager, _locks: locks };
        Pool { inner: Arc::new(inner) }
    }

    /// A handle for what belongs to the pool: keeps it open.
    pub(crate) fn keep(&self) -> Arc<Inner> {
        Arc::clone(&self.inner)
    }

    /// Finds a path for each of `inodes` that has one.
    fn paths_of(&self, inodes: impl Iterator<Item = Ino>) -> Result<HashMap<Ino, PathBuf>> {
        let mut wanted: std::collections::HashSet<Ino> = inodes.collect();
        let mut found = HashMap::new();
        let mut pending = vec![PathBuf::from("/")];
        while let Some(dir) = pending.pop() {
            if wanted.is_empty() {
                break;
            }
            for entry in self.read_dir(&dir)? {
                let entry = entry?;
                if entry.kind() == Kind::Dir {
                    pending.push(entry.path());
                } else if wanted.remove(&entry.ino()) {
                    found.insert(entry.ino(), entry.path());
                }
            }
        }
        Ok(found)
    }
}

impl Inner {
    pub(crate) fn filesystem(&self) -> &Arc<Filesystem> {
        &self.filesystem
    }

    pub(crate) fn facts(&self) -> MediaFacts {
        self.facts
    }

    pub(crate) fn why_eager(&self) -> Option<&WhyEager> {
        self.why_eager.as_ref()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; the next open recovers and says that it had to.
        let _ = self.filesystem.unmount();
    }
}
