//! Mounting: from a device to a store, an inode table and the free space between them.
//!
//! This file owns the order: superblock, session, journal, pin table, inode table and trees, orphans. A
//! read-only mount takes the same road and writes nothing on it.

use udax_dev::{DaxBytes, DaxDevice};
use udax_mm::FileIndex;
use udax_mm::sync::Arc;

use crate::inode::END;
use crate::itable::{Itable, Table};
use crate::scan::{Scan, Scanned};
use crate::store::{Store, Vacant};
use crate::superblock::{Session, Source, Superblock};
use crate::tree::Tree;
use crate::txn::Txn;
use crate::{FsError, MountMode, Recovered};

/// What mounting needs of a device.
pub(crate) struct Opened {
    pub(crate) superblock: Superblock,
    pub(crate) store: Arc<Store>,
    pub(crate) itable: Itable,
    pub(crate) recovered: Recovered,
}

/// Reads a filesystem, and repairs what an unclean end left behind.
pub(crate) fn open(device: Arc<dyn DaxDevice>, mode: MountMode) -> Result<Opened, FsError> {
    let bytes = DaxBytes::new(Arc::clone(&device));
    let (superblock, copy) = Superblock::read(&bytes)?;
    let session = Session::read(&bytes)?;
    let store = Store::new(device, superblock.geometry, superblock.uuid);
    let mut recovered = Recovered { mirror_used: copy == Source::Mirror, ..Recovered::default() };
    if let Session::Open { pid, rebooted } = session {
        recovered.unclean = Some(pid);
        recovered.rebooted = rebooted;
    }
    if mode == MountMode::ReadWrite {
        recovered.replayed = store.recover()?;
    } else if store.needs_recovery()? {
        return Err(FsError::NeedsRecovery);
    }
    let (mut scan, pins) = Scan::of(&store)?;
    recovered.corrupt = corrupt_inos(&scan);
    if mode == MountMode::ReadWrite {
        refuse_corrupt(&scan)?;
    }
    let adopted = store.adopt_pins(&pins, mode)?;
    store.hold_late_reads(&scan.alone);
    recovered.quarantined = adopted.quarantined;
    recovered.released = adopted.released;
    if mode == MountMode::ReadWrite {
        if copy == Source::Mirror || !superblock.is_mirrored(&bytes) {
            superblock.write(&bytes)?;
        }
        // Its fence is also that of the pin table.
        Session::open(&bytes)?;
        store.give_back(adopted.trimmed);
        recovered.orphans = free_orphans(&store, &mut scan)?;
    }
    Ok(Opened { superblock, store, itable: Itable::new(scan.table), recovered })
}

/// Every number that has something wrong, once.
fn corrupt_inos(scan: &Scan) -> Vec<crate::Ino> {
    let mut inos: Vec<_> = scan.corrupt.iter().map(|(ino, _)| *ino).collect();
    inos.dedup();
    inos
}

/// Refuses to write while it is not known which pages are in use.
fn refuse_corrupt(scan: &Scan) -> Result<(), FsError> {
    match scan.corrupt.first() {
        None => Ok(()),
        Some((ino, found)) => Err(FsError::corrupt(format!("inode {}", ino.0), found.clone())),
    }
}

/// Frees the inodes that were removed while somebody had them open.
fn free_orphans(store: &Arc<Store>, scan: &mut Scan) -> Result<u64, FsError> {
    let mut freed = 0;
    for orphan in scan.inodes.iter().filter(|inode| inode.is_orphan()) {
        free_orphan(store, &mut scan.table, orphan)?;
        freed += 1;
    }
    Ok(freed)
}

fn free_orphan(store: &Arc<Store>, table: &mut Table, orphan: &Scanned) -> Result<(), FsError> {
    let slot = table.slot(orphan.ino).expect("the walk read its record");
    let tree = Tree::of(&orphan.record)?;
    let mut txn = Txn::new(store);
    if !tree.is_empty() {
        // Nothing is split where nothing stays.
        let cut = tree.clear(store, FileIndex(0)..END)?.without_stores();
        let vacant = Vacant::claim(store, cut.freed())?;
        // The record below is that of a free number: it needs no tree.
        let _ = txn.cut(cut, vacant)?;
    }
    txn.write(slot, &orphan.record.freed());
    txn.commit()?;
    table.free.insert(orphan.ino.0);
    Ok(())
}
