//! Attributes of an inode, as callers see and set them.

use udax_mm::Pages;

use crate::{Ino, Kind};

/// The permission bits of a mode, with set-uid, set-gid and sticky.
pub(crate) const PERMISSIONS: u32 = 0o7777;

/// Attributes of an inode.
///
/// Times are nanoseconds since 1970. `atime` is the time of creation or the last one that was
/// set: reading does not change it, because that would make every read a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attr {
    /// The number.
    pub ino: Ino,
    /// Tells apart the files that had this number one after the other.
    pub generation: u32,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Names that it has; of a directory also its own `.` and the `..` of each subdirectory.
    pub links: u32,
    /// Bytes.
    pub size: u64,
    /// Pages it takes: data and tree.
    pub pages: Pages,
    /// Time of the last access, as far as it was set.
    pub atime: i64,
    /// Time of the last change of the bytes.
    pub mtime: i64,
    /// Time of the last change of the attributes or the bytes.
    pub ctime: i64,
    /// Time of creation.
    pub btime: i64,
    /// Whether the bytes can never change again.
    pub is_frozen: bool,
}

/// Attributes to set; `None` leaves one as it is.
///
/// ```
/// use udax_fs::SetAttr;
/// let read_only = SetAttr { mode: Some(0o444), ..SetAttr::default() };
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits; others are ignored.
    pub mode: Option<u32>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// Time of the last access.
    pub atime: Option<i64>,
    /// Time of the last change of the bytes.
    pub mtime: Option<i64>,
}
