//! Every structure on the medium, little-endian, version 1. The boxes are drawn in docs/format.md.
//!
//! This file owns shapes, constants and checksums; it reads and writes nothing. Field names and
//! their order are those of docs/format.md, which a check compares with this file.

use udax_mm::{DeviceOff, Pages};
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The version this crate writes.
pub const FORMAT_VERSION: u32 = 1;

/// The first bytes of a superblock.
pub(crate) const MAGIC: [u8; 8] = *b"UDAXpool";

/// Feature bits this version knows; any other bit set makes a pool unreadable for it.
pub(crate) const KNOWN_FEATURES: u64 = 0;

/// Tree entries in a node, and pages in a 2 MiB block.
pub(crate) const FANOUT: u64 = 512;

/// The deepest tree: its root entry covers 512^4 pages.
pub(crate) const MAX_DEPTH: u32 = 4;

/// The highest level at which an entry may be data (level 2 is an order-18 extent).
pub(crate) const MAX_DATA_LEVEL: u32 = 2;

/// The largest file: what a tree of [`MAX_DEPTH`] covers.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 48;

/// Bytes in an [`InodeRecord`].
pub(crate) const INODE_RECORD_BYTES: u64 = 256;

/// Bytes in a directory cell.
pub(crate) const CELL_BYTES: u64 = 64;

/// The inode number that checks the inode table's own tree; no record in the table has it.
pub(crate) const ITABLE_INO: Ino = Ino(u64::MAX);

/// The number of the root directory.
pub(crate) const ROOT_INO: Ino = Ino(1);

/// The flag of a frozen file in [`InodeRecord::flags`]: its bytes never change again.
pub(crate) const FLAG_FROZEN: u32 = 1;

/// The flag of a file whose data other files with this flag may have too.
pub(crate) const FLAG_SHARES: u32 = 2;

/// The number of an inode. 1 is the root directory; 0 names nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ino(pub u64);

/// What an inode is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link; its target is its data.
    Symlink,
}

/// 256 bytes at the start of page 0, and again at the start of the last page (the mirror).
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub(crate) struct SuperblockRecord {
    pub(crate) magic: [u8; 8],
    pub(crate) checksum: U32,
    pub(crate) version: U32,
    pub(crate) features: U64,
    pub(crate) pages: U64,
    pub(crate) journal_start: U64,
    pub(crate) journal_pages: U64,
    pub(crate) itable_page: U64,
    pub(crate) data_start: U64,
    pub(crate) data_end: U64,
    pub(crate) created: I64,
    pub(crate) uuid: [u8; 16],
    pub(crate) label: [u8; 64],
    pub(crate) pins_start: U64,
    pub(crate) pins_pages: U64,
    pub(crate) reserved: [U64; 10],
}

/// 64 bytes, one cache line, at the start of page 1: who has the pool open.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub(crate) struct SessionRecord {
    pub(crate) checksum: U32,
    pub(crate) state: U32,
    pub(crate) pid: U32,
    pub(crate) reserved0: U32,
    pub(crate) boot_id: [u8; 16],
    pub(crate) time: I64,
    pub(crate) reserved: [U64; 3],
}

/// 64 bytes at the start of the journal; `length` bytes of [`JournalWrite`]s follow.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub(crate) struct JournalHeader {
    pub(crate) checksum: U32,
    pub(crate) length: U32,
    pub(crate) sequence: U64,
    pub(crate) uuid: [u8; 16],
    pub(crate) reserved: [U64; 4],
}

/// 16 bytes: one write of a transaction; its bytes follow, filled up to a multiple of 8.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub(crate) struct JournalWrite {
    pub(crate) at: U64,
    pub(crate) length: U32,
    pub(crate) kind: U32,
}

/// 128 bytes at the start of each page of the pin table: which page continues it.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub(crate) struct PinPageHeader {
    pub(crate) next: U64,
    pub(crate) reserved: [U64; 15],
}

/// 128 bytes: adjacent pages of the device that a long-term pin holds. Free if its first 8 bytes
/// are zero.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub(crate) struct PinRecord {
    pub(crate) checksum: U32,
    pub(crate) state: u8,
    pub(crate) kind: u8,
    pub(crate) reserved0: U16,
    pub(crate) boot_id: [u8; 16],
    pub(crate) process_start: U64,
    pub(crate) time: I64,
    pub(crate) first: U64,
    pub(crate) pages: U64,
    pub(crate) pid: U32,
    pub(crate) reserved: U32,
    pub(crate) label: [u8; 64],
}

/// 256 bytes; record `n` of the inode table file describes inode `n`; all zero = never used.
///
/// The inode table's own record lies at the start of the page the superblock names.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub(crate) struct InodeRecord {
    pub(crate) checksum: U32,
    pub(crate) mode: U32,
    pub(crate) generation: U32,
    pub(crate) links: U32,
    pub(crate) uid: U32,
    pub(crate) gid: U32,
    pub(crate) flags: U32,
    pub(crate) depth: U32,
    pub(crate) size: U64,
    pub(crate) root: U64,
    pub(crate) pages: U64,
    pub(crate) parent: U64,
    pub(crate) ino: U64,
    pub(crate) atime: I64,
    pub(crate) mtime: I64,
    pub(crate) ctime: I64,
    pub(crate) btime: I64,
    pub(crate) reserved: [U64; 19],
}

/// 16 bytes at the start of the first cell of a directory entry; the name follows.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub(crate) struct DirCell {
    pub(crate) checksum: U32,
    pub(crate) kind: u8,
    pub(crate) name_length: u8,
    pub(crate) reserved: U16,
    pub(crate) ino: U64,
}

/// Where everything lies in a pool of a given size.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Geometry {
    /// Pages of the whole pool.
    pub(crate) pages: Pages,
    /// The first page of the journal.
    pub(crate) journal: DeviceOff,
    /// Pages of the journal.
    pub(crate) journal_pages: Pages,
    /// The first page of the pin table.
    pub(crate) pins: DeviceOff,
    /// Its pages that are always there; more are chained to the last of them.
    pub(crate) pins_pages: Pages,
    /// The page that holds the inode table's own record.
    pub(crate) itable: DeviceOff,
    /// The first page of data.
    pub(crate) data: DeviceOff,
    /// The first page after the data: the mirror of the superblock.
    pub(crate) end: DeviceOff,
}

impl Geometry {
    /// Lays out a pool of `pages` pages. The journal grows with the pool, from 32 KiB to 4 MiB, and
    /// the pin table from 4 KiB to 256 KiB.
    pub(crate) fn of(pages: Pages) -> Geometry {
        let journal = DeviceOff(2);
        let journal_pages = Pages((pages.0 / 512).clamp(8, 1024));
        let pins = journal + journal_pages;
        let pins_pages = Pages((pages.0 / 16_384).clamp(1, 64));
        let itable = pins + pins_pages;
        Geometry {
            pages,
            journal,
            journal_pages,
            pins,
            pins_pages,
            itable,
            data: itable + Pages(1),
            end: DeviceOff(pages.0 - 1),
        }
    }

    /// Whether these pages may belong to a file or a tree.
    pub(crate) fn are_data(&self, start: DeviceOff, pages: Pages) -> bool {
        self.data <= start && start + pages <= self.end
    }
}

impl InodeRecord {
    /// Whether the record describes an inode; a free one keeps only its generation.
    pub(crate) fn is_used(&self) -> bool {
        self.mode.get() != 0
    }

    /// Whether the checksum fits, or the record was never used (all zero).
    pub(crate) fn is_intact(&self) -> bool {
        self.checksum() == self.checksum.get() || self.as_bytes().iter().all(|&byte| byte == 0)
    }

    /// The same record with its checksum filled in.
    pub(crate) fn sealed(mut self) -> InodeRecord {
        self.checksum = self.checksum().into();
        self
    }

    fn checksum(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[4..])
    }
}
