//! Every structure on the medium, little-endian, version 1. The boxes are drawn in docs/format.md.
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
/// The version this crate writes.
pub const FORMAT_VERSION: u32 = 1;
/// The number of an inode. 1 is the root directory; 0 names nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ino(pub u64);
/// What an inode is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind { /// x
    File, /// x
    Dir, /// x
    Symlink }
/// 256 bytes; record `n` of the inode table file describes inode `n`; all zero = free. The inode table's own record has a fixed place.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct InodeRecord {
    pub(crate) checksum: U32,     //   0  crc32 of bytes 4..256
    pub(crate) mode: U32,         //   4  type (S_IFMT) and permission bits; 0 = free
    pub(crate) generation: U32,   //   8  kept when freed
    pub(crate) links: U32,        //  12
    pub(crate) uid: U32,          //  16
    pub(crate) gid: U32,          //  20
    pub(crate) flags: U32,        //  24  bit 0: frozen
    pub(crate) depth: U32,        //  28  of the tree: the root entry covers 512^depth pages
    pub(crate) size: U64,         //  32  bytes
    pub(crate) root: U64,         //  40  tree entry, 0 = no page
    pub(crate) pages: U64,        //  48  pages of data and tree nodes
    pub(crate) parent: U64,       //  56  of a directory
    pub(crate) ino: U64,          //  64  its own number
    pub(crate) atime: I64,        //  72  nanoseconds since 1970
    pub(crate) mtime: I64,        //  80
    pub(crate) ctime: I64,        //  88
    pub(crate) btime: I64,        //  96
    pub(crate) reserved: [U64; 19], // 104
}
