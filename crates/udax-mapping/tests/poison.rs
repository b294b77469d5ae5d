//! Memory that fails under a file: who maps it loses it, and what is good around it goes on.

mod common;

use common::{PAGE, TestFile, both, data, info, mode, range};
use udax_mapping::{BreakError, Fallback, FaultError, MapMode, Populate, Sharing, UserMapping};
use udax_mm::{
    Access, FileIndex, IdleSpan, MediaError, Order, PAGE_SIZE, Pages, PgmapOff, PgmapRef, PinKind,
    RequestError, Vma, Wait,
};

fn map(file: &TestFile, pages: u64, access: Access, how: Populate) -> UserMapping {
    let mapped = file.mapping.map(FileIndex(0), Pages(pages), mode(access, how));
    mapped.expect("the file can be mapped")
}

fn live(file: &TestFile) -> PgmapRef {
    file.pgmap().try_get_live().expect("the device lives")
}

/// The memory of block `block`, which the file has at page `index`, fails.
fn fail(file: &TestFile, index: u64, block: u64) {
    live(file).memory_failure(PgmapOff(block)..PgmapOff(block + 1));
    let span = udax_dev::DaxSpan::new(live(file), PgmapOff(block), Pages(1));
    file.mapping.poison(FileIndex(index), &span.expect("the block is on the device"));
}

fn load(vma: &Vma, page: u64) -> Option<u8> {
    let mut byte = [0];
    vma.read(page * PAGE, &mut byte).ok().map(|()| byte[0])
}

fn store(mapped: &UserMapping, page: u64, byte: u8) {
    mapped.vma().write(page * PAGE, &[byte]).expect("the page can be stored to");
}

#[track_caller]
fn check_lost(mapped: &UserMapping, page: u64) {
    let (mut bytes, from) = ([0; 8], page * PAGE);
    let lost = mapped.vma().read(from - 4, &mut bytes);
    assert!(matches!(lost, Err(MediaError::Fault { at }) if at == from), "I-64: {lost:?}");
    let lost = mapped.vma().write(from, &bytes);
    assert!(matches!(lost, Err(MediaError::Fault { at }) if at == from), "I-64: {lost:?}");
    let why = mapped.last_fault_error().expect("a touch failed");
    let poisoned = matches!(*why, FaultError::Request(RequestError::Poisoned(_)));
    assert!(poisoned, "I-65, B-40: {why:?}");
}

/// Pages 3 to 5 of a file of which page 4 fails, in a mapping of each kind.
fn check_failure(file: &TestFile, pages: u64, first: u64, how: Populate) {
    let (one, other) = (map(file, pages, Access::Write, how), map(file, pages, Access::Read, how));
    for page in 3..6 {
        store(&one, page, 7);
        assert_eq!(load(other.vma(), page), Some(7));
    }

    fail(file, 4, first + 4);

    file.verify();
    check_lost(&one, 4);
    check_lost(&other, 4);
    for page in [3, 5] {
        assert_eq!(load(other.vma(), page), Some(7), "its neighbour is good");
        store(&one, page, 9);
        assert_eq!(load(other.vma(), page), Some(9));
    }
    assert_eq!(load(other.vma(), pages - 1), Some(0));
    file.verify();
}

#[test]
fn a_failed_page_is_taken_from_every_mapping_and_its_neighbours_go_on() {
    both(64, &data(5, 16), |file, how| check_failure(file, 16, 5, how));
}

#[test]
fn of_a_large_folio_only_the_failed_page_is_lost() {
    both(2048, &data(512, 1024), |file, how| {
        check_failure(file, 1024, 512, how);
        let stats = file.mapping.stats();
        assert!(stats.faults(Order::Pmd) > 0, "it was one folio");
        assert!(stats.faults(Order::Base) > 0, "I-64: and is not any more");
    });
}

#[test]
fn two_pages_of_a_folio_fail_one_after_the_other() {
    both(1024, &data(512, 512), |file, how| {
        let mapped = map(file, 512, Access::Write, how);
        (0..512).for_each(|page| store(&mapped, page, 7));

        fail(file, 100, 612);
        fail(file, 511, 1023);

        let bytes: Vec<_> = (0..512).map(|page| load(mapped.vma(), page)).collect();
        for (page, byte) in bytes.iter().enumerate() {
            let expected = if [100, 511].contains(&page) { None } else { Some(7) };
            assert_eq!(*byte, expected, "page {page}");
        }
    });
}

#[test]
fn a_fault_over_failed_memory_is_served_in_pages_and_says_why() {
    both(1024, &data(512, 512), |file, how| {
        live(file).poison(PgmapOff(600));
        if how == Populate::Eager {
            let refused = file.mapping.map(FileIndex(0), Pages(512), mode(Access::Read, how));
            assert!(matches!(refused, Err(FaultError::Request(RequestError::Poisoned(_)))));
            return;
        }

        let mapped = map(file, 512, Access::Read, how);

        assert_eq!(load(mapped.vma(), 3), Some(0));
        check_lost(&mapped, 88);
        assert!(file.mapping.stats().fallbacks(Fallback::Media) > 0);
    });
}

/// The page fails between the owner's answer and the moment it is mapped.
#[test]
fn a_fault_that_meets_a_fresh_mark_shows_no_failed_memory() {
    let Some(file) = TestFile::lazy(1024, &data(512, 512)) else { return };
    let mapped = map(&file, 512, Access::Write, Populate::Lazy);
    let pgmap = live(&file);
    file.hook_next_iomap(move || pgmap.poison(PgmapOff(512 + 9)));

    assert_eq!(load(mapped.vma(), 8), Some(0), "the page itself is good");

    file.verify();
    check_lost(&mapped, 9);
}

/// The mark is there before anybody is told, and a fault comes in between.
#[test]
fn a_fault_finds_failed_memory_in_a_large_entry_before_the_file_is_told() {
    let Some(file) = TestFile::lazy(1024, &data(512, 512)) else { return };
    let one = map(&file, 512, Access::Write, Populate::Lazy);
    store(&one, 7, 7);
    live(&file).poison(PgmapOff(512 + 9));

    let other = map(&file, 512, Access::Read, Populate::Lazy);

    assert_eq!(load(other.vma(), 7), Some(7));
    check_lost(&other, 9);
    check_lost(&one, 9);
    assert_eq!(load(one.vma(), 7), Some(7));
}

#[test]
fn new_bytes_heal_every_mapping() {
    both(1024, &data(512, 512), |file, how| {
        let (one, other) = (map(file, 512, Access::Write, how), map(file, 512, Access::Read, how));
        store(&one, 3, 3);
        fail(file, 4, 516);
        check_lost(&one, 4);
        check_lost(&other, 4);

        live(file).recover(516 * PAGE, &[5; PAGE_SIZE]).unwrap();
        file.mapping.heal(range(4, 5));

        file.verify();
        assert_eq!((load(one.vma(), 4), load(other.vma(), 4)), (Some(5), Some(5)), "F-45");
        store(&one, 4, 6);
        assert_eq!((load(other.vma(), 3), load(other.vma(), 4)), (Some(3), Some(6)));
    });
}

#[test]
fn the_copies_of_a_private_mapping_survive() {
    both(64, &data(5, 4), |file, how| {
        let private = MapMode { sharing: Sharing::Private, ..mode(Access::Write, how) };
        let mapped = file.mapping.map(FileIndex(0), Pages(4), private).unwrap();
        store(&mapped, 1, 1);

        fail(file, 1, 6);
        fail(file, 2, 7);

        assert_eq!(load(mapped.vma(), 1), Some(1), "I-39: it is the program's");
        check_lost(&mapped, 2);
    });
}

#[test]
fn a_pin_keeps_a_failed_page_and_nobody_else_gets_it() {
    both(1024, &data(512, 512), |file, how| {
        let mapped = map(file, 512, Access::Write, how);
        store(&mapped, 8, 8);
        let pin = file.mapping.pin(range(0, 512), info("device", PinKind::Write)).unwrap();

        fail(file, 9, 521);

        check_lost(&mapped, 9);
        assert_eq!(load(mapped.vma(), 8), Some(8));
        let refused = file.mapping.pin(range(9, 10), info("late", PinKind::Read));
        assert!(matches!(refused, Err(FaultError::Request(RequestError::Poisoned(_)))), "I-65");
        file.mapping.pin(range(10, 11), info("beside", PinKind::Read)).unwrap();
        file.verify();
        drop(pin);
    });
}

#[test]
fn an_entry_is_locked_by_folio_only_where_it_shows_that_page() {
    let file = TestFile::new(1024, &data(512, 512));
    let other = TestFile::new(1024, &data(512, 512));
    let _mapped = map(&file, 512, Access::Read, Populate::Eager);
    let faults = file.mapping.faults();
    let lock = |file: &TestFile, index, page| {
        faults
            .lock_folio(FileIndex(index), &file.pgmap(), PgmapOff(page))
            .map(|entry| entry.range())
    };

    assert_eq!(lock(&file, 7, 519), Some(range(0, 512)));
    assert_eq!(lock(&file, 7, 520), None, "I-26: another page");
    assert_eq!(lock(&other, 7, 519), None, "another page map");
    assert_eq!(lock(&file, 600, 1112), None, "no entry is made");
    assert_eq!(file.mapping.entry_pages(), Pages(512));
}

/// The file lets go of a page that fails; what is good around it is claimed.
#[test]
fn a_layout_is_broken_around_failed_memory() {
    both(64, &data(5, 8), |file, how| {
        let mapped = map(file, 8, Access::Write, how);
        store(&mapped, 2, 2);
        let pin = file.mapping.pin(range(6, 7), info("device", PinKind::Read)).unwrap();
        fail(file, 2, 7);
        fail(file, 6, 11);

        let refused = file.mapping.break_layout(range(0, 8), Wait::Never);
        assert!(matches!(refused, Err(BreakError::Pinned { .. })), "a pin is waited for first");
        drop(pin);
        let mut broken = file.mapping.break_layout(range(0, 8), Wait::Never).unwrap();

        let idle: Vec<_> = broken.take_idle().iter().map(IdleSpan::pages).collect();
        assert_eq!(idle, [at(5, 7), at(8, 11), at(12, 13)], "I-50");
        let failed: Vec<_> = broken.failed().iter().map(|(_, pages)| pages.clone()).collect();
        assert_eq!(failed, [at(7, 8), at(11, 12)]);
        drop(broken);
        let broken = file.mapping.break_layout_deferred(range(0, 8), &file.sink).unwrap();
        assert_eq!((broken.failed().len(), broken.limbo().len()), (2, 0));
    });
}

fn at(from: u64, to: u64) -> std::ops::Range<PgmapOff> {
    PgmapOff(from)..PgmapOff(to)
}

/// The folio is shown page by page, and what is taken back reaches around the page that failed.
#[test]
fn pages_beside_one_that_failed_come_back_where_their_folio_is_shown_in_pieces() {
    both(1024, &data(0, 512), |file, how| {
        (9..13).for_each(|page| file.fill_block(page, 7));
        let pin = file.mapping.pin(range(0, 512), info("whole", PinKind::Read)).expect("a pin");
        file.truncate_deferred(300).expect("blocks wait in limbo");
        let map = |from, pages| {
            let mode = mode(Access::Read, how);
            file.mapping.map(FileIndex(from), Pages(pages), mode).expect("a mapping")
        };
        let mapped = map(9, 4);
        (0..4).for_each(|page| assert_eq!(load(mapped.vma(), page), Some(7)));
        drop(pin);

        fail(file, 10, 10);

        let loads = [0, 1, 2, 3].map(|page| load(mapped.vma(), page));
        assert_eq!(loads, [Some(7), None, Some(7), Some(7)]);
    });
}
