//! Listing directories: `.` and `..`, then the entries, each with the offset to go on from.

use std::ffi::OsStr;

use fuser::{Errno, FileType, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use udax::Ino;
use udax::fs::{DirEntry, FsError, Inode};
use udax_mm::sync::Arc;

use crate::attr::{kind_to_kernel, to_kernel};
use crate::errno::errno;
use crate::server::{Server, TTL};

/// Entries read at a time from a directory.
const DIR_BATCH: usize = 32;

/// Where `.` and `..` end in the offsets of a directory; the cookies of entries follow.
const DOTS: u64 = 2;

/// `.` or `..`: the offset after it, its name and where it leads.
type Dot = (u64, &'static str, Arc<Inode>);

impl Server {
    /// Fills `reply` with entries from `offset` on.
    pub(crate) fn fill(
        &self,
        ino: INodeNo,
        offset: u64,
        reply: &mut ReplyDirectory,
    ) -> Result<(), Errno> {
        for (at, name, inode) in self.dots(ino, offset)? {
            if reply.add(INodeNo(inode.ino().0), at, FileType::Directory, name) {
                return Ok(());
            }
        }
        self.each_entry(ino, offset, |at, entry| {
            let kind = kind_to_kernel(entry.kind);
            Ok(reply.add(INodeNo(entry.ino.0), at, kind, entry.name.as_os_str()))
        })
    }

    /// Fills `reply` with entries and their attributes from `offset` on; the kernel then knows
    /// them.
    pub(crate) fn fill_plus(
        &self,
        ino: INodeNo,
        offset: u64,
        reply: &mut ReplyDirectoryPlus,
    ) -> Result<(), Errno> {
        let mut add = |at, name: &OsStr, inode: &Inode| {
            let attr = inode.attr();
            let generation = Generation(u64::from(attr.generation));
            reply.add(INodeNo(attr.ino.0), at, name, &TTL, &to_kernel(&attr), generation)
        };
        for (at, name, inode) in self.dots(ino, offset)? {
            if add(at, OsStr::new(name), &inode) {
                return Ok(());
            }
        }
        self.each_entry(ino, offset, |at, entry| {
            let Some(inode) = self.entry_inode(entry.ino)? else { return Ok(false) };
            let is_full = add(at, entry.name.as_os_str(), &inode);
            if !is_full {
                self.tell(&inode);
            }
            Ok(is_full)
        })
    }

    /// Gives the entries of a directory from `offset` on to `add`, until that is full.
    fn each_entry(
        &self,
        ino: INodeNo,
        offset: u64,
        mut add: impl FnMut(u64, &DirEntry) -> Result<bool, Errno>,
    ) -> Result<(), Errno> {
        let dir = self.find(ino)?;
        let mut cookie = offset.saturating_sub(DOTS);
        loop {
            let read = self.fs().read_dir(&dir, cookie, DIR_BATCH);
            let batch = read.map_err(|error| errno(&error))?;
            if batch.is_empty() {
                return Ok(());
            }
            for entry in batch {
                if add(entry.next + DOTS, &entry)? {
                    return Ok(());
                }
                cookie = entry.next;
            }
        }
    }

    /// The inodes of `.` and `..` with their offsets, from `offset` on.
    fn dots(&self, ino: INodeNo, offset: u64) -> Result<Vec<Dot>, Errno> {
        let dir = self.find(ino)?;
        let above = self.fs().parent(&dir).map_err(|error| errno(&error))?;
        let dots = [(1, ".", dir), (DOTS, "..", above)];
        Ok(dots.into_iter().filter(|(at, ..)| *at > offset).collect())
    }

    /// The inode of an entry, unless it was removed since the entry was read.
    fn entry_inode(&self, ino: Ino) -> Result<Option<Arc<Inode>>, Errno> {
        match self.fs().inode(ino) {
            Ok(inode) => Ok(Some(inode)),
            Err(FsError::Stale(_)) => Ok(None),
            Err(error) => Err(errno(&error)),
        }
    }
}
