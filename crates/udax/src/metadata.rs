//! Attributes of files, with the times as the standard library tells them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use udax_fs::{Attr, Ino, Kind, SetAttr};

/// The attributes of a file, directory or symbolic link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Metadata {
    attr: Attr,
}

/// Times to set; what is not named stays as it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Times {
    accessed: Option<SystemTime>,
    modified: Option<SystemTime>,
}

impl Metadata {
    pub(crate) fn new(attr: Attr) -> Metadata {
        Metadata { attr }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.attr.kind
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.attr.kind == Kind::File
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.attr.kind == Kind::Dir
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.attr.kind == Kind::Symlink
    }

    /// Whether its bytes cannot change any more.
    pub fn is_frozen(&self) -> bool {
        self.attr.is_frozen
    }

    /// The size in bytes.
    // A file without bytes is told by its size; `is_empty` would be asked of directories too.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.attr.size
    }

    /// The bytes it takes in the pool, with those of its tree.
    pub fn allocated(&self) -> u64 {
        self.attr.pages.bytes()
    }

    /// The permission bits.
    pub fn mode(&self) -> u32 {
        self.attr.mode
    }

    /// The owner.
    pub fn uid(&self) -> u32 {
        self.attr.uid
    }

    /// The group.
    pub fn gid(&self) -> u32 {
        self.attr.gid
    }

    /// The number of names.
    pub fn links(&self) -> u32 {
        self.attr.links
    }

    /// The number of the inode.
    pub fn ino(&self) -> Ino {
        self.attr.ino
    }

    /// When the bytes were last read.
    pub fn accessed(&self) -> SystemTime {
        from_nanos(self.attr.atime)
    }

    /// When the bytes last changed.
    pub fn modified(&self) -> SystemTime {
        from_nanos(self.attr.mtime)
    }

    /// When the attributes last changed.
    pub fn changed(&self) -> SystemTime {
        from_nanos(self.attr.ctime)
    }

    /// When it was made.
    pub fn created(&self) -> SystemTime {
        from_nanos(self.attr.btime)
    }
}

impl Times {
    /// Sets nothing.
    pub fn new() -> Times {
        Times::default()
    }

    /// Sets when the bytes were last read.
    #[must_use]
    pub fn accessed(mut self, time: SystemTime) -> Times {
        self.accessed = Some(time);
        self
    }

    /// Sets when the bytes last changed.
    #[must_use]
    pub fn modified(mut self, time: SystemTime) -> Times {
        self.modified = Some(time);
        self
    }

    pub(crate) fn to_set_attr(self) -> SetAttr {
        SetAttr {
            atime: self.accessed.map(to_nanos),
            mtime: self.modified.map(to_nanos),
            ..SetAttr::default()
        }
    }
}

fn from_nanos(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// Nanoseconds since 1970; a time outside of 1677 to 2262 becomes the nearest one inside.
fn to_nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_the_way_to_the_medium_and_back() {
        for nanos in [-1_500_000_000, -1, 0, 1, 1_700_000_000_123_456_789] {
            assert_eq!(to_nanos(from_nanos(nanos)), nanos);
        }
    }
}
