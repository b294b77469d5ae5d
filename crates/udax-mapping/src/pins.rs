//! Pins: ranges of a file that stay where they are for as long as somebody needs them.
//!
//! Owns the list of pins of a file, by range and by who. The pages are counted and waited for in
//! the page map; a [`PinnedRange`] holds them there and needs neither the file nor its mapping.

use crate::entry::EntryGuard;
use crate::fallback::Fallback;
use crate::fault::{FaultError, FaultGuard, Run};
use crate::index::Block;
use crate::iomap::Iomap;
use crate::mapping::Mapping;
use std::collections::BTreeMap;
use std::ops::Range;
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{Access, FileIndex, MediaError, Order, PgmapOff, PinInfo, PinKind, PinnedFolio};

/// A pin as a file lists it.
#[derive(Clone, Debug)]
pub struct FilePin {
    /// The pages of the file.
    pub range: Range<FileIndex>,
    /// Who pins them, since when and for what.
    pub info: PinInfo,
}

/// A pinned range of a file. Dropping it lets the pages go.
///
/// The bytes stay where they are, and stay these bytes, whatever becomes of the file: a truncate
/// waits, or leaves the pages in limbo until this is dropped.
///
/// # Examples
///
/// ```
/// # mod owner { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/owner.inc")); }
/// # use owner::WholeDevice;
/// # use std::time::Instant;
/// # use udax_mapping::BreakError;
/// # use udax_mm::{FileIndex, Pages, PinInfo, PinKind, PinOwner, PinTerm, Wait};
/// let file = WholeDevice::new(Pages(4))?;
/// let owner = PinOwner { process: std::process::id(), connection: 0, label: "nic".into() };
/// let (kind, term) = (PinKind::Read, PinTerm::Long);
/// let info = PinInfo { owner, since: Instant::now(), kind, term };
///
/// let pin = file.mapping.pin(FileIndex(1)..FileIndex(3), info)?;
/// let refused = file.mapping.break_layout(FileIndex(0)..FileIndex(4), Wait::Never);
/// assert!(matches!(refused, Err(BreakError::Pinned { index: FileIndex(1), .. })));
///
/// drop(pin);
/// let _broken = file.mapping.break_layout(FileIndex(0)..FileIndex(4), Wait::Never)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PinnedRange {
    // Let go first: while it is listed, it may still be pinned, never the other way round.
    folios: Vec<PinnedFolio>,
    /// One for each folio, in file order.
    parts: Vec<Part>,
    range: Range<FileIndex>,
    info: PinInfo,
    _listed: Listed,
}

/// The bytes of a range that lie in one folio.
#[derive(Debug)]
struct Part {
    /// First byte, counted from the start of the range.
    from: u64,
    /// The same byte of the page map.
    byte: u64,
    len: u64,
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
}

/// A place in the list. Dropping it takes the pin off.
#[derive(Debug)]
struct Listed {
    pins: Arc<Pins>,
    id: u64,
}

impl Mapping {
    /// Brings in `range` and pins it: all of it, or none.
    ///
    /// Holes are allocated, also for reading: a device reads pages, not holes. A folio of 2 MiB
    /// that covers part of the range is pinned as a whole.
    ///
    /// # Errors
    ///
    /// [`FaultError`] of the first page that could not be pinned. Nothing stays pinned; holes that
    /// were allocated stay allocated.
    pub fn pin(
        self: &Arc<Self>,
        range: Range<FileIndex>,
        info: PinInfo,
    ) -> Result<PinnedRange, FaultError> {
        if range.is_empty() {
            return Err(FaultError::Empty);
        }
        let faults = self.faults();
        let mut pinned = PinnedRange {
            folios: Vec::new(),
            parts: Vec::new(),
            range: range.clone(),
            info: info.clone(),
            _listed: self.pin_list().add(range.clone(), info),
        };
        let mut at = range.start;
        while at < range.end {
            at = pinned.add(&faults, at)?;
        }
        Ok(pinned)
    }
}

impl PinnedRange {
    /// The pages of the file that were pinned.
    pub fn range(&self) -> Range<FileIndex> {
        self.range.clone()
    }

    /// Who pins them, since when and for what.
    pub fn info(&self) -> &PinInfo {
        &self.info
    }

    /// The pinned folios in file order. The first and the last may reach outside the range.
    pub fn folios(&self) -> &[PinnedFolio] {
        &self.folios
    }

    /// Copies bytes out, from byte `from` of the range on.
    ///
    /// # Errors
    ///
    /// [`MediaError::OutOfRange`] if the bytes do not lie in the range, before any is copied; or
    /// what the medium reports.
    pub fn read(&self, from: u64, into: &mut [u8]) -> Result<(), MediaError> {
        self.for_each_piece(from, into.len(), |folio, byte, piece| {
            folio.pgmap().read(byte, &mut into[piece])
        })
    }

    /// Copies bytes in, from byte `at` of the range on.
    ///
    /// # Errors
    ///
    /// As [`read`](PinnedRange::read), and [`MediaError::ReadOnly`] if it was pinned for reading:
    /// nobody would write such a store back.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        if self.info.kind == PinKind::Read {
            return Err(MediaError::ReadOnly);
        }
        self.for_each_piece(at, bytes.len(), |folio, byte, piece| {
            folio.pgmap().write(byte, &bytes[piece])
        })
    }

    /// Pins the folio at `index`. Returns the first index behind it.
    fn add(&mut self, faults: &FaultGuard<'_>, index: FileIndex) -> Result<FileIndex, FaultError> {
        let wanted = self.block_around(index);
        let (entry, reason) = faults.lock_largest(index, wanted);
        let mut found = entry.iomap(Access::Read)?;
        let is_allocated = matches!(found, Iomap::Hole { .. });
        if is_allocated || self.info.kind == PinKind::Write {
            found = entry.iomap(Access::Write)?;
        }
        let (span, start) = match found {
            Iomap::Data { span, start, .. } => (span, start),
            Iomap::PastEnd => return Err(FaultError::PastEnd(index)),
            Iomap::Hole { .. } => return Err(FaultError::NotAllocated(index)),
        };
        let run = Run::new(span, start);
        let pinned = self.add_run(entry, &run, reason);
        // Also if that failed: what was allocated stays so (B-12).
        if is_allocated {
            faults.invalidate_holes(run.range());
        }
        pinned
    }

    /// Pins the folio of a locked entry, which lies in `run`. Returns the first index behind it.
    fn add_run(
        &mut self,
        mut entry: EntryGuard<'_, '_>,
        run: &Run,
        reason: Option<Fallback>,
    ) -> Result<FileIndex, FaultError> {
        entry.fault_run(run, reason)?;
        let folio = entry.pin(self.info.clone()).expect("the folio was faulted in");
        Ok(self.push(folio, &entry.block(), entry.asked()))
    }

    /// The 2 MiB block around `index`, if it lies in the range.
    fn block_around(&self, index: FileIndex) -> Result<FileIndex, Fallback> {
        let head = index.align_down(Order::Pmd);
        let is_inside = head >= self.range.start && head + Order::Pmd.pages() <= self.range.end;
        if is_inside { Ok(head) } else { Err(Fallback::RangeTooShort) }
    }

    fn push(&mut self, folio: PinnedFolio, block: &Block, index: FileIndex) -> FileIndex {
        let first = block.entry.as_ref().expect("a fault inserts the entry").first;
        let end = block.range().end.min(self.range.end);
        let at: PgmapOff = first + index.since(block.head);
        self.parts.push(Part {
            from: index.since(self.range.start).bytes(),
            byte: at.byte(),
            len: end.since(index).bytes(),
        });
        self.folios.push(folio);
        end
    }

    /// Calls `each` with the folio, the byte of its page map, and the part of the buffer.
    fn for_each_piece(
        &self,
        from: u64,
        len: usize,
        mut each: impl FnMut(&PinnedFolio, u64, Range<usize>) -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        let size = self.range.end.since(self.range.start).bytes();
        let long = u64::try_from(len).expect("a buffer is shorter than 2^64 bytes");
        if from.checked_add(long).is_none_or(|end| end > size) {
            return Err(MediaError::OutOfRange { at: from, len: long });
        }
        let mut done = 0;
        while done < len {
            let at = from + u64::try_from(done).expect("a buffer is shorter than 2^64 bytes");
            let index = self.parts.partition_point(|part| part.from <= at) - 1;
            let part = &self.parts[index];
            let skip = at - part.from;
            let left = usize::try_from(part.len - skip).unwrap_or(usize::MAX);
            let piece = done..len.min(done.saturating_add(left));
            done = piece.end;
            each(&self.folios[index], part.byte + skip, piece)?;
        }
        Ok(())
    }
}

impl Pins {
    fn add(self: &Arc<Self>, range: Range<FileIndex>, info: PinInfo) -> Listed {
        let mut list = self.0.lock();
        let id = list.next;
        list.next += 1;
        list.records.insert(id, Record { ranges: vec![range], info });
        Listed { pins: Arc::clone(self), id }
    }

    /// Every pin, oldest first.
    pub(crate) fn list(&self) -> Vec<FilePin> {
        let list = self.0.lock();
        let pins = list.records.values().flat_map(|record| {
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

impl Drop for Listed {
    fn drop(&mut self) {
        self.pins.0.lock().records.remove(&self.id);
    }
}
