//! Why a fault was served with 4 KiB where 2 MiB were wanted, and how often.

use std::fmt;
use udax_mm::sync::atomic::{AtomicU64, Ordering};

/// Why a fault fell back from order 9 to order 0 (rule 14).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Fallback {
    /// The 2 MiB block of the file does not lie inside the user mapping or the pinned range.
    RangeTooShort,
    /// Addresses and file indices do not agree modulo 2 MiB: the colour of the mapping differs.
    AddressMisaligned,
    /// Smaller entries exist in the block. They are never evicted to make room (I-31).
    SmallerEntries,
    /// The extent does not cover the block, because the file ends in it, has a hole in it, or is
    /// fragmented there.
    ExtentTooShort,
    /// The extent covers the block, but does not start at a multiple of 2 MiB of its page map.
    DeviceMisaligned,
    /// Some of its pages are counted on their own, or poisoned.
    PagesBusy,
}

const ALL: [Fallback; 6] = [
    Fallback::RangeTooShort,
    Fallback::AddressMisaligned,
    Fallback::SmallerEntries,
    Fallback::ExtentTooShort,
    Fallback::DeviceMisaligned,
    Fallback::PagesBusy,
];

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fallback::RangeTooShort => "the range does not contain the 2 MiB block",
            Fallback::AddressMisaligned => "the addresses are not congruent to the file",
            Fallback::SmallerEntries => "smaller entries exist in the block",
            Fallback::ExtentTooShort => "the extent does not cover the block",
            Fallback::DeviceMisaligned => "the extent is not aligned on the device",
            Fallback::PagesBusy => "pages of the block are in use on their own",
        })
    }
}

/// How many faults of a file were served in each way.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fallbacks {
    /// Faults served from a 2 MiB folio as a whole.
    pub huge: u64,
    counts: [u64; ALL.len()],
}

impl Fallbacks {
    /// How often faults fell back for `reason`.
    pub fn count(&self, reason: Fallback) -> u64 {
        self.counts[slot(reason)]
    }

    /// Every reason that was met, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (Fallback, u64)> + '_ {
        ALL.into_iter().zip(self.counts).filter(|&(_, count)| count > 0)
    }
}

/// The counters behind [`Fallbacks`]. Independent facts, so relaxed atomics do.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    huge: AtomicU64,
    counts: [AtomicU64; ALL.len()],
}

impl Counters {
    pub(crate) fn count_huge(&self) {
        self.huge.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, reason: Fallback) {
        self.counts[slot(reason)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Fallbacks {
        Fallbacks {
            huge: self.huge.load(Ordering::Relaxed),
            counts: self.counts.each_ref().map(|count| count.load(Ordering::Relaxed)),
        }
    }
}

fn slot(reason: Fallback) -> usize {
    ALL.iter().position(|&other| other == reason).expect("every reason is listed")
}
