//! Tables: which pages of a device go where.
//!
//! A table is checked when it is made, and claims nothing: [`Mapped`](crate::Mapped) does that.

mod advice;
mod error;
mod text;

pub use advice::{Advice, Cure};
pub use error::{Field, Problem, TableError};
pub use text::{Opener, TableText, TextError};

pub(crate) use advice::Placed;

use crate::device::address;
use crate::plan::Plan;
use crate::{DaxDevice, NoDax, Target};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, Order, Pages};

/// Sectors of 512 bytes in a page: what tables are written in.
pub(crate) const SECTORS: u64 = 8;

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its first page on the device.
    pub start: DeviceOff,
    /// How many pages it has.
    pub pages: Pages,
    /// What it does with them.
    pub target: Target,
}

/// The lines of a device, which cover its pages from 0 on, each page once; and no page of a device
/// below twice.
///
/// # Examples
///
/// ```
/// # use udax_mm::{DeviceOff, MediaRange, MemoryType, Pages, Pgmap, media::FileMedia, sync::Arc};
/// # use udax_dev::{DaxDevice, Linear, Line, PgmapDevice, Table, Target};
/// # fn device(pages: Pages) -> Result<Arc<dyn DaxDevice>, Box<dyn std::error::Error>> {
/// #     let media = Arc::new(FileMedia::memfd("table", pages.bytes())?);
/// #     let ranges = vec![MediaRange { media, start: 0, pages }];
/// #     Ok(Arc::new(PgmapDevice::new(Pgmap::new(ranges, MemoryType::FsDax)?)))
/// # }
/// let below = device(Pages(8))?;
/// let tail = Target::Linear(Linear::new(below, DeviceOff(4)));
/// let lines = vec![
///     Line { start: DeviceOff(0), pages: Pages(2), target: Target::Error },
///     Line { start: DeviceOff(2), pages: Pages(5), target: tail },
/// ];
/// let error = Table::new(lines).unwrap_err();
/// assert_eq!(error.to_string(), "line 2 of the table: the line takes sectors 32..72 of a device \
///     that has 64; from there on it has 32");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Table {
    lines: Vec<Line>,
    below: Vec<Below>,
}

/// What a table takes of one device.
#[derive(Debug)]
pub(crate) struct Below {
    pub(crate) device: Arc<dyn DaxDevice>,
    /// In the order of the pages there.
    parts: Vec<Part>,
}

/// Pages of a device below that one line takes.
#[derive(Clone, Debug)]
struct Part {
    pages: Range<DeviceOff>,
    line: usize,
    member: usize,
}

/// Pages of a line that lie in memory in one way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Run {
    /// The pages of the device.
    pub pages: Range<DeviceOff>,
    /// The largest order at which pages above and below are aligned alike; none if there is no memory.
    pub alignment: Option<Order>,
    /// The largest folio that fits.
    pub largest: Option<Order>,
}

impl Run {
    fn is_like(&self, other: &Run) -> bool {
        (self.alignment, self.largest) == (other.alignment, other.largest)
    }
}

impl Table {
    /// Takes `lines`, which are given in order.
    ///
    /// # Errors
    ///
    /// [`TableError`] names the first line that is wrong.
    pub fn new(lines: Vec<Line>) -> Result<Table, TableError> {
        if lines.is_empty() {
            return Err(TableError { line: 1, field: Field::Start, problem: Problem::Empty });
        }
        let mut end = DeviceOff(0);
        for (number, line) in lines.iter().enumerate() {
            line.check(end).map_err(|(field, problem)| at_line(number, field, problem))?;
            end = line.range().end;
        }
        let below = below(&lines);
        below.iter().try_for_each(|below| below.check_aliases(&lines))?;
        let table = Table { lines, below };
        table.check_whole()?;
        Ok(table)
    }

    /// Whole devices, end to end in the given order.
    ///
    /// # Errors
    ///
    /// [`TableError`] if there is no device, one is empty, or is named twice.
    pub fn concat(devices: Vec<Arc<dyn DaxDevice>>) -> Result<Table, TableError> {
        let mut start = DeviceOff(0);
        let line = |device: Arc<dyn DaxDevice>| {
            let pages = device.size();
            let target = Target::Linear(crate::Linear::new(device, DeviceOff(0)));
            let line = Line { start, pages, target };
            start = line.range().end;
            line
        };
        Table::new(devices.into_iter().map(line).collect())
    }

    /// The lines.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The number of pages of all lines.
    pub fn size(&self) -> Pages {
        self.lines.last().map_or(Pages(0), |last| last.range().end.since(DeviceOff(0)))
    }

    /// Whether every line, and everything below it, has direct access (I-66).
    ///
    /// # Errors
    ///
    /// [`NoDax`] names the first line that does not.
    pub fn dax(&self) -> Result<(), NoDax> {
        self.lines.iter().enumerate().try_for_each(|(number, line)| {
            let mut members = line.target.members().iter();
            let mut below = || members.try_for_each(|member| member.device.dax());
            line.target.rules().dax().and_then(|()| below()).map_err(|why| {
                let reason = format!("{}: {}", line.named(number), why.reason).into();
                NoDax { reason }
            })
        })
    }

    /// The lines into which no huge folios fit, because pages above and below are aligned
    /// differently, with what would let them in; none of those that are too short for one.
    pub fn advice(&self) -> Vec<Advice> {
        let advice =
            |number: usize| self.lines[number].target.rules().advice(&Placed::new(self, number));
        (0..self.lines.len()).filter_map(advice).collect()
    }

    /// How each line lies in memory, in order: runs of pages for which the same holds, of each of its
    /// lines.
    pub fn layout(&self) -> Vec<Vec<Run>> {
        let plan = self.plan();
        let mut segments = plan.segments().iter().peekable();
        let runs = |line: &Line| {
            let end = line.range().end;
            let mut runs: Vec<Run> = Vec::new();
            while let Some(segment) = segments.next_if(|segment| segment.pages.end <= end) {
                let run = Run {
                    pages: segment.pages.clone(),
                    alignment: segment.alignment(),
                    largest: segment.largest_order(),
                };
                match runs.last_mut() {
                    Some(last) if last.is_like(&run) => last.pages.end = run.pages.end,
                    _ => runs.push(run),
                }
            }
            runs
        };
        self.lines.iter().map(runs).collect()
    }

    /// What it takes of each device below, each once.
    pub(crate) fn below(&self) -> &[Below] {
        &self.below
    }

    /// Works out where every page goes.
    pub(crate) fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        for (number, line) in self.lines.iter().enumerate() {
            plan.append(line.target.rules().plan(line.pages, &line.named(number)));
        }
        plan
    }

    /// Where `pages` of a device below lie on this one, in order.
    pub(crate) fn up(
        &self,
        device: &Arc<dyn DaxDevice>,
        pages: &Range<DeviceOff>,
    ) -> Vec<Range<DeviceOff>> {
        let Some(below) = self.below.iter().find(|b| address(&b.device) == address(device)) else {
            return Vec::new();
        };
        let first = below.parts.partition_point(|part| part.pages.end <= pages.start);
        let parts = below.parts[first..].iter().take_while(|part| part.pages.start < pages.end);
        let mut ranges: Vec<Range<DeviceOff>> =
            parts.flat_map(|part| self.part_up(part, pages)).collect();
        ranges.sort_by_key(|range| range.start);
        ranges
    }

    /// The orders that folios of it may have, by kind of page map.
    pub(crate) fn orders(&self) -> BTreeSet<Option<Order>> {
        self.below.iter().flat_map(Below::orders).collect()
    }

    /// Refuses lines that divide folios of devices that give out no smaller ones (I-68).
    fn check_whole(&self) -> Result<(), TableError> {
        let orders: HashMap<usize, Option<Order>> = self
            .below
            .iter()
            .map(|b| (address(&b.device), b.orders().last().copied().flatten()))
            .collect();
        let largest = orders.values().copied().max().flatten();
        self.lines.iter().enumerate().try_for_each(|(number, line)| {
            let members = line.target.members().iter();
            let order = members.map(|member| orders[&address(&member.device)]).max();
            match order.unwrap_or(largest) {
                Some(order) => line
                    .check_whole(order)
                    .map_err(|(field, problem)| at_line(number, field, problem)),
                None => Ok(()),
            }
        })
    }

    fn part_up(&self, part: &Part, pages: &Range<DeviceOff>) -> Vec<Range<DeviceOff>> {
        let line = &self.lines[part.line];
        let within = |at: DeviceOff| DeviceOff(at.since(part.pages.start).0);
        let (start, end) = (pages.start.max(part.pages.start), pages.end.min(part.pages.end));
        let in_line = line.target.rules().up(part.member, &(within(start)..within(end)));
        let shift = Pages(line.start.0);
        in_line.into_iter().map(|range| range.start + shift..range.end + shift).collect()
    }
}

impl Line {
    /// Its pages of the device.
    pub fn range(&self) -> Range<DeviceOff> {
        self.start..DeviceOff(self.start.0.saturating_add(self.pages.0))
    }

    /// The pages of each of its members.
    pub fn pages_below(&self) -> Pages {
        self.target.rules().pages_below(self.pages)
    }

    fn named(&self, number: usize) -> String {
        format!("line {} of the table ({})", number + 1, self.target.name())
    }

    /// Checks this line, whose predecessors end at `end`.
    fn check(&self, end: DeviceOff) -> Result<(), (Field, Problem)> {
        check_place(self.start, self.pages, end)?;
        let rules = self.target.rules();
        rules.check(self.pages)?;
        let pages = rules.pages_below(self.pages);
        for (number, member) in rules.members().iter().enumerate() {
            let size = member.device.size();
            if member.from.0.checked_add(pages.0).is_none_or(|end| end > size.0) {
                let pages = member.from..DeviceOff(member.from.0.saturating_add(pages.0));
                return Err((rules.argument_of(number), Problem::OutOfRange { pages, size }));
            }
        }
        Ok(())
    }

    /// Refuses pages that begin or end within a folio of `order`, above or below.
    fn check_whole(&self, order: Order) -> Result<(), (Field, Problem)> {
        let rules = self.target.rules();
        let (run, pages) = rules.run(self.pages);
        let mut places = vec![(Field::Start, self.start.0), (run, pages.0)];
        let members = rules.members().iter().enumerate();
        places.extend(members.map(|(number, member)| (rules.argument_of(number), member.from.0)));
        match places.into_iter().find(|(_, pages)| !pages.is_multiple_of(order.pages().0)) {
            Some((field, pages)) => Err((field, Problem::Divides { pages: Pages(pages), order })),
            None => Ok(()),
        }
    }
}

impl Below {
    fn orders(&self) -> BTreeSet<Option<Order>> {
        match self.device.as_mapped() {
            Some(mapped) => mapped.orders().clone(),
            None => self.device.pgmaps().iter().map(|pgmap| pgmap.kind().fixed_order()).collect(),
        }
    }

    /// The parts that have pages of `pages`, without that of one member of one line. Parts share no
    /// page, so they are in the order of their ends, too.
    fn others(
        &self,
        own: (usize, usize),
        pages: &Range<DeviceOff>,
    ) -> impl DoubleEndedIterator<Item = &Part> {
        let first = self.parts.partition_point(|part| part.pages.end <= pages.start);
        let end = self.parts.partition_point(|part| part.pages.start < pages.end);
        self.parts[first..end].iter().filter(move |part| (part.line, part.member) != own)
    }

    /// Refuses two lines that take one page. The parts are sorted, so neighbours are enough.
    fn check_aliases(&self, lines: &[Line]) -> Result<(), TableError> {
        let mut widest: Option<&Part> = None;
        for part in &self.parts {
            if let Some(before) = widest
                && part.pages.start < before.pages.end
            {
                let (first, last) =
                    if before.line <= part.line { (before, part) } else { (part, before) };
                let pages = part.pages.start..part.pages.end.min(before.pages.end);
                let field = lines[last.line].target.rules().argument_of(last.member);
                let problem = Problem::Aliased { first: first.line + 1, pages };
                return Err(at_line(last.line, field, problem));
            }
            widest = Some(part);
        }
        Ok(())
    }
}

/// Checks where a line lies, whose predecessors end at `end`.
fn check_place(start: DeviceOff, pages: Pages, end: DeviceOff) -> Result<(), (Field, Problem)> {
    if pages.is_empty() {
        return Err((Field::Length, Problem::ZeroLength));
    }
    if start > end {
        return Err((Field::Start, Problem::Gap { missing: end..start }));
    }
    if start < end {
        return Err((Field::Start, Problem::Overlap { shared: start..end }));
    }
    if start.0.checked_add(pages.0).is_none_or(|end| end > u64::MAX >> 13) {
        return Err((Field::Length, Problem::TooLarge { what: "the line" }));
    }
    Ok(())
}

/// What the lines take of each device, each device once.
fn below(lines: &[Line]) -> Vec<Below> {
    let mut all: Vec<Below> = Vec::new();
    let mut numbers: HashMap<usize, usize> = HashMap::new();
    for (number, line) in lines.iter().enumerate() {
        for (member, taken) in line.target.members().iter().enumerate() {
            let below = *numbers.entry(address(&taken.device)).or_insert_with(|| {
                all.push(Below { device: Arc::clone(&taken.device), parts: Vec::new() });
                all.len() - 1
            });
            let pages = taken.range(line.pages_below());
            all[below].parts.push(Part { pages, line: number, member });
        }
    }
    for below in &mut all {
        below.parts.sort_by_key(|part| part.pages.start);
    }
    all
}

fn at_line(number: usize, field: Field, problem: Problem) -> TableError {
    TableError { line: number + 1, field, problem }
}
