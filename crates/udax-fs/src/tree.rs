//! The tree of a file: a page table of self-checking entries, from file index to device page.
//!
//! This file owns the shape of trees, lookups and walks. It changes nothing: inserting (graft.rs)
//! and clearing (cut.rs) build new nodes out of place, and say what a transaction has to write.

use crate::FsError;
use crate::entry::{Entry, Place};
use crate::format::{FANOUT, FLAG_SHARES, Ino, InodeRecord, MAX_DEPTH};
use crate::store::Store;
use std::ops::{ControlFlow, Range};
use udax_mm::{DeviceOff, FileIndex, Order, Pages};

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

/// The leaf entry that covers an index, with the node it stands in.
struct Leaf {
    entry: Entry,
    place: Place,
    parent: Option<(DeviceOff, Place)>,
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
        let leaf = self.leaf(store, index)?;
        match leaf.entry {
            Entry::Data(page) => Ok(Lookup::Run(leaf.run(store, page, &within)?)),
            _ => Ok(Lookup::Hole(Pages(leaf.hole_end(store, within.end)? - index.0))),
        }
    }

    /// All data in `range`, clipped to it, in order, with neighbours merged.
    ///
    /// # Errors
    ///
    /// As [`Tree::lookup`].
    pub(crate) fn runs(&self, store: &Store, range: Range<FileIndex>) -> Result<Vec<Run>, FsError> {
        let mut runs: Vec<Run> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            match self.lookup(store, at, at..range.end)? {
                Lookup::Hole(pages) => at = at + pages,
                Lookup::Run(run) => {
                    at = at + run.pages;
                    match runs.last_mut() {
                        Some(last) if last.meets(&run) => last.pages = last.pages + run.pages,
                        _ => runs.push(run),
                    }
                }
            }
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

    fn leaf(&self, store: &Store, index: FileIndex) -> Result<Leaf, FsError> {
        let place = self.root_place();
        let mut leaf = Leaf { entry: self.root(store)?, place, parent: None };
        while let Entry::Node(node) = leaf.entry {
            let parent = (node, leaf.place);
            let place = leaf.place.child(leaf.place.child_of(index.0));
            leaf = Leaf { entry: load(store, parent, place)?, place, parent: Some(parent) };
        }
        Ok(leaf)
    }
}

impl Run {
    /// Whether `next` goes on where this run ends.
    fn meets(&self, next: &Run) -> bool {
        self.order == next.order
            && self.index + self.pages == next.index
            && self.device + self.pages == next.device
    }
}

impl Leaf {
    /// The run of data around this entry, as far as its node and `within` go.
    fn run(&self, store: &Store, page: DeviceOff, within: &Range<u64>) -> Result<Run, FsError> {
        let Range { mut start, mut end } = self.place.range();
        let expected = |first: u64| {
            (page.0 + first).checked_sub(self.place.first.0).map(|at| Entry::Data(DeviceOff(at)))
        };
        self.neighbours(store, within.end, |place, entry| {
            let is_next = expected(place.first.0) == Some(entry);
            end = if is_next { place.range().end } else { end };
            is_next
        })?;
        self.neighbours_before(store, within.start, |place, entry| {
            let is_next = expected(place.first.0) == Some(entry);
            start = if is_next { place.first.0 } else { start };
            is_next
        })?;
        let (start, end) = (start.max(within.start), end.min(within.end));
        Ok(Run {
            index: FileIndex(start),
            device: DeviceOff(page.0 + start - self.place.first.0),
            pages: Pages(end - start),
            order: order_of(self.place.level),
        })
    }

    /// Where the hole around this entry ends, as far as its node and `limit` go.
    fn hole_end(&self, store: &Store, limit: u64) -> Result<u64, FsError> {
        let mut end = self.place.range().end;
        self.neighbours(store, limit, |place, entry| {
            end = if entry == Entry::Hole { place.range().end } else { end };
            entry == Entry::Hole
        })?;
        Ok(end.min(limit))
    }

    /// Shows the entries after this one in its node, as far as `limit`, until `go_on` says no.
    fn neighbours(
        &self,
        store: &Store,
        limit: u64,
        go_on: impl FnMut(&Place, Entry) -> bool,
    ) -> Result<(), FsError> {
        let Some((_, parent)) = self.parent else { return Ok(()) };
        let after = parent.children(&(self.place.range().end..limit));
        self.show(store, after, go_on)
    }

    /// Shows the entries before this one in its node, nearest first.
    fn neighbours_before(
        &self,
        store: &Store,
        limit: u64,
        go_on: impl FnMut(&Place, Entry) -> bool,
    ) -> Result<(), FsError> {
        let Some((_, parent)) = self.parent else { return Ok(()) };
        let before = parent.children(&(limit..self.place.first.0));
        self.show(store, before.rev(), go_on)
    }

    fn show(
        &self,
        store: &Store,
        mut numbers: impl Iterator<Item = u64>,
        mut go_on: impl FnMut(&Place, Entry) -> bool,
    ) -> Result<(), FsError> {
        let Some(parent) = self.parent else { return Ok(()) };
        let shown = numbers.try_for_each(|number| {
            let place = parent.1.child(number);
            match load(store, parent, place) {
                Ok(entry) if go_on(&place, entry) => ControlFlow::Continue(()),
                Ok(_) => ControlFlow::Break(Ok(())),
                Err(error) => ControlFlow::Break(Err(error)),
            }
        });
        shown.break_value().unwrap_or(Ok(()))
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
    let mut bytes = vec![0; udax_mm::PAGE_SIZE];
    store.read(node.byte(), &mut bytes)?;
    let (words, _) = bytes.as_chunks::<8>();
    Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
}

/// The entry at `place`, which stands in the node `parent`.
fn load(store: &Store, parent: (DeviceOff, Place), place: Place) -> Result<Entry, FsError> {
    let (node, above) = parent;
    let raw = store.load_u64(entry_byte(node, above.child_of(place.first.0)))?;
    Entry::decode(raw, &place, store.geometry())
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
