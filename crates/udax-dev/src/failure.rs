//! The way of news from a page map up to the holder of a device.
//!
//! Each step translates: a failure is told in pages of the page map where it is found, and arrives
//! in pages of the device at the top (I-64, B-35).

use crate::mapped::Core;
use crate::{DaxDevice, Holder, HolderSlot};
use std::ops::Range;
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::{Arc, Mutex, Weak};
use udax_mm::{DeviceOff, MemoryFailure, PgmapOff};

/// Hears of failures in the page map of a device, whose pages it counts as the device does.
#[derive(Debug)]
pub(crate) struct OfPgmap {
    pub(crate) slot: Arc<HolderSlot>,
}

/// Holds one device below a table.
#[derive(Debug)]
pub(crate) struct OfTable {
    pub(crate) core: Weak<Core>,
    pub(crate) device: Weak<dyn DaxDevice>,
    /// It was removed, also if that was before any table with it was in use.
    is_gone: AtomicBool,
    stage: Mutex<Stage>,
}

/// How far a table is that claims a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// It has worked nothing out from the device, and may be refused yet: also because the device
    /// stands on it.
    Claiming,
    /// It is in use, or was.
    Using,
}

impl OfTable {
    pub(crate) fn new(core: Weak<Core>, device: Weak<dyn DaxDevice>) -> OfTable {
        let (is_gone, stage) = (AtomicBool::new(false), Mutex::new(Stage::Claiming));
        OfTable { core, device, is_gone, stage }
    }

    /// From here on the table is worked out from the device. To be called with the lock of changes held.
    pub(crate) fn begin_use(&self) {
        *self.stage.lock() = Stage::Using;
    }

    /// Whether the device was removed. Asked with the lock of changes held, which whoever removes it
    /// takes afterwards.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

impl MemoryFailure for OfPgmap {
    fn memory_failure(&self, pages: Range<PgmapOff>) {
        self.slot.failed(DeviceOff(pages.start.0)..DeviceOff(pages.end.0));
    }
}

impl Holder for OfTable {
    fn removing(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
        if let (Some(core), Some(device)) = (self.core.upgrade(), self.device.upgrade()) {
            core.below_ends(&device);
        }
    }

    fn failed(&self, pages: Range<DeviceOff>) {
        if let (Some(core), Some(device)) = (self.core.upgrade(), self.device.upgrade()) {
            core.below_failed(&device, &pages);
        }
    }

    /// Asked only of a table that is gone, and whose claim is kept by the last user of a span: those
    /// above answer for one that is there.
    fn permits_move(&self) -> bool {
        true
    }

    fn suspended(&self, change: &mut dyn FnMut()) {
        let stage = self.stage.lock();
        if *stage == Stage::Claiming {
            // Inside the lock: whoever begins to use the device sees it changed.
            return change();
        }
        drop(stage);
        match (self.core.upgrade(), self.device.upgrade()) {
            (Some(core), Some(device)) => core.below_changes(&device, change),
            _ => change(),
        }
    }

    fn above(&self) -> Option<Arc<HolderSlot>> {
        self.core.upgrade().map(|core| core.slot())
    }
}
