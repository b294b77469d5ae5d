//! What is said of lines into which no huge folio fits: it can be followed, and helps.

mod common;

use common::device;
use proptest::prelude::*;
use std::time::Duration;
use udax_dev::{Cure, DaxDevice, Delay, Line, Linear, LogWrites, Member, Striped, Table, Target};
use udax_mm::recorder::Event;
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{DeviceOff, Order, Pages};

const HUGE: u64 = 512;

fn linear(device: &Arc<dyn DaxDevice>, from: u64) -> Target {
    Target::Linear(Linear::new(Arc::clone(device), DeviceOff(from)))
}

fn striped(chunk: u64, members: &[(&Arc<dyn DaxDevice>, u64)]) -> Target {
    let member = |(device, from): &(&Arc<dyn DaxDevice>, u64)| Member {
        device: Arc::clone(device),
        from: DeviceOff(*from),
    };
    Target::Striped(Striped::new(Pages(chunk), members.iter().map(member).collect()))
}

fn log_writes(device: &Arc<dyn DaxDevice>) -> Target {
    let sink: Arc<Mutex<Vec<Event>>> = Arc::default();
    Target::LogWrites(LogWrites::new(Arc::clone(device), sink))
}

/// A table of targets with their pages.
fn table(lines: &[(u64, Target)]) -> Table {
    let mut start = DeviceOff(0);
    let line = |(pages, target): &(u64, Target)| {
        let line = Line { start, pages: Pages(*pages), target: target.clone() };
        start = line.range().end;
        line
    };
    Table::new(lines.iter().map(line).collect()).expect("a good table")
}

#[track_caller]
fn check(lines: &[(u64, Target)], expected: &[Cure]) {
    let advice = table(lines).advice();
    let cures: Vec<Cure> = advice.into_iter().map(|advice| advice.cure).collect();
    assert_eq!(cures, expected);
}

fn from(from: u64, better: u64, missing: u64) -> Cure {
    let (from, better) = (DeviceOff(from), DeviceOff(better));
    Cure::From { member: 1, from, better, missing: Pages(missing) }
}

fn start(start: u64, better: u64) -> Cure {
    Cure::Start { start: DeviceOff(start), better: DeviceOff(better) }
}

fn chunk(chunk: u64, better: u64, length: Option<u64>) -> Cure {
    let (chunk, better) = (Pages(chunk), Pages(better));
    Cure::Chunk { chunk, better, length: length.map(Pages) }
}

/// The pages that are named are there, or the device is too small, and that is said.
#[test]
fn advice_names_a_place_that_the_device_has() {
    let a = device(1025);

    check(&[(512, linear(&a, 513))], &[from(513, 512, 0)]);
    check(&[(512, linear(&a, 1))], &[from(1, 512, 0)]);
    check(&[(1024, linear(&a, 1))], &[from(1, 0, 0)]);
    check(&[(1, Target::Error), (1023, linear(&a, 2))], &[from(2, 1, 0)]);
    check(&[(1, Target::Error), (1024, linear(&a, 0))], &[from(0, 1, 0)]);
    check(&[(2, Target::Error), (1024, linear(&a, 0))], &[from(0, 2, 1)]);
}

/// Pages that another line takes are no place, nor are those of another member of the line.
#[test]
fn advice_names_a_place_that_is_free() {
    let a = device(513);
    check(&[(512, linear(&a, 1)), (1, linear(&a, 0))], &[from(1, 512, 511)]);

    let a = device(2048);
    let delayed = Target::Delay(Delay::new(Arc::clone(&a), DeviceOff(1), Duration::ZERO));
    let page = |at| (1, linear(&a, at));
    check(&[(512, delayed.clone()), page(513)], &[from(1, 1024, 0)]);
    let most = (600, linear(&a, 1100));
    check(&[(512, delayed.clone()), page(1023), most.clone()], &[from(1, 0, 0)]);
    check(&[(512, delayed), page(1023), most, page(0)], &[from(1, 2048, 512)]);

    let pair = striped(512, &[(&a, 1), (&a, 600)]);
    check(&[(1024, pair)], &[from(1, 1536, 0)]);
}

#[test]
fn a_line_without_room_for_a_huge_folio_gets_no_advice() {
    let (a, b) = (device(2048), device(2048));

    check(&[(16, striped(8, &[(&a, 0), (&b, 0)]))], &[]);
    check(&[(1022, striped(7, &[(&a, 0), (&b, 0)]))], &[]);
    check(&[(1, Target::Error), (512, linear(&a, 0))], &[]);
    check(&[(1, Target::Error), (1022, linear(&a, 0))], &[]);
    check(&[(1, Target::Error), (1023, linear(&a, 0))], &[from(0, 1, 0)]);
    check(&[(1, Target::Error), (1022, log_writes(&a))], &[]);
}

/// A chunk divides the line, and stripes lie as their chunks do.
#[test]
fn advice_on_stripes_makes_no_line_that_would_be_refused() {
    let (a, b) = (device(4096), device(4096));
    let over = |chunk| striped(chunk, &[(&a, 0), (&b, 0)]);

    check(&[(1024, over(16))], &[chunk(16, 512, None)]);
    check(&[(2560, over(16))], &[chunk(16, 512, Some(2048))]);
    check(&[(3072, over(768))], &[chunk(768, 512, None)]);
    check(&[(6144, over(768))], &[chunk(768, 1024, None)]);
    check(&[(1, Target::Error), (1024, over(512))], &[start(1, 512)]);
    check(&[(512, Target::Error), (1024, over(512))], &[]);
}

/// It always takes the first page of its device, so the line has to move.
#[test]
fn advice_on_a_log_moves_the_line() {
    let a = device(4096);
    check(&[(8, Target::Error), (2048, log_writes(&a))], &[start(8, 512)]);
}

/// A line as it is drawn: devices by number.
#[derive(Clone, Debug)]
struct Drawn {
    pages: u64,
    chunk: u64,
    members: Vec<(usize, u64)>,
}

impl Drawn {
    /// One with whole rows of chunks.
    fn new(pages: u64, chunk: u64, members: Vec<(usize, u64)>) -> Drawn {
        let row = chunk * u64::try_from(members.len()).expect("few");
        let pages = if members.len() < 2 { pages } else { pages.next_multiple_of(row) };
        Drawn { pages, chunk, members }
    }

    fn target(&self, devices: &[Arc<dyn DaxDevice>]) -> Target {
        let member = |&(number, from): &(usize, u64)| (&devices[number], from);
        let members: Vec<_> = self.members.iter().map(member).collect();
        match &members[..] {
            [] => Target::Error,
            [(device, from)] => linear(device, *from),
            members => striped(self.chunk, members),
        }
    }

    /// Whether a huge folio fits, if the line lies at `start` and all is well.
    fn has_room(&self, start: u64) -> bool {
        match self.members.len() {
            0 => false,
            1 => start.next_multiple_of(HUGE) + HUGE <= start + self.pages,
            count => self.pages / u64::try_from(count).expect("few") >= HUGE,
        }
    }
}

fn open(lines: &[Drawn], sizes: &[u64]) -> Result<Table, udax_dev::TableError> {
    let devices: Vec<_> = sizes.iter().map(|pages| device(*pages)).collect();
    let mut start = DeviceOff(0);
    let line = |drawn: &Drawn| {
        let target = drawn.target(&devices);
        let line = Line { start, pages: Pages(drawn.pages), target };
        start = line.range().end;
        line
    };
    Table::new(lines.iter().map(line).collect())
}

/// Does what the advice says.
fn follow(lines: &mut Vec<Drawn>, sizes: &mut [u64], line: usize, cure: &Cure) {
    let drawn = &mut lines[line - 1];
    match *cure {
        Cure::From { member, from, better, missing } => {
            let (number, place) = &mut drawn.members[member - 1];
            assert_eq!(*place, from.0);
            *place = better.0;
            sizes[*number] += missing.0;
        }
        Cure::Start { start, better } => {
            lines.insert(line - 1, Drawn::new(better.0 - start.0, 1, Vec::new()));
        }
        Cure::Chunk { chunk, better, length } => {
            assert_eq!(drawn.chunk, chunk.0);
            drawn.chunk = better.0;
            drawn.pages = length.map_or(drawn.pages, |length| length.0);
        }
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let near = |most: u64| {
        let around = (0..most, prop::sample::select(vec![0, 0, 1, 2, HUGE - 1]));
        around.prop_map(|(times, more)| times * HUGE + more)
    };
    let member = (0..2_usize, near(4));
    let chunk = prop_oneof![1..40_u64, near(3).prop_map(|pages| pages + 1)];
    (near(4), chunk, prop::collection::vec(member, 0..3))
        .prop_map(|(pages, chunk, members)| Drawn::new(pages + 1, chunk, members))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Whoever does what is advised, one thing after the other, gets a table each time, and in the
    /// end huge folios wherever they have room.
    #[test]
    fn advice_can_be_followed_and_helps(
        wanted in prop::collection::vec(drawn(), 1..6),
        mut sizes in prop::array::uniform2(1..3000_u64),
    ) {
        let mut lines = Vec::new();
        for line in wanted {
            lines.push(line);
            if open(&lines, &sizes).is_err() {
                lines.pop();
            }
        }
        prop_assume!(!lines.is_empty());
        let mut table = open(&lines, &sizes).expect("what did not fit was left out");
        let mut rounds = 0;
        while let Some(advice) = table.advice().into_iter().next() {
            let text = advice.to_string();
            follow(&mut lines, &mut sizes, advice.line, &advice.cure);
            let next = open(&lines, &sizes);
            prop_assert!(next.is_ok(), "{text}: {:?}", next.err());
            table = next.expect("just looked at");
            rounds += 1;
            prop_assert!(rounds < 50, "it never ends: {text}");
        }
        for ((drawn, line), runs) in lines.iter().zip(table.lines()).zip(table.layout()) {
            let largest = runs.iter().filter_map(|run| run.largest).max();
            prop_assert_eq!(drawn.has_room(line.start.0), largest >= Some(Order::Pmd), "{:?}", drawn);
        }
    }
}
