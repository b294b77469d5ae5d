//! One record of the pin table: adjacent pages, who holds them, and whether its owner died.
//!
//! This file owns what the bytes of a record mean, and how a process is told from a later one of
//! the same number. Where records lie is the pin table's business.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use udax_mm::sync::OnceLock;
use udax_mm::{DeviceOff, Pages, PinInfo, PinKind};
use zerocopy::{FromZeros, IntoBytes};

use crate::alloc::Extent;
use crate::format::{Geometry, PinRecord};
use crate::superblock::{boot_id, is_other_boot, now};

/// Who holds a long-term pin. All records of one pin say the same.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PinHolder {
    pub(crate) process: u32,
    /// When that process began, in clock ticks since the boot; 0 if the host did not tell.
    process_start: u64,
    boot: [u8; 16],
    /// Nanoseconds since 1970.
    time: i64,
    pub(crate) kind: PinKind,
    /// As [`recorded_label`] says.
    pub(crate) label: String,
}

/// Whether the session that took a pin goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PinState {
    /// As far as the medium knows.
    Held,
    /// It ended without giving the pin back, and a later one noticed.
    Quarantined,
}

/// What a record says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PinEntry {
    pub(crate) state: PinState,
    pub(crate) holder: PinHolder,
    pub(crate) extent: Extent,
}

/// What the place of a record holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// Nothing.
    Free,
    /// Bytes of a record that was never granted, because the fence behind it did not return.
    Torn,
    /// A pin.
    Pin(PinEntry),
}

const STATE_HELD: u8 = 1;
const STATE_QUARANTINED: u8 = 2;
const KIND_READ: u8 = 1;
const KIND_WRITE: u8 = 2;

impl PinHolder {
    /// Who takes a pin at this moment.
    pub(crate) fn of(info: &PinInfo) -> PinHolder {
        PinHolder {
            process: info.owner.process,
            process_start: process_start(info.owner.process),
            boot: boot_id(),
            time: now(),
            kind: info.kind,
            label: recorded_label(&info.owner.label).to_owned(),
        }
    }

    /// Since when.
    pub(crate) fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(u64::try_from(self.time).unwrap_or(0))
    }

    /// Whether the host was started since: no device of that run of it works any more.
    pub(crate) fn is_before_boot(&self) -> bool {
        is_other_boot(&self.boot)
    }

    /// Whether the process runs on this host. One that only waits to be reaped does not.
    pub(crate) fn is_alive(&self) -> bool {
        if self.is_before_boot() {
            return false;
        }
        let Some((state, start)) = process(self.process) else { return false };
        let is_same = self.process_start == 0 || self.process_start == start;
        is_same && !matches!(state, 'Z' | 'X')
    }
}

impl PinRecord {
    /// The record of `extent`, with its checksum.
    pub(crate) fn of(state: PinState, holder: &PinHolder, extent: Extent) -> PinRecord {
        let mut record = PinRecord::new_zeroed();
        record.kind = match holder.kind {
            PinKind::Read => KIND_READ,
            PinKind::Write => KIND_WRITE,
        };
        record.boot_id = holder.boot;
        record.process_start = holder.process_start.into();
        record.time = holder.time.into();
        record.first = extent.start.0.into();
        record.pages = extent.pages.0.into();
        record.pid = holder.process.into();
        record.label[..holder.label.len()].copy_from_slice(holder.label.as_bytes());
        record.in_state(state)
    }

    /// The same with another state, and its checksum.
    pub(crate) fn in_state(&self, state: PinState) -> PinRecord {
        let mut record = *self;
        record.state = match state {
            PinState::Held => STATE_HELD,
            PinState::Quarantined => STATE_QUARANTINED,
        };
        record.checksum = record.checksum().into();
        record
    }

    /// The first 8 bytes: the checksum, the state and the kind. No two pins have the same, and
    /// zero in their place frees the record.
    pub(crate) fn first_word(&self) -> u64 {
        let (word, _) = self.as_bytes().split_first_chunk().expect("a record has 128 bytes");
        u64::from_le_bytes(*word)
    }

    /// What it says.
    pub(crate) fn examine(&self, geometry: &Geometry) -> Found {
        if self.first_word() == 0 {
            return Found::Free;
        }
        self.read(geometry).map_or(Found::Torn, Found::Pin)
    }

    fn read(&self, geometry: &Geometry) -> Option<PinEntry> {
        let state = match self.state {
            STATE_HELD => PinState::Held,
            STATE_QUARANTINED => PinState::Quarantined,
            _ => return None,
        };
        let kind = match self.kind {
            KIND_READ => PinKind::Read,
            KIND_WRITE => PinKind::Write,
            _ => return None,
        };
        let (first, pages) = (self.first.get(), self.pages.get());
        let is_whole = self.checksum.get() == self.checksum();
        let end = first.checked_add(pages).filter(|_| pages > 0)?;
        if !is_whole || end > geometry.end.0 || first < geometry.data.0 {
            return None;
        }
        let label = self.label.split(|&byte| byte == 0).next().unwrap_or_default();
        let holder = PinHolder {
            process: self.pid.get(),
            process_start: self.process_start.get(),
            boot: self.boot_id,
            time: self.time.get(),
            kind,
            label: String::from_utf8_lossy(label).into_owned(),
        };
        let extent = Extent { start: DeviceOff(first), pages: Pages(pages) };
        Some(PinEntry { state, holder, extent })
    }

    fn checksum(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[4..])
    }
}

/// As much of a label as a record has of it: the field has an end, and so does a text in it where
/// the first zero is.
pub(crate) fn recorded_label(label: &str) -> &str {
    let label = label.split('\0').next().unwrap_or_default();
    &label[..label.floor_char_boundary(PinRecord::new_zeroed().label.len())]
}

/// When a process began, in clock ticks since the boot; 0 if there is none or the host hides it.
fn process_start(pid: u32) -> u64 {
    static OWN: OnceLock<(u32, u64)> = OnceLock::new();
    let look = |pid| process(pid).map_or(0, |(_, start)| start);
    if pid != std::process::id() {
        return look(pid);
    }
    match OWN.get_or_init(|| (pid, look(pid))) {
        &(own, start) if own == pid => start,
        // A child that was forked knows the one it was forked from.
        _ => look(pid),
    }
}

/// The state of a process, and when it began.
fn process(pid: u32) -> Option<(char, u64)> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The third and the 22nd field of `/proc/PID/stat`; the second may hold anything, in brackets.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
#[path = "pin_record_tests.rs"]
mod tests;
