//! What keeps huge folios out of a line, although it works.
//!
//! Advice can be followed, and helps: a folio fits the line, the pages that are named are there and
//! nobody else's, and the table that comes of it is a good one.

use super::error::{in_sectors, to};
use super::{Below, Line, Table};
use crate::device::address;
use std::fmt;
use udax_mm::{DeviceOff, Order, Pages};

/// What keeps huge folios out of a line, although it works.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Advice {
    /// The line, counted from 1.
    pub line: usize,
    /// The largest folio that does not fit.
    pub lost: Order,
    /// What would let it in.
    pub cure: Cure,
}

/// What would let huge folios into a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cure {
    /// Taking this device, counted from 1, from another page on.
    From {
        /// The device.
        member: usize,
        /// Where the line takes it now.
        from: DeviceOff,
        /// Where it should.
        better: DeviceOff,
        /// The pages that the device has too few for that.
        missing: Pages,
    },
    /// A line that starts later.
    Start {
        /// Where it starts now.
        start: DeviceOff,
        /// Where it should.
        better: DeviceOff,
    },
    /// Another chunk.
    Chunk {
        /// The chunk as it is.
        chunk: Pages,
        /// The chunk as it should be.
        better: Pages,
        /// How long the line has to be for that, if it is not.
        length: Option<Pages>,
    },
}

/// A line in its table: what there is to say of it.
pub(crate) struct Placed<'t> {
    table: &'t Table,
    number: usize,
}

/// Where the pages that a line takes of a device could lie: those whose number has the rest `rest`
/// when it is divided by `size`.
struct Room<'t> {
    below: &'t Below,
    /// The line and its member, which may lie where it lies already.
    own: (usize, usize),
    from: u64,
    pages: u64,
    size: u64,
    rest: u64,
}

impl<'t> Placed<'t> {
    pub(super) fn new(table: &'t Table, number: usize) -> Placed<'t> {
        Placed { table, number }
    }

    /// What is to be said of pages of one device, from any page on, in order.
    pub(crate) fn of_pages(&self) -> Option<Advice> {
        let lost = self.lost()?;
        Some(self.advice(lost, self.from(0, lost)))
    }

    /// What is to be said of the first pages of one device, in order.
    pub(crate) fn of_first_pages(&self) -> Option<Advice> {
        let lost = self.lost()?;
        Some(self.advice(lost, self.start(lost)))
    }

    /// What is to be said of stripes, a chunk of each device in turns.
    pub(crate) fn of_stripes(&self, chunk: Pages) -> Option<Advice> {
        let (lost, line) = (Order::Pmd, self.line());
        let size = lost.pages().0;
        if line.pages_below() < lost.pages() {
            return None;
        }
        let cure = if !chunk.0.is_multiple_of(size) {
            self.chunk(chunk, size)
        } else if !line.start.is_aligned(lost) {
            self.start(lost)
        } else {
            let mut members = line.target.members().iter();
            self.from(members.position(|member| !member.from.is_aligned(lost))?, lost)
        };
        Some(self.advice(lost, cure))
    }

    fn line(&self) -> &'t Line {
        &self.table.lines[self.number]
    }

    /// The smallest folio that has room in the line, and is aligned differently below.
    fn lost(&self) -> Option<Order> {
        let (line, from) = (self.line(), self.line().target.members().first()?.from.0);
        let start = line.start.0;
        let is_lost = |order: &Order| {
            let size = order.pages().0;
            let has_room = start.next_multiple_of(size) + size <= line.range().end.0;
            has_room && start % size != from % size
        };
        [Order::Pmd, Order::Pud].into_iter().find(is_lost)
    }

    fn advice(&self, lost: Order, cure: Cure) -> Advice {
        Advice { line: self.number + 1, lost, cure }
    }

    fn start(&self, lost: Order) -> Cure {
        let start = self.line().start;
        Cure::Start { start, better: DeviceOff(start.0.next_multiple_of(lost.pages().0)) }
    }

    /// A chunk that is a multiple of `size`: the next one, or the smallest, by which every other could
    /// be divided; if even that does not divide the line, with a shorter line.
    fn chunk(&self, chunk: Pages, size: u64) -> Cure {
        let (pages, members) = (self.line().pages.0, self.line().target.members());
        let count = u64::try_from(members.len()).expect("at most 16");
        let fits = |better: &u64| pages.is_multiple_of(better * count);
        let better = [chunk.0.next_multiple_of(size), size].into_iter().find(fits);
        let shorter = Pages(pages - pages % (size * count));
        let length = if better.is_none() { Some(shorter) } else { None };
        Cure::Chunk { chunk, better: Pages(better.unwrap_or(size)), length }
    }

    /// Another place for what it takes of a member: a later one that is free, else an earlier one,
    /// else behind everything that is taken, which the device then has to have.
    fn from(&self, member: usize, lost: Order) -> Cure {
        let (line, size) = (self.line(), lost.pages().0);
        let taken = &line.target.members()[member];
        let is_it = |below: &&Below| address(&below.device) == address(&taken.device);
        let below = self.table.below.iter().find(is_it).expect("what a line takes is taken");
        let room = Room {
            below,
            own: (self.number, member),
            from: taken.from.0,
            pages: line.pages_below().0,
            size,
            rest: line.start.0 % size,
        };
        let better = room.later().or_else(|| room.earlier()).unwrap_or_else(|| room.behind());
        let missing = better.saturating_add(room.pages).saturating_sub(taken.device.size().0);
        let (better, missing) = (DeviceOff(better), Pages(missing));
        Cure::From { member: member + 1, from: taken.from, better, missing }
    }
}

impl Room<'_> {
    /// How many places are looked at on each side, so that a table of a million lines is answered.
    const TRIES: usize = 64;

    fn later(&self) -> Option<u64> {
        let mut at = self.up(self.from)?;
        for _ in 0..Room::TRIES {
            let end = at.checked_add(self.pages)?;
            if end > self.below.device.size().0 {
                return None;
            }
            match self.below.others(self.own, &(DeviceOff(at)..DeviceOff(end))).next_back() {
                Some(other) => at = self.up(other.pages.end.0)?,
                None => return Some(at),
            }
        }
        None
    }

    fn earlier(&self) -> Option<u64> {
        let mut at = self.down(self.from)?;
        for _ in 0..Room::TRIES {
            let pages = DeviceOff(at).span(Pages(self.pages));
            match self.below.others(self.own, &pages).next() {
                Some(other) => at = self.down(other.pages.start.0.checked_sub(self.pages)?)?,
                None => return Some(at),
            }
        }
        None
    }

    fn behind(&self) -> u64 {
        let all = DeviceOff(0)..DeviceOff(u64::MAX);
        let last = self.below.others(self.own, &all).next_back();
        let end = last.map_or(self.from, |last| last.pages.end.0.max(self.from));
        self.up(end).unwrap_or(u64::MAX)
    }

    /// The first place from `page` on.
    fn up(&self, page: u64) -> Option<u64> {
        page.checked_add((self.rest + self.size - page % self.size) % self.size)
    }

    /// The last place up to `page`.
    fn down(&self, page: u64) -> Option<u64> {
        page.checked_sub((page % self.size + self.size - self.rest) % self.size)
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = if self.lost == Order::Pud { "1 GiB" } else { "2 MiB" };
        let sector = |page: &DeviceOff| in_sectors(to(*page));
        write!(f, "line {}: no folio of {size} fits, because ", self.line)?;
        match &self.cure {
            Cure::From { member, from, better, missing } => {
                let (from, better) = (sector(from), sector(better));
                write!(
                    f,
                    "sector {from} of device {member} lies where it is not aligned; take the device \
                     from sector {better} on",
                )?;
                match in_sectors(*missing) {
                    0 => Ok(()),
                    sectors => write!(f, ", and make it {sectors} sectors larger"),
                }
            }
            Cure::Start { start, better } => {
                let (start, better) = (sector(start), sector(better));
                write!(f, "it starts at sector {start}; let the lines before it end at {better}")
            }
            Cure::Chunk { chunk, better, length } => {
                let (chunk, better) = (in_sectors(*chunk), in_sectors(*better));
                write!(f, "chunks have {chunk} sectors; make them {better}")?;
                match length {
                    None => Ok(()),
                    Some(length) => {
                        write!(f, ", and the line {} sectors long", in_sectors(*length))
                    }
                }
            }
        }
    }
}
