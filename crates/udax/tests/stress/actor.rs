//! One thread: what it does, and what it knows of its bytes.

use crate::cold::Hold;
use crate::failing::good_parts;
use crate::held::Held;
use crate::known::{Known, Rules, up_to_page};
use crate::model::{CELL, COLD, Cells, NEAR, PAGE, PAGES, Zone, count, us};
use crate::private::{Private, is_open};
use crate::rng::Rng;
use crate::world::{Mapped, SLOTS, Shared, own_cell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};
use udax::{Error, ErrorKind, File, FreePolicy, Frozen, PinKind, PinOptions, PinTerm, Wait};

/// The most pins that one thread keeps.
const MANY: usize = 3;

pub(crate) struct Actor {
    pub(crate) thread: u64,
    pub(crate) rng: Rng,
    pub(crate) known: Known,
    pins: Vec<Held>,
    pub(crate) private: Private,
    /// The bytes of the file that is frozen, once it is.
    pub(crate) frozen: Option<Frozen>,
    /// A way to store to that file, while it is not.
    pub(crate) hold: Option<Hold>,
    number: u64,
    counts: BTreeMap<&'static str, u64>,
}

pub(crate) type Done = Result<(), String>;

impl Actor {
    pub(crate) fn new(thread: u64, rng: Rng) -> Actor {
        Actor {
            thread,
            rng,
            known: Known::new(thread),
            pins: Vec::new(),
            private: Private::default(),
            frozen: None,
            hold: None,
            number: 0,
            counts: BTreeMap::new(),
        }
    }

    pub(crate) fn begin(&mut self, shared: &Shared) {
        for held in &mut self.pins {
            held.begin(&shared.rules.zones[held.file]);
        }
        if let Some(mapped) = &self.private.mapped {
            let (rules, file) = (&shared.rules, mapped.file);
            self.private.forget(|page| is_open(rules, file, page));
        }
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().map(|(&word, &times)| (word, times))
    }

    pub(crate) fn unpin_all(&mut self) {
        self.pins.clear();
    }

    pub(crate) fn let_go(&mut self) {
        self.unpin_all();
        self.private = Private::default();
        self.frozen = None;
        self.hold = None;
    }

    /// The frozen file goes, and another comes.
    pub(crate) fn let_cold_go(&mut self) {
        assert!(self.hold.is_none(), "a frozen file can be stored to");
        self.frozen = None;
        *self.known.file(COLD) = Cells::new(self.thread);
    }

    /// Compares the cells of this thread with a file of which some pages are `bad`, when nobody
    /// runs.
    pub(crate) fn check(
        &mut self,
        rules: &Rules,
        file: usize,
        bytes: &[u8],
        bad: &BTreeSet<u64>,
    ) -> Done {
        for part in good_parts(count(bytes.len()), bad) {
            let found = &bytes[us(part.start)..us(part.end)];
            self.known.check_at_rest(rules, file, part.start, found)?;
        }
        let cells = self.known.file(file);
        // What was cloned there is not seen before the page is written as a whole.
        for &page in bad.iter().filter(|&&page| rules.flows.leads_to((file, page))) {
            cells.set(page * PAGE..(page + 1) * PAGE, None);
        }
        let (len, of_pages) = (count(bytes.len()), up_to_page(bytes.len()));
        // A mapping shows what was stored to the rest of the last page until the file grows.
        cells.set(len..of_pages, None);
        cells.set(of_pages..PAGES * PAGE, Some(0));
        Ok(())
    }

    /// Compares what was cloned to a file, before [`Actor::check`] of any.
    pub(crate) fn check_targets(
        &self,
        rules: &Rules,
        file: usize,
        bytes: &[u8],
        bad: &BTreeSet<u64>,
    ) -> Done {
        good_parts(count(bytes.len()), bad).into_iter().try_for_each(|part| {
            let found = &bytes[us(part.start)..us(part.end)];
            self.known.check_targets(rules, file, part.start, found)
        })
    }

    /// Learns what a file was given, when nobody runs: what `good` parts hold, counted from `at` on,
    /// and nothing that is known of the others.
    pub(crate) fn shared(&mut self, file: usize, at: u64, bytes: &[u8], good: &[Range<u64>]) {
        let given = at..at + count(bytes.len());
        let cells = self.known.file(file);
        cells.set(given.clone(), None);
        for part in good {
            for byte in cells.own(at + part.start..at + part.end) {
                cells.replace(byte, Some(bytes[us(byte - at)]));
            }
        }
        if self.private.mapped.as_ref().is_some_and(|mapped| mapped.file == file) {
            self.private.forget(|page| given.contains(&(page * PAGE)));
        }
    }

    pub(crate) fn check_pins(
        &mut self,
        file: usize,
        of: &File,
        bytes: &[u8],
        bad: &BTreeSet<u64>,
        round: u64,
    ) {
        let thread = self.thread;
        for held in self.pins.iter_mut().filter(|held| held.file == file) {
            held.check(of, bytes, bad, thread, &format!("round {round}, thread {thread}"));
        }
    }

    pub(crate) fn step(&mut self, shared: &Shared, round: u64, step: u64) {
        let (word, done) = self.act(shared);
        *self.counts.entry(word).or_default() += 1;
        if let Err(why) = done {
            let (thread, rules) = (self.thread, &shared.rules);
            panic!("round {round}, thread {thread}, step {step}: {word}: {why}; {rules:?}");
        }
    }

    fn act(&mut self, shared: &Shared) -> (&'static str, Done) {
        match self.rng.below(100) {
            0..21 => ("map-store", self.map_store(shared)),
            21..40 => ("map-load", self.map_load(shared)),
            40..44 => self.clone_some(shared),
            44 => self.dedupe(shared),
            45 => ("unshare", self.unshare(shared)),
            46..50 => self.use_cold(shared),
            50..58 => ("write", self.write(shared)),
            58..60 => ("heal", self.heal(shared)),
            60..70 => ("read", self.read(shared)),
            70..73 => ("flush", self.flush(shared)),
            73 if shared.failing.fail_one(&shared.files, &mut self.rng) => ("fail", Ok(())),
            73 => ("nothing", Ok(())),
            74..76 => ("sync", self.sync(shared)),
            76..78 => ("allocate", self.allocate(shared)),
            78..84 => ("pin", self.pin(shared)),
            84..89 => ("pin-use", self.use_pin(shared)),
            89..93 => {
                self.unpin();
                ("unpin", Ok(()))
            }
            93..95 => ("remap", shared.remap(self.rng.index(SLOTS), &mut self.rng)),
            _ => ("layout", self.change_layout(shared)),
        }
    }

    fn map_store(&mut self, shared: &Shared) -> Done {
        let mapped = shared.mapped(self.rng.index(SLOTS));
        let Some(range) = self.own_in(mapped.range()) else { return Ok(()) };
        if mapped.is_private {
            return self.private_store(shared, &mapped, &range);
        }
        let bytes = self.rng.bytes(range.end - range.start);
        let (rules, file, start) = (&shared.rules, mapped.file, shared.now());
        let in_map = range.start - mapped.start;
        let done = if bytes.len() == 8 && in_map.is_multiple_of(8) {
            mapped.map.store(in_map, u64::from_le_bytes(bytes[..].try_into().unwrap()))
        } else {
            mapped.map.write(&bytes, in_map)
        };
        match done {
            Ok(()) => self.known.store(rules, file, range.start, &bytes, start),
            Err(error) if !mapped.can_store => {
                return ensure(error.kind() == ErrorKind::BadHandle, || error.to_string());
            }
            Err(error) => {
                self.known.forget(rules, file, range.clone(), start);
                return may_fail(shared, &mapped, &range, &error);
            }
        }
        Ok(())
    }

    fn map_load(&mut self, shared: &Shared) -> Done {
        let mapped = shared.mapped(self.rng.index(SLOTS));
        let Some(mut range) = self.own_in(mapped.range()) else { return Ok(()) };
        if mapped.is_private {
            return self.private_load(shared, &mapped, &range);
        }
        if self.rng.once_in(8) {
            range.end = (range.start + self.rng.below(3 * PAGE) + 1).min(mapped.range().end);
        }
        let mut bytes = vec![0; us(range.end - range.start)];
        let (rules, start) = (&shared.rules, shared.now());
        match mapped.map.read(&mut bytes, range.start - mapped.start) {
            Ok(()) => self.known.check(rules, mapped.file, range.start, &bytes, start),
            Err(error) => may_fail(shared, &mapped, &range, &error),
        }
    }

    fn write(&mut self, shared: &Shared) -> Done {
        let file = self.rng.index(2);
        let (of, zone) = (&shared.files[file], &shared.rules.zones[file]);
        let range = own_cell(self.thread, &mut self.rng, PAGES * PAGE);
        // Outside of a zone a file does not grow.
        if range.end > of.metadata().len() && !zone.may_end_before(&range) {
            return Ok(());
        }
        let page = range.start / PAGE;
        if zone.is_tail && zone.failing.contains(&page) {
            // It may be all that the file has of the page.
            shared.failing.will_overwrite((file, page));
        }
        let (bytes, start) = (self.rng.bytes(range.end - range.start), shared.now());
        let written = match of.write_at(&bytes, range.start) {
            // Of a lost page a part cannot be written, and nothing has changed.
            Err(error) => return may_be_lost(zone, &range, &error),
            Ok(written) => written,
        };
        let (there, rest) = bytes.split_at(written);
        self.known.store(&shared.rules, file, range.start, there, start);
        let rest = range.end - count(rest.len())..range.end;
        self.known.forget(&shared.rules, file, rest, start);
        Ok(())
    }

    /// Writes all bytes of a page that may be bad, those of other threads among them.
    fn heal(&mut self, shared: &Shared) -> Done {
        let file = self.rng.index(2);
        let (of, zone) = (&shared.files[file], &shared.rules.zones[file]);
        if zone.failing.is_empty() {
            return Ok(());
        }
        let place = self.rng.index(zone.failing.len());
        let page = *zone.failing.iter().nth(place).unwrap();
        let range = page * PAGE..(page + 1) * PAGE;
        if range.end > of.metadata().len() && !zone.may_end_before(&range) {
            return Ok(());
        }
        shared.failing.will_overwrite((file, page));
        match of.write_at(&vec![zone.fill; us(PAGE)], range.start) {
            Ok(written) => ensure(count(written) == PAGE, || format!("{written} bytes")),
            // A device has the page, and could go on using the memory that failed.
            Err(error) if error.kind() == ErrorKind::Pinned => Ok(()),
            // It has failed again before all was stored.
            Err(error) => may_be_lost(zone, &range, &error),
        }
    }

    fn read(&mut self, shared: &Shared) -> Done {
        let file = self.rng.index(2);
        let zone = &shared.rules.zones[file];
        let mut range = own_cell(self.thread, &mut self.rng, PAGES * PAGE);
        if self.rng.once_in(4) {
            range.end = range.start + 1 + self.rng.below(3 * PAGE);
        }
        let (mut bytes, start) = (vec![0; us(range.end - range.start)], shared.now());
        let read = match shared.files[file].read_at(&mut bytes, range.start) {
            Err(error) => return may_be_lost(zone, &range, &error),
            Ok(read) => read,
        };
        self.known.check(&shared.rules, file, range.start, &bytes[..read], start)?;
        let end = range.end.min(PAGES * PAGE);
        let missing = (range.start + count(read)).min(end)..end;
        // A read ends before a lost page, too.
        if !missing.is_empty() && zone.may_end_before(&missing) && !zone.may_fail(&missing) {
            self.known.ended(&shared.rules, file, missing, start);
        }
        Ok(())
    }

    fn flush(&mut self, shared: &Shared) -> Done {
        let mapped = shared.mapped(self.rng.index(SLOTS));
        let at = self.rng.below(mapped.map.len());
        let end = (at + 1 + self.rng.below(20 * PAGE)).min(mapped.map.len());
        mapped.map.flush(at..end).map_err(|error| error.to_string())
    }

    fn sync(&mut self, shared: &Shared) -> Done {
        shared.files[self.rng.index(2)].sync_data().map_err(|error| error.to_string())
    }

    /// Changes no byte, and may be done anywhere in the file.
    fn allocate(&mut self, shared: &Shared) -> Done {
        let file = self.rng.index(2);
        let len = shared.files[file].metadata().len();
        let page = self.rng.below(NEAR);
        let pages = if self.rng.once_in(8) { 512 } else { 1 + self.rng.below(8) };
        let end = ((page + pages) * PAGE).min(len);
        if page * PAGE >= end {
            return Ok(());
        }
        shared.files[file].allocate(page * PAGE..end).map_err(|error| error.to_string())
    }

    fn pin(&mut self, shared: &Shared) -> Done {
        if self.pins.len() >= MANY {
            self.unpin();
            return Ok(());
        }
        let file = self.rng.index(2);
        let page =
            if self.rng.once_in(4) { self.rng.below(PAGES - 6) } else { self.rng.below(NEAR) };
        let pages = if self.rng.once_in(10) { 6 } else { 1 + self.rng.below(3) };
        let range = page * PAGE..(page + pages) * PAGE;
        let can_store = self.rng.once_in(2);
        let kind = if can_store { PinKind::Write } else { PinKind::Read };
        let term = if self.rng.once_in(4) { PinTerm::Long } else { PinTerm::Short };
        let label = format!("{} {}", self.thread, self.number);
        self.number += 1;
        let zone = &shared.rules.zones[file];
        let is_there = range.end <= shared.files[file].metadata().len();
        match shared.files[file].pin(range.clone(), &PinOptions::new(&label).kind(kind).term(term))
        {
            Ok(pin) => {
                self.pins.push(Held::new(pin, file, can_store, label, zone));
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::OutOfRange => {
                ensure(!is_there || zone.may_end_before(&range), || error.to_string())
            }
            Err(error) => may_be_lost(zone, &range, &error),
        }
    }

    fn use_pin(&mut self, shared: &Shared) -> Done {
        if self.pins.is_empty() {
            return Ok(());
        }
        let place = self.rng.index(self.pins.len());
        let range = self.pins[place].range();
        let Some(at) = self.own_in(range) else { return Ok(()) };
        let held = &mut self.pins[place];
        let (rules, file, start) = (&shared.rules, held.file, shared.now());
        // What the file has left may have failed at any time.
        let is_firm = held.is_firm;
        let lost = |error: Error| {
            let is_left = !is_firm && error.kind() == ErrorKind::Media;
            if is_left { Ok(()) } else { may_be_lost(&rules.zones[file], &at, &error) }
        };
        if held.can_store && self.rng.once_in(2) {
            let bytes = self.rng.bytes(at.end - at.start);
            if let Err(error) = held.store(at.start, &bytes) {
                return lost(error);
            }
            if is_firm {
                self.known.store(rules, file, at.start, &bytes, start);
            } else {
                self.known.forget(rules, file, at, start);
            }
            return Ok(());
        }
        let mut bytes = vec![0; us(at.end - at.start)];
        if let Err(error) = held.pin.read(&mut bytes, at.start - held.range().start) {
            return lost(error);
        }
        if is_firm { self.known.check(rules, file, at.start, &bytes, start) } else { Ok(()) }
    }

    fn unpin(&mut self) {
        if !self.pins.is_empty() {
            let place = self.rng.index(self.pins.len());
            drop(self.pins.swap_remove(place));
        }
    }

    /// Punches, cuts or lengthens a file in its zone.
    fn change_layout(&mut self, shared: &Shared) -> Done {
        let file = self.rng.index(2);
        let (of, zone) = (&shared.files[file], &shared.rules.zones[file]);
        if zone.pages.is_empty() {
            return Ok(());
        }
        let size = zone.pages.end - zone.pages.start;
        let policy = match self.rng.below(4) {
            0 => FreePolicy::Wait(Wait::Never),
            1 => FreePolicy::Wait(Wait::Until(Instant::now() + Duration::from_millis(1))),
            _ => FreePolicy::Defer,
        };
        let page = zone.pages.start + self.rng.below(size);
        let around = zone.pages.start * PAGE..zone.pages.end * PAGE;
        let done = if zone.is_tail && self.rng.once_in(2) {
            of.set_len_with(page * PAGE, policy)
        } else {
            let start = page * PAGE + if self.rng.once_in(4) { CELL } else { 0 };
            let pages = if self.rng.once_in(6) { size } else { 1 + self.rng.below(4) };
            let end = (page + pages).min(zone.pages.end) * PAGE;
            of.punch_hole_with(start..end, policy)
        };
        match done {
            // Of a lost page a part cannot be zeroed.
            Err(error) if error.kind() != ErrorKind::Pinned => may_be_lost(zone, &around, &error),
            _ => Ok(()),
        }
    }

    /// Part of a cell of this thread in a range that begins and ends with a page.
    fn own_in(&mut self, range: Range<u64>) -> Option<Range<u64>> {
        let cell = own_cell(self.thread, &mut self.rng, range.end - range.start);
        let cell = range.start + cell.start..range.start + cell.end;
        (cell.end <= range.end).then_some(cell)
    }
}

/// Whether a call may fail because memory has.
pub(crate) fn may_be_lost(zone: &Zone, range: &Range<u64>, error: &Error) -> Done {
    let is_expected = zone.may_fail(range) && error.kind() == ErrorKind::Media;
    ensure(is_expected, || format!("{error} at {range:?}"))
}

/// Whether an access of a mapping may fail.
pub(crate) fn may_fail(
    shared: &Shared,
    mapped: &Mapped,
    range: &Range<u64>,
    error: &Error,
) -> Done {
    let zone = &shared.rules.zones[mapped.file];
    let len = shared.files[mapped.file].metadata().len();
    let is_past_end = range.end > len.next_multiple_of(PAGE);
    let may_fail = zone.may_end_before(range) || zone.may_fail(range);
    let is_expected = is_past_end || may_fail || mapped.is_eager();
    let is_told = error.kind() == ErrorKind::Media;
    let (can_store, is_private) = (mapped.can_store, mapped.is_private);
    let why = || {
        let last = mapped.map.last_fault_error();
        format!("{error} at {range:?} (stores: {can_store}, private: {is_private}): {last:?}")
    };
    ensure(is_expected && is_told, why)
}

pub(crate) fn ensure(is_true: bool, why: impl FnOnce() -> String) -> Done {
    if is_true { Ok(()) } else { Err(why()) }
}
