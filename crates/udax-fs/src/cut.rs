//! Taking pages out of a tree: whole subtrees by one entry, large extents by splitting them.
//!
//! This file owns which entries change and which pages the tree does not refer to any more. Nodes
//! that stay are changed by the transaction; nodes that lose their last entry go too, and are not
//! written to. What goes in the place of a cut is replace.rs's.

use crate::FsError;
use crate::alloc::Extent;
use crate::entry::{Entry, Place};
use crate::graft::{Builder, Grown, Piece};
use crate::num::to_usize;
use crate::ranges::Ranges;
use crate::store::{Fresh, Store};
use crate::stored::{Dirty, Object, Stored};
use crate::tree::{Tree, entry_byte, load_node};
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
        match cutter.cut(self.root, self.root_place())? {
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
    /// Cuts what `raw` covers. Levels fall by one with each call.
    fn cut(&mut self, raw: u64, place: Place) -> Result<After, FsError> {
        let own = place.range();
        if own.end <= self.range.start || self.range.end <= own.start {
            return Ok(After::Same);
        }
        match Entry::decode(raw, &place, self.store.geometry())? {
            Entry::Hole => Ok(After::Same),
            Entry::Data(page) => self.cut_data(page, place),
            Entry::Node(node) => self.cut_node(node, place),
        }
    }

    fn cut_data(&mut self, page: DeviceOff, place: Place) -> Result<After, FsError> {
        let own = place.range();
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
        Ok(After::Changed(self.builder.build(place, &kept)?))
    }

    fn cut_node(&mut self, node: DeviceOff, place: Place) -> Result<After, FsError> {
        let mut entries = load_node(self.store, node)?;
        let mut edits = Vec::new();
        let mut is_changed = false;
        for number in place.children(&self.range) {
            let raw = &mut entries[to_usize(number)];
            match self.cut(*raw, place.child(number))? {
                After::Same if *raw != 0 => continue,
                // A hole is written as well, so that what is cut stays one run of zeros.
                After::Same => {}
                After::Hole => (*raw, is_changed) = (0, true),
                After::Changed(new) => (*raw, is_changed) = (new, true),
            }
            edits.push((entry_byte(node, number), *raw));
        }
        if entries.iter().all(|&raw| raw == 0) {
            self.nodes.insert(node.0..node.0 + 1);
            return Ok(After::Hole);
        }
        if is_changed {
            for (at, raw) in edits {
                self.builder.grown.publish(at, raw);
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
