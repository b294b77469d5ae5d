//! Mappings that have to be made of folios of 2 MiB, or fail with the reason and a cure.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use common::{error, file, in_memory, open, skipped};
use udax::{Access, ErrorKind, File, MapOptions, Order, Populate};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

fn of_2_mib(populate: Populate) -> MapOptions {
    MapOptions::new().populate(populate).floor(Order::Pmd)
}

/// Each kind of mapping is refused, and the error says the byte, the reason and the cure.
#[track_caller]
fn check_refused(file: &File, range: std::ops::Range<u64>, texts: [&str; 3]) {
    for populate in [Populate::Lazy, Populate::Eager] {
        let refused = error(file.map(range.clone(), &of_2_mib(populate)));
        assert_eq!(refused.kind(), ErrorKind::TooFragmented, "{refused}");
        let text = refused.to_string();
        for part in texts.iter().chain(&["folio of 2 MiB"]) {
            assert!(text.contains(part), "{part:?} in {text:?}");
        }
    }
    file.map(range, &MapOptions::new()).unwrap();
}

#[test]
fn a_file_of_whole_blocks_is_mapped_by_2_mib_only() {
    for populate in [Populate::Lazy, Populate::Eager] {
        let pool = in_memory();
        let file = file(&pool, "/file", 4 * MIB);
        let map = file.map(0..4 * MIB, &of_2_mib(populate).access(Access::Write)).unwrap();
        for at in [0, 2 * MIB - 8, 2 * MIB, 4 * MIB - 8] {
            map.store(at, at + 1).unwrap();
        }
        let stats = map.stats();
        assert_eq!((stats.faults(Order::Pmd), stats.faults(Order::Base)), (2, 0), "{populate:?}");
        assert_eq!(pool.verify(), Ok(()));
    }
}

#[test]
fn a_range_of_parts_of_blocks_is_refused() {
    let pool = in_memory();
    let file = file(&pool, "/file", 4 * MIB);
    let texts = |byte| [byte, "the range does not contain the block", "map from a multiple"];
    check_refused(&file, 0..4 * MIB - PAGE, texts("byte 2097152 "));
    check_refused(&file, PAGE..4 * MIB, texts("byte 4096 "));
}

#[test]
fn a_file_that_ends_inside_a_block_is_refused() {
    let pool = in_memory();
    let file = file(&pool, "/file", 4 * MIB - PAGE);
    let texts = ["byte 2097152 ", "the file ends in the block", "let the file end at a multiple"];
    check_refused(&file, 0..4 * MIB, texts);
}

#[test]
fn a_block_that_has_a_hole_is_refused() {
    let pool = in_memory();
    let file = file(&pool, "/file", 4 * MIB);
    file.punch_hole(3 * MIB..3 * MIB + PAGE).unwrap();
    let texts = ["byte 2097152 ", "does not cover the block", "write the file anew"];
    check_refused(&file, 0..4 * MIB, texts);
}

#[test]
fn data_that_lies_elsewhere_in_its_block_is_refused() {
    let pool = in_memory();
    let source = file(&pool, "/source", 4 * MIB + PAGE);
    let file = open(&pool, "/file");
    // What begins a page later in its block begins where it was.
    source.clone_range(PAGE..4 * MIB + PAGE, &file, 0, udax::Wait::Forever).unwrap();
    let first = file.extents().unwrap()[0];
    assert!(first.pages.bytes() > 2 * MIB - 2 * PAGE, "{first:?}");
    drop(source);
    pool.remove_file("/source").unwrap();
    let texts = ["byte 0 ", "not aligned on the device", "while the pool has free blocks"];
    check_refused(&file, 0..2 * MIB, texts);
}

/// I-31: entries are not evicted to make room for larger ones.
#[test]
fn a_block_of_which_a_page_was_mapped_on_its_own_is_refused_until_the_file_is_closed() {
    let pool = in_memory();
    let file = file(&pool, "/file", 2 * MIB);
    let small = file.map(3 * PAGE..4 * PAGE, &MapOptions::new()).unwrap();
    small.load(0).unwrap();
    for populate in [Populate::Lazy, Populate::Eager] {
        let refused = error(file.map(0..2 * MIB, &of_2_mib(populate)));
        assert_eq!(refused.kind(), ErrorKind::TooFragmented);
        for part in [
            "byte 0 ",
            "smaller entries exist",
            "until all handles and mappings of the file are dropped",
        ] {
            assert!(refused.to_string().contains(part), "{part:?} in {refused}");
        }
    }
    drop((small, file));
    let file = pool.open_file("/file").unwrap();
    file.map(0..2 * MIB, &of_2_mib(Populate::Eager)).unwrap();
}

#[test]
fn memory_that_failed_keeps_a_promise_from_being_kept_and_the_touch_says_so() {
    let pool = in_memory();
    let file = file(&pool, "/file", 2 * MIB);
    let extent = file.extents().unwrap()[0];
    let pgmap = pool.filesystem().device().pgmaps().remove(0).try_get_live().unwrap();
    let page = udax_mm::PgmapOff(extent.device.0 + 5);
    pgmap.memory_failure(page..udax_mm::PgmapOff(page.0 + 1));
    let texts = ["byte 0 ", "memory of the block failed", "write the pages that are lost anew"];
    let refused = error(file.map(0..2 * MIB, &of_2_mib(Populate::Eager)));
    assert_eq!(refused.kind(), ErrorKind::TooFragmented, "{refused}");
    for part in texts {
        assert!(refused.to_string().contains(part), "{part:?} in {refused}");
    }

    if let Some(why) = pool.why_eager() {
        return skipped(why);
    }
    let map = file.map(0..2 * MIB, &of_2_mib(Populate::Lazy)).unwrap();
    map.load(0).unwrap_err();
    let why = map.last_fault_error().unwrap();
    assert!(why.contains("memory of the block failed"), "{why}");
    file.write_all_at(&[9; 4096], 5 * PAGE).unwrap();
    file.map(0..2 * MIB, &of_2_mib(Populate::Eager)).unwrap();
}
