//! `log-writes DEVICE LOG`: pages of one device, the stores to which are recorded.

use crate::DaxDevice;
use crate::plan::Plan;
use crate::table::{Advice, Field, Placed};
use crate::targets::{Member, Rules};
use std::fmt::Debug;
use std::ops::Range;
use udax_mm::image::LINE_SIZE;
use udax_mm::media::Site;
use udax_mm::recorder::Event;
use udax_mm::sync::{Arc, Mutex};
use udax_mm::units::PAGE_BYTES;
use udax_mm::{DeviceOff, MediaError, Pages, PgmapOff, PgmapRef, StoreTap};

/// Where recorded events go.
pub trait EventSink: Send + Sync + Debug {
    /// Something happened. Called for each line in the order in which it did there, by one thread at a
    /// time; for lines that share a sink by several at once.
    fn record(&self, event: Event);
}

impl EventSink for Mutex<Vec<Event>> {
    fn record(&self, event: Event) {
        self.lock().push(event);
    }
}

/// Pages of one device, the stores to which are recorded (`dm-log-writes`): as events of the
/// [recorder](udax_mm::recorder), in bytes of the line.
///
/// What is recorded is what passes through page maps: copies, flushes and fences; of a device of
/// several page maps a fence is recorded for each. A store of the processor through a mapping is not
/// seen, as in Linux. While a table is replaced by another that records to the same place, an access
/// may be recorded by both.
#[derive(Clone, Debug)]
pub struct LogWrites {
    member: Member,
    sink: Arc<dyn EventSink>,
}

/// Sees what is done to the pages of one line.
#[derive(Debug)]
pub(crate) struct Tap {
    line: LogWrites,
    pages: Pages,
    /// One store at a time, so that what is recorded is in order.
    turn: Mutex<Turn>,
}

/// What the lock of [`Tap`] is around.
#[derive(Debug, Default)]
struct Turn;

impl LogWrites {
    /// The pages of `device` from its first on; what is stored there goes to `sink`.
    pub fn new(device: Arc<dyn DaxDevice>, sink: Arc<dyn EventSink>) -> LogWrites {
        LogWrites { member: Member { device, from: DeviceOff(0) }, sink }
    }

    /// Starts to record the first `pages` pages, for as long as the tap is kept.
    pub(crate) fn tap(&self, pages: Pages) -> Arc<Tap> {
        let tap = Arc::new(Tap { line: self.clone(), pages, turn: Mutex::default() });
        for pgmap in self.member.device.pgmaps() {
            let weak = Arc::downgrade(&tap);
            pgmap.tap(weak);
        }
        tap
    }
}

impl Tap {
    /// The bytes of the line that are `bytes` of a page map, with where they are there: page by
    /// page, because every page may lie somewhere else.
    fn parts<'a>(
        &'a self,
        pgmap: &'a PgmapRef,
        bytes: &'a Range<u64>,
    ) -> impl Iterator<Item = (u64, Range<u64>)> + 'a {
        let pages = bytes.start / PAGE_BYTES..bytes.end.div_ceil(PAGE_BYTES);
        pages.filter_map(|page| {
            let page = PgmapOff(page);
            let at = self.line.member.device.device_off(pgmap.pgmap(), page)?;
            if at.0 >= self.pages.0 {
                return None;
            }
            let start = bytes.start.max(page.byte());
            let end = bytes.end.min((page + Pages(1)).byte());
            Some((at.byte() + (start - page.byte()), start..end))
        })
    }

    fn record_store(&self, pgmap: &PgmapRef, at: u64, bytes: &Range<u64>) {
        let shift = bytes.start - bytes.start / 8 * 8;
        let units = bytes.start - shift..bytes.end;
        for unit in units.clone().step_by(8) {
            // Past the mark of a page that is just being healed.
            let page = PgmapOff(unit / PAGE_BYTES);
            let (media, start) = pgmap.locate(page);
            // Unreadable is what was just stored only if the memory failed since.
            let Ok(value) = media.load_u64(start + (unit - page.byte())) else { continue };
            self.line.sink.record(Event::Store { at: at - shift + (unit - units.start), value });
        }
    }
}

impl StoreTap for Tap {
    fn store(
        &self,
        pgmap: &PgmapRef,
        bytes: Range<u64>,
        store: &mut dyn FnMut() -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        let mut parts = self.parts(pgmap, &bytes).peekable();
        if parts.peek().is_none() {
            return store();
        }
        let turn = self.turn.lock();
        store()?;
        parts.for_each(|(at, bytes)| self.record_store(pgmap, at, &bytes));
        drop(turn);
        Ok(())
    }

    fn flush(
        &self,
        pgmap: &PgmapRef,
        bytes: Range<u64>,
        site: Site,
        flush: &mut dyn FnMut() -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        let line_size = u64::try_from(LINE_SIZE).expect("a small constant");
        let turn = self.turn.lock();
        flush()?;
        for (at, bytes) in self.parts(pgmap, &bytes) {
            let end = at + (bytes.end - bytes.start);
            for line in at / line_size..end.div_ceil(line_size) {
                self.line.sink.record(Event::Flush { line, site });
            }
        }
        drop(turn);
        Ok(())
    }

    fn fenced(&self, site: Site) {
        let turn = self.turn.lock();
        self.line.sink.record(Event::Fence { site });
        drop(turn);
    }
}

impl Rules for LogWrites {
    fn name(&self) -> &'static str {
        "log-writes"
    }

    fn members(&self) -> &[Member] {
        std::slice::from_ref(&self.member)
    }

    fn argument_of(&self, _member: usize) -> Field {
        Field::Argument(1)
    }

    fn plan(&self, pages: Pages, _line: &str) -> Plan {
        self.member.plan(pages)
    }

    fn advice(&self, line: &Placed<'_>) -> Option<Advice> {
        line.of_first_pages()
    }
}
