//! The one place that knows errno.

use fuser::Errno;
use udax::ErrorKind;
use udax::fs::FsError;

/// The number that says `error` to the kernel.
pub(crate) fn errno(error: &FsError) -> Errno {
    of_kind(ErrorKind::from(error))
}

/// The number of a kind of error; what has no number of its own is an input/output error.
fn of_kind(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::NotFound => Errno::ENOENT,
        ErrorKind::AlreadyExists => Errno::EEXIST,
        ErrorKind::NotADirectory => Errno::ENOTDIR,
        ErrorKind::IsADirectory => Errno::EISDIR,
        ErrorKind::DirectoryNotEmpty => Errno::ENOTEMPTY,
        ErrorKind::NameTooLong => Errno::ENAMETOOLONG,
        ErrorKind::SymlinkLoop => Errno::ELOOP,
        ErrorKind::TooManyLinks => Errno::EMLINK,
        ErrorKind::Frozen => Errno::EPERM,
        ErrorKind::ReadOnly => Errno::EROFS,
        ErrorKind::BadHandle => Errno::EBADF,
        ErrorKind::TooLarge => Errno::EFBIG,
        ErrorKind::Full => Errno::ENOSPC,
        ErrorKind::Pinned
        | ErrorKind::MappedForWriting
        | ErrorKind::OpenForWriting
        | ErrorKind::InUse
        | ErrorKind::StillOpen => Errno::EBUSY,
        ErrorKind::Interrupted => Errno::EINTR,
        ErrorKind::OtherPool => Errno::EXDEV,
        ErrorKind::Stale => Errno::ESTALE,
        ErrorKind::DeviceGone | ErrorKind::Closed => Errno::ENODEV,
        ErrorKind::NoDax => Errno::EOPNOTSUPP,
        ErrorKind::InvalidName
        | ErrorKind::BadTable
        | ErrorKind::MoveIntoItself
        | ErrorKind::NotASymlink
        | ErrorKind::NotAFile
        | ErrorKind::NotFrozen
        | ErrorKind::OutOfRange
        | ErrorKind::InvalidInput => Errno::EINVAL,
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use udax_mm::Pages;

    use super::*;

    #[test]
    fn programs_see_the_numbers_that_linux_filesystems_give() {
        let full = FsError::NoSpace { wanted: Pages(2), free: Pages(1) };
        assert_eq!(errno(&full).code(), libc::ENOSPC);
        assert_eq!(errno(&FsError::NotEmpty).code(), libc::ENOTEMPTY);
        assert_eq!(errno(&FsError::NameTooLong(300)).code(), libc::ENAMETOOLONG);
        assert_eq!(errno(&FsError::Loop).code(), libc::EINVAL);
        assert_eq!(errno(&FsError::Frozen).code(), libc::EPERM);
        assert_eq!(errno(&FsError::OpenForWriting { handles: 1 }).code(), libc::EBUSY);
        assert_eq!(errno(&FsError::Interrupted { handles: 1 }).code(), libc::EINTR);
    }
}
