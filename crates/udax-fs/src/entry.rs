//! Tree entries: eight bytes that say where pages lie and check themselves.
//!
//! This file owns the encoding; [`adjacent`] owns what entries side by side have in common. An entry is valid at one place of one file only, so a node that was
//! written to the wrong page, or an entry that was copied, is noticed.

use crate::FsError;
use crate::format::{FANOUT, Geometry, Ino, MAX_DATA_LEVEL};
use std::ops::Range;
use udax_mm::{DeviceOff, FileIndex, Pages};

mod adjacent;

pub(crate) use adjacent::Adjacent;

const PAGE_BITS: u32 = 40;
const KIND_NODE: u64 = 1;
const KIND_DATA: u64 = 2;
/// Everything but the check.
const FACTS: u64 = (1 << 48) - 1;

/// What an entry says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Entry {
    /// No page.
    Hole,
    /// A node of 512 entries, one level down.
    Node(DeviceOff),
    /// As many adjacent pages of data as an entry of its level covers.
    Data(DeviceOff),
}

/// Where an entry stands: in which file, from which index on, at which level.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) ino: Ino,
    pub(crate) first: FileIndex,
    pub(crate) level: u32,
}

impl Place {
    /// The pages that an entry of `level` covers.
    pub(crate) const fn span(level: u32) -> Pages {
        Pages(FANOUT.pow(level))
    }

    /// The numbers of the file's pages that the entry covers.
    pub(crate) fn range(&self) -> Range<u64> {
        self.first.0..self.first.0 + Place::span(self.level).0
    }

    /// The place of entry `number` of the node that the entry here points to.
    pub(crate) fn child(&self, number: u64) -> Place {
        let level = self.level.checked_sub(1).expect("a node stands at level 1 or higher");
        let first = self.first + Pages(number * Place::span(level).0);
        Place { ino: self.ino, first, level }
    }

    /// The number of the child that covers `index`.
    pub(crate) fn child_of(&self, index: u64) -> u64 {
        (index - self.first.0) / Place::span(self.level - 1).0
    }

    /// The numbers of the children that `range` touches.
    pub(crate) fn children(&self, range: &Range<u64>) -> Range<u64> {
        let own = self.range();
        let (start, end) = (range.start.max(own.start), range.end.min(own.end));
        if start < end { self.child_of(start)..self.child_of(end - 1) + 1 } else { 0..0 }
    }

    /// The numbers of the children that lie in `range` as a whole.
    pub(crate) fn whole_children(&self, range: &Range<u64>) -> Range<u64> {
        let (own, span) = (self.range(), Place::span(self.level - 1).0);
        let (start, end) = (range.start.max(own.start), range.end.min(own.end));
        let number = |index: u64| index.saturating_sub(own.start);
        number(start).div_ceil(span)..number(end) / span
    }

    fn crc(&self, facts: u64) -> u32 {
        let mut checked = [0; 28];
        checked[..8].copy_from_slice(&self.ino.0.to_le_bytes());
        checked[8..16].copy_from_slice(&self.first.0.to_le_bytes());
        checked[16..20].copy_from_slice(&self.level.to_le_bytes());
        checked[20..].copy_from_slice(&facts.to_le_bytes());
        crc32fast::hash(&checked)
    }

    fn corrupt(&self, found: impl Into<String>) -> FsError {
        let found = found.into();
        FsError::corrupt(
            format!("inode {}", self.ino.0),
            format!("the tree entry for page {} at level {} {found}", self.first, self.level),
        )
    }
}

impl Entry {
    /// The entry as it stands on the medium.
    pub(crate) fn encode(self, place: &Place) -> u64 {
        let (page, kind) = match self {
            Entry::Hole => return 0,
            Entry::Node(page) => (page, KIND_NODE),
            Entry::Data(page) => (page, KIND_DATA),
        };
        assert!(page.0 < 1 << PAGE_BITS, "format: a page number has 40 bits");
        let facts = page.0 | kind << PAGE_BITS;
        with_check(facts, place.crc(facts))
    }

    /// Reads an entry found at `place`.
    ///
    /// # Errors
    ///
    /// [`FsError::Corrupt`] if it does not belong there, or points outside the data pages.
    pub(crate) fn decode(raw: u64, place: &Place, geometry: &Geometry) -> Result<Entry, FsError> {
        if raw == 0 {
            return Ok(Entry::Hole);
        }
        let facts = raw & FACTS;
        if raw != with_check(facts, place.crc(facts)) {
            return Err(place.corrupt("fails its check"));
        }
        let page = DeviceOff(facts & ((1 << PAGE_BITS) - 1));
        let (entry, pages) = match facts >> PAGE_BITS {
            KIND_NODE if place.level > 0 => (Entry::Node(page), Pages(1)),
            KIND_DATA if place.level <= MAX_DATA_LEVEL => {
                (Entry::Data(page), Place::span(place.level))
            }
            kind => return Err(place.corrupt(format!("has the impossible kind {kind}"))),
        };
        if !page.0.is_multiple_of(pages.0) || !geometry.are_data(page, pages) {
            return Err(place.corrupt(format!("points to page {page}, where no data can lie")));
        }
        Ok(entry)
    }
}

/// An entry whose facts are these, where they have this CRC.
fn with_check(facts: u64, crc: u32) -> u64 {
    // The lower 16 bits of the sum, which are both halves of the CRC.
    facts | u64::from(crc ^ crc >> 16) << 48
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { ino: Ino(7), first: FileIndex(512), level: 1 }
    }

    #[test]
    fn an_entry_survives_the_medium() {
        let geometry = Geometry::of(Pages(1 << 20));
        for entry in [Entry::Hole, Entry::Node(DeviceOff(9000)), Entry::Data(DeviceOff(1024 * 9))] {
            let raw = entry.encode(&place());
            assert_eq!(Entry::decode(raw, &place(), &geometry).unwrap(), entry);
        }
    }

    #[test]
    fn an_entry_is_valid_at_its_own_place_only() {
        let geometry = Geometry::of(Pages(1 << 20));
        let raw = Entry::Data(DeviceOff(1024 * 9)).encode(&place());
        let elsewhere = [
            Place { ino: Ino(8), ..place() },
            Place { first: FileIndex(1024), ..place() },
            Place { level: 2, first: FileIndex(512), ino: Ino(7) },
        ];
        for place in elsewhere {
            assert!(Entry::decode(raw, &place, &geometry).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_of_an_entry_is_noticed() {
        let geometry = Geometry::of(Pages(1 << 20));
        let raw = Entry::Node(DeviceOff(9000)).encode(&place());
        let unnoticed =
            (0..64).filter(|bit| Entry::decode(raw ^ 1 << bit, &place(), &geometry).is_ok());
        assert_eq!(unnoticed.count(), 0);
    }

    #[test]
    fn data_of_order_9_that_is_not_aligned_is_refused() {
        let geometry = Geometry::of(Pages(1 << 20));
        let raw = Entry::Data(DeviceOff(1024 * 9 + 1)).encode(&place());
        assert!(Entry::decode(raw, &place(), &geometry).is_err());
    }

    #[test]
    fn an_entry_that_points_at_metadata_is_refused() {
        let geometry = Geometry::of(Pages(1 << 20));
        let raw = Entry::Node(geometry.itable).encode(&place());
        let error = Entry::decode(raw, &place(), &geometry).unwrap_err().to_string();
        assert!(error.contains("inode 7 is corrupt"), "{error}");
    }
}
