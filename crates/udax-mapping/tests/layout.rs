//! Break layout: what is idle is claimed, what is pinned is waited for or left to limbo.

mod common;

use common::{TestFile, data, folios, info, mode, range};
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};
use udax_mapping::{BreakError, Populate};
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::mpsc;
use udax_mm::{Access, FileIndex, Interrupt, Order, Pages, PgmapOff, PinKind, Wait};

#[test]
fn the_pages_behind_a_broken_range_are_claimed_and_nothing_else() {
    let file = TestFile::new(8, &[Some(1), Some(2), None, Some(6), Some(4)]);

    let broken = file.mapping.break_layout(range(1, 4), Wait::Never).unwrap();

    let live = file.pgmap().try_get_live().unwrap();
    let is_claimed = |page: u64| live.claim(PgmapOff(page)..PgmapOff(page + 1)).is_err();
    let claimed: Vec<u64> = (0..8).filter(|&page| is_claimed(page)).collect();
    assert_eq!(claimed, [2, 6], "I-50");
    drop(broken);
    file.verify();
}

#[test]
fn claims_come_in_the_order_of_the_file() {
    let file = TestFile::new(8, &[Some(5), Some(2), Some(3)]);

    let mut broken = file.mapping.break_layout(range(0, u64::MAX), Wait::Never).unwrap();

    let idle: Vec<_> = broken.take_idle().iter().map(udax_mm::IdleSpan::pages).collect();
    assert_eq!(idle, [PgmapOff(5)..PgmapOff(6), PgmapOff(2)..PgmapOff(4)]);
}

#[test]
fn a_pin_is_named_when_nobody_may_wait() {
    let file = TestFile::new(8, &data(0, 4));
    let pin = file.mapping.pin(range(2, 3), info("rdma", PinKind::Write)).unwrap();

    let error = file.truncate(1, Wait::Never).unwrap_err();

    let BreakError::Pinned { index, pins } = &error else { panic!("{error}") };
    assert_eq!((*index, pins.len()), (FileIndex(2), 1));
    let message = error.to_string();
    let start =
        format!("page 2 of the file is pinned by rdma (process {}) for ", std::process::id());
    assert!(message.starts_with(&start), "{message}");
    drop(pin);
}

#[test]
fn a_break_that_finds_a_pin_and_may_not_wait_leaves_the_file_as_it_was() {
    let file = TestFile::new(8, &data(0, 4));
    let pin = file.mapping.pin(range(2, 3), info("test", PinKind::Read)).unwrap();

    file.truncate(0, Wait::Never).unwrap_err();

    assert_eq!(file.blocks(), data(0, 4), "I-51, rule 8");
    assert_eq!(file.mapping.pins().len(), 1);
    file.verify();
    let again = file.mapping.pin(range(0, 4), info("again", PinKind::Read)).unwrap();
    drop((pin, again));
    file.truncate(0, Wait::Never).unwrap();
    assert_eq!(file.free_blocks(), 8);
    file.verify();
}

#[test]
fn a_deadline_ends_the_wait() {
    let file = TestFile::new(8, &data(0, 1));
    let _pin = file.mapping.pin(range(0, 1), info("test", PinKind::Read)).unwrap();

    let soon = Instant::now() + Duration::from_millis(5);
    let error = file.truncate(0, Wait::Until(soon)).unwrap_err();

    assert!(matches!(error, BreakError::Pinned { .. }));
    assert!(Instant::now() >= soon);
}

/// Kills: holding the layout lock while waiting for a pin.
#[test]
fn a_pin_holder_can_fault_while_truncate_waits_for_its_pin() {
    let file = TestFile::new(8, &data(0, 4));
    let pin = file.mapping.pin(range(3, 4), info("holder", PinKind::Read)).unwrap();
    let (has_lock, waits) = mpsc::channel();
    file.hook_next_spans(move || has_lock.send(()).expect("the holder listens"));

    thread::scope(|scope| {
        let truncate = scope.spawn(|| file.truncate(0, Wait::Forever));
        waits.recv().unwrap();

        // The truncate has the layout lock, and gives it back only to wait for the pin.
        let second = file.mapping.pin(range(1, 2), info("holder", PinKind::Read)).unwrap();
        drop(pin);
        drop(second);

        truncate.join().unwrap().unwrap();
    });

    assert_eq!(file.free_blocks(), 8, "rule 7");
    file.verify();
}

#[test]
fn nobody_pins_while_the_layout_is_broken() {
    let file = TestFile::new(8, &data(0, 4));
    let (tries, tried) = mpsc::channel();

    thread::scope(|scope| {
        let broken = file.mapping.break_layout(range(0, 4), Wait::Never).unwrap();
        let pin = scope.spawn(|| {
            tries.send(()).unwrap();
            file.mapping.pin(range(0, 1), info("late", PinKind::Read)).map(drop)
        });
        tried.recv().unwrap();
        assert!(file.mapping.pins().is_empty(), "I-52");
        assert!(file.pgmap().pins().is_empty(), "I-52");

        drop(broken);
        pin.join().unwrap().unwrap();
    });
    file.verify();
}

#[test]
fn a_deferred_break_does_not_wait_and_the_last_put_returns_the_pages() {
    let file = TestFile::new(8, &data(0, 4));
    let pin = file.mapping.pin(range(1, 3), info("test", PinKind::Write)).unwrap();

    file.truncate_deferred(0).unwrap();

    assert_eq!(file.free_blocks(), 4 + 2, "the pages that nobody pins are free at once");
    assert!(file.mapping.pins().is_empty(), "the file has nothing that is pinned");
    assert_eq!(file.pgmap().pins().len(), 1, "the page map knows who pins them");
    assert_eq!(file.collect_limbo(), 0);
    pin.write(0, &[1]).unwrap();

    drop(pin);
    assert_eq!(file.collect_limbo(), 2);
    assert_eq!(file.free_blocks(), 8);
    file.verify();
}

#[test]
fn a_deferred_break_says_what_is_in_limbo() {
    let file = TestFile::new(8, &data(0, 4));
    let _pin = file.mapping.pin(range(1, 3), info("test", PinKind::Write)).unwrap();

    let broken = file.mapping.break_layout_deferred(range(0, 4), &file.sink).unwrap();

    let limbo: Vec<_> = broken.limbo().iter().map(|(_, pages)| pages.clone()).collect();
    assert_eq!(limbo, [PgmapOff(1)..PgmapOff(3)]);
}

/// I-41, I-51: the owner could not give the pages up.
/// The first span has been left to limbo when the second turns out to be somebody's.
#[test]
fn a_deferred_break_that_fails_leaves_every_entry_as_it_was() {
    let file = TestFile::new(2048, &[data(512, 512), data(3, 2)].concat());
    drop(file.mapping.map(FileIndex(0), Pages(512), mode(Access::Write, Populate::Eager)));
    let pin = file.mapping.pin(range(5, 7), info("device", PinKind::Write)).unwrap();
    let live = file.pgmap().try_get_live().unwrap();
    let claim = live.claim(PgmapOff(4)..PgmapOff(5)).unwrap();

    let error = file.mapping.break_layout_deferred(range(0, 514), &file.sink).unwrap_err();

    assert!(matches!(error, BreakError::Busy { .. } | BreakError::Request(_)), "{error:?}");
    drop(claim);
    file.verify();
    assert_eq!(file.mapping.entry_pages(), Pages(512));
    let folios = folios(&file.mapping.pin(range(6, 7), info("again", PinKind::Read)).unwrap());
    assert_eq!(folios, [(PgmapOff(512), Order::Pmd)]);
    drop(pin);
    file.truncate(0, Wait::Never).unwrap();
    assert_eq!((file.collect_limbo(), file.free_blocks()), (0, 2048), "nothing is in limbo");
}

#[test]
fn a_deferred_break_that_is_not_given_up_leaves_pins_and_dirty_pages() {
    let file = TestFile::new(8, &data(0, 4));
    let pin = file.mapping.pin(range(1, 3), info("test", PinKind::Write)).unwrap();

    drop(file.mapping.break_layout_deferred(range(0, 2), &file.sink).unwrap());

    assert_eq!(file.mapping.pins()[0].range, range(1, 3));
    file.mapping.writeback(range(0, 4)).unwrap();
    file.verify();
    drop(pin);
    assert_eq!(file.collect_limbo(), 0, "the word is withdrawn");
    file.truncate(0, Wait::Never).unwrap();
    assert_eq!(file.free_blocks(), 8);
    file.verify();
}

#[test]
fn a_pin_that_reaches_into_the_range_keeps_the_rest_listed() {
    let file = TestFile::new(8, &data(0, 4));
    let _pin = file.mapping.pin(range(0, 4), info("test", PinKind::Read)).unwrap();

    file.truncate_deferred(3).unwrap();

    assert_eq!(file.mapping.pins()[0].range, range(0, 3));
    file.verify();
}

#[test]
fn pages_in_limbo_are_given_to_nobody_else() {
    let file = TestFile::new(2, &data(0, 2));
    let pin = file.mapping.pin(range(1, 2), info("test", PinKind::Read)).unwrap();
    file.truncate_deferred(1).unwrap();
    file.grow(2);

    let error = file.mapping.pin(range(1, 2), info("next", PinKind::Read)).unwrap_err();
    assert_eq!(error.to_string(), "no block is free", "B-01");

    drop(pin);
    file.collect_limbo();
    file.mapping.pin(range(1, 2), info("next", PinKind::Read)).unwrap();
}

#[test]
fn a_block_that_is_cut_is_waited_for_as_a_whole() {
    let file = TestFile::new(1024, &data(0, 512));
    let pin = file.mapping.pin(range(0, 512), info("test", PinKind::Read)).unwrap();

    let error = file.truncate(300, Wait::Never).unwrap_err();

    assert!(matches!(error, BreakError::Pinned { index: FileIndex(300), .. }), "{error}");
    drop(pin);
    file.truncate(300, Wait::Never).unwrap();
    file.verify();
    let small = file.mapping.pin(range(0, 300), info("small", PinKind::Read)).unwrap();
    assert_eq!(folios(&small).len(), 300, "the entry of 2 MiB is gone");
}

#[test]
fn a_folio_that_outlives_its_entry_does_not_block_its_neighbours() {
    let file = TestFile::new(1024, &data(0, 512));
    let whole = file.mapping.pin(range(0, 512), info("whole", PinKind::Read)).unwrap();
    file.truncate_deferred(300).unwrap();
    let part = file.mapping.pin(range(10, 11), info("part", PinKind::Read)).unwrap();
    drop(whole);
    drop(part);

    file.truncate(0, Wait::Never).unwrap();

    assert_eq!(file.collect_limbo(), 212);
    assert_eq!(file.free_blocks(), 1024);
    file.verify();
}

#[test]
fn a_removed_device_is_an_error_and_not_a_wait() {
    let file = TestFile::new(8, &data(0, 4));
    file.mapping.zap_all();
    file.device.kill(Wait::Never).unwrap();

    assert!(matches!(file.truncate(0, Wait::Forever), Err(BreakError::Iomap(_))));
    let error = file.mapping.pin(range(0, 1), info("late", PinKind::Read)).unwrap_err();
    assert_eq!(error.to_string(), "the device of the file was removed");
    file.mapping.verify().unwrap();
}

#[test]
fn a_file_without_an_owner_says_that_it_was_closed() {
    let file = TestFile::new(8, &data(0, 4));
    let mapping = file.mapping.clone();
    drop(file);

    let error = mapping.break_layout(range(0, 1), Wait::Never).unwrap_err();
    assert!(matches!(error, BreakError::Closed));
    let error = mapping.faults().lock_entry(FileIndex(0)).iomap(Access::Read).unwrap_err();
    assert_eq!(error.to_string(), "the file was closed");
}

#[test]
fn a_reference_that_is_no_pin_is_not_waited_for() {
    let file = TestFile::new(8, &data(0, 4));
    let pgmap = file.pgmap().try_get_live().unwrap();
    let held = pgmap.request_folio(PgmapOff(2), Order::Base).unwrap();

    let error = file.truncate(0, Wait::Forever).unwrap_err();

    assert!(matches!(error, BreakError::Busy(FileIndex(2))), "{error}");
    drop(held);
    file.truncate(0, Wait::Never).unwrap();
}

/// F-39: whoever touches the pages again and again does not hold up the break for longer than the
/// pin does.
#[test]
fn a_storm_of_faults_does_not_hold_up_a_punch_longer_than_the_pin() {
    let Some(file) = TestFile::lazy(16, &data(0, 8)) else {
        // Past the capture of the test harness.
        let _ = writeln!(std::io::stderr(), "SKIPPED, nothing is shown: no userfaultfd here");
        return;
    };
    let lazy = mode(Access::Read, Populate::Lazy);
    let mapped = file.mapping.map(FileIndex(0), Pages(8), lazy).unwrap();
    let pin = file.mapping.pin(range(5, 6), info("nic", PinKind::Write)).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut byte = [0];
                while !is_over.load(Ordering::Relaxed) {
                    for page in 0..8 {
                        mapped.vma().read(page * 4096, &mut byte).unwrap();
                    }
                }
            });
        }
        let punch = scope.spawn(|| file.punch(range(0, 8), Wait::Forever));
        while file.mapping.stats().waits == 0 {
            std::thread::yield_now();
        }
        // The storm goes on, and so does the wait: it has taken the translations back before.
        assert!(!punch.is_finished());
        drop(pin);
        let punched = punch.join().unwrap();
        is_over.store(true, Ordering::Relaxed);
        punched.unwrap();
    });
    file.verify();
}

/// I-54, rule 8: who waits for a pin can be called off, and the file is as it was.
#[test]
fn a_raised_interrupt_ends_the_wait_and_leaves_the_file_as_it_was() {
    let file = TestFile::new(8, &data(0, 4));
    let stores = mode(Access::Write, Populate::Eager);
    let mapped = file.mapping.map(FileIndex(0), Pages(4), stores).unwrap();
    let entries = file.mapping.entry_pages();
    let pin = file.mapping.pin(range(2, 3), info("nic", PinKind::Write)).unwrap();
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
        let error = broken.join().unwrap().unwrap_err();
        assert!(matches!(error, BreakError::Interrupted(FileIndex(2))), "{error}");
    });
    assert_eq!(file.mapping.entry_pages(), entries, "I-51: every entry is still there");
    assert_eq!(file.blocks(), data(0, 4));
    mapped.vma().write(0, b"as before").unwrap();
    pin.write(0, b"dma").unwrap();
    file.verify();

    // What needs no wait goes on.
    drop(pin);
    file.mapping.break_layout(range(0, 4), Wait::Forever.unless(&interrupt)).map(drop).unwrap();
}
