//! Where the entries of an index are kept: one level for each order.
//!
//! Owns the storage and the look-up, and keeps I-22: entries are aligned, and none lies inside
//! another. It takes memory for what is touched: a node of 64 entries for pages, a number for each
//! larger block.

use super::word::Word;
use std::collections::BTreeMap;
use std::ops::Range;
use udax_mm::{FileIndex, Order};

/// Entries of order 0 in one node. A file is touched in runs, and a node is freed as a whole.
const NODE: u64 = 64;

/// Every entry of a file.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// By index / 64.
    pages: BTreeMap<u64, Box<Node>>,
    /// By first index.
    pmds: BTreeMap<FileIndex, Word>,
    puds: BTreeMap<FileIndex, Word>,
}

#[derive(Debug)]
struct Node {
    /// Which of the words are entries.
    used: u64,
    words: [Word; 64],
}

impl Slots {
    /// The entry that covers `index`, with its first index.
    pub(super) fn covering(&self, index: FileIndex) -> Option<(FileIndex, Word)> {
        let larger = [(Order::Pud, &self.puds), (Order::Pmd, &self.pmds)];
        for (order, blocks) in larger {
            let head = index.align_down(order);
            if let Some(&word) = blocks.get(&head) {
                return Some((head, word));
            }
        }
        let node = self.pages.get(&(index.0 / NODE))?;
        let word = node.words[slot(index)];
        (!word.is_absent()).then_some((index, word))
    }

    /// The first entry that covers an index of `range`.
    pub(super) fn first(&self, range: &Range<FileIndex>) -> Option<(FileIndex, Word)> {
        if range.is_empty() {
            return None;
        }
        self.covering(range.start).or_else(|| self.first_from(range))
    }

    /// The first entry that starts in `range`.
    fn first_from(&self, range: &Range<FileIndex>) -> Option<(FileIndex, Word)> {
        let page = self.first_page(range);
        let block = |blocks: &BTreeMap<FileIndex, Word>| {
            blocks.range(range.clone()).next().map(|(&head, &word)| (head, word))
        };
        let found = [page, block(&self.pmds), block(&self.puds)];
        found.into_iter().flatten().min_by_key(|(head, _)| *head)
    }

    fn first_page(&self, range: &Range<FileIndex>) -> Option<(FileIndex, Word)> {
        let nodes = self.pages.range(range.start.0 / NODE..=(range.end.0 - 1) / NODE);
        for (&number, node) in nodes {
            let used = node.used & within(number, range);
            if used != 0 {
                let at = u64::from(used.trailing_zeros());
                let index = FileIndex(number * NODE + at);
                return Some((index, node.words[slot(index)]));
            }
        }
        None
    }

    /// Puts an entry at `head`, or changes the one there. It has the size that `word` says.
    pub(super) fn set(&mut self, head: FileIndex, word: Word) {
        assert!(head.is_aligned(word.order()), "I-22: an entry is aligned to its size");
        match word.order() {
            Order::Pud => drop(self.puds.insert(head, word)),
            Order::Pmd => drop(self.pmds.insert(head, word)),
            Order::Base => self.pages.entry(head.0 / NODE).or_default().set(head, word),
        }
    }

    /// Removes the entry of `order` at `head`.
    pub(super) fn remove(&mut self, head: FileIndex, order: Order) {
        match order {
            Order::Pud => drop(self.puds.remove(&head)),
            Order::Pmd => drop(self.pmds.remove(&head)),
            Order::Base => self.remove_page(head),
        }
    }

    fn remove_page(&mut self, index: FileIndex) {
        let number = index.0 / NODE;
        let Some(node) = self.pages.get_mut(&number) else { return };
        node.set(index, Word::default());
        if node.used == 0 {
            self.pages.remove(&number);
        }
    }

    /// Removes every entry that overlaps `range`, and tells `removed` of each.
    pub(super) fn remove_range(
        &mut self,
        range: &Range<FileIndex>,
        mut removed: impl FnMut(FileIndex, Word),
    ) {
        if range.is_empty() {
            return;
        }
        for (order, blocks) in [(Order::Pud, &mut self.puds), (Order::Pmd, &mut self.pmds)] {
            let overlapping = range.start.align_down(order)..range.end;
            blocks
                .extract_if(overlapping, |_, _| true)
                .for_each(|(head, word)| removed(head, word));
        }
        let numbers = range.start.0 / NODE..=(range.end.0 - 1) / NODE;
        let emptied = self.pages.extract_if(numbers, |&number, node| {
            node.drain(number, range, &mut removed);
            node.used == 0
        });
        emptied.for_each(drop);
    }

    /// Calls `change` for each entry that overlaps `range`; what it returns takes its place.
    pub(super) fn update_range(
        &mut self,
        range: &Range<FileIndex>,
        mut change: impl FnMut(FileIndex, Word) -> Word,
    ) {
        if range.is_empty() {
            return;
        }
        for (order, blocks) in [(Order::Pud, &mut self.puds), (Order::Pmd, &mut self.pmds)] {
            for (&head, word) in blocks.range_mut(range.start.align_down(order)..range.end) {
                *word = change(head, *word);
            }
        }
        let numbers = range.start.0 / NODE..=(range.end.0 - 1) / NODE;
        for (&number, node) in self.pages.range_mut(numbers) {
            let mut used = node.used & within(number, range);
            while used != 0 {
                let index = FileIndex(number * NODE + u64::from(used.trailing_zeros()));
                used &= used - 1;
                let word = &mut node.words[slot(index)];
                *word = change(index, *word);
            }
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Slots::default();
    }
}

impl Node {
    fn set(&mut self, index: FileIndex, word: Word) {
        let bit = 1 << (index.0 % NODE);
        self.words[slot(index)] = word;
        self.used = if word.is_absent() { self.used & !bit } else { self.used | bit };
    }

    fn drain(
        &mut self,
        number: u64,
        range: &Range<FileIndex>,
        removed: &mut impl FnMut(FileIndex, Word),
    ) {
        let mut taken = self.used & within(number, range);
        self.used &= !taken;
        while taken != 0 {
            let index = FileIndex(number * NODE + u64::from(taken.trailing_zeros()));
            taken &= taken - 1;
            removed(index, std::mem::take(&mut self.words[slot(index)]));
        }
    }
}

impl Default for Node {
    fn default() -> Node {
        Node { used: 0, words: [Word::default(); 64] }
    }
}

fn slot(index: FileIndex) -> usize {
    usize::try_from(index.0 % NODE).expect("less than 64")
}

/// The bits of node `number` whose indices lie in `range`.
fn within(number: u64, range: &Range<FileIndex>) -> u64 {
    let first = number * NODE;
    let from = range.start.0.saturating_sub(first);
    let to = range.end.0.saturating_sub(first);
    let below = |count: u64| if count >= NODE { u64::MAX } else { (1 << count) - 1 };
    below(to) & !below(from)
}

#[cfg(test)]
mod tests {
    use super::{Slots, Word};
    use udax_mm::{FileIndex, Order, PgmapOff};

    fn page(first: u64) -> Word {
        Word::real(Order::Base, 0, PgmapOff(first))
    }

    fn heads(slots: &Slots, from: u64, to: u64) -> Vec<u64> {
        let (mut at, mut found) = (from, Vec::new());
        while let Some((head, word)) = slots.first(&(FileIndex(at)..FileIndex(to))) {
            found.push(head.0);
            at = head.0 + word.order().pages().0;
        }
        found
    }

    #[test]
    fn a_block_is_found_from_every_index_that_it_covers() {
        for order in [Order::Pmd, Order::Pud] {
            let mut slots = Slots::default();
            let head = FileIndex(order.pages().0);
            let word = Word::real(order, 0, PgmapOff(0));
            slots.set(head, word);

            for within in [0, 1, 511, order.pages().0 - 1] {
                assert_eq!(slots.covering(FileIndex(head.0 + within)), Some((head, word)), "F-18");
            }
            assert_eq!(slots.covering(FileIndex(head.0 - 1)), None);
            assert_eq!(slots.covering(FileIndex(head.0 + order.pages().0)), None);
        }
    }

    #[test]
    fn entries_of_all_orders_are_met_in_the_order_of_the_file() {
        let mut slots = Slots::default();
        for index in [3, 63, 64, 1300, 1 << 18] {
            slots.set(FileIndex(index), page(index));
        }
        slots.set(FileIndex(512), Word::zero(Order::Pmd));

        assert_eq!(heads(&slots, 0, u64::MAX), [3, 63, 64, 512, 1300, 1 << 18]);
        assert_eq!(heads(&slots, 4, 1300), [63, 64, 512]);
        assert_eq!(heads(&slots, 1023, 1024), [512], "a block that began before the range");
    }

    #[test]
    fn removing_a_range_takes_what_overlaps_it_and_nothing_else() {
        let mut slots = Slots::default();
        for index in [9, 10, 100, 2000] {
            slots.set(FileIndex(index), page(index));
        }
        slots.set(FileIndex(512), Word::zero(Order::Pmd));
        slots.set(FileIndex(1024), Word::zero(Order::Pmd));
        let mut removed = Vec::new();

        slots.remove_range(&(FileIndex(10)..FileIndex(1000)), |head, _| removed.push(head.0));

        removed.sort_unstable();
        assert_eq!(removed, [10, 100, 512]);
        assert_eq!(heads(&slots, 0, u64::MAX), [9, 1024, 2000]);
    }

    #[test]
    fn a_node_goes_with_its_last_entry() {
        let mut slots = Slots::default();
        slots.set(FileIndex(7), page(7));
        slots.remove(FileIndex(7), Order::Base);

        assert!(slots.pages.is_empty(), "F-56: memory for what is touched");
    }
}
