//! A workload on a mounted filesystem: where operations as values become calls.

use crate::oracle::MODE;
use crate::workload::{Op, pattern};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::ops::Range;
use std::panic::Location;
use std::time::Instant;
use udax_dev::{DaxDevice, IoError, PgmapDevice};
use udax_fs::{
    Filesystem, FormatOptions, FreePolicy, FsError, HeldPin, Inode, Kind, LivingOwner, MountMode,
    Name, Recovered, Release, RenameMode, SetAttr,
};
use udax_mm::sync::Arc;
use udax_mm::{
    FileIndex, Media, MediaRange, MemoryType, Pages, Pgmap, PinInfo, PinKind, PinOwner, PinTerm,
    Wait,
};

/// A mounted filesystem and the files a workload holds open.
#[derive(Debug)]
pub struct Session {
    media: Arc<dyn Media>,
    /// None from formatting to the next mount.
    fs: Option<Arc<Filesystem>>,
    open: BTreeMap<String, Arc<Inode>>,
    pins: BTreeMap<String, Pinned>,
}

/// A long-term pin, and the pages of the device that it holds.
#[derive(Debug)]
struct Pinned {
    _pin: HeldPin,
    pages: DevicePages,
}

/// Pages of a device.
pub type DevicePages = BTreeSet<u64>;

/// A device over a medium in memory.
///
/// # Panics
///
/// Panics if the medium is no whole number of pages, which the media of this crate are.
pub fn device(media: Arc<dyn Media>) -> Arc<dyn DaxDevice> {
    let range = MediaRange { start: 0, pages: Pages::holding(media.len()), media };
    let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).expect("one range of whole pages");
    Arc::new(PgmapDevice::new(pgmap))
}

/// Writes an empty filesystem. The caller says its identifier, so that runs repeat.
///
/// # Errors
///
/// Those of [`Filesystem::format`].
pub fn format(media: Arc<dyn Media>, uuid: [u8; 16]) -> Result<(), FsError> {
    let options = FormatOptions { uuid: Some(uuid), ..FormatOptions::default() };
    Filesystem::format(device(media), &options)
}

/// Mounts for writing, which recovers.
///
/// # Errors
///
/// Those of [`Filesystem::mount`].
pub fn mount(media: Arc<dyn Media>) -> Result<(Arc<Filesystem>, Recovered), FsError> {
    Filesystem::mount(device(media), MountMode::ReadWrite, None)
}

impl Session {
    /// Mounts a medium.
    ///
    /// # Errors
    ///
    /// Those of [`Filesystem::mount`].
    pub fn start(media: Arc<dyn Media>) -> Result<Session, FsError> {
        let (fs, _) = mount(Arc::clone(&media))?;
        Ok(Session { media, fs: Some(fs), open: BTreeMap::new(), pins: BTreeMap::new() })
    }

    /// The filesystem.
    ///
    /// # Panics
    ///
    /// Panics after [`Op::Format`], until the medium is mounted again.
    pub fn filesystem(&self) -> &Arc<Filesystem> {
        self.fs.as_ref().expect("the medium is mounted")
    }

    /// The pages that long-term pins of this session hold.
    pub fn pinned(&self) -> DevicePages {
        self.pins.values().flat_map(|pin| pin.pages.iter().copied()).collect()
    }

    /// Closes every file and the pool.
    ///
    /// # Errors
    ///
    /// Those of [`Filesystem::unmount`].
    pub fn end(mut self) -> Result<(), FsError> {
        self.unmount()
    }

    /// Carries out one operation.
    ///
    /// # Errors
    ///
    /// What the filesystem says.
    ///
    /// # Panics
    ///
    /// Panics if a write is short: the workloads write what fits one call.
    pub fn run(&mut self, op: &Op) -> Result<(), FsError> {
        match op {
            Op::Create(path) => self.create(path, Kind::File),
            Op::Mkdir(path) => self.create(path, Kind::Dir),
            Op::Symlink { target, path } => {
                let (dir, name) = self.split(path)?;
                self.filesystem().symlink(&dir, &name, target.as_bytes(), 0, 0).map(drop)
            }
            Op::Write { path, at, len, fill } => self.write(path, *at, &pattern(*fill, *len)),
            Op::Bytes { path, at, bytes } => self.resolve(path)?.write_at(bytes, *at).map(drop),
            Op::Clone { source, from, to, path, at } => {
                self.share(source, path, |source, target| {
                    source.clone_range(*from..*to, target, *at, Wait::Never).map(drop)
                })
            }
            Op::Dedupe { source, path } => self.share(source, path, |source, target| {
                source.dedupe_range(0..u64::MAX, target, 0, Wait::Never).map(drop)
            }),
            Op::Unshare(path) => self.resolve(path)?.unshare(0..u64::MAX),
            Op::Store { path, at, len, fill } => {
                let file = self.resolve(path)?;
                store(&file, *at, &pattern(*fill, *len)).map(drop)
            }
            Op::SyncStore { path, at, len, fill } => {
                let file = self.resolve(path)?;
                store_and_flush(&file, *at, &pattern(*fill, *len))
            }
            Op::Append { path, len, fill } => {
                self.resolve(path)?.append(&pattern(*fill, *len)).map(drop)
            }
            Op::Truncate { path, size } => {
                self.resolve(path)?.truncate(*size, FreePolicy::Defer).map(drop)
            }
            Op::Punch { path, from, to } => {
                self.resolve(path)?.punch(*from..*to, FreePolicy::Defer).map(drop)
            }
            Op::Allocate { path, from, to } => self.resolve(path)?.allocate(*from..*to),
            Op::Link { from, to } => {
                let (dir, name) = self.split(to)?;
                self.filesystem().link(&self.resolve(from)?, &dir, &name)
            }
            Op::Rename { from, to, mode } => self.rename(from, to, *mode),
            Op::Unlink(path) => {
                let (dir, name) = self.split(path)?;
                self.filesystem().unlink(&dir, &name)
            }
            Op::Rmdir(path) => {
                let (dir, name) = self.split(path)?;
                self.filesystem().rmdir(&dir, &name)
            }
            Op::SetAttr { path, mode, uid, mtime } => {
                let (mode, uid, mtime) = (Some(*mode), Some(*uid), Some(*mtime));
                let set = SetAttr { mode, uid, mtime, ..SetAttr::default() };
                self.resolve(path)?.set_attr(&set).map(drop)
            }
            Op::Pin { path, from, to, name } => {
                self.pin(path, FileIndex(*from)..FileIndex(*to), name)
            }
            Op::Unpin(name) => self.pins.remove(name).map(drop).ok_or(FsError::NotFound),
            Op::Release => self.release(),
            Op::Freeze(path) => self.resolve(path)?.freeze(Wait::Never),
            Op::Open(path) => self.hold(path),
            Op::Close(path) => self.open.remove(path).map(drop).ok_or(FsError::NotFound),
            Op::Sync(path) => self.resolve(path)?.sync(),
            Op::Remount => self.remount(),
            Op::Format => self.format(),
            Op::Full(op) => self.run(op),
        }
    }

    fn write(&self, path: &str, at: u64, bytes: &[u8]) -> Result<(), FsError> {
        let written = self.resolve(path)?.write_at(bytes, at)?;
        assert_eq!(written, bytes.len(), "workload writes fit one call");
        Ok(())
    }

    fn share(
        &self,
        source: &str,
        target: &str,
        share: impl FnOnce(&Inode, &Inode) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        share(&*self.resolve(source)?, &*self.resolve(target)?)
    }

    fn hold(&mut self, path: &str) -> Result<(), FsError> {
        let inode = self.resolve(path)?;
        self.open.insert(path.to_owned(), inode);
        Ok(())
    }

    fn release(&self) -> Result<(), FsError> {
        self.filesystem().release_quarantine(&Release::All, LivingOwner::Ignore).map(drop)
    }

    fn format(&mut self) -> Result<(), FsError> {
        self.unmount()?;
        format(Arc::clone(&self.media), [8; 16])
    }

    fn remount(&mut self) -> Result<(), FsError> {
        // None is left by formatting.
        if self.fs.is_some() {
            self.unmount()?;
        }
        self.fs = Some(mount(Arc::clone(&self.media))?.0);
        Ok(())
    }

    /// Closes the filesystem and lets go of it, so that its medium can be mounted again.
    fn unmount(&mut self) -> Result<(), FsError> {
        self.open.clear();
        self.pins.clear();
        self.fs.take().ok_or(FsError::Closed)?.unmount()
    }

    fn create(&self, path: &str, kind: Kind) -> Result<(), FsError> {
        let (dir, name) = self.split(path)?;
        self.filesystem().create(&dir, &name, kind, MODE, 0, 0).map(drop)
    }

    fn pin(&mut self, path: &str, range: Range<FileIndex>, name: &str) -> Result<(), FsError> {
        let file = self.resolve(path)?;
        let pin = file.pin(range.clone(), info(PinKind::Write, PinTerm::Long))?;
        let extents = file.extents()?.into_iter();
        let pages = extents.flat_map(|extent| {
            let page = move |page| (extent.index + Pages(page), extent.device.0 + page);
            (0..extent.pages.0).map(page)
        });
        let pinned = pages.filter(|(index, _)| range.contains(index)).map(|(_, page)| page);
        let pages = pinned.collect();
        self.pins.insert(name.to_owned(), Pinned { _pin: pin, pages });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), FsError> {
        let ((from_dir, from), (to_dir, to)) = (self.split(from)?, self.split(to)?);
        self.filesystem().rename(&from_dir, &from, &to_dir, &to, mode)
    }

    fn resolve(&self, path: &str) -> Result<Arc<Inode>, FsError> {
        if let Some(open) = path.strip_prefix('@') {
            return self.open.get(open).cloned().ok_or(FsError::NotFound);
        }
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(self.filesystem().root()?, |dir, part| {
                self.filesystem().lookup(&dir, &name(part)?)
            })
    }

    fn split(&self, path: &str) -> Result<(Arc<Inode>, Name), FsError> {
        let (dir, last) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.resolve(dir)?, name(last)?))
    }
}

/// A name of the filesystem.
///
/// # Errors
///
/// Those of [`Name::new`].
pub fn name(text: &str) -> Result<Name, FsError> {
    Name::new(OsStr::new(text))
}

/// Stores as a device does: through a pin, behind the back of the filesystem.
fn store(file: &Arc<Inode>, at: u64, bytes: &[u8]) -> Result<HeldPin, FsError> {
    let end = at + u64::try_from(bytes.len()).expect("a length fits 64 bits");
    let (first, last) = (FileIndex::of_byte(at), FileIndex::of_byte(end - 1));
    let pin = file.pin(first..FileIndex(last.0 + 1), info(PinKind::Write, PinTerm::Short))?;
    pin.write(at - first.byte(), bytes).map_err(IoError::from)?;
    Ok(pin)
}

/// Stores, and makes that durable without a word to the filesystem. A pin and a fault bring in a page
/// by the same question to it.
fn store_and_flush(file: &Arc<Inode>, at: u64, bytes: &[u8]) -> Result<(), FsError> {
    let pin = store(file, at, bytes)?;
    for (pgmap, pages) in pin.pages() {
        let len = pages.end.since(pages.start).bytes();
        pgmap.flush(pages.start.byte(), len, Location::caller()).map_err(IoError::from)?;
        pgmap.fence(Location::caller()).map_err(IoError::from)?;
    }
    Ok(())
}

/// A pin of a device.
pub(crate) fn info(kind: PinKind, term: PinTerm) -> PinInfo {
    let label = "udax-crash".into();
    PinInfo {
        owner: PinOwner { process: std::process::id(), connection: 0, label },
        since: Instant::now(),
        kind,
        term,
    }
}

/// The pages in quarantine.
pub fn quarantine(fs: &Filesystem) -> DevicePages {
    let ranges = fs.quarantine().into_iter().flat_map(|pin| pin.ranges());
    ranges.flat_map(|range| range.start.0..range.end.0).collect()
}
