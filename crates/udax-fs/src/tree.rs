//! The tree of a file: a page table of self-checking entries, from file index to device page.
//!
//! This file owns the shape of trees and every walk over them. It changes nothing itself: inserting
//! and clearing build new nodes out of place, and return what a transaction has to write.

use crate::FsError;
use crate::alloc::Extent;
use crate::format::{Ino, InodeRecord};
use crate::store::{Fresh, Store};
use crate::stored::{Data, Dirty, Object, Stored};
use std::ops::Range;
use udax_mm::{DeviceOff, FileIndex, Order, Pages};

/// A tree as its inode record names it: a value, copied out of the record and put back after a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tree {
    ino: Ino,
    root: u64,
    depth: u32,
    pages: Pages,
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
    /// The order of the entry that holds the page asked for.
    pub(crate) order: Order,
}

/// What lies at an index.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lookup {
    /// Data.
    Run(Run),
    /// Nothing, for at least that many pages from the index on.
    Hole(Pages),
}

/// What a walk meets.
#[derive(Debug)]
pub(crate) enum Visit {
    /// A node, before its entries.
    Node(DeviceOff),
    /// Data.
    Data(Run),
    /// An entry or node that cannot be used; what hangs below it is skipped.
    Bad(FsError),
}

/// New pages with the slots they will hang in.
#[derive(Debug)]
pub struct Graft {
    tree: Tree,
    fresh: Vec<Fresh>,
    publish: Vec<(u64, Vec<u64>)>,
}

/// Pages to take out of a tree, with the nodes that replace split extents.
#[derive(Debug)]
pub struct Cut {
    tree: Tree,
    fresh: Vec<Fresh>,
    publish: Vec<(u64, Vec<u64>)>,
    data: Vec<Extent>,
    nodes: Vec<DeviceOff>,
}

#[allow(unused_variables, missing_docs)]
impl Tree {
    /// The tree an inode record names.
    ///
    /// # Errors
    /// `Corrupt` if the depth is impossible.
    pub(crate) fn of(record: &InodeRecord) -> Result<Tree, FsError> { todo!() }
    /// Puts root, depth and page count into the record.
    pub(crate) fn store_in(&self, record: &mut InodeRecord) { todo!() }
    pub(crate) fn is_empty(&self) -> bool { todo!() }
    /// Pages of data and nodes.
    pub(crate) fn pages(&self) -> Pages { todo!() }
    /// Finds what lies at `index`. Merges neighbours (both ways) inside `within` as far as the same node goes; a run of order 9 or more is whole.
    pub(crate) fn lookup(&self, store: &Store, index: FileIndex, within: Range<FileIndex>) -> Result<Lookup, FsError> { todo!() }
    /// All data in `range`, clipped to it, in order, neighbours merged.
    pub(crate) fn runs(&self, store: &Store, range: Range<FileIndex>) -> Result<Vec<Run>, FsError> { todo!() }
    /// Builds what hangs `data` (in order, over holes only) into the tree.
    pub(crate) fn insert(&self, store: &Store, data: Vec<(FileIndex, Stored<Data, Dirty>)>) -> Result<Stored<Graft, Dirty>, FsError> { todo!() }
    /// Builds what takes all data in `range` out of the tree.
    pub(crate) fn clear(&self, store: &Store, range: Range<FileIndex>) -> Result<Stored<Cut, Dirty>, FsError> { todo!() }
    /// Meets every node and all data in order; verifies every entry. Stops with the visitor's error.
    pub(crate) fn walk(&self, store: &Store, visit: &mut dyn FnMut(Visit) -> Result<(), FsError>) -> Result<(), FsError> { todo!() }
}

#[allow(unused_variables, missing_docs)]
impl<S> Stored<Cut, S> {
    /// The data pages that the cut frees.
    pub(crate) fn freed(&self) -> &[Extent] { todo!() }
}
impl Object for Graft {
    fn fresh(&self) -> Box<dyn Iterator<Item = &Fresh> + '_> { Box::new(self.fresh.iter()) }
}
impl Object for Cut {
    fn fresh(&self) -> Box<dyn Iterator<Item = &Fresh> + '_> { Box::new(self.fresh.iter()) }
}
