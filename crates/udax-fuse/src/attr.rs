//! Attributes in the kernel's words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use udax::fs::{Attr, Kind};

/// Translates the attributes of an inode.
pub(crate) fn to_kernel(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.pages.bytes() / 512,
        atime: to_time(attr.atime),
        mtime: to_time(attr.mtime),
        ctime: to_time(attr.ctime),
        crtime: to_time(attr.btime),
        kind: kind_to_kernel(attr.kind),
        perm: u16::try_from(attr.mode & 0o7777).expect("twelve bits fit"),
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Translates the kind of an inode.
pub(crate) fn kind_to_kernel(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
    }
}

/// Nanoseconds since 1970 of a time that a program sets; what does not fit becomes the nearest.
pub(crate) fn to_nanos(time: TimeOrNow) -> i64 {
    let time = match time {
        TimeOrNow::Now => SystemTime::now(),
        TimeOrNow::SpecificTime(time) => time,
    };
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    }
}

fn to_time(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}
