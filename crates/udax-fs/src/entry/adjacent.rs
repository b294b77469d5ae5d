//! What entries have to be that go on from one of their neighbours.
//!
//! This file owns the steps from the check of one entry to that of the next. A CRC is linear: two
//! messages that differ in some bits have CRCs that differ by what these bits come to, whatever the
//! others are. From one entry to the next both numbers grow by a power of two, so the bits that change
//! stand side by side, from that power on, and a table says what they come to.

use super::{KIND_DATA, PAGE_BITS, Place, with_check};
use crate::format::Geometry;
use crate::num::to_usize;
use udax_mm::DeviceOff;

/// The bytes that follow the first page of the file in what is checked: level and facts.
const AFTER_FIRST: u32 = 12;
/// CRC-32 (IEEE), lowest bit first.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// By n, what bits 0 to n come to where the first page of the file stands.
static FIRST: [u32; 64] = bits_up_to(AFTER_FIRST);
/// The same where the facts stand.
static FACTS: [u32; 64] = bits_up_to(0);

/// The entries of adjacent data, one after the other, on one side of an entry of data.
pub(crate) struct Adjacent {
    /// Of the last one.
    first: u64,
    facts: u64,
    crc: u32,
    /// From one to the next, in pages.
    step: u64,
    /// What the bits come to that never change, those below the step.
    low: u32,
    /// How many there can be, inside the file and the data pages.
    left: u64,
}

impl Adjacent {
    /// Those behind the one at `place` that points to `page`.
    pub(crate) fn behind(place: &Place, page: DeviceOff, geometry: &Geometry) -> Adjacent {
        let span = Place::span(place.level).0;
        let left = geometry.end.0.saturating_sub(page.0 + span) / span;
        Adjacent::from(place, page, span, left)
    }

    /// Those before it, nearest first.
    pub(crate) fn before(place: &Place, page: DeviceOff, geometry: &Geometry) -> Adjacent {
        let span = Place::span(place.level).0;
        let left = page.0.saturating_sub(geometry.data.0).min(place.first.0) / span;
        Adjacent::from(place, page, span.wrapping_neg(), left)
    }

    fn from(place: &Place, page: DeviceOff, step: u64, left: u64) -> Adjacent {
        let facts = page.0 | KIND_DATA << PAGE_BITS;
        let crc = place.crc(facts);
        let low = match step.trailing_zeros() {
            0 => 0,
            bits => at(&FIRST, bits - 1) ^ at(&FACTS, bits - 1),
        };
        Adjacent { first: place.first.0, facts, crc, step, low, left }
    }
}

impl Iterator for Adjacent {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        // The page stays in its bits, because it stays among the data pages.
        let (first, facts) =
            (self.first.wrapping_add(self.step), self.facts.wrapping_add(self.step));
        let in_first = up_to_highest(&FIRST, self.first ^ first);
        self.crc ^= in_first ^ up_to_highest(&FACTS, self.facts ^ facts) ^ self.low;
        (self.first, self.facts) = (first, facts);
        Some(with_check(facts, self.crc))
    }
}

/// What the bits of a number come to up to its highest one, of which there is one.
#[inline]
fn up_to_highest(table: &[u32; 64], bits: u64) -> u32 {
    at(table, (bits | 1).ilog2())
}

#[inline]
fn at(table: &[u32; 64], bit: u32) -> u32 {
    table[to_usize(u64::from(bit))]
}

/// By n, the CRC of a message of zeros but for bits 0 to n of 8 bytes, with `after` bytes behind them,
/// without the inversions at its ends.
const fn bits_up_to(after: u32) -> [u32; 64] {
    let mut table = [0; 64];
    let mut n = 0;
    while n < 64 {
        table[n] = crc((u64::MAX >> (63 - n)).to_le_bytes(), after);
        n += 1;
    }
    table
}

const fn crc(bytes: [u8; 8], after: u32) -> u32 {
    let (mut crc, mut at) = (0, 0);
    while at < bytes.len() {
        crc = shifted(crc ^ u32::from_le_bytes([bytes[at], 0, 0, 0]));
        at += 1;
    }
    let mut behind = 0;
    while behind < after {
        crc = shifted(crc);
        behind += 1;
    }
    crc
}

/// One byte on.
const fn shifted(mut crc: u32) -> u32 {
    let mut bit = 0;
    while bit < 8 {
        crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
        bit += 1;
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;
    use crate::format::Ino;
    use udax_mm::{FileIndex, Pages};

    #[test]
    fn adjacent_entries_are_those_that_would_be_encoded() {
        let geometry = Geometry::of(Pages(1 << 39));
        for (level, number, page) in [(0, 7, 0x7fff_fff0), (1, 510, 0xfffe), (2, 1023, 0xfffe)] {
            let span = Place::span(level).0;
            let at = |number: u64| Place { ino: Ino(77), first: FileIndex(number * span), level };
            let data = |page: u64| Entry::Data(DeviceOff(page * span));
            let (place, here) = (at(number), DeviceOff(page * span));
            for (n, raw) in (1..).zip(Adjacent::behind(&place, here, &geometry).take(300)) {
                assert_eq!(
                    raw,
                    data(page + n).encode(&at(number + n)),
                    "level {level}, {n} behind"
                );
            }
            let before: Vec<u64> = Adjacent::before(&place, here, &geometry).take(300).collect();
            assert_eq!(before.len(), to_usize(number.min(300)));
            for (n, raw) in (1..).zip(before) {
                assert_eq!(
                    raw,
                    data(page - n).encode(&at(number - n)),
                    "level {level}, {n} before"
                );
            }
        }
    }

    #[test]
    fn adjacent_entries_end_with_the_data_pages() {
        let geometry = Geometry::of(Pages(1 << 20));
        let place = Place { ino: Ino(7), first: FileIndex(5000), level: 0 };
        let (first, last) = (geometry.data, DeviceOff(geometry.end.0 - 1));
        assert_eq!(Adjacent::behind(&place, last, &geometry).count(), 0);
        assert_eq!(Adjacent::before(&place, first, &geometry).count(), 0);
        assert_eq!(Adjacent::behind(&place, DeviceOff(last.0 - 3), &geometry).count(), 3);
        assert_eq!(Adjacent::before(&place, DeviceOff(first.0 + 3), &geometry).count(), 3);
    }
}
