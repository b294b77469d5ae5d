//! Data that other files may have, too: in which order a file moves away from it.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::sharing::{Left, SharingFile};
use common::{info, mode, range};
use udax_mapping::{BreakError, Fallback, FaultError, MapMode, Populate};
use udax_mm::sync::Arc;
use udax_mm::sync::atomic::Ordering;
use udax_mm::{Access, FaultService, FileIndex, Order, Pages, PinKind, VmaOff, Wait};

/// More than 2 MiB.
const PAGES: u64 = 1300;

/// Runs a test with lazy mappings, where they are permitted, and with eager ones.
fn both(test: impl Fn(&SharingFile, Populate)) {
    match FaultService::new() {
        Ok(service) => {
            test(&SharingFile::new(PAGES, Some(Arc::new(service))), Populate::Lazy);
        }
        Err(error) => common::skipped(&error),
    }
    test(&SharingFile::new(PAGES, None), Populate::Eager);
}

/// Rule 28: as soon as the file has moved away another one may store to the page, and a reader of
/// this one would see it.
#[test]
fn what_a_file_moves_away_from_is_shown_nowhere_by_then() {
    both(|file, populate| {
        let reader =
            file.mapping.map(FileIndex(0), Pages(PAGES), mode(Access::Read, populate)).unwrap();
        for page in 0..PAGES {
            reader.vma().load_u64(page * common::PAGE).unwrap();
        }
        let writer =
            file.mapping.map(FileIndex(3), Pages(1), mode(Access::Write, populate)).unwrap();
        writer.vma().store_u64(0, 1).unwrap();
        let _pin = file.mapping.pin(range(600, 602), info("device", PinKind::Write)).unwrap();

        assert_eq!(file.left(), [Left::Idle; 3]);
        assert_eq!(reader.vma().load_u64(3 * common::PAGE).unwrap(), 1);
        file.mapping.verify().unwrap();
    });
}

/// Who is refused a copy takes back what shows the page. That is shown again, and nobody asks again
/// for that reason.
#[test]
fn refused_copies_of_eager_mappings_do_not_take_turns_with_those_who_read() {
    let file = SharingFile::new(8, None);
    let map = |access| {
        let mapped = file.mapping.map(FileIndex(0), Pages(8), mode(access, Populate::Eager));
        mapped.unwrap()
    };
    let reader = map(Access::Read);
    let writers = [map(Access::Write), map(Access::Write)];
    file.is_full.store(true, Ordering::Relaxed);

    file.share_again();

    file.mapping.verify().unwrap();
    for page in 0..8 {
        reader.vma().load_u64(page * common::PAGE).unwrap();
        for writer in &writers {
            writer.vma().load_u64(page * common::PAGE).unwrap_err();
            let why = writer.last_fault_error().unwrap().to_string();
            assert_eq!(why, "no room for a copy");
        }
    }

    file.is_full.store(false, Ordering::Relaxed);
    assert!(writers[0].retry(VmaOff(2)..VmaOff(3)));
    writers[0].vma().store_u64(2 * common::PAGE, 7).unwrap();
    assert_eq!(reader.vma().load_u64(2 * common::PAGE).unwrap(), 7);
    assert_eq!(writers[1].vma().load_u64(2 * common::PAGE).unwrap(), 7);
    file.mapping.verify().unwrap();
}

/// Each page stops being shared on its own, so it is counted on its own.
#[test]
fn what_is_shared_is_counted_page_by_page() {
    both(|file, populate| {
        let floor = MapMode { floor: Order::Pmd, ..mode(Access::Read, populate) };
        let refused = file.mapping.map(FileIndex(0), Pages(512), floor).unwrap_err();
        let is_named = matches!(refused, FaultError::BelowFloor { reason: Fallback::Shared, .. });
        assert!(is_named, "{refused}");

        let reader =
            file.mapping.map(FileIndex(0), Pages(PAGES), mode(Access::Read, populate)).unwrap();
        for page in 0..PAGES {
            reader.vma().load_u64(page * common::PAGE).unwrap();
        }
        let pin = file.mapping.pin(range(0, PAGES), info("device", PinKind::Read)).unwrap();

        assert_eq!(common::folios(&pin).len(), usize::try_from(PAGES).unwrap());
        assert!(pin.spans().count() <= 3, "what lies side by side is one span, up to 2 MiB");
        let stats = file.mapping.stats();
        assert_eq!(stats.faults(Order::Pmd), 0);
        assert!(stats.reasons().all(|(reason, _)| reason == Fallback::Shared));
        file.mapping.verify().unwrap();
    });
}

/// Whoever pins the pages that the file has left is in nobody's way.
#[test]
fn a_pin_of_what_the_file_has_left_is_not_named_as_in_the_way() {
    let file = SharingFile::new(4, None);
    let old = file.mapping.pin(range(0, 4), info("old", PinKind::Read)).unwrap();
    let writer =
        file.mapping.map(FileIndex(0), Pages(1), mode(Access::Write, Populate::Eager)).unwrap();
    writer.vma().store_u64(0, 1).unwrap();
    assert_eq!(file.left(), [Left::Pinned]);
    let new = file.mapping.pin(range(0, 2), info("new", PinKind::Read)).unwrap();

    let error = file.mapping.break_layout(range(0, 4), Wait::Never).unwrap_err();

    let BreakError::Pinned { index: FileIndex(0), pins } = &error else { panic!("{error}") };
    let named: Vec<_> = pins.iter().map(|pin| (&*pin.info.owner.label, &pin.range)).collect();
    assert_eq!(named, [("new", &range(0, 2))]);
    drop(new);
    drop(file.mapping.break_layout(range(0, 4), Wait::Never).unwrap());
    drop(old);
}
