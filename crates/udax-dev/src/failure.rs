//! The way of a failure from a page map up to the holder of a device.
//!
//! Owns the translation of pages on each step: a failure is told in pages of the page map where it
//! is found, and arrives in pages of the device at the top (I-64, B-35).

use crate::{Holder, HolderSlot};
use std::ops::Range;
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, MemoryFailure, PgmapOff};

/// Hears of failures in the page map of a device, whose pages it counts as the device does.
#[derive(Debug)]
pub(crate) struct OfPgmap {
    pub(crate) slot: Arc<HolderSlot>,
}

/// Holds one device below a joined one: it passes on what the device says, in pages of the whole.
#[derive(Debug)]
pub(crate) struct OfTarget {
    pub(crate) slot: Arc<HolderSlot>,
    /// Pages of the device below, and where the first of them lies on the whole.
    pub(crate) parts: Vec<(Range<DeviceOff>, DeviceOff)>,
}

impl MemoryFailure for OfPgmap {
    fn memory_failure(&self, pages: Range<PgmapOff>) {
        self.slot.failed(DeviceOff(pages.start.0)..DeviceOff(pages.end.0));
    }
}

impl Holder for OfTarget {
    fn removing(&self) {
        self.slot.notify();
    }

    fn failed(&self, pages: Range<DeviceOff>) {
        for (below, at) in &self.parts {
            let (start, end) = (pages.start.max(below.start), pages.end.min(below.end));
            if start < end {
                let first = *at + start.since(below.start);
                self.slot.failed(first..first + end.since(start));
            }
        }
    }
}
