//! The words of a page map in three levels: per page, per 2 MiB block, per 1 GiB block.
//!
//! This file keeps the levels in agreement (protocol, rule 4): a word that is not idle is counted
//! in the block above, before it leaves idle and until after it is idle again. It does not know
//! media, nor handles.

use crate::block::Block;
use crate::pgmap::RequestError;
use crate::poisoned::Poisoned;
use crate::sync::thread;
use crate::units::{Order, Pages, PgmapOff};
use crate::value::Value;
use crate::word::{Cleared, First, Lower, Mark, PageWord, Raise, Retire};
use std::ops::Range;

/// The words of one page map.
pub(crate) struct Table {
    /// By [`Block::level`]; the last one is empty.
    levels: [Vec<PageWord>; 4],
    size: Pages,
    first: First,
    /// The poisoned pages. A word says so too: that of the page, or that of the whole block that
    /// covers it. Locked whenever a mark moves from one word to another.
    poisoned: Poisoned,
}

/// Where the end of a poison leaves the page.
#[must_use]
pub(crate) enum Cure {
    /// Nothing is left to do.
    Done,
    /// The caller holds the claim of this page, which somebody deferred.
    Claimed(Block),
    /// The caller holds the claim of this page, which was put last and goes to the driver.
    Left(Block),
}

impl Table {
    /// Every page idle; counted words start as `first`. None if the host has no memory for them.
    pub(crate) fn new(size: Pages, first: First) -> Option<Table> {
        let words = |order: Order| PageWord::idle(index(size.0.div_ceil(order.pages().0)));
        let [base, pmd, pud] = Order::ALL.map(words);
        Some(Table {
            levels: [base?, pmd?, pud?, Vec::new()],
            size,
            first,
            poisoned: Poisoned::new(),
        })
    }

    pub(crate) fn size(&self) -> Pages {
        self.size
    }

    #[inline]
    pub(crate) fn word(&self, block: Block) -> &PageWord {
        &self.levels[block.level()][index(block.number())]
    }

    /// The word that speaks of `at`, and what it holds: never a split one.
    #[inline]
    pub(crate) fn leaf(&self, at: PgmapOff) -> (Block, Value) {
        for order in [Order::Pud, Order::Pmd] {
            let block = Block::covering(at, order);
            let value = self.word(block).load();
            if !value.is_split() {
                return (block, value);
            }
        }
        let page = Block::covering(at, Order::Base);
        (page, self.word(page).load())
    }

    /// The leaves that cover `pages`, in order; the first and the last may stand out.
    pub(crate) fn leaves(
        &self,
        pages: Range<PgmapOff>,
    ) -> impl Iterator<Item = (Block, Value)> + '_ {
        let mut at = pages.start;
        std::iter::from_fn(move || {
            let leaf = (at < pages.end).then(|| self.leaf(at))?;
            at = leaf.0.end();
            Some(leaf)
        })
    }

    /// Claims the block as a whole. Returns whether it was idle.
    #[must_use]
    pub(crate) fn claim(&self, block: Block) -> bool {
        self.take(block, PageWord::claim)
    }

    /// Makes the block a folio with one reference. Returns whether it was idle.
    #[must_use]
    pub(crate) fn request(&self, block: Block) -> bool {
        self.take(block, |word| word.request(self.first))
    }

    /// What a word of this page map holds from the moment that it is counted.
    pub(crate) fn first(&self) -> First {
        self.first
    }

    #[inline]
    fn take(&self, block: Block, take: impl Fn(&PageWord) -> bool) -> bool {
        if !self.raise_above(block) {
            return false;
        }
        let taken = take(self.word(block));
        if !taken {
            self.lower_above(block);
        }
        taken
    }

    /// Gives up the claim of `pages`, which are claimed in whole leaves.
    pub(crate) fn retire(&self, pages: Range<PgmapOff>) {
        let mut at = pages.start;
        while at < pages.end {
            let (block, _) = self.leaf(at);
            assert!(block.head() == at && block.end() <= pages.end, "a claim covers whole leaves");
            self.retire_leaf(block);
            at = block.end();
        }
    }

    /// Divides the claimed leaves that cover `pages` until none is larger than `order`.
    pub(crate) fn split(&self, pages: Range<PgmapOff>, order: Order) {
        let mut at = pages.start;
        while at < pages.end {
            let (block, _) = self.leaf(at);
            if block.order() > order {
                self.split_leaf(block);
            } else {
                at = block.end();
            }
        }
    }

    /// Divides claimed leaves until one starts at `at`.
    pub(crate) fn split_at(&self, at: PgmapOff) {
        loop {
            let (block, _) = self.leaf(at);
            if block.head() == at {
                return;
            }
            self.split_leaf(block);
        }
    }

    /// Makes `block`, all of whose pages the caller has claimed, one leaf.
    pub(crate) fn join(&self, block: Block) -> Result<(), RequestError> {
        if block.order() == Order::Base || self.leaf(block.head()).0.order() >= block.order() {
            return Ok(());
        }
        for child in block.children() {
            self.join(child)?;
        }
        let poisoned = self.poisoned.lock();
        if let Some(&page) = poisoned.range(block.pages()).next() {
            return Err(RequestError::Poisoned(page));
        }
        while !self.word(block).join() {
            // Somebody raised the block, met our claims below, and is about to lower it again.
            thread::yield_now();
        }
        block.children().for_each(|child| self.word(child).set_claimed(false));
        Ok(())
    }

    /// One child of the blocks above `block` returned to idle: parent, then grandparent.
    #[inline]
    pub(crate) fn lower_above(&self, block: Block) {
        let mut above = block.parent();
        while let Some(block) = above
            && let Lower::Idle = self.word(block).lower()
        {
            above = block.parent();
        }
    }

    /// Marks a page, whoever holds it.
    pub(crate) fn poison(&self, at: PgmapOff) {
        let mut poisoned = self.poisoned.lock();
        poisoned.insert(at);
        while let Mark::Changed = self.try_poison(at) {
            thread::yield_now();
        }
    }

    /// Takes the mark of a page back.
    pub(crate) fn clear_poison(&self, at: PgmapOff) -> Cure {
        let mut poisoned = self.poisoned.lock();
        if !poisoned.remove(&at) {
            return Cure::Done;
        }
        let (leaf, _) = self.leaf(at);
        if leaf.order() > Order::Base {
            // The word stays marked for other pages; when the block is retired, they are looked up.
            return Cure::Done;
        }
        match self.word(leaf).clear_poison() {
            Cleared::Held => Cure::Done,
            Cleared::Idle => {
                self.lower_above(leaf);
                Cure::Done
            }
            Cleared::Claimed => Cure::Claimed(leaf),
            Cleared::Left => Cure::Left(leaf),
        }
    }

    /// The poisoned pages, in order.
    pub(crate) fn poisoned(&self) -> Vec<PgmapOff> {
        self.poisoned.lock().iter().copied().collect()
    }

    /// The first poisoned page of `pages`.
    pub(crate) fn first_poisoned(&self, pages: Range<PgmapOff>) -> Option<PgmapOff> {
        self.poisoned.first(pages)
    }

    fn try_poison(&self, at: PgmapOff) -> Mark {
        let (leaf, value) = self.leaf(at);
        if !value.is_idle() {
            return self.word(leaf).poison_held();
        }
        let page = Block::covering(at, Order::Base);
        if !self.raise_above(page) {
            return Mark::Changed;
        }
        let mark = self.word(page).poison_idle();
        if let Mark::Changed = mark {
            self.lower_above(page);
        }
        mark
    }

    /// One child of the blocks above `block` is about to leave idle: grandparent, then parent.
    /// Refuses, with nothing changed, if one of them is held as a whole.
    #[inline]
    fn raise_above(&self, block: Block) -> bool {
        match block.parent() {
            None => true,
            Some(parent) => self.word(parent).raise_split() || self.raise_idle(parent),
        }
    }

    /// Raises `block`, which was not split a moment ago, after what is above it.
    fn raise_idle(&self, block: Block) -> bool {
        if let Some(parent) = block.parent()
            && let Raise::Refused = self.word(parent).raise()
        {
            return false;
        }
        match self.word(block).raise() {
            Raise::First => true,
            Raise::Again => {
                self.lower_above(block);
                true
            }
            Raise::Refused => {
                self.lower_above(block);
                false
            }
        }
    }

    fn retire_leaf(&self, block: Block) {
        let word = self.word(block);
        let retire =
            if block.order() == Order::Base { word.retire_page() } else { word.retire_block() };
        match retire {
            Retire::Idle => self.lower_above(block),
            Retire::Poisoned if block.order() == Order::Base => (),
            Retire::Poisoned => {
                self.split_leaf(block);
                self.retire(block.pages());
            }
        }
    }

    /// Divides a claimed leaf into the leaves one level below.
    fn split_leaf(&self, block: Block) {
        block.children().for_each(|child| self.word(child).set_claimed(true));
        let word = self.word(block);
        if word.split() {
            return;
        }
        let poisoned = self.poisoned.lock();
        let smaller = block.order().smaller().expect("a page is not split");
        for &page in poisoned.range(block.pages()) {
            let Mark::Marked = self.word(Block::covering(page, smaller)).poison_held() else {
                unreachable!("the words below a claimed block are the caller's");
            };
        }
        word.split_poisoned();
    }

    /// Why `block` could not be taken: the first page in it that is not idle.
    #[cold]
    pub(crate) fn refusal(&self, block: Block) -> RequestError {
        let busy = self.leaves(block.pages()).find(|(_, value)| !value.is_idle());
        match busy {
            Some((leaf, value)) if value.is_only_poisoned() => {
                let failed = self.first_poisoned(leaf.pages());
                RequestError::Poisoned(failed.unwrap_or(leaf.head()))
            }
            Some((leaf, _)) => RequestError::Busy(leaf.head().max(block.head())),
            // Whoever held it has let go since.
            None => RequestError::Busy(block.head()),
        }
    }
}

/// A page number as an index of a table in memory.
#[inline]
fn index(number: u64) -> usize {
    usize::try_from(number).expect("page words are addressed with 64 bits")
}

/// Block words that change while somebody is refused, in every order that threads can take.
#[cfg(all(test, loom))]
mod races {
    use super::*;
    use crate::sync::Arc;
    use crate::sync::thread::spawn;

    /// Claimed pages become one block while a refused request has raised it: it counts 513 for a
    /// moment.
    ///
    /// Kills: `join` that does not repeat, or takes any count; a refused request that does not
    /// lower what it raised.
    #[test]
    fn pages_join_to_a_block_around_a_refused_request() {
        let mut builder = loom::model::Builder::new();
        builder.max_branches = 100_000;
        builder.check(|| {
            let table = Arc::new(Table::new(Order::Pmd.pages(), First::FOLIO).unwrap());
            let block = Block::covering(PgmapOff(0), Order::Pmd);
            assert!(block.children().all(|page| table.claim(page)));
            let refused = spawn({
                let table = Arc::clone(&table);
                move || !table.request(Block::covering(PgmapOff(1), Order::Base))
            });

            table.join(block).unwrap();

            assert!(refused.join().unwrap());
            table.retire(block.pages());
            assert!(table.word(block).load().is_idle());
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Every page of a block, claimed alone. Callers of the crate get there only if a put meets
    /// `claim_or_defer`.
    fn claimed_page_by_page() -> (Table, Block) {
        let table = Table::new(Order::Pmd.pages(), First::FOLIO).expect("memory for 513 words");
        let block = Block::covering(PgmapOff(0), Order::Pmd);
        assert!(block.children().all(|page| table.claim(page)));
        (table, block)
    }

    #[test]
    fn nothing_is_left_below_a_joined_block() {
        let (table, block) = claimed_page_by_page();
        assert_eq!(table.join(block), Ok(()));
        let (leaf, value) = table.leaf(PgmapOff(7));
        assert!(leaf == block && value.is_claimed());
        assert!(block.children().all(|page| table.word(page).load().is_idle()));
        table.retire(block.pages());
        assert!(table.leaf(PgmapOff(7)).1.is_idle());
    }

    #[test]
    fn a_block_with_a_poisoned_page_is_not_joined() {
        let (table, block) = claimed_page_by_page();
        table.poison(PgmapOff(9));
        assert_eq!(table.join(block), Err(RequestError::Poisoned(PgmapOff(9))));
        assert_eq!(table.leaf(PgmapOff(9)).0.order(), Order::Base);
    }
}
