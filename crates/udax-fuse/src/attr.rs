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
        Err(before) => before_1970(before.duration()),
    }
}

/// Nanoseconds since 1970 of a time before it, which fuser says lies `distance` before.
///
/// The kernel counts the nanoseconds of every time forwards; fuser 0.18 counts them backwards
/// before 1970 (`system_time_from_time`), so that half a second before 1970 (second -1 and half a
/// second) becomes one and a half. This turns them around again. A test over the mount fails when
/// fuser does it itself.
fn before_1970(distance: Duration) -> i64 {
    let second = i128::from(distance.as_secs()) * 1_000_000_000;
    let nanos = i128::from(distance.subsec_nanos()) - second;
    i64::try_from(nanos).unwrap_or(i64::MIN)
}

fn to_time(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_do_not_fit_become_the_nearest() {
        let far = Duration::from_secs(u64::from(u32::MAX) * 4);
        assert_eq!(to_nanos(TimeOrNow::SpecificTime(UNIX_EPOCH + far)), i64::MAX);
        assert_eq!(to_nanos(TimeOrNow::SpecificTime(UNIX_EPOCH - far)), i64::MIN);
        for nanos in [i64::MAX, 1, 0, -1, -1_000_000_000, i64::MIN] {
            let distance = Duration::from_nanos(nanos.unsigned_abs());
            let shown = to_time(nanos);
            assert_eq!(shown.duration_since(UNIX_EPOCH).unwrap_or_else(|e| e.duration()), distance);
        }
    }
}
