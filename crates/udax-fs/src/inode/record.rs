//! Inode records: how one is made, what makes one valid, and what it says to a caller.

use udax_mm::Pages;
use zerocopy::FromZeros as _;

use super::attr::{Attr, PERMISSIONS};
use crate::format::{FLAG_FROZEN, FLAG_SHARES, ITABLE_INO, InodeRecord, MAX_FILE_BYTES};
use crate::{Ino, Kind};

/// The bits of a mode that say what an inode is.
const S_IFMT: u32 = 0o170_000;

/// A regular file.
pub(crate) const S_IFREG: u32 = 0o100_000;

/// A directory.
const S_IFDIR: u32 = 0o040_000;

/// A symbolic link.
const S_IFLNK: u32 = 0o120_000;

/// Who a new inode belongs to, and what it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewInode {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl NewInode {
    /// The record of a new inode without data, in directory `parent`.
    pub(crate) fn record(&self, ino: Ino, parent: Ino, generation: u32, now: i64) -> InodeRecord {
        let mut record = InodeRecord::new_zeroed();
        record.mode.set(type_bits(self.kind) | self.mode & PERMISSIONS);
        record.generation.set(generation);
        record.uid.set(self.uid);
        record.gid.set(self.gid);
        record.ino.set(ino.0);
        record.links.set(1);
        if self.kind == Kind::Dir {
            record.links.set(2);
            record.parent.set(parent.0);
        }
        record.atime.set(now);
        record.mtime.set(now);
        record.ctime.set(now);
        record.btime.set(now);
        record
    }
}

impl InodeRecord {
    /// The record of a number that is free again; it keeps only its generation.
    pub(crate) fn freed(&self) -> InodeRecord {
        let mut record = InodeRecord::new_zeroed();
        record.generation = self.generation;
        record
    }

    /// What the inode is; `None` for a type that no version writes.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self.mode.get() & S_IFMT {
            S_IFREG => Some(Kind::File),
            S_IFDIR => Some(Kind::Dir),
            S_IFLNK => Some(Kind::Symlink),
            _ => None,
        }
    }

    /// Whether the bytes are immutable.
    pub(crate) fn is_frozen(&self) -> bool {
        self.flags.get() & FLAG_FROZEN != 0
    }

    /// Whether other files may refer to data that this one refers to.
    pub(crate) fn may_share(&self) -> bool {
        self.flags.get() & FLAG_SHARES != 0
    }

    /// Checks the record of number `ino` by itself, and says what it is: `None` is free.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the record.
    pub(crate) fn examine(&self, ino: Ino) -> Result<Option<Kind>, String> {
        if !self.is_intact() {
            return Err(format!("the record has checksum {:#x}", self.checksum.get()));
        }
        if !self.is_used() {
            return Ok(None);
        }
        let mode = self.mode.get();
        let kind = self.kind().ok_or_else(|| format!("unknown type in mode {mode:#o}"))?;
        if self.ino.get() != ino.0 {
            return Err(format!("the record is that of inode {}", self.ino.get()));
        }
        if self.size.get() > MAX_FILE_BYTES {
            return Err(format!("a size of {} bytes", self.size.get()));
        }
        if self.flags.get() & !(FLAG_FROZEN | FLAG_SHARES) != 0 {
            return Err(format!("unknown flags {:#x}", self.flags.get()));
        }
        if self.may_share() && (kind != Kind::File || ino == ITABLE_INO) {
            return Err("it shares data and is not a file".to_owned());
        }
        Ok(Some(kind))
    }

    /// What a caller sees of an inode that was examined.
    pub(crate) fn attr(&self, kind: Kind) -> Attr {
        Attr {
            ino: Ino(self.ino.get()),
            generation: self.generation.get(),
            kind,
            mode: self.mode.get() & PERMISSIONS,
            uid: self.uid.get(),
            gid: self.gid.get(),
            links: self.links.get(),
            size: self.size.get(),
            pages: Pages(self.pages.get()),
            atime: self.atime.get(),
            mtime: self.mtime.get(),
            ctime: self.ctime.get(),
            btime: self.btime.get(),
            is_frozen: self.is_frozen(),
        }
    }

    /// Sets the permission bits.
    pub(crate) fn set_permissions(&mut self, mode: u32) {
        self.mode.set(self.mode.get() & S_IFMT | mode & PERMISSIONS);
    }
}

fn type_bits(kind: Kind) -> u32 {
    match kind {
        Kind::File => S_IFREG,
        Kind::Dir => S_IFDIR,
        Kind::Symlink => S_IFLNK,
    }
}
