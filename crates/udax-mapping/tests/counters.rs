//! What is counted in a file: each thing when it has happened, once, and not when it was only tried.

mod common;

use common::sharing::SharingFile;
use common::{PAGE, TestFile, both, data, info, mode, range};
use std::thread;
use std::time::Instant;
use udax_mapping::{BreakError, FaultError, Populate, Stats};

use udax_mm::{Access, FileIndex, Interrupt, Pages, PgmapOff, PinKind, RequestError, Wait};

/// What is counted of breaks and pins.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Counts {
    breaks: u64,
    waits: u64,
    wakeups: u64,
    pins: u64,
}

#[track_caller]
fn check(file: &TestFile, expected: Counts) {
    let Stats { breaks, waits, wakeups, pins, .. } = file.mapping.stats();
    assert_eq!(Counts { breaks, waits, wakeups, pins }, expected);
}

#[test]
fn a_break_that_may_not_sleep_is_neither_a_wait_nor_a_break() {
    let file = TestFile::new(8, &data(0, 4));
    let pin = file.mapping.pin(range(1, 3), info("nic", PinKind::Write)).unwrap();
    let interrupt = Interrupt::new();
    interrupt.raise();

    for wait in [Wait::Never, Wait::Until(Instant::now())] {
        let error = file.mapping.break_layout(range(0, 4), wait).unwrap_err();
        assert!(matches!(error, BreakError::Pinned { .. }), "{error}");
    }
    let forever = Wait::Forever.unless(&interrupt);
    let error = file.mapping.break_layout(range(0, 4), forever).unwrap_err();
    assert!(matches!(error, BreakError::Interrupted(_)), "{error}");

    check(&file, Counts { pins: 1, ..Counts::default() });
    drop(pin);
}

#[test]
fn a_break_that_slept_for_a_pin_is_one_wait_one_wakeup_and_one_break() {
    let file = TestFile::new(8, &data(0, 4));
    let pin = file.mapping.pin(range(1, 3), info("nic", PinKind::Write)).unwrap();
    thread::scope(|scope| {
        let truncate = scope.spawn(|| file.truncate(0, Wait::Forever));
        while file.mapping.stats().waits == 0 {
            thread::yield_now();
        }
        check(&file, Counts { waits: 1, pins: 1, ..Counts::default() });
        drop(pin);
        truncate.join().unwrap().unwrap();
    });
    check(&file, Counts { breaks: 1, waits: 1, wakeups: 1, pins: 1 });
}

#[test]
fn a_sleep_that_is_interrupted_is_a_wait_without_a_wakeup() {
    let file = TestFile::new(8, &data(0, 4));
    let _pin = file.mapping.pin(range(1, 3), info("nic", PinKind::Write)).unwrap();
    let interrupt = Interrupt::new();
    thread::scope(|scope| {
        let broken = scope.spawn(|| {
            let forever = Wait::Forever.unless(&interrupt);
            file.mapping.break_layout(range(0, 4), forever).map(drop)
        });
        while file.mapping.stats().waits == 0 {
            thread::yield_now();
        }
        interrupt.raise();
        broken.join().unwrap().unwrap_err();
    });
    check(&file, Counts { waits: 1, pins: 1, ..Counts::default() });
}

#[test]
fn a_break_that_defers_is_a_break_without_a_wait() {
    let file = TestFile::new(8, &data(0, 4));
    let pin = file.mapping.pin(range(1, 3), info("nic", PinKind::Write)).unwrap();
    file.truncate_deferred(0).unwrap();
    check(&file, Counts { breaks: 1, pins: 1, ..Counts::default() });
    drop(pin);
    file.collect_limbo();
}

#[test]
fn a_pin_that_was_not_granted_is_none() {
    let file = TestFile::new(8, &data(0, 4));
    let refused = file.mapping.pin(range(2, 6), info("nic", PinKind::Write)).unwrap_err();
    assert!(matches!(refused, FaultError::PastEnd(FileIndex(4))), "{refused}");
    check(&file, Counts::default());
}

#[test]
fn each_page_that_a_store_copies_is_counted_once() {
    let file = SharingFile::new(8, None);
    let eager = |access| mode(access, Populate::Eager);
    let reader = file.mapping.map(FileIndex(0), Pages(8), eager(Access::Read)).unwrap();
    let reads = file.mapping.pin(range(0, 2), info("reader", PinKind::Read)).unwrap();
    assert_eq!(file.mapping.stats().copies, 0, "it was only read");

    let writer = file.mapping.map(FileIndex(3), Pages(1), eager(Access::Write)).unwrap();
    writer.vma().store_u64(0, 1).unwrap();
    writer.vma().store_u64(8, 1).unwrap();
    assert_eq!(file.mapping.stats().copies, 1);

    let writes = file.mapping.pin(range(2, 5), info("writer", PinKind::Write)).unwrap();
    assert_eq!(file.mapping.stats().copies, 3, "page 3 was the file's own");
    drop((reader, reads, writes));
}

#[test]
fn a_hole_that_a_store_fills_is_no_copy() {
    let file = TestFile::new(8, &[None; 4]);
    drop(file.mapping.pin(range(0, 4), info("nic", PinKind::Write)).unwrap());
    assert_eq!(file.mapping.stats().copies, 0);
}

#[test]
fn faults_and_pins_that_meet_failed_memory_are_counted() {
    both(8, &data(0, 4), |file, how| {
        let mapped = file.mapping.map(FileIndex(0), Pages(4), mode(Access::Read, how)).unwrap();
        let live = file.pgmap().try_get_live().expect("the device lives");
        live.memory_failure(PgmapOff(2)..PgmapOff(3));
        let span = udax_dev::DaxSpan::new(live, PgmapOff(2), Pages(1));
        file.mapping.poison(FileIndex(2), &span.expect("the block is on the device"));

        // An eager mapping was filled again, and a lazy one faults.
        mapped.vma().read(2 * PAGE, &mut [0]).unwrap_err();
        assert_eq!(file.mapping.stats().poison, 1);

        let refused = file.mapping.pin(range(1, 4), info("nic", PinKind::Read)).unwrap_err();
        assert!(matches!(refused, FaultError::Request(RequestError::Poisoned(_))), "{refused}");
        let Stats { poison, pins, .. } = file.mapping.stats();
        assert_eq!((poison, pins), (2, 0));
    });
}
