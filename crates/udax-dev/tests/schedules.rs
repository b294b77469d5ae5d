//! Random schedules of devices: threads that claim, release, tell, end, use one, and load tables into
//! it, in orders drawn at random. Run with `cargo xtask schedules`. A failure names its seed.

#![cfg(shuttle)]

mod common;
#[path = "../../udax-mm/tests/support/explore.rs"]
mod explore;

use common::device;
use explore::explore;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use std::ops::Range;
use udax_dev::{
    AccessError, DaxDevice, Hold, Holder, HolderError, Mapped, SwapError, Swapped, Table,
    TableError,
};
use udax_mm::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use udax_mm::sync::thread::{spawn, yield_now};
use udax_mm::sync::{Arc, Weak};
use udax_mm::{DeviceOff, Order, Pages, PgmapRef, RequestError, Wait};

/// Pages of the device.
const PAGES: u64 = 4;

fn on_all_schedulers(execution: fn()) {
    explore(RandomScheduler::new_from_seed, execution);
    explore(|seed, count| PctScheduler::new_from_seed(seed, 3, count), execution);
}

/// What a holder is told, and that it has been told.
#[derive(Default)]
struct Told {
    removals: AtomicU64,
    failures: AtomicU64,
    is_over: AtomicBool,
}

impl Told {
    fn removals(&self) -> u64 {
        self.removals.load(Ordering::Relaxed)
    }

    fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

impl Holder for Told {
    fn removing(&self) {
        self.removals.fetch_add(1, Ordering::Relaxed);
        yield_now();
        self.is_over.store(true, Ordering::Release);
    }

    fn failed(&self, _pages: Range<DeviceOff>) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn suspended(&self, change: &mut dyn FnMut()) {
        change();
    }
}

fn held(device: &Arc<dyn DaxDevice>) -> (Arc<Told>, Hold) {
    let told = Arc::new(Told::default());
    let hold = claim(device, &told).expect("nobody holds it");
    (told, hold)
}

fn claim(device: &Arc<dyn DaxDevice>, told: &Arc<Told>) -> Result<Hold, HolderError> {
    let weak: Weak<Told> = Arc::downgrade(told);
    device.hold(weak)
}

fn live(device: &Arc<dyn DaxDevice>) -> PgmapRef {
    device.pgmaps()[0].try_get_live().expect("nobody killed it")
}

/// A device, or one that is below a table.
fn each(execution: impl Fn(&Arc<dyn DaxDevice>, &Arc<dyn DaxDevice>)) {
    let leaf = device(PAGES);
    execution(&leaf, &leaf);
    let leaf = device(PAGES);
    execution(&leaf, &over(&leaf));
}

fn table(below: &Arc<dyn DaxDevice>) -> Table {
    Table::concat(vec![Arc::clone(below)]).expect("one device")
}

/// A device that follows a table of one line.
fn over(below: &Arc<dyn DaxDevice>) -> Arc<dyn DaxDevice> {
    Arc::new(Mapped::new(table(below)).expect("nobody holds it"))
}

/// Loads a table of one line.
fn swap(device: &Arc<dyn DaxDevice>, below: &Arc<dyn DaxDevice>) -> Result<Swapped, SwapError> {
    device.as_mapped().expect("it follows a table").swap(table(below), Wait::Forever)
}

/// The page map that has the first page.
fn place(device: &Arc<dyn DaxDevice>) -> udax_mm::Pgmap {
    let span = device.direct_access(DeviceOff(0), Pages(1)).expect("it lives");
    span.pgmap().pgmap().clone()
}

/// T-3, I-59: an access that began before the end is waited for, with the folio that it took; one
/// that begins after the holder was told is refused, and none is left when the end has returned.
///
/// Kills: access while the holder is told; an end that does not wait.
#[test]
fn access_that_meets_the_end_is_waited_for_or_refused() {
    on_all_schedulers(|| {
        each(|leaf, whole| {
            let (told, _hold) = held(whole);
            let is_dead = Arc::new(AtomicBool::new(false));
            let users = [0, 1].map(|page| {
                let (whole, told, is_dead) = (whole.clone(), told.clone(), is_dead.clone());
                spawn(move || {
                    let was_told = told.is_over.load(Ordering::Acquire);
                    let span = match whole.direct_access(DeviceOff(page), Pages(1)) {
                        Err(refusal) => return assert_eq!(refusal, AccessError::Dead),
                        Ok(span) => span,
                    };
                    assert!(!was_told, "rule 20: refused first, and then told");
                    let folio = span.pgmap().request_folio(span.at(), Order::Base);
                    drop(span);
                    yield_now();
                    assert!(!is_dead.load(Ordering::Acquire), "T-3: the folio is counted");
                    drop(folio.expect("nobody else has the page"));
                })
            });

            leaf.kill(Wait::Forever).expect("nobody holds on");

            is_dead.store(true, Ordering::Release);
            assert_eq!(told.removals(), 1, "I-61");
            let late = whole.direct_access(DeviceOff(0), Pages(1)).unwrap_err();
            assert_eq!(late, AccessError::Dead, "I-59");
            for user in users {
                user.join().expect("a panic ends the execution");
            }
            leaf.pgmaps()[0].verify().expect("the page map keeps its invariants");
        });
    });
}

/// B-33: who claims a device while another lets it go is the one who is told.
///
/// Kills: a release that takes what a new holder has put there.
#[test]
fn a_claim_that_meets_a_release_is_told_of_everything_after() {
    on_all_schedulers(|| {
        let device = device(PAGES);
        let (old, hold) = held(&device);
        let release = spawn(move || drop(hold));

        let new = Arc::new(Told::default());
        let _hold = loop {
            match claim(&device, &new) {
                Ok(hold) => break hold,
                Err(HolderError::Held) => yield_now(),
                Err(HolderError::Removed) => unreachable!("nobody removes it"),
            }
        };
        live(&device).memory_failure(udax_mm::PgmapOff(1).span(Pages(1)));
        device.kill(Wait::Forever).expect("nobody holds on");

        release.join().expect("a panic ends the execution");
        assert_eq!((old.failures(), old.removals()), (0, 0), "B-33: it has let go");
        assert_eq!((new.failures(), new.removals()), (1, 1), "B-33: it holds the device");
    });
}

/// B-33: a notice is for one holder, whoever comes and goes meanwhile.
///
/// Kills: a notice that looks for the holder twice.
#[test]
fn a_failure_is_told_once_while_holders_change() {
    on_all_schedulers(|| {
        let device = device(PAGES);
        let (old, hold) = held(&device);
        let failure = spawn({
            let device = Arc::clone(&device);
            move || live(&device).memory_failure(udax_mm::PgmapOff(1).span(Pages(1)))
        });

        drop(hold);
        let (new, _hold) = held(&device);

        failure.join().expect("a panic ends the execution");
        assert!(old.failures() + new.failures() <= 1, "B-33: told twice");
        let refused = live(&device).claim(udax_mm::PgmapOff(1).span(Pages(1)));
        assert!(matches!(refused, Err(RequestError::Poisoned(_))), "the mark stands");
    });
}

/// B-34: a release that meets the end is silent, and the holder is told once or has let go before.
///
/// Kills: a release that insists on finding itself; a claim that is granted after the end.
#[test]
fn a_release_that_meets_the_end_changes_nothing() {
    on_all_schedulers(|| {
        each(|leaf, whole| {
            let (told, hold) = held(whole);
            let release = spawn(move || drop(hold));

            leaf.kill(Wait::Forever).expect("nobody holds on");

            let late = claim(whole, &told).unwrap_err();
            assert_eq!(late, HolderError::Removed, "I-61: it is over");
            release.join().expect("a panic ends the execution");
            assert!(told.removals() <= 1, "I-61");
            let late = claim(whole, &told).unwrap_err();
            assert_eq!(late, HolderError::Removed, "B-34: nothing holds it, and nothing can");
        });
    });
}

/// I-61: however many end a device, its holder is told once, and nobody is through before it has
/// been.
///
/// Kills: a second end that does not wait for the notice of the first.
#[test]
fn who_ends_a_device_second_waits_for_the_notice_of_the_first() {
    on_all_schedulers(|| {
        each(|leaf, whole| {
            let (told, _hold) = held(whole);
            let ends = [leaf, whole].map(|device| {
                let (device, told) = (Arc::clone(device), Arc::clone(&told));
                spawn(move || {
                    device.kill(Wait::Forever).expect("nobody holds on");
                    assert!(told.is_over.load(Ordering::Acquire), "I-61: it was told");
                })
            });
            for end in ends {
                end.join().expect("a panic ends the execution");
            }
            assert_eq!(told.removals(), 1, "I-61");
        });
    });
}

/// I-61: whoever claims a device while a table below it is loaded was asked whether pages may move,
/// or comes when they have moved.
///
/// Kills: a claim that goes on between the answer and the change.
#[test]
fn pages_do_not_move_under_a_claim_that_meets_a_swap() {
    on_all_schedulers(|| {
        let (one, other) = (device(PAGES), device(PAGES));
        let lower = over(&one);
        let top = over(&lower);
        let swapped = spawn({
            let lower = Arc::clone(&lower);
            move || match swap(&lower, &other) {
                Ok(_) => true,
                Err(SwapError::InPlace) => false,
                Err(error) => panic!("{error}"),
            }
        });

        // It does not let pages move.
        let (_told, _hold) = held(&top);
        let before = place(&top);
        yield_now();
        let is_swapped = swapped.join().expect("a panic ends the execution");

        assert_eq!(place(&top), before, "moved under its holder; swapped: {is_swapped}");
        assert_eq!(before != one.pgmaps()[0], is_swapped);
    });
}

/// I-66: a device that ends while it is put into a table is not in it, or ends the whole.
///
/// Kills: a table in use with a device that was removed when it was claimed already.
#[test]
fn a_device_that_ends_while_a_table_takes_it_ends_the_whole_or_is_refused() {
    on_all_schedulers(|| {
        let (one, other) = (device(PAGES), device(PAGES));
        let (whole, next) = (over(&one), over(&other));
        let told = Arc::new(Told::default());
        let end = spawn({
            let next = Arc::clone(&next);
            move || next.kill(Wait::Forever).expect("nobody holds on")
        });

        let swapped = swap(&whole, &next);
        let hold = claim(&whole, &told);

        end.join().expect("a panic ends the execution");
        match (swapped, hold) {
            (Ok(_), Err(HolderError::Removed)) => (),
            (Ok(_), Ok(_hold)) => assert_eq!(told.removals(), 1, "I-66: nobody was told"),
            (Err(SwapError::Table(TableError { .. })), Ok(_hold)) => {
                assert_eq!(told.removals(), 0);
                assert_eq!(place(&whole), one.pgmaps()[0], "it follows its old table");
            }
            (swapped, hold) => panic!("{swapped:?}, {hold:?}"),
        }
    });
}

/// A device that the last user of an old table lets go just now is free, or still ours.
///
/// Kills: a table whose claims are given back, and that nobody waits for.
#[test]
fn a_device_that_is_being_let_go_is_taken_back() {
    on_all_schedulers(|| {
        let (one, other) = (device(PAGES), device(PAGES));
        let whole = over(&one);
        let span = whole.direct_access(DeviceOff(0), Pages(1)).expect("it lives");
        let mapped = whole.as_mapped().expect("it follows a table");
        mapped.swap(table(&other), Wait::Never).expect("nobody holds it");
        let user = spawn(move || drop(span));

        swap(&whole, &one).expect("it is in no other table");

        user.join().expect("a panic ends the execution");
        assert_eq!(place(&whole), one.pgmaps()[0]);
    });
}

/// Two tables are not below each other, however they are loaded.
///
/// Kills: a circle that is looked for before the claims only.
#[test]
fn two_swaps_make_no_circle() {
    on_all_schedulers(|| {
        let leaves = [device(PAGES), device(PAGES), device(PAGES)];
        let lower = over(&leaves[2]);
        let [one, other] = [over(&lower), over(&leaves[1])];
        // A change below goes up while both are claimed by each other.
        let changed = spawn({
            let (lower, leaf) = (Arc::clone(&lower), Arc::clone(&leaves[0]));
            move || drop(swap(&lower, &leaf))
        });
        let swapped = spawn({
            let (one, other) = (Arc::clone(&one), Arc::clone(&other));
            move || swap(&one, &other).is_ok()
        });

        let there = swap(&other, &one).is_ok();
        let here = swapped.join().expect("a panic ends the execution");
        changed.join().expect("a panic ends the execution");

        assert!(!(here && there), "a stack has an end");
        for device in [&one, &other] {
            place(device);
        }
    });
}
