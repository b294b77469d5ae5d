//! A device that has folios of one order only: it is mapped and pinned in that order, or not at all.

mod common;

use common::{PAGE, TestFile, data, info, mode, range};
use std::io::Write as _;
use udax_mapping::{Fallback, FaultError, MapMode, Populate};
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::{
    Access, FaultService, FileIndex, MemoryType, Order, Pages, PgmapOff, PinKind, RequestError,
};

const HUGE: u64 = 512;

/// A file that is the first `pages` pages of a device of `order` with 2048 pages, from page `first`
/// of the device on.
fn file(order: Order, first: u64, pages: u64, populate: Populate) -> Option<Arc<TestFile>> {
    let service = match populate {
        Populate::Eager => None,
        Populate::Lazy => {
            // Past the capture of the test harness, so that it is seen.
            let skipped = |error: &std::io::Error| {
                let _ = writeln!(std::io::stderr(), "SKIPPED lazy mappings: {error}");
            };
            Some(Arc::new(FaultService::new().inspect_err(skipped).ok()?))
        }
    };
    let media = Arc::new(FileMedia::memfd("test", 2048 * PAGE).expect("memory for a test"));
    Some(TestFile::of_kind(media, MemoryType::Generic(order), &data(first, pages), service))
}

fn each_way(test: impl Fn(Populate)) {
    [Populate::Lazy, Populate::Eager].into_iter().for_each(test);
}

#[test]
fn a_device_of_small_folios_is_never_mapped_by_large_ones() {
    each_way(|how| {
        let Some(file) = file(Order::Base, 0, 2048, how) else { return };
        let mapped = file.mapping.map(FileIndex(0), Pages(2048), mode(Access::Write, how)).unwrap();
        mapped.vma().store_u64(700 * PAGE, 7).unwrap();

        let stats = file.mapping.stats();
        assert_eq!((stats.faults(Order::Pmd), stats.faults(Order::Pud)), (0, 0), "I-68");
        let reasons: Vec<_> = stats.reasons().map(|(reason, _)| reason).collect();
        assert_eq!(reasons, [Fallback::DeviceOrder], "the reason is the device");
        file.verify();
    });
}

#[test]
fn a_device_of_large_folios_is_mapped_by_nothing_else() {
    each_way(|how| {
        let Some(file) = file(Order::Pmd, 0, 2048, how) else { return };
        let mapped = file.mapping.map(FileIndex(0), Pages(2048), mode(Access::Write, how)).unwrap();
        mapped.vma().store_u64(700 * PAGE, 7).unwrap();

        let stats = file.mapping.stats();
        assert!(stats.faults(Order::Pmd) > 0);
        assert_eq!(stats.faults(Order::Base), 0, "I-68");
        assert_eq!(stats.reasons().count(), 0, "2 MiB is what there is");
        let folio = file.pgmap().try_get_live().unwrap().get_folio(PgmapOff(700)).unwrap();
        assert_eq!((folio.head(), folio.order()), (PgmapOff(512), Order::Pmd));
        file.verify();
    });
}

#[test]
fn what_the_one_order_does_not_fit_fails_with_the_reason() {
    // As (first page of the device, pages of the file, first page and pages of the mapping).
    let cases = [
        ((0, 2048), (1, HUGE), Fallback::Bounds),
        ((0, 2048), (0, HUGE - 1), Fallback::Bounds),
        ((1, 1024), (0, HUGE), Fallback::Misaligned),
        ((0, 600), (HUGE, HUGE), Fallback::Eof),
    ];
    for ((first, pages), (start, count), expected) in cases {
        let Some(file) = file(Order::Pmd, first, pages, Populate::Eager) else { return };
        let mode = mode(Access::Read, Populate::Eager);
        let refused = file.mapping.map(FileIndex(start), Pages(count), mode).unwrap_err();
        let FaultError::BelowFloor { floor: Order::Pmd, reason, .. } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(reason, expected);
        let stats = file.mapping.stats();
        assert_eq!(stats.faults(Order::Base), 0, "I-68: a smaller folio is never right");
        file.verify();
    }
}

#[test]
fn a_floor_above_the_one_order_is_refused() {
    each_way(|how| {
        let Some(file) = file(Order::Base, 0, 2048, how) else { return };
        let mode = MapMode { floor: Order::Pmd, ..mode(Access::Read, how) };
        let refused = file.mapping.map(FileIndex(0), Pages(HUGE), mode).unwrap_err();
        let reason = Fallback::DeviceOrder;
        let is_named =
            matches!(refused, FaultError::BelowFloor { reason: why, .. } if why == reason);
        assert!(is_named, "{refused:?}");
    });
}

#[test]
fn a_pin_is_of_whole_folios_or_refused() {
    let Some(file) = file(Order::Pmd, 0, 2048, Populate::Eager) else { return };
    let pin = file.mapping.pin(range(HUGE, 3 * HUGE), info("nic", PinKind::Write)).unwrap();
    assert_eq!(common::folios(&pin), [(PgmapOff(512), Order::Pmd), (PgmapOff(1024), Order::Pmd)]);
    drop(pin);

    let refused = file.mapping.pin(range(1, 2), info("nic", PinKind::Write)).unwrap_err();
    let is_named = matches!(refused, FaultError::BelowFloor { reason: Fallback::Bounds, .. });
    assert!(is_named, "{refused:?}");
    file.verify();
}

/// The whole folio is lost with one page of it, and is back with it: dirty as it was.
#[test]
fn a_failed_page_takes_its_whole_folio_until_it_has_new_bytes() {
    each_way(|how| {
        let Some(file) = file(Order::Pmd, 0, 2048, how) else { return };
        let mapped = file.mapping.map(FileIndex(0), Pages(2048), mode(Access::Write, how)).unwrap();
        mapped.vma().store_u64(700 * PAGE, 7).unwrap();
        mapped.vma().store_u64(1500 * PAGE, 8).unwrap();
        let live = file.pgmap().try_get_live().unwrap();

        live.memory_failure(PgmapOff(701)..PgmapOff(702));
        let failed = udax_dev::DaxSpan::new(live.clone(), PgmapOff(701), Pages(1)).unwrap();
        file.mapping.poison(FileIndex(701), &failed);

        for page in [512, 700, 701, 1023] {
            mapped.vma().load_u64(page * PAGE).expect_err("I-68: the folio is lost");
            let why = mapped.last_fault_error().expect("a touch failed");
            assert!(matches!(*why, FaultError::Request(RequestError::Poisoned(_))), "{why:?}");
        }
        assert_eq!(mapped.vma().load_u64(1500 * PAGE).unwrap(), 8, "the next folio is good");
        assert_eq!(file.mapping.stats().faults(Order::Base), 0, "I-68");
        file.verify();

        live.recover(701 * PAGE, &[9; 4096]).unwrap();
        file.mapping.heal(range(512, 1024));

        assert_eq!(mapped.vma().load_u64(700 * PAGE).unwrap(), 7, "what was good is as it was");
        assert_eq!(mapped.vma().load_u64(701 * PAGE).unwrap(), 0x0909_0909_0909_0909);
        assert_eq!(file.mapping.stats().faults(Order::Base), 0, "I-68");
        file.verify();
        file.mapping.writeback(range(0, 2048)).unwrap();
    });
}
