//! Which pins hold which file, found by asking the page maps and walking the trees.

use std::ops::Range;
use std::time::Instant;

use udax_mapping::FilePin;
use udax_mm::{DeviceOff, FileIndex, Lease, PinInfo, RecallEvent, RecallReason};

use crate::alloc::Extent;
use crate::inode::{END, join_pin};
use crate::ranges::Ranges;
use crate::tree::{Run, Tree};
use crate::{Filesystem, FsError, Ino};

/// A pin on adjacent pages of the device.
#[derive(Debug)]
struct DevicePin {
    pages: Range<DeviceOff>,
    info: PinInfo,
    lease: Option<Lease>,
}

/// The pins of a device, and which of their pages were found in no file yet.
struct Search {
    /// By where they begin.
    pins: Vec<DevicePin>,
    /// How far the pins up to each one reach.
    reach: Vec<DeviceOff>,
    unowned: Vec<Ranges>,
}

impl Filesystem {
    /// Every pin with the file it holds, oldest first; one of pages that several files have with
    /// each of them. `None`: the pages belong to no file any more; the range then counts pages of
    /// the device. A pin of which a file has a part only is listed in parts.
    ///
    /// Walks all files if there is a pin.
    pub fn pins(&self) -> Vec<(Option<Ino>, FilePin)> {
        let mut search = Search::among(self.device_pins());
        if search.pins.is_empty() {
            return Vec::new();
        }
        let mut found: Vec<(Option<Ino>, FilePin)> = Vec::new();
        for ino in self.core().itable.in_use() {
            let mut pins = Vec::new();
            // An inode that cannot be read owns none that could be named.
            for run in self.runs_of(ino).unwrap_or_default() {
                search.add_those_of(&run, &mut pins);
            }
            found.extend(pins.into_iter().map(|pin| (Some(ino), pin)));
        }
        found.extend(search.left().into_iter().map(|pin| (None, pin)));
        found.sort_by_key(|(_, pin)| pin.info.since);
        found
    }

    /// Asks every holder of a pin to let go, because the pool is to be closed or its device goes.
    pub fn recall_pins(&self, deadline: Option<Instant>) {
        let mut told: Vec<Lease> = Vec::new();
        for lease in self.device_pins().into_iter().filter_map(|pin| pin.lease) {
            if !told.iter().any(|other| other.is_same(&lease)) {
                let (range, why) = (lease.range(), RecallReason::Wait);
                lease.recall(&RecallEvent { range, deadline, why });
                told.push(lease);
            }
        }
    }

    /// Refuses to close while a device may still store. The holders are told before.
    pub(crate) fn refuse_pinned(&self) -> Result<(), FsError> {
        self.recall_pins(None);
        let pins = self.device_pins();
        let Some(first) = pins.iter().min_by_key(|pin| pin.info.since) else {
            return Ok(());
        };
        let first = first.info.owner.label.to_string();
        Err(FsError::Pinned { pins: pins.len(), first })
    }

    /// The pins of the page maps, one for each extent of the device.
    fn device_pins(&self) -> Vec<DevicePin> {
        let store = &self.core().store;
        let mut pins = Vec::new();
        for pgmap in store.device().pgmaps() {
            for record in pgmap.pins() {
                for extent in store.extents_within(&pgmap, record.pages.clone()) {
                    let (info, lease) = (record.info.clone(), record.lease.clone());
                    pins.push(DevicePin { pages: extent.start..extent.end(), info, lease });
                }
            }
        }
        pins.sort_by_key(|pin| pin.pages.start);
        pins
    }

    fn runs_of(&self, ino: Ino) -> Result<Vec<Run>, FsError> {
        let core = self.core();
        if let Ok(inode) = core.inode(ino) {
            return inode.look(|state| state.tree.runs(&core.store, FileIndex(0)..END));
        }
        let tree = Tree::of(&core.itable.read(&core.store, ino)?)?;
        tree.runs(&core.store, FileIndex(0)..END)
    }
}

impl Search {
    fn among(pins: Vec<DevicePin>) -> Search {
        let mut end = DeviceOff(0);
        let reach = pins.iter().map(|pin| {
            end = end.max(pin.pages.end);
            end
        });
        let reach = reach.collect();
        let whole = |pin: &DevicePin| std::iter::once(pin.pages.start.0..pin.pages.end.0).collect();
        let unowned = pins.iter().map(whole).collect();
        Search { pins, reach, unowned }
    }

    /// Adds the parts of pins that lie in a run of a file, and notes that it has these pages.
    fn add_those_of(&mut self, run: &Run, found: &mut Vec<FilePin>) {
        let pages = Extent { start: run.device, pages: run.pages };
        let first = self.reach.partition_point(|reach| *reach <= pages.start);
        let last = self.pins.partition_point(|pin| pin.pages.start < pages.end());
        for at in first..last {
            let pin = &self.pins[at];
            let start = pin.pages.start.max(pages.start);
            let end = pin.pages.end.min(pages.end());
            if start < end {
                let index = run.index + start.since(pages.start);
                let range = index..index + end.since(start);
                join_pin(found, FilePin { range, info: pin.info.clone() });
                self.unowned[at].take(&(start.0..end.0));
            }
        }
    }

    /// The parts of pins that no file has, by pages of the device.
    fn left(&self) -> Vec<FilePin> {
        let mut left = Vec::new();
        for (pin, pages) in self.pins.iter().zip(&self.unowned) {
            for pages in pages.iter() {
                let range = FileIndex(pages.start)..FileIndex(pages.end);
                join_pin(&mut left, FilePin { range, info: pin.info.clone() });
            }
        }
        left
    }
}
