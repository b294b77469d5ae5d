//! Private mappings, mappings with a floor, and folios of 1 GiB.

mod common;

use common::{PAGE, TestFile, both, data, info, range};
use udax_mapping::{Fallback, FaultError, MapMode, Populate, Sharing, UserMapping};
use udax_mm::sync::Arc;
use udax_mm::{Access, FileIndex, Order, Pages, PinKind, Wait};

const GIB: u64 = 1 << 18;

fn map(file: &TestFile, from: u64, pages: u64, mode: MapMode) -> UserMapping {
    file.mapping.map(FileIndex(from), Pages(pages), mode).expect("the file can be mapped")
}

fn private(populate: Populate) -> MapMode {
    let sharing = Sharing::Private;
    MapMode { access: Access::Write, populate, sharing, ..MapMode::default() }
}

fn shared(access: Access, populate: Populate) -> MapMode {
    MapMode { access, populate, ..MapMode::default() }
}

fn floor(populate: Populate) -> MapMode {
    MapMode { access: Access::Write, populate, floor: Order::Pmd, ..MapMode::default() }
}

fn load(mapped: &UserMapping, page: u64) -> Option<u8> {
    let mut byte = [0];
    mapped.vma().read(page * PAGE, &mut byte).ok().map(|()| byte[0])
}

fn store(mapped: &UserMapping, page: u64, byte: u8) {
    mapped.vma().write(page * PAGE, &[byte]).expect("the page can be stored to");
}

#[test]
fn a_private_store_changes_nothing_of_the_file() {
    both(8, &[Some(5), Some(6)], |file, how| {
        file.fill_block(5, 50);
        let mapped = map(file, 0, 2, private(how));
        let beside = map(file, 0, 2, shared(Access::Read, how));

        store(&mapped, 0, 1);

        assert_eq!((load(&mapped, 0), load(&beside, 0)), (Some(1), Some(50)));
        assert_eq!(file.byte_of_block(5), 50, "I-39");
        file.verify();
    });
}

#[test]
fn a_private_mapping_shows_the_file_until_it_stores() {
    both(8, &[Some(5), Some(6)], |file, how| {
        let mapped = map(file, 0, 2, private(how));
        assert_eq!(load(&mapped, 0), Some(0));

        file.fill_block(5, 9);
        file.fill_block(6, 9);
        store(&mapped, 1, 2);
        file.fill_block(6, 10);

        assert_eq!([load(&mapped, 0), load(&mapped, 1)], [Some(9), Some(2)]);
    });
}

#[test]
fn a_private_copy_survives_a_punch_and_no_truncate() {
    both(8, &data(2, 4), |file, how| {
        file.fill_block(3, 30);
        let mapped = map(file, 0, 4, private(how));
        assert_eq!(load(&mapped, 1), Some(30));
        store(&mapped, 2, 7);

        file.punch(range(1, 3), Wait::Never).unwrap();

        assert_eq!([load(&mapped, 1), load(&mapped, 2)], [Some(0), Some(7)]);
        file.verify();
        file.truncate_private(0);
        assert_eq!([load(&mapped, 1), load(&mapped, 2)], [None, None]);
    });
}

#[test]
fn a_private_store_to_a_hole_allocates_nothing() {
    both(8, &[None, None], |file, how| {
        let mapped = map(file, 0, 2, private(how));
        assert_eq!(load(&mapped, 0), Some(0));

        store(&mapped, 0, 4);
        store(&mapped, 1, 5);

        assert_eq!([load(&mapped, 0), load(&mapped, 1)], [Some(4), Some(5)]);
        assert_eq!(file.blocks(), [None, None], "I-39");
        file.allocate(0);
        assert_eq!(load(&mapped, 0), Some(4), "the page is the program's own");
        file.verify();
    });
}

#[test]
fn what_a_private_mapping_stored_survives_a_block_that_comes_around_it() {
    both(2048, &vec![None; 512], |file, how| {
        let mapped = map(file, 0, 512, private(how));
        store(&mapped, 5, 55);

        assert!(file.allocate_huge(0));
        let shows = map(file, 0, 512, shared(Access::Read, how));
        assert_eq!(load(&shows, 7), Some(0));

        let around = [4, 5, 6, 511].map(|page| load(&mapped, page));
        assert_eq!(around, [Some(0), Some(55), Some(0), Some(0)], "I-39");
        file.verify();
        // The pages before and behind are of one folio, and go together.
        file.truncate(300, Wait::Never).unwrap();
        assert_eq!(load(&mapped, 5), Some(55));
        file.verify();
    });
}

#[test]
fn what_a_private_mapping_stored_survives_a_hole_that_comes_around_it() {
    both(2048, &data(512, 512), |file, how| {
        let mapped = map(file, 0, 512, private(how));
        store(&mapped, 5, 55);

        file.punch(range(0, 512), Wait::Never).unwrap();

        let around = [0, 5, 6, 511].map(|page| load(&mapped, page));
        assert_eq!(around, [Some(0), Some(55), Some(0), Some(0)], "I-39");
        file.verify();
    });
}

#[test]
fn a_private_mapping_holds_up_no_truncate() {
    both(1024, &data(512, 512), |file, how| {
        let mapped = map(file, 0, 512, private(how));
        store(&mapped, 7, 7);

        file.truncate(0, Wait::Never).unwrap();

        assert_eq!(file.free_blocks(), 1024, "I-50: nothing of the file is counted any more");
    });
}

#[test]
fn a_mapping_with_a_floor_is_made_of_2_mib_or_says_why_not() {
    let refusals = [
        (data(512, 511), 512, Fallback::Eof),
        (data(513, 512), 512, Fallback::Misaligned),
        (data(512, 511), 511, Fallback::Bounds),
    ];
    for (pages, mapped, reason) in refusals {
        both(2048, &pages, |file, how| {
            let refused = file.mapping.map(FileIndex(0), Pages(mapped), floor(how));
            let Err(FaultError::BelowFloor { reason: found, floor, .. }) = refused else {
                panic!("{reason:?}: {refused:?}");
            };
            assert_eq!((found, floor), (reason, Order::Pmd));
        });
    }
    both(2048, &data(512, 1024), |file, how| {
        let mapped = map(file, 0, 1024, floor(how));
        store(&mapped, 1023, 1);
        assert_eq!(file.mapping.stats().faults(Order::Base), 0);
    });
}

#[test]
fn smaller_entries_keep_a_floor_from_being_promised() {
    both(2048, &data(512, 512), |file, how| {
        let _small = file.mapping.pin(range(3, 4), info("small", PinKind::Read)).unwrap();

        let refused = file.mapping.map(FileIndex(0), Pages(512), floor(how));

        let is_conflict = |error: &FaultError| {
            matches!(error, FaultError::BelowFloor { reason: Fallback::Conflict, .. })
        };
        assert!(refused.is_err_and(|error| is_conflict(&error)), "I-31");
    });
}

#[test]
fn a_fault_below_the_floor_is_sigbus_and_says_why() {
    let Some(file) = TestFile::lazy(4096, &vec![None; 1024]) else { return };
    let mapped = map(&file, 0, 1024, floor(Populate::Lazy));

    // The owner gives a single page, not 2 MiB.
    assert!(mapped.vma().write(0, &[1]).is_err());

    let why = mapped.last_fault_error().expect("the fault failed");
    assert!(matches!(*why, FaultError::BelowFloor { index: FileIndex(0), .. }), "{why}");
    assert!(file.allocate_huge(512));
    store(&mapped, 600, 6);
    assert_eq!(load(&mapped, 600), Some(6));
    file.verify();
}

#[test]
fn an_aligned_gibibyte_is_one_entry_and_one_fault() {
    both(2 * GIB, &data(GIB, GIB), |file, how| {
        file.fill_block(GIB + 1000, 10);
        let mapped = map(file, 0, GIB, shared(Access::Read, how));

        assert_eq!(load(&mapped, 1000), Some(10));
        let stats = file.mapping.stats();
        assert_eq!(Order::ALL.map(|order| stats.faults(order)), [0, 0, 1]);
        file.verify();

        // A page of it goes, and with it the whole folio.
        file.truncate(1001, Wait::Never).unwrap();
        assert_eq!([load(&mapped, 1000), load(&mapped, 1001)], [Some(10), None]);
    });
}

#[test]
fn a_hole_of_a_gibibyte_that_is_only_read_takes_one_entry() {
    both(1024, &vec![None; usize::try_from(GIB).unwrap()], |file, how| {
        let mapped = map(file, 0, GIB, shared(Access::Read, how));

        assert_eq!([load(&mapped, 5), load(&mapped, GIB - 1)], [Some(0), Some(0)]);

        assert_eq!(file.mapping.stats().holes, 1);
        file.allocate(5);
        file.fill_block(file.blocks()[5].expect("it was allocated"), 5);
        assert_eq!([load(&mapped, 5), load(&mapped, 6)], [Some(5), Some(0)], "I-44");
        file.verify();
    });
}

#[test]
fn pinning_a_gibibyte_takes_one_folio() {
    let file: Arc<TestFile> = TestFile::new(2 * GIB, &data(GIB, GIB));

    let pin = file.mapping.pin(range(0, GIB), info("gpu", PinKind::Write)).unwrap();

    assert_eq!(common::folios(&pin).len(), 1);
    let iovecs = pin.iovecs().unwrap();
    let lengths: Vec<_> = iovecs.iter().map(|iovec| iovec.len).collect();
    assert_eq!(lengths, [1 << 30]);
    file.verify();
}
