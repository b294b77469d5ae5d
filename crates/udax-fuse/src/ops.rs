//! What the requests do that take more than one call of the filesystem.

use std::ffi::OsStr;

use fuser::{Errno, RenameFlags};
use udax::FreePolicy;
use udax::fs::{Filesystem, FsError, Inode, Kind, Name, RenameMode};
use udax_mm::Wait;
use udax_mm::sync::Arc;
use udax_mm::units::PAGE_BYTES;

/// Set-group-ID: of a directory, new entries get its group.
const SET_GROUP_ID: u32 = 0o2000;

/// Bytes that are copied at a time from file to file.
const COPY_CHUNK: u64 = 1 << 20;

/// Where a new inode goes and whose it is.
pub(crate) struct New<'a> {
    pub(crate) dir: &'a Arc<Inode>,
    pub(crate) name: &'a OsStr,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Makes a file or a directory, with the group that the directory asks for.
pub(crate) fn create(fs: &Filesystem, new: &New<'_>, kind: Kind) -> Result<Arc<Inode>, FsError> {
    let name = Name::new(new.name)?;
    let above = new.dir.attr();
    let (mut mode, mut gid) = (new.mode & 0o7777, new.gid);
    if above.mode & SET_GROUP_ID != 0 {
        gid = above.gid;
        if kind == Kind::Dir {
            mode |= SET_GROUP_ID;
        }
    }
    fs.create(new.dir, &name, kind, mode, new.uid, gid)
}

/// What the kernel is told if it found no such name, asked for a file to be made and opened with
/// `flags`, and that was refused for `errno`.
///
/// It takes a file that it gets for one that the caller has made, and checks no permission. Of one
/// that somebody has made in between it is told that what it knows is stale: it looks the name up
/// again, and opens and empties the file if the caller may.
pub(crate) fn refusal_to_create(errno: Errno, flags: i32) -> Errno {
    let is_exclusive = flags & libc::O_EXCL != 0;
    if errno == Errno::EEXIST && !is_exclusive { Errno::ESTALE } else { errno }
}

/// What `renameat2` flags ask for.
pub(crate) fn rename_mode(flags: RenameFlags) -> Result<RenameMode, Errno> {
    if flags.is_empty() {
        Ok(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Ok(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Ok(RenameMode::Exchange)
    } else {
        Err(Errno::EINVAL)
    }
}

/// What a mode of `fallocate` does to a range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fallocate {
    Allocate { grow: bool },
    Punch,
    Zero { grow: bool },
}

impl Fallocate {
    pub(crate) fn from_mode(mode: i32) -> Result<Fallocate, Errno> {
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => Ok(Fallocate::Allocate { grow: !keep_size }),
            libc::FALLOC_FL_PUNCH_HOLE if keep_size => Ok(Fallocate::Punch),
            libc::FALLOC_FL_ZERO_RANGE => Ok(Fallocate::Zero { grow: !keep_size }),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    pub(crate) fn run(self, inode: &Inode, at: u64, len: u64) -> Result<(), FsError> {
        let end = at.checked_add(len).ok_or(FsError::TooLarge { max: u64::MAX })?;
        if let Fallocate::Punch | Fallocate::Zero { .. } = self {
            inode.punch(at..end, FreePolicy::Defer)?;
        }
        if let Fallocate::Allocate { grow } | Fallocate::Zero { grow } = self {
            // A file has no pages past its end, so there is nothing to keep there.
            if grow {
                inode.allocate(at..end)?;
            } else {
                inode.allocate_within(at..end)?;
            }
        }
        Ok(())
    }
}

/// Finds data or a hole from `at` on, as `lseek` asks.
pub(crate) fn seek(inode: &Inode, at: u64, whence: i32) -> Result<u64, Errno> {
    let found = match whence {
        libc::SEEK_DATA => inode.seek_data(at),
        libc::SEEK_HOLE => inode.seek_hole(at),
        _ => return Err(Errno::EINVAL),
    };
    found.map_err(|error| crate::errno::errno(&error))?.ok_or(Errno::ENXIO)
}

/// Fills `into`, or reads up to the end of the file. A read that ends before a lost byte is an error
/// here: the kernel would take what is missing for the end of the file, and show zeros.
pub(crate) fn read_full(inode: &Inode, into: &mut [u8], at: u64) -> Result<usize, FsError> {
    let mut done = 0;
    while done < into.len() {
        let from = at + u64::try_from(done).expect("a request fits in memory");
        match inode.read_at(&mut into[done..], from)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

/// Copies up to `len` bytes between files; stops at the end of the source. Whole pages are cloned,
/// as far as that is possible at once.
pub(crate) fn copy(
    from: &Inode,
    from_at: u64,
    to: &Inode,
    to_at: u64,
    len: u64,
) -> Result<u64, FsError> {
    let can_be_cloned = clonable(from, from_at, to, to_at, len);
    if can_be_cloned > 0 {
        // What is pinned, for example, is copied.
        let cloned = from.clone_range(from_at..from_at + can_be_cloned, to, to_at, Wait::Never);
        if let Ok(cloned) = cloned {
            return Ok(cloned);
        }
    }
    let mut done = 0;
    while done < len {
        let want = usize::try_from((len - done).min(COPY_CHUNK)).expect("at most a MiB");
        let mut chunk = vec![0; want];
        let read = from.read_at(&mut chunk, from_at + done)?;
        if read == 0 {
            break;
        }
        let mut rest = &chunk[..read];
        while !rest.is_empty() {
            let written = to.write_at(rest, to_at + done)?;
            done += u64::try_from(written).expect("at most a MiB");
            rest = &rest[written..];
        }
    }
    Ok(done)
}

/// How many of `len` bytes can be cloned as far as alignment goes; the caller asks again for the
/// rest.
fn clonable(from: &Inode, from_at: u64, to: &Inode, to_at: u64, len: u64) -> u64 {
    if !from_at.is_multiple_of(PAGE_BYTES) || !to_at.is_multiple_of(PAGE_BYTES) {
        return 0;
    }
    let (size, target) = (from.attr().size, to.attr().size);
    let len = len.min(size.saturating_sub(from_at));
    let ends_both = from_at + len == size && to_at.saturating_add(len) >= target;
    if ends_both { len } else { len / PAGE_BYTES * PAGE_BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fallocate_knows_the_modes_that_linux_filesystems_share() {
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        let cases = [
            (0, Some(Fallocate::Allocate { grow: true })),
            (keep, Some(Fallocate::Allocate { grow: false })),
            (libc::FALLOC_FL_PUNCH_HOLE | keep, Some(Fallocate::Punch)),
            (libc::FALLOC_FL_PUNCH_HOLE, None),
            (libc::FALLOC_FL_ZERO_RANGE, Some(Fallocate::Zero { grow: true })),
            (libc::FALLOC_FL_ZERO_RANGE | keep, Some(Fallocate::Zero { grow: false })),
            (libc::FALLOC_FL_COLLAPSE_RANGE, None),
        ];
        for (mode, expected) in cases {
            assert_eq!(Fallocate::from_mode(mode).ok(), expected, "mode {mode:#x}");
        }
    }

    #[test]
    fn a_file_that_somebody_else_made_first_is_looked_up_again() {
        let cases = [
            (Errno::EEXIST, libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC, Errno::ESTALE),
            (Errno::EEXIST, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, Errno::EEXIST),
            (Errno::ENOSPC, libc::O_RDWR | libc::O_CREAT, Errno::ENOSPC),
        ];
        for (errno, flags, told) in cases {
            let found = refusal_to_create(errno, flags);
            assert_eq!(found.code(), told.code(), "flags {flags:#o}");
        }
    }
}
