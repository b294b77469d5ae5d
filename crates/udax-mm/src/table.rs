//! The words of a page map in three levels: per page, per 2 MiB block, per 1 GiB block.
//!
//! This file keeps the levels in agreement (protocol, rule 4): a word that is not idle is counted
//! in the block above, before it leaves idle and until after it is idle again. It does not know
//! media, nor handles.

use crate::block::{Block, Run};
use crate::pgmap::RequestError;
use crate::poisoned::Poisoned;
use crate::sync::thread;
use crate::units::{Order, Pages, PgmapOff};
use crate::value::Value;
use crate::word::{Acquired, Cleared, First, Lower, Mark, PageWord, Raise, Retire};
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

    /// The words of blocks side by side.
    #[inline]
    pub(crate) fn words(&self, run: Run) -> &[PageWord] {
        let first = index(run.first().number());
        &self.levels[run.first().level()][first..first + index(run.len())]
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

    /// Claims blocks, each as a whole, up to the first that is not idle. Returns how many.
    #[must_use]
    pub(crate) fn claim(&self, run: Run) -> u64 {
        self.take(run, PageWord::claim)
    }

    /// Makes the block a folio with one reference. Returns whether it was idle.
    #[inline]
    #[must_use]
    pub(crate) fn request(&self, block: Block) -> bool {
        self.take(Run::of(block), |word| word.request(self.first)) == 1
    }

    /// Takes one reference of each block, the first or one more, up to the first that is neither
    /// idle nor counted as one folio. Returns how many.
    #[must_use]
    pub(crate) fn acquire(&self, run: Run) -> u64 {
        if !self.raise_above(run) {
            return 0;
        }
        let (mut acquired, mut requested) = (0, 0);
        for word in self.words(run) {
            match word.acquire(self.first) {
                Acquired::Requested => requested += 1,
                Acquired::Got => (),
                Acquired::Refused => break,
            }
            acquired += 1;
        }
        // Somebody has raised the block for the others already.
        self.lower_above(run.first(), run.len() - requested);
        acquired
    }

    /// What a word of this page map holds from the moment that it is counted.
    pub(crate) fn first(&self) -> First {
        self.first
    }

    /// Takes blocks up to the first that refuses. Returns how many.
    #[inline]
    fn take(&self, run: Run, take: impl Fn(&PageWord) -> bool) -> u64 {
        if !self.raise_above(run) {
            return 0;
        }
        let taken = number(self.words(run).iter().take_while(|word| take(word)).count());
        if taken < run.len() {
            self.lower_above(run.first(), run.len() - taken);
        }
        taken
    }

    /// Gives up the claim of `pages`, which are claimed in whole leaves.
    pub(crate) fn retire(&self, pages: Range<PgmapOff>) {
        let mut at = pages.start;
        while at < pages.end {
            let (block, _) = self.leaf(at);
            assert!(block.head() == at && block.end() <= pages.end, "a claim covers whole leaves");
            at = match block.order() {
                Order::Base => self.retire_pages(Run::within(&(at..pages.end), Order::Base)),
                order => self.retire_blocks(Run::within(&(at..pages.end), order)),
            };
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

    /// `block` and others beside it, `children` in all, returned to idle: lowers the parent, then
    /// the grandparent.
    #[inline]
    pub(crate) fn lower_above(&self, block: Block, children: u64) {
        let (mut above, mut children) = (block.parent(), children);
        while let Some(block) = above
            && children > 0
            && let Lower::Idle = self.word(block).lower(children)
        {
            (above, children) = (block.parent(), 1);
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
                self.lower_above(leaf, 1);
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
        if !self.raise_above(Run::of(page)) {
            return Mark::Changed;
        }
        let mark = self.word(page).poison_idle();
        if let Mark::Changed = mark {
            self.lower_above(page, 1);
        }
        mark
    }

    /// The blocks are about to leave idle: raises the grandparent, then the parent. Refuses, with
    /// nothing changed, if one of them is held as a whole.
    #[inline]
    fn raise_above(&self, run: Run) -> bool {
        match run.first().parent() {
            None => true,
            Some(parent) => {
                self.word(parent).raise_split(run.len()) || self.raise_idle(parent, run.len())
            }
        }
    }

    /// Raises `block`, which was not split a moment ago, after what is above it.
    fn raise_idle(&self, block: Block, children: u64) -> bool {
        if let Some(parent) = block.parent()
            && let Raise::Refused = self.word(parent).raise(1)
        {
            return false;
        }
        match self.word(block).raise(children) {
            Raise::First => true,
            Raise::Again => {
                self.lower_above(block, 1);
                true
            }
            Raise::Refused => {
                self.lower_above(block, 1);
                false
            }
        }
    }

    /// Gives up the claim of single pages. Returns where they end.
    fn retire_pages(&self, run: Run) -> PgmapOff {
        let is_idle = |word: &&PageWord| matches!(word.retire_page(), Retire::Idle);
        let idle = self.words(run).iter().filter(is_idle).count();
        self.lower_above(run.first(), number(idle));
        run.end()
    }

    /// Gives up the claims of blocks, up to the first that is divided. Returns where they end.
    fn retire_blocks(&self, run: Run) -> PgmapOff {
        let mut retired = 0;
        let mut last = Retire::Idle;
        for word in self.words(run) {
            last = word.retire_block();
            match last {
                Retire::Idle => retired += 1,
                Retire::Poisoned | Retire::Split => break,
            }
        }
        self.lower_above(run.first(), retired);
        if let Retire::Poisoned = last {
            self.split_leaf(run.nth(retired));
        }
        run.nth(retired).head()
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

/// A count of words in the type of page numbers.
#[inline]
fn number(count: usize) -> u64 {
    u64::try_from(count).expect("usize has at most 64 bits")
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
            assert!(table.claim(Run::within(&block.pages(), Order::Base)) == Order::Pmd.pages().0);
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
        assert!(table.claim(Run::within(&block.pages(), Order::Base)) == Order::Pmd.pages().0);
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

    #[test]
    fn a_claim_is_given_up_whatever_its_blocks_have_become() {
        let blocks = Run::within(&PgmapOff(0).span(Order::Pud.pages()), Order::Pmd);
        let table = Table::new(Order::Pud.pages(), First::FOLIO).expect("memory for 2^18 words");
        assert!(table.claim(blocks) == blocks.len());
        table.split(blocks.nth(2).pages(), Order::Base);
        let failed = blocks.nth(5).head();
        table.poison(failed);

        table.retire(blocks.first().head()..blocks.end());

        let busy = table.leaves(blocks.first().head()..blocks.end());
        let busy = busy.filter(|(_, value)| !value.is_idle()).map(|(leaf, _)| leaf.head());
        assert_eq!(busy.collect::<Vec<_>>(), [failed]);
        assert!(matches!(table.clear_poison(failed), Cure::Done));
        let above = Block::covering(failed, Order::Pud);
        assert!(table.word(above).load().is_idle(), "rule 4: no child is busy, so it is not");
    }
}
