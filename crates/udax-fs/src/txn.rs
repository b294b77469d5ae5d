//! Transactions: the only way to change a byte that recovery reads.
//!
//! This file owns what a transaction collects and what follows from its commit. The journal owns
//! how it survives. Transactions write tree entries, inode records and directory cells, never file
//! data: recovery repeats the last transaction, and would repeat it over newer data.

use crate::FsError;
use crate::alloc::Extent;
use crate::cut::Cut;
use crate::format::{CELL_BYTES, INODE_RECORD_BYTES, InodeRecord};
use crate::graft::Graft;
use crate::journal::Writes;
use crate::num::to_u64;
use crate::ranges::Ranges;
use crate::store::{Fresh, Store, Vacant};
use crate::stored::{Durable, Stored};
use crate::tree::Tree;
use std::marker::PhantomData;
use udax_mm::sync::Arc;
use udax_mm::units::PAGE_BYTES;
use zerocopy::IntoBytes;

/// The place of a `T` on the device.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    at: u64,
    object: PhantomData<T>,
}

/// 64 bytes of a directory page.
#[derive(Debug)]
pub(crate) enum Cell {}

/// Changes that happen all or not at all. Dropping it changes nothing, and gives fresh pages back.
#[must_use]
#[derive(Debug)]
pub struct Txn<'s> {
    store: &'s Arc<Store>,
    writes: Writes,
    fresh: Vec<Fresh>,
    freed: Vec<Freed>,
    /// Data to which one more place of a tree refers.
    shared: Vec<Extent>,
}

/// Pages that a transaction gives up.
#[derive(Debug)]
struct Freed {
    extents: Vec<Extent>,
    vacant: Vacant,
    /// Whether other places of trees may refer to them.
    may_be_shared: bool,
}

impl Slot<InodeRecord> {
    /// The record at byte `at` of the device.
    pub(crate) fn record(at: u64) -> Slot<InodeRecord> {
        assert!(at.is_multiple_of(INODE_RECORD_BYTES), "format: a record is aligned to its size");
        Slot { at, object: PhantomData }
    }
}

impl Slot<Cell> {
    /// The cell at byte `at` of the device.
    pub(crate) fn cell(at: u64) -> Slot<Cell> {
        assert!(at.is_multiple_of(CELL_BYTES), "format: a cell is aligned to its size");
        Slot { at, object: PhantomData }
    }
}

impl<T> Slot<T> {
    /// Its first byte on the device.
    pub(crate) fn byte(self) -> u64 {
        self.at
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slot<T> {}

impl<'s> Txn<'s> {
    /// A transaction that changes nothing yet.
    pub(crate) fn new(store: &'s Arc<Store>) -> Txn<'s> {
        let (fresh, freed, shared) = (Vec::new(), Vec::new(), Vec::new());
        Txn { store, writes: Writes::default(), fresh, freed, shared }
    }

    /// Hangs new pages into a tree. The tree that comes back goes into the inode's record.
    #[must_use]
    pub fn publish(&mut self, graft: Stored<Graft, Durable>) -> Tree {
        let Graft { tree, grown } = graft.into_object();
        self.write_entries(&grown.publish);
        self.fresh.extend(grown.fresh);
        tree
    }

    /// Takes pages out of a tree and frees those to which no other place of a tree refers. The tree
    /// that comes back goes into the inode's record.
    ///
    /// # Errors
    ///
    /// The device's. The transaction cannot be committed then.
    ///
    /// # Panics
    ///
    /// Panics if `vacant` does not prove every data page of the cut free to go (I-50), unless the
    /// tree may share it: what is freed then is known when the transaction has committed (rule 26).
    pub fn cut(&mut self, cut: Stored<Cut, Durable>, vacant: Vacant) -> Result<Tree, FsError> {
        let Cut { tree, grown, data, nodes, shared } = cut.into_object();
        let may_be_shared = tree.may_share;
        assert!(may_be_shared || shared.is_empty(), "I-17: only a tree that says so shares data");
        assert!(
            may_be_shared || vacant.covers(&data),
            "I-50: pages are freed that somebody may use"
        );
        let vacant_nodes = Vacant::claim(self.store, &nodes)?;
        self.write_entries(&grown.publish);
        self.fresh.extend(grown.fresh);
        self.shared.extend(shared);
        self.freed.push(Freed { extents: data, vacant, may_be_shared });
        self.freed.push(Freed { extents: nodes, vacant: vacant_nodes, may_be_shared: false });
        Ok(tree)
    }

    /// Writes an inode record, with its checksum.
    pub(crate) fn write(&mut self, slot: Slot<InodeRecord>, record: &InodeRecord) {
        self.writes.bytes(slot.at, record.sealed().as_bytes());
    }

    /// Writes adjacent cells.
    ///
    /// # Panics
    ///
    /// Panics if `cells` is not a multiple of 64 bytes, or leaves the page.
    pub(crate) fn write_cells(&mut self, slot: Slot<Cell>, cells: &[u8]) {
        check_cells(slot, to_u64(cells.len()));
        self.writes.bytes(slot.at, cells);
    }

    /// Zeros `count` adjacent cells.
    ///
    /// # Panics
    ///
    /// Panics if they leave the page.
    pub(crate) fn clear_cells(&mut self, slot: Slot<Cell>, count: u64) {
        check_cells(slot, count * CELL_BYTES);
        self.writes.zeros(slot.at, count * CELL_BYTES);
    }

    /// Makes the changes durable, then visible at their place, and frees what was cut and is not
    /// referred to by other trees.
    ///
    /// # Errors
    ///
    /// [`FsError::TransactionTooLarge`], and nothing has changed. After an error of the device the
    /// store stops, and opening the pool again decides whether the transaction happened; its pages
    /// stay allocated until then.
    ///
    /// # Panics
    ///
    /// Panics if a change lies in a page that is freed: recovery may repeat it when the page
    /// belongs to something else.
    pub(crate) fn commit(mut self) -> Result<(), FsError> {
        self.check_no_write_to_freed();
        if !self.writes.is_empty() {
            let committed = self.store.commit(&self.writes);
            if let Err(error @ FsError::Device(_)) = committed {
                self.fresh.drain(..).for_each(Fresh::keep);
                return Err(error);
            }
            committed?;
        }
        self.fresh.drain(..).for_each(Fresh::keep);
        let given_up = self.freed.iter_mut().filter(|freed| freed.may_be_shared);
        self.store.settle_references(&self.shared, given_up.map(|freed| &mut freed.extents));
        self.freed.drain(..).for_each(|freed| freed.vacant.free(&freed.extents));
        Ok(())
    }

    fn write_entries(&mut self, runs: &[(u64, Vec<u64>)]) {
        for (at, run) in runs {
            let bytes = to_u64(run.len()) * 8;
            if run.iter().all(|&raw| raw == 0) {
                self.writes.zeros(*at, bytes);
            } else {
                let encoded: Vec<u8> = run.iter().flat_map(|raw| raw.to_le_bytes()).collect();
                self.writes.bytes(*at, &encoded);
            }
        }
    }

    fn check_no_write_to_freed(&self) {
        let freed = self.freed.iter().flat_map(|freed| &freed.extents);
        let freed: Ranges = freed.map(|extent| extent.range()).collect();
        let is_freed = |byte: u64| freed.contains(byte / PAGE_BYTES);
        let hit = self.writes.iter().find(|write| is_freed(write.range().start));
        assert!(hit.is_none(), "a transaction writes to a page that it frees: {hit:?}");
    }
}

fn check_cells(slot: Slot<Cell>, bytes: u64) {
    assert!(bytes.is_multiple_of(CELL_BYTES), "format: cells have 64 bytes");
    assert!(slot.at % PAGE_BYTES + bytes <= PAGE_BYTES, "format: an entry stays in one page");
}

#[cfg(test)]
#[path = "txn_tests.rs"]
mod tests;
