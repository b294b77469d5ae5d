//! The reasons for which folios were not larger, counted for each file and told by its mappings.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::ops::Range;

use common::{file, in_memory, open};
use udax::{ErrorKind, Fallback, File, MapOptions, Order, Pin, PinOptions, Pool, Populate, Wait};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// A file of whole blocks whose pages lie one further in theirs.
fn shifted(pool: &Pool) -> File {
    let (source, file) = (file(pool, "/source", 4 * MIB + PAGE), open(pool, "/file"));
    source.clone_range(PAGE..4 * MIB + PAGE, &file, 0, Wait::Forever).unwrap();
    pool.remove_file("/source").unwrap();
    file
}

/// A file of 4 MiB in whose first block a page is mapped on its own.
fn with_a_small_entry(pool: &Pool) -> File {
    let file = file(pool, "/file", 4 * MIB);
    let map = file.map(3 * PAGE..4 * PAGE, &MapOptions::new()).unwrap();
    map.load(0).unwrap();
    file
}

/// A file of 4 MiB, of whose second block a page failed.
fn with_bad_memory(pool: &Pool) -> File {
    let file = file(pool, "/file", 4 * MIB);
    let extent = file.extents().unwrap()[0];
    let pgmap = pool.filesystem().device().pgmaps().remove(0).try_get_live().unwrap();
    let page = udax_mm::PgmapOff(extent.device.0 + 700);
    pgmap.memory_failure(page..udax_mm::PgmapOff(page.0 + 1));
    file
}

/// A file of 4 MiB that has its data alone no more.
fn with_a_clone(pool: &Pool) -> File {
    let (file, clone) = (file(pool, "/file", 4 * MIB), open(pool, "/clone"));
    file.clone_range(0..4 * MIB, &clone, 0, Wait::Forever).unwrap();
    file
}

/// A file of 4 MiB that was closed and opened while a device had a page of its first block.
fn with_a_pin(pool: &Pool) -> (File, Pin) {
    let pin = file(pool, "/file", 4 * MIB).pin(3 * PAGE..4 * PAGE, &PinOptions::new("nic"));
    (open(pool, "/file"), pin.unwrap())
}

fn with_a_hole(pool: &Pool) -> File {
    let file = file(pool, "/file", 4 * MIB);
    file.punch_hole(3 * MIB..3 * MIB + PAGE).unwrap();
    file
}

/// Reads `range` through a mapping, all of it that can be, and looks why folios were not larger.
fn check(make: impl Fn(&Pool) -> File, range: Range<u64>, reason: Fallback) {
    check_held(|pool| (make(pool), ()), range, reason);
}

/// The same with something that is held meanwhile.
fn check_held<T>(make: impl Fn(&Pool) -> (File, T), range: Range<u64>, reason: Fallback) {
    for populate in [Populate::Lazy, Populate::Eager] {
        let pool = in_memory();
        let ((file, _held), other) = (make(&pool), self::file(&pool, "/other", 2 * MIB));
        let options = MapOptions::new().populate(populate);
        let map = match file.map(range.clone(), &options) {
            // What is lost cannot be mapped in advance.
            Err(refused) if reason == Fallback::Media => {
                assert_eq!(
                    (refused.kind(), pool_is_lazy(&pool, populate)),
                    (ErrorKind::Media, false)
                );
                continue;
            }
            map => map.unwrap(),
        };
        let other = other.map(0..2 * MIB, &options).unwrap();
        for at in (0..map.len()).step_by(4096) {
            let byte = map.read(&mut [0], at);
            let is_there = range.start + at < file.metadata().len();
            assert!(byte.is_ok() == is_there || reason == Fallback::Media, "{byte:?} at {at}");
        }
        other.read(&mut [0], 0).unwrap();

        let stats = map.stats();
        assert!(stats.fallbacks(reason) > 0, "{reason:?}, {populate:?}: {stats:?}");
        assert!(stats.reasons().any(|found| found == (reason, stats.fallbacks(reason))));
        assert!(stats.faults(Order::Base) > 0, "{reason:?}, {populate:?}");
        assert_eq!(other.stats().reasons().count(), 0, "{reason:?}: of the other file");
        assert_eq!(other.stats().faults(Order::Pmd), 1);
        assert_eq!(pool.verify(), Ok(()));
    }
}

fn pool_is_lazy(pool: &Pool, populate: Populate) -> bool {
    populate == Populate::Lazy && pool.why_eager().is_none()
}

/// All but [`Fallback::DeviceOrder`], which no file of a pool meets: its pages are counted in any
/// size. A character device of pages tells it, in `tests/devdax`.
#[test]
fn every_reason_is_told_by_the_mappings_of_its_file_and_of_no_other() {
    let of_4_mib = |pool: &Pool| file(pool, "/file", 4 * MIB);
    check(of_4_mib, PAGE..4 * MIB, Fallback::Colour);
    check(of_4_mib, 0..4 * MIB - PAGE, Fallback::Bounds);
    check(|pool| file(pool, "/file", 3 * MIB), 0..4 * MIB, Fallback::Eof);
    check(with_a_hole, 0..4 * MIB, Fallback::ExtentTooShort);
    check(shifted, 0..4 * MIB, Fallback::Misaligned);
    check(with_a_small_entry, 0..4 * MIB, Fallback::Conflict);
    check_held(with_a_pin, 0..4 * MIB, Fallback::Busy);
    check(with_bad_memory, 0..4 * MIB, Fallback::Media);
    check(with_a_clone, 0..4 * MIB, Fallback::Shared);
}
