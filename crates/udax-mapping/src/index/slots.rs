//! Where the entries of an index are kept: one level for each order.
//!
//! Owns the storage and the look-up, and keeps I-22: entries are aligned, and none lies inside
//! another. It takes memory for what is touched: nodes of 64 entries.

use super::word::Word;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use udax_mm::{FileIndex, Order};

/// Entries in one node. A file is touched in runs, and a node is freed as a whole.
const NODE: u64 = 64;

/// Every entry of a file, in the order of [`Order::ALL`].
#[derive(Debug)]
pub(super) struct Slots([Level; 3]);

/// The entries of one order.
#[derive(Debug)]
struct Level {
    order: Order,
    /// By the number of the first block of this order, over 64.
    nodes: BTreeMap<u64, Box<Node>>,
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
        self.0.iter().rev().find_map(|level| level.covering(index))
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
        let found = self.0.iter().filter_map(|level| level.first_from(range));
        found.min_by_key(|(head, _)| *head)
    }

    /// Puts an entry at `head`, or changes the one there. It has the size that `word` says.
    pub(super) fn set(&mut self, head: FileIndex, word: Word) {
        assert!(head.is_aligned(word.order()), "I-22: an entry is aligned to its size");
        self.level(word.order()).set(head, word);
    }

    /// Removes the entry of `order` at `head`.
    pub(super) fn remove(&mut self, head: FileIndex, order: Order) {
        self.level(order).remove(head);
    }

    /// Removes every entry that overlaps `range`, and tells `cut` of each that reaches outside. None of
    /// them is locked.
    pub(super) fn remove_range(
        &mut self,
        range: &Range<FileIndex>,
        mut cut: impl FnMut(FileIndex, Word),
    ) {
        self.0.iter_mut().for_each(|level| level.remove_range(range, &mut cut));
    }

    /// Calls `change` for each entry that overlaps `range`; what it returns takes its place.
    pub(super) fn update_range(
        &mut self,
        range: &Range<FileIndex>,
        mut change: impl FnMut(FileIndex, Word) -> Word,
    ) {
        self.0.iter_mut().for_each(|level| level.update_range(range, &mut change));
    }

    /// The bytes of its nodes.
    pub(super) fn bytes(&self) -> usize {
        let nodes: usize = self.0.iter().map(|level| level.nodes.len()).sum();
        nodes * size_of::<Node>()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Slots::default();
    }

    fn level(&mut self, order: Order) -> &mut Level {
        let [base, pmd, pud] = &mut self.0;
        match order {
            Order::Base => base,
            Order::Pmd => pmd,
            Order::Pud => pud,
        }
    }
}

impl Default for Slots {
    fn default() -> Slots {
        Slots(Order::ALL.map(|order| Level { order, nodes: BTreeMap::new() }))
    }
}

impl Level {
    fn covering(&self, index: FileIndex) -> Option<(FileIndex, Word)> {
        let number = self.number(index);
        let word = self.nodes.get(&(number / NODE))?.words[slot(number)];
        (!word.is_absent()).then_some((self.head(number), word))
    }

    fn first_from(&self, range: &Range<FileIndex>) -> Option<(FileIndex, Word)> {
        let numbers = self.ceil(range.start)..self.ceil(range.end);
        let nodes = (!numbers.is_empty()).then(|| self.nodes.range(nodes_of(&numbers)))?;
        nodes.into_iter().find_map(|(&node, of)| {
            let used = of.used & within(node, &numbers);
            let number = node * NODE + u64::from(used.trailing_zeros());
            (used != 0).then(|| (self.head(number), of.words[slot(number)]))
        })
    }

    fn set(&mut self, head: FileIndex, word: Word) {
        let number = self.number(head);
        self.nodes.entry(number / NODE).or_default().set(number, word);
    }

    fn remove(&mut self, head: FileIndex) {
        let number = self.number(head);
        let Some(node) = self.nodes.get_mut(&(number / NODE)) else { return };
        node.set(number, Word::default());
        if node.used == 0 {
            self.nodes.remove(&(number / NODE));
        }
    }

    fn remove_range(&mut self, range: &Range<FileIndex>, cut: &mut impl FnMut(FileIndex, Word)) {
        let Some(numbers) = self.overlapping(range) else { return };
        let (first, last) = (self.around(range.start), self.around(range.end));
        let last = last.filter(|(head, _)| *head >= range.start);
        first.into_iter().chain(last).for_each(|(head, word)| cut(head, word));
        let emptied = self.nodes.extract_if(nodes_of(&numbers), |&node, of| {
            assert!(!of.is_locked(), "I-28: nobody locks an entry without the layout lock");
            let removed = of.used & within(node, &numbers);
            // A node that goes is not emptied before.
            if removed != of.used {
                of.each_in(node, &numbers, &mut |_, word| *word = Word::default());
            }
            of.used &= !removed;
            of.used == 0
        });
        emptied.for_each(drop);
    }

    /// The entry that `at` lies inside of, and not at its start.
    fn around(&self, at: FileIndex) -> Option<(FileIndex, Word)> {
        self.covering(at).filter(|(head, _)| *head < at)
    }

    fn update_range(
        &mut self,
        range: &Range<FileIndex>,
        change: &mut impl FnMut(FileIndex, Word) -> Word,
    ) {
        let Some(numbers) = self.overlapping(range) else { return };
        let order = self.order;
        for (&node, of) in self.nodes.range_mut(nodes_of(&numbers)) {
            of.each_in(node, &numbers, &mut |number, word| {
                *word = change(head(number, order), *word);
            });
        }
    }

    /// The numbers of the blocks that overlap `range`; None if it is empty.
    fn overlapping(&self, range: &Range<FileIndex>) -> Option<Range<u64>> {
        let numbers = self.number(range.start)..self.ceil(range.end);
        (!range.is_empty()).then_some(numbers)
    }

    /// The number of the block that covers `index`.
    fn number(&self, index: FileIndex) -> u64 {
        index.0 >> self.order.get()
    }

    /// How many blocks start before `index`.
    fn ceil(&self, index: FileIndex) -> u64 {
        index.0.div_ceil(self.order.pages().0)
    }

    fn head(&self, number: u64) -> FileIndex {
        head(number, self.order)
    }
}

impl Node {
    fn set(&mut self, number: u64, word: Word) {
        let bit = 1 << (number % NODE);
        self.words[slot(number)] = word;
        self.used = if word.is_absent() { self.used & !bit } else { self.used | bit };
    }

    fn is_locked(&self) -> bool {
        self.words.iter().fold(false, |is_locked, word| is_locked | word.is_locked())
    }

    /// Shows the entries whose numbers lie in `numbers`.
    fn each_in(&mut self, node: u64, numbers: &Range<u64>, show: &mut impl FnMut(u64, &mut Word)) {
        let mut used = self.used & within(node, numbers);
        while used != 0 {
            let number = node * NODE + u64::from(used.trailing_zeros());
            used &= used - 1;
            show(number, &mut self.words[slot(number)]);
        }
    }
}

impl Default for Node {
    fn default() -> Node {
        Node { used: 0, words: [Word::default(); 64] }
    }
}

/// The first page of block `number` of `order`.
fn head(number: u64, order: Order) -> FileIndex {
    FileIndex(number * order.pages().0)
}

/// The nodes that hold `numbers`, of which there is one at least.
fn nodes_of(numbers: &Range<u64>) -> RangeInclusive<u64> {
    numbers.start / NODE..=(numbers.end - 1) / NODE
}

fn slot(number: u64) -> usize {
    usize::try_from(number % NODE).expect("less than 64")
}

/// The bits of node `node` whose numbers lie in `numbers`.
fn within(node: u64, numbers: &Range<u64>) -> u64 {
    let first = node * NODE;
    let from = numbers.start.saturating_sub(first);
    let to = numbers.end.saturating_sub(first);
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
        let mut cut = Vec::new();

        slots.remove_range(&(FileIndex(10)..FileIndex(1000)), |head, _| cut.push(head.0));

        assert_eq!(cut, [512], "only this one reaches outside");
        slots.remove_range(&(FileIndex(1030)..FileIndex(1040)), |head, _| cut.push(head.0));
        assert_eq!(cut, [512, 1024], "each is told of once");
        slots.set(FileIndex(1024), Word::zero(Order::Pmd));
        assert_eq!(heads(&slots, 0, u64::MAX), [9, 1024, 2000]);
    }

    #[test]
    fn a_node_goes_with_its_last_entry() {
        let mut slots = Slots::default();
        slots.set(FileIndex(7), page(7));
        slots.remove(FileIndex(7), Order::Base);

        assert!(
            slots.0.iter().all(|level| level.nodes.is_empty()),
            "F-56: memory for what is touched"
        );
    }
}
