//! What one thread knows of its bytes in all files, with clones that come in between.
//!
//! A byte that is cloned and the one that it comes from belong to the same thread: cells are dealt
//! out alike in every page. So its owner knows what a clone could bring at each moment: what the
//! source held then. What may be found is what was there, unless a clone was done since; what the
//! source holds, if one has run since; and what the source held meanwhile, unless a clone has begun
//! and was done after that.

use crate::flow::{Flow, Flows, Tick};
use crate::model::{Cells, FILES, PAGE, Zone, count, us};
use std::collections::BTreeMap;
use std::ops::Range;

/// What may happen to the files in one round.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Where the layout of each file may change.
    pub(crate) zones: [Zone; FILES],
    /// Where pages may be cloned.
    pub(crate) flows: Flows,
}

/// The bytes of one thread.
pub(crate) struct Known {
    files: [Cells; FILES],
    /// Of bytes that clones may replace.
    targets: BTreeMap<(usize, u64), Target>,
}

/// What a byte that clones may replace has gone through.
#[derive(Debug, Default)]
struct Target {
    /// The store or the look that it is known from, from beginning to end.
    seen: Range<Tick>,
    /// What its source held since and does not any more, each with the last moment.
    before: Vec<(Option<u8>, Tick)>,
}

impl Rules {
    /// Whether a byte may be a zero that nobody stored: it, or what was cloned there, is where a
    /// layout may change.
    fn may_be_zero(&self, file: usize, byte: u64, into: Option<&Flow>) -> bool {
        let from = into.map(|flow| flow.source(byte / PAGE));
        self.zones[file].contains(byte)
            || from.is_some_and(|(file, page)| self.zones[file].contains(page * PAGE))
    }
}

impl Known {
    pub(crate) fn new(thread: u64) -> Known {
        Known { files: std::array::from_fn(|_| Cells::new(thread)), targets: BTreeMap::new() }
    }

    /// What one file holds, when nobody runs and no clone is left to be judged.
    pub(crate) fn file(&mut self, file: usize) -> &mut Cells {
        &mut self.files[file]
    }

    /// What a byte of this thread holds.
    pub(crate) fn get(&self, file: usize, byte: u64) -> Option<u8> {
        self.files[file].get(byte)
    }

    /// Every byte was looked at, and no clone runs.
    pub(crate) fn settle(&mut self) {
        self.targets.clear();
    }

    /// Notes a store that began at `start`.
    pub(crate) fn store(&mut self, rules: &Rules, file: usize, at: u64, bytes: &[u8], start: Tick) {
        for byte in self.files[file].own(at..at + count(bytes.len())) {
            self.set(rules, file, byte, Some(bytes[us(byte - at)]), start);
        }
    }

    /// Notes that bytes may hold anything, since a call that began at `start`.
    pub(crate) fn forget(&mut self, rules: &Rules, file: usize, range: Range<u64>, start: Tick) {
        for byte in self.files[file].own(range) {
            self.set(rules, file, byte, None, start);
        }
    }

    /// A call that began at `start` found that the file ends before these bytes.
    pub(crate) fn ended(&mut self, rules: &Rules, file: usize, range: Range<u64>, start: Tick) {
        for byte in self.files[file].own(range) {
            self.set(rules, file, byte, Some(0), start);
        }
    }

    /// Compares what a look that began at `start` found with what may be there, and learns from it.
    ///
    /// # Errors
    ///
    /// Says what is wrong.
    pub(crate) fn check(
        &mut self,
        rules: &Rules,
        file: usize,
        at: u64,
        found: &[u8],
        start: Tick,
    ) -> Result<(), String> {
        for byte in self.files[file].own(at..at + count(found.len())) {
            let value = found[us(byte - at)];
            self.judge(rules, file, byte, value, start)?;
            self.set(rules, file, byte, Some(value), start);
        }
        Ok(())
    }

    /// The same for a part of a file, when nobody runs; but for what was cloned there, which
    /// [`Known::check_targets`] has looked at before.
    ///
    /// # Errors
    ///
    /// Says what is wrong.
    pub(crate) fn check_at_rest(
        &mut self,
        rules: &Rules,
        file: usize,
        at: u64,
        found: &[u8],
    ) -> Result<(), String> {
        let now = rules.flows.now();
        for byte in self.files[file].own(at..at + count(found.len())) {
            let value = found[us(byte - at)];
            if self.get(file, byte) != Some(value) {
                if !rules.flows.leads_to((file, byte / PAGE)) {
                    self.judge(rules, file, byte, value, now)?;
                }
                self.files[file].replace(byte, Some(value));
            }
        }
        Ok(())
    }

    /// Compares what was cloned to a part of a file, when nobody runs, and before anything is learned
    /// of its sources.
    ///
    /// # Errors
    ///
    /// Says what is wrong.
    pub(crate) fn check_targets(
        &self,
        rules: &Rules,
        file: usize,
        at: u64,
        found: &[u8],
    ) -> Result<(), String> {
        let (pages, now) = (at / PAGE..(at + count(found.len())).div_ceil(PAGE), rules.flows.now());
        for page in pages.filter(|&page| rules.flows.leads_to((file, page))) {
            let bytes = (page * PAGE).max(at)..((page + 1) * PAGE).min(at + count(found.len()));
            for byte in self.files[file].own(bytes) {
                self.judge(rules, file, byte, found[us(byte - at)], now)?;
            }
        }
        Ok(())
    }

    /// Compares a byte that a look which began at `start` found with what may be there.
    ///
    /// # Errors
    ///
    /// Says what is wrong.
    pub(crate) fn judge(
        &self,
        rules: &Rules,
        file: usize,
        byte: u64,
        value: u8,
        start: Tick,
    ) -> Result<(), String> {
        let zone = &rules.zones[file];
        let into = rules.flows.leading_to((file, byte / PAGE));
        let is_expected = match into {
            None => is(self.get(file, byte), value),
            Some(flow) => self.may_be(flow, file, byte, value, start),
        };
        let is_healed = || value == zone.fill && zone.failing.contains(&(byte / PAGE));
        let is_lost = || value == 0 && rules.may_be_zero(file, byte, into);
        if is_expected || is_healed() || is_lost() {
            return Ok(());
        }
        let from = into.map(|flow| {
            let (from, page) = flow.source(byte / PAGE);
            let held = self.get(from, page * PAGE + byte % PAGE);
            let target = self.targets.get(&(file, byte));
            let outlook = flow.outlook(byte / PAGE);
            format!("; cloned from page {page} of file {from}, {held:?}, {target:?}, {outlook:?}")
        });
        Err(format!(
            "byte {byte} (page {}) of file {file} and thread {} is {value} and should be {:?}{}; \
             looked at from {start}; {rules:?}",
            byte / PAGE,
            Cells::owner(byte),
            self.get(file, byte),
            from.unwrap_or_default(),
        ))
    }

    /// Whether a byte that clones replace may be `value` for a look that began at `start`.
    fn may_be(&self, flow: &Flow, file: usize, byte: u64, value: u8, start: Tick) -> bool {
        let outlook = flow.outlook(byte / PAGE);
        let fresh = Target::default();
        let target = self.targets.get(&(file, byte)).unwrap_or(&fresh);
        if is(self.get(file, byte), value) && outlook.is_left(target.seen.end, start) {
            return true;
        }
        let (from, page) = flow.source(byte / PAGE);
        let held = self.get(from, page * PAGE + byte % PAGE);
        let before = || {
            let of = target.before.iter();
            of.clone().any(|&(held, until)| is(held, value) && outlook.is_left(until, start))
        };
        outlook.may_have_come(target.seen.start) && (is(held, value) || before())
    }

    /// Notes what a byte of this thread holds since a call that began at `start`.
    fn set(&mut self, rules: &Rules, file: usize, byte: u64, value: Option<u8>, start: Tick) {
        let before = self.files[file].replace(byte, value);
        let (page, within) = (byte / PAGE, byte % PAGE);
        if rules.flows.leads_to((file, page)) {
            let seen = start..rules.flows.now();
            self.targets.insert((file, byte), Target { seen, before: Vec::new() });
        } else if before != value {
            for (file, page) in rules.flows.out_of((file, page)) {
                let target = self.targets.entry((file, page * PAGE + within)).or_default();
                target.before.push((before, rules.flows.now()));
            }
        }
    }
}

/// Whether what is known allows `value`.
fn is(known: Option<u8>, value: u8) -> bool {
    known.is_none_or(|known| known == value)
}

/// Whole pages of `len` bytes.
pub(crate) fn up_to_page(len: usize) -> u64 {
    count(len).next_multiple_of(PAGE)
}
