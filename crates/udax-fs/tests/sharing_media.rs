//! Shared data on media with borders, on media that fail, and in full pools.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{KIB, MIB, Pool, clone_of, contents, create, file_of, pattern, unlink};
use std::iter;
use udax_dev::{DaxDevice, Line, Mapped, Member, PgmapDevice, Striped, Table, Target};
use udax_fs::{Deduped, Filesystem, FormatOptions, FreePolicy, FsError, Inode, MountMode};
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, FileIndex, MediaRange, MemoryType, Pages, Pgmap, Wait};

const PAGE: u64 = 4 * KIB;

fn media(pages: u64) -> Arc<FileMedia> {
    Arc::new(FileMedia::memfd("udax-fs-test", Pages(pages).bytes()).unwrap())
}

/// Enough for a file of 600 pages, and for what a clone of it changes.
const LEAST: u64 = 1536;

fn device(ranges: u64, pages: u64) -> Arc<dyn DaxDevice> {
    let range = |_| MediaRange { media: media(pages), start: 0, pages: Pages(pages) };
    let ranges = (0..ranges).map(range).collect();
    Arc::new(PgmapDevice::new(Pgmap::new(ranges, MemoryType::FsDax).unwrap()))
}

/// A device that grants `granted` pages at most: half of it lies in ranges of one page map, and half
/// in devices of their own, joined.
fn joined(granted: u64) -> Arc<dyn DaxDevice> {
    let parts = LEAST / granted;
    let first = device(parts / 2, granted);
    let single = (parts / 2..parts).map(|_| device(1, granted));
    Arc::new(Mapped::concat(iter::once(first).chain(single).collect()).unwrap())
}

/// Stripes over `width` devices, which grant a chunk of `chunk` pages at most.
fn striped(chunk: u64, width: u64) -> Arc<dyn DaxDevice> {
    let each = LEAST.div_ceil(chunk * width) * chunk;
    let member = |_| Member { device: device(1, each), from: DeviceOff(0) };
    let stripes = Striped::new(Pages(chunk), (0..width).map(member).collect());
    let (start, pages) = (DeviceOff(0), Pages(each * width));
    let line = Line { start, pages, target: Target::Striped(stripes) };
    Arc::new(Mapped::new(Table::new(vec![line]).unwrap()).unwrap())
}

/// F-31, O-2, I-48: what is copied and compared never runs past what the device granted.
#[test]
fn copies_and_comparisons_stay_in_what_the_device_grants() {
    for granted in [1, 2, 7, 64, 256] {
        let stripes = (1..=4).map(|width| striped(granted, width));
        for device in iter::once(joined(granted)).chain(stripes) {
            copy_and_compare(device, granted);
        }
    }
}

fn copy_and_compare(device: Arc<dyn DaxDevice>, seed: u64) {
    Filesystem::format(Arc::clone(&device), &FormatOptions::default()).unwrap();
    let (fs, _) = Filesystem::mount(device, MountMode::ReadWrite, None).unwrap();
    let bytes = pattern(seed, 600 * PAGE + 99);
    let file = file_of(&fs, "a", &bytes);
    let clone = clone_of(&fs, &file, "b");
    assert!(contents(&clone) == bytes);
    let new = pattern(3, 50 * PAGE);
    clone.write_at(&new, 37 * PAGE + 9).unwrap();
    assert!(contents(&file) == bytes);
    clone.unshare(100 * PAGE..300 * PAGE).unwrap();
    assert!(contents(&file) == bytes);
    fs.verify().unwrap();

    let all = 0..600 * PAGE + 99;
    let found = file.dedupe_range(all.clone(), &clone, 0, Wait::Never).unwrap();
    assert!(matches!(found, Deduped::Differs(at) if at >= 37 * PAGE + 9), "{found:?}");
    let part = usize::try_from(37 * PAGE + 9).unwrap();
    clone.write_at(&bytes[part..part + new.len()], 37 * PAGE + 9).unwrap();
    let found = file.dedupe_range(all.clone(), &clone, 0, Wait::Never).unwrap();
    assert_eq!(found, Deduped::Shared(all.end));
    assert!(contents(&clone) == bytes);
    fs.verify().unwrap();
    clone.truncate(0, FreePolicy::Wait(Wait::Never)).unwrap();
    assert_eq!(fs.usage().shared, Pages(0));
    assert!(contents(&file) == bytes);
    fs.verify().unwrap();
}

/// A pool whose first file has a bad page, which a clone of it shares.
struct Poisoned {
    fs: Arc<Filesystem>,
    device: Arc<PgmapDevice>,
    clone: Arc<Inode>,
    bytes: Vec<u8>,
    bad: DeviceOff,
    _file: Arc<Inode>,
}

/// The bad page of the file.
const BAD: u64 = 5;

impl Poisoned {
    fn new(pool: &Pool) -> Poisoned {
        let device = pool.device();
        let (fs, _) = Filesystem::mount(device.clone(), MountMode::ReadWrite, None).unwrap();
        let bytes = pattern(1, 9 * PAGE + 50);
        let file = file_of(&fs, "a", &bytes);
        let clone = clone_of(&fs, &file, "b");
        let extent = file.extents().unwrap()[0];
        let bad = extent.device + FileIndex(BAD).since(extent.index);
        Poisoned { fs, device, clone, bytes, bad, _file: file }.poison()
    }

    fn poison(self) -> Poisoned {
        let span = self.device.direct_access(self.bad, Pages(1)).unwrap();
        span.pgmap().memory_failure(span.range());
        self
    }
}

/// O-3: a copy that fails leaves nothing dirty and nothing changed. O-1: it is an error.
#[test]
fn a_copy_that_fails_changes_nothing() {
    let pool = Pool::new(8 * MIB);
    let Poisoned { fs, clone, bytes, .. } = &Poisoned::new(&pool);
    let before = (fs.usage(), clone.extents().unwrap(), clone.attr());
    let at = BAD * PAGE + 100;
    let failing: [&dyn Fn() -> Result<(), FsError>; 5] = [
        &|| clone.write_at(&[7; 10], at).map(drop),
        &|| clone.unshare(0..9 * PAGE),
        &|| clone.punch(at..at + 9, FreePolicy::Wait(Wait::Never)).map(drop),
        &|| clone.truncate(at, FreePolicy::Wait(Wait::Never)).map(drop),
        &|| clone.write_at(&[7; 10], (BAD + 1) * PAGE - 5).map(drop),
    ];
    for (number, fails) in failing.into_iter().enumerate() {
        let error = fails().unwrap_err();
        assert!(matches!(error, FsError::PartlyLost { .. }), "{number}: {error}");
        let after = (fs.usage(), clone.extents().unwrap(), clone.attr());
        assert_eq!(after, before, "{number}");
        fs.verify().unwrap();
    }
    let mut page = vec![0; usize::try_from(PAGE).unwrap()];
    for index in (0..9).filter(|index| *index != BAD) {
        clone.read_at(&mut page, index * PAGE).unwrap();
        let start = usize::try_from(index * PAGE).unwrap();
        assert!(page == bytes[start..start + page.len()]);
    }
}

#[test]
fn a_page_that_is_written_whole_is_not_read_first() {
    let pool = Pool::new(8 * MIB);
    let Poisoned { fs, clone, bytes, device, bad, _file: file } = Poisoned::new(&pool);
    let (page, start) = (pattern(7, PAGE), usize::try_from(BAD * PAGE).unwrap());
    clone.write_at(&page, BAD * PAGE).unwrap();
    let mut expected = bytes.clone();
    expected[start..start + page.len()].copy_from_slice(&page);
    assert!(contents(&clone) == expected, "the overwritten page is good");
    assert!(matches!(file.read_at(&mut [0; 8], BAD * PAGE), Err(FsError::Lost { .. })));
    fs.verify().unwrap();

    let span = device.direct_access(bad, Pages(1)).unwrap();
    span.pgmap().recover(span.at().byte(), &bytes[start..start + page.len()]).unwrap();
    assert!(contents(&file) == bytes);
}

/// O-1: what fails is an error, never a length.
#[test]
fn a_comparison_that_fails_is_an_error_and_shares_nothing() {
    let pool = Pool::new(8 * MIB);
    let Poisoned { fs, bytes, _file: file, .. } = Poisoned::new(&pool);
    let other = file_of(&fs, "c", &bytes);
    let before = (fs.usage(), other.extents().unwrap());
    for (one, two) in [(&file, &other), (&other, &file)] {
        let failed = one.dedupe_range(0..9 * PAGE, two, 0, Wait::Never);
        assert!(matches!(failed, Err(FsError::Device(_))), "{failed:?}");
        assert_eq!((fs.usage(), other.extents().unwrap()), before);
    }
    let found = file.dedupe_range(0..BAD * PAGE, &other, 0, Wait::Never).unwrap();
    assert_eq!(found, Deduped::Shared(BAD * PAGE), "as far as the bad page");
    fs.verify().unwrap();
}

#[test]
fn a_copy_for_which_there_is_no_room_changes_nothing() {
    let pool = Pool::new(4 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 64 * PAGE));
    let clone = clone_of(&fs, &file, "b");
    let filler = create(&fs, "filler");
    while filler.append(&pattern(2, 64 * PAGE)).is_ok() {}
    while filler.append(&pattern(2, PAGE)).is_ok() {}
    let before = (fs.usage(), clone.extents().unwrap(), clone.attr());
    let failing: [&dyn Fn() -> Result<(), FsError>; 5] = [
        &|| clone.write_at(&[7; 10], 100).map(drop),
        &|| clone.write_at(&pattern(3, 3 * PAGE), 4 * PAGE).map(drop),
        &|| clone.unshare(0..64 * PAGE),
        &|| clone.punch(100..109, FreePolicy::Wait(Wait::Never)).map(drop),
        &|| clone.truncate(100, FreePolicy::Wait(Wait::Never)).map(drop),
    ];
    for fails in failing {
        assert!(matches!(fails(), Err(FsError::NoSpace { .. })));
        assert_eq!((clone.extents().unwrap(), clone.attr()), (before.1.clone(), before.2));
        fs.verify().unwrap();
    }
    clone.truncate(8 * PAGE, FreePolicy::Wait(Wait::Never)).unwrap();
    assert!(contents(&file) == pattern(1, 64 * PAGE));
    drop((file, clone, filler));
    for name in ["a", "b", "filler"] {
        unlink(&fs, name);
    }
    fs.verify().unwrap();
}

/// What a killed process leaves of a removed file that has pages twice, and shares others.
#[test]
fn a_removed_file_that_shares_is_freed_when_the_pool_is_opened() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let bytes = pattern(1, 20 * PAGE);
    let file = file_of(&fs, "a", &bytes);
    file.clone_range(0..5 * PAGE, &file, 20 * PAGE, Wait::Never).unwrap();
    let clone = clone_of(&fs, &file, "b");
    unlink(&fs, "a");
    let left = pool.copy();
    let (recovered, found) = left.mount_saying();
    assert_eq!(found.orphans, 1);
    recovered.verify().unwrap();
    assert_eq!(recovered.usage().shared, Pages(5));
    assert!(contents(&common::lookup(&recovered, "b")) == contents(&clone));
    unlink(&recovered, "b");
    recovered.verify().unwrap();
    assert_eq!(recovered.usage().shared, Pages(0));
}
