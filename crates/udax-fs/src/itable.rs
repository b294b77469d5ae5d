//! The inode table: a file of 256-byte records, one for each inode, with its own record at a fixed
//! place.
//!
//! This file owns where a record lies and which numbers are free. The table grows by whole pages of
//! free records and never shrinks. Only creating takes numbers, under the namespace lock; anybody
//! may give one back.

use std::collections::BTreeSet;

use udax_mm::sync::Mutex;
use udax_mm::units::PAGE_BYTES;
use udax_mm::{DeviceOff, FileIndex, Pages};
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::alloc::Goal;
use crate::format::{INODE_RECORD_BYTES, ITABLE_INO, InodeRecord};
use crate::num::to_u64;
use crate::store::Store;
use crate::stored::Stored;
use crate::tree::Tree;
use crate::txn::{Slot, Txn};
use crate::{FsError, Ino};

/// The fewest and the most pages by which the table grows; in between, by a quarter.
const GROWTH: (usize, usize) = (4, 64);

/// Records in a page.
pub(crate) const RECORDS_PER_PAGE: u64 = PAGE_BYTES / INODE_RECORD_BYTES;

/// The table of a mounted filesystem.
#[derive(Debug)]
pub(crate) struct Itable {
    table: Mutex<Table>,
}

/// What is known of the table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) record: InodeRecord,
    /// The page of the device behind each page of the table.
    pub(crate) pages: Vec<DeviceOff>,
    /// Numbers that are not in use.
    pub(crate) free: BTreeSet<u64>,
}

/// A number for a new inode, and the pages that the table needs for it.
#[derive(Debug)]
pub(crate) struct NewIno {
    pub(crate) ino: Ino,
    pub(crate) slot: Slot<InodeRecord>,
    /// The generation of the last inode of this number.
    pub(crate) generation: u32,
    growth: Option<Growth>,
}

/// Pages that a transaction adds to the table.
#[derive(Debug)]
struct Growth {
    record: InodeRecord,
    pages: Vec<DeviceOff>,
}

impl Table {
    /// A table without pages: the first one of a filesystem.
    pub(crate) fn empty() -> Table {
        let mut record = InodeRecord::new_zeroed();
        record.ino.set(ITABLE_INO.0);
        record.links.set(1);
        record.mode.set(crate::inode::record::S_IFREG);
        Table { record, pages: Vec::new(), free: BTreeSet::new() }
    }

    /// Where the record of `ino` lies, if the table reaches that far.
    pub(crate) fn slot(&self, ino: Ino) -> Option<Slot<InodeRecord>> {
        let page = usize::try_from(ino.0 / RECORDS_PER_PAGE).ok()?;
        Some(slot_in(*self.pages.get(page)?, ino))
    }

    /// The numbers that the table has records for, from 1 on.
    pub(crate) fn inos(&self) -> impl Iterator<Item = Ino> + use<> {
        (1..to_u64(self.pages.len()) * RECORDS_PER_PAGE).map(Ino)
    }

    /// Adds pages to the table in `txn`; they count once it has committed.
    fn grow(&self, store: &Store, txn: &mut Txn<'_>) -> Result<Growth, FsError> {
        let mut next = FileIndex(to_u64(self.pages.len()));
        let mut pages = Vec::new();
        let mut data = Vec::new();
        let growth = (self.pages.len() / 4).clamp(GROWTH.0, GROWTH.1);
        for fresh in store.allocate(Pages(to_u64(growth)), Goal::Packed)? {
            let extent = fresh.extent();
            pages.extend((0..extent.pages.0).map(|page| extent.start + Pages(page)));
            data.push((next, Stored::zeros(store, fresh)?));
            next = next + extent.pages;
        }
        let graft = Tree::of(&self.record)?.insert(store, data)?.flush(store)?.fence(store)?;
        let mut record = self.record;
        txn.publish(graft).store_in(&mut record);
        record.size.set(next.byte());
        txn.write(Slot::record(store.geometry().itable.byte()), &record);
        Ok(Growth { record, pages })
    }
}

impl Itable {
    /// The table that mounting read.
    pub(crate) fn new(table: Table) -> Itable {
        Itable { table: Mutex::new(table) }
    }

    /// Where the record of `ino` lies.
    pub(crate) fn slot(&self, ino: Ino) -> Result<Slot<InodeRecord>, FsError> {
        self.table.lock().slot(ino).ok_or(FsError::Stale(ino))
    }

    /// The tree of the table itself.
    pub(crate) fn tree(&self) -> Result<Tree, FsError> {
        Tree::of(&self.table.lock().record)
    }

    /// The record of `ino`, as it is on the medium.
    pub(crate) fn read(&self, store: &Store, ino: Ino) -> Result<InodeRecord, FsError> {
        read_record(store, self.slot(ino)?)
    }

    /// A free number. If there is none, the table grows in `txn`.
    ///
    /// The number is taken when [`Itable::take`] is told that `txn` has committed.
    pub(crate) fn new_ino(&self, store: &Store, txn: &mut Txn<'_>) -> Result<NewIno, FsError> {
        let table = self.table.lock();
        if let Some(ino) = table.free.first().copied().map(Ino) {
            let slot = table.slot(ino).expect("a free number has a record");
            let generation = read_record(store, slot)?.generation.get();
            return Ok(NewIno { ino, slot, generation, growth: None });
        }
        let growth = table.grow(store, txn)?;
        // Number 0 names nothing, so the first page of a table starts with 1.
        let ino = Ino((to_u64(table.pages.len()) * RECORDS_PER_PAGE).max(1));
        let slot = slot_in(growth.pages[0], ino);
        Ok(NewIno { ino, slot, generation: 0, growth: Some(growth) })
    }

    /// Counts a number as used, after its record was committed.
    pub(crate) fn take(&self, new: NewIno) {
        let mut table = self.table.lock();
        if let Some(growth) = new.growth {
            let first = to_u64(table.pages.len()) * RECORDS_PER_PAGE;
            table.record = growth.record;
            table.pages.extend(growth.pages);
            let end = to_u64(table.pages.len()) * RECORDS_PER_PAGE;
            table.free.extend(first.max(1)..end);
        }
        assert!(table.free.remove(&new.ino.0), "itable: a new inode had a free number");
    }

    /// Counts a number as free, after its record was.
    pub(crate) fn release(&self, ino: Ino) {
        assert!(self.table.lock().free.insert(ino.0), "itable: a freed inode was in use");
    }

    /// How many numbers are in use.
    pub(crate) fn used(&self) -> u64 {
        let table = self.table.lock();
        let numbers = (to_u64(table.pages.len()) * RECORDS_PER_PAGE).saturating_sub(1);
        numbers - to_u64(table.free.len())
    }

    /// Every number in use.
    pub(crate) fn in_use(&self) -> Vec<Ino> {
        let table = self.table.lock();
        table.inos().filter(|ino| !table.free.contains(&ino.0)).collect()
    }
}

/// Reads one record.
pub(crate) fn read_record(store: &Store, slot: Slot<InodeRecord>) -> Result<InodeRecord, FsError> {
    let mut record = InodeRecord::new_zeroed();
    store.read(slot.byte(), record.as_mut_bytes())?;
    Ok(record)
}

fn slot_in(page: DeviceOff, ino: Ino) -> Slot<InodeRecord> {
    Slot::record(page.byte() + ino.0 % RECORDS_PER_PAGE * INODE_RECORD_BYTES)
}
