//! Rings, files of the host with known bytes, and how a test says that it skips.

// Each test binary uses a part of this; what fails here fails the test.
#![allow(dead_code, clippy::unwrap_used)]

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{Read, Write, stderr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use udax::{ErrorKind, Pin, PinKind, PinOptions, Pool};
use udax_uring::{Registered, Ring, SetupError, TransferId};

/// One page, which `O_DIRECT` transfers everywhere.
pub(crate) const PAGE: u64 = 4096;

/// Says that a test shows nothing on this host, past the capture of the test harness.
pub(crate) fn skipped(why: impl Display) {
    let _ = writeln!(stderr(), "SKIPPED, nothing is shown: {why}");
}

/// A ring, where the host permits one; says so where it does not.
pub(crate) fn ring(entries: u32) -> Option<Ring> {
    match Ring::new(entries) {
        Ok(ring) => Some(ring),
        Err(refused @ SetupError::NotPermitted(_)) => {
            skipped(refused);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A pool in memory of `size` MiB.
pub(crate) fn pool(size: u64) -> Pool {
    Pool::create_in_memory("uring test", size << 20).unwrap()
}

/// Makes a file of zeros and pins all of it for the kernel to write.
pub(crate) fn pinned(pool: &Pool, path: &str, len: u64) -> Pin {
    let file = pool.create_file(path).unwrap();
    file.set_len(len).unwrap();
    let options = PinOptions::new("io_uring").kind(PinKind::Write).registrable();
    file.pin(0..len, &options).unwrap()
}

/// All bytes of a pin.
pub(crate) fn bytes_of(pin: &Pin) -> Vec<u8> {
    let range = pin.range();
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
    pin.read(&mut bytes, 0).unwrap();
    bytes
}

/// Bytes that tell their place and `seed`; none of them is zero.
pub(crate) fn pattern(seed: u64, len: u64) -> Vec<u8> {
    let byte = |at: u64| {
        let mixed = (at / 8).wrapping_add(seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed.to_le_bytes()[usize::try_from(at % 8).unwrap()] | 1
    };
    (0..len).map(byte).collect()
}

/// Fills the pool with files `/filler N` of `len` bytes, whose pattern is that of `seed + N`.
/// Returns how many.
pub(crate) fn fill(pool: &Pool, seed: u64, len: u64) -> u64 {
    for number in 0.. {
        let path = format!("/filler {number}");
        match pool.write(&path, pattern(seed + number, len)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Full => {
                if pool.exists(&path).unwrap() {
                    pool.remove_file(&path).unwrap();
                }
                return number;
            }
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("a pool has an end")
}

/// A directory on the filesystem that holds the build, which is on a disk as a rule.
pub(crate) fn disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Whether a directory is in memory, where the kernel registers files.
pub(crate) fn is_tmpfs(dir: &Path) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    u64::try_from(rustix::fs::statfs(dir).unwrap().f_type).unwrap() == TMPFS_MAGIC
}

/// A file of the host that the kernel reads without its page cache, if the filesystem can.
pub(crate) struct Source {
    _dir: tempfile::TempDir,
    path: PathBuf,
    pub(crate) file: OwnedFd,
}

impl Source {
    /// A file with these bytes, a number of whole pages.
    pub(crate) fn new(bytes: &[u8]) -> Source {
        let dir = disk();
        let path = dir.path().join("source");
        fs::write(&path, bytes).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        let file = open(&path);
        Source { path, file, _dir: dir }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, open for reading and writing through the page cache.
    pub(crate) fn cached(&self) -> File {
        File::options().read(true).write(true).open(&self.path).unwrap()
    }
}

/// Opens a file of the host, without the page cache if the filesystem can.
pub(crate) fn open(path: &Path) -> OwnedFd {
    let open = |flags| rustix::fs::open(path, OFlags::RDONLY | flags, Mode::empty());
    open(OFlags::DIRECT).unwrap_or_else(|refused| {
        let _ = writeln!(stderr(), "{}: no O_DIRECT here: {refused}", path.display());
        open(OFlags::empty()).unwrap()
    })
}

/// Waits for one transfer, which moves `len` bytes.
pub(crate) fn finish<B>(buffers: &mut Registered<B>, transfer: TransferId, len: u64) {
    let done = buffers.wait().unwrap().expect("it is under way");
    assert_eq!(done.transfer, transfer);
    assert_eq!(done.result.unwrap(), len);
}

/// All bytes of a file of the host.
pub(crate) fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A pipe: the end to read, the end to write.
pub(crate) fn pipe() -> (OwnedFd, File) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    (reader, File::from(writer))
}

/// Reads one line of a child.
pub(crate) fn line(from: &mut impl Read) -> String {
    let mut line = String::new();
    let mut byte = [0];
    while from.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(char::from(byte[0]));
    }
    line
}
