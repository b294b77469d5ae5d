//! One node of a tree, or a line of one, read at once and met a run of entries at a time.
//!
//! This file owns what makes entries side by side one run: holes behind a hole, and data that goes on
//! on the device where the entry before ends. An entry that goes on as it must is known without
//! decoding it, because its check follows from that of its neighbour.

use crate::FsError;
use crate::entry::{Adjacent, Entry, Place};
use crate::format::FANOUT;
use crate::num::{to_u64, to_usize};
use crate::store::Store;
use crate::tree::load_entries;
use std::ops::Range;
use udax_mm::DeviceOff;

/// The entries of one node, or some of them.
pub(crate) struct Node<'s> {
    store: &'s Store,
    /// The place of the entry that points to it.
    place: Place,
    /// The number of the first one.
    start: u64,
    entries: Vec<u64>,
}

/// The entries in a cache line.
const LINE: u64 = 8;

/// Entries side by side that say one thing, verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Same {
    /// The first of them; only a hole or data has others behind it.
    pub(crate) entry: Entry,
    /// Where the first stands.
    pub(crate) place: Place,
    /// How many there are.
    pub(crate) count: u64,
}

impl Same {
    /// A single entry.
    pub(crate) fn one(entry: Entry, place: Place) -> Same {
        Same { entry, place, count: 1 }
    }

    /// The numbers of the file's pages that they cover.
    pub(crate) fn range(&self) -> Range<u64> {
        let start = self.place.first.0;
        start..start + self.count * Place::span(self.place.level).0
    }
}

impl<'s> Node<'s> {
    /// Reads the node that the entry at `place` points to.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn load(
        store: &'s Store,
        node: DeviceOff,
        place: Place,
    ) -> Result<Node<'s>, FsError> {
        Node::load_part(store, node, place, 0..FANOUT)
    }

    /// Finds the entries that go on from one another around `index`, as far as `within` goes.
    ///
    /// Most often they end in the cache line of the first, which is all that is read then.
    ///
    /// # Errors
    ///
    /// As [`Node::same`], and the device's.
    pub(crate) fn find_around(
        store: &'s Store,
        node: DeviceOff,
        place: Place,
        index: u64,
        within: &Range<u64>,
    ) -> Result<Same, FsError> {
        let (number, numbers) = (place.child_of(index), place.children(within));
        let line = number / LINE * LINE..number / LINE * LINE + LINE;
        let part = line.start.max(numbers.start)..line.end.min(numbers.end);
        let line = Node::load_part(store, node, place, line)?;
        let same = line.same_around(number, part.clone())?;
        if part == numbers || !line.may_go_on(&same, &part) {
            return Ok(same);
        }
        Node::load(store, node, place)?.same_around(number, numbers)
    }

    fn load_part(
        store: &'s Store,
        node: DeviceOff,
        place: Place,
        numbers: Range<u64>,
    ) -> Result<Node<'s>, FsError> {
        let entries = load_entries(store, node, &numbers)?;
        Ok(Node { store, place, start: numbers.start, entries })
    }

    /// Whether entries that were found in `part` may have others like them outside.
    fn may_go_on(&self, same: &Same, part: &Range<u64>) -> bool {
        let first = self.place.child_of(same.place.first.0);
        let touches = first == part.start || first + same.count == part.end;
        touches && !matches!(same.entry, Entry::Node(_))
    }

    /// The entries of `numbers` that go on from its first.
    ///
    /// # Errors
    ///
    /// [`FsError::Corrupt`] if the first fails its check.
    pub(crate) fn same(&self, numbers: Range<u64>) -> Result<Same, FsError> {
        let (place, entry) = (self.place.child(numbers.start), self.entry(numbers.start)?);
        let behind = &self.entries[self.at(numbers.start + 1)..self.at(numbers.end)];
        let more = match entry {
            Entry::Hole => count(behind.iter().take_while(|raw| **raw == 0)),
            Entry::Data(page) => {
                met(behind.iter(), Adjacent::behind(&place, page, self.store.geometry()))
            }
            Entry::Node(_) => 0,
        };
        Ok(Same { entry, place, count: 1 + more })
    }

    /// The entries of `numbers` that go on from one another around `number`, which is one of them.
    /// Of a hole, those from `number` on.
    ///
    /// # Errors
    ///
    /// As [`Node::same`].
    pub(crate) fn same_around(&self, number: u64, numbers: Range<u64>) -> Result<Same, FsError> {
        let same = self.same(number..numbers.end)?;
        let Entry::Data(page) = same.entry else { return Ok(same) };
        let before = &self.entries[self.at(numbers.start)..self.at(number)];
        let expected = Adjacent::before(&same.place, page, self.store.geometry());
        let more = met(before.iter().rev(), expected);
        let pages = more * Place::span(same.place.level).0;
        Ok(Same {
            entry: Entry::Data(DeviceOff(page.0 - pages)),
            place: self.place.child(number - more),
            count: more + same.count,
        })
    }

    /// The entry `number`, as it would stand on the medium.
    pub(crate) fn raw(&self, number: u64) -> u64 {
        self.entries[self.at(number)]
    }

    /// Puts `raw` in the place of the entries of `numbers`, in memory only.
    pub(crate) fn fill(&mut self, numbers: &Range<u64>, raw: u64) {
        let numbers = self.at(numbers.start)..self.at(numbers.end);
        self.entries[numbers].fill(raw);
    }

    /// Whether all entries are holes.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.iter().all(|raw| *raw == 0)
    }

    /// Where entry `number` stands among those that were read.
    fn at(&self, number: u64) -> usize {
        to_usize(number - self.start)
    }

    fn entry(&self, number: u64) -> Result<Entry, FsError> {
        Entry::decode(self.raw(number), &self.place.child(number), self.store.geometry())
    }
}

/// How many entries are what they have to be, up to the first that is not.
fn met<'e>(entries: impl Iterator<Item = &'e u64>, mut expected: Adjacent) -> u64 {
    let mut met = 0;
    for raw in entries {
        if expected.next() != Some(*raw) {
            break;
        }
        met += 1;
    }
    met
}

fn count(of: impl Iterator) -> u64 {
    to_u64(of.count())
}
