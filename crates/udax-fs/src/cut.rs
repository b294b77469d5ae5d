//! Taking pages out of a tree: whole subtrees by one entry, large extents by splitting them.
//!
//! This file owns which entries change and which pages the tree does not refer to any more. Nodes
//! that stay are changed by the transaction; nodes that lose their last entry go too, and are not
//! written to. What goes in the place of a cut is replace.rs's.

use crate::FsError;
use crate::alloc::Extent;
use crate::entry::{Entry, Place};
use crate::graft::{Builder, Grown, Piece};
use crate::node::{Node, Same};
use crate::ranges::Ranges;
use crate::store::{Fresh, Store};
use crate::stored::{Dirty, Object, Stored};
use crate::tree::{Tree, entry_byte};
use std::ops::Range;
use udax_mm::{DeviceOff, FileIndex, Pages};

/// Pages to take out of a tree, with the nodes that replace what is split, and what else goes in
/// their place.
#[derive(Debug)]
pub struct Cut {
    /// The tree once the cut is made.
    pub(crate) tree: Tree,
    pub(crate) grown: Grown,
    /// Data pages that it gives up, and frees if no other place of a tree refers to them.
    pub(crate) data: Vec<Extent>,
    /// Nodes that it frees.
    pub(crate) nodes: Vec<Extent>,
    /// Data of another place of a tree that it refers to from then on.
    pub(crate) shared: Vec<Extent>,
}

/// What becomes of an entry.
enum After {
    Same,
    Hole,
    Changed(u64),
}

struct Cutter<'s> {
    store: &'s Store,
    range: Range<u64>,
    builder: Builder<'s>,
    /// In file order: a tree may refer to the same pages at several places.
    data: Vec<Extent>,
    nodes: Ranges,
}

impl Tree {
    /// Builds what takes all data in `range` out of the tree.
    ///
    /// The cut of any range fits in one transaction: what lies wholly inside goes with one entry,
    /// so only the nodes at the two ends are written to.
    ///
    /// # Errors
    ///
    /// [`FsError::Corrupt`] for a bad entry, [`FsError::NoSpace`] if an extent has to be split and
    /// there is no page for the node. Nothing has changed then.
    pub(crate) fn clear(
        &self,
        store: &Store,
        range: Range<FileIndex>,
    ) -> Result<Stored<Cut, Dirty>, FsError> {
        self.cut_out(store, range).map(Stored::dirty)
    }

    /// Builds what [`Tree::clear`] does, for more to be added.
    pub(crate) fn cut_out(&self, store: &Store, range: Range<FileIndex>) -> Result<Cut, FsError> {
        let mut cutter = Cutter {
            store,
            range: range.start.0..range.end.0,
            builder: Builder::new(store, self.ino),
            data: Vec::new(),
            nodes: Ranges::default(),
        };
        let mut tree = *self;
        let place = self.root_place();
        let meets = place.range().start < range.end.0 && range.start.0 < place.range().end;
        let after =
            if meets { cutter.cut(&Same::one(self.root(store)?, place))? } else { After::Same };
        match after {
            After::Same => {}
            After::Hole => (tree.root, tree.depth) = (0, 0),
            After::Changed(root) => tree.root = root,
        }
        Ok(cutter.finish(tree))
    }
}

impl<S> Stored<Cut, S> {
    /// The data pages that the tree gives up.
    pub(crate) fn freed(&self) -> &[Extent] {
        &self.object().data
    }
}

impl Cutter<'_> {
    /// Cuts what entries cover, which lie in the range as a whole if they are several. Levels fall by
    /// one with each call.
    fn cut(&mut self, same: &Same) -> Result<After, FsError> {
        match same.entry {
            Entry::Hole => Ok(After::Same),
            Entry::Data(page) => self.cut_data(page, same),
            Entry::Node(node) => self.cut_node(node, same.place),
        }
    }

    fn cut_data(&mut self, page: DeviceOff, same: &Same) -> Result<After, FsError> {
        let own = same.range();
        let piece = |indices: Range<u64>| Piece {
            index: indices.start,
            extent: Extent::of(
                page.0 + (indices.start - own.start)..page.0 + (indices.end - own.start),
            ),
        };
        let cut = self.range.start.max(own.start)..self.range.end.min(own.end);
        self.give_up(piece(cut.clone()).extent);
        let kept = [piece(own.start..cut.start), piece(cut.end..own.end)];
        let kept: Vec<Piece> =
            kept.into_iter().filter(|piece| !piece.extent.pages.is_empty()).collect();
        if kept.is_empty() {
            return Ok(After::Hole);
        }
        assert!(same.count == 1, "tree: of several entries none is cut in two");
        Ok(After::Changed(self.builder.build(same.place, &kept)?))
    }

    fn cut_node(&mut self, device: DeviceOff, place: Place) -> Result<After, FsError> {
        let mut node = Node::load(self.store, device, place)?;
        let (children, whole) = (place.children(&self.range), place.whole_children(&self.range));
        let (mut edits, mut is_changed) = (Vec::new(), false);
        let mut number = children.start;
        while number < children.end {
            let end = if whole.contains(&number) { whole.end } else { number + 1 };
            let same = node.same(number..end)?;
            let numbers = number..number + same.count;
            number = numbers.end;
            let raw = match self.cut(&same)? {
                After::Same if same.entry != Entry::Hole => continue,
                // A hole is written as well, so that what is cut stays one run of zeros.
                After::Same => 0,
                After::Hole => {
                    is_changed = true;
                    0
                }
                After::Changed(new) => {
                    is_changed = true;
                    new
                }
            };
            node.fill(&numbers, raw);
            edits.push(numbers);
        }
        if node.is_empty() {
            self.nodes.insert(device.0..device.0 + 1);
            return Ok(After::Hole);
        }
        if is_changed {
            for number in edits.into_iter().flatten() {
                self.builder.grown.publish(entry_byte(device, number), node.raw(number));
            }
        }
        Ok(After::Same)
    }

    fn give_up(&mut self, extent: Extent) {
        match self.data.last_mut() {
            Some(last) if last.end() == extent.start => last.pages = last.pages + extent.pages,
            _ => self.data.push(extent),
        }
    }

    fn finish(self, mut tree: Tree) -> Cut {
        let grown = self.builder.grown;
        let added: u64 = grown.fresh.iter().map(|fresh| fresh.extent().pages.0).sum();
        let data: u64 = self.data.iter().map(|extent| extent.pages.0).sum();
        let freed = data + self.nodes.count();
        tree.pages = Pages((tree.pages.0 + added).saturating_sub(freed));
        Cut {
            tree,
            grown,
            data: self.data,
            nodes: self.nodes.iter().map(Extent::of).collect(),
            shared: Vec::new(),
        }
    }
}

impl Object for Cut {
    fn fresh(&self) -> &[Fresh] {
        &self.grown.fresh
    }
}
