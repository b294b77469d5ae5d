//! Random stacks against an oracle: a list that says for each page of the top where it lies.
//!
//! A stack has up to four layers of tables and 16 leaves of one or several page maps. Every offset,
//! every boundary and every poison position has to map up and down to the same place.

mod common;

use common::pgmap;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::ops::Range;
use std::time::Duration;
use udax_dev::{
    AccessError, DaxBytes, DaxDevice, Delay, Holder, Line, Linear, Mapped, Member, PgmapDevice,
    Route, Striped, Table, Target,
};
use udax_mm::sync::{Arc, Mutex, Weak};
use udax_mm::{DeviceOff, Pages, Pgmap, PgmapOff};

const PAGE: u64 = 4096;

/// How many stacks are tried. `UDAX_STACKS` says another number.
fn cases() -> u32 {
    std::env::var("UDAX_STACKS").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}

/// Draws what a stack is made of.
struct Dice<'r>(&'r mut TestRunner);

impl Dice<'_> {
    fn below(&mut self, end: u64) -> u64 {
        self.0.rng().next_u64() % end
    }

    fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }
}

/// Where a page of a device is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// Leaf, page.
    Memory(usize, u64),
    Fails,
    Zeros,
}

/// A device with the oracle's knowledge of it.
#[derive(Clone)]
struct Known {
    device: Arc<dyn DaxDevice>,
    places: Vec<Place>,
    /// Pages at which a span has to end: the first pages of lines, chunks and ranges.
    starts: Vec<bool>,
}

/// What a holder at the top was told.
#[derive(Default)]
struct Told(Mutex<Vec<Range<DeviceOff>>>);

impl Holder for Told {
    fn removing(&self) {}

    fn failed(&self, pages: Range<DeviceOff>) {
        self.0.lock().push(pages);
    }

    fn suspended(&self, change: &mut dyn FnMut()) {
        change();
    }
}

/// A stack: the top, and the page maps of the leaves.
struct Stack {
    top: Known,
    leaves: Vec<Pgmap>,
}

fn leaf(dice: &mut Dice<'_>, leaves: &mut Vec<Pgmap>) -> Known {
    let sizes: Vec<u64> = (0..dice.between(1, 3)).map(|_| dice.between(4, 24)).collect();
    let pgmap = pgmap(&sizes);
    let number = leaves.len();
    leaves.push(pgmap.clone());
    let pages: u64 = sizes.iter().sum();
    let mut starts = vec![false; to_usize(pages)];
    let mut at = 0;
    for size in sizes {
        starts[to_usize(at)] = true;
        at += size;
    }
    let places = (0..pages).map(|page| Place::Memory(number, page)).collect();
    Known { device: Arc::new(PgmapDevice::new(pgmap)), places, starts }
}

/// A table over `parts`, of which each device is used by one line.
fn layer(dice: &mut Dice<'_>, mut parts: Vec<Known>) -> Known {
    let (mut lines, mut places, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    while !parts.is_empty() || lines.is_empty() {
        let start = DeviceOff(count(places.len()));
        let (target, pages, new, cuts) = match dice.below(8) {
            0 => nowhere(dice, Target::Error, Place::Fails),
            1 => nowhere(dice, Target::Zero, Place::Zeros),
            2..=4 if parts.len() > 1 => striped(dice, &mut parts),
            kind if !parts.is_empty() => linear(dice, parts.remove(0), kind == 5),
            _ => nowhere(dice, Target::Error, Place::Fails),
        };
        lines.push(Line { start, pages: Pages(pages), target });
        places.extend(new);
        starts.extend(cuts);
    }
    let table = Table::new(lines).expect("the table is good");
    Known { device: Arc::new(Mapped::new(table).expect("nobody has the devices")), places, starts }
}

type Drawn = (Target, u64, Vec<Place>, Vec<bool>);

fn nowhere(dice: &mut Dice<'_>, target: Target, place: Place) -> Drawn {
    let pages = dice.between(1, 5);
    let mut cuts = vec![false; to_usize(pages)];
    cuts[0] = true;
    (target, pages, vec![place; to_usize(pages)], cuts)
}

fn linear(dice: &mut Dice<'_>, part: Known, is_delayed: bool) -> Drawn {
    let size = count(part.places.len());
    let from = dice.below(size);
    let pages = dice.between(1, size - from);
    let range = to_usize(from)..to_usize(from + pages);
    let mut cuts = part.starts[range.clone()].to_vec();
    cuts[0] = true;
    let from = DeviceOff(from);
    let target = if is_delayed {
        Target::Delay(Delay::new(part.device, from, Duration::ZERO))
    } else {
        Target::Linear(Linear::new(part.device, from))
    };
    (target, pages, part.places[range].to_vec(), cuts)
}

fn striped(dice: &mut Dice<'_>, parts: &mut Vec<Known>) -> Drawn {
    let width = dice.between(2, count(parts.len()).min(4));
    let taken: Vec<Known> = parts.drain(..to_usize(width)).collect();
    let smallest = taken.iter().map(|part| count(part.places.len())).min().expect("two at least");
    let chunk = dice.between(1, smallest.min(6));
    let rows = dice.between(1, smallest / chunk);
    let below = rows * chunk;
    let froms: Vec<u64> =
        taken.iter().map(|part| dice.between(0, count(part.places.len()) - below)).collect();
    let (mut places, mut cuts) = (Vec::new(), Vec::new());
    for row in 0..rows {
        for (part, from) in taken.iter().zip(&froms) {
            let start = to_usize(from + row * chunk);
            let range = start..start + to_usize(chunk);
            places.extend(&part.places[range.clone()]);
            let mut of_chunk = part.starts[range].to_vec();
            of_chunk[0] = true;
            cuts.extend(of_chunk);
        }
    }
    let member = |(part, from): (&Known, &u64)| Member {
        device: Arc::clone(&part.device),
        from: DeviceOff(*from),
    };
    let members = taken.iter().zip(&froms).map(member).collect();
    (Target::Striped(Striped::new(Pages(chunk), members)), below * width, places, cuts)
}

fn stack(dice: &mut Dice<'_>) -> Stack {
    let mut leaves = Vec::new();
    let mut parts: Vec<Known> = (0..dice.between(1, 16)).map(|_| leaf(dice, &mut leaves)).collect();
    for _ in 1..dice.between(1, 4) {
        let mut above = Vec::new();
        while !parts.is_empty() {
            let taken = dice.between(1, count(parts.len()));
            let below = parts.drain(..to_usize(taken)).collect();
            above.push(layer(dice, below));
        }
        parts = above;
    }
    Stack { top: layer(dice, parts), leaves }
}

impl Stack {
    /// How many pages from `at` on a span may have at most.
    fn run(&self, at: usize) -> usize {
        let next = |to: &usize| !self.top.starts[*to];
        1 + (at + 1..self.top.places.len()).take_while(next).count()
    }

    /// Every offset goes down to its place, and comes up again.
    fn check_ways(&self) {
        let device = &self.top.device;
        for (at, place) in self.top.places.iter().enumerate() {
            let off = DeviceOff(count(at));
            let run = count(self.run(at));
            match (device.route(off, Pages(u64::MAX >> 20)), place) {
                (Ok(Route::Memory(span)), Place::Memory(leaf, page)) => {
                    assert!(*span.pgmap().pgmap() == self.leaves[*leaf], "page {at} of the top");
                    assert_eq!((span.at(), span.pages()), (PgmapOff(*page), Pages(run)), "I-62");
                    let up = device.device_off(&self.leaves[*leaf], PgmapOff(*page));
                    assert_eq!(up, Some(off), "the way up is the way down");
                }
                (Ok(Route::Zeros(pages)), Place::Zeros) => assert_eq!(pages, Pages(run)),
                (Err(AccessError::Failed { at: failed, .. }), Place::Fails) => {
                    assert_eq!(failed, off, "it is named in pages of the top");
                }
                (found, place) => panic!("page {at}: {found:?} instead of {place:?}"),
            }
        }
        let has_zeros = self.top.places.contains(&Place::Zeros);
        assert!(!has_zeros || device.dax().is_err(), "I-66");
    }

    /// Copies of any range have the bytes of the oracle.
    fn check_bytes(&self, dice: &mut Dice<'_>) {
        let bytes = DaxBytes::new(Arc::clone(&self.top.device));
        let size = count(self.top.places.len()) * PAGE;
        let mut model = vec![0; to_usize(size)];
        for round in 0..8 {
            let from = dice.below(size);
            let len = dice.between(1, (size - from).min(5 * PAGE));
            let pages = from / PAGE..=(from + len - 1) / PAGE;
            let fails = pages.clone().find(|page| self.top.places[to_usize(*page)] == Place::Fails);
            let data = vec![u8::try_from(round + 1).expect("few rounds"); to_usize(len)];
            let written = bytes.write(from, &data);
            assert_eq!(written.is_err(), fails.is_some(), "{written:?}");
            let end = fails.map_or(from + len, |page| page.saturating_mul(PAGE)).max(from);
            for at in from..end {
                let is_kept = matches!(self.top.places[to_usize(at / PAGE)], Place::Memory(..));
                model[to_usize(at)] = if is_kept { data[0] } else { 0 };
            }
        }
        for (at, place) in self.top.places.iter().enumerate() {
            let mut read = [1; 4096];
            let from = count(at) * PAGE;
            match bytes.read(from, &mut read) {
                Ok(()) => assert!(read[..] == model[to_usize(from)..][..4096], "page {at}"),
                Err(_) => assert_eq!(*place, Place::Fails),
            }
        }
    }

    /// Poison of each page of each leaf is told at the top, at its place, and nowhere else.
    fn check_poison(&self) {
        let told = Arc::new(Told::default());
        let weak: Weak<Told> = Arc::downgrade(&told);
        let _hold = self.top.device.hold(weak).expect("nobody holds it");
        for (number, leaf) in self.leaves.iter().enumerate() {
            let live = leaf.try_get_live().expect("it lives");
            for page in 0..leaf.size().0 {
                live.memory_failure(PgmapOff(page)..PgmapOff(page + 1));
                let place = Place::Memory(number, page);
                let at = self.top.places.iter().position(|other| *other == place);
                let heard = std::mem::take(&mut *told.0.lock());
                let expected = at.map(|at| DeviceOff(count(at)).span(Pages(1)));
                assert_eq!(heard, expected.into_iter().collect::<Vec<_>>(), "I-64, B-35");
                live.clear_poison(PgmapOff(page));
            }
            live.memory_failure(PgmapOff(0)..PgmapOff(leaf.size().0));
            let mut heard: Vec<u64> = std::mem::take(&mut *told.0.lock())
                .into_iter()
                .flat_map(|range| range.start.0..range.end.0)
                .collect();
            heard.sort_unstable();
            let is_here = |at: &u64| matches!(self.top.places[to_usize(*at)], Place::Memory(n, _) if n == number);
            let expected: Vec<u64> = (0..count(self.top.places.len())).filter(is_here).collect();
            assert_eq!(heard, expected, "I-64: a range goes up whole");
            (0..leaf.size().0).for_each(|page| live.clear_poison(PgmapOff(page)));
        }
    }
}

#[test]
fn random_stacks_send_every_page_where_the_oracle_says() {
    let config = Config { failure_persistence: None, ..Config::default() };
    for seed in 0..cases() {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config.clone(), rng);
        let mut dice = Dice(&mut runner);
        let stack = stack(&mut dice);
        stack.check_ways();
        stack.check_bytes(&mut dice);
        stack.check_poison();
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("small")
}

fn count(len: usize) -> u64 {
    u64::try_from(len).expect("small")
}
