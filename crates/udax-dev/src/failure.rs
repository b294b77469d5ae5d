//! The way of news from a page map up to the holder of a device.
//!
//! Each step translates: a failure is told in pages of the page map where it is found, and arrives
//! in pages of the device at the top (I-64, B-35).

use crate::mapped::Core;
use crate::{DaxDevice, Holder, HolderSlot};
use std::ops::Range;
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::{Arc, Weak};
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
}

impl OfTable {
    pub(crate) fn new(core: Weak<Core>, device: Weak<dyn DaxDevice>) -> OfTable {
        OfTable { core, device, is_gone: AtomicBool::new(false) }
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

    fn suspended(&self, change: &mut dyn FnMut()) {
        match self.core.upgrade() {
            Some(core) => core.below_changes(change),
            None => change(),
        }
    }

    fn above(&self) -> Option<Arc<HolderSlot>> {
        self.core.upgrade().map(|core| core.slot())
    }
}
