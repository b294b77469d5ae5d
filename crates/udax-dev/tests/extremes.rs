//! The largest numbers that a table can be made of: each is refused, or printed, without overflow.

mod common;

use common::device;
use std::time::Duration;
use udax_dev::{
    AccessError, Advice, Cure, DaxDevice, Delay, Field, Hold, Holder, HolderError, IoError, Line,
    Linear, Member, Problem, Route, Striped, Table, TableError, Target,
};
use udax_mm::media::Site;
use udax_mm::sync::{Arc, Weak};
use udax_mm::{DeviceOff, MediaFacts, Order, Pages, Pgmap, PgmapOff, StillBusy, Wait};

const NUMBERS: [u64; 5] = [0, 1, u64::MAX / 8, u64::MAX / 2, u64::MAX];

fn ranges() -> Vec<std::ops::Range<DeviceOff>> {
    let range = |n: usize| DeviceOff(NUMBERS[n])..DeviceOff(NUMBERS[(n + 1) % NUMBERS.len()]);
    (0..NUMBERS.len()).map(range).collect()
}

/// Every problem that has a number, with each number.
fn problems() -> Vec<Problem> {
    let mut problems = vec![
        Problem::Empty,
        Problem::NotText { byte: 255 },
        Problem::TooLarge { what: "it" },
        Problem::ZeroLength,
        Problem::Loop,
        Problem::EmptyChunk,
        Problem::TooLate { delay: Duration::MAX },
        Problem::StripeCount { count: usize::MAX },
        Problem::Claim(HolderError::Removed),
        Problem::Missing { what: "it", form: "it" },
        Problem::TooMany { word: String::new(), form: "it" },
        Problem::UnknownTarget { found: String::new() },
        Problem::NotASize { what: "it", found: String::new() },
        Problem::NotANumber { what: "it", found: String::new() },
        Problem::Open { name: String::new(), source: "no".into() },
    ];
    for pages in ranges() {
        problems.push(Problem::Gap { missing: pages.clone() });
        problems.push(Problem::Overlap { shared: pages.clone() });
        problems.push(Problem::Aliased { first: usize::MAX, pages: pages.clone() });
        for size in NUMBERS.map(Pages) {
            problems.push(Problem::OutOfRange { pages: pages.clone(), size });
        }
    }
    for number in NUMBERS {
        let pages = Pages(number);
        problems.push(Problem::Unaligned { what: "it", bytes: number });
        problems.extend(Order::ALL.map(|order| Problem::Divides { pages, order }));
        for row in NUMBERS.map(Pages) {
            problems.push(Problem::PartialRow { pages, row, chunk: row, count: usize::MAX });
        }
    }
    problems
}

#[test]
fn every_problem_can_be_printed() {
    for problem in problems() {
        let text = problem.to_string();
        let error = TableError { line: usize::MAX, field: Field::Length, problem };
        assert_eq!(error.to_string(), format!("line {} of the table: {text}", usize::MAX));
    }
    let shared = DeviceOff(1)..DeviceOff(u64::MAX);
    let text = Problem::Overlap { shared }.to_string();
    assert!(text.contains(&format!("sectors 8..{}", u64::MAX)), "the most there is: {text}");
}

#[test]
fn every_advice_can_be_printed() {
    let (page, pages) = (DeviceOff(u64::MAX), Pages(u64::MAX));
    let cures = [
        Cure::From { member: usize::MAX, from: page, better: page, missing: pages },
        Cure::Start { start: page, better: page },
        Cure::Chunk { chunk: pages, better: pages, length: Some(pages) },
    ];
    for cure in cures {
        let advice = Advice { line: usize::MAX, lost: Order::Pud, cure };
        assert!(advice.to_string().contains(&format!(" {}", u64::MAX)), "{advice}");
    }
}

#[track_caller]
fn check_refused(start: u64, pages: u64, target: Target, expected: Field) {
    let line = Line { start: DeviceOff(start), pages: Pages(pages), target };
    assert!(line.range().end >= line.start);
    let first = Line { start: DeviceOff(0), pages: Pages(1), target: Target::Error };
    let lines = if start == 0 { vec![line] } else { vec![first, line] };
    let number = lines.len();
    let error = Table::new(lines).expect_err("no device is so large");
    assert_eq!((error.line, error.field), (number, expected), "{error}");
}

#[test]
fn a_table_of_the_largest_numbers_is_refused() {
    let most = u64::MAX;
    let device = device(8);
    let linear = |from| Target::Linear(Linear::new(Arc::clone(&device), DeviceOff(from)));
    let delay =
        |from| Target::Delay(Delay::new(Arc::clone(&device), DeviceOff(from), Duration::MAX));
    let member = |from| Member { device: Arc::clone(&device), from: DeviceOff(from) };
    let striped = |chunk, count: usize| {
        Target::Striped(Striped::new(Pages(chunk), vec![member(most); count]))
    };

    check_refused(0, 1, linear(most), Field::Argument(2));
    check_refused(0, most, linear(0), Field::Length);
    check_refused(0, most >> 13, linear(most), Field::Argument(2));
    check_refused(most, 1, linear(0), Field::Start);
    check_refused(most, most, linear(most), Field::Start);
    check_refused(1, most, Target::Error, Field::Length);
    check_refused(0, 1, delay(most), Field::Argument(3));
    check_refused(0, 8, striped(most, 2), Field::Length);
    check_refused(0, most, striped(most, 1), Field::Length);
    check_refused(0, most >> 13, striped(1, 1), Field::Argument(4));
    check_refused(0, 16, striped(1, 16), Field::Argument(4));
    check_refused(0, 16, striped(1, 0), Field::Argument(1));
    check_refused(0, 16, striped(0, 2), Field::Argument(2));
}

/// A device that claims to be as large as a number can be.
#[derive(Debug)]
struct Endless(Arc<dyn DaxDevice>);

impl DaxDevice for Endless {
    fn size(&self) -> Pages {
        Pages(u64::MAX)
    }

    fn route(&self, at: DeviceOff, max: Pages) -> Result<Route, AccessError> {
        self.0.route(at, max)
    }

    fn fence(&self, site: Site) -> Result<(), IoError> {
        self.0.fence(site)
    }

    fn facts(&self) -> MediaFacts {
        self.0.facts()
    }

    fn pgmaps(&self) -> Vec<Pgmap> {
        self.0.pgmaps()
    }

    fn device_off(&self, pgmap: &Pgmap, at: PgmapOff) -> Option<DeviceOff> {
        self.0.device_off(pgmap, at)
    }

    fn hold(&self, holder: Weak<dyn Holder>) -> Result<Hold, HolderError> {
        self.0.hold(holder)
    }

    fn kill(&self, wait: Wait) -> Result<(), StillBusy> {
        self.0.kill(wait)
    }
}

#[test]
fn a_device_of_the_largest_size_is_refused_or_its_end_is_the_end() {
    let endless = || -> Arc<dyn DaxDevice> { Arc::new(Endless(device(8))) };
    let error = Table::concat(vec![endless(), endless()]).expect_err("no device is so large");
    assert_eq!((error.line, error.field), (1, Field::Length));

    let from = DeviceOff(u64::MAX - 600);
    let target = Target::Linear(Linear::new(endless(), from));
    let line = Line { start: DeviceOff(0), pages: Pages(600), target };
    let table = Table::new(vec![line]).expect("it ends where the device does");
    let better = DeviceOff(u64::MAX - 600 - 423);
    let cure = Cure::From { member: 1, from, better, missing: Pages(0) };
    assert_eq!(table.advice().into_iter().map(|advice| advice.cure).collect::<Vec<_>>(), [cure]);
    assert_eq!(table.layout()[0][0].alignment, Some(Order::Base));
}
