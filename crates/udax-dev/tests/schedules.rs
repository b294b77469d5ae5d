//! Random schedules of one device: threads that claim, release, tell, end and use it, in orders drawn
//! at random. Run with `cargo xtask schedules`. A failure names its seed.

#![cfg(shuttle)]

mod common;
#[path = "../../udax-mm/tests/support/explore.rs"]
mod explore;

use common::device;
use explore::explore;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use std::ops::Range;
use udax_dev::{AccessError, DaxDevice, Hold, Holder, HolderError, Mapped, Table};
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

    fn moved(&self) {
        unreachable!("no table changes");
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
    let table = Table::concat(vec![Arc::clone(&leaf)]).expect("one device");
    let whole: Arc<dyn DaxDevice> = Arc::new(Mapped::new(table).expect("nobody holds it"));
    execution(&leaf, &whole);
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
