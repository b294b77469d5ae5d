//! The pins of a file: who holds which range of it.
//!
//! Owns the list. The pages are counted and waited for in the page map, and held there by
//! [`PinnedFolios`](crate::PinnedFolios).

use std::collections::BTreeMap;
use std::ops::Range;
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{FileIndex, PinInfo, PinKind};

/// A pin as a file lists it.
#[derive(Clone, Debug)]
pub struct FilePin {
    /// The pages of the file.
    pub range: Range<FileIndex>,
    /// Who pins them, since when and for what.
    pub info: PinInfo,
}

/// The pins of one file.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    next: u64,
    records: BTreeMap<u64, Record>,
}

#[derive(Debug)]
struct Record {
    /// What the file still has of the pinned range.
    ranges: Vec<Range<FileIndex>>,
    info: PinInfo,
    /// Whether it holds data that was shared, from which the file may have moved away.
    may_be_left: bool,
}

/// A place in the list. Dropping it takes the pin off.
#[derive(Debug)]
pub(crate) struct Listed {
    pins: Arc<Pins>,
    id: u64,
}

impl Pins {
    pub(crate) fn add(self: &Arc<Self>, range: Range<FileIndex>, info: PinInfo) -> Listed {
        let mut list = self.0.lock();
        let id = list.next;
        list.next += 1;
        let record = Record { ranges: vec![range], info, may_be_left: false };
        list.records.insert(id, record);
        Listed { pins: Arc::clone(self), id }
    }

    /// Every pin, oldest first.
    pub(crate) fn list(&self) -> Vec<FilePin> {
        self.list_where(|_| true)
    }

    /// Every pin whose pages the file cannot leave without breaking its layout.
    pub(crate) fn holding(&self) -> Vec<FilePin> {
        self.list_where(|record| !record.may_be_left)
    }

    fn list_where(&self, is_wanted: impl Fn(&Record) -> bool) -> Vec<FilePin> {
        let list = self.0.lock();
        let wanted = list.records.values().filter(|record| is_wanted(record));
        let pins = wanted.flat_map(|record| {
            let pin = |range: &Range<FileIndex>| FilePin {
                range: range.clone(),
                info: record.info.clone(),
            };
            record.ranges.iter().map(pin)
        });
        pins.collect()
    }

    /// The pins that hold any of `range`.
    pub(crate) fn overlapping(&self, range: &Range<FileIndex>) -> Vec<FilePin> {
        let overlaps = |pin: &FilePin| pin.range.start < range.end && range.start < pin.range.end;
        self.list().into_iter().filter(overlaps).collect()
    }

    /// Whether a device may store to any of `range`.
    pub(crate) fn has_writer(&self, range: &Range<FileIndex>) -> bool {
        self.overlapping(range).iter().any(|pin| pin.info.kind == PinKind::Write)
    }

    /// Takes `range` off every pin, because the file gave it up.
    pub(crate) fn detach(&self, range: &Range<FileIndex>) {
        for record in self.0.lock().records.values_mut() {
            let parts = record.ranges.drain(..).flat_map(|pinned| {
                let before = pinned.start..pinned.end.min(range.start);
                let after = pinned.start.max(range.end)..pinned.end;
                [before, after]
            });
            record.ranges = parts.filter(|part| part.start < part.end).collect();
        }
    }
}

impl Listed {
    /// The pin holds data that is shared: a store moves the file to a copy, and the pin stays with
    /// what it has.
    pub(crate) fn note_shared(&self) {
        if let Some(record) = self.pins.0.lock().records.get_mut(&self.id) {
            record.may_be_left = true;
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.pins.0.lock().records.remove(&self.id);
    }
}
