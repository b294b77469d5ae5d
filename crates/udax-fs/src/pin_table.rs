//! The pin table: the pages that long-term pins hold, on the medium, for whoever opens the pool
//! after its owner died.
//!
//! This file owns the pages of the table, the places of records in them, and the order of stores:
//! a [`PinGrant`] only comes out of the fence that made its records durable (rule 35), and dropping
//! it takes them out again. Nothing here is a transaction: a record checks itself, and zero in its
//! first 8 bytes, which are stored at once, frees it. docs/format.md tells what a crash leaves.

use std::collections::BTreeSet;
use std::ops::Range;

use udax_mm::sync::{Arc, Mutex};
use udax_mm::units::PAGE_BYTES;
use udax_mm::{DeviceOff, PAGE_SIZE, Pages};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::FsError;
use crate::alloc::Extent;
use crate::format::{Geometry, PinPageHeader, PinRecord};
use crate::num::to_u64;
use crate::pin_record::{Found, PinEntry, PinHolder, PinState};
use crate::store::{Fresh, Store};
use crate::stored::{Data, Dirty, Durable, Object, Stored};

/// Bytes of a record, and of the header in its place at the start of each page.
const RECORD_BYTES: u64 = 128;

/// Records of a page.
const PER_PAGE: u64 = PAGE_BYTES / RECORD_BYTES - 1;

/// The number of a record, counted over all pages of the table.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place(u64);

/// The table of a mounted filesystem.
#[derive(Debug)]
pub(crate) struct PinTable {
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    /// Those that are always there, then the chained ones.
    pages: Vec<DeviceOff>,
    /// How many are always there.
    fixed: usize,
    /// Places without a pin.
    free: BTreeSet<Place>,
    /// Places of the pins of this session.
    granted: u64,
    is_closed: bool,
}

/// What the medium has of a table.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) pages: Vec<DeviceOff>,
    pub(crate) pins: Vec<Recorded>,
    /// Places with bytes of a record that was never granted.
    pub(crate) torn: Vec<Place>,
    /// Why the chain cannot be followed from its last page.
    pub(crate) broken: Option<String>,
}

/// A pin as it lies on the medium.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) written: Written,
    pub(crate) pin: PinEntry,
    /// Its first word once it is noted that the pin is in quarantine.
    quarantined: u64,
}

/// A record as it was stored: where it lies, and its first word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Written {
    pub(crate) place: Place,
    at: u64,
    word: u64,
}

/// The proof that a pin is recorded durably. Dropping it takes the records out, durably.
///
/// If the device is gone or fails then, they stay, and the next mount holds their pages in
/// quarantine.
#[must_use]
#[derive(Debug)]
pub(crate) struct PinGrant {
    store: Arc<Store>,
    written: Vec<Written>,
}

/// Places for the records of one pin.
#[derive(Debug)]
struct Taken {
    /// With the first byte of each.
    places: Vec<(Place, u64)>,
    /// The words by which one finds the chained pages among theirs.
    chain: Vec<u64>,
}

/// What follows a page of a table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Page(DeviceOff),
    End,
    /// Nobody knows.
    Invalid,
}

/// Pages by which a table grows.
#[derive(Debug)]
struct TablePages {
    fresh: Vec<Fresh>,
}

impl PinGrant {
    /// Records a pin of `extents` by `holder`. Durable at return.
    ///
    /// # Errors
    ///
    /// [`FsError::PinTableFull`] if the table is full and cannot grow, [`FsError::Closed`], and the
    /// device's. Nothing is recorded then.
    pub(crate) fn record(
        store: &Arc<Store>,
        holder: &PinHolder,
        extents: &[Extent],
    ) -> Result<PinGrant, FsError> {
        store.check_writable()?;
        let Taken { places, chain } = store.pins.take(store, extents.len())?;
        let record = |extent: &Extent| PinRecord::of(PinState::Held, holder, *extent);
        let records: Vec<PinRecord> = extents.iter().map(record).collect();
        let written = places.iter().zip(&records);
        let written = written.map(|(&(place, at), record)| Written::new(place, at, record));
        // From here on an error takes out again what was written.
        let grant = PinGrant { store: Arc::clone(store), written: written.collect() };
        for run in runs(&grant.written) {
            let (at, records) = (grant.written[run.start].at, records[run].as_bytes());
            store.bytes().write(at, records)?;
            store.flush(at, to_u64(records.len()))?;
        }
        // Another thread may have chained the pages: its flushes are none of this fence.
        for word in chain {
            store.flush(word, 8)?;
        }
        store.fence()?;
        Ok(grant)
    }
}

impl Drop for PinGrant {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; the records stay, which keeps their pages safe.
        let _ = self.store.erase_records(&self.written);
        self.store.pins.give_back(&self.written);
    }
}

impl PinTable {
    /// An empty table.
    pub(crate) fn new(geometry: &Geometry) -> PinTable {
        let pages = fixed_pages(geometry);
        let free = places(0..to_u64(pages.len())).collect();
        let fixed = pages.len();
        PinTable { table: Mutex::new(Table { pages, fixed, free, granted: 0, is_closed: false }) }
    }

    /// Makes a device's table empty; durable after the next fence.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn wipe(store: &Store) -> Result<(), FsError> {
        let Geometry { pins, pins_pages, .. } = *store.geometry();
        store.bytes().zero(pins.byte(), pins_pages.bytes())?;
        store.flush(pins.byte(), pins_pages.bytes())
    }

    /// Goes on with what the medium has, whose free places are known.
    pub(crate) fn adopt(&self, pages: Vec<DeviceOff>, taken: impl Iterator<Item = Place>) {
        let mut table = self.table.lock();
        table.free = places(0..to_u64(pages.len())).collect();
        table.pages = pages;
        for place in taken {
            assert!(table.free.remove(&place), "a place is read once");
        }
    }

    /// Lets nobody record from here on, and takes out what dropped pins left because the device
    /// failed them. Durable after the next fence.
    ///
    /// # Errors
    ///
    /// [`FsError::Pinned`] if a pin is recorded; the device's.
    pub(crate) fn close(&self, store: &Store) -> Result<(), FsError> {
        let mut table = self.table.lock();
        if table.granted > 0 {
            let first = "one that was granted a moment ago".to_owned();
            return Err(FsError::Pinned { pins: 1, first });
        }
        for place in &table.free {
            let at = place.byte(&table.pages);
            if store.load_u64(at)? != 0 {
                store.clear_word(at)?;
            }
        }
        table.trim(store)?;
        table.is_closed = true;
        Ok(())
    }

    /// Takes pages without a record off the end of the chain. They may be used by something else
    /// after the next fence.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn trim(&self, store: &Store) -> Result<Vec<Extent>, FsError> {
        self.table.lock().trim(store)
    }

    /// The place of a record may be used again.
    fn give_back(&self, written: &[Written]) {
        let mut table = self.table.lock();
        table.free.extend(written.iter().map(|record| record.place));
        table.granted -= to_u64(written.len());
    }

    /// The places of records that were in quarantine may be used again.
    pub(crate) fn give_back_released(&self, written: &[Written]) {
        self.table.lock().free.extend(written.iter().map(|record| record.place));
    }

    /// Takes `count` places.
    fn take(&self, store: &Store, count: usize) -> Result<Taken, FsError> {
        let mut table = self.table.lock();
        if table.is_closed {
            return Err(FsError::Closed);
        }
        if table.free.len() < count {
            table.grow(store, count)?;
        }
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            let place = table.free.pop_first().expect("the table grew by what was missing");
            places.push((place, place.byte(&table.pages)));
        }
        table.granted += to_u64(count);
        let last = places.last().map_or(0, |(place, _)| place.page());
        let chain = table.pages[..last].iter().skip(table.fixed - 1);
        Ok(Taken { places, chain: chain.map(|page| page.byte()).collect() })
    }

    /// Compares memory with the medium.
    ///
    /// # Errors
    ///
    /// Says the first thing that is wrong.
    pub(crate) fn verify(&self, loaded: &Loaded) -> Result<(), String> {
        let table = self.table.lock();
        if let Some(found) = &loaded.broken {
            return Err(format!("the pin table: {found}"));
        }
        if loaded.pages != table.pages {
            return Err(format!("the pin table has pages {:?}", loaded.pages));
        }
        let all = to_u64(table.pages.len()) * PER_PAGE;
        let recorded = to_u64(loaded.pins.len());
        if recorded != all - to_u64(table.free.len()) {
            return Err(format!(
                "{recorded} pins are recorded, {} of {all} places are free",
                table.free.len()
            ));
        }
        let mut places = loaded.pins.iter().map(|found| found.written.place);
        match places.find(|place| table.free.contains(place)) {
            Some(place) => Err(format!("record {} is free in memory", place.0)),
            None => Ok(()),
        }
    }
}

impl Place {
    /// The number of the page.
    fn page(self) -> usize {
        usize::try_from(self.0 / PER_PAGE).expect("a table fits in memory")
    }

    /// The first byte of the record, in a table of these pages.
    fn byte(self, pages: &[DeviceOff]) -> u64 {
        pages[self.page()].byte() + (1 + self.0 % PER_PAGE) * RECORD_BYTES
    }
}

impl Table {
    fn last(&self) -> DeviceOff {
        *self.pages.last().expect("a table has a page")
    }

    /// Chains as many pages as `count` free places take.
    fn grow(&mut self, store: &Store, count: usize) -> Result<(), FsError> {
        let missing = to_u64(count - self.free.len());
        let full = FsError::PinTableFull { wanted: missing };
        let pages = allocate(store, missing.div_ceil(PER_PAGE)).map_err(|error| match error {
            FsError::NoSpace { .. } => full,
            other => other,
        })?;
        let pages = pages.flush(store)?.fence(store)?;
        self.publish(store, pages)
    }

    /// Makes the last page point to new ones. Durable with the first pin that is recorded in them,
    /// or in pages behind them.
    fn publish(
        &mut self,
        store: &Store,
        pages: Stored<TablePages, Durable>,
    ) -> Result<(), FsError> {
        let fresh = pages.into_object().fresh;
        let added: Vec<DeviceOff> = fresh.iter().map(|fresh| fresh.extent().start).collect();
        // After an error nobody knows whether the table has them: they stay allocated.
        fresh.into_iter().for_each(Fresh::keep);
        let (last, first) = (self.last(), added[0]);
        store.bytes().store_u64(last.byte(), encode_next(last, first))?;
        let before = to_u64(self.pages.len());
        self.pages.extend(added);
        self.free.extend(places(before..to_u64(self.pages.len())));
        Ok(())
    }

    fn trim(&mut self, store: &Store) -> Result<Vec<Extent>, FsError> {
        let mut kept = self.pages.len();
        let is_empty = |page| places(page..page + 1).all(|place| self.free.contains(&place));
        while kept > self.fixed && is_empty(to_u64(kept) - 1) {
            kept -= 1;
        }
        if kept == self.pages.len() {
            return Ok(Vec::new());
        }
        let last = self.pages[kept - 1].byte();
        store.clear_word(last)?;
        let _ = self.free.split_off(&Place(to_u64(kept) * PER_PAGE));
        let trimmed = self.pages.drain(kept..);
        Ok(trimmed.map(|page| Extent { start: page, pages: Pages(1) }).collect())
    }
}

impl Loaded {
    /// Reads the table of a store, and reserves the pages that are chained to it.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn of(store: &Store) -> Result<Loaded, FsError> {
        let pages = fixed_pages(store.geometry());
        let mut loaded = Loaded { pages, pins: Vec::new(), torn: Vec::new(), broken: None };
        loaded.follow(store)?;
        for (page, number) in loaded.pages.clone().into_iter().zip(0..) {
            loaded.read_page(store, page, number)?;
        }
        Ok(loaded)
    }

    /// Ends a chain that cannot be followed where it breaks. Durable after the next fence.
    pub(crate) fn mend(&self, store: &Store) -> Result<(), FsError> {
        store.clear_word(self.pages.last().expect("a table has a page").byte())
    }

    fn follow(&mut self, store: &Store) -> Result<(), FsError> {
        loop {
            let last = *self.pages.last().expect("a table has a page");
            let word = store.load_u64(last.byte())?;
            let next = match decode_next(last, word) {
                Next::Page(next) => next,
                Next::End => return Ok(()),
                Next::Invalid => {
                    self.broken = Some(format!("page {last} of it names no page that follows"));
                    return Ok(());
                }
            };
            let extent = Extent { start: next, pages: Pages(1) };
            let is_data = store.geometry().are_data(next, extent.pages);
            if !is_data || store.reserve(extent).is_err() {
                self.broken = Some(format!("page {last} of it names page {next}, which is none"));
                return Ok(());
            }
            self.pages.push(next);
        }
    }

    fn read_page(&mut self, store: &Store, page: DeviceOff, number: u64) -> Result<(), FsError> {
        let mut bytes = [0; PAGE_SIZE];
        store.read(page.byte(), &mut bytes)?;
        let records = <[PinRecord]>::ref_from_bytes(&bytes).expect("records fill a page");
        for (record, place) in records.iter().skip(1).zip(places(number..number + 1)) {
            match record.examine(store.geometry()) {
                Found::Free => {}
                Found::Torn => self.torn.push(place),
                Found::Pin(pin) => {
                    // Of the record as it is, which may say more than was read of it.
                    let written = Written::new(place, place.byte(&self.pages), record);
                    let quarantined = record.in_state(PinState::Quarantined).first_word();
                    self.pins.push(Recorded { written, pin, quarantined });
                }
            }
        }
        Ok(())
    }
}

impl Written {
    fn new(place: Place, at: u64, record: &PinRecord) -> Written {
        Written { place, at, word: record.first_word() }
    }
}

impl Store {
    /// Takes records out of the table, durably at return. A place that holds another one by now is
    /// left as it is.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn erase_records(&self, written: &[Written]) -> Result<(), FsError> {
        for run in runs(written) {
            let run = &written[run];
            run.iter().try_for_each(|record| self.replace_word(record, 0))?;
            let (first, last) = (run[0].at, run[run.len() - 1].at);
            self.flush(first, last + 8 - first)?;
        }
        self.fence()
    }

    /// Notes on the medium that a record is that of a pin in quarantine. Durable after the next
    /// fence; needs none, because whoever finds it as it was does the same again.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn mark_quarantined(&self, found: &mut Recorded) -> Result<(), FsError> {
        self.replace_word(&found.written, found.quarantined)?;
        self.flush(found.written.at, 8)?;
        found.written.word = found.quarantined;
        found.pin.state = PinState::Quarantined;
        Ok(())
    }

    /// Frees places that hold nothing which was granted, or a pin of an earlier run of the host.
    /// Durable after the next fence.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn clear_places(&self, loaded: &Loaded, clear: &[Place]) -> Result<(), FsError> {
        for &place in clear {
            self.clear_word(place.byte(&loaded.pages))?;
        }
        Ok(())
    }

    fn clear_word(&self, at: u64) -> Result<(), FsError> {
        self.bytes().store_u64(at, 0)?;
        self.flush(at, 8)
    }

    fn replace_word(&self, record: &Written, word: u64) -> Result<(), FsError> {
        if self.load_u64(record.at)? == record.word {
            self.bytes().store_u64(record.at, word)?;
        }
        Ok(())
    }
}

impl Object for TablePages {
    fn fresh(&self) -> &[Fresh] {
        &self.fresh
    }
}

/// New pages without a record, each of which names the one behind it.
fn allocate(store: &Store, count: u64) -> Result<Stored<TablePages, Dirty>, FsError> {
    let mut fresh = Vec::new();
    for _ in 0..count {
        fresh.push(store.allocate_page()?);
    }
    let mut next: Option<DeviceOff> = None;
    let mut pages = Vec::new();
    while let Some(page) = fresh.pop() {
        let at = page.extent().start;
        let mut header = PinPageHeader::new_zeroed();
        header.next = next.map_or(0, |next| encode_next(at, next)).into();
        pages.push(Stored::<Data, _>::data(store, page, 0, header.as_bytes())?.into_fresh());
        next = Some(at);
    }
    pages.reverse();
    Ok(Stored::dirty(TablePages { fresh: pages }))
}

fn fixed_pages(geometry: &Geometry) -> Vec<DeviceOff> {
    (0..geometry.pins_pages.0).map(|page| geometry.pins + Pages(page)).collect()
}

/// The places in pages of a table.
fn places(pages: Range<u64>) -> impl Iterator<Item = Place> {
    (pages.start * PER_PAGE..pages.end * PER_PAGE).map(Place)
}

/// The records that lie side by side.
fn runs(written: &[Written]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, record) in written.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if written[run.end - 1].at + RECORD_BYTES == record.at => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

/// The word by which `page` names the page behind it.
fn encode_next(page: DeviceOff, next: DeviceOff) -> u64 {
    assert!(next.0 < 1 << 48, "a page number has 48 bits");
    next.0 | u64::from(check(page, next)) << 48
}

/// The page that a word in `page` names.
fn decode_next(page: DeviceOff, word: u64) -> Next {
    let next = DeviceOff(word & ((1 << 48) - 1));
    match word {
        0 => Next::End,
        _ if word >> 48 == u64::from(check(page, next)) => Next::Page(next),
        _ => Next::Invalid,
    }
}

fn check(page: DeviceOff, next: DeviceOff) -> u16 {
    let crc = crc32fast::hash([page.0, next.0].map(u64::to_le_bytes).as_flattened());
    let [a, b, c, d] = crc.to_le_bytes();
    u16::from_le_bytes([a, b]) ^ u16::from_le_bytes([c, d])
}

#[cfg(test)]
#[path = "pin_table_tests.rs"]
mod tests;
