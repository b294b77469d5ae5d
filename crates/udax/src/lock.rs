//! The lock of a pool file: one writer or several readers, across processes.
//!
//! Owns the advisory lock (flock) and the search for who holds it. The kernel drops the lock with
//! the process, so a killed holder leaves nothing behind.

use std::fs::File as HostFile;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::Cause;

/// How a pool is shared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LockMode {
    /// With other readers.
    Shared,
    /// With nobody.
    Exclusive,
}

/// A held lock; dropping it lets others in.
#[derive(Debug)]
pub(crate) struct PoolLock {
    host: HostFile,
}

impl PoolLock {
    /// Locks `host`, at once or not at all; the error names the holder.
    pub(crate) fn acquire(host: &HostFile, mode: LockMode) -> Result<PoolLock, Cause> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::NonBlockingLockShared,
            LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        match flock(host, operation) {
            Ok(()) => Ok(PoolLock { host: host.try_clone()? }),
            Err(Errno::WOULDBLOCK) => Err(holder(host).map_or(Cause::InUseByUnknown, Cause::InUse)),
            Err(error) => Err(std::io::Error::from(error).into()),
        }
    }
}

impl Drop for PoolLock {
    fn drop(&mut self) {
        // Explicit, because a mapping of the pool that outlives this keeps the open file, and with
        // it the lock. A failure here means that there is no lock any more.
        let _ = flock(&self.host, FlockOperation::Unlock);
    }
}

/// The process that holds a lock on `host`, if the kernel tells.
fn holder(host: &HostFile) -> Option<u32> {
    let metadata = host.metadata().ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let key =
        format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    find_holder(&locks, &key).or_else(|| {
        // Some filesystems (overlay, btrfs) show another device there than stat does.
        find_holder(&locks, &format!(":{inode}"))
    })
}

/// Finds the process of the first flock in `locks` whose file ends in `key`.
fn find_holder(locks: &str, key: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1).skip_while(|&field| field == "->");
        let class = fields.next()?;
        let (pid, file) = (fields.nth(2)?, fields.next()?);
        let pid = pid.parse().ok().filter(|&pid| pid > 0)?;
        (class == "FLOCK" && file.ends_with(key)).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 11 08:01:77 0 EOF\n\
                         2: FLOCK  ADVISORY  WRITE 4242 08:01:77 0 EOF\n\
                         2: -> FLOCK  ADVISORY  READ 12 08:01:78 0 EOF\n\
                         3: FLOCK  ADVISORY  WRITE 0 08:01:79 0 EOF\n";

    #[test]
    fn the_holder_is_the_process_with_a_flock_on_the_same_inode() {
        assert_eq!(find_holder(LOCKS, "08:01:77"), Some(4242));
        assert_eq!(find_holder(LOCKS, ":77"), Some(4242));
    }

    #[test]
    fn a_holder_outside_of_our_pid_namespace_is_unknown() {
        assert_eq!(find_holder(LOCKS, "08:01:79"), None);
        assert_eq!(find_holder(LOCKS, "08:01:7"), None);
    }
}
