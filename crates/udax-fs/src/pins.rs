//! Which pins hold which file, found by asking the page maps and walking the trees.

use std::time::Instant;

use udax_mapping::FilePin;
use udax_mm::{DeviceOff, FileIndex, Lease, PinRecord, RecallEvent, RecallReason};

use crate::inode::END;
use crate::tree::{Run, Tree};
use crate::{Filesystem, FsError, Ino};

/// A pin on adjacent pages of the device.
struct DevicePin {
    at: DeviceOff,
    record: PinRecord,
}

impl Filesystem {
    /// Every pin with the file it holds, oldest first. `None`: the pages belong to no file any
    /// more; the range then counts pages of the device.
    ///
    /// Walks all files if there is a pin.
    pub fn pins(&self) -> Vec<(Option<Ino>, FilePin)> {
        let pins = self.device_pins();
        if pins.is_empty() {
            return Vec::new();
        }
        let mut owners = vec![None; pins.len()];
        for ino in self.core().itable.in_use() {
            // An inode that cannot be read owns none that could be named.
            for run in self.runs_of(ino).unwrap_or_default() {
                note_owner(&mut owners, &pins, ino, &run);
            }
        }
        let mut found: Vec<(Option<Ino>, FilePin)> = Vec::new();
        for (pin, owner) in pins.into_iter().zip(owners) {
            push_pin(&mut found, pin, owner);
        }
        found.sort_by_key(|(_, pin)| pin.info.since);
        found
    }

    /// Asks every holder of a pin to let go, because the pool is to be closed or its device goes.
    pub fn recall_pins(&self, deadline: Option<Instant>) {
        let mut told: Vec<Lease> = Vec::new();
        for lease in self.device_pins().into_iter().filter_map(|pin| pin.record.lease) {
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
        let Some(first) = pins.iter().min_by_key(|pin| pin.record.info.since) else {
            return Ok(());
        };
        let first = first.record.info.owner.label.to_string();
        Err(FsError::Pinned { pins: pins.len(), first })
    }

    fn device_pins(&self) -> Vec<DevicePin> {
        let device = self.core().store.device();
        let mut pins = Vec::new();
        for pgmap in device.pgmaps() {
            for record in pgmap.pins() {
                if let Some(at) = device.device_off(&pgmap, record.pages.start) {
                    pins.push(DevicePin { at, record });
                }
            }
        }
        pins.sort_by_key(|pin| pin.at);
        pins
    }

    fn runs_of(&self, ino: Ino) -> Result<Vec<Run>, FsError> {
        let core = self.core();
        if let Ok(inode) = core.inode(ino) {
            // Nobody frees nodes of the tree while it is read.
            let _faults = inode.mapping().faults();
            let tree = inode.node().read().tree;
            return tree.runs(&core.store, FileIndex(0)..END);
        }
        let tree = Tree::of(&core.itable.read(&core.store, ino)?)?;
        tree.runs(&core.store, FileIndex(0)..END)
    }
}

/// Notes the owner of the pins whose first page lies in `run`.
fn note_owner(owners: &mut [Option<(Ino, FileIndex)>], pins: &[DevicePin], ino: Ino, run: &Run) {
    let first = pins.partition_point(|pin| pin.at < run.device);
    let last = pins.partition_point(|pin| pin.at < run.device + run.pages);
    for at in first..last {
        owners[at] = Some((ino, run.index + pins[at].at.since(run.device)));
    }
}

/// Adds a pin, or makes the one before it longer: one pin of a range is recorded once per folio.
fn push_pin(
    found: &mut Vec<(Option<Ino>, FilePin)>,
    pin: DevicePin,
    owner: Option<(Ino, FileIndex)>,
) {
    let (ino, start) = match owner {
        Some((ino, index)) => (Some(ino), index),
        None => (None, FileIndex(pin.at.0)),
    };
    let range = start..start + pin.record.pages.end.since(pin.record.pages.start);
    let info = pin.record.info;
    if let Some((last_ino, last)) = found.last_mut()
        && *last_ino == ino
        && last.range.end == range.start
        && last.info.since == info.since
        && last.info.owner == info.owner
    {
        last.range.end = range.end;
        return;
    }
    found.push((ino, FilePin { range, info }));
}
