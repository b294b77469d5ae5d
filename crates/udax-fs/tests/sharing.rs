//! Files that share data: clones, copies on write, and what happens to shared pages.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{
    KIB, MIB, Pool, clone_all, clone_of, contents, create, file_of, lookup, over, pattern,
    pin_info, shared_pages, unlink,
};
use udax_fs::{Deduped, FreePolicy, FsError, HeldPin, Inode};
use udax_mapping::BreakError;
use udax_mm::sync::Arc;
use udax_mm::{FileIndex, Pages, PinKind, Wait};

const PAGE: u64 = 4 * KIB;

fn pinned(file: &Arc<Inode>, page: u64, kind: PinKind) -> HeldPin {
    file.pin(FileIndex(page)..FileIndex(page + 1), pin_info("the device", kind)).unwrap()
}

#[test]
fn a_clone_takes_no_data_pages_and_reads_the_same() {
    let pool = Pool::new(16 * MIB);
    let fs = pool.mount();
    for (name, len) in [("small", 100), ("pages", 40 * PAGE + 7), ("huge", 5 * MIB + 300)] {
        let bytes = pattern(len, len);
        let file = file_of(&fs, name, &bytes);
        let clone = create(&fs, &format!("{name}2"));
        let before = fs.usage();
        clone_all(&file, &clone);
        let pages = Pages::holding(len);
        let taken = before.free - fs.usage().free;
        assert!(taken < Pages(4), "{taken} pages, the rest is shared");
        assert_eq!(fs.usage().shared, before.shared + pages);
        assert!(contents(&clone) == bytes && contents(&file) == bytes);
        assert_eq!(shared_pages(&clone), pages.0);
        fs.verify().unwrap();
    }
    pool.check();
}

#[test]
fn an_aligned_2_mib_stays_one_entry_in_the_clone() {
    let pool = Pool::new(16 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 4 * MIB));
    let clone = clone_of(&fs, &file, "b");
    assert_eq!(clone.extents().unwrap(), file.extents().unwrap());
    assert!(clone.extents().unwrap().iter().all(|extent| extent.order > udax_mm::Order::Base));
}

#[test]
fn counts_are_derived_when_the_pool_is_opened() {
    let pool = Pool::new(8 * MIB);
    let usage = {
        let fs = pool.mount();
        let file = file_of(&fs, "a", &pattern(1, 100 * PAGE));
        let clone = clone_of(&fs, &file, "b");
        clone_of(&fs, &clone, "c");
        fs.unmount().unwrap();
        fs.usage()
    };
    let fs = pool.mount();
    assert_eq!(fs.usage(), usage);
    fs.verify().unwrap();
    for name in ["a", "c"] {
        unlink(&fs, name);
        fs.verify().unwrap();
    }
    assert!(contents(&lookup(&fs, "b")) == pattern(1, 100 * PAGE));
    assert_eq!(fs.usage().shared, Pages(0));
    unlink(&fs, "b");
    fs.verify().unwrap();
}

#[test]
fn bytes_outside_a_write_to_shared_data_equal_the_source() {
    let (page, two) = (PAGE, 2 * PAGE);
    let writes = [
        (0, 1),
        (10, 100),
        (0, page),
        (page, two),
        (page - 1, 2),
        (page + 5, two),
        (7 * page + 10, 200),
        (8 * page - 7, 30),
        (12 * page + 3, page),
        (3, 9 * page),
    ];
    for (at, len) in writes {
        let pool = Pool::new(8 * MIB);
        let fs = pool.mount();
        let bytes = pattern(1, 9 * page + 123);
        let file = file_of(&fs, "a", &bytes);
        let clone = clone_of(&fs, &file, "b");
        let new = pattern(2, len);
        assert_eq!(clone.write_at(&new, at).unwrap(), new.len());
        assert!(contents(&clone) == over(&bytes, at, &new), "{len} bytes at {at}");
        assert!(contents(&file) == bytes, "the source after {len} bytes at {at}");
        fs.verify().unwrap();

        // And the other way round.
        let other = pattern(3, len);
        file.write_at(&other, at).unwrap();
        assert!(contents(&clone) == over(&bytes, at, &new));
        assert!(contents(&file) == over(&bytes, at, &other));
        fs.verify().unwrap();
        drop((file, clone));
        fs.unmount().unwrap();
        pool.check();
    }
}

#[test]
fn the_last_of_the_sharers_writes_in_place() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 8 * PAGE));
    let clone = clone_of(&fs, &file, "b");
    let places = clone.extents().unwrap();
    drop(file);
    unlink(&fs, "a");
    clone.write_at(&pattern(2, 3 * PAGE), 100).unwrap();
    let now = clone.extents().unwrap();
    assert_eq!((now[0].device, now[0].pages), (places[0].device, places[0].pages));
    assert!(!now[0].is_shared);
}

#[test]
fn a_truncated_sharer_leaves_the_other_its_bytes() {
    for size in [0, 1, PAGE, PAGE + 1, 5 * PAGE - 3, 9 * PAGE + 100] {
        let pool = Pool::new(8 * MIB);
        let fs = pool.mount();
        let bytes = pattern(1, 9 * PAGE + 123);
        let file = file_of(&fs, "a", &bytes);
        let clone = clone_of(&fs, &file, "b");
        clone.truncate(size, FreePolicy::Wait(Wait::Never)).unwrap();
        fs.verify().unwrap();
        clone.truncate(10 * PAGE, FreePolicy::Defer).unwrap();
        let mut expected = bytes[..usize::try_from(size).unwrap()].to_vec();
        expected.resize(usize::try_from(10 * PAGE).unwrap(), 0);
        assert!(contents(&clone) == expected, "to {size} bytes and larger");
        assert!(contents(&file) == bytes, "the source, to {size} bytes");
        fs.verify().unwrap();
    }
}

#[test]
fn a_hole_punched_into_a_sharer_leaves_the_other_its_bytes() {
    let ranges = [
        0..PAGE,
        10..20,
        100..PAGE,
        PAGE..PAGE + 1,
        5..3 * PAGE + 5,
        PAGE..9 * PAGE,
        8 * PAGE..9 * PAGE + 123,
        8 * PAGE + 9..10 * PAGE,
    ];
    for range in ranges {
        let pool = Pool::new(8 * MIB);
        let fs = pool.mount();
        let bytes = pattern(1, 9 * PAGE + 123);
        let file = file_of(&fs, "a", &bytes);
        let clone = clone_of(&fs, &file, "b");
        file.punch(range.clone(), FreePolicy::Wait(Wait::Never)).unwrap();
        let end = range.end.min(9 * PAGE + 123);
        let zeros = vec![0; usize::try_from(end - range.start).unwrap()];
        assert!(contents(&file) == over(&bytes, range.start, &zeros), "{range:?}");
        assert!(contents(&clone) == bytes, "the clone, {range:?}");
        fs.verify().unwrap();
    }
}

#[test]
fn a_range_is_cloned_over_what_was_there() {
    let pool = Pool::new(16 * MIB);
    let fs = pool.mount();
    let bytes = pattern(1, 3 * MIB);
    let file = file_of(&fs, "a", &bytes);
    file.punch(20 * PAGE..30 * PAGE, FreePolicy::Defer).unwrap();
    let bytes = contents(&file);
    for (from, to, pages) in [(0, 0, 1), (5, 9, 40), (0, 512, 512), (512, 0, 256), (3, 700, 600)] {
        let old = pattern(2, 4 * MIB);
        let target = file_of(&fs, "b", &old);
        let (range, at) = (from * PAGE..(from + pages) * PAGE, to * PAGE);
        let cloned = file.clone_range(range.clone(), &target, at, Wait::Never).unwrap();
        assert_eq!(cloned, pages * PAGE);
        let part = &bytes[usize::try_from(range.start).unwrap()..];
        let part = &part[..usize::try_from(pages * PAGE).unwrap()];
        assert!(contents(&target) == over(&old, at, part), "{pages} pages from {from} to {to}");
        fs.verify().unwrap();
        drop(target);
        unlink(&fs, "b");
        fs.verify().unwrap();
    }
    assert_eq!(fs.usage().shared, Pages(0));
}

#[test]
fn a_hole_of_the_source_is_a_hole_of_the_clone() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = create(&fs, "a");
    file.write_at(&pattern(1, PAGE), 3 * PAGE).unwrap();
    file.truncate(9 * PAGE, FreePolicy::Defer).unwrap();
    let target = file_of(&fs, "b", &pattern(2, 9 * PAGE));
    clone_all(&file, &target);
    assert!(contents(&target) == contents(&file));
    assert_eq!(target.seek_data(0).unwrap(), Some(3 * PAGE));
    assert_eq!(target.seek_hole(3 * PAGE).unwrap(), Some(4 * PAGE));
    fs.verify().unwrap();
}

#[test]
fn a_file_is_cloned_within_itself() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let bytes = pattern(1, 20 * PAGE);
    let file = file_of(&fs, "a", &bytes);
    for (from, to, pages) in [(0, 10, 5), (15, 3, 5), (0, 30, 4)] {
        let expected = {
            let part = contents(&file);
            let range = usize::try_from(from * PAGE).unwrap();
            let len = usize::try_from(pages * PAGE).unwrap();
            over(&part, to * PAGE, &part[range..range + len])
        };
        let range = from * PAGE..(from + pages) * PAGE;
        file.clone_range(range, &file, to * PAGE, Wait::Never).unwrap();
        assert!(contents(&file) == expected);
        fs.verify().unwrap();
    }
    let overlap = file.clone_range(0..5 * PAGE, &file, 4 * PAGE, Wait::Never);
    assert!(matches!(overlap, Err(FsError::Overlap)));
    drop(file);
    unlink(&fs, "a");
    fs.verify().unwrap();
}

#[test]
fn a_clone_past_the_end_of_the_target_leaves_zeros_between() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 3 * PAGE + 5));
    let bytes = contents(&file);
    let target = clone_of(&fs, &file, "b");
    file.clone_range(0..3 * PAGE + 5, &target, 6 * PAGE, Wait::Never).unwrap();
    assert!(contents(&target) == over(&bytes, 6 * PAGE, &bytes));
    fs.verify().unwrap();
}

#[test]
fn what_cannot_be_cloned_is_refused_and_changes_nothing() {
    let pool = Pool::new(8 * MIB);
    let other_pool = Pool::new(8 * MIB);
    let (fs, other) = (pool.mount(), other_pool.mount());
    let file = file_of(&fs, "a", &pattern(1, 3 * PAGE + 5));
    let target = file_of(&fs, "b", &pattern(2, 8 * PAGE));
    let foreign = create(&other, "c");
    let (end, long) = (3 * PAGE + 5, 8 * PAGE);
    let clone = |range, target: &Inode, at| file.clone_range(range, target, at, Wait::Never);
    assert!(matches!(clone(1..PAGE, &target, 0), Err(FsError::NotAligned(1))));
    assert!(matches!(clone(0..PAGE, &target, 7), Err(FsError::NotAligned(7))));
    assert!(matches!(clone(0..PAGE + 1, &target, long), Err(FsError::NotAligned(_))));
    assert!(matches!(clone(0..end, &target, 0), Err(FsError::NotAligned(_))), "middle of a page");
    assert!(matches!(clone(0..4 * PAGE, &target, 0), Err(FsError::PastEnd { .. })));
    assert!(matches!(clone(0..PAGE, &foreign, 0), Err(FsError::OtherPool)));
    assert!(matches!(clone(0..PAGE, &fs.root().unwrap(), 0), Err(FsError::IsADirectory)));
    assert!(matches!(clone(0..PAGE, &target, 1 << 48), Err(FsError::TooLarge { .. })));
    assert_eq!(clone(PAGE..PAGE, &target, 0).unwrap(), 0, "a range of no bytes ends (B-31)");
    assert!(contents(&target) == pattern(2, long));
    target.freeze(Wait::Never).unwrap();
    assert!(matches!(clone(0..PAGE, &target, 0), Err(FsError::Frozen)));
    fs.verify().unwrap();
    assert_eq!(fs.usage().shared, Pages(0));
}

#[test]
fn a_pin_to_write_holds_off_a_clone_and_is_named() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 9 * PAGE));
    let target = file_of(&fs, "b", &pattern(2, 9 * PAGE));
    let before = fs.usage();
    for (pinned_file, is_source) in [(&file, true), (&target, false)] {
        let pin = pinned(pinned_file, 3, PinKind::Write);
        let why = match file.clone_range(0..9 * PAGE, &target, 0, Wait::Never).unwrap_err() {
            FsError::Source(why) if is_source => why,
            FsError::Layout(why) if !is_source => why,
            other => panic!("{other:?}"),
        };
        let BreakError::Pinned { index, pins } = why else { panic!("{why}") };
        assert_eq!(index, FileIndex(3));
        assert_eq!(&*pins[0].info.owner.label, "the device");
        assert!(contents(&target) == pattern(2, 9 * PAGE));
        assert_eq!(fs.usage(), before);
        drop(pin);
    }
    clone_all(&file, &target);
    fs.verify().unwrap();
}

#[test]
fn a_clone_that_waits_for_a_pin_lets_its_holder_use_both_files() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 9 * PAGE));
    let target = file_of(&fs, "b", &pattern(2, 9 * PAGE));
    for (one, pinned_file) in [(&target, &file), (&file, &target)] {
        let pin = pinned(pinned_file, 3, PinKind::Write);
        std::thread::scope(|scope| {
            let clone = scope.spawn(|| {
                file.clone_range(0..9 * PAGE, &target, 0, Wait::Forever).unwrap();
            });
            for round in 0..50 {
                pinned_file.write_at(&[round; 100], 100).unwrap();
                one.write_at(&[round; 100], 5 * PAGE).unwrap();
            }
            drop(pin);
            clone.join().unwrap();
        });
        assert!(contents(&target) == contents(&file));
    }
    fs.verify().unwrap();
}

/// What the file system knows of a page that is pinned through one file and freed by all.
#[test]
fn a_pin_of_a_shared_page_outlives_every_file_that_has_the_page() {
    for first in ["a", "b"] {
        let pool = Pool::new(8 * MIB);
        let fs = pool.mount();
        let empty = {
            create(&fs, "x");
            fs.usage()
        };
        let bytes = pattern(1, 4 * PAGE);
        let file = file_of(&fs, "a", &bytes);
        let clone = clone_of(&fs, &file, "b");
        let pin = pinned(&file, 2, PinKind::Read);
        let second = if first == "a" { "b" } else { "a" };
        let (first, second) = (lookup(&fs, first), lookup(&fs, second));
        drop((file, clone));
        first.truncate(0, FreePolicy::Wait(Wait::Never)).unwrap();
        second.truncate(0, FreePolicy::Defer).unwrap();
        assert_eq!(fs.usage().limbo, Pages(1));
        let other = file_of(&fs, "c", &pattern(3, 6 * MIB));
        let mut seen = vec![0; usize::try_from(PAGE).unwrap()];
        pin.read(0, &mut seen).unwrap();
        assert!(seen == bytes[2 * seen.len()..3 * seen.len()], "nobody else was given the page");
        drop((pin, other, first, second));
        for name in ["a", "b", "c"] {
            unlink(&fs, name);
        }
        assert_eq!((fs.usage().free, fs.usage().limbo), (empty.free, Pages(0)));
        fs.verify().unwrap();
    }
}

#[test]
fn a_pin_from_when_a_page_was_shared_never_sees_a_store_of_another_file() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let bytes = pattern(1, 4 * PAGE);
    let file = file_of(&fs, "a", &bytes);
    let clone = clone_of(&fs, &file, "b");
    let pin = pinned(&file, 1, PinKind::Read);
    drop(file);
    unlink(&fs, "a");
    clone.write_at(&[9; 100], PAGE).unwrap();
    let mut seen = vec![0; usize::try_from(PAGE).unwrap()];
    pin.read(0, &mut seen).unwrap();
    assert!(seen == bytes[seen.len()..2 * seen.len()]);
    assert!(contents(&clone) == over(&bytes, PAGE, &[9; 100]));
    fs.verify().unwrap();
    drop(pin);
    let place = clone.extents().unwrap();
    clone.write_at(&[8; 100], 2 * PAGE).unwrap();
    assert_eq!(clone.extents().unwrap(), place, "nobody pins the others: they are stored to");
    assert_eq!(fs.usage().limbo, Pages(0));
    fs.verify().unwrap();
}

/// B-27: whole pages are copied, and no byte beside the range changes.
#[test]
fn unshare_copies_whole_pages_and_changes_no_byte() {
    for range in [0..1, 10..20, PAGE - 1..PAGE + 1, PAGE..2 * PAGE, 5..9 * PAGE, 0..u64::MAX] {
        let pool = Pool::new(8 * MIB);
        let fs = pool.mount();
        let bytes = pattern(1, 9 * PAGE + 123);
        let file = file_of(&fs, "a", &bytes);
        let clone = clone_of(&fs, &file, "b");
        let mtime = clone.attr().mtime;
        clone.unshare(range.clone()).unwrap();
        assert!(contents(&clone) == bytes && contents(&file) == bytes, "{range:?}");
        let pages = range.end.min(9 * PAGE + 123).div_ceil(PAGE) - range.start / PAGE;
        assert_eq!(shared_pages(&clone), 10 - pages, "{range:?}");
        assert_eq!(clone.attr().mtime, mtime);
        fs.verify().unwrap();
    }
}

/// B-28: a hole has nothing to copy.
#[test]
fn unshare_leaves_holes() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 2 * PAGE));
    file.truncate(8 * PAGE, FreePolicy::Defer).unwrap();
    let clone = clone_of(&fs, &file, "b");
    clone.unshare(0..8 * PAGE).unwrap();
    assert_eq!(clone.seek_hole(0).unwrap(), Some(2 * PAGE));
    assert_eq!(clone.seek_data(2 * PAGE).unwrap(), None);
    assert!(contents(&clone) == contents(&file));
    fs.verify().unwrap();
}

#[test]
fn allocating_leaves_shared_data_shared() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 4 * PAGE + 9));
    let clone = clone_of(&fs, &file, "b");
    clone.allocate(0..9 * PAGE).unwrap();
    // The page in which the file ended is zeroed behind its end, and so the file's own.
    assert_eq!(shared_pages(&clone), 4);
    let mut expected = contents(&file);
    expected.resize(usize::try_from(9 * PAGE).unwrap(), 0);
    assert!(contents(&clone) == expected);
    fs.verify().unwrap();
}

#[test]
fn the_same_bytes_are_deduplicated_and_others_are_not() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let bytes = pattern(1, 200 * PAGE + 50);
    let file = file_of(&fs, "a", &bytes);
    let other = file_of(&fs, "b", &bytes);
    let free = fs.usage().free;
    let times = other.attr();
    let all = 0..200 * PAGE + 50;
    assert_eq!(
        file.dedupe_range(all.clone(), &other, 0, Wait::Never).unwrap(),
        Deduped::Shared(all.end)
    );
    assert_eq!(fs.usage().free, free + Pages(201));
    assert!(contents(&other) == bytes && contents(&file) == bytes);
    assert_eq!((other.attr().mtime, other.attr().size), (times.mtime, times.size));
    fs.verify().unwrap();
    // Again: they are the same pages.
    assert_eq!(
        file.dedupe_range(all.clone(), &other, 0, Wait::Never).unwrap(),
        Deduped::Shared(all.end)
    );
    fs.verify().unwrap();

    for at in [0, 5 * PAGE + 7, 199 * PAGE, 200 * PAGE + 49] {
        let byte = bytes[usize::try_from(at).unwrap()] ^ 1;
        other.write_at(&[byte], at).unwrap();
        let free = fs.usage().free;
        let found = file.dedupe_range(all.clone(), &other, 0, Wait::Never).unwrap();
        assert_eq!(found, Deduped::Differs(at));
        assert_eq!(fs.usage().free, free);
        other.write_at(&[byte ^ 1], at).unwrap();
    }
    fs.verify().unwrap();
}

/// B-29: not a byte past the end of the shorter one.
#[test]
fn dedupe_compares_as_many_bytes_as_both_files_have() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let long = file_of(&fs, "long", &pattern(1, 20 * PAGE + 9));
    let short = file_of(&fs, "short", &pattern(1, 7 * PAGE + 9));
    let whole = Deduped::Shared(7 * PAGE);
    for (one, other) in [(&long, &short), (&short, &long)] {
        let found = one.dedupe_range(0..u64::MAX / 2, other, 0, Wait::Never).unwrap();
        assert_eq!(found, whole, "the page in which only one of them ends is not shared");
        assert_eq!(shared_pages(other), 7);
    }
    let past = long.dedupe_range(30 * PAGE..40 * PAGE, &short, 0, Wait::Never).unwrap();
    assert_eq!(past, Deduped::Shared(0), "past the end there is nothing to compare (I-47)");
    fs.verify().unwrap();
}

#[test]
fn a_hole_differs_from_zeros_that_are_data() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let zeros = file_of(&fs, "zeros", &vec![0; usize::try_from(4 * PAGE).unwrap()]);
    let hole = create(&fs, "hole");
    hole.truncate(4 * PAGE, FreePolicy::Defer).unwrap();
    let found = zeros.dedupe_range(0..4 * PAGE, &hole, 0, Wait::Never).unwrap();
    assert_eq!(found, Deduped::Differs(0));
    let other = create(&fs, "other");
    other.truncate(4 * PAGE, FreePolicy::Defer).unwrap();
    let found = other.dedupe_range(0..4 * PAGE, &hole, 0, Wait::Never).unwrap();
    assert_eq!(found, Deduped::Shared(4 * PAGE));
    fs.verify().unwrap();
}
