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

/// Two that are mapped and change their layout, and one that is frozen.
pub(crate) const FILES: usize = 3;

/// The one that is frozen.
pub(crate) const COLD: usize = 2;

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
    /// Pages that the file shares when the round begins, or may come to share: it may move away
    /// from them.
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

    /// Whether the file may share some of `bytes` at some time in the round.
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

    pub(crate) fn get(&self, byte: u64) -> Option<u8> {
        self.bytes[Cells::place(byte)]
    }

    /// Sets what a byte of this thread holds. Returns what it did before.
    pub(crate) fn replace(&mut self, byte: u64, to: Option<u8>) -> Option<u8> {
        std::mem::replace(&mut self.bytes[Cells::place(byte)], to)
    }

    /// Sets those of the bytes that are this thread's; None if they may be anything.
    pub(crate) fn set(&mut self, range: Range<u64>, to: Option<u8>) {
        for byte in self.own(range) {
            self.replace(byte, to);
        }
    }

    /// Those of the bytes that are this thread's.
    pub(crate) fn own(&self, range: Range<u64>) -> impl Iterator<Item = u64> + use<> {
        let (thread, group) = (self.thread, CELL * THREADS);
        let groups = range.start / group..range.end.div_ceil(group);
        groups.flat_map(move |number| {
            let cell = number * group + thread * CELL;
            cell.max(range.start)..(cell + CELL).min(range.end)
        })
    }

    fn place(byte: u64) -> usize {
        us(byte / (CELL * THREADS) * CELL + byte % CELL)
    }
}
