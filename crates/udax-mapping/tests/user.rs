//! User mappings: what a program sees at the addresses, in the lazy and in the eager way.

mod common;

use common::{PAGE, TestFile, both, data, folios, info, mode, range};
use std::thread;
use udax_mapping::{FaultError, Mapping, Populate, UserMapping};
use udax_mm::sync::Arc;
use udax_mm::sync::mpsc;
use udax_mm::{Access, FileIndex, MediaError, Order, Pages, PgmapOff, PinKind, Vma, VmaOff, Wait};

/// Runs `test` with lazy mappings, where the host permits them.
fn lazy(device_pages: u64, pages: &[Option<u64>], test: impl Fn(&Arc<TestFile>)) {
    if let Some(file) = TestFile::lazy(device_pages, pages) {
        test(&file);
        file.verify();
    }
}

fn map(file: &TestFile, from: u64, pages: u64, access: Access, how: Populate) -> UserMapping {
    let mapped = file.mapping.map(FileIndex(from), Pages(pages), mode(access, how));
    let mapped = mapped.expect("the file can be mapped");
    assert_eq!(mapped.populate(), how, "the host permits what was found out before");
    mapped
}

fn load(vma: &Vma, page: u64) -> Result<u8, MediaError> {
    let mut byte = [0];
    vma.read(page * PAGE, &mut byte).map(|()| byte[0])
}

fn store(vma: &Vma, page: u64, byte: u8) -> Result<(), MediaError> {
    vma.write(page * PAGE, &[byte])
}

fn loads(mapped: &UserMapping) -> Vec<Option<u8>> {
    (0..mapped.vma().pages().0).map(|page| load(mapped.vma(), page).ok()).collect()
}

#[test]
fn a_mapping_shows_the_bytes_of_the_file() {
    both(8, &[Some(5), Some(2), Some(3)], |file, how| {
        for (block, byte) in [(5, 50), (2, 20), (3, 30)] {
            file.fill_block(block, byte);
        }

        let all = map(file, 0, 3, Access::Read, how);
        let part = map(file, 1, 2, Access::Read, how);

        assert_eq!(loads(&all), [Some(50), Some(20), Some(30)]);
        assert_eq!(loads(&part), [Some(20), Some(30)]);
        file.verify();
    });
}

#[test]
fn a_store_is_in_the_file_and_in_every_mapping() {
    both(8, &data(4, 3), |file, how| {
        let (one, other) =
            (map(file, 0, 3, Access::Write, how), map(file, 1, 2, Access::Read, how));

        store(one.vma(), 2, 9).unwrap();

        assert_eq!(file.byte_of_block(6), 9);
        assert_eq!(load(other.vma(), 1).unwrap(), 9);
        file.verify();
    });
}

#[test]
fn a_hole_reads_as_zeros_and_stays_a_hole() {
    both(8, &[Some(0), None, None, Some(3)], |file, how| {
        let mapped = map(file, 0, 4, Access::Read, how);

        assert_eq!(loads(&mapped), [Some(0); 4]);

        assert_eq!(file.blocks(), [Some(0), None, None, Some(3)]);
        file.verify();
    });
}

#[test]
fn the_first_store_allocates_its_page_and_no_other() {
    lazy(8, &[None, None, None], |file| {
        let mapped = map(file, 0, 3, Access::Write, Populate::Lazy);
        assert_eq!(loads(&mapped), [Some(0); 3], "zeros before");

        store(mapped.vma(), 1, 7).unwrap();

        assert_eq!(loads(&mapped), [Some(0), Some(7), Some(0)]);
        let blocks = file.blocks();
        assert_eq!((blocks[0], blocks[2]), (None, None));
        assert_eq!(file.byte_of_block(blocks[1].expect("it was stored to")), 7);
        file.verify();
    });
}

#[test]
fn an_eager_mapping_for_writing_allocates_at_once() {
    let file = TestFile::new(8, &[None, Some(0), None]);

    let mapped = map(&file, 0, 3, Access::Write, Populate::Eager);

    assert!(file.blocks().iter().all(Option::is_some));
    store(mapped.vma(), 0, 1).unwrap();
    file.verify();
}

#[test]
fn a_touch_past_the_end_fails_until_the_file_grows() {
    both(8, &data(0, 1), |file, how| {
        let mapped = map(file, 0, 4, Access::Write, how);
        assert!(load(mapped.vma(), 1).is_err());
        assert!(store(mapped.vma(), 2, 1).is_err());
        file.verify();

        file.grow(3);

        assert_eq!(load(mapped.vma(), 1).unwrap(), 0);
        store(mapped.vma(), 2, 8).unwrap();
        assert!(load(mapped.vma(), 3).is_err(), "still past the end");
        file.verify();
    });
}

#[test]
fn a_truncated_page_is_not_reached_any_more() {
    both(8, &data(0, 4), |file, how| {
        let mapped = map(file, 0, 4, Access::Write, how);
        (0..4).for_each(|page| store(mapped.vma(), page, 5).expect("it is in the file"));

        file.truncate(2, Wait::Never).unwrap();

        assert_eq!(loads(&mapped), [Some(5), Some(5), None, None], "I-32");
        assert_eq!(file.free_blocks(), 6, "I-50");
        file.verify();
        file.grow(4);
        assert_eq!(loads(&mapped), [Some(5), Some(5), Some(0), Some(0)], "I-49");
        file.verify();
    });
}

#[test]
fn a_punched_page_shows_zeros() {
    both(8, &data(0, 3), |file, how| {
        let mapped = map(file, 0, 3, Access::Read, how);
        (0..3).for_each(|block| file.fill_block(block, 5));
        assert_eq!(loads(&mapped), [Some(5); 3]);

        file.punch(range(1, 2), Wait::Never).unwrap();

        assert_eq!(loads(&mapped), [Some(5), Some(0), Some(5)]);
        file.verify();
    });
}

#[test]
fn an_allocation_replaces_zeros_that_are_shown() {
    both(8, &[None, None, None], |file, how| {
        let mapped = map(file, 0, 3, Access::Read, how);
        assert_eq!(loads(&mapped), [Some(0); 3]);

        file.allocate(1);
        file.fill_block(file.blocks()[1].unwrap(), 6);

        assert_eq!(loads(&mapped), [Some(0), Some(6), Some(0)], "I-44");
        file.verify();
    });
}

#[test]
fn a_store_through_one_mapping_replaces_zeros_that_another_shows() {
    both(8, &[None, None, None], |file, how| {
        let reader = map(file, 0, 3, Access::Read, how);
        assert_eq!(loads(&reader), [Some(0); 3]);

        let writer = map(file, 1, 1, Access::Write, how);
        store(writer.vma(), 0, 4).unwrap();

        assert_eq!(loads(&reader), [Some(0), Some(4), Some(0)], "I-33");
        file.verify();
    });
}

/// A fault learns "hole"; before it shows zeros, another thread allocates and reports success.
/// Kills: showing a hole without looking again.
#[test]
fn a_fault_does_not_show_a_hole_that_was_allocated_meanwhile() {
    lazy(8, &[None, None], |file| {
        let mapped = map(file, 0, 2, Access::Read, Populate::Lazy);
        let (allocated, known) = mpsc::channel();
        let writer = Arc::clone(file);
        file.hook_next_iomap(move || {
            let block = writer.publish(0);
            writer.fill_block(block, 3);
            // Waits for this fault, which is about to show what it was told.
            let show = thread::spawn(move || writer.mapping.invalidate_holes(range(0, 1)));
            allocated.send(show).expect("the test waits for it");
        });

        let seen = load(mapped.vma(), 0).unwrap();
        known.recv().unwrap().join().unwrap();

        assert!([0, 3].contains(&seen), "before the write returned, either");
        assert_eq!(load(mapped.vma(), 0).unwrap(), 3, "B-12");
    });
}

/// A fault has filled a page that others still show as zeros; before it is through, another thread
/// stores there. Kills: a block of zeros that is divided and goes on to be shown.
#[test]
fn a_store_is_seen_by_every_mapping_while_another_fault_fills_the_hole() {
    lazy(2048, &[None; 1024], |file| {
        let reader = map(file, 0, 512, Access::Read, Populate::Lazy);
        assert_eq!(load(reader.vma(), 1).unwrap(), 0, "it shows zeros for the whole block");
        let writer = map(file, 0, 512, Access::Write, Populate::Lazy);
        assert_eq!(load(writer.vma(), 3).unwrap(), 0, "the block of zeros is divided");
        thread::scope(|scope| {
            let (published, is_published) = mpsc::channel();
            let (go_on, may_go_on) = mpsc::channel::<()>();
            let other = Arc::clone(file);
            file.hook_next_iomap(move || {
                other.publish(1);
                published.send(()).expect("the test waits for it");
                may_go_on.recv().expect("the test sends it");
            });
            let filler = scope.spawn(|| writer.vma().write(0, &[1]).unwrap());
            is_published.recv().unwrap();
            writer.vma().write(4096, &[7]).unwrap();
            assert_eq!(load(reader.vma(), 1).unwrap(), 7, "B-12: the store was done");
            go_on.send(()).unwrap();
            filler.join().unwrap();
        });
        file.verify();
    });
}

/// A file has grown, and before every mapping knows that, a fault shows a hole of what came. Whoever
/// fills the hole finds the zeros by their entry, so it has to stay. Found by the stress test, as
/// zeros that were shown without one.
#[test]
fn a_growth_forgets_no_zeros_that_were_shown_since() {
    lazy(8, &[None], |file| {
        let mapped = map(file, 0, 4, Access::Read, Populate::Lazy);
        file.publish_growth(4);
        assert_eq!(load(mapped.vma(), 2).unwrap(), 0);

        file.mapping.invalidate_end(range(1, 4));

        assert_eq!(file.mapping.entry_pages(), Pages(1), "B-12: of the page that was shown");
        file.verify();
    });
}

#[test]
fn an_aligned_extent_is_mapped_with_one_fault() {
    both(2048, &data(512, 1024), |file, how| {
        file.fill_block(512 + 600, 6);

        let mapped = map(file, 0, 1024, Access::Read, how);

        assert_eq!(load(mapped.vma(), 600).unwrap(), 6);
        assert_eq!(load(mapped.vma(), 601).unwrap(), 0);
        let fallbacks = file.mapping.stats();
        let blocks = if how == Populate::Lazy { 1 } else { 2 };
        assert_eq!(
            (fallbacks.faults(Order::Pmd), fallbacks.reasons().count()),
            (blocks, 0),
            "B-15, I-37"
        );
        file.verify();
    });
}

#[test]
fn a_large_entry_that_nobody_maps_comes_back_as_a_whole() {
    both(1024, &data(512, 512), |file, how| {
        let before = map(file, 0, 512, Access::Read, how);
        load(before.vma(), 5).unwrap();
        drop(before);

        let mapped = map(file, 0, 512, Access::Read, how);
        let pin = file.mapping.pin(range(9, 10), info("one page", PinKind::Read)).unwrap();

        assert_eq!(load(mapped.vma(), 511).unwrap(), 0);
        assert_eq!(folios(&pin)[0].1, Order::Pmd, "I-20");
        file.verify();
    });
}

#[test]
fn a_touch_of_a_mapping_for_reading_brings_its_neighbours_along() {
    lazy(64, &data(5, 40), |file| {
        let mapped = map(file, 0, 40, Access::Read, Populate::Lazy);

        load(mapped.vma(), 3).unwrap();

        assert_eq!(file.mapping.stats().faults(Order::Base), 13, "pages 3 to 15");
    });
}

#[test]
fn a_store_makes_no_neighbour_dirty() {
    lazy(64, &data(5, 40), |file| {
        let mapped = map(file, 0, 40, Access::Write, Populate::Lazy);

        store(mapped.vma(), 3, 1).unwrap();

        assert_eq!(file.mapping.stats().faults(Order::Base), 1);
    });
}

#[test]
fn a_truncate_inside_a_large_page_takes_all_of_it_back_and_keeps_the_rest() {
    both(1024, &data(512, 512), |file, how| {
        let whole = map(file, 0, 512, Access::Write, how);
        let part = map(file, 0, 10, Access::Read, how);
        store(whole.vma(), 299, 2).unwrap();
        assert_eq!(load(part.vma(), 5).unwrap(), 0);

        file.truncate(300, Wait::Never).unwrap();

        assert_eq!(load(whole.vma(), 299).unwrap(), 2, "rule 10");
        assert_eq!(load(part.vma(), 5).unwrap(), 0);
        assert!(load(whole.vma(), 300).is_err());
        assert_eq!(file.free_blocks(), 1024 - 300);
        file.verify();
    });
}

#[test]
fn a_folio_that_outlives_its_entry_does_not_hold_up_a_later_truncate() {
    both(1024, &data(0, 512), |file, how| {
        let pin = file.mapping.pin(range(0, 512), info("whole", PinKind::Read)).unwrap();
        file.truncate_deferred(300).unwrap();
        let mapped = map(file, 10, 1, Access::Write, how);
        store(mapped.vma(), 0, 1).unwrap();
        drop(pin);

        file.truncate(200, Wait::Never).unwrap();

        assert_eq!(load(mapped.vma(), 0).unwrap(), 1);
        assert_eq!(file.collect_limbo(), 212);
        file.verify();
    });
}

/// It is shown page by page then, and each page counts it.
#[test]
fn a_folio_that_is_shown_page_by_page_does_not_hold_up_a_later_truncate() {
    both(1024, &data(0, 512), |file, how| {
        let pin = file.mapping.pin(range(0, 512), info("whole", PinKind::Read)).unwrap();
        file.truncate_deferred(300).unwrap();
        let mapped = map(file, 10, 3, Access::Write, how);
        (0..3).for_each(|page| store(mapped.vma(), page, 1).unwrap());
        drop(pin);

        file.truncate(200, Wait::Never).unwrap();

        (0..3).for_each(|page| assert_eq!(load(mapped.vma(), page).unwrap(), 1));
        assert_eq!(file.collect_limbo(), 212);
        file.verify();
    });
}

/// A bug of an owner, or of udax: the program is told, and may ask again.
#[test]
fn a_touch_whose_fault_panics_fails_and_can_be_asked_for_again() {
    lazy(8, &data(0, 2), |file| {
        file.fill_block(1, 9);
        let mapped = map(file, 0, 2, Access::Read, Populate::Lazy);
        file.hook_next_iomap(|| panic!("it is meant"));

        assert!(load(mapped.vma(), 1).is_err());

        mapped.retry(VmaOff(1)..VmaOff(2));
        assert_eq!(load(mapped.vma(), 1).unwrap(), 9);
        file.verify();
    });
}

#[test]
fn a_dropped_mapping_counts_nothing() {
    both(1024, &data(0, 512), |file, how| {
        let mapped = map(file, 0, 512, Access::Write, how);
        store(mapped.vma(), 0, 1).unwrap();
        let live = file.pgmap().try_get_live().unwrap();
        assert!(live.get_folio(PgmapOff(0)).is_some());

        drop(mapped);

        assert!(live.get_folio(PgmapOff(0)).is_none(), "I-15: the entry holds no reference");
        drop(live);
        file.verify();
    });
}

#[test]
fn a_removed_device_is_unmapped_everywhere() {
    both(8, &data(0, 2), |file, how| {
        let mapped = map(file, 0, 3, Access::Write, how);
        store(mapped.vma(), 0, 1).unwrap();

        file.mapping.zap_all();
        file.device.kill(Wait::Never).expect("nothing is mapped");

        assert_eq!(loads(&mapped), [None; 3]);
        let late = file.mapping.map(FileIndex(0), Pages(1), mode(Access::Read, how));
        assert!(matches!(late, Err(FaultError::Removed)));
    });
}

#[test]
fn a_store_without_space_fails_and_says_why() {
    lazy(1, &[Some(0), None], |file| {
        let mapped = map(file, 0, 2, Access::Write, Populate::Lazy);

        assert!(store(mapped.vma(), 1, 1).is_err());

        let error = mapped.last_fault_error().expect("a touch failed");
        assert_eq!(error.to_string(), "no block is free");
        store(mapped.vma(), 0, 1).unwrap();
    });
    let file = TestFile::new(1, &[Some(0), None]);
    let eager = file.mapping.map(FileIndex(0), Pages(2), mode(Access::Write, Populate::Eager));
    assert!(matches!(eager, Err(FaultError::Iomap(_))));
    file.verify();
}

#[test]
fn a_store_to_a_hole_that_is_mapped_for_reading_fails() {
    lazy(8, &[None], |file| {
        let mapped = map(file, 0, 1, Access::Read, Populate::Lazy);
        assert_eq!(load(mapped.vma(), 0).unwrap(), 0);

        assert!(store(mapped.vma(), 0, 1).is_err());

        assert_eq!(file.blocks(), [None], "a store is SIGSEGV, as with any mapping for reading");
    });
}

/// The host asks for a page that is missing before it looks at what is done to it, also in a system
/// call.
#[test]
fn a_store_to_a_missing_page_of_a_mapping_for_reading_fails_and_leaves_the_page() {
    lazy(8, &[Some(0), Some(1), None], |file| {
        file.fill_block(1, 9);
        let mapped = map(file, 0, 3, Access::Read, Populate::Lazy);
        for (page, byte) in [(1, 9), (2, 0)] {
            assert!(store(mapped.vma(), page, 1).is_err());
            assert_eq!(load(mapped.vma(), page).unwrap(), byte, "page {page}");
        }
        assert_eq!(file.mapping.stats().failures, 0);
    });
}

#[test]
fn a_mapping_without_pages_is_refused() {
    let file = TestFile::new(8, &data(0, 1));

    let mapped = file.mapping.map(FileIndex(0), Pages(0), mode(Access::Read, Populate::Eager));

    assert!(matches!(mapped, Err(FaultError::Empty)));
}

#[test]
fn without_a_fault_service_a_lazy_mapping_is_eager_and_says_so() {
    let file = TestFile::new(8, &data(0, 1));

    let mapped =
        file.mapping.map(FileIndex(0), Pages(1), mode(Access::Read, Populate::Lazy)).unwrap();

    assert_eq!(mapped.populate(), Populate::Eager);
}

#[test]
fn stores_race_with_truncates_and_never_reach_a_freed_block() {
    lazy(64, &data(0, 16), |file| {
        let mapped = map(file, 0, 16, Access::Write, Populate::Lazy);
        thread::scope(|scope| {
            for worker in 0..3_u8 {
                let vma = mapped.vma();
                scope.spawn(move || {
                    for round in 0..200_u64 {
                        // Past the end it fails, and that is all that may happen.
                        let _ = store(vma, (round * 7 + u64::from(worker)) % 16, 0xaa);
                    }
                });
            }
            for round in 0..100 {
                file.truncate(round % 16, Wait::Forever).expect("nobody pins");
                let before = file.blocks();
                let free: Vec<u64> = (0..64).filter(|&b| !before.contains(&Some(b))).collect();
                for &block in &free {
                    file.fill_block(block, 0);
                }
                thread::yield_now();
                let stored = free.into_iter().filter(|&block| file.byte_of_block(block) != 0);
                let stored: Vec<u64> = stored.collect();
                // A store below the new end may have allocated meanwhile; nobody else frees.
                let after = file.blocks();
                assert!(stored.iter().all(|&block| after.contains(&Some(block))), "I-50");
                file.grow(16);
            }
        });
        file.truncate(0, Wait::Never).unwrap();
        file.verify();
    });
}

/// The mapping is shared between threads by programs and services.
#[test]
fn mappings_can_be_shared_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Mapping>();
    is_shared::<UserMapping>();
    is_shared::<udax_mapping::PinnedFolios>();
}

/// As with any file: each touch asks for the page, and what stood in the way of one may be gone.
#[test]
fn a_lazy_page_that_could_not_be_had_is_asked_for_again() {
    let pages = [Some(0), None, Some(1), Some(2)];
    for asks_at_once in [false, true] {
        let Some(file) = TestFile::lazy(3, &pages) else { return };
        let lazy = mode(Access::Write, Populate::Lazy);
        let map = file.mapping.map(FileIndex(0), Pages(4), lazy).unwrap();
        assert!(map.vma().store_u64(PAGE, 7).is_err(), "no block is free");
        assert!(matches!(*map.last_fault_error().unwrap(), FaultError::Iomap(_)));
        file.truncate(3, Wait::Never).unwrap();

        if asks_at_once {
            let _ = map.retry(VmaOff(0)..VmaOff(4));
            map.vma().store_u64(PAGE, 7).unwrap();
        }
        while map.vma().store_u64(PAGE, 7).is_err() {
            thread::yield_now();
        }
        assert!(!map.retry(VmaOff(0)..VmaOff(4)), "nothing is refused any more");
        file.verify();
    }
}

/// Its pages come with the mapping, so it finds out when it is told to.
#[test]
fn an_eager_page_that_could_not_be_had_is_filled_when_it_is_asked_for_again() {
    let file = TestFile::new(3, &data(0, 3));
    let eager = mode(Access::Write, Populate::Eager);
    let map = file.mapping.map(FileIndex(0), Pages(3), eager).unwrap();
    let other = file.take_block(1);
    assert!(map.vma().store_u64(PAGE, 7).is_err(), "no block is free");
    file.give_block(other);

    assert!(map.retry(VmaOff(0)..VmaOff(3)));
    map.vma().store_u64(PAGE, 7).unwrap();
    assert!(!map.retry(VmaOff(0)..VmaOff(3)));
    file.verify();
}
