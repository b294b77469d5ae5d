//! How much one fault of a lazy mapping brings in.
//!
//! Owns the guess: a program that touches one window after the other gets larger ones, as
//! readahead does in the kernel. Nothing depends on it being right.

use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::{FileIndex, Order, Pages};

/// The window of a lone fault for reading in order 0: 64 KiB, as `fault_around_bytes` in the
/// kernel.
const AROUND: u64 = 16;
/// The largest window in order 0.
const MOST_PAGES: u64 = 512;
/// The largest window in larger orders: 64 MiB.
const MOST: u64 = 32 * 512;

/// Where the last fault ended, and how many windows came one after the other.
///
/// Two independent facts: a torn pair is a wrong guess, and costs a smaller window.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    next: AtomicU64,
    streak: AtomicU64,
}

impl Stream {
    /// Up to where a fault at `index` maps data, which a folio of `order` serves.
    ///
    /// A store makes every page that is mapped dirty, so a lone one gets its folio alone.
    pub(crate) fn fault_around(
        &self,
        index: FileIndex,
        order: Order,
        stores_to_file: bool,
    ) -> FileIndex {
        let streak = if self.next.load(Ordering::Relaxed) == index.0 {
            self.streak.load(Ordering::Relaxed) + 1
        } else {
            0
        };
        let (first, most) = match order {
            Order::Base if stores_to_file => (1, MOST_PAGES),
            Order::Base => (AROUND, MOST_PAGES),
            larger => (larger.pages().0, MOST.max(larger.pages().0)),
        };
        let doublings = u32::try_from(streak.min(16)).expect("at most 16");
        let window = (first << doublings).min(most);
        // Windows are aligned, so that a stream stays on the boundaries of folios.
        let end = FileIndex((index + Pages(1)).0.next_multiple_of(window));
        self.next.store(end.0, Ordering::Relaxed);
        self.streak.store(streak, Ordering::Relaxed);
        end
    }
}

#[cfg(test)]
mod tests {
    use super::Stream;
    use udax_mm::{FileIndex, Order};

    #[test]
    fn a_sequential_reader_gets_ever_larger_windows_and_others_do_not() {
        let stream = Stream::default();
        let pmd = |index: u64| stream.fault_around(FileIndex(index), Order::Pmd, false).0;

        assert_eq!([pmd(5120), pmd(5632)], [5632, 6144], "2 MiB, then 4 MiB, aligned");
        assert_eq!(pmd(6144), 8192);
        assert_eq!(pmd(512), 1024, "another place starts over");
    }

    #[test]
    fn a_lone_store_makes_no_other_page_dirty() {
        let stream = Stream::default();
        assert_eq!(stream.fault_around(FileIndex(70), Order::Base, true), FileIndex(71));
        assert_eq!(stream.fault_around(FileIndex(3), Order::Base, false), FileIndex(16));
    }
}
