//! Inserting into a tree: new nodes are built out of place and hang in by a few entries.
//!
//! This file owns how pages become entries. What it builds is not reachable until a transaction
//! publishes it, and a graft that is dropped gives all its pages back.

use crate::FsError;
use crate::alloc::Extent;
use crate::entry::{Entry, Place};
use crate::format::{FANOUT, Ino, MAX_DATA_LEVEL, MAX_DEPTH, MAX_FILE_BYTES};
use crate::num::{to_u64, to_usize};
use crate::store::{Fresh, Store};
use crate::stored::{Data, Dirty, Object, Stored};
use crate::tree::{Tree, entry_byte, load_node};
use std::collections::BTreeMap;
use std::ops::Range;
use udax_mm::{DeviceOff, FileIndex, Pages};

/// New pages with the slots they will hang in.
#[derive(Debug)]
pub struct Graft {
    /// The tree once the graft is published.
    pub(crate) tree: Tree,
    pub(crate) grown: Grown,
}

/// New nodes and data, and the entries to publish in nodes that exist.
#[derive(Debug, Default)]
pub(crate) struct Grown {
    pub(crate) fresh: Vec<Fresh>,
    /// Adjacent entries, from a byte of the device on.
    pub(crate) publish: Vec<(u64, Vec<u64>)>,
}

/// Adjacent pages that are to be found at adjacent indices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) index: u64,
    pub(crate) extent: Extent,
}

/// Builds subtrees for one file.
pub(crate) struct Builder<'s> {
    store: &'s Store,
    ino: Ino,
    /// The tree that goes on at index 0 below what is built, at its own level.
    below: Option<(u64, u32)>,
    pub(crate) grown: Grown,
}

impl Tree {
    /// Builds what hangs `data` into the tree. `data` is in order, and goes over holes only.
    ///
    /// At most 2 MiB of data at a time is sure to fit in a transaction of any pool.
    ///
    /// # Errors
    ///
    /// [`FsError::NoSpace`] if there is no page for a node, [`FsError::TooLarge`] past the largest
    /// file, [`FsError::Corrupt`] for a bad entry. Nothing has changed then.
    ///
    /// # Panics
    ///
    /// Panics if there is data at one of the indices.
    pub(crate) fn insert(
        &self,
        store: &Store,
        data: Vec<(FileIndex, Stored<Data, Dirty>)>,
    ) -> Result<Stored<Graft, Dirty>, FsError> {
        let mut builder = Builder::new(store, self.ino);
        let pieces: Vec<Piece> = data.into_iter().map(|piece| builder.own(piece)).collect();
        let mut tree = *self;
        if let Some(last) = pieces.last() {
            assert!(pieces.is_sorted_by(|a, b| a.end() <= b.index), "tree: data comes in order");
            tree.grow(&mut builder, &pieces, depth_for(last.end())?)?;
        }
        let grown = builder.grown;
        let added: u64 = grown.fresh.iter().map(|fresh| fresh.extent().pages.0).sum();
        tree.pages = tree.pages + Pages(added);
        Ok(Stored::dirty(Graft { tree, grown }))
    }

    /// Hangs pieces, which are in order, into the tree.
    pub(crate) fn grow(
        &mut self,
        builder: &mut Builder<'_>,
        pieces: &[Piece],
        depth: u32,
    ) -> Result<(), FsError> {
        if self.is_empty() {
            self.depth = depth;
            self.root = builder.build(self.root_place(), pieces)?;
            return Ok(());
        }
        builder.merge(self.root(builder.store)?, self.root_place(), pieces)?;
        if depth > self.depth {
            builder.below = Some((self.root, self.depth));
            self.depth = depth;
            self.root = builder.build(self.root_place(), pieces)?;
        }
        Ok(())
    }
}

impl Piece {
    pub(crate) fn end(&self) -> u64 {
        self.index + self.extent.pages.0
    }

    /// The device page behind `index`.
    fn page(&self, index: u64) -> DeviceOff {
        self.extent.start + Pages(index - self.index)
    }
}

impl<'s> Builder<'s> {
    pub(crate) fn new(store: &'s Store, ino: Ino) -> Builder<'s> {
        Builder::after(store, ino, Grown::default())
    }

    /// A builder that sees the nodes as they will be once `grown` is published, and adds to it.
    pub(crate) fn after(store: &'s Store, ino: Ino, grown: Grown) -> Builder<'s> {
        Builder { store, ino, below: None, grown }
    }

    /// Takes over fresh data.
    pub(crate) fn own(&mut self, (index, data): (FileIndex, Stored<Data, Dirty>)) -> Piece {
        let fresh = data.into_fresh();
        let piece = Piece { index: index.0, extent: fresh.extent() };
        self.grown.fresh.push(fresh);
        piece
    }

    /// Builds the entry for `place` that holds the parts of `pieces` it covers.
    pub(crate) fn build(&mut self, place: Place, pieces: &[Piece]) -> Result<u64, FsError> {
        assert!(place.ino == self.ino, "tree: a builder builds for one file");
        let has_below = place.first.0 == 0 && self.below.is_some();
        match self.below {
            Some((root, depth)) if has_below && depth == place.level => return Ok(root),
            _ => {}
        }
        let pieces = overlapping(pieces, &place.range());
        if !has_below && let Some(page) = whole(place, pieces) {
            return Ok(Entry::Data(page).encode(&place));
        }
        let mut entries = vec![0; to_usize(FANOUT)];
        if has_below {
            entries[0] = self.build(place.child(0), pieces)?;
        }
        let is_built = |number: &u64| has_below && *number == 0;
        for number in touched(place, pieces).filter(|number| !is_built(number)) {
            entries[to_usize(number)] = self.build(place.child(number), pieces)?;
        }
        let node = self.write_node(&entries)?;
        Ok(Entry::Node(node).encode(&place))
    }

    /// Hangs the parts of `pieces` that `entry` covers into the nodes below it.
    fn merge(&mut self, entry: Entry, place: Place, pieces: &[Piece]) -> Result<(), FsError> {
        let pieces = overlapping(pieces, &place.range());
        if pieces.is_empty() {
            return Ok(());
        }
        let Entry::Node(node) = entry else {
            panic!("tree: data is inserted over holes only, and {entry:?} is not one");
        };
        let mut entries = load_node(self.store, node)?;
        self.grown.show_in(node, &mut entries);
        for number in touched(place, pieces) {
            let child = place.child(number);
            match Entry::decode(entries[to_usize(number)], &child, self.store.geometry())? {
                Entry::Hole => {
                    let raw = self.build(child, pieces)?;
                    self.grown.publish(entry_byte(node, number), raw);
                }
                entry => self.merge(entry, child, pieces)?,
            }
        }
        Ok(())
    }

    fn write_node(&mut self, entries: &[u64]) -> Result<DeviceOff, FsError> {
        let fresh = self.store.allocate_page()?;
        let node = fresh.extent().start;
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        self.store.write_fresh(&fresh, 0, &bytes)?;
        self.grown.fresh.push(fresh);
        Ok(node)
    }
}

impl Grown {
    /// Adds an entry to publish, to the run that it goes on.
    pub(crate) fn publish(&mut self, at: u64, raw: u64) {
        match self.publish.last_mut() {
            Some((start, run)) if at == *start + 8 * to_u64(run.len()) => run.push(raw),
            _ => self.publish.push((at, vec![raw])),
        }
    }

    /// Puts what will be published into the entries of a node as it is.
    fn show_in(&self, node: DeviceOff, entries: &mut [u64]) {
        let (first, end) = (entry_byte(node, 0), entry_byte(node, FANOUT - 1) + 8);
        for (at, run) in &self.publish {
            for (byte, raw) in (*at..).step_by(8).zip(run) {
                if (first..end).contains(&byte) {
                    entries[to_usize((byte - first) / 8)] = *raw;
                }
            }
        }
    }

    /// Leaves of several values for one entry the last: nobody may see the others.
    pub(crate) fn settle(&mut self) {
        let mut last = BTreeMap::new();
        for (at, run) in self.publish.drain(..) {
            last.extend((at..).step_by(8).zip(run));
        }
        for (at, raw) in last {
            self.publish(at, raw);
        }
    }
}

impl Object for Graft {
    fn fresh(&self) -> &[Fresh] {
        &self.grown.fresh
    }
}

/// The pieces that `range` meets.
fn overlapping<'p>(pieces: &'p [Piece], range: &Range<u64>) -> &'p [Piece] {
    let start = pieces.partition_point(|piece| piece.end() <= range.start);
    let end = pieces.partition_point(|piece| piece.index < range.end);
    &pieces[start..end.max(start)]
}

/// The page at which the data of an entry at `place` starts, if one piece is all of it.
fn whole(place: Place, pieces: &[Piece]) -> Option<DeviceOff> {
    let [piece] = pieces else { return None };
    let range = place.range();
    if place.level > MAX_DATA_LEVEL || piece.index > range.start || piece.end() < range.end {
        return None;
    }
    let page = piece.page(range.start);
    page.0.is_multiple_of(Place::span(place.level).0).then_some(page)
}

/// The children of `place` that `pieces` touch, each once, in order.
fn touched(place: Place, pieces: &[Piece]) -> impl Iterator<Item = u64> {
    let mut next = 0;
    pieces.iter().flat_map(move |piece| {
        let children = place.children(&(piece.index..piece.end()));
        let new = children.start.max(next)..children.end;
        next = next.max(children.end);
        new
    })
}

/// The depth of a tree that holds `end` pages.
pub(crate) fn depth_for(end: u64) -> Result<u32, FsError> {
    (0..=MAX_DEPTH)
        .find(|&depth| end <= Place::span(depth).0)
        .ok_or(FsError::TooLarge { max: MAX_FILE_BYTES })
}
