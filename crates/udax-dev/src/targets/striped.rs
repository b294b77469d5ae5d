//! `striped COUNT CHUNK DEVICE START...`: pages of several devices, in turns.

use crate::plan::{Plan, Segment, Way};
use crate::table::{Advice, Field, Placed, Problem};
use crate::targets::{Member, Rules};
use std::ops::Range;
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, Order, Pages};

/// Pages of several devices, a chunk of each in turns (`dm-stripe`).
#[derive(Clone, Debug)]
pub struct Striped {
    chunk: Pages,
    members: Vec<Member>,
}

/// Where the pages of a striped line go.
#[derive(Debug)]
pub(crate) struct Stripes {
    chunk: Pages,
    members: Vec<Plan>,
}

impl Striped {
    /// The most devices of one line.
    pub const MOST: usize = 16;

    /// `chunk` pages of each member in turns. What is wrong with that is found when the table is
    /// made.
    pub fn new(chunk: Pages, members: Vec<Member>) -> Striped {
        Striped { chunk, members }
    }

    /// Refuses what cannot be a striped line of `pages` pages.
    pub(crate) fn check_shape(
        count: usize,
        chunk: Pages,
        pages: Pages,
    ) -> Result<(), (Field, Problem)> {
        if count == 0 || count > Striped::MOST {
            return Err((Field::Argument(1), Problem::StripeCount { count }));
        }
        if chunk.is_empty() {
            return Err((Field::Argument(2), Problem::EmptyChunk));
        }
        let width = u64::try_from(count).expect("at most 16");
        let row = Pages(chunk.0.saturating_mul(width));
        if !pages.0.is_multiple_of(row.0) {
            return Err((Field::Length, Problem::PartialRow { pages, row, chunk, count }));
        }
        Ok(())
    }

    /// How many there are.
    fn width(&self) -> u64 {
        u64::try_from(self.members.len()).expect("members fit in memory")
    }
}

impl Stripes {
    /// The member that has a page, the page there, and how many of `max` it has side by side.
    #[inline]
    pub(crate) fn step(&self, at: DeviceOff, max: Pages) -> (&Plan, DeviceOff, Pages) {
        let (chunk, within) = (at.0 / self.chunk.0, at.0 % self.chunk.0);
        let width = u64::try_from(self.members.len()).expect("at most 16");
        let member = usize::try_from(chunk % width).expect("at most 16");
        let below = DeviceOff(chunk / width * self.chunk.0 + within);
        (&self.members[member], below, max.min(Pages(self.chunk.0 - within)))
    }

    /// The largest order at which the chunks and what the members have there are aligned.
    pub(crate) fn alignment(&self) -> Option<Order> {
        let is_aligned = |order: &Order| self.chunk.0.is_multiple_of(order.pages().0);
        let chunk = Order::ALL.into_iter().rev().find(is_aligned)?;
        Some(self.least(Segment::alignment)?.min(chunk))
    }

    /// The largest folio that fits a chunk, and every member.
    pub(crate) fn largest_order(&self) -> Option<Order> {
        Some(self.alignment()?.min(self.least(Segment::largest_order)?))
    }

    fn least(&self, order: fn(&Segment) -> Option<Order>) -> Option<Order> {
        self.members.iter().flat_map(Plan::segments).filter_map(order).min()
    }
}

impl Rules for Striped {
    fn name(&self) -> &'static str {
        "striped"
    }

    fn members(&self) -> &[Member] {
        &self.members
    }

    fn argument_of(&self, member: usize) -> Field {
        Field::Argument(4 + 2 * member)
    }

    fn check(&self, pages: Pages) -> Result<(), (Field, Problem)> {
        Striped::check_shape(self.members.len(), self.chunk, pages)
    }

    fn pages_below(&self, pages: Pages) -> Pages {
        Pages(pages.0.checked_div(self.width()).unwrap_or(0))
    }

    fn run(&self, _pages: Pages) -> (Field, Pages) {
        (Field::Argument(2), self.chunk)
    }

    fn up(&self, member: usize, below: &Range<DeviceOff>) -> Vec<Range<DeviceOff>> {
        let chunk = self.chunk.0;
        let member = u64::try_from(member).expect("at most 16");
        let mut parts: Vec<Range<DeviceOff>> = Vec::new();
        let mut at = below.start.0;
        while at < below.end.0 {
            let (row, within) = (at / chunk, at % chunk);
            let pages = Pages((chunk - within).min(below.end.0 - at));
            let start = DeviceOff((row * self.width() + member) * chunk + within);
            match parts.last_mut() {
                Some(last) if last.end == start => last.end = start + pages,
                _ => parts.push(start.span(pages)),
            }
            at += pages.0;
        }
        parts
    }

    fn plan(&self, pages: Pages, _line: &str) -> Plan {
        let below = self.pages_below(pages);
        let members: Vec<Plan> = self.members.iter().map(|member| member.plan(below)).collect();
        let stripes = Stripes { chunk: self.chunk, members };
        Plan::one(Way::Stripes(Arc::new(stripes)), &DeviceOff(0).span(pages))
    }

    fn advice(&self, line: &Placed<'_>) -> Option<Advice> {
        line.of_stripes(self.chunk)
    }
}
