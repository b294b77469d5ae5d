//! One entry of the index as one number, like a value of the kernel's `XArray`.
//!
//! Owns the encoding. What may happen to an entry is in [`Index`](super::Index).

use std::fmt;
use udax_mm::{Order, PgmapOff};

/// An entry: its lock, its size, what it stands for and its marks.
///
/// | bits | meaning |
/// |---|---|
/// | 0 | LOCKED: somebody faults, pins or writes back the block |
/// | 1, 2 | the order: 0, 9 or 18 |
/// | 3, 4 | the kind: empty, zero or real; nothing else has a zero here |
/// | 5 | DIRTY: there may be stores that no writeback has flushed |
/// | 6 | TOWRITE: a writeback has found it dirty and has not come by yet |
/// | 7 | of a real entry, SHARED: another file may have the folio too, so nobody stores to it |
/// | 8 to 19 | of a real entry: the page map, as the index numbers them |
/// | 20 to 63 | of a real entry: the first page |
///
/// No bit says who counts the folio: an entry holds no reference (I-15).
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub(super) struct Word(u64);

/// What an entry stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Nothing: a place for the lock while the owner is asked.
    Empty,
    /// A hole that is shown as zeros.
    Zero,
    /// A folio.
    Real,
}

const LOCKED: u64 = 1 << 0;
const ORDER: u32 = 1;
const KIND: u32 = 3;
const DIRTY: u64 = 1 << 5;
const TOWRITE: u64 = 1 << 6;
const SHARED: u64 = 1 << 7;
const PGMAP: u32 = 8;
const FIRST: u32 = 20;

/// The page maps that one file can lie on.
pub(super) const PGMAPS: u64 = 1 << (FIRST - PGMAP);

impl Word {
    /// A locked place with nothing in it.
    pub(super) fn locked(order: Order) -> Word {
        Word(LOCKED | code(order) << ORDER | 1 << KIND)
    }

    /// A hole, unlocked.
    pub(super) fn zero(order: Order) -> Word {
        Word(code(order) << ORDER | 2 << KIND)
    }

    /// A folio that starts at page `first` of page map number `pgmap`, unlocked and clean.
    pub(super) fn real(order: Order, pgmap: u64, first: PgmapOff) -> Word {
        assert!(pgmap < PGMAPS, "index: a file lies on at most {PGMAPS} page maps");
        assert!(first.0 < 1 << (64 - FIRST), "index: a page map has fewer than 2^44 pages");
        Word(code(order) << ORDER | 3 << KIND | pgmap << PGMAP | first.0 << FIRST)
    }

    /// Whether there is no entry.
    pub(super) fn is_absent(self) -> bool {
        self.0 == 0
    }

    pub(super) fn order(self) -> Order {
        match self.0 >> ORDER & 3 {
            0 => Order::Base,
            1 => Order::Pmd,
            _ => Order::Pud,
        }
    }

    pub(super) fn kind(self) -> Kind {
        match self.0 >> KIND & 3 {
            2 => Kind::Zero,
            3 => Kind::Real,
            _ => Kind::Empty,
        }
    }

    /// The number of the page map, and the first page there.
    pub(super) fn place(self) -> Option<(u64, PgmapOff)> {
        let is_real = self.kind() == Kind::Real;
        is_real.then_some((self.0 >> PGMAP & (PGMAPS - 1), PgmapOff(self.0 >> FIRST)))
    }

    pub(super) fn is_locked(self) -> bool {
        self.0 & LOCKED != 0
    }

    pub(super) fn is_dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    pub(super) fn is_to_write(self) -> bool {
        self.0 & TOWRITE != 0
    }

    pub(super) fn is_shared(self) -> bool {
        self.0 & SHARED != 0
    }

    #[must_use]
    pub(super) fn with_lock(self, is_locked: bool) -> Word {
        self.with(LOCKED, is_locked)
    }

    /// # Panics
    ///
    /// Panics if anything but a folio becomes dirty (I-30), or one that is shared (I-36).
    #[must_use]
    pub(super) fn with_dirty(self, is_dirty: bool) -> Word {
        assert!(!is_dirty || self.kind() == Kind::Real, "I-30: only a folio is dirty");
        assert!(!is_dirty || !self.is_shared(), "I-36: nobody stores to what is shared");
        self.with(DIRTY, is_dirty)
    }

    #[must_use]
    pub(super) fn with_to_write(self, is_to_write: bool) -> Word {
        self.with(TOWRITE, is_to_write)
    }

    /// # Panics
    ///
    /// Panics if more than a page becomes shared: each page stops being so on its own (I-36).
    #[must_use]
    pub(super) fn with_shared(self, is_shared: bool) -> Word {
        assert!(!is_shared || self.order() == Order::Base, "I-36: a page is shared, not a block");
        self.with(SHARED, is_shared)
    }

    /// `other` with the marks of this entry: a part of it that stays behind.
    #[must_use]
    pub(super) fn like(self, other: Word) -> Word {
        other.with_dirty(self.is_dirty()).with_to_write(self.is_to_write())
    }

    fn with(self, bit: u64, is_set: bool) -> Word {
        Word(if is_set { self.0 | bit } else { self.0 & !bit })
    }
}

fn code(order: Order) -> u64 {
    match order {
        Order::Base => 0,
        Order::Pmd => 1,
        Order::Pud => 2,
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_absent() {
            return f.write_str("Word(absent)");
        }
        f.debug_struct("Word")
            .field("kind", &self.kind())
            .field("order", &self.order())
            .field("place", &self.place())
            .field("is_locked", &self.is_locked())
            .field("is_dirty", &self.is_dirty())
            .field("is_to_write", &self.is_to_write())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, PGMAPS, Word};
    use udax_mm::{Order, PgmapOff};

    #[test]
    fn an_entry_survives_its_encoding() {
        let last = PgmapOff((1 << 44) - 1);
        for order in Order::ALL {
            for (pgmap, first) in [(0, PgmapOff(0)), (1, PgmapOff(512)), (PGMAPS - 1, last)] {
                let word = Word::real(order, pgmap, first);
                let marked = word.with_lock(true).with_dirty(true).with_to_write(true);

                assert_eq!((word.order(), word.kind()), (order, Kind::Real));
                assert_eq!(marked.place(), Some((pgmap, first)), "F-18");
                assert!(marked.is_locked() && marked.is_dirty() && marked.is_to_write());
                let bare = marked.with_lock(false).with_dirty(false).with_to_write(false);
                assert_eq!(bare, word);
            }
            assert_eq!((Word::zero(order).order(), Word::zero(order).kind()), (order, Kind::Zero));
            let locked = Word::locked(order);
            assert_eq!((locked.order(), locked.kind()), (order, Kind::Empty));
            assert!(locked.is_locked() && !locked.is_absent() && locked.place().is_none());
        }
        assert!(Word::default().is_absent());
    }

    #[test]
    fn what_is_shared_survives_the_encoding_of_its_entry() {
        for (pgmap, first) in [(0, PgmapOff(0)), (PGMAPS - 1, PgmapOff((1 << 44) - 1))] {
            let word = Word::real(Order::Base, pgmap, first);
            let shared = word.with_shared(true).with_lock(true).with_to_write(true);

            assert!(shared.is_shared() && !word.is_shared() && !shared.is_dirty(), "I-36");
            assert_eq!((shared.order(), shared.kind()), (Order::Base, Kind::Real));
            assert_eq!(shared.place(), Some((pgmap, first)), "F-18");
            let bare = shared.with_shared(false).with_lock(false).with_to_write(false);
            assert_eq!(bare, word);
        }
    }
}
