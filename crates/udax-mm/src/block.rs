//! Blocks: the pages that one word speaks of.
//!
//! This file owns their arithmetic: which block covers a page, what lies above and below.

use crate::units::{FANOUT_BITS, Order, PgmapOff};
use std::fmt;
use std::ops::Range;

/// The words below one split word: pages of a 2 MiB block, or 2 MiB blocks of a 1 GiB block.
pub(crate) const FANOUT: u64 = 1 << FANOUT_BITS;

const LEVEL_BITS: u32 = 2;
const LEVEL: u64 = (1 << LEVEL_BITS) - 1;

/// A page, a 2 MiB block or a 1 GiB block: its number among those of its order, above two bits for
/// the [level](Order::level). One word, so that a folio is two and travels in registers.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct Block(u64);

impl Block {
    /// The block of `order` that covers `at`.
    #[inline]
    pub(crate) const fn covering(at: PgmapOff, order: Order) -> Block {
        Block::numbered(at.0 >> order.get(), order)
    }

    #[inline]
    const fn numbered(number: u64, order: Order) -> Block {
        Block(number << LEVEL_BITS | order.level())
    }

    /// How many blocks of its order lie before it.
    #[inline]
    pub(crate) const fn number(self) -> u64 {
        self.0 >> LEVEL_BITS
    }

    /// The level of its order.
    #[inline]
    pub(crate) fn level(self) -> usize {
        usize::try_from(self.0 & LEVEL).expect("two bits")
    }

    #[inline]
    pub(crate) const fn order(self) -> Order {
        match self.0 & LEVEL {
            0 => Order::Base,
            1 => Order::Pmd,
            _ => Order::Pud,
        }
    }

    #[inline]
    pub(crate) const fn head(self) -> PgmapOff {
        PgmapOff(self.number() << self.order().get())
    }

    #[inline]
    pub(crate) const fn pages(self) -> Range<PgmapOff> {
        self.head().span(self.order().pages())
    }

    #[inline]
    pub(crate) const fn end(self) -> PgmapOff {
        self.pages().end
    }

    /// The block one level above; none above 1 GiB.
    #[inline]
    pub(crate) const fn parent(self) -> Option<Block> {
        match self.order().larger() {
            Some(order) => Some(Block::numbered(self.number() >> FANOUT_BITS, order)),
            None => None,
        }
    }

    /// The blocks one level below; none below a page.
    pub(crate) fn children(self) -> impl Iterator<Item = Block> {
        let first = self.number() << FANOUT_BITS;
        let children =
            move |order| (first..first + FANOUT).map(move |number| Block::numbered(number, order));
        self.order().smaller().into_iter().flat_map(children)
    }
}

/// Blocks of one order side by side, with one block above: their words lie side by side, and one
/// word counts them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    first: Block,
    len: u64,
}

impl Run {
    /// The blocks of `order` from the first of `pages` on, as far as they end within `pages` and
    /// have one parent.
    #[inline]
    pub(crate) fn within(pages: &Range<PgmapOff>, order: Order) -> Run {
        let first = Block::covering(pages.start, order);
        let end = first.parent().map_or(pages.end, |parent| parent.end().min(pages.end));
        Run { first, len: (end.0 - first.head().0) >> order.get() }
    }

    /// One block.
    #[inline]
    pub(crate) const fn of(block: Block) -> Run {
        Run { first: block, len: 1 }
    }

    #[inline]
    pub(crate) const fn first(self) -> Block {
        self.first
    }

    /// The number of blocks.
    #[inline]
    pub(crate) const fn len(self) -> u64 {
        self.len
    }

    /// The block that `nr` blocks lie before.
    #[inline]
    pub(crate) const fn nth(self, nr: u64) -> Block {
        Block::numbered(self.first.number() + nr, self.first.order())
    }

    /// The end of the last block.
    #[inline]
    pub(crate) const fn end(self) -> PgmapOff {
        self.nth(self.len).head()
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the block of order {} at page {}", self.order(), self.head())
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, FANOUT, Run};
    use crate::units::{Order, Pages, PgmapOff};

    #[test]
    fn a_block_knows_its_pages_and_its_neighbours_above_and_below() {
        let at = PgmapOff((1 << 20) + 513);
        for order in Order::ALL {
            let block = Block::covering(at, order);
            assert_eq!((block.order(), block.head()), (order, at.align_down(order)));
            assert_eq!(block.end(), block.head() + order.pages());
            let parent = order.larger().map(|order| Block::covering(at, order));
            assert_eq!(block.parent(), parent);
        }
    }

    #[test]
    fn children_follow_one_another_and_have_one_parent() {
        let block = Block::covering(PgmapOff(3 << 18), Order::Pud);
        let mut next = block.head();
        for child in block.children() {
            assert_eq!((child.head(), child.parent()), (next, Some(block)));
            next = child.end();
        }
        assert_eq!(next, block.end());
        let (page, none) = (Block::covering(next, Order::Base), Pages(0));
        assert_eq!(page.children().count(), usize::try_from(none.0).unwrap());
        assert_eq!(u64::try_from(block.children().count()), Ok(FANOUT));
    }

    #[test]
    fn a_run_ends_with_its_pages_or_with_the_block_above() {
        let cases = [
            (Order::Base, 510..2000, 510..512),
            (Order::Base, 512..520, 512..520),
            (Order::Base, 7..7, 7..7),
            (Order::Pmd, 512..2000, 512..1536),
            (Order::Pmd, (1 << 18) - 512..1 << 19, (1 << 18) - 512..1 << 18),
            (Order::Pud, 0..3 << 18, 0..3 << 18),
        ];
        for (order, pages, expected) in cases {
            let run = Run::within(&(PgmapOff(pages.start)..PgmapOff(pages.end)), order);
            assert_eq!(
                run.first().head()..run.end(),
                PgmapOff(expected.start)..PgmapOff(expected.end)
            );
            assert_eq!(run.nth(0), run.first());
            assert_eq!(run.len() * order.pages().0, expected.end - expected.start);
        }
    }
}
