//! Persistence: how stores reach the place that survives.
//!
//! This file owns what a flush and a fence do for each [`Persistence`], and the ranges that were
//! flushed and wait for a fence. It does not decide when to flush: the filesystem does, and the
//! recorder checks that it does.
//!
//! A flush names bytes, a fence waits for everything that its thread flushed before it. With cache
//! lines the flush does the work (the lines are written back) and the fence only orders, for the
//! processor that makes it. With msync the flush only takes note, because the kernel writes whole
//! pages and waits for the disk in the same call; the fence makes that call, and for other threads
//! too.

use std::ffi::c_void;
use std::ops::Range;

use rustix::io::Errno;
use rustix::mm::{MsyncFlags, msync};

use crate::bytes::{Window, WriteBack};
use crate::media::{MediaError, Persistence};
use crate::sync::Mutex;
use crate::sync::atomic::{Ordering, fence};
use crate::units::{PAGE_BYTES, PAGE_SIZE};

/// The most ranges that wait apart. Each of them costs an msync; beyond this the two that are
/// closest become one, which writes what lies between them as well.
const MAX_PENDING: usize = 16;

/// Flushes and fences the stores made through one window.
#[derive(Debug)]
#[cfg_attr(shuttle, expect(clippy::large_enum_variant, reason = "its locks are large"))]
pub(crate) enum Persist {
    /// Stores survive, or vanish, by themselves.
    Nothing,
    /// Cache lines are written back.
    CacheLines(WriteBack),
    /// Pages are written by msync.
    Msync(Synced),
}

/// The ranges of an msynced window.
#[derive(Debug)]
pub(crate) struct Synced {
    /// Pages flushed and not yet taken by a fence.
    pending: Mutex<PendingPages>,
    /// Held during an msync, so that a fence which finds its pages taken by another fence waits
    /// until they are written. Holds the error of the first msync that failed.
    writing: Mutex<Option<Errno>>,
}

impl Persist {
    /// Chooses the instructions for `persistence` on this processor.
    pub(crate) fn new(persistence: Persistence) -> Persist {
        match persistence {
            Persistence::Process | Persistence::Volatile => Persist::Nothing,
            Persistence::CacheLines => {
                let best = write_back_instructions().next();
                Persist::CacheLines(best.expect("every processor has such an instruction"))
            }
            Persistence::Msync => Persist::Msync(Synced {
                pending: Mutex::new(PendingPages::default()),
                writing: Mutex::new(None),
            }),
        }
    }

    /// Starts `len` bytes from `at` on their way.
    pub(crate) fn flush(&self, window: &Window, at: u64, len: u64) -> Result<(), MediaError> {
        let end = at.checked_add(len).filter(|&end| usize::try_from(end).is_ok());
        let Some(end) = end.filter(|&end| end <= window_end(window)) else {
            return Err(MediaError::OutOfRange { at, len });
        };
        match self {
            Persist::CacheLines(how) => window.write_back(at, len, *how)?,
            Persist::Msync(synced) if len > 0 => synced.pending.lock().add(pages(at..end)),
            Persist::Nothing | Persist::Msync(_) => {}
        }
        Ok(())
    }

    /// Waits until everything that this thread flushed before has arrived.
    pub(crate) fn fence(&self, window: &Window) -> Result<(), MediaError> {
        // Orders the stores before against the stores after for a reader in another process; the
        // assembly of the copies already keeps the compiler from moving them.
        fence(Ordering::SeqCst);
        match self {
            Persist::Nothing => Ok(()),
            Persist::CacheLines(_) => {
                store_fence();
                Ok(())
            }
            Persist::Msync(synced) => synced.write_pending(|range| sync_bytes(window, range)),
        }
    }
}

impl Synced {
    /// Writes every pending page, and waits for those that another fence is writing.
    ///
    /// A failure is final: the host reports a page that it could not write once, and then holds it
    /// for clean, so that a second msync would succeed without having written anything.
    fn write_pending(
        &self,
        sync: impl FnMut(&Range<u64>) -> rustix::io::Result<()>,
    ) -> Result<(), MediaError> {
        let mut failed = self.writing.lock();
        if failed.is_none() {
            let taken = std::mem::take(&mut *self.pending.lock());
            *failed = taken.ranges.iter().try_for_each(sync).err();
        }
        failed.map_or(Ok(()), |errno| Err(MediaError::Io(errno.into())))
    }
}

/// Page-aligned byte ranges, sorted, apart from each other, and few.
#[derive(Debug, Default)]
struct PendingPages {
    ranges: Vec<Range<u64>>,
}

impl PendingPages {
    /// Adds a range, joining what touches it.
    fn add(&mut self, mut range: Range<u64>) {
        let first = self.ranges.partition_point(|old| old.end < range.start);
        let last = self.ranges.partition_point(|old| old.start <= range.end);
        for old in self.ranges.drain(first..last) {
            range = range.start.min(old.start)..range.end.max(old.end);
        }
        self.ranges.insert(first, range);
        if self.ranges.len() > MAX_PENDING {
            self.join_closest();
        }
    }

    /// Joins the two ranges with the least between them.
    fn join_closest(&mut self) {
        let gaps = self.ranges.windows(2).map(|pair| pair[1].start - pair[0].end);
        if let Some((closest, _)) = gaps.enumerate().min_by_key(|&(_, gap)| gap) {
            let later = self.ranges.remove(closest + 1);
            self.ranges[closest].end = later.end;
        }
    }
}

/// The whole pages that hold a range.
fn pages(bytes: Range<u64>) -> Range<u64> {
    bytes.start - bytes.start % PAGE_BYTES..bytes.end.next_multiple_of(PAGE_BYTES)
}

/// The length of a window in the unit of media.
fn window_end(window: &Window) -> u64 {
    u64::try_from(window.len()).expect("usize has at most 64 bits")
}

/// Writes the pages of a window to the disk.
fn sync_bytes(window: &Window, bytes: &Range<u64>) -> rustix::io::Result<()> {
    let start = usize::try_from(bytes.start).expect("flush checked the end");
    let end = usize::try_from(bytes.end).expect("flush checked the end");
    assert!(end <= window.len(), "persist: a pending range lies inside the window");
    assert!(start.is_multiple_of(PAGE_SIZE), "persist: a pending range starts at a page");
    let address = window.start().as_ptr().wrapping_add(start).cast::<c_void>();
    // SAFETY: the range lies inside the window, whose owner keeps it mapped; msync changes no
    // memory.
    unsafe { msync(address, end - start, MsyncFlags::SYNC) }
}

/// Waits for write-backs and stores to be accepted.
#[cfg(target_arch = "x86_64")]
fn store_fence() {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { std::arch::x86_64::_mm_sfence() };
}

/// Waits for write-backs and stores to be accepted.
#[cfg(target_arch = "aarch64")]
fn store_fence() {
    // SAFETY: a barrier touches no memory and no register.
    unsafe { std::arch::asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// The instructions of this processor that write a line back, the best first.
#[cfg(target_arch = "x86_64")]
pub(crate) fn write_back_instructions() -> impl Iterator<Item = WriteBack> {
    // Leaf 7: structured extended features. x86-64 always has leaf 0, which gives the last leaf.
    let last_leaf = std::arch::x86_64::__cpuid(0).eax;
    let features = if last_leaf < 7 { 0 } else { std::arch::x86_64::__cpuid_count(7, 0).ebx };
    let told = [(1 << 24, WriteBack::Clwb), (1 << 23, WriteBack::Clflushopt)];
    let found = told.into_iter().filter(move |&(bit, _)| features & bit != 0);
    found.map(|(_, how)| how).chain([WriteBack::Clflush])
}

/// The instruction that cleans a line to the point of coherency, where persistent memory is.
#[cfg(target_arch = "aarch64")]
pub(crate) fn write_back_instructions() -> impl Iterator<Item = WriteBack> {
    [WriteBack::DcCvac].into_iter()
}

#[cfg(test)]
mod tests {
    use super::{MAX_PENDING, PendingPages, Synced, pages};
    use crate::sync::Mutex;
    use rustix::io::Errno;

    fn pending(added: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut pending = PendingPages::default();
        for &(start, end) in added {
            pending.add(start..end);
        }
        pending.ranges.iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn pending_ranges_stay_sorted_and_join_where_they_touch() {
        assert_eq!(pending(&[(8, 9), (2, 3), (5, 6)]), [(2, 3), (5, 6), (8, 9)]);
        assert_eq!(pending(&[(2, 3), (5, 6), (3, 5)]), [(2, 6)]);
        assert_eq!(pending(&[(2, 9), (3, 4)]), [(2, 9)]);
        assert_eq!(pending(&[(3, 4), (6, 7), (2, 9), (12, 13)]), [(2, 9), (12, 13)]);
    }

    #[test]
    fn one_range_too_many_joins_the_closest_two() {
        let mut added: Vec<(u64, u64)> = (0..16).map(|n| (100 * n, 100 * n + 10)).collect();
        added.push((550, 560));
        let joined = pending(&added);
        assert_eq!(joined.len(), MAX_PENDING);
        assert!(joined.contains(&(500, 560)));
    }

    #[test]
    fn after_a_failed_msync_no_fence_succeeds() {
        let synced =
            Synced { pending: Mutex::new(PendingPages::default()), writing: Mutex::new(None) };
        synced.pending.lock().add(0..4096);

        assert!(synced.write_pending(|_| Err(Errno::IO)).is_err());

        assert!(synced.write_pending(|_| Ok(())).is_err(), "the host reports it once");
    }

    #[test]
    fn a_flush_takes_whole_pages() {
        assert_eq!(pages(4095..4097), 0..8192);
        assert_eq!(pages(4096..8192), 4096..8192);
    }
}
