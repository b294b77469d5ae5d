//! Mapping, pinning and syncing a file, and where its bytes lie.

use std::ops::{Deref, Range};

use udax_dev::DaxSpan;
use udax_mapping::{FilePin, IomapOps as _, MapMode, Sharing, Stats, UserMapping};
use udax_mm::sync::Arc;
use udax_mm::{
    Access, DeviceOff, FileIndex, Order, Pages, Patience, PinInfo, PinRecord, PinTerm, Recall,
};

use super::iomap::spans;
use super::{END, Inode};
use crate::proof::Txn;
use crate::{FsError, HeldPin, MountMode};

/// Adjacent pages of a file that are adjacent on the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileExtent {
    /// The first page of the file.
    pub index: FileIndex,
    /// Where it lies on the device.
    pub device: DeviceOff,
    /// How many.
    pub pages: Pages,
    /// The order of the folios that the extent is made of.
    pub order: Order,
    /// Whether other files, or other places of this one, have these pages too.
    pub is_shared: bool,
}

/// A user mapping of a file, which it keeps open. Dropping it unmaps.
#[derive(Debug)]
pub struct FileMapping {
    // Dropped before the inode, which the fault handler asks where bytes lie.
    user: UserMapping,
    inode: Arc<Inode>,
}

impl FileMapping {
    /// The file.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }
}

impl Deref for FileMapping {
    type Target = UserMapping;

    fn deref(&self) -> &UserMapping {
        &self.user
    }
}

impl Inode {
    /// Maps `pages` pages from `start` on into this process.
    ///
    /// A touch past the end of the file is a SIGBUS, as with any mapped file, until the file grows.
    /// A store to a hole allocates a page.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Frozen`] and [`FsError::ReadOnly`] for a shared mapping to write of what
    /// cannot be written, and [`FsError::Fault`] if the host refuses the mapping or it cannot be made
    /// of folios as large as its floor.
    pub fn map(
        self: &Arc<Inode>,
        start: FileIndex,
        pages: Pages,
        mode: MapMode,
    ) -> Result<FileMapping, FsError> {
        // A private mapping stores to copies, and never to the file.
        let access = match mode.sharing {
            Sharing::Shared => mode.access,
            Sharing::Private => Access::Read,
        };
        self.check_access(access)?;
        let user = self.mapping.map(start, pages, mode)?;
        // A freeze that has not seen the mapping is over once the lock was free.
        drop(self.mapping.faults());
        self.check_access(access)?;
        Ok(FileMapping { user, inode: Arc::clone(self) })
    }

    /// Pins the pages of `range`: they stay where they are until the pin is dropped, whatever
    /// happens to the file. Holes are allocated first.
    ///
    /// A pin for [`PinTerm::Long`] may be given to a device, also one that only reads: it is
    /// recorded on the medium before this returns, and its pages are in quarantine after an unclean
    /// end of this process. One for [`PinTerm::Short`] must end with the call that took it.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Fault`] for a range that reaches past the end, [`FsError::ReadOnlyLease`]
    /// and [`FsError::PinTableFull`] if it cannot be recorded, and what [`Inode::map`] returns.
    pub fn pin(
        self: &Arc<Inode>,
        range: Range<FileIndex>,
        info: PinInfo,
    ) -> Result<HeldPin, FsError> {
        self.pin_leased(range, info, Recall::default())
    }

    /// The same, by a holder that is called when somebody wants the pages; see
    /// [`Mapping::pin_leased`](udax_mapping::Mapping::pin_leased).
    ///
    /// # Errors
    ///
    /// As [`Inode::pin`].
    pub fn pin_leased(
        self: &Arc<Inode>,
        range: Range<FileIndex>,
        info: PinInfo,
        recall: Recall,
    ) -> Result<HeldPin, FsError> {
        let access = match info.kind {
            udax_mm::PinKind::Read => Access::Read,
            udax_mm::PinKind::Write => Access::Write,
        };
        self.check_access(access)?;
        let core = &self.node.core;
        if info.term == PinTerm::Long && core.mode() == MountMode::ReadOnly {
            return Err(FsError::ReadOnlyLease);
        }
        let keeper = (access == Access::Write).then(|| self.keep());
        HeldPin::grant(&core.store, self.mapping.pin_leased(range, info, recall)?, keeper)
    }

    /// The pins that cover pages of this file, oldest first. Those of pages that other files have too
    /// are among them.
    pub fn pins(&self) -> Vec<FilePin> {
        let store = &self.node.core.store;
        self.look(|state| {
            let found = state.tree.runs(store, FileIndex(0)..END);
            let found = found.and_then(|runs| spans(store, runs));
            // A device that is gone has no pins to list by file; the device lists them.
            pins_on(found.unwrap_or_default())
        })
    }

    /// The pins that [`Inode::wait_unpinned`] waits for, oldest first: those of pages that the file
    /// has alone (rule 26).
    pub(crate) fn pins_in_the_way(&self) -> Vec<FilePin> {
        let _faults = self.mapping.faults();
        pins_on(self.node.spans(FileIndex(0)..END).unwrap_or_default())
    }

    /// Recalls every pin of pages that the file has alone, and waits until there is none.
    ///
    /// # Blocking
    ///
    /// Waits as `patience` says, with no lock held.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Layout`] with the holders if the wait runs out.
    pub(crate) fn wait_unpinned(&self, patience: Patience<'_>) -> Result<(), FsError> {
        let broken = self.mapping.break_layout(FileIndex(0)..END, patience)?;
        // With the entries, the break removed the knowledge of what was stored to the pages.
        self.node.flush_runs(&self.node.read(), broken.range())
    }

    /// Makes everything stored so far durable: by writes, and through mappings.
    ///
    /// What was written is durable already (see [`Inode::write_at`]), but for its times. Those of
    /// stores through mappings and by devices are the time of the sync that finds them, and move with
    /// each for as long as the file can be stored to.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Device`] if the device fails.
    pub fn sync(&self) -> Result<(), FsError> {
        self.node.core.check_open()?;
        let core = &self.node.core;
        if core.check_writable().is_err() {
            return Ok(());
        }
        self.mapping.writeback(FileIndex(0)..END)?;
        let mut state = self.node.write();
        if state.has_lazy_times {
            let next = state.clone();
            self.node.commit(&mut state, next, Txn::new(&core.store))?;
        }
        Ok(())
    }

    /// What happened to the pages of the file since it was opened: faults by size, fallbacks to
    /// smaller ones by reason, waits for pins.
    pub fn stats(&self) -> Stats {
        self.mapping.stats()
    }

    /// Makes what was stored to these bytes through mappings durable, and nothing else. The times of
    /// the file move, and are durable with the next sync.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Device`] if the device fails.
    pub fn flush(&self, bytes: Range<u64>) -> Result<(), FsError> {
        self.node.core.check_open()?;
        if self.node.core.check_writable().is_ok() {
            self.mapping.flush(bytes)?;
        }
        Ok(())
    }

    /// Where the bytes lie, in order.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Corrupt`] if the tree of the file cannot be read.
    pub fn extents(&self) -> Result<Vec<FileExtent>, FsError> {
        self.node.core.check_open()?;
        let store = &self.node.core.store;
        self.look(|state| {
            let runs = state.tree.runs(store, FileIndex(0)..END)?;
            Ok(runs.into_iter().flat_map(|run| store.extents_in(&state.tree, run)).collect())
        })
    }

    fn check_access(&self, access: Access) -> Result<(), FsError> {
        match access {
            Access::Write => self.check_can_write(0),
            Access::Read => {
                self.node.core.check_open()?;
                self.check_file()
            }
        }
    }
}

/// The pins on pages of a file, oldest first.
fn pins_on(spans: Vec<(FileIndex, DaxSpan)>) -> Vec<FilePin> {
    let mut pins: Vec<FilePin> = Vec::new();
    for (index, span) in spans {
        for record in span.pgmap().pins_in(span.at().span(span.pages())) {
            add_pin(&mut pins, index, &span, record);
        }
    }
    pins.sort_by_key(|pin| pin.info.since);
    pins
}

/// Adds a pin of pages of a span, or makes the pin before it longer: one pin of a range is recorded
/// once for each folio.
fn add_pin(pins: &mut Vec<FilePin>, index: FileIndex, span: &DaxSpan, record: PinRecord) {
    let first = record.pages.start.max(span.at());
    let last = record.pages.end.min(span.at() + span.pages());
    let start = index + first.since(span.at());
    join_pin(pins, FilePin { range: start..start + last.since(first), info: record.info });
}

/// Adds a pin, or makes longer the one of the same pin that ends where it begins.
pub(crate) fn join_pin(pins: &mut Vec<FilePin>, pin: FilePin) {
    let continues = |before: &&mut FilePin| {
        before.range.end == pin.range.start
            && before.info.since == pin.info.since
            && before.info.owner == pin.info.owner
    };
    match pins.iter_mut().find(continues) {
        Some(before) => before.range.end = pin.range.end,
        None => pins.push(pin),
    }
}
