//! The files of a pool as a [`Tree`].

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::bail;
use udax::{ErrorKind, File, Kind, Metadata, OpenOptions, Pool, Times, Wait};

use super::tree::{FileId, FileKind, Sink, Source, Stat, Tree, Volume};
use crate::opening::InPool;

/// The files of an open pool, by their absolute paths in it.
pub(crate) struct PoolTree {
    pool: Pool,
    volume: Volume,
}

struct PoolFile {
    pool: PathBuf,
    file: File,
}

impl PoolTree {
    /// The files of `pool`, which lies in the file `host` of the host.
    pub(crate) fn new(pool: Pool, host: FileId) -> PoolTree {
        PoolTree { pool, volume: Volume::of_pool(host) }
    }

    /// Where the numbers of its files are unique.
    pub(crate) fn volume(&self) -> Volume {
        self.volume
    }

    /// Closes the pool.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        let path = self.pool.path().to_owned();
        Ok(self.pool.close().of(&path)?)
    }

    fn stat_of(&self, found: udax::Result<Metadata>) -> anyhow::Result<Option<Stat>> {
        match found {
            Ok(metadata) => Ok(Some(self.to_stat(&metadata))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Ok(Err(error).of(self.pool.path())?),
        }
    }

    fn to_stat(&self, metadata: &Metadata) -> Stat {
        let kind = match metadata.kind() {
            Kind::File => FileKind::File,
            Kind::Dir => FileKind::Dir,
            Kind::Symlink => FileKind::Symlink,
        };
        Stat {
            kind,
            size: metadata.len(),
            mode: metadata.mode(),
            mtime: metadata.modified(),
            id: FileId { volume: self.volume, number: metadata.ino().0 },
        }
    }

    fn file(&self, file: File) -> PoolFile {
        PoolFile { pool: self.pool.path().to_owned(), file }
    }
}

impl Tree for PoolTree {
    fn show(&self, path: &Path) -> String {
        format!("{}:{}", self.pool.path().display(), path.display())
    }

    fn stat(&self, path: &Path) -> anyhow::Result<Option<Stat>> {
        self.stat_of(self.pool.symlink_metadata(path))
    }

    fn stat_through(&self, path: &Path) -> anyhow::Result<Option<Stat>> {
        self.stat_of(self.pool.metadata(path))
    }

    fn list(&self, path: &Path) -> anyhow::Result<Vec<OsString>> {
        let entries = self.pool.read_dir(path).of(self.pool.path())?;
        let names = entries.map(|entry| Ok(entry.of(self.pool.path())?.file_name().to_owned()));
        names.collect()
    }

    fn open(&self, path: &Path) -> anyhow::Result<Box<dyn Source>> {
        Ok(Box::new(self.file(self.pool.open_file(path).of(self.pool.path())?)))
    }

    fn read_link(&self, path: &Path) -> anyhow::Result<PathBuf> {
        Ok(self.pool.read_link(path).of(self.pool.path())?)
    }

    fn create(&self, path: &Path, stat: &Stat) -> anyhow::Result<Box<dyn Sink>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(stat.mode);
        Ok(Box::new(self.file(options.open(&self.pool, path).of(self.pool.path())?)))
    }

    fn make_dir(&self, path: &Path) -> anyhow::Result<()> {
        Ok(self.pool.create_dir(path).of(self.pool.path())?)
    }

    fn make_link(&self, path: &Path, target: &Path) -> anyhow::Result<()> {
        Ok(self.pool.symlink(target, path).of(self.pool.path())?)
    }

    fn remove(&self, path: &Path) -> anyhow::Result<()> {
        Ok(self.pool.remove_file(path).of(self.pool.path())?)
    }

    fn dress(&self, path: &Path, stat: &Stat) -> anyhow::Result<()> {
        if stat.kind == FileKind::Dir {
            self.pool.set_permissions(path, stat.mode).of(self.pool.path())?;
        }
        Ok(self.pool.set_times(path, &Times::new().modified(stat.mtime)).of(self.pool.path())?)
    }
}

impl Source for PoolFile {
    fn read_at(&self, into: &mut [u8], at: u64) -> anyhow::Result<usize> {
        Ok(self.file.read_at(into, at).of(&self.pool)?)
    }

    fn data(&self, at: u64) -> anyhow::Result<Option<Range<u64>>> {
        let Some(start) = self.file.inode().seek_data(at)? else { return Ok(None) };
        let end = self.file.inode().seek_hole(start)?;
        Ok(Some(start..end.unwrap_or_else(|| self.file.metadata().len())))
    }

    fn as_pool_file(&self) -> Option<&File> {
        Some(&self.file)
    }
}

impl Sink for PoolFile {
    fn clone_from(&self, source: &dyn Source, len: u64) -> anyhow::Result<()> {
        let Some(source) = source.as_pool_file() else {
            bail!("{}: only a file of the same pool can be a clone", self.file.path().display());
        };
        let cloned = source.clone_range(0..len, &self.file, 0, Wait::Never).of(&self.pool)?;
        if cloned < len {
            // The rest does not fit: the copy that is tried next says so.
            self.file.set_len(0).of(&self.pool)?;
            bail!("{}: the pool became full", self.file.path().display());
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> anyhow::Result<()> {
        Ok(self.file.write_all_at(bytes, at).of(&self.pool)?)
    }

    fn finish(&self, len: u64, stat: &Stat) -> anyhow::Result<()> {
        let metadata = self.file.metadata();
        if metadata.len() != len {
            self.file.set_len(len).of(&self.pool)?;
        }
        if metadata.mode() != stat.mode {
            self.file.set_permissions(stat.mode).of(&self.pool)?;
        }
        Ok(self.file.set_times(&Times::new().modified(stat.mtime)).of(&self.pool)?)
    }
}
