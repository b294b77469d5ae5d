//! What a file keeps: bytes, holes, sizes, across writes, truncates, punches and mounts.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{KIB, MIB, Pool, contents, create, lookup, mkdir, name, pattern};
use std::panic::{AssertUnwindSafe, catch_unwind};
use udax_dev::DaxDevice;
use udax_fs::{Filesystem, FreePolicy, FsError, Inode, MountMode, RenameMode};
use udax_mapping::{MapMode, Populate};
use udax_mm::sync::Arc;
use udax_mm::{Access, FileIndex, Media, Order, Pages, PgmapOff, Wait};

const WAIT: FreePolicy = FreePolicy::Wait(Wait::Never);

fn write(file: &Inode, bytes: &[u8]) {
    assert_eq!(file.write_at(bytes, 0).unwrap(), bytes.len());
}

#[test]
fn what_was_written_is_there_after_a_remount() {
    let pool = Pool::new(16 * MIB);
    let sizes = [0, 1, 4095, 4096, 4097, 100_000, 2 * MIB, 5 * MIB + 17];
    {
        let fs = pool.mount();
        for (seed, size) in (0..).zip(sizes) {
            let file = create(&fs, &format!("{seed}"));
            write(&file, &pattern(seed, size));
        }
        fs.verify().unwrap();
        fs.unmount().unwrap();
    }
    pool.check();
    let fs = pool.mount();
    for (seed, size) in (0..).zip(sizes) {
        let file = lookup(&fs, &format!("{seed}"));
        assert!(contents(&file) == pattern(seed, size), "file {seed} of {size} bytes");
    }
    fs.verify().unwrap();
}

#[test]
fn a_filesystem_that_was_not_closed_says_so_and_has_lost_nothing() {
    let pool = Pool::new(4 * MIB);
    {
        let fs = pool.mount();
        create(&fs, "a").write_at(b"kept", 0).unwrap();
    }
    let (fs, recovered) = pool.mount_saying();
    assert_eq!(recovered.unclean, Some(std::process::id()));
    assert!(!recovered.rebooted);
    assert_eq!(contents(&lookup(&fs, "a")), b"kept");
    fs.unmount().unwrap();
    let (_fs, recovered) = pool.mount_saying();
    assert_eq!(recovered.unclean, None);
}

#[test]
fn holes_read_as_zeros_and_take_no_pages() {
    let pool = Pool::new(4 * MIB);
    let fs = pool.mount();
    let file = create(&fs, "sparse");
    file.write_at(b"end", 1 << 30).unwrap();
    let free = fs.usage().free;
    let mut bytes = [1; 8];
    assert_eq!(file.read_at(&mut bytes, (1 << 30) - 5).unwrap(), 8);
    assert_eq!(&bytes, b"\0\0\0\0\0end");
    assert!(file.attr().pages <= Pages(4), "{}", file.attr().pages);
    assert_eq!(fs.usage().free, free);
    fs.verify().unwrap();
}

#[test]
fn reading_nothing_or_past_the_end_returns_zero() {
    let fs = Pool::new(4 * MIB).mount();
    let file = create(&fs, "a");
    file.write_at(b"abc", 0).unwrap();
    assert_eq!(file.read_at(&mut [], 0).unwrap(), 0);
    assert_eq!(file.read_at(&mut [0; 4], 3).unwrap(), 0);
    assert_eq!(file.read_at(&mut [0; 4], u64::MAX).unwrap(), 0);
    assert_eq!(file.read_at(&mut [0; 4], 2).unwrap(), 1);
    assert_eq!(file.write_at(&[], 100).unwrap(), 0);
    assert_eq!(file.attr().size, 3);
}

#[test]
fn appends_go_to_the_end() {
    let fs = Pool::new(4 * MIB).mount();
    let file = create(&fs, "log");
    let mut expected = Vec::new();
    for round in 0..200_u64 {
        let line = pattern(round, 1 + round * 7 % 300);
        assert_eq!(usize::try_from(file.append(&line).unwrap()).unwrap(), expected.len());
        expected.extend(line);
    }
    assert!(contents(&file) == expected);
    fs.verify().unwrap();
}

#[test]
fn what_a_truncate_cut_off_never_comes_back() {
    let fs = Pool::new(16 * MIB).mount();
    let file = create(&fs, "a");
    for (size, cut, grown) in
        [(10_000, 5000, 9000), (3 * MIB, 1, 3 * MIB), (8192, 4096, 8192), (100, 0, 100)]
    {
        file.truncate(0, WAIT).unwrap();
        file.write_at(&pattern(size, size), 0).unwrap();
        file.truncate(cut, WAIT).unwrap();
        assert_eq!(file.attr().size, cut);
        fs.verify().unwrap();
        file.truncate(grown, WAIT).unwrap();
        let mut expected = pattern(size, cut);
        expected.resize(usize::try_from(grown).unwrap(), 0);
        assert!(contents(&file) == expected, "{size} cut to {cut}, grown to {grown}");
        fs.verify().unwrap();
    }
    file.truncate(0, WAIT).unwrap();
    assert_eq!(file.attr().pages, Pages(0));
}

#[test]
fn a_write_past_the_end_leaves_zeros_between() {
    let fs = Pool::new(4 * MIB).mount();
    let file = create(&fs, "a");
    file.write_at(&[7; 5000], 0).unwrap();
    file.truncate(4100, WAIT).unwrap();
    file.write_at(b"x", 4200).unwrap();
    let bytes = contents(&file);
    assert_eq!(bytes[4099], 7);
    assert!(bytes[4100..4200].iter().all(|byte| *byte == 0));
    assert_eq!(bytes[4200..], *b"x");
}

#[test]
fn punching_zeros_the_range_and_frees_whole_pages() {
    let fs = Pool::new(16 * MIB).mount();
    let file = create(&fs, "a");
    let size = 5 * MIB;
    let ranges = [
        0..1,
        4000..4100,
        4096..8192,
        10_000..30_000,
        2 * MIB..4 * MIB,
        2 * MIB + 5..2 * MIB + 90_000,
        5 * MIB - 100..6 * MIB,
        7 * MIB..8 * MIB,
    ];
    for range in ranges {
        file.truncate(0, WAIT).unwrap();
        let mut expected = pattern(range.start, size);
        file.write_at(&expected, 0).unwrap();
        file.punch(range.clone(), WAIT).unwrap();
        let at = |byte: u64| usize::try_from(byte.min(size)).unwrap();
        expected[at(range.start)..at(range.end)].fill(0);
        assert!(contents(&file) == expected, "{range:?}");
        assert_eq!(file.attr().size, size);
        fs.verify().unwrap();
    }
    let before = fs.usage().free;
    file.punch(MIB..2 * MIB, WAIT).unwrap();
    assert!(fs.usage().free.0 >= before.0 + 255);
}

#[test]
fn files_of_2_mib_and_more_lie_in_2_mib_blocks() {
    let fs = Pool::new(32 * MIB).mount();
    let file = create(&fs, "big");
    file.write_at(&pattern(1, 9 * MIB), 0).unwrap();
    let huge: u64 = file
        .extents()
        .unwrap()
        .iter()
        .filter(|extent| extent.order == Order::Pmd)
        .map(|extent| extent.pages.0)
        .sum();
    assert_eq!(huge, 4 * 512);
    let small = create(&fs, "small");
    small.write_at(&pattern(2, MIB), 0).unwrap();
    assert!(small.extents().unwrap().iter().all(|extent| extent.order == Order::Base));
}

#[test]
fn allocating_makes_zeros_that_are_data() {
    let fs = Pool::new(16 * MIB).mount();
    let file = create(&fs, "a");
    file.write_at(b"kept", 8192).unwrap();
    file.allocate(0..3 * MIB).unwrap();
    assert_eq!(file.attr().size, 3 * MIB);
    assert_eq!(file.seek_hole(0).unwrap(), Some(3 * MIB));
    let bytes = contents(&file);
    assert_eq!(&bytes[8192..8196], b"kept");
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 4);
    fs.verify().unwrap();
}

#[test]
fn allocating_within_a_file_keeps_its_size() {
    let fs = Pool::new(16 * MIB).mount();
    let file = create(&fs, "a");
    file.truncate(10_000, FreePolicy::Defer).unwrap();
    file.allocate_within(5000..9 * MIB).unwrap();
    file.allocate_within(20_000..30_000).unwrap();
    assert_eq!((file.attr().size, file.attr().pages), (10_000, Pages(3)));
    assert_eq!(contents(&file), [0; 10_000]);
    fs.verify().unwrap();
}

#[test]
fn seeking_finds_the_edges_of_data() {
    let fs = Pool::new(16 * MIB).mount();
    let file = create(&fs, "a");
    file.truncate(10 * MIB, WAIT).unwrap();
    file.write_at(&[1; 100], 4096).unwrap();
    file.write_at(&pattern(3, 2 * MIB), 4 * MIB).unwrap();
    let data = [(0, 4096), (4096, 4096), (5000, 5000), (8192, 4 * MIB), (4 * MIB, 4 * MIB)];
    for (at, found) in data {
        assert_eq!(file.seek_data(at).unwrap(), Some(found), "data from {at}");
    }
    assert_eq!(file.seek_data(6 * MIB).unwrap(), None);
    let holes = [(0, 0), (4096, 8192), (8192, 8192), (5 * MIB, 6 * MIB)];
    for (at, found) in holes {
        assert_eq!(file.seek_hole(at).unwrap(), Some(found), "hole from {at}");
    }
    assert_eq!(file.seek_hole(10 * MIB).unwrap(), None);
    file.write_at(b"x", 10 * MIB - 1).unwrap();
    assert_eq!(file.seek_hole(10 * MIB - 1).unwrap(), Some(10 * MIB));
}

#[test]
fn extents_cover_the_data_and_nothing_else() {
    let fs = Pool::new(16 * MIB).mount();
    let file = create(&fs, "a");
    file.write_at(&[1; 4096], 4096).unwrap();
    file.write_at(&[1; 8192], 64 * KIB).unwrap();
    let extents = file.extents().unwrap();
    let covered: Vec<_> = extents.iter().map(|extent| (extent.index, extent.pages)).collect();
    assert_eq!(covered, [(FileIndex(1), Pages(1)), (FileIndex(16), Pages(2))]);
}

#[test]
fn an_allocation_of_what_is_there_and_a_freeze_keep_the_time_of_the_bytes() {
    let fs = Pool::new(4 * MIB).mount();
    let file = create(&fs, "a");
    file.write_at(&[1; 9000], 0).unwrap();
    let written = file.attr().mtime;
    file.allocate(0..9000).unwrap();
    file.freeze(Wait::Never).unwrap();
    assert_eq!(file.attr().mtime, written);
}

#[test]
fn times_move_with_what_they_are_of() {
    let pool = Pool::new(4 * MIB);
    let fs = pool.mount();
    let file = create(&fs, "a");
    let born = file.attr();
    file.write_at(b"x", 0).unwrap();
    let written = file.attr();
    assert!(written.mtime > born.mtime && written.ctime > born.ctime);
    file.write_at(b"y", 0).unwrap();
    let overwritten = file.attr();
    assert!(overwritten.mtime > written.mtime);
    file.read_at(&mut [0], 0).unwrap();
    assert_eq!(file.attr(), overwritten);
    drop(file);
    fs.unmount().unwrap();
    let fs = pool.mount();
    assert_eq!(lookup(&fs, "a").attr(), overwritten);
}

#[test]
fn a_read_only_mount_writes_nothing() {
    let pool = Pool::new(4 * MIB);
    {
        let fs = pool.mount();
        create(&fs, "a").write_at(b"bytes", 0).unwrap();
        fs.unmount().unwrap();
    }
    let before = pool.copy();
    {
        let (fs, _) = udax_fs::Filesystem::mount(pool.device(), MountMode::ReadOnly, None).unwrap();
        let file = lookup(&fs, "a");
        assert_eq!(contents(&file), b"bytes");
        assert!(matches!(file.write_at(b"x", 0), Err(FsError::ReadOnly)));
        assert!(matches!(file.truncate(0, WAIT), Err(FsError::ReadOnly)));
        let root = fs.root().unwrap();
        assert!(matches!(fs.unlink(&root, &common::name("a")), Err(FsError::ReadOnly)));
        file.sync().unwrap();
        fs.verify().unwrap();
        drop(file);
        fs.unmount().unwrap();
    }
    assert!(common::same_bytes(&before, &pool));
}

#[test]
fn a_closed_filesystem_refuses_the_handles_it_gave_out() {
    let pool = Pool::new(4 * MIB);
    let fs = pool.mount();
    let file = create(&fs, "a");
    fs.unmount().unwrap();
    assert!(matches!(file.write_at(b"x", 0), Err(FsError::Closed)));
    assert!(matches!(file.read_at(&mut [0], 0), Err(FsError::Closed)));
    assert!(matches!(fs.root(), Err(FsError::Closed)));
    assert!(matches!(fs.unmount(), Err(FsError::Closed)));
    drop(file);
    pool.check();
}

#[test]
fn a_file_grows_from_a_page_to_many_blocks() {
    let fs = Pool::new(16 * MIB).mount();
    let file = create(&fs, "a");
    file.write_at(&[1; 4096], 0).unwrap();
    file.allocate(0..4 * MIB).unwrap();
    fs.verify().unwrap();
    assert_eq!(contents(&file).iter().filter(|byte| **byte != 0).count(), 4096);
}

#[test]
fn a_file_that_grows_in_small_steps_lies_in_2_mib_blocks() {
    let pool = Pool::new(32 * MIB);
    let fs = pool.mount();
    let (file, other) = (create(&fs, "log"), create(&fs, "other"));
    for round in 0..80 {
        file.append(&pattern(round, 100 * KIB)).unwrap();
        other.append(&[1; 5000]).unwrap();
        if round % 20 == 0 {
            fs.verify().unwrap();
        }
    }
    let blocks = file.extents().unwrap().into_iter().filter(|extent| {
        let to_block = extent.index.0.next_multiple_of(512) - extent.index.0;
        extent.pages.0 >= to_block + 512 && (extent.device.0 + to_block) % 512 == 0
    });
    let whole: u64 = blocks.map(|extent| extent.pages.0 / 512).sum();
    assert!(whole >= 2, "{:?}", file.extents());
    drop((file, other));
    fs.unmount().unwrap();
    pool.check();
}

/// Byte 0 of a file on the medium, as another process sees it.
fn on_medium(pool: &Pool, file: &Inode) -> (u64, u8) {
    let at = file.extents().unwrap()[0].device.byte();
    let mut byte = [0];
    pool.media.read(at, &mut byte).unwrap();
    (at, byte[0])
}

/// What is stored through a mapping is on the medium, and the other way round: there is no copy.
#[track_caller]
fn check_direct(pool: &Pool, file: &Arc<Inode>, what: &str) {
    let populate = Populate::Eager;
    let mode = MapMode { access: Access::Write, populate, ..MapMode::default() };
    let map = file.map(FileIndex(0), Pages(1), mode).unwrap();
    map.vma().write(0, b"A").unwrap();
    assert_eq!(on_medium(pool, file).1, b'A', "{what}");
    pool.media.write(on_medium(pool, file).0, b"B").unwrap();
    let mut byte = [0];
    map.vma().read(0, &mut byte).unwrap();
    assert_eq!(byte[0], b'B', "{what}: mapped");
    assert_eq!(contents(file)[0], b'B', "{what}: read");
}

/// I-67, B-44, F-53: there is no flag to set, to inherit or to change beside a mapping; whatever becomes
/// of a file, it is direct access.
#[test]
fn every_file_of_a_pool_is_direct_access_and_stays_so() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let root = fs.root().unwrap();
    let file = create(&fs, "a");
    file.truncate(9000, WAIT).unwrap();
    check_direct(&pool, &file, "a hole");
    let populate = Populate::Eager;
    let mode = MapMode { access: Access::Read, populate, ..MapMode::default() };
    let live = file.map(FileIndex(0), Pages(1), mode).unwrap();
    check_direct(&pool, &file, "mapped elsewhere");
    let dir = mkdir(&fs, &root, "dir");
    fs.rename(&root, &name("a"), &dir, &name("b"), RenameMode::NoReplace).unwrap();
    check_direct(&pool, &file, "moved to another directory");
    let clone = create(&fs, "clone");
    file.clone_range(0..9000, &clone, 0, Wait::Never).unwrap();
    check_direct(&pool, &file, "shared");
    check_direct(&pool, &clone, "shared");
    fs.unlink(&dir, &name("b")).unwrap();
    check_direct(&pool, &file, "without a name");
    let mut byte = [0];
    live.vma().read(0, &mut byte).unwrap();
    assert_eq!(byte[0], b'B', "the mapping from before");
    drop((live, file, clone, dir, root));
    fs.unmount().unwrap();
    check_direct(&pool, &lookup(&pool.mount(), "clone"), "mounted again");

    let (fs, _) = Filesystem::mount(pool.device(), MountMode::ReadOnly, None).unwrap();
    let file = lookup(&fs, "clone");
    let map = file.map(FileIndex(0), Pages(1), mode).unwrap();
    pool.media.write(on_medium(&pool, &file).0, b"C").unwrap();
    map.vma().read(0, &mut byte).unwrap();
    assert_eq!(byte[0], b'C', "read-only");
}

/// F-40, I-50, rule 11: what the allocator gives out it claims, and a claim of a page that somebody
/// counts fails.
#[test]
fn a_free_page_that_somebody_counts_is_never_given_out() {
    let pool = Pool::new(4 * MIB);
    let device = pool.device();
    let (fs, _) = Filesystem::mount(device.clone(), MountMode::ReadWrite, None).unwrap();
    let file = create(&fs, "a");
    file.write_at(&[1; 4096], 0).unwrap();
    let page = PgmapOff(file.extents().unwrap()[0].device.0);
    file.truncate(0, WAIT).unwrap();
    // Somebody who is no file, and did not ask the allocator.
    let stranger = device.pgmaps()[0].try_get_live().unwrap();
    let folio = stranger.request_folio(page, Order::Base).unwrap();

    let all = vec![2; usize::try_from(fs.usage().free.bytes()).unwrap() / 2];
    let given = catch_unwind(AssertUnwindSafe(|| while file.append(&all[..64 << 10]).is_ok() {}));

    let why = given.expect_err("the allocator notices");
    let why = why.downcast_ref::<String>().expect("a message");
    assert!(why.starts_with("I-50: a free page is in use"), "{why}");
    let mut bytes = [0];
    stranger.read(page.byte(), &mut bytes).unwrap();
    assert_ne!(bytes, [2], "nothing was written to it");
    drop(folio);
}
