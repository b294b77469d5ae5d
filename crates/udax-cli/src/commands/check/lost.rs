//! Reads every byte of every file, and lists those that cannot be read.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use udax::{DirEntry, ErrorKind, File, Ino, Kind, PAGE_SIZE, Pages, Pool};

use crate::interrupt::Interrupt;
use crate::opening::InPool;
use crate::output::Name;
use crate::progress::Progress;

/// Bytes read at once. What fails is read again page by page.
const CHUNK: u64 = 4 << 20;
const PAGE: u64 = Pages(1).bytes();

/// Bytes of a file that cannot be read.
#[derive(Debug, Serialize)]
pub(super) struct Lost {
    #[serde(flatten)]
    pub(super) path: Name,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// The walk over a pool.
struct Walk<'a> {
    pool: &'a Pool,
    interrupt: &'a Interrupt,
    progress: Progress,
    buffer: Vec<u8>,
    /// Files that were read, by one of their names.
    read: HashSet<Ino>,
    lost: Vec<Lost>,
}

/// What is lost of the files of `pool`, by path and place.
///
/// # Errors
///
/// Returns that it was interrupted, or why a directory or a tree of blocks cannot be read.
pub(super) fn find(pool: &Pool, interrupt: &Interrupt) -> anyhow::Result<Vec<Lost>> {
    let progress = Progress::start();
    progress.expect(pool.usage().used.bytes());
    let buffer = vec![0; usize::try_from(CHUNK).expect("4 MiB fit")];
    let mut walk =
        Walk { pool, interrupt, progress, buffer, read: HashSet::new(), lost: Vec::new() };
    walk.directory(Path::new("/"))?;
    Ok(walk.lost)
}

impl Walk<'_> {
    fn directory(&mut self, root: &Path) -> anyhow::Result<()> {
        let mut next: Vec<PathBuf> = vec![root.to_owned()];
        while let Some(dir) = next.pop() {
            let mut below = Vec::new();
            for entry in self.pool.read_dir(&dir).of(self.pool.path())? {
                let entry = entry.of(self.pool.path())?;
                match entry.kind() {
                    Kind::Dir => below.push(entry.path()),
                    Kind::File => self.entry(&entry)?,
                    Kind::Symlink => {}
                }
            }
            next.extend(below.into_iter().rev());
        }
        Ok(())
    }

    fn entry(&mut self, entry: &DirEntry) -> anyhow::Result<()> {
        if !self.read.insert(entry.ino()) {
            return Ok(());
        }
        let path = entry.path();
        let file = self.pool.open_file(&path).of(self.pool.path())?;
        let size = file.metadata().len();
        for extent in file.extents().of(self.pool.path())? {
            let end = (extent.index.byte() + extent.pages.bytes()).min(size);
            let mut at = extent.index.byte();
            while at < end {
                if self.interrupt.is_set() {
                    anyhow::bail!("interrupted; not every file was read, and nothing was changed");
                }
                let len = CHUNK.min(end - at);
                self.bytes(&path, &file, at, len)?;
                self.progress.add(len);
                at += len;
            }
        }
        Ok(())
    }

    /// Reads a part of a file, and if that fails its pages one by one.
    fn bytes(&mut self, path: &Path, file: &File, at: u64, len: u64) -> anyhow::Result<()> {
        let part = usize::try_from(len).expect("at most a chunk");
        let read = file.read_exact_at(&mut self.buffer[..part], at);
        match read {
            Ok(()) => Ok(()),
            Err(error) if error.kind() != ErrorKind::Media => Err(error).of(self.pool.path())?,
            Err(_) if len <= PAGE => {
                self.note(path, at, len);
                Ok(())
            }
            Err(_) => (at..at + len)
                .step_by(PAGE_SIZE)
                .try_for_each(|page| self.bytes(path, file, page, PAGE.min(at + len - page))),
        }
    }

    fn note(&mut self, path: &Path, offset: u64, len: u64) {
        let path = Name::new(path.as_os_str());
        match self.lost.last_mut() {
            Some(last) if last.path == path && last.offset + last.len == offset => last.len += len,
            _ => self.lost.push(Lost { path, offset, len }),
        }
    }
}
