//! Pins, mappings and freezing: what holds pages of a file, and what that means for changing it.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{
    KIB, MIB, Pool, contents, create, fault_service, file_of, lookup, name, pattern, pin_info,
    unlink,
};
use udax_fs::{Filesystem, FreePolicy, FsError, HeldPin, Inode};
use udax_mapping::{BreakError, FaultError, MapMode, Populate};
use udax_mm::sync::Arc;
use udax_mm::{Access, FileIndex, Order, Pages, PinKind, Wait};

const NEVER: FreePolicy = FreePolicy::Wait(Wait::Never);

fn pages(from: u64, to: u64) -> std::ops::Range<FileIndex> {
    FileIndex(from)..FileIndex(to)
}

fn pinned(file: &Arc<Inode>, from: u64, to: u64, kind: PinKind) -> HeldPin {
    file.pin(pages(from, to), pin_info("the device", kind)).unwrap()
}

/// A filesystem whose root directory has its page already.
fn mount_with_names(pool: &Pool) -> Arc<Filesystem> {
    let fs = pool.mount();
    create(&fs, "first");
    fs
}

#[test]
fn a_removed_file_that_is_pinned_leaves_its_blocks_in_limbo() {
    let pool = Pool::new(8 * MIB);
    let fs = mount_with_names(&pool);
    let empty = fs.usage();
    let bytes = pattern(1, 3 * MIB);
    let file = file_of(&fs, "a", &bytes);
    let pin = pinned(&file, 10, 20, PinKind::Read);
    drop(file);
    unlink(&fs, "a");
    assert_eq!(fs.usage().inodes, empty.inodes);
    assert!(fs.usage().limbo >= Pages(10), "{:?}", fs.usage());
    fs.verify().unwrap();
    pool.check();

    let other = file_of(&fs, "b", &pattern(2, 4 * MIB));
    let mut seen = vec![0; 10 * 4096];
    pin.read(0, &mut seen).unwrap();
    assert!(seen == bytes[10 * 4096..20 * 4096]);
    drop(other);
    unlink(&fs, "b");

    drop(pin);
    assert_eq!(fs.usage().used, empty.used);
    fs.verify().unwrap();
}

#[test]
fn a_truncate_that_may_not_wait_names_the_pin_and_changes_nothing() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let bytes = pattern(1, 100 * KIB);
    let file = file_of(&fs, "a", &bytes);
    let pin = pinned(&file, 5, 7, PinKind::Write);
    let soon = FreePolicy::Wait(Wait::Until(Instant::now() + Duration::from_millis(5)));
    for policy in [NEVER, soon] {
        for refused in [file.truncate(0, policy), file.punch(0..100 * KIB, policy)] {
            match refused.unwrap_err() {
                FsError::Layout(BreakError::Pinned { index, pins }) => {
                    assert_eq!(index, FileIndex(5));
                    assert_eq!(&*pins[0].info.owner.label, "the device");
                }
                other => panic!("{other}"),
            }
        }
    }
    assert!(contents(&file) == bytes);
    file.truncate(7 * 4096, NEVER).unwrap();
    fs.verify().unwrap();
    drop(pin);
    file.truncate(0, NEVER).unwrap();
    fs.verify().unwrap();
}

#[test]
fn a_deferred_truncate_gives_the_file_new_pages_while_the_old_ones_are_pinned() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 40 * KIB));
    let pin = pinned(&file, 0, 10, PinKind::Write);
    file.truncate(0, FreePolicy::Defer).unwrap();
    assert_eq!(fs.usage().limbo, Pages(10));
    file.write_at(&pattern(2, 40 * KIB), 0).unwrap();
    pin.write(0, &[0xee; 4096]).unwrap();
    assert!(contents(&file) == pattern(2, 40 * KIB));
    let listed = fs.pins();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].0, None);
    fs.verify().unwrap();
    drop(pin);
    assert_eq!(fs.usage().limbo, Pages(0));
    fs.verify().unwrap();
}

#[test]
fn a_punch_that_waits_is_right_about_the_size_that_the_file_has_then() {
    for (range, grown) in
        [(0..9000, 9100), (5000..9050, 9100), (0..9050, 30_000), (100..40_000, 20_000)]
    {
        let pool = Pool::new(8 * MIB);
        let fs = mount_with_names(&pool);
        let bytes = pattern(1, 9000);
        let file = file_of(&fs, "a", &bytes);
        let pin = pinned(&file, 0, 3, PinKind::Read);
        let more = pattern(2, grown - 9000);
        let expected = thread::scope(|scope| {
            let punch = scope.spawn(|| file.punch(range.clone(), FreePolicy::Wait(Wait::Forever)));
            // Before the punch looks at the size, or while it waits.
            file.append(&more).unwrap();
            drop(pin);
            punch.join().unwrap().unwrap();
            [bytes, more].concat()
        });
        let found = contents(&file);
        for (at, (found, expected)) in (0..grown).zip(found.iter().zip(expected)) {
            let expected = if range.contains(&at) { 0 } else { expected };
            assert_eq!(*found, expected, "byte {at} after punching {range:?}");
        }
        fs.verify().unwrap();
    }
}

#[test]
fn pages_of_a_deferral_that_fails_stay_with_their_file() {
    let pool = Pool::new(12 * MIB);
    let fs = mount_with_names(&pool);
    let file = file_of(&fs, "a", &pattern(1, 2 * MIB));
    // Between the two extents of the file.
    file_of(&fs, "b", &pattern(2, 2 * MIB));
    file.append(&pattern(3, 2 * MIB)).unwrap();
    assert_eq!(file.extents().unwrap().len(), 2);
    let filler = create(&fs, "filler");
    while fs.usage().free > Pages(0) {
        let len = (fs.usage().free.0 * 4 * KIB).min(256 * KIB);
        if filler.append(&pattern(1, len)).is_err() {
            filler.append(&[1; 4096]).unwrap();
        }
    }
    let first = pinned(&file, 505, 506, PinKind::Read);
    let second = pinned(&file, 600, 601, PinKind::Read);

    // No page for a node: both pages stay, and no word is left on them.
    for from in [600, 500] {
        let refused = file.punch(from * 4096..610 * 4096, FreePolicy::Defer).unwrap_err();
        assert!(matches!(refused, FsError::NoSpace { .. }), "{refused}");
        assert_eq!(fs.usage().limbo, Pages(0));
    }

    drop((first, second));
    assert_eq!(contents(&file), [pattern(1, 2 * MIB), pattern(3, 2 * MIB)].concat());
    file.truncate(0, NEVER).unwrap();
    assert_eq!(fs.usage().limbo, Pages(0));
    fs.verify().unwrap();
}

#[test]
fn a_truncate_that_waits_lets_the_holder_of_the_pin_use_the_file() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 40 * KIB));
    let pin = pinned(&file, 2, 3, PinKind::Write);
    let waiting = {
        let file = Arc::clone(&file);
        thread::spawn(move || file.truncate(0, FreePolicy::Wait(Wait::Forever)))
    };
    for round in 0..100 {
        file.write_at(&[round; 100], 4096).unwrap();
        file.read_at(&mut [0; 100], 8192).unwrap();
    }
    assert_eq!(file.attr().size, 40 * KIB);
    drop(pin);
    waiting.join().unwrap().unwrap();
    assert_eq!(file.attr().size, 0);
    fs.verify().unwrap();
}

#[test]
fn pins_are_listed_by_file_and_range() {
    let fs = Pool::new(8 * MIB).mount();
    let (a, b) = (file_of(&fs, "a", &pattern(1, 40_000)), file_of(&fs, "b", &pattern(1, 40_000)));
    let first = pinned(&a, 2, 5, PinKind::Read);
    let second = pinned(&b, 0, 1, PinKind::Write);
    let listed: Vec<_> = fs.pins().into_iter().map(|(ino, pin)| (ino, pin.range)).collect();
    assert_eq!(listed, [(Some(a.ino()), pages(2, 5)), (Some(b.ino()), pages(0, 1))]);
    let of_a: Vec<_> = a.pins().into_iter().map(|pin| pin.range).collect();
    assert_eq!(of_a, [pages(2, 5)]);
    let ino = a.ino();
    drop(a);
    assert_eq!(fs.inode(ino).unwrap().pins().len(), 1);
    drop((first, second));
    assert_eq!(fs.pins().len(), 0);
}

/// A file of 16 pages, all of which are pinned as one, and what is listed of the pin: how many pages
/// of which file, from which page on.
fn listed_after(change: impl FnOnce(&Inode)) -> Vec<(bool, u64, u64)> {
    let fs = Pool::new(8 * MIB).mount();
    let file = file_of(&fs, "a", &pattern(1, 64 * KIB));
    let at = file.extents().unwrap()[0].device.0;
    let pin = pinned(&file, 0, 16, PinKind::Write);
    change(&file);
    let listed = fs.pins().into_iter().map(|(ino, pin)| {
        assert!(ino.is_none_or(|ino| ino == file.ino()));
        // Pages of no file are counted on the device.
        let start = pin.range.start.0 - if ino.is_none() { at } else { 0 };
        (ino.is_some(), start, pin.range.end.since(pin.range.start).0)
    });
    let mut listed: Vec<_> = listed.collect();
    listed.sort_unstable_by_key(|(_, start, _)| *start);
    drop(pin);
    fs.verify().unwrap();
    listed
}

#[test]
fn a_pin_of_which_the_file_has_given_up_a_part_is_listed_in_parts() {
    assert_eq!(listed_after(|_| ()), [(true, 0, 16)]);
    let punched = listed_after(|file| drop(file.punch(0..4096, FreePolicy::Defer).unwrap()));
    assert_eq!(punched, [(false, 0, 1), (true, 1, 15)]);
    let cut = listed_after(|file| drop(file.truncate(40 * KIB, FreePolicy::Defer).unwrap()));
    assert_eq!(cut, [(true, 0, 10), (false, 10, 6)]);
    let middle = listed_after(|file| {
        drop(file.punch(8 * KIB..16 * KIB, FreePolicy::Defer).unwrap());
        file.write_at(&[1; 8192], 8 * KIB).unwrap();
    });
    assert_eq!(middle, [(true, 0, 2), (false, 2, 2), (true, 4, 12)]);
}

/// Holes are filled for a pin; not for one that cannot be had.
#[test]
fn a_pin_past_the_end_of_a_sparse_file_is_refused_before_a_hole_is_filled() {
    let fs = mount_with_names(&Pool::new(8 * MIB));
    let file = create(&fs, "a");
    file.truncate(4 * MIB, NEVER).unwrap();
    let before = fs.usage();
    for (range, index) in
        [(0..u64::MAX, 1024), (1000..1025, 1024), (1024..1025, 1024), (2000..2001, 2000)]
    {
        let refused = file.pin(pages(range.start, range.end), pin_info("x", PinKind::Read));
        match refused.unwrap_err() {
            FsError::Fault(FaultError::PastEnd(at)) => assert_eq!(at, FileIndex(index)),
            other => panic!("{other}"),
        }
        assert_eq!(fs.usage(), before, "{range:?}");
    }
    drop(pinned(&file, 1000, 1024, PinKind::Read));
    fs.verify().unwrap();
}

#[test]
fn a_pool_with_a_pin_is_not_closed() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &[1; 8192]);
    let pin = pinned(&file, 0, 1, PinKind::Write);
    match fs.unmount().unwrap_err() {
        FsError::Pinned { pins: 1, first } => assert_eq!(first, "the device"),
        other => panic!("{other}"),
    }
    file.write_at(b"still open", 0).unwrap();
    drop(pin);
    fs.unmount().unwrap();
    pool.check();
}

#[test]
fn a_pinned_hole_is_allocated() {
    let fs = Pool::new(8 * MIB).mount();
    let file = create(&fs, "a");
    file.truncate(10 * 4096, NEVER).unwrap();
    for (at, kind) in [(1, PinKind::Read), (2, PinKind::Write)] {
        let pin = pinned(&file, at, at + 1, kind);
        if kind == PinKind::Write {
            pin.write(0, b"by the device").unwrap();
        }
    }
    assert_eq!(file.attr().pages, Pages(3));
    assert_eq!(&contents(&file)[2 * 4096..][..13], b"by the device");
    assert!(file.pin(pages(9, 11), pin_info("x", PinKind::Read)).is_err());
    fs.verify().unwrap();
}

/// Runs with eager mappings, and with lazy ones where the host permits them.
fn mode(access: Access, populate: Populate) -> MapMode {
    MapMode { access, populate, ..MapMode::default() }
}

fn with_and_without_service(test: impl Fn(Arc<Filesystem>, Populate)) {
    let pool = Pool::new(16 * MIB);
    test(pool.mount(), Populate::Eager);
    if let Some(service) = fault_service() {
        let pool = Pool::new(16 * MIB);
        let mounted =
            Filesystem::mount(pool.device(), udax_fs::MountMode::ReadWrite, Some(service));
        test(mounted.unwrap().0, Populate::Lazy);
    }
}

#[test]
fn a_mapping_shows_the_file_and_the_file_what_was_stored() {
    with_and_without_service(|fs, populate| {
        let bytes = pattern(1, 3 * MIB);
        let file = file_of(&fs, "a", &bytes);
        let map = file.map(FileIndex(0), Pages(768), mode(Access::Write, populate)).unwrap();
        let mut seen = vec![0; bytes.len()];
        map.vma().read(0, &mut seen).unwrap();
        assert!(seen == bytes);
        map.vma().write(5000, b"stored").unwrap();
        let mut read = [0; 6];
        file.read_at(&mut read, 5000).unwrap();
        assert_eq!(&read, b"stored");
        file.write_at(b"written", 9000).unwrap();
        let mut read = [0; 7];
        map.vma().read(9000, &mut read).unwrap();
        assert_eq!(&read, b"written");
        file.sync().unwrap();
        fs.verify().unwrap();
    });
}

#[test]
fn what_a_write_allocates_or_a_truncate_adds_is_seen_by_mappings() {
    with_and_without_service(|fs, populate| {
        let file = create(&fs, "a");
        file.truncate(4 * 4096, NEVER).unwrap();
        let map = file.map(FileIndex(0), Pages(16), mode(Access::Read, populate)).unwrap();
        let at = |page: u64| {
            let mut byte = [0xaa];
            map.vma().read(page * 4096, &mut byte).map(|()| byte[0])
        };
        assert_eq!(at(2).unwrap(), 0);
        assert!(at(8).is_err(), "past the end is a SIGBUS");
        file.write_at(&[9], 2 * 4096).unwrap();
        assert_eq!(at(2).unwrap(), 9, "B-12");
        file.truncate(9 * 4096, NEVER).unwrap();
        assert_eq!(at(8).unwrap(), 0);
        file.append(&[7; 4096]).unwrap();
        assert_eq!(at(9).unwrap(), 7);
        file.truncate(4096, NEVER).unwrap();
        assert!(at(2).is_err(), "I-32");
        file.punch(0..4096, NEVER).unwrap();
        assert_eq!(at(0).unwrap(), 0);
        fs.verify().unwrap();
    });
}

#[test]
fn a_store_to_a_hole_allocates_it() {
    with_and_without_service(|fs, populate| {
        let file = create(&fs, "a");
        file.truncate(8 * 4096, NEVER).unwrap();
        let map = file.map(FileIndex(0), Pages(8), mode(Access::Write, populate)).unwrap();
        map.vma().write(3 * 4096 + 5, b"x").unwrap();
        let mut read = [0; 2];
        file.read_at(&mut read, 3 * 4096 + 4).unwrap();
        assert_eq!(&read, b"\0x");
        fs.verify().unwrap();
    });
}

/// Also in a file that has nothing yet.
#[test]
fn the_first_store_to_an_empty_block_fills_all_of_it() {
    with_and_without_service(|fs, populate| {
        let file = create(&fs, "a");
        file.truncate(4 << 20, NEVER).unwrap();
        let map = file.map(FileIndex(0), Pages(1024), mode(Access::Write, populate)).unwrap();
        map.vma().write(4096 + 5, b"x").unwrap();
        let extents = file.extents().unwrap();
        let first = &extents[0];
        assert_eq!((first.index, first.order), (FileIndex(0), Order::Pmd), "{extents:?}");
        fs.verify().unwrap();
    });
}

#[test]
fn growing_does_not_show_what_was_stored_past_the_end() {
    with_and_without_service(|fs, populate| {
        let file = file_of(&fs, "a", b"short");
        let map = file.map(FileIndex(0), Pages(1), mode(Access::Write, populate)).unwrap();
        map.vma().write(0, &[7; 4096]).unwrap();
        file.truncate(100, NEVER).unwrap();
        let mut expected = vec![7; 5];
        expected.resize(100, 0);
        assert_eq!(contents(&file), expected);
        map.vma().write(0, &[8; 4096]).unwrap();
        file.write_at(b"x", 200).unwrap();
        assert_eq!(contents(&file)[..100], [8; 100]);
        assert_eq!(contents(&file)[100..200], [0; 100]);
    });
}

#[test]
fn a_mapping_keeps_a_removed_file() {
    with_and_without_service(|fs, populate| {
        create(&fs, "first");
        let free = fs.usage().free;
        let file = file_of(&fs, "a", &pattern(1, 40 * KIB));
        let map = file.map(FileIndex(0), Pages(10), mode(Access::Write, populate)).unwrap();
        drop(file);
        unlink(&fs, "a");
        let mut seen = vec![0; 40 * 1024];
        map.vma().read(0, &mut seen).unwrap();
        assert!(seen == pattern(1, 40 * KIB));
        assert_eq!(map.inode().attr().links, 0);
        drop(map);
        assert_eq!(fs.usage().free, free);
        fs.verify().unwrap();
    });
}

#[test]
fn a_frozen_file_refuses_every_change_of_its_bytes() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 40 * KIB));
    assert!(matches!(file.frozen_bytes(&pin_info("r", PinKind::Read)), Err(FsError::NotFrozen)));
    file.freeze(Wait::Never).unwrap();
    file.freeze(Wait::Never).unwrap();
    let frozen = |result: Result<(), FsError>| assert!(matches!(result, Err(FsError::Frozen)));
    frozen(file.write_at(b"x", 0).map(drop));
    frozen(file.append(b"x").map(drop));
    frozen(file.truncate(0, FreePolicy::Defer).map(drop));
    frozen(file.truncate(1 << 20, FreePolicy::Defer).map(drop));
    frozen(file.punch(0..4096, FreePolicy::Defer).map(drop));
    frozen(file.allocate(0..1 << 20));
    frozen(file.map(FileIndex(0), Pages(1), mode(Access::Write, Populate::Eager)).map(drop));
    frozen(file.pin(pages(0, 1), pin_info("w", PinKind::Write)).map(drop));
    file.set_attr(&udax_fs::SetAttr { mode: Some(0o400), ..Default::default() }).unwrap();
    drop(file);
    fs.unmount().unwrap();
    let fs = pool.mount();
    let file = lookup(&fs, "a");
    assert!(file.attr().is_frozen);
    assert!(contents(&file) == pattern(1, 40 * KIB));
    drop(file);
    unlink(&fs, "a");
    fs.verify().unwrap();
}

#[test]
fn the_bytes_of_a_frozen_file_outlive_its_name() {
    let pool = Pool::new(16 * MIB);
    let fs = mount_with_names(&pool);
    let empty = fs.usage();
    let file = file_of(&fs, "a", &pattern(1, 5 * MIB + 100));
    file.freeze(Wait::Never).unwrap();
    let first = file.frozen_bytes(&pin_info("first", PinKind::Read)).unwrap();
    let second = file.frozen_bytes(&pin_info("second", PinKind::Read)).unwrap();
    assert!(*first == pattern(1, 5 * MIB + 100));
    assert!(contents(&file) == *first);
    drop(file);
    fs.unlink(&fs.root().unwrap(), &name("a")).unwrap();
    assert!(fs.usage().limbo > Pages(1280));
    assert!(*second == *first);
    drop(first);
    assert!(*second == pattern(1, 5 * MIB + 100));
    drop(second);
    assert_eq!(fs.usage().used, empty.used);
    fs.verify().unwrap();
}

#[test]
fn freezing_fills_holes_and_waits_for_pins() {
    let fs = Pool::new(8 * MIB).mount();
    let file = create(&fs, "a");
    file.truncate(40 * KIB, NEVER).unwrap();
    file.write_at(b"x", 20_000).unwrap();
    let pin = pinned(&file, 4, 5, PinKind::Write);
    assert!(matches!(file.freeze(Wait::Never), Err(FsError::Layout(BreakError::Pinned { .. }))));
    assert!(!file.attr().is_frozen);
    drop(pin);
    file.freeze(Wait::Never).unwrap();
    let bytes = file.frozen_bytes(&pin_info("r", PinKind::Read)).unwrap();
    assert_eq!(bytes.len(), 40 << 10);
    assert_eq!(bytes[20_000], b'x');
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 1);
}

#[test]
fn a_device_that_is_killed_refuses_at_once_and_drains_pins() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 40 * KIB));
    let map = file.map(FileIndex(0), Pages(10), mode(Access::Read, Populate::Eager)).unwrap();
    let pin = pinned(&file, 0, 3, PinKind::Read);
    let busy = fs.kill_device(Wait::Never).unwrap_err();
    assert_eq!(&*busy.pins[0].info.owner.label, "the device");
    assert!(matches!(file.read_at(&mut [0], 0), Err(FsError::Device(_))));
    assert!(matches!(file.write_at(&[0], 0), Err(FsError::Device(_))));
    assert!(fs.create(&fs.root().unwrap(), &name("b"), udax_fs::Kind::File, 0, 0, 0).is_err());
    assert!(map.vma().read(0, &mut [0]).is_err());
    let mut seen = [0; 100];
    pin.read(0, &mut seen).unwrap();
    assert!(seen[..] == pattern(1, 100)[..]);
    drop(pin);
    fs.kill_device(Wait::Forever).unwrap();
    drop((map, file, fs));
    let fs = pool.mount();
    assert!(contents(&lookup(&fs, "a")) == pattern(1, 40 * KIB));
}
