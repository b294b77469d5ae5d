//! The host's files as a [`Tree`].

use std::ffi::OsString;
use std::fs::{self, File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, CWD, SeekFrom, Timespec, Timestamps, UTIME_OMIT, seek, utimensat};
use rustix::io::Errno;

use super::tree::{FileId, FileKind, Sink, Source, Stat, Tree, Volume};

/// The files of the host, by the paths of the host.
pub(crate) struct HostTree;

struct HostSource {
    file: File,
    path: PathBuf,
    size: u64,
    is_sparse: bool,
}

struct HostSink {
    file: File,
    path: PathBuf,
}

/// Adds the path to an error of the host.
trait Named<T> {
    /// Names `path` in the error.
    fn named(self, path: &Path) -> anyhow::Result<T>;
}

impl Tree for HostTree {
    fn show(&self, path: &Path) -> String {
        path.display().to_string()
    }

    fn stat(&self, path: &Path) -> anyhow::Result<Option<Stat>> {
        stat(fs::symlink_metadata(path)).named(path)
    }

    fn stat_through(&self, path: &Path) -> anyhow::Result<Option<Stat>> {
        stat(fs::metadata(path)).named(path)
    }

    fn list(&self, path: &Path) -> anyhow::Result<Vec<OsString>> {
        let entries = fs::read_dir(path).named(path)?;
        entries.map(|entry| Ok(entry.named(path)?.file_name())).collect()
    }

    fn open(&self, path: &Path) -> anyhow::Result<Box<dyn Source>> {
        let file = File::open(path).named(path)?;
        let metadata = file.metadata().named(path)?;
        let size = metadata.len();
        // A block of `st_blocks` has 512 bytes whatever the filesystem.
        let is_sparse = metadata.blocks() * 512 < size;
        Ok(Box::new(HostSource { file, path: path.to_owned(), size, is_sparse }))
    }

    fn read_link(&self, path: &Path) -> anyhow::Result<PathBuf> {
        fs::read_link(path).named(path)
    }

    fn create(&self, path: &Path, _: &Stat) -> anyhow::Result<Box<dyn Sink>> {
        let open =
            || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = match open() {
            // Like `cp -f`: the owner of a directory may replace what may not be written.
            Err(error) if error.kind() == ErrorKind::PermissionDenied && path.exists() => {
                fs::remove_file(path).named(path)?;
                open().named(path)?
            }
            opened => opened.named(path)?,
        };
        Ok(Box::new(HostSink { file, path: path.to_owned() }))
    }

    fn make_dir(&self, path: &Path) -> anyhow::Result<()> {
        fs::create_dir(path).named(path)
    }

    fn make_link(&self, path: &Path, target: &Path) -> anyhow::Result<()> {
        std::os::unix::fs::symlink(target, path).named(path)
    }

    fn remove(&self, path: &Path) -> anyhow::Result<()> {
        fs::remove_file(path).named(path)
    }

    fn dress(&self, path: &Path, stat: &Stat) -> anyhow::Result<()> {
        if stat.kind == FileKind::Dir {
            fs::set_permissions(path, Permissions::from_mode(stat.mode)).named(path)?;
        }
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: timespec(stat.mtime).named(path)?,
        };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).named(path)
    }
}

impl Source for HostSource {
    fn read_at(&self, into: &mut [u8], at: u64) -> anyhow::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            let rest = into.get_mut(done..).expect("done is less than the length");
            match self.file.read_at(rest, at + bytes(done)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                failed => return failed.map(|_| done).named(&self.path),
            }
        }
        Ok(done)
    }

    fn data(&self, at: u64) -> anyhow::Result<Option<Range<u64>>> {
        if self.size == 0 && at == 0 {
            // Or one whose length is not known before it is read, as those in /proc.
            return Ok(Some(0..u64::MAX));
        }
        if at >= self.size {
            return Ok(None);
        }
        if !self.is_sparse {
            return Ok(Some(at..self.size));
        }
        let start = match seek(&self.file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // A filesystem that cannot tell holes from data: all of it is data.
            Err(Errno::INVAL) => return Ok(Some(at..self.size)),
            Err(error) => return Err(error).named(&self.path),
        };
        let end = seek(&self.file, SeekFrom::Hole(start)).named(&self.path)?.min(self.size);
        Ok((start < end).then_some(start..end))
    }

    fn as_pool_file(&self) -> Option<&udax::File> {
        None
    }
}

impl Sink for HostSink {
    fn clone_from(&self, _: &dyn Source, _: u64) -> anyhow::Result<()> {
        bail!("{}: only a file of the same pool can be a clone", self.path.display())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> anyhow::Result<()> {
        self.file.write_all_at(bytes, at).named(&self.path)
    }

    fn finish(&self, len: u64, stat: &Stat) -> anyhow::Result<()> {
        self.file.set_len(len).named(&self.path)?;
        self.file.set_permissions(Permissions::from_mode(stat.mode)).named(&self.path)?;
        self.file.set_times(FileTimes::new().set_modified(stat.mtime)).named(&self.path)
    }
}

impl<T, E: Into<anyhow::Error>> Named<T> for Result<T, E> {
    fn named(self, path: &Path) -> anyhow::Result<T> {
        self.map_err(|error| error.into().context(path.display().to_string()))
    }
}

/// Makes a [`Stat`] of what the host says.
fn stat(found: std::io::Result<Metadata>) -> anyhow::Result<Option<Stat>> {
    let metadata = match found {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(Stat {
        kind: kind(&metadata),
        size: metadata.len(),
        mode: metadata.mode() & 0o7777,
        mtime: metadata.modified()?,
        id: FileId { volume: Volume::Host(metadata.dev()), number: metadata.ino() },
    }))
}

fn kind(metadata: &Metadata) -> FileKind {
    let kind = metadata.file_type();
    match kind {
        _ if kind.is_file() => FileKind::File,
        _ if kind.is_dir() => FileKind::Dir,
        _ if kind.is_symlink() => FileKind::Symlink,
        _ if kind.is_socket() => FileKind::Special("socket"),
        _ if kind.is_fifo() => FileKind::Special("fifo"),
        _ => FileKind::Special("device"),
    }
}

/// Seconds and nanoseconds since 1970, the seconds rounded down.
fn timespec(time: SystemTime) -> anyhow::Result<Timespec> {
    let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()), after.subsec_nanos()),
        Err(error) => {
            let before = error.duration();
            let down = i64::from(before.subsec_nanos() > 0);
            let nanos = (1_000_000_000 - before.subsec_nanos()) % 1_000_000_000;
            (i64::try_from(before.as_secs()).map(|seconds| -seconds - down), nanos)
        }
    };
    let seconds = seconds.context("a time this far from 1970 cannot be kept")?;
    Ok(Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) })
}

/// The length of a buffer as a number of bytes of a file.
fn bytes(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits 64 bits")
}
