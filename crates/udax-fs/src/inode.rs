//! x
use crate::*;
use std::ops::Range;
use udax_mapping::*;
use udax_mm::sync::Arc;
use udax_mm::{Access, FileIndex, Pages, PinInfo, Wait, DeviceOff};
/// Attributes. Times are nanoseconds since the epoch
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attr { /// x
    pub ino: Ino, /// x
    pub generation: u32, /// x
    pub kind: Kind, /// permission bits 0o7777
    pub mode: u32, /// x
    pub uid: u32, /// x
    pub gid: u32, /// x
    pub links: u32, /// bytes
    pub size: u64, /// allocated (data + tree)
    pub pages: Pages, /// x
    pub atime: i64, /// x
    pub mtime: i64, /// x
    pub ctime: i64, /// x
    pub btime: i64, /// x
    pub is_frozen: bool }
/// What to change (None: leave)
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr { /// x
    pub mode: Option<u32>, /// x
    pub uid: Option<u32>, /// x
    pub gid: Option<u32>, /// x
    pub atime: Option<i64>, /// x
    pub mtime: Option<i64> }
/// What to do with pages that are pinned when their blocks are freed
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FreePolicy { /// x
    Wait(Wait), /// limbo
    Defer }
/// A contiguous run of the file on the device
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileExtent { /// x
    pub index: FileIndex, /// x
    pub device: DeviceOff, /// x
    pub pages: Pages, /// Pmd where the tree holds a 2 MiB entry
    pub order: udax_mm::Order }
/// An open inode. The last handle of an inode without a name frees it (deferring what is pinned).
#[derive(Debug)]
pub struct Inode(());
#[allow(unused_variables)]
impl Inode {
    /// x
    pub fn ino(&self) -> Ino { todo!() }
    /// x
    pub fn attr(&self) -> Attr { todo!() }
    /// x
    pub fn set_attr(&self, set: &SetAttr) -> Result<Attr, FsError> { todo!() }
    /// bytes read: short only at the end of the file
    pub fn read_at(&self, into: &mut [u8], at: u64) -> Result<usize, FsError> { todo!() }
    /// all of it or an error; a full pool undoes what this call allocated. Large writes go in atomic chunks, in order; partial progress is kept as a short count.
    pub fn write_at(&self, bytes: &[u8], at: u64) -> Result<usize, FsError> { todo!() }
    /// atomically at the end (O_APPEND); returns the offset it went to
    pub fn append(&self, bytes: &[u8]) -> Result<u64, FsError> { todo!() }
    /// grow or shrink
    pub fn truncate(&self, size: u64, policy: FreePolicy) -> Result<(), FsError> { todo!() }
    /// zeros range; whole pages are freed
    pub fn punch(&self, range: Range<u64>, policy: FreePolicy) -> Result<(), FsError> { todo!() }
    /// allocates (zeroed) what is a hole in the range; grows the file unless keep_size
    pub fn allocate(&self, range: Range<u64>) -> Result<(), FsError> { todo!() }
    /// next data / hole at or after `at` (SEEK_DATA / SEEK_HOLE); None past the end
    pub fn seek_data(&self, at: u64) -> Result<Option<u64>, FsError> { todo!() }
    /// x
    pub fn seek_hole(&self, at: u64) -> Result<Option<u64>, FsError> { todo!() }
    /// symlink target
    pub fn read_link(&self) -> Result<Vec<u8>, FsError> { todo!() }
    /// x
    pub fn map(&self, start: FileIndex, pages: Pages, access: Access, populate: Populate) -> Result<FileMapping, FsError> { todo!() }
    /// x
    pub fn pin(&self, range: Range<FileIndex>, info: PinInfo) -> Result<PinnedRange, FsError> { todo!() }
    /// x
    pub fn pins(&self) -> Vec<FilePin> { todo!() }
    /// Makes the file immutable for ever (until removed). Pinned or writably mapped: waits as told / error
    pub fn freeze(&self, wait: Wait) -> Result<(), FsError> { todo!() }
    /// the bytes of a frozen file
    pub fn frozen_bytes(&self, info: PinInfo) -> Result<udax_mm::vma::FrozenBytes, FsError> { todo!() }
    /// everything stored so far (write_at and mapped stores) is durable when this returns
    pub fn sync(&self) -> Result<(), FsError> { todo!() }
    /// where the bytes lie
    pub fn extents(&self) -> Result<Vec<FileExtent>, FsError> { todo!() }
}

/// A user mapping of a file. It keeps the inode open; derefs to [`UserMapping`].
#[derive(Debug)]
pub struct FileMapping { user: UserMapping, _inode: Arc<Inode> }
impl std::ops::Deref for FileMapping {
    type Target = UserMapping;
    fn deref(&self) -> &UserMapping { &self.user }
}
