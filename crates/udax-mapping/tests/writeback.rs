//! Writeback: what is flushed, when an entry stops being dirty, and what a failure leaves.

mod common;

use common::witness::{Seen, Witness};
use common::{PAGE, TestFile, data, info, mode, range};
use std::panic::Location;
use std::thread::{self, yield_now};
use udax_mapping::{Populate, UserMapping};
use udax_mm::sync::atomic::Ordering;
use udax_mm::sync::{Arc, mpsc};
use udax_mm::{Access, FileIndex, Order, Pages, PinKind, Wait};

fn file(pages: &[Option<u64>]) -> (Arc<Witness>, Arc<TestFile>) {
    let witness = Witness::new(1024);
    let file = TestFile::on(witness.clone(), pages, None);
    (witness, file)
}

fn map(file: &TestFile, from: u64, pages: u64, access: Access) -> UserMapping {
    let mapped = file.mapping.map(FileIndex(from), Pages(pages), mode(access, Populate::Eager));
    mapped.expect("the file can be mapped")
}

fn all() -> std::ops::Range<FileIndex> {
    range(0, u64::MAX)
}

#[test]
fn every_dirty_page_is_flushed_and_then_fenced_on_the_callers_line() {
    let (witness, file) = file(&[Some(7), None, Some(3)]);
    let _mapped = map(&file, 0, 1, Access::Write);
    let _other = map(&file, 2, 1, Access::Write);
    witness.take();

    let (line, written) = (Location::caller().line(), file.mapping.writeback(all()));

    written.unwrap();
    let seen = witness.take_sites();
    assert!(seen.iter().all(|(_, site)| site.line() == line), "{seen:?}");
    let seen: Vec<_> = seen.into_iter().map(|(seen, _)| seen).collect();
    let flush = |block: u64| Seen::Flush(block * 4096, 4096);
    assert_eq!(seen, [flush(7), flush(3), Seen::Fence], "I-41");
}

#[test]
fn only_what_overlaps_the_range_is_flushed() {
    let (witness, file) = file(&data(0, 8));
    let _mapped = map(&file, 0, 8, Access::Write);

    file.mapping.writeback(range(2, 4)).unwrap();

    let flush = |block: u64| Seen::Flush(block * 4096, 4096);
    assert_eq!(witness.take(), [flush(2), flush(3), Seen::Fence]);
}

#[test]
fn a_large_page_is_flushed_as_a_whole() {
    let (witness, file) = file(&data(512, 512));
    let _mapped = map(&file, 0, 512, Access::Write);

    file.mapping.writeback(range(100, 101)).unwrap();

    assert_eq!(witness.take(), [Seen::Flush(512 * 4096, 512 * 4096), Seen::Fence], "B-10");
}

/// Of a large page, of several, and of what begins and ends inside a page; and no entry is clean for it.
#[test]
fn a_flush_is_of_exactly_its_bytes_and_leaves_the_rest_to_the_writeback() {
    let (witness, file) = file(&[data(512, 512), data(0, 4)].concat());
    drop(map(&file, 0, 516, Access::Write));
    let at = |page: u64| page * 4096;

    file.mapping.flush(5000..9001).unwrap();
    assert_eq!(witness.take(), [Seen::Flush(at(512) + 5000, 4001), Seen::Fence]);

    file.mapping.flush(at(511) + 7..at(513) + 1).unwrap();
    let last = [Seen::Flush(at(1023) + 7, 4089), Seen::Flush(0, 4096), Seen::Flush(at(1), 1)];
    assert_eq!(witness.take(), [&last[..], &[Seen::Fence]].concat());

    for nothing in [9..9, at(600)..at(700)] {
        file.mapping.flush(nothing).unwrap();
        assert_eq!(witness.take(), []);
    }
    file.mapping.writeback(all()).unwrap();
    let small = (0..4).map(|page| Seen::Flush(at(page), 4096));
    let whole: Vec<_> = [Seen::Flush(at(512), at(512))].into_iter().chain(small).collect();
    assert_eq!(witness.take(), [&whole[..], &[Seen::Fence]].concat(), "I-41");
}

#[test]
fn a_page_that_is_only_read_is_not_flushed() {
    let (witness, file) = file(&data(0, 4));
    let _mapped = map(&file, 0, 4, Access::Read);
    let _pin = file.mapping.pin(range(0, 2), info("reader", PinKind::Read)).unwrap();

    file.mapping.writeback(all()).unwrap();

    assert_eq!(witness.take(), []);
}

#[test]
fn a_page_that_is_no_longer_mapped_is_flushed_once() {
    let (witness, file) = file(&data(0, 2));
    drop(map(&file, 0, 1, Access::Write));

    file.mapping.writeback(all()).unwrap();
    assert_eq!(
        witness.take(),
        [Seen::Flush(0, 4096), Seen::Fence],
        "I-15: dirty without a mapping"
    );

    file.mapping.writeback(all()).unwrap();
    assert_eq!(witness.take(), []);
    file.verify();
}

#[test]
fn a_page_that_can_still_be_stored_to_is_flushed_each_time() {
    let (witness, file) = file(&data(0, 2));
    let _mapped = map(&file, 0, 1, Access::Write);
    let pin = file.mapping.pin(range(1, 2), info("writer", PinKind::Write)).unwrap();
    let both = [Seen::Flush(0, 4096), Seen::Flush(4096, 4096), Seen::Fence];

    for _ in 0..2 {
        file.mapping.writeback(all()).unwrap();
        assert_eq!(witness.take(), both, "I-34, I-42");
        file.verify();
    }

    drop(pin);
    file.mapping.writeback(all()).unwrap();
    assert_eq!(witness.take(), both, "what the device stored last");
    file.mapping.writeback(all()).unwrap();
    assert_eq!(witness.take(), [Seen::Flush(0, 4096), Seen::Fence]);
}

#[test]
fn a_failed_flush_or_fence_is_tried_again() {
    let (witness, file) = file(&data(0, 2));
    drop(map(&file, 0, 2, Access::Write));
    let whole = [Seen::Flush(0, 4096), Seen::Flush(4096, 4096), Seen::Fence];

    witness.fails_fence.store(true, Ordering::Relaxed);
    file.mapping.writeback(all()).unwrap_err();
    assert_eq!(witness.take(), whole[..2]);

    witness.fails_flush.store(true, Ordering::Relaxed);
    file.mapping.writeback(all()).unwrap_err();
    assert_eq!(witness.take(), []);

    file.mapping.writeback(all()).unwrap();
    assert_eq!(witness.take(), whole, "I-41");
}

#[test]
fn stores_beside_a_cut_in_a_large_page_are_still_flushed() {
    let (witness, file) = file(&data(512, 512));
    drop(map(&file, 0, 512, Access::Write));

    file.truncate(2, Wait::Never).unwrap();
    file.mapping.writeback(all()).unwrap();

    let flush = |block: u64| Seen::Flush(block * 4096, 4096);
    assert_eq!(witness.take(), [flush(512), flush(513), Seen::Fence]);
    file.verify();
}

/// B-09, I-42: who has 2 MiB of the file, and who has two pages in the middle of it. A writeback of
/// another part of the entry does not make anybody forget that the two can still be stored to.
#[test]
fn a_store_through_a_small_mapping_of_a_large_entry_is_flushed_after_any_writeback() {
    let (witness, file) = file(&data(512, 512));
    let _whole = map(&file, 0, 512, Access::Read);
    let small = map(&file, 8, 2, Access::Write);
    assert_eq!(file.mapping.stats().faults(Order::Base), 0, "one entry serves both");
    let at = |page: u64| (512 + page) * PAGE;

    small.vma().write(PAGE, &[1]).unwrap();
    file.mapping.writeback(range(300, 301)).unwrap();
    assert_eq!(witness.durable(at(9)), 1, "B-10: the entry is flushed as a whole");
    small.vma().write(0, &[2]).unwrap();
    small.vma().write(PAGE, &[3]).unwrap();
    assert_eq!([witness.durable(at(8)), witness.durable(at(9))], [0, 1], "not flushed yet");
    file.mapping.writeback(range(9, 10)).unwrap();
    assert_eq!([witness.durable(at(8)), witness.durable(at(9))], [2, 3], "B-09");

    // What is stored last, before the mapping goes, is flushed once more, and then no more.
    small.vma().write(0, &[4]).unwrap();
    drop(small);
    file.mapping.writeback(range(400, 401)).unwrap();
    assert_eq!(witness.durable(at(8)), 4);
    witness.take();
    file.mapping.writeback(all()).unwrap();
    assert_eq!(witness.take(), []);
    file.verify();
}

/// I-43: the second of two writebacks finds clean what the first has flushed and not fenced.
#[test]
fn two_writebacks_at_once_return_when_what_was_stored_before_is_durable() {
    let (witness, file) = file(&data(0, 8));
    let both = map(&file, 0, 8, Access::Write);
    for page in 0..8 {
        both.vma().write(page * PAGE, &[7]).unwrap();
    }
    drop(both);
    let (is_reached, go_on) = witness.stop_fence();
    let sync = |from: u64, to: u64| {
        file.mapping.writeback(range(from, to)).unwrap();
        (from..to).map(|page| witness.durable(page * PAGE)).collect::<Vec<u8>>()
    };
    thread::scope(|scope| {
        // Dropped if an assertion fails, so that the other thread ends.
        let go_on = go_on;
        let first = scope.spawn(|| sync(0, 6));
        is_reached.recv().unwrap();
        let (started, is_started) = mpsc::channel();
        let second = scope.spawn(move || {
            started.send(()).unwrap();
            sync(2, 8)
        });
        is_started.recv().unwrap();
        // Whoever does not wait is through by now.
        for _ in 0..2000 {
            yield_now();
        }
        go_on.send(()).unwrap();
        assert_eq!(first.join().unwrap(), [7; 6], "I-41");
        assert_eq!(second.join().unwrap(), [7; 6], "I-43");
    });
    file.verify();
}

/// I-43: threads that store and sync pages of one another, in every order.
#[test]
fn what_a_thread_has_stored_is_durable_when_its_writeback_returns() {
    let (witness, file) = file(&data(512, 512));
    let mapped = map(&file, 0, 512, Access::Write);
    thread::scope(|scope| {
        for worker in 0..4_u64 {
            let (file, witness, vma) = (&file, &witness, mapped.vma());
            scope.spawn(move || {
                for round in 1..=30_u8 {
                    let page = worker * 7 + u64::from(round) % 3;
                    vma.write(page * PAGE + worker, &[round]).expect("it is mapped");
                    let overlap = page.saturating_sub(2)..page + 9;
                    file.mapping.writeback(range(overlap.start, overlap.end)).expect("it works");
                    assert_eq!(witness.durable((512 + page) * PAGE + worker), round, "I-43");
                }
            });
        }
    });
    file.verify();
}

/// A table below changed, and this page stayed where it was.
#[test]
fn what_a_pin_may_store_to_stays_dirty_when_everything_is_looked_up_again() {
    let (witness, file) = file(&data(0, 4));
    drop(map(&file, 0, 4, Access::Write));
    let pin = file.mapping.pin(range(1, 2), info("writer", PinKind::Write)).unwrap();

    file.mapping.suspended(|| ()).unwrap();
    let before = witness.take();
    assert!(before.contains(&Seen::Flush(PAGE, PAGE)), "{before:?}");
    file.verify();

    for _ in 0..2 {
        file.mapping.writeback(all()).unwrap();
        assert_eq!(witness.take(), [Seen::Flush(PAGE, PAGE), Seen::Fence], "I-41");
    }
    drop(pin);
    file.mapping.suspended(|| ()).unwrap();
    witness.take();
    file.mapping.writeback(all()).unwrap();
    assert_eq!(witness.take(), [], "nobody stores to it any more, and it was flushed");
}

#[test]
fn a_removed_device_cannot_be_written_back() {
    let (_witness, file) = file(&data(0, 1));
    drop(map(&file, 0, 1, Access::Write));

    file.device.kill(Wait::Never).unwrap();

    let error = file.mapping.writeback(all()).unwrap_err();
    assert!(error.to_string().starts_with("the device was removed"), "{error}");
}
