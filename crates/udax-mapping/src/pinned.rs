//! Pinned folios: a range of a file that stays where it is for as long as somebody needs it.
//!
//! Owns the handle, which needs neither the file nor its mapping: the pages are counted in the page
//! map, one handle for each extent and not one for each folio.

use crate::entry::EntryGuard;
use crate::events;
use crate::fault::{Entered, FaultError, FaultGuard};
use crate::iomap::Iomap;
use crate::mapping::Mapping;
use crate::pins::Listed;
use crate::run::{Bounds, Run};
use crate::stats::{Event, Fallback};
use std::ops::Range;
use udax_mm::sync::Arc;
use udax_mm::{
    Access, FileIndex, FolioSpan, Iovec, Lease, MediaError, Order, Pages, PgmapOff, PgmapRef,
    PinInfo, PinKind, PinnedSpan, Recall,
};

/// A pinned range of a file. Dropping it lets the pages go.
///
/// The bytes stay where they are, and stay these bytes, whatever becomes of the file: a truncate
/// waits, or leaves the pages in limbo until this is dropped. It may go to another thread.
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
pub struct PinnedFolios {
    // Let go first: while it is listed, it may still be pinned, never the other way round.
    parts: Vec<Part>,
    range: Range<FileIndex>,
    info: PinInfo,
    lease: Lease,
    listed: Listed,
    /// Whether all of the range is pinned, and it was told.
    is_granted: bool,
}

/// Pages of the range that lie side by side, in file order.
#[derive(Debug)]
struct Part {
    /// Whole folios: the first and the last may reach outside the range.
    span: PinnedSpan,
    /// First byte, counted from the start of the range.
    from: u64,
    /// The same byte of the page map.
    byte: u64,
    len: u64,
}

/// Folios that were counted on the way to a [`Part`].
struct Counted {
    folios: FolioSpan,
    index: FileIndex,
    first: PgmapOff,
    pages: Pages,
}

/// The range to be pinned, and how.
struct Request {
    range: Range<FileIndex>,
    access: Access,
}

impl Mapping {
    /// Brings in `range` and pins it: all of it, or none.
    ///
    /// Holes are allocated, also for reading: a device reads pages, not holes. A larger folio that
    /// covers part of the range is pinned as a whole.
    ///
    /// # Errors
    ///
    /// [`FaultError`] of the first page that could not be pinned. Nothing stays pinned; holes that
    /// were allocated stay allocated. Of a range that reaches past the end none is.
    pub fn pin(
        self: &Arc<Self>,
        range: Range<FileIndex>,
        info: PinInfo,
    ) -> Result<PinnedFolios, FaultError> {
        self.pin_leased(range, info, Recall::default())
    }

    /// The same, by a holder that is called when somebody wants the pages: whoever breaks the
    /// layout of a part of `range` recalls the lease before it waits for the pin. Nothing is taken
    /// by force: the pin lasts until it is dropped. If somebody waits already the recall comes
    /// before this returns.
    ///
    /// # Errors
    ///
    /// As [`pin`](Mapping::pin).
    pub fn pin_leased(
        self: &Arc<Self>,
        range: Range<FileIndex>,
        info: PinInfo,
        recall: Recall,
    ) -> Result<PinnedFolios, FaultError> {
        if range.is_empty() {
            return Err(FaultError::Empty);
        }
        let access = match info.kind {
            PinKind::Read => Access::Read,
            PinKind::Write => Access::Write,
        };
        // Let go after the layout lock, if the pin fails: its callback owns what may use the file.
        let lease = Lease::new(range.clone(), recall);
        // Before the pin is listed: nobody has one while the layout is broken (I-52).
        let faults = self.faults();
        let owner = faults.owner()?;
        if access == Access::Write && !owner.permits_stores() {
            return Err(FaultError::Forbidden(range.start));
        }
        // Before the holes are filled that lie before the end.
        let end = owner.end();
        if range.end > end {
            return Err(FaultError::PastEnd(range.start.max(end)));
        }
        let mut pinned = PinnedFolios {
            parts: Vec::new(),
            range: range.clone(),
            info: info.clone(),
            lease: lease.clone(),
            listed: self.pin_list().add(range.clone(), info),
            is_granted: false,
        };
        let request = Request { range, access };
        let mut at = request.range.start;
        while at < request.range.end {
            let next = pinned.add_run(&faults, &request, at);
            at = next.inspect_err(|why| self.counters().lost(why))?;
        }
        drop(faults);
        pinned.is_granted = true;
        self.counters().event(Event::Pin);
        events::pin(&pinned.range, &pinned.info);
        pinned
            .parts
            .iter()
            .for_each(|part| self.wanted().recall(&pinned.lease, &pinned.held(part)));
        Ok(pinned)
    }
}

impl PinnedFolios {
    /// The pages of the file that were pinned.
    pub fn range(&self) -> Range<FileIndex> {
        self.range.clone()
    }

    /// Who pins them, since when and for what.
    pub fn info(&self) -> &PinInfo {
        &self.info
    }

    /// How others ask for the pages back.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// What is pinned, in file order: whole folios, so the first and the last may reach outside the
    /// range.
    pub fn spans(&self) -> impl Iterator<Item = &PinnedSpan> {
        self.parts.iter().map(|part| &part.span)
    }

    /// The pages of the range in their page maps, in file order.
    pub fn pages(&self) -> impl Iterator<Item = (&PgmapRef, Range<PgmapOff>)> {
        self.parts.iter().map(|part| {
            let start = PgmapOff::of_byte(part.byte);
            (part.span.pgmap(), start.span(Pages::holding(part.len)))
        })
    }

    /// Where the pages of the range are in this process, in file order (`struct iovec`). The
    /// addresses stay good for as long as the pin does.
    ///
    /// # Errors
    ///
    /// As [`PinnedSpan::iovecs`].
    pub fn iovecs(&self) -> Result<Vec<Iovec>, MediaError> {
        self.iovecs_of(0, self.range.end.since(self.range.start).bytes())
    }

    /// The same for the `len` bytes from byte `from` of the range on.
    ///
    /// # Errors
    ///
    /// As [`iovecs`](PinnedFolios::iovecs).
    pub fn iovecs_of(&self, from: u64, len: u64) -> Result<Vec<Iovec>, MediaError> {
        let mut iovecs = Vec::new();
        for part in &self.parts {
            let skip = part.byte - part.span.pages().start.byte();
            iovecs.extend(cut(part.span.iovecs()?, skip, part.len));
        }
        Ok(cut(iovecs, from, len))
    }

    /// Copies bytes out, from byte `from` of the range on.
    ///
    /// # Errors
    ///
    /// [`MediaError::OutOfRange`] if the bytes do not lie in the range, before any is copied; or
    /// what the medium reports.
    pub fn read(&self, from: u64, into: &mut [u8]) -> Result<(), MediaError> {
        self.for_each_piece(from, into.len(), |span, byte, piece| {
            span.pgmap().read(byte, &mut into[piece])
        })
    }

    /// Copies bytes in, from byte `at` of the range on.
    ///
    /// # Errors
    ///
    /// As [`read`](PinnedFolios::read), and [`MediaError::ReadOnly`] if it was pinned for reading:
    /// nobody would write such a store back.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        if self.info.kind == PinKind::Read {
            return Err(MediaError::ReadOnly);
        }
        self.for_each_piece(at, bytes.len(), |span, byte, piece| {
            span.pgmap().write(byte, &bytes[piece])
        })
    }

    /// Pins what the owner has in one run from `index` on. Returns the first index behind it.
    fn add_run(
        &mut self,
        faults: &FaultGuard<'_>,
        request: &Request,
        index: FileIndex,
    ) -> Result<FileIndex, FaultError> {
        let Entered { mut entry, found, mut reason } =
            faults.enter(index, Access::Read, request)?;
        let is_own = matches!(found, Iomap::Data { is_shared: false, .. });
        let is_data = matches!(found, Iomap::Data { .. });
        let found = match request.access {
            Access::Write if !is_own => entry.iomap(Access::Write)?,
            Access::Read if !is_data => entry.iomap(Access::Write)?,
            _ => found,
        };
        let run = match found {
            Iomap::Data { span, start, is_shared, new } => {
                // Also if what follows fails: what was allocated stays so (B-12).
                faults.note_new(new);
                Run::new(span, start, is_shared)
            }
            Iomap::PastEnd => return Err(FaultError::PastEnd(index)),
            Iomap::Hole { .. } => return Err(FaultError::NotAllocated(index)),
        };
        let end = run.range().end.min(request.range.end);
        if run.is_shared() {
            return self.add_shared(faults, request, entry, &run, end);
        }
        let mut counted: Option<Counted> = None;
        let at = loop {
            entry.fault_run(&run, reason, Order::Base)?;
            let next = Counted::of(&mut entry, request);
            let at = next.index + next.pages;
            self.add(&mut counted, next);
            drop(entry);
            // Only `enter` locks blocks of 1 GiB.
            if at >= end || at.is_aligned(Order::Pud) {
                break at;
            }
            (entry, reason) = faults.lock_block(at, request);
        };
        self.parts.extend(counted.map(|counted| self.to_part(counted)));
        Ok(at)
    }

    /// Pins data that the file shares, from the page of `entry` up to `end` or as far as nobody is in
    /// the way. Returns the first index behind it.
    ///
    /// It is pinned before its entries are unlocked: from then on the file may move away, and whoever
    /// has the pages alone then stores to them unless they are pinned (rule 27).
    fn add_shared<'g, 'm>(
        &mut self,
        faults: &'g FaultGuard<'m>,
        request: &Request,
        mut entry: EntryGuard<'g, 'm>,
        run: &Run,
        end: FileIndex,
    ) -> Result<FileIndex, FaultError> {
        entry.fault_run(run, None, Order::Base)?;
        let mut locked = faults.lock_shared(&entry, end, |_| false);
        locked.insert(0, entry);
        let at = request.range.end.min(locked[locked.len() - 1].range().end);
        let mut counted: Option<Counted> = None;
        for entry in &mut locked {
            let next = Counted::of(entry, request);
            self.add(&mut counted, next);
        }
        self.listed.note_shared();
        self.parts.extend(counted.map(|counted| self.to_part(counted)));
        drop(locked);
        Ok(at)
    }

    /// Adds folios to those that are counted, if there are any.
    fn add(&mut self, counted: &mut Option<Counted>, next: Counted) {
        match counted {
            Some(counted) => self.extend(counted, next),
            None => *counted = Some(next),
        }
    }

    /// Adds folios to those before, or pins those and starts anew.
    fn extend(&mut self, counted: &mut Counted, next: Counted) {
        let Counted { folios, index, first, pages } = next;
        let is_next = counted.folios.pages().end == folios.pages().start;
        let joined = if is_next { counted.folios.append(folios) } else { Err(folios) };
        match joined {
            Ok(()) => counted.pages = counted.pages + pages,
            Err(folios) => {
                let before = std::mem::replace(counted, Counted { folios, index, first, pages });
                let part = self.to_part(before);
                self.parts.push(part);
            }
        }
    }

    /// The pages of the file that a part holds, also those outside the range.
    fn held(&self, part: &Part) -> Range<FileIndex> {
        let pages = part.span.pages();
        let first = PgmapOff::of_byte(part.byte);
        let index = self.range.start + Pages::holding(part.from);
        // A folio that somebody counted before may reach back past the start of the file.
        let start = index.0.saturating_sub(first.since(pages.start).0);
        FileIndex(start)..index + pages.end.since(first)
    }

    fn to_part(&self, counted: Counted) -> Part {
        let from = counted.index.since(self.range.start).bytes();
        let (byte, len) = (counted.first.byte(), counted.pages.bytes());
        let span = counted.folios.into_leased(self.info.clone(), self.lease.clone());
        Part { span, from, byte, len }
    }

    /// Calls `each` with the folios, the byte of their page map, and the part of the buffer.
    fn for_each_piece(
        &self,
        from: u64,
        len: usize,
        mut each: impl FnMut(&PinnedSpan, u64, Range<usize>) -> Result<(), MediaError>,
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
            each(&part.span, part.byte + skip, piece)?;
        }
        Ok(())
    }
}

impl Drop for PinnedFolios {
    fn drop(&mut self) {
        if self.is_granted {
            events::unpin(&self.range, &self.info);
        }
    }
}

impl Counted {
    /// What the entry has of the request.
    fn of(entry: &mut EntryGuard<'_, '_>, request: &Request) -> Counted {
        let index = entry.asked();
        let first = entry.page().expect("a fault inserts the entry");
        let pages = entry.range().end.min(request.range.end).since(index);
        Counted { folios: entry.take_pinned(request.access), index, first, pages }
    }
}

impl Bounds for Request {
    fn block_around(&self, index: FileIndex, order: Order) -> Result<FileIndex, Fallback> {
        let head = index.align_down(order);
        let is_inside = head >= self.range.start && head + order.pages() <= self.range.end;
        if is_inside { Ok(head) } else { Err(Fallback::Bounds) }
    }
}

/// The `len` bytes behind the first `skip` of a list.
fn cut(iovecs: Vec<Iovec>, mut skip: u64, mut len: u64) -> Vec<Iovec> {
    let mut kept = Vec::new();
    for iovec in iovecs {
        let size = u64::try_from(iovec.len).expect("memory of this process");
        let before = skip.min(size);
        let taken = (size - before).min(len);
        (skip, len) = (skip - before, len - taken);
        if taken > 0 {
            let in_memory = |bytes: u64| usize::try_from(bytes).expect("memory of this process");
            let address = iovec.start.addr().checked_add(in_memory(before));
            let address = address.expect("memory does not end at the last address");
            kept.push(Iovec { start: iovec.start.with_addr(address), len: in_memory(taken) });
        }
    }
    kept
}
