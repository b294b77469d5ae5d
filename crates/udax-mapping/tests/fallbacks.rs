//! Fallbacks: what is served by a smaller folio than there could be says why, each time (rule 14).

mod common;

use common::{PAGE, TestFile, both, data, folios, info, mode, range};
use udax_mapping::{Fallback, FaultError, MapMode, Populate, Stats, UserMapping};
use udax_mm::sync::Arc;
use udax_mm::{Access, FileIndex, Order, Pages, PgmapOff, PinKind};

/// Pages of 1 GiB.
const GIB: u64 = 512 * 512;

fn map(file: &TestFile, from: u64, pages: u64, how: Populate) -> UserMapping {
    let mapped = file.mapping.map(FileIndex(from), Pages(pages), mode(Access::Read, how));
    mapped.expect("the file can be mapped")
}

fn load(mapped: &UserMapping, page: u64) -> Option<u8> {
    let mut byte = [0];
    mapped.vma().read(page * PAGE, &mut byte).ok().map(|()| byte[0])
}

fn reasons(stats: &Stats) -> Vec<(Fallback, u64)> {
    stats.reasons().collect()
}

/// Faults by folios of 4 KiB, 2 MiB and 1 GiB.
fn faults(stats: &Stats) -> [u64; 3] {
    Order::ALL.map(|order| stats.faults(order))
}

fn pin(file: &TestFile, from: u64, to: u64) -> udax_mapping::PinnedFolios {
    file.mapping.pin(range(from, to), info("pin", PinKind::Read)).expect("it can be pinned")
}

/// A file of 1 GiB that can be one folio.
fn gibibyte() -> Arc<TestFile> {
    TestFile::new(2 * GIB, &data(GIB, GIB))
}

/// Maps a range twice: both times `touches` faults fall back for `reason`, and none for another. The
/// second time there are entries, which are small because the first fault was.
#[track_caller]
fn check(file: &TestFile, from: u64, pages: u64, touches: u64, reason: Fallback) {
    for round in 1..=2 {
        let mapped = map(file, from, pages, Populate::Eager);
        assert_eq!(load(&mapped, 7 - from), Some(0), "the page is in the file");

        let stats = file.mapping.stats();
        assert_eq!(reasons(&stats), [(reason, round * touches)], "round {round}");
        assert_eq!(stats.faults(Order::Pmd), 0, "I-37");
    }
    file.verify();
}

#[test]
fn each_fallback_says_why() {
    let whole = || TestFile::new(2048, &data(512, 512));
    check(&whole(), 0, 511, 1, Fallback::Bounds);
    check(&whole(), 1, 511, 1, Fallback::Bounds);
    check(&TestFile::new(2048, &data(5, 512)), 0, 512, 1, Fallback::Misaligned);
    check(&TestFile::new(2048, &data(512, 511)), 0, 512, 1, Fallback::Eof);

    let mut fragmented = data(512, 512);
    fragmented[300] = Some(3);
    check(&TestFile::new(2048, &fragmented), 0, 512, 3, Fallback::ExtentTooShort);
}

#[test]
fn folios_of_another_size_are_a_reason() {
    let file = TestFile::new(2048, &data(512, 512));
    let live = file.pgmap().try_get_live().unwrap();
    let _folio = live.request_folio(PgmapOff(600), Order::Base).unwrap();

    drop(map(&file, 0, 512, Populate::Eager));

    assert_eq!(reasons(&file.mapping.stats()), [(Fallback::Busy, 1)]);
}

/// Also for the page that has the small entry already: 2 MiB could be there.
#[test]
fn a_page_that_a_small_entry_serves_again_is_a_conflict() {
    both(2048, &data(512, 512), |file, how| {
        drop(pin(file, 0, 1));
        let bounds = (Fallback::Bounds, 1);
        assert_eq!(reasons(&file.mapping.stats()), [bounds], "a page was asked for");

        let mapped = map(file, 0, 512, how);
        assert_eq!(load(&mapped, 0), Some(0));

        let stats = file.mapping.stats();
        assert_eq!(reasons(&stats), [bounds, (Fallback::Conflict, 1)], "I-31");
        assert_eq!(stats.faults(Order::Pmd), 0, "I-31");
        assert_eq!(load(&mapped, 511), Some(0));
        assert!(file.mapping.stats().fallbacks(Fallback::Conflict) <= 2, "one for each touch");
    });
}

#[test]
fn addresses_that_are_not_congruent_fall_back() {
    let mut pages = data(0, 512);
    pages.extend(data(512, 512));
    let file = TestFile::new(1024, &pages);

    drop(map(&file, 1, 1023, Populate::Eager));

    let stats = file.mapping.stats();
    assert_eq!(reasons(&stats), [(Fallback::Colour, 1), (Fallback::Bounds, 1)], "I-37");
    assert_eq!(faults(&stats), [1023, 0, 0]);
}

#[test]
fn a_small_mapping_is_served_from_a_large_entry_and_that_is_no_fallback() {
    both(1024, &data(512, 512), |file, how| {
        file.fill_block(512 + 8, 8);
        let whole = file.mapping.map(FileIndex(0), Pages(512), mode(Access::Write, how)).unwrap();
        whole.vma().write(9 * PAGE, &[9]).unwrap();

        let part = map(file, 8, 2, how);

        assert_eq!([load(&part, 0), load(&part, 1)], [Some(8), Some(9)]);
        let stats = file.mapping.stats();
        assert_eq!((faults(&stats), reasons(&stats)), ([0, 2, 0], vec![]), "F-20");
    });
    let file = gibibyte();
    let _whole = pin(&file, 0, 512);
    let before = reasons(&file.mapping.stats());
    drop(map(&file, 8, 2, Populate::Eager));
    assert_eq!(reasons(&file.mapping.stats()), before, "more than it could have");
}

#[test]
fn a_gibibyte_of_data_that_is_shown_in_smaller_folios_says_why() {
    let file = gibibyte();
    drop(map(&file, 0, GIB - 512, Populate::Eager));
    let stats = file.mapping.stats();
    assert_eq!((faults(&stats), reasons(&stats)), ([0, 511, 0], vec![(Fallback::Bounds, 1)]));

    // Its entries are there, whoever maps all of it.
    drop(map(&file, 0, GIB, Populate::Eager));
    let stats = file.mapping.stats();
    assert_eq!(stats.faults(Order::Pud), 0, "I-31");
    assert_eq!(reasons(&stats), [(Fallback::Bounds, 1), (Fallback::Conflict, 1)]);
}

#[test]
fn a_gibibyte_that_was_tried_and_refused_says_why() {
    let file = gibibyte();
    let live = file.pgmap().try_get_live().unwrap();
    let _folio = live.request_folio(PgmapOff(GIB + 700), Order::Base).unwrap();

    let mapped = file.mapping.map(FileIndex(0), Pages(GIB), mode(Access::Read, Populate::Eager));

    drop(mapped.unwrap());
    let stats = file.mapping.stats();
    // The first fault tried 1 GiB, the second its own 2 MiB.
    assert_eq!(reasons(&stats), [(Fallback::Conflict, 1), (Fallback::Busy, 2)]);
    assert_eq!(faults(&stats), [512, 511, 0]);
}

/// B-12: the question that tells of 1 GiB may fill a hole, and the next one finds it filled. Who showed
/// zeros of it shows the data from then on.
#[test]
fn a_hole_that_is_filled_on_the_way_to_a_gibibyte_is_shown_as_a_hole_nowhere() {
    let Some(file) = TestFile::lazy(2 * GIB, &data(GIB, GIB)) else { return };
    let blocks = [1001, 1000].map(|page| (page, file.take_block(page)));
    for (page, block) in blocks {
        assert_eq!(block, GIB + page);
        file.give_block(block);
    }
    file.fill_holes();
    let small = map(&file, 1001, 1, Populate::Lazy);
    assert_eq!(load(&small, 0), Some(0));
    let writer = mode(Access::Write, Populate::Lazy);
    let whole = file.mapping.map(FileIndex(0), Pages(GIB), writer).unwrap();

    whole.vma().store_u64(1000 * PAGE, 1).unwrap();

    assert_eq!(file.blocks()[1000..1002], [Some(GIB + 1000), Some(GIB + 1001)]);
    file.verify();
    whole.vma().store_u64(1001 * PAGE, 7).unwrap();
    assert_eq!(load(&small, 0), Some(7));
    file.verify();
}

#[test]
fn data_that_fills_no_gibibyte_is_no_fallback_from_one() {
    both(4096, &data(512, 2048), |file, how| {
        let mapped = map(file, 0, 2048, how);
        assert_eq!([load(&mapped, 0), load(&mapped, 2047)], [Some(0), Some(0)]);
        let stats = file.mapping.stats();
        assert_eq!((stats.faults(Order::Base), reasons(&stats)), (0, vec![]));
    });
}

#[test]
fn a_pin_tries_each_gibibyte_of_its_range() {
    let file = TestFile::new(3 * GIB, &data(GIB, 2 * GIB));

    let pin = pin(&file, GIB - 512, 2 * GIB);

    let orders: Vec<Order> = folios(&pin).into_iter().map(|(_, order)| order).collect();
    assert_eq!(orders, [Order::Pmd, Order::Pud]);
    assert_eq!(reasons(&file.mapping.stats()), [(Fallback::Bounds, 1)], "of the first GiB");
}

#[test]
fn a_floor_of_a_gibibyte_is_not_kept_by_less() {
    let Some(file) = TestFile::lazy(2 * GIB, &data(GIB, GIB)) else { return };
    let floor = MapMode { floor: Order::Pud, ..MapMode::default() };
    let mapped = file.mapping.map(FileIndex(0), Pages(GIB), floor).unwrap();
    let _small = pin(&file, 3, 4);

    assert_eq!([load(&mapped, 1000), load(&mapped, 3)], [None, None]);

    let why = mapped.last_fault_error().expect("the fault failed");
    let is_told = matches!(*why, FaultError::BelowFloor { reason: Fallback::Conflict, .. });
    assert!(is_told, "{why}");
}
