//! A mount whose pool the test has, too.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;
use udax::Pool;
use udax_fuse::{MountError, MountOptions, Unmounter, mount};

use super::{is_impossible, skipped};

/// What the file holds at first.
pub(crate) const BYTES: [u8; 9000] = [1; 9000];

/// A pool in memory with a file, served by threads of this process, which maps nothing of it.
pub(crate) struct Served {
    pub(crate) pool: Pool,
    pub(crate) server: JoinHandle<Result<(), MountError>>,
    pub(crate) place: Place,
    unmounter: Unmounter,
}

/// Where it is mounted.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test that failed must not leave a mount behind.
        if std::thread::panicking() {
            let _ = unmount(self.path(), UnmountFlags::DETACH);
        }
    }
}

impl Served {
    /// Mounts it, or says why that cannot be shown here.
    pub(crate) fn new() -> Option<Served> {
        let place = Place(tempfile::tempdir().unwrap());
        let pool = Pool::create_in_memory("pool", 8 << 20).unwrap();
        // By the pool itself: the kernel tells of the last close of a file without waiting.
        pool.write("/file", BYTES).unwrap();
        let session = match mount(pool.clone(), place.path(), &MountOptions::new().threads(3)) {
            Err(error) if is_impossible(&error) => {
                skipped(&error);
                return None;
            }
            session => session.unwrap(),
        };
        let unmounter = session.unmounter();
        let server = std::thread::spawn(move || session.run());
        Some(Served { pool, server, place, unmounter })
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub(crate) fn finish(self) {
        // The kernel may still be about to tell of the last close.
        let _ = self.unmounter.unmount().unwrap();
        self.server.join().unwrap().unwrap();
    }
}
