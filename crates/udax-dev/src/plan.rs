//! Where pages go: a whole stack of tables, worked out when a table is loaded.
//!
//! A plan is plain data. Linear lines over linear lines become one list that is searched once, so an
//! access costs the same through one table or through ten. What is below may change: the tables that
//! a plan was worked out from are kept by it, and whoever changes one of them has this plan worked
//! out again.

use crate::device::is_same;
use crate::mapped::Version;
use crate::targets::{Delayed, Stripes};
use crate::{AccessError, DaxDevice, Route};
use std::ops::Range;
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, Order, Pages};

/// Where the pages of a device go, from page 0 on, without a gap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    segments: Vec<Segment>,
    /// Where each of them ends: what is searched, as close together as it can be.
    ends: Vec<DeviceOff>,
    /// The tables below that it was worked out from. Whoever replaces one waits until they are gone.
    from: Vec<Arc<Version>>,
}

/// Pages that go one way.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) pages: Range<DeviceOff>,
    pub(crate) way: Way,
    /// The page of the way that the first page is.
    pub(crate) from: DeviceOff,
}

/// What pages can go to.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// A device that is no table.
    Device(Arc<dyn DaxDevice>),
    Stripes(Arc<Stripes>),
    Delayed(Arc<Delayed>),
    /// Access fails: who says so.
    Fails(Arc<str>),
    Zeros,
}

/// What becomes of pages by another plan.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// A page comes to lie in other memory. Then the rest is not looked at.
    pub(crate) moves: bool,
    /// A page that failed, or read as zeros, comes to lie in memory.
    pub(crate) gains: bool,
    /// Pages that were in memory, and fail or read as zeros.
    pub(crate) lost: Vec<Lost>,
}

/// Pages that are in memory no more, and where they were.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pages: Range<DeviceOff>,
    device: Arc<dyn DaxDevice>,
    from: DeviceOff,
}

/// Where one page is.
#[derive(Clone, Debug)]
enum Place {
    Memory(Arc<dyn DaxDevice>, DeviceOff),
    Nowhere,
}

impl Plan {
    /// The plan of `pages` of `device`, counted from 0.
    pub(crate) fn of(device: &Arc<dyn DaxDevice>, pages: &Range<DeviceOff>) -> Plan {
        match device.as_mapped() {
            Some(mapped) => mapped.version().plan_of(pages),
            None => Plan::one(Way::Device(Arc::clone(device)), pages),
        }
    }

    /// One way, whose pages are `from`.
    pub(crate) fn one(way: Way, from: &Range<DeviceOff>) -> Plan {
        let pages = DeviceOff(0).span(from.end.since(from.start));
        Plan::from_segments(vec![Segment { pages, way, from: from.start }], Vec::new())
    }

    fn from_segments(segments: Vec<Segment>, from: Vec<Arc<Version>>) -> Plan {
        let ends = segments.iter().map(|segment| segment.pages.end).collect();
        Plan { segments, ends, from }
    }

    pub(crate) fn size(&self) -> Pages {
        self.segments.last().map_or(Pages(0), |last| last.pages.end.since(DeviceOff(0)))
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Adds `other` behind the last page.
    pub(crate) fn append(&mut self, other: Plan) {
        let end = self.size();
        for segment in other.segments {
            let pages = segment.pages.start + end..segment.pages.end + end;
            self.ends.push(pages.end);
            self.segments.push(Segment { pages, ..segment });
        }
        for version in other.from {
            self.keep(version);
        }
    }

    /// Keeps the table that it was worked out from.
    pub(crate) fn keep(&mut self, version: Arc<Version>) {
        if !self.from.iter().any(|kept| Arc::ptr_eq(kept, &version)) {
            self.from.push(version);
        }
    }

    /// A part, counted from 0.
    pub(crate) fn slice(&self, pages: &Range<DeviceOff>) -> Plan {
        let first = self.number_of(pages.start);
        let inside = self.segments[first..].iter().take_while(|s| s.pages.start < pages.end);
        let part = |segment: &Segment| {
            let start = segment.pages.start.max(pages.start);
            let end = segment.pages.end.min(pages.end);
            Segment {
                pages: DeviceOff(start.since(pages.start).0)..DeviceOff(end.since(pages.start).0),
                way: segment.way.clone(),
                from: segment.from + start.since(segment.pages.start),
            }
        };
        Plan::from_segments(inside.map(part).collect(), self.from.clone())
    }

    /// Says what lies behind the pages from `at` on, which lies in the plan.
    #[inline]
    pub(crate) fn route(&self, at: DeviceOff, max: Pages) -> Result<Route, AccessError> {
        let (segment, from, max) = self.step(at, max);
        match &segment.way {
            Way::Device(device) => device.route(from, max),
            other => other.route(from, max),
        }
    }

    /// The segment of a page, the page of its way, and how many of `max` it has.
    #[inline]
    fn step(&self, at: DeviceOff, max: Pages) -> (&Segment, DeviceOff, Pages) {
        let segment = &self.segments[self.number_of(at)];
        let from = segment.from + at.since(segment.pages.start);
        (segment, from, max.min(segment.pages.end.since(at)))
    }

    #[inline]
    fn number_of(&self, at: DeviceOff) -> usize {
        self.ends.partition_point(|end| *end <= at)
    }

    fn greatest(&self, order: fn(&Segment) -> Option<Order>) -> Option<Order> {
        self.segments.iter().filter_map(order).max()
    }

    /// What becomes of the pages of `before` by this plan.
    pub(crate) fn compared(&self, before: &Plan) -> Compared {
        let mut compared = Compared::default();
        let mut at = DeviceOff(0);
        let end = DeviceOff(self.size().min(before.size()).0);
        while at < end && !compared.moves {
            let (now, pages) = self.place(at, end.since(at));
            let (was, pages) = before.place(at, pages);
            match (was, now) {
                (Place::Memory(was, there), Place::Memory(now, here)) => {
                    compared.moves = here != there || !is_same(&was, &now);
                }
                (Place::Memory(device, from), Place::Nowhere) => {
                    push(&mut compared.lost, Lost { pages: at.span(pages), device, from });
                }
                (Place::Nowhere, Place::Memory(..)) => compared.gains = true,
                (Place::Nowhere, Place::Nowhere) => (),
            }
            at = at + pages;
        }
        compared
    }

    /// Which of the pages are in no memory by this plan either; nothing if one of them lies elsewhere.
    pub(crate) fn still_lost(&self, lost: &Lost) -> Option<Vec<Lost>> {
        let (mut at, mut parts) = (lost.pages.start, Vec::new());
        while at < lost.pages.end {
            let from = lost.from + at.since(lost.pages.start);
            let (place, pages) = self.place(at, lost.pages.end.since(at));
            match place {
                Place::Memory(device, here) if here != from || !is_same(&device, &lost.device) => {
                    return None;
                }
                Place::Memory(..) => (),
                Place::Nowhere => {
                    let device = Arc::clone(&lost.device);
                    push(&mut parts, Lost { pages: at.span(pages), device, from });
                }
            }
            at = at + pages;
        }
        Some(parts)
    }

    /// Where a page is, and how many of the `max` pages from it on lie side by side there.
    fn place(&self, at: DeviceOff, max: Pages) -> (Place, Pages) {
        let (segment, from, max) = self.step(at, max);
        match &segment.way {
            Way::Device(device) => (Place::Memory(Arc::clone(device), from), max),
            Way::Stripes(stripes) => {
                let (member, from, max) = stripes.step(from, max);
                member.place(from, max)
            }
            Way::Delayed(delayed) => delayed.plan.place(from, max),
            Way::Fails(_) | Way::Zeros => (Place::Nowhere, max),
        }
    }
}

/// Adds pages, which join the last if they lie behind it above and below.
fn push(all: &mut Vec<Lost>, next: Lost) {
    match all.last_mut() {
        Some(last)
            if last.pages.end == next.pages.start
                && last.from + last.pages.end.since(last.pages.start) == next.from
                && is_same(&last.device, &next.device) =>
        {
            last.pages.end = next.pages.end;
        }
        _ => all.push(next),
    }
}

impl Way {
    fn route(&self, at: DeviceOff, max: Pages) -> Result<Route, AccessError> {
        match self {
            Way::Device(device) => device.route(at, max),
            Way::Stripes(stripes) => {
                let (member, at, max) = stripes.step(at, max);
                member.route(at, max)
            }
            Way::Delayed(delayed) => delayed.route(at, max),
            Way::Fails(by) => Err(AccessError::Failed { at, pages: max, by: Arc::clone(by) }),
            Way::Zeros => Ok(Route::Zeros(max)),
        }
    }
}

impl Segment {
    /// The largest order at which the addresses of the device agree with those of what is below (I-37).
    pub(crate) fn alignment(&self) -> Option<Order> {
        let is_congruent = |order: &Order| {
            let size = order.pages().0;
            self.pages.start.0 % size == self.from.0 % size
        };
        let own = Order::ALL.into_iter().rev().find(is_congruent)?;
        match &self.way {
            Way::Device(_) => Some(own),
            Way::Stripes(stripes) => stripes.alignment().map(|below| below.min(own)),
            Way::Delayed(delayed) => delayed.plan.greatest(Segment::alignment).map(|b| b.min(own)),
            Way::Fails(_) | Way::Zeros => None,
        }
    }

    /// The largest folio that fits it.
    pub(crate) fn largest_order(&self) -> Option<Order> {
        let alignment = self.alignment()?;
        let fits = |order: &Order| {
            let size = order.pages().0;
            self.pages.start.0.next_multiple_of(size) + size <= self.pages.end.0
        };
        let fits = Order::ALL.into_iter().rev().find(fits)?;
        let below = match &self.way {
            Way::Stripes(stripes) => stripes.largest_order()?,
            Way::Delayed(delayed) => delayed.plan.greatest(Segment::largest_order)?,
            _ => fits,
        };
        Some(below.min(fits).min(alignment))
    }
}
