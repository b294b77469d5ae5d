//! Pools on a memfd, for the tests of this crate.
#![allow(dead_code, reason = "each test file uses some of it")]

pub(crate) mod pause;

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::time::Instant;

use udax_dev::PgmapDevice;
use udax_fs::{Filesystem, FormatOptions, Inode, Kind, MountMode, Name, Recovered};
use udax_mm::media::{Durability, FileMedia};
use udax_mm::sync::Arc;
use udax_mm::{
    FaultService, Media, MediaRange, MemoryType, Pages, Pgmap, PinInfo, PinKind, PinOwner, PinTerm,
    Wait,
};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// What serves the faults of lazy mappings. Where the host permits none this says so past the capture
/// of the test harness, and the caller shows nothing of them.
pub(crate) fn fault_service() -> Option<Arc<FaultService>> {
    let skipped = |error: &io::Error| {
        let _ = writeln!(io::stderr(), "SKIPPED lazy mappings: {error}");
    };
    Some(Arc::new(FaultService::new().inspect_err(skipped).ok()?))
}

/// A medium that outlives the devices made of it, as a file outlives processes.
pub(crate) struct Pool {
    pub(crate) media: Arc<FileMedia>,
    pages: Pages,
}

impl Pool {
    /// An empty filesystem of `bytes` bytes.
    pub(crate) fn new(bytes: u64) -> Pool {
        let pool = Pool::raw(bytes);
        Filesystem::format(pool.device(), &FormatOptions::default()).unwrap();
        pool
    }

    /// Zeros.
    pub(crate) fn raw(bytes: u64) -> Pool {
        let media = Arc::new(FileMedia::memfd("udax-fs-test", bytes).unwrap());
        Pool { media, pages: Pages::holding(bytes) }
    }

    /// A pool with the same bytes.
    pub(crate) fn copy(&self) -> Pool {
        let copy = Pool::raw(self.pages.bytes());
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < self.pages.bytes() {
            self.media.read(at, &mut buffer).unwrap();
            copy.media.write(at, &buffer).unwrap();
            at += 1 << 20;
        }
        copy
    }

    /// A device over all of it.
    pub(crate) fn device(&self) -> Arc<PgmapDevice> {
        self.device_of(self.pages)
    }

    /// A device over the first `pages` pages, of a mapping of its own, as another process would
    /// have it: tests look at a medium that is mounted.
    pub(crate) fn device_of(&self, pages: Pages) -> Arc<PgmapDevice> {
        let (file, _) = self.media.backing().unwrap();
        let file = file.try_clone_to_owned().unwrap().into();
        let media = Arc::new(FileMedia::from_file(file, Durability::Process).unwrap());
        let ranges = vec![MediaRange { media, start: 0, pages }];
        Arc::new(PgmapDevice::new(Pgmap::new(ranges, MemoryType::FsDax).unwrap()))
    }

    pub(crate) fn mount(&self) -> Arc<Filesystem> {
        self.mount_saying().0
    }

    pub(crate) fn mount_saying(&self) -> (Arc<Filesystem>, Recovered) {
        Filesystem::mount(self.device(), MountMode::ReadWrite, None).unwrap()
    }

    /// Checks that the medium is sound.
    pub(crate) fn check(&self) {
        let report = Filesystem::check(self.device()).unwrap();
        assert_eq!(report.problems, []);
    }
}

pub(crate) fn name(name: &str) -> Name {
    Name::new(OsStr::new(name)).unwrap()
}

pub(crate) fn create(fs: &Filesystem, called: &str) -> Arc<Inode> {
    fs.create(&fs.root().unwrap(), &name(called), Kind::File, 0o644, 0, 0).unwrap()
}

pub(crate) fn mkdir(fs: &Filesystem, dir: &Arc<Inode>, called: &str) -> Arc<Inode> {
    fs.create(dir, &name(called), Kind::Dir, 0o755, 0, 0).unwrap()
}

pub(crate) fn lookup(fs: &Filesystem, called: &str) -> Arc<Inode> {
    fs.lookup(&fs.root().unwrap(), &name(called)).unwrap()
}

pub(crate) fn unlink(fs: &Filesystem, called: &str) {
    fs.unlink(&fs.root().unwrap(), &name(called)).unwrap();
}

/// All bytes of a file.
pub(crate) fn contents(file: &Inode) -> Vec<u8> {
    let size = usize::try_from(file.attr().size).unwrap();
    let mut bytes = vec![0xaa; size];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), size);
    bytes
}

/// Bytes that differ from page to page and from seed to seed.
pub(crate) fn pattern(seed: u64, len: u64) -> Vec<u8> {
    let word = |at: u64| (at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(word).collect();
    bytes.truncate(usize::try_from(len).unwrap());
    bytes
}

pub(crate) fn names(fs: &Filesystem, dir: &Arc<Inode>) -> Vec<String> {
    let entries = fs.read_dir(dir, 0, usize::MAX).unwrap();
    let mut names: Vec<String> = entries.iter().map(|entry| entry.name.to_string()).collect();
    names.sort();
    names
}

/// A pin of this process.
pub(crate) fn pin_info(label: &str, kind: PinKind) -> PinInfo {
    PinInfo {
        owner: PinOwner { process: 1, connection: 0, label: label.into() },
        since: Instant::now(),
        kind,
        term: PinTerm::Long,
    }
}

/// Whether two pools hold the same bytes.
pub(crate) fn same_bytes(one: &Pool, other: &Pool) -> bool {
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    (0..one.pages.bytes()).step_by(1 << 20).all(|at| {
        one.media.read(at, &mut left).unwrap();
        other.media.read(at, &mut right).unwrap();
        left == right
    })
}

/// A new file with these bytes.
pub(crate) fn file_of(fs: &Filesystem, called: &str, bytes: &[u8]) -> Arc<Inode> {
    let file = create(fs, called);
    assert_eq!(file.write_at(bytes, 0).unwrap(), bytes.len());
    file
}

/// Clones all of a file over another one.
pub(crate) fn clone_all(from: &Inode, to: &Inode) {
    let size = from.attr().size;
    assert_eq!(from.clone_range(0..size, to, 0, Wait::Never).unwrap(), size);
}

/// A new file that shares all data of another one.
pub(crate) fn clone_of(fs: &Filesystem, from: &Inode, called: &str) -> Arc<Inode> {
    let file = create(fs, called);
    clone_all(from, &file);
    file
}

/// How many pages of a file others have, too.
pub(crate) fn shared_pages(file: &Inode) -> u64 {
    let extents = file.extents().unwrap();
    extents.iter().filter(|extent| extent.is_shared).map(|extent| extent.pages.0).sum()
}

/// The model of a write: `bytes` over `old` at `at`.
pub(crate) fn over(old: &[u8], at: u64, bytes: &[u8]) -> Vec<u8> {
    let at = usize::try_from(at).unwrap();
    let mut new = old.to_vec();
    new.resize(new.len().max(at + bytes.len()), 0);
    new[at..at + bytes.len()].copy_from_slice(bytes);
    new
}
