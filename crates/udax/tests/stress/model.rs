//! What one thread knows of the bytes that are its own.

use std::collections::BTreeSet;
use std::ops::Range;

/// Threads that run at once.
pub(crate) const THREADS: u64 = 4;

/// Bytes in a page.
pub(crate) const PAGE: u64 = 4096;

/// Bytes that belong together.
pub(crate) const CELL: u64 = 64;

/// The pages of a file at most: two large pages, and some.
pub(crate) const PAGES: u64 = 1100;

/// Where most operations fall.
pub(crate) const NEAR: u64 = 40;

/// Where the layout of a file may change in this round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone {
    /// In pages.
    pub(crate) pages: Range<u64>,
    /// The file may end there, and not only have holes.
    pub(crate) is_tail: bool,
    /// Pages whose memory may have failed in this round, or fails in it.
    pub(crate) failing: BTreeSet<u64>,
    /// What such a page is overwritten with.
    pub(crate) fill: u8,
    /// Pages that the file shares when the round begins: it may move away from them.
    pub(crate) shared: BTreeSet<u64>,
}

/// The cells of one thread in one file. A byte that is `None` may be anything.
#[derive(Debug)]
pub(crate) struct Cells {
    thread: u64,
    bytes: Vec<Option<u8>>,
}

/// An index for a slice.
pub(crate) fn us(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

pub(crate) fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap()
}

fn pages_of(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / PAGE..bytes.end.div_ceil(PAGE)
}

impl Zone {
    pub(crate) fn contains(&self, byte: u64) -> bool {
        self.pages.contains(&(byte / PAGE))
    }

    /// Whether memory of some of `bytes` may have failed.
    pub(crate) fn may_fail(&self, bytes: &Range<u64>) -> bool {
        !bytes.is_empty() && self.failing.range(pages_of(bytes)).next().is_some()
    }

    /// Whether the file shares some of `bytes`, or did when the round began.
    pub(crate) fn may_share(&self, bytes: &Range<u64>) -> bool {
        !bytes.is_empty() && self.shared.range(pages_of(bytes)).next().is_some()
    }

    pub(crate) fn overlaps(&self, bytes: &Range<u64>) -> bool {
        self.pages.start * PAGE < bytes.end && bytes.start < self.pages.end * PAGE
    }

    /// Whether the file may end before some of `bytes`.
    pub(crate) fn may_end_before(&self, bytes: &Range<u64>) -> bool {
        self.is_tail && self.overlaps(bytes)
    }
}

impl Cells {
    pub(crate) fn new(thread: u64) -> Cells {
        Cells { thread, bytes: vec![Some(0); us(PAGES * PAGE / THREADS)] }
    }

    /// The bytes of a thread around `byte`: its cell among the four there.
    pub(crate) fn cell(thread: u64, byte: u64) -> u64 {
        byte / (CELL * THREADS) * (CELL * THREADS) + thread * CELL
    }

    /// Whose byte it is.
    pub(crate) fn owner(byte: u64) -> u64 {
        byte / CELL % THREADS
    }

    pub(crate) fn is_own(&self, byte: u64) -> bool {
        Cells::owner(byte) == self.thread
    }

    pub(crate) fn get(&mut self, byte: u64) -> &mut Option<u8> {
        &mut self.bytes[us(byte / (CELL * THREADS) * CELL + byte % CELL)]
    }

    /// Notes what was stored from `at` on.
    pub(crate) fn store(&mut self, at: u64, stored: &[u8]) {
        for (place, &byte) in (at..).zip(stored) {
            *self.get(place) = Some(byte);
        }
    }

    /// Notes that these bytes may hold anything.
    pub(crate) fn forget(&mut self, range: Range<u64>) {
        self.set(range, None);
    }

    /// The file ends, or ended for a moment, before these bytes.
    pub(crate) fn ended(&mut self, range: Range<u64>) {
        self.set(range, Some(0));
    }

    /// Sets those of the bytes that are this thread's.
    fn set(&mut self, range: Range<u64>, to: Option<u8>) {
        let thread = self.thread;
        let own = range.filter(|&place| Cells::owner(place) == thread);
        own.for_each(|place| *self.get(place) = to);
    }

    /// Compares what was found from `at` on with what is known, and learns from it. Says what is
    /// wrong.
    pub(crate) fn check(&mut self, at: u64, found: &[u8], zone: &Zone) -> Result<(), String> {
        for (place, &byte) in (at..).zip(found) {
            if !self.is_own(place) {
                continue;
            }
            let is_lost = zone.contains(place) && byte == 0;
            let is_healed = byte == zone.fill && zone.failing.contains(&(place / PAGE));
            let known = self.get(place);
            match *known {
                Some(expected) if expected != byte && !is_lost && !is_healed => {
                    let thread = self.thread;
                    return Err(format!(
                        "byte {place} (page {}) of thread {thread} is {byte} and should be \
                         {expected}; zone {zone:?}",
                        place / PAGE
                    ));
                }
                _ => *known = Some(byte),
            }
        }
        Ok(())
    }
}
