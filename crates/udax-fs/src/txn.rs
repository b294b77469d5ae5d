//! Transactions: the only way to change a byte that recovery reads.
//!
//! This file owns what a transaction collects and the moment it takes effect. The journal owns how
//! it survives. Transactions write tree entries, inode records and directory cells, never file
//! data: recovery repeats the last transaction, and would repeat it over newer data.

use crate::FsError;
use crate::alloc::Extent;
use crate::format::InodeRecord;
use crate::store::{Fresh, Store, Vacant};
use crate::stored::{Durable, Stored};
use crate::tree::{Cut, Graft, Tree};
use std::marker::PhantomData;

/// The place of a `T` on the device.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    at: u64,
    object: PhantomData<T>,
}

/// 64 bytes of a directory page.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell {}

/// A set of changes that happen all or not at all. Dropping it changes nothing.
#[must_use]
#[derive(Debug)]
pub struct Txn<'s> {
    store: &'s Store,
    fresh: Vec<Fresh>,
    freed: Vec<Extent>,
    vacant: Vec<Vacant>,
}

#[allow(unused_variables, missing_docs)]
impl<T> Slot<T> {
    /// The `T` at byte `at` of the device.
    pub(crate) fn at(at: u64) -> Slot<T> { todo!() }
    pub(crate) fn byte(&self) -> u64 { self.at }
}
impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self { *self }
}
impl<T> Copy for Slot<T> {}

#[allow(unused_variables, missing_docs)]
impl<'s> Txn<'s> {
    pub(crate) fn new(store: &'s Store) -> Txn<'s> { todo!() }
    /// Hangs new pages into a tree. The caller stores the tree that comes back in the inode record (root, depth, pages).
    pub fn publish(&mut self, graft: Stored<Graft, Durable>) -> Tree { todo!() }
    /// Takes pages out of a tree and frees them; `vacant` must prove every data page of the cut free to go.
    pub fn cut(&mut self, cut: Stored<Cut, Durable>, vacant: Vacant) -> Tree { todo!() }
    /// Writes an inode record (and its checksum).
    pub(crate) fn write(&mut self, slot: Slot<InodeRecord>, record: &InodeRecord) { todo!() }
    /// Writes adjacent cells; `bytes` is a multiple of 64.
    pub(crate) fn write_cells(&mut self, slot: Slot<Cell>, bytes: &[u8]) { todo!() }
    /// Zeros `count` adjacent cells.
    pub(crate) fn clear_cells(&mut self, slot: Slot<Cell>, count: u64) { todo!() }
    /// Bytes of journal that are left (each write needs its bytes and 16 more).
    pub(crate) fn room(&self) -> u64 { todo!() }
    /// Makes the changes durable, then visible at their place; frees what was cut.
    ///
    /// # Errors
    ///
    /// Nothing has changed if the transaction is too large; after a media error the store stops.
    #[track_caller]
    pub(crate) fn commit(self) -> Result<(), FsError> { todo!() }
}
