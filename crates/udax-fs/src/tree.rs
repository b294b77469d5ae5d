//! The tree of a file: a page table of self-checking entries, from file index to device page.
//!
//! This file owns the shape of trees, lookups and walks. It changes nothing: inserting (graft.rs)
//! and clearing (cut.rs) build new nodes out of place, and say what a transaction has to write.

use crate::FsError;
use crate::entry::{Entry, Place};
use crate::format::{FANOUT, FLAG_SHARES, Ino, InodeRecord, MAX_DEPTH};
use crate::node::{Node, Same};
use crate::num::to_usize;
use crate::store::Store;
use std::ops::Range;
use udax_mm::{DeviceOff, FileIndex, Order, Pages};
use zerocopy::IntoBytes;

/// A tree as its inode record names it: a value, copied out of the record, and put back after a
/// change. It holds no lock; the caller's keeps the nodes from changing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tree {
    pub(crate) ino: Ino,
    /// The root entry, as on the medium.
    pub(crate) root: u64,
    /// The level of the root entry.
    pub(crate) depth: u32,
    /// Pages of data and nodes.
    pub(crate) pages: Pages,
    /// Whether other trees may refer to data of this one.
    pub(crate) may_share: bool,
}

/// Adjacent pages of a file that are adjacent on the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Run {
    /// The first page of the file.
    pub(crate) index: FileIndex,
    /// Where it lies.
    pub(crate) device: DeviceOff,
    /// How many.
    pub(crate) pages: Pages,
    /// The order of the entries.
    pub(crate) order: Order,
}

/// What lies at an index.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lookup {
    /// Data.
    Run(Run),
    /// Nothing, for at least so many pages from the index on.
    Hole(Pages),
}

/// What a walk meets.
#[derive(Debug)]
pub(crate) enum Visit {
    /// A node, before what hangs below it.
    Node(DeviceOff),
    /// The data of one entry.
    Data(Run),
    /// An entry or a node that cannot be used; what hangs below it is skipped.
    Bad(FsError),
}

impl Tree {
    /// The tree that `record` names. The inode table's own record names the tree of
    /// [`ITABLE_INO`](crate::format::ITABLE_INO).
    ///
    /// # Errors
    ///
    /// [`FsError::Corrupt`] if no tree can be that deep.
    pub(crate) fn of(record: &InodeRecord) -> Result<Tree, FsError> {
        let ino = Ino(record.ino.get());
        let depth = record.depth.get();
        if depth > MAX_DEPTH {
            let object = format!("inode {}", ino.0);
            return Err(FsError::corrupt(object, format!("its tree has the depth {depth}")));
        }
        Ok(Tree {
            ino,
            root: record.root.get(),
            depth,
            pages: Pages(record.pages.get()),
            may_share: record.may_share(),
        })
    }

    /// Puts the tree into the inode's record.
    pub(crate) fn store_in(&self, record: &mut InodeRecord) {
        assert!(record.ino.get() == self.ino.0, "a tree goes back to its own inode");
        record.root = self.root.into();
        record.depth = self.depth.into();
        record.pages = self.pages.0.into();
        if self.may_share {
            record.flags.set(record.flags.get() | FLAG_SHARES);
        }
    }

    /// Whether the file has no page.
    pub(crate) fn is_empty(&self) -> bool {
        self.root == 0
    }

    /// The place of the root entry.
    pub(crate) fn root_place(&self) -> Place {
        Place { ino: self.ino, first: FileIndex(0), level: self.depth }
    }

    /// The root entry.
    pub(crate) fn root(&self, store: &Store) -> Result<Entry, FsError> {
        Entry::decode(self.root, &self.root_place(), store.geometry())
    }

    /// Finds what lies at `index`.
    ///
    /// A run holds `index`, lies inside `within`, and takes in neighbours on both sides as far as
    /// the entries of the same node go. A hole begins at `index`.
    ///
    /// # Errors
    ///
    /// [`FsError::Corrupt`] for an entry that fails its check; the device's error.
    pub(crate) fn lookup(
        &self,
        store: &Store,
        index: FileIndex,
        within: Range<FileIndex>,
    ) -> Result<Lookup, FsError> {
        assert!(within.contains(&index), "tree: the index lies in the range around it");
        let within = within.start.0..within.end.0;
        if !self.root_place().range().contains(&index.0) {
            return Ok(Lookup::Hole(Pages(within.end - index.0)));
        }
        let same = self.around(store, index, &within)?;
        Ok(match Run::clipped(&same, &within) {
            Some(run) => Lookup::Run(run),
            // Behind the last page that the tree could hold nothing is, either.
            None if same.range().end >= self.root_place().range().end => {
                Lookup::Hole(Pages(within.end - index.0))
            }
            None => Lookup::Hole(Pages(same.range().end.min(within.end) - index.0)),
        })
    }

    /// All data in `range`, clipped to it, in order, with neighbours merged.
    ///
    /// # Errors
    ///
    /// As [`Tree::lookup`].
    pub(crate) fn runs(&self, store: &Store, range: Range<FileIndex>) -> Result<Vec<Run>, FsError> {
        let mut runs = Vec::new();
        let (place, range) = (self.root_place(), range.start.0..range.end.0);
        if place.range().start < range.end && range.start < place.range().end {
            gather(store, &Same::one(self.root(store)?, place), &range, &mut runs)?;
        }
        Ok(runs)
    }

    /// Meets every node and all data, in order, and verifies every entry.
    ///
    /// # Errors
    ///
    /// Those of `visit`, which ends the walk with them.
    pub(crate) fn walk(
        &self,
        store: &Store,
        visit: &mut dyn FnMut(Visit) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        walk(store, self.root, self.root_place(), visit)
    }

    /// The entry that covers `index`, and those of its node around it that go on from one another, as
    /// far as `within` goes.
    fn around(
        &self,
        store: &Store,
        index: FileIndex,
        within: &Range<u64>,
    ) -> Result<Same, FsError> {
        let mut same = Same::one(self.root(store)?, self.root_place());
        while let Entry::Node(node) = same.entry {
            same = Node::find_around(store, node, same.place, index.0, within)?;
        }
        Ok(same)
    }
}

impl Run {
    /// The part in `within` of what entries of data cover; None of others, or if there is none.
    fn clipped(same: &Same, within: &Range<u64>) -> Option<Run> {
        let Entry::Data(page) = same.entry else { return None };
        let all = same.range();
        let (start, end) = (all.start.max(within.start), all.end.min(within.end));
        (start < end).then(|| Run {
            index: FileIndex(start),
            device: DeviceOff(page.0 + start - all.start),
            pages: Pages(end - start),
            order: order_of(same.place.level),
        })
    }

    /// Whether `next` goes on where this run ends.
    fn meets(&self, next: &Run) -> bool {
        self.order == next.order
            && self.index + self.pages == next.index
            && self.device + self.pages == next.device
    }
}

/// The order of the data of an entry of `level`.
pub(crate) fn order_of(level: u32) -> Order {
    match level {
        0 => Order::Base,
        1 => Order::Pmd,
        _ => Order::Pud,
    }
}

/// The byte of the device at which entry `number` of `node` lies.
pub(crate) fn entry_byte(node: DeviceOff, number: u64) -> u64 {
    assert!(number < FANOUT, "tree: a node has 512 entries");
    node.byte() + number * 8
}

/// The 512 entries of `node`, as on the medium.
pub(crate) fn load_node(store: &Store, node: DeviceOff) -> Result<Vec<u64>, FsError> {
    load_entries(store, node, &(0..FANOUT))
}

/// Some of them, by their numbers.
pub(crate) fn load_entries(
    store: &Store,
    node: DeviceOff,
    numbers: &Range<u64>,
) -> Result<Vec<u64>, FsError> {
    let mut entries = vec![0; to_usize(numbers.end - numbers.start)];
    store.read(entry_byte(node, numbers.start), entries.as_mut_bytes())?;
    for entry in &mut entries {
        *entry = u64::from_le(*entry);
    }
    Ok(entries)
}

/// Adds the data in `range` of what entries cover to `runs`, which end before it. Levels fall by one
/// with each call.
fn gather(
    store: &Store,
    same: &Same,
    range: &Range<u64>,
    runs: &mut Vec<Run>,
) -> Result<(), FsError> {
    if let Entry::Node(node) = same.entry {
        let (node, children) = (Node::load(store, node, same.place)?, same.place.children(range));
        let mut number = children.start;
        while number < children.end {
            let same = node.same(number..children.end)?;
            gather(store, &same, range, runs)?;
            number += same.count;
        }
    }
    match (Run::clipped(same, range), runs.last_mut()) {
        (Some(run), Some(last)) if last.meets(&run) => last.pages = last.pages + run.pages,
        (run, _) => runs.extend(run),
    }
    Ok(())
}

/// Levels fall by one with each call, so the depth of the tree bounds the recursion.
fn walk(
    store: &Store,
    raw: u64,
    place: Place,
    visit: &mut dyn FnMut(Visit) -> Result<(), FsError>,
) -> Result<(), FsError> {
    let node = match Entry::decode(raw, &place, store.geometry()) {
        Err(error) => return visit(Visit::Bad(error)),
        Ok(Entry::Hole) => return Ok(()),
        Ok(Entry::Data(device)) => {
            let (pages, order) = (Place::span(place.level), order_of(place.level));
            return visit(Visit::Data(Run { index: place.first, device, pages, order }));
        }
        Ok(Entry::Node(node)) => node,
    };
    visit(Visit::Node(node))?;
    match load_node(store, node) {
        Err(error) => visit(Visit::Bad(error)),
        Ok(entries) => (0..)
            .zip(entries)
            .filter(|&(_, raw)| raw != 0)
            .try_for_each(|(number, raw)| walk(store, raw, place.child(number), visit)),
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
