//! Random schedules of one small file: threads that fault, pin, break, allocate and write back, in
//! orders drawn at random. Run with `cargo xtask schedules`. A failure names its seed.
//!
//! The races of the entry lock alone are loom's (`src/index/races.rs`). Here are those in which the
//! layout lock, the page words and the list of pins take part. Nobody maps: addresses are not
//! shuttle's.

#![cfg(shuttle)]

mod common;
#[path = "../../udax-mm/tests/support/explore.rs"]
mod explore;

use common::sharing::{Left, SharingFile};
use common::{TestFile, data, info, range};
use explore::explore;
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use udax_mapping::{FaultError, Iomap, Mapping, PinnedFolios};
use udax_mm::image::Image;
use udax_mm::recorder::{Event, Recorder};
use udax_mm::sync::Arc;
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::thread::{JoinHandle, spawn};
use udax_mm::{Access, FileIndex, Order, Pages, PinKind, Wait};

/// Pages of the file.
const PAGES: u64 = 6;

fn on_all_schedulers(execution: fn()) {
    explore(RandomScheduler::new_from_seed, execution);
    explore(|seed, count| PctScheduler::new_from_seed(seed, 3, count), execution);
}

fn file(pages: &[Option<u64>]) -> Arc<TestFile> {
    TestFile::new(16, pages)
}

fn with<T: Send + 'static>(
    file: &Arc<TestFile>,
    run: impl FnOnce(&TestFile) -> T + Send + 'static,
) -> JoinHandle<T> {
    let file = Arc::clone(file);
    spawn(move || run(&file))
}

/// Brings in a page and looks at it, as a read fault does.
fn fault(mapping: &Arc<Mapping>, index: u64) -> Result<(), FaultError> {
    let index = FileIndex(index);
    let faults = mapping.faults();
    let mut entry = faults.lock_entry(index);
    if let Iomap::Data { span, start, .. } = entry.iomap(Access::Read)? {
        let page = span.slice(index.since(start), Pages(1));
        let folio = entry.fault(&page, Order::Base)?;
        assert!(folio.pages().contains(&page.at()), "it is the page of the file");
        assert!(page.pgmap().claim(page.range()).is_err(), "T-3: it is counted");
    }
    Ok(())
}

fn pin(mapping: &Arc<Mapping>, at: u64) -> Result<PinnedFolios, FaultError> {
    mapping.pin(range(at, at + 1), info("schedule", PinKind::Write))
}

/// T-3: a count goes from 0 to 1 only while the device lives, and its end waits for it.
///
/// Kills: an end that lets faults in behind it.
#[test]
fn a_fault_that_meets_the_end_of_its_device_is_waited_for_or_refused() {
    on_all_schedulers(|| {
        let file = file(&data(0, 4));
        let faults = [1, 2].map(|at| with(&file, move |file| fault(&file.mapping, at)));

        file.mapping.zap_all();
        file.device.kill(Wait::Forever).expect("nobody pins");

        assert!(file.pgmap().try_get_live().is_none());
        for fault in faults {
            let refusal = fault.join().expect("a panic ends the execution").err();
            assert!(matches!(refusal, None | Some(FaultError::Removed)), "{refusal:?}");
        }
        assert_eq!(file.mapping.entry_pages(), Pages(0), "I-59");
        file.verify();
    });
}

/// F-39: who waits for a pin is not kept waiting by those who fault the page again and again.
///
/// Kills: a break that waits for the page to be idle; one that looks at the page once.
#[test]
fn a_storm_of_faults_does_not_keep_a_break_from_its_pages() {
    on_all_schedulers(|| {
        let file = file(&data(0, 4));
        let held = pin(&file.mapping, 1).expect("nothing is in the way");
        let is_broken = Arc::new(AtomicBool::new(false));
        let storm = with(&file, {
            let is_broken = Arc::clone(&is_broken);
            move |file| {
                while !is_broken.load(Ordering::Acquire) {
                    fault(&file.mapping, 1).expect("the file lives");
                    udax_mm::sync::thread::yield_now();
                }
            }
        });
        let holder = with(&file, move |file| {
            // It may need the file before it lets go (rule 7).
            fault(&file.mapping, 2).expect("the file lives");
            drop(held);
        });

        file.truncate(0, Wait::Forever).expect("the pin goes");
        is_broken.store(true, Ordering::Release);

        storm.join().expect("a panic ends the execution");
        holder.join().expect("a panic ends the execution");
        assert_eq!(file.free_blocks(), 16);
        file.verify();
    });
}

/// I-20: a page of a file is in one place, also for a fault that meets the change of a table below.
///
/// Kills: a change that is made before faults are kept away, or after they are let in again.
#[test]
fn a_fault_that_meets_a_move_finds_the_page_in_one_place() {
    on_all_schedulers(|| {
        let file = file(&data(0, 4));
        fault(&file.mapping, 1).expect("the device lives");
        let faults = [1, 2].map(|at| {
            with(&file, move |file| {
                for _ in 0..2 {
                    fault(&file.mapping, at).expect("the device lives");
                }
            })
        });

        file.exchange(1, 2);
        fault(&file.mapping, 1).expect("the device lives");

        for fault in faults {
            fault.join().expect("a panic ends the execution");
        }
        assert_eq!(file.blocks()[1..3], [Some(2), Some(1)]);
        file.verify();
    });
}

/// Rule 9, I-52: between the claim of pages and the end of the proof nobody pins them, and a pin
/// that came first is found.
///
/// Kills: a pin that is counted before the layout lock is taken.
#[test]
fn a_pin_and_a_break_of_one_page_exclude_each_other() {
    on_all_schedulers(|| {
        let file = file(&data(0, 4));
        let pinner = with(&file, |file| pin(&file.mapping, 3).ok());

        let broken = file.truncate(2, Wait::Never);

        let pinned = pinner.join().expect("a panic ends the execution");
        match (&broken, &pinned) {
            (Err(_), Some(_)) => assert_eq!(file.blocks().len(), 4),
            (Ok(()), None) => assert_eq!(file.free_blocks(), 14),
            // The pin came later, and was refused or not there yet; or it saw the file whole.
            (Ok(()), Some(_)) => panic!("a page was freed while it is pinned"),
            (Err(error), None) => panic!("nobody holds a pin: {error}"),
        }
        file.verify();
        drop(pinned);
    });
}

/// B-12: two pins that allocate wait for each other's entries and not for each other.
///
/// Kills: settling with an entry locked.
#[test]
fn faults_that_allocate_beside_each_other_both_end() {
    on_all_schedulers(|| {
        let file = file(&[None; 4]);
        let pinners = [0, 1].map(|at| {
            with(&file, move |file| {
                file.mapping.pin(range(at, at + 3), info("allocates", PinKind::Read)).map(drop)
            })
        });

        file.allocate(3);

        for pinner in pinners {
            pinner.join().expect("a panic ends the execution").expect("there is room");
        }
        assert!(file.blocks().iter().all(Option::is_some));
        file.verify();
    });
}

/// What a thread does to the file.
fn step(file: &TestFile, pins: &mut Vec<PinnedFolios>) {
    let at = thread_rng().gen_range(0..PAGES);
    match thread_rng().gen_range(0..10) {
        0 | 1 => drop(fault(&file.mapping, at)),
        2 | 3 => pins.extend(pin(&file.mapping, at)),
        4 => pins.clear(),
        5 => {
            // Waits for the pins of others, and may not have any itself.
            pins.clear();
            file.punch(range(at, at), Wait::Forever).expect("pins are let go");
        }
        6 => drop(file.truncate(usize::try_from(at).expect("few pages"), Wait::Never)),
        7 => drop(file.truncate_deferred(usize::try_from(at).expect("few pages"))),
        8 => file.mapping.writeback(range(0, PAGES)).expect("the device lives"),
        _ => file.mapping.flush(0..at * common::PAGE).expect("the device lives"),
    }
}

/// Everything at once, and every invariant at the end.
#[test]
fn random_schedules_keep_every_invariant() {
    on_all_schedulers(|| {
        let file = file(&[Some(0), Some(1), None, Some(5), Some(6), None]);
        let threads = [(); 3].map(|()| {
            with(&file, |file| {
                let mut pins = Vec::new();
                (0..6).for_each(|_| step(file, &mut pins));
                pins
            })
        });
        let pins = threads.map(|thread| thread.join().expect("a panic ends the execution"));
        file.verify();
        drop(pins);
        file.truncate(0, Wait::Never).expect("nobody pins");
        file.collect_limbo();
        assert_eq!(file.free_blocks(), 16, "every block came back once");
        file.verify();
    });
}

/// Rule 27: who moves away from a page that was shared tells whether it is pinned, and a pin for
/// reading that has it by then is told of.
///
/// Kills: a pin that comes after its entry is unlocked.
#[test]
fn a_file_that_moves_away_meets_a_pin_or_nothing() {
    on_all_schedulers(|| {
        let file = SharingFile::new(2, None);
        let pinning = {
            let file = Arc::clone(&file);
            spawn(move || file.mapping.pin(range(0, 2), info("schedule", PinKind::Read)))
        };
        for page in [1, 0] {
            let faults = file.mapping.faults();
            let entry = faults.lock_entry(FileIndex(page));
            entry.iomap(Access::Write).expect("the device lives");
        }
        let pin = pinning.join().expect("a panic ends the execution");
        assert!(!file.left().contains(&Left::Counted), "{:?}", file.left());
        drop(pin);
    });
}

/// I-43: what a writeback has flushed and not fenced yet is not durable, and who flushes beside it
/// finds it clean.
///
/// Kills: a flush that does not wait for its turn.
#[test]
fn a_flush_beside_a_writeback_returns_when_its_bytes_are_fenced() {
    on_all_schedulers(|| {
        let medium = Arc::new(Recorder::new(Image::zeroed(4 * common::PAGE)));
        let file = TestFile::on(medium.clone(), &data(0, 2), None);
        let pin = pin(&file.mapping, 1).expect("nothing is in the way");
        pin.write(0, &[7; 8]).expect("the device lives");
        drop(pin);
        let _ = medium.take_events();
        let writeback =
            with(&file, |file| file.mapping.writeback(range(0, 2)).expect("the device lives"));

        file.mapping.flush(common::PAGE..common::PAGE + 8).expect("the device lives");

        let events = medium.take_events();
        let flushed = events.iter().position(|event| matches!(event, Event::Flush { .. }));
        let fenced = events.iter().rposition(|event| matches!(event, Event::Fence { .. }));
        assert!(flushed.is_some() && flushed < fenced, "flushed, and not fenced");
        writeback.join().expect("a panic ends the execution");
    });
}
