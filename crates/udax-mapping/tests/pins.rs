//! Pins: all or nothing, listed by range and owner, and indifferent to what becomes of the file.

mod common;

use common::{PAGE, TestFile, data, folios, info, mode, range};
use udax_mapping::{FaultError, PinnedFolios, Populate};
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{Access, FileIndex, MediaError, Order, Pages, PgmapOff, PinKind, Wait};

#[test]
fn pinned_bytes_are_the_bytes_of_the_file() {
    let file = TestFile::new(8, &[Some(5), Some(2), Some(3)]);
    file.fill_block(5, 50);
    file.fill_block(2, 20);
    file.fill_block(3, 30);

    let pin = file.mapping.pin(range(0, 3), info("test", PinKind::Read)).unwrap();

    let mut bytes = vec![0; 2 * 4096];
    pin.read(PAGE - 1, &mut bytes).unwrap();
    assert_eq!((bytes[0], bytes[1], bytes[4096], bytes[4097]), (50, 20, 20, 30));
    file.verify();
}

#[test]
fn stores_through_a_pin_are_in_the_file() {
    let file = TestFile::new(8, &[Some(5), Some(2)]);
    let pin = file.mapping.pin(range(0, 2), info("test", PinKind::Write)).unwrap();

    pin.write(PAGE - 2, &[7; 4]).unwrap();

    assert_eq!(file.byte_of_block(2), 7);
    assert!(pin.write(2 * PAGE - 2, &[7; 4]).is_err(), "outside the range");
    assert!(pin.read(u64::MAX, &mut [0]).is_err());
}

#[test]
fn a_pin_is_listed_with_its_range_and_owner_until_it_is_dropped() {
    let file = TestFile::new(8, &data(0, 4));
    let first = file.mapping.pin(range(1, 3), info("first", PinKind::Read)).unwrap();
    let second = file.mapping.pin(range(2, 4), info("second", PinKind::Write)).unwrap();

    let listed: Vec<_> = file.mapping.pins();
    assert_eq!(listed.len(), 2);
    assert_eq!((listed[0].range.clone(), &*listed[0].info.owner.label), (range(1, 3), "first"));
    assert_eq!((listed[1].range.clone(), &*listed[1].info.owner.label), (range(2, 4), "second"));

    drop(first);
    assert_eq!(file.mapping.pins()[0].range, range(2, 4));
    drop(second);
    assert!(file.mapping.pins().is_empty());
    assert!(file.pgmap().pins().is_empty(), "I-58: unpin returns what pin took");
    file.verify();
}

#[test]
fn a_hole_is_allocated_even_for_a_pin_that_reads() {
    let file = TestFile::new(8, &[Some(0), None]);

    let pin = file.mapping.pin(range(0, 2), info("test", PinKind::Read)).unwrap();

    let block = file.blocks()[1].expect("the hole got a block");
    assert_eq!(folios(&pin)[1].0, PgmapOff(block));
    file.verify();
}

#[test]
fn a_pin_past_the_end_pins_nothing() {
    let file = TestFile::new(8, &data(0, 2));

    let error = file.mapping.pin(range(0, 3), info("test", PinKind::Read)).unwrap_err();

    assert!(matches!(error, FaultError::PastEnd(FileIndex(2))), "{error}");
    assert!(file.mapping.pins().is_empty());
    assert!(file.pgmap().pins().is_empty());
    file.truncate(0, Wait::Never).unwrap();
}

#[test]
fn a_pin_that_finds_no_space_pins_nothing() {
    let file = TestFile::new(2, &[Some(0), None, None]);

    let error = file.mapping.pin(range(0, 3), info("test", PinKind::Write)).unwrap_err();

    assert_eq!(error.to_string(), "no block is free");
    assert!(file.pgmap().pins().is_empty());
    file.verify();
}

#[test]
fn an_empty_range_is_refused() {
    let file = TestFile::new(2, &data(0, 2));

    let error = file.mapping.pin(range(1, 1), info("test", PinKind::Read)).unwrap_err();

    assert!(matches!(error, FaultError::Empty));
}

#[test]
fn a_whole_block_is_one_folio() {
    let file = TestFile::new(2048, &data(512, 1024));

    let pin = file.mapping.pin(range(0, 1024), info("test", PinKind::Read)).unwrap();

    assert_eq!(folios(&pin), [(PgmapOff(512), Order::Pmd), (PgmapOff(1024), Order::Pmd)]);
    assert_eq!(file.mapping.stats().faults(Order::Pmd), 2);
    file.verify();
}

#[test]
fn a_part_of_a_block_that_is_counted_as_a_whole_shares_its_folio() {
    let file = TestFile::new(2048, &data(512, 512));
    file.fill_block(512 + 7, 77);
    let _whole = file.mapping.pin(range(0, 512), info("whole", PinKind::Read)).unwrap();

    let part = file.mapping.pin(range(7, 9), info("part", PinKind::Read)).unwrap();

    assert_eq!(folios(&part).len(), 1);
    assert_eq!(folios(&part)[0].0, PgmapOff(512));
    let mut byte = [0];
    part.read(0, &mut byte).unwrap();
    assert_eq!(byte, [77]);
    file.verify();
}

#[test]
fn pinned_bytes_outlive_the_file() {
    let file = TestFile::new(8, &data(3, 2));
    file.fill_block(3, 33);
    let pin = file.mapping.pin(range(0, 2), info("test", PinKind::Read)).unwrap();

    file.truncate_deferred(0).unwrap();
    drop(file);

    let mut bytes = [0; 2];
    pin.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [33; 2]);
}

#[test]
fn a_pin_for_reading_refuses_stores() {
    let file = TestFile::new(4, &data(0, 1));
    let pin = file.mapping.pin(range(0, 1), info("test", PinKind::Read)).unwrap();

    let error = pin.write(0, &[1]).unwrap_err();

    assert!(matches!(error, MediaError::ReadOnly), "{error}");
    assert_eq!(file.byte_of_block(0), 0);
}

#[test]
fn what_a_failed_pin_allocated_is_no_hole_any_more() {
    let file = TestFile::new(4, &[None]);
    let shows =
        file.mapping.map(FileIndex(0), Pages(1), mode(Access::Read, Populate::Eager)).unwrap();
    // Somebody holds every block, so that the folio cannot be had.
    let live = file.pgmap().try_get_live().unwrap();
    let held = Arc::new(Mutex::new(None));
    let (taken, holder) = (live.clone(), Arc::clone(&held));
    file.hook_next_iomap(move || {
        let claims = taken.claim(PgmapOff(0)..PgmapOff(4)).unwrap();
        *holder.lock() = Some(claims);
    });

    file.mapping.pin(range(0, 1), info("test", PinKind::Write)).unwrap_err();

    let block = file.blocks()[0].expect("it was allocated");
    drop(held.lock().take());
    file.fill_block(block, 9);
    let mut byte = [0];
    assert!(shows.vma().read(0, &mut byte).is_err() || byte == [9], "B-12");
}

#[test]
fn two_pins_of_one_page_let_go_in_either_order() {
    for first_goes_first in [true, false] {
        let file = TestFile::new(8, &data(0, 2));
        let first = file.mapping.pin(range(0, 2), info("first", PinKind::Read)).unwrap();
        let second = file.mapping.pin(range(1, 2), info("second", PinKind::Write)).unwrap();
        let (gone, left) = if first_goes_first { (first, second) } else { (second, first) };
        let label = left.info().owner.label.clone();

        drop(gone);

        assert_eq!(file.pgmap().pins()[0].info.owner.label, label);
        assert!(file.truncate(1, Wait::Never).is_err(), "one is left");
        file.verify();
        drop(left);
        file.truncate(0, Wait::Never).unwrap();
        file.verify();
    }
}

/// B-07: nothing of the file is mapped, so nothing but the page map knows of the pin.
#[test]
fn a_pinned_page_that_nobody_maps_is_found() {
    let file = TestFile::new(8, &data(0, 4));
    let mode = mode(Access::Write, Populate::Eager);
    let mapped = file.mapping.map(FileIndex(0), Pages(4), mode).unwrap();
    let pin = file.mapping.pin(range(2, 3), info("nic", PinKind::Write)).unwrap();
    drop(mapped);

    let error = file.truncate(0, Wait::Never).unwrap_err();

    assert!(error.to_string().contains("page 2"), "{error}");
    assert!(error.to_string().contains("nic"), "{error}");
    drop(pin);
    file.truncate(0, Wait::Never).unwrap();
}

#[test]
fn only_pins_in_the_range_are_in_the_way() {
    let file = TestFile::new(8, &data(0, 6));
    let before = file.mapping.pin(range(0, 2), info("before", PinKind::Write)).unwrap();
    let behind = file.mapping.pin(range(4, 6), info("behind", PinKind::Write)).unwrap();

    file.punch(range(2, 4), Wait::Never).unwrap();

    before.write(0, b"kept").unwrap();
    behind.write(0, b"kept").unwrap();
    assert!(file.punch(range(2, 5), Wait::Never).is_err(), "the end reaches into it");
    file.verify();
}

#[test]
fn a_pin_may_be_dropped_by_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<PinnedFolios>();
    let file = TestFile::new(8, &data(0, 4));
    let pin = file.mapping.pin(range(1, 3), info("here", PinKind::Write)).unwrap();
    std::thread::scope(|scope| {
        let truncate = scope.spawn(|| file.truncate(0, Wait::Forever));
        scope.spawn(move || drop(pin));
        truncate.join().unwrap().unwrap();
    });
    assert!(file.pgmap().pins().is_empty());
    file.verify();
}

#[test]
fn a_file_that_permits_no_stores_is_pinned_for_reading_only() {
    let file = TestFile::new(8, &data(0, 4));
    file.forbid_stores();

    let refused = file.mapping.pin(range(1, 3), info("writer", PinKind::Write)).unwrap_err();

    assert!(matches!(refused, FaultError::Forbidden(FileIndex(1))), "{refused}");
    assert!(file.mapping.pins().is_empty());
    drop(file.mapping.pin(range(1, 3), info("reader", PinKind::Read)).unwrap());
}
