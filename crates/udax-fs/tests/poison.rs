//! Memory that fails: what every file that has it loses, what it keeps, and how it is healed.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use common::{MIB, contents, create, fault_service, lookup, mkdir, pattern, pin_info, unlink};
use udax_dev::{DaxDevice, PgmapDevice};
use udax_fs::{Filesystem, FormatOptions, FreePolicy, FsError, Inode, MountMode};
use udax_mapping::{MapMode, Populate};
use udax_mm::media::{FileMedia, Site};
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{
    Access, Active, DeviceOff, FaultService, FileIndex, Media, MediaError, MediaFacts, MediaRange,
    MemoryType, PAGE_SIZE, Pages, Pgmap, PgmapOff, PinKind, Wait,
};

const PAGE: u64 = 4096;
const NEVER: FreePolicy = FreePolicy::Wait(Wait::Never);

/// Memory whose pages fail when a test says so, and hold again once they are replaced.
#[derive(Debug)]
struct Failing {
    memory: FileMedia,
    failed: Mutex<BTreeSet<u64>>,
}

impl Failing {
    fn check(&self, at: u64, len: u64) -> Result<(), MediaError> {
        let mut failed = self.failed.lock().clone().into_iter();
        match failed.find(|page| page * PAGE < at + len && at < (page + 1) * PAGE) {
            Some(page) => Err(MediaError::Fault { at: at.max(page * PAGE) }),
            None => Ok(()),
        }
    }
}

impl Media for Failing {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn facts(&self) -> MediaFacts {
        self.memory.facts()
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MediaError> {
        self.check(at, u64::try_from(into.len()).unwrap())?;
        self.memory.read(at, into)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        self.check(at, u64::try_from(bytes.len()).unwrap())?;
        self.memory.write(at, bytes)
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), MediaError> {
        self.check(at, len)?;
        self.memory.zero(at, len)
    }

    fn load_u64(&self, at: u64) -> Result<u64, MediaError> {
        self.check(at, 8)?;
        self.memory.load_u64(at)
    }

    fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> {
        self.check(at, 8)?;
        self.memory.store_u64(at, value)
    }

    fn flush(&self, at: u64, len: u64, site: Site) -> Result<(), MediaError> {
        self.memory.flush(at, len, site)
    }

    fn fence(&self, site: Site) -> Result<(), MediaError> {
        self.memory.fence(site)
    }

    fn recover(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        let pages = at / PAGE..(at + u64::try_from(bytes.len()).unwrap()).div_ceil(PAGE);
        self.failed.lock().retain(|page| !pages.contains(page));
        self.memory.recover(at, bytes)
    }

    fn backing(&self) -> Option<(BorrowedFd<'_>, u64)> {
        self.memory.backing()
    }

    fn active(&self) -> &Active {
        self.memory.active()
    }
}

/// A mounted filesystem over memory that can fail.
struct World {
    media: Arc<Failing>,
    device: Arc<PgmapDevice>,
    fs: Arc<Filesystem>,
}

impl World {
    fn new(service: Option<Arc<FaultService>>) -> World {
        let memory = FileMedia::memfd("failing", 16 * MIB).unwrap();
        let media = Arc::new(Failing { memory, failed: Mutex::default() });
        let range = MediaRange { media: media.clone(), start: 0, pages: Pages(16 * MIB / PAGE) };
        let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).unwrap();
        let device = Arc::new(PgmapDevice::new(pgmap));
        Filesystem::format(device.clone(), &FormatOptions::default()).unwrap();
        let (fs, _) = Filesystem::mount(device.clone(), MountMode::ReadWrite, service).unwrap();
        World { media, device, fs }
    }

    /// The memory of these pages of the device fails, and the device says so.
    fn fail(&self, pages: std::ops::Range<u64>) {
        let pgmap = self.device.pgmaps().remove(0).try_get_live().unwrap();
        pgmap.memory_failure(PgmapOff(pages.start)..PgmapOff(pages.end));
    }

    /// The memory of page `index` of a file fails.
    fn fail_in(&self, file: &Inode, index: u64) {
        let page = page_of(file, index);
        self.fail(page..page + 1);
    }

    fn verify(&self) {
        self.fs.verify().unwrap();
        self.device.pgmaps().remove(0).verify().unwrap();
    }

    fn file(&self, called: &str, bytes: &[u8]) -> Arc<Inode> {
        let file = create(&self.fs, called);
        assert_eq!(file.write_at(bytes, 0).unwrap(), bytes.len());
        file
    }
}

/// Where page `index` of a file lies.
fn page_of(file: &Inode, index: u64) -> u64 {
    let index = FileIndex(index);
    let extents = file.extents().unwrap();
    let extent = extents.iter().rfind(|extent| extent.index <= index).unwrap();
    (extent.device + index.since(extent.index)).0
}

/// One world with lazy mappings where the host permits them, and one with eager ones.
fn both(test: impl Fn(&World, Populate)) {
    if let Some(service) = fault_service() {
        test(&World::new(Some(service)), Populate::Lazy);
    }
    test(&World::new(None), Populate::Eager);
}

fn writable(populate: Populate) -> MapMode {
    MapMode { access: Access::Write, populate, ..MapMode::default() }
}

#[track_caller]
fn check_lost(failed: Option<&FsError>, byte: u64) {
    assert!(matches!(failed, Some(FsError::Lost { at, .. }) if *at == byte), "F-44: {failed:?}");
}

#[test]
fn a_failure_reaches_mappings_reads_and_the_list_of_the_file() {
    both(|world, populate| {
        let bytes = pattern(1, 4 * MIB);
        let file = world.file("a", &bytes);
        let other = world.file("b", &bytes);
        let maps: Vec<_> = (0..2)
            .map(|_| file.map(FileIndex(0), Pages(1024), writable(populate)).unwrap())
            .collect();
        let mut byte = [0];
        maps[0].vma().write(601 * PAGE, &[7]).unwrap();
        maps[1].vma().read(600 * PAGE, &mut byte).unwrap();

        world.fail_in(&file, 600);

        for mapped in &maps {
            let lost = mapped.vma().read(600 * PAGE + 5, &mut byte);
            let at_once = matches!(lost, Err(MediaError::Fault { at }) if at == 600 * PAGE + 5);
            assert!(at_once, "I-64: {lost:?}");
            mapped.vma().read(601 * PAGE, &mut byte).unwrap();
            assert_eq!(byte, [7], "what was stored beside it is kept");
            mapped.vma().write(599 * PAGE, &[9]).unwrap();
        }
        check_lost(file.read_at(&mut [0; 10], 600 * PAGE + 90).as_ref().err(), 600 * PAGE + 90);
        let mut around = vec![0; 10 * PAGE_SIZE];
        assert_eq!(file.read_at(&mut around, 598 * PAGE).unwrap(), 2 * PAGE_SIZE, "F-45");
        assert_eq!((around[0], around[PAGE_SIZE]), (bytes[598 * PAGE_SIZE], 9));
        assert_eq!(file.bad_ranges().unwrap(), one(600 * PAGE..601 * PAGE));
        assert_eq!(other.bad_ranges().unwrap(), []);
        assert_eq!(contents(&other), bytes);
        file.sync().unwrap();
        world.verify();
    });
}

/// A list of one range.
fn one(range: std::ops::Range<u64>) -> Vec<std::ops::Range<u64>> {
    std::iter::once(range).collect()
}

#[test]
fn a_file_that_nobody_has_open_learns_of_its_bad_pages_when_it_is_opened() {
    let world = World::new(None);
    let file = world.file("a", &pattern(1, 5 * PAGE + 100));
    let pages = [1, 2, 5].map(|index| page_of(&file, index));
    drop(file);

    for page in pages {
        world.fail(page..page + 1);
    }

    let file = lookup(&world.fs, "a");
    let bad = file.bad_ranges().unwrap();
    assert_eq!(bad, [PAGE..3 * PAGE, 5 * PAGE..5 * PAGE + 100]);
    check_lost(file.read_at(&mut [0; 1], 2 * PAGE).as_ref().err(), 2 * PAGE);
    world.verify();
}

#[test]
fn a_write_of_whole_pages_heals_them_in_place() {
    both(|world, populate| {
        let bytes = pattern(1, 4 * MIB);
        let file = world.file("a", &bytes);
        let mapped = file.map(FileIndex(0), Pages(1024), writable(populate)).unwrap();
        let page = page_of(&file, 600);
        mapped.vma().load_u64(600 * PAGE).unwrap();
        world.fail_in(&file, 600);
        assert!(mapped.vma().load_u64(600 * PAGE).is_err());
        let free = world.fs.usage().free;

        let new = pattern(2, 3 * PAGE);
        assert_eq!(file.write_at(&new, 599 * PAGE).unwrap(), new.len());

        assert_eq!(page_of(&file, 600), page, "F-45: in place");
        assert_eq!(world.fs.usage().free, free);
        assert_eq!(file.bad_ranges().unwrap(), []);
        let mut expected = bytes.clone();
        expected[599 * PAGE_SIZE..602 * PAGE_SIZE].copy_from_slice(&new);
        assert!(contents(&file) == expected);
        let mut seen = vec![0; 3 * PAGE_SIZE];
        mapped.vma().read(599 * PAGE, &mut seen).unwrap();
        assert!(seen == new, "the mapping shows the new bytes");
        world.verify();
    });
}

#[test]
fn a_write_of_a_part_of_a_lost_page_is_refused_and_changes_nothing() {
    let world = World::new(None);
    let bytes = pattern(1, 8 * PAGE);
    let file = world.file("a", &bytes);
    world.fail_in(&file, 4);
    let new = pattern(2, 4 * PAGE);

    for (at, len) in [(4 * PAGE + 1, 8), (3 * PAGE, PAGE_SIZE + 1), (4 * PAGE + 8, 2 * PAGE_SIZE)] {
        let refused = file.write_at(&new[..len], at);
        let is_distinct = matches!(
            refused,
            Err(FsError::PartlyLost { start, end }) if (start, end) == (4 * PAGE, 5 * PAGE)
        );
        assert!(is_distinct, "F-45: {refused:?}");
    }
    let refused = file.punch(3 * PAGE..4 * PAGE + 1, NEVER);
    assert!(matches!(refused, Err(FsError::PartlyLost { .. })), "{refused:?}");

    let mut before = vec![0; 4 * PAGE_SIZE];
    assert_eq!(file.read_at(&mut before, 0).unwrap(), 4 * PAGE_SIZE);
    assert!(before == bytes[..4 * PAGE_SIZE]);
    assert_eq!(file.bad_ranges().unwrap(), one(4 * PAGE..5 * PAGE));
    file.write_at(&new[..9], 5 * PAGE).unwrap();
    world.verify();
}

#[test]
fn the_last_page_is_healed_up_to_the_end_of_the_file() {
    let world = World::new(None);
    let file = world.file("a", &pattern(1, PAGE + 100));
    world.fail_in(&file, 1);
    assert!(matches!(file.write_at(&[1; 99], PAGE), Err(FsError::PartlyLost { .. })));

    file.write_at(&[1; 100], PAGE).unwrap();

    assert_eq!(file.bad_ranges().unwrap(), []);
    file.truncate(2 * PAGE, NEVER).unwrap();
    let bytes = contents(&file);
    assert!(bytes[PAGE_SIZE..PAGE_SIZE + 100].iter().all(|&byte| byte == 1));
    assert!(bytes[PAGE_SIZE + 100..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_pinned_page_is_not_replaced() {
    let world = World::new(None);
    let file = world.file("a", &pattern(1, 4 * PAGE));
    let pin = file.pin(FileIndex(1)..FileIndex(2), pin_info("device", PinKind::Write)).unwrap();
    world.fail_in(&file, 1);

    let refused = file.write_at(&[1; PAGE_SIZE], PAGE);

    assert!(matches!(refused, Err(FsError::Device(_))), "{refused:?}");
    drop(pin);
    file.write_at(&[1; PAGE_SIZE], PAGE).unwrap();
    assert_eq!(file.bad_ranges().unwrap(), []);
}

#[test]
fn a_free_page_that_fails_is_never_allocated() {
    let world = World::new(None);
    let grown = world.file("grown", &pattern(1, 2 * MIB));
    let gone = world.file("gone", &pattern(2, 2 * MIB));
    let (ahead, free) = (page_of(&grown, 511) + 1, page_of(&gone, 100));
    drop(gone);
    unlink(&world.fs, "gone");
    let before = world.fs.usage();

    world.fail(free..free + 3);
    world.fail(ahead..ahead + 1);

    assert_eq!(world.fs.usage().limbo, Pages(4));
    assert_eq!(world.fs.usage().free, before.free - Pages(4), "I-65");
    let mut at = 0;
    let rest = create(&world.fs, "rest");
    while rest.write_at(&[5; PAGE_SIZE], at).is_ok() {
        at += PAGE;
    }
    grown.write_at(&[1], 2 * MIB).unwrap_err();
    assert_eq!(rest.bad_ranges().unwrap(), []);
    let lost: Vec<_> = (free..free + 3).chain([ahead]).collect();
    for extent in rest.extents().unwrap().iter().chain(&grown.extents().unwrap()) {
        let pages = extent.device.0..extent.device.0 + extent.pages.0;
        assert!(lost.iter().all(|page| !pages.contains(page)), "I-65: {extent:?}");
    }
    world.verify();

    let pgmap = world.device.pgmaps().remove(0).try_get_live().unwrap();
    pgmap.recover(free * PAGE, &[0; PAGE_SIZE]).unwrap();
    assert_eq!(world.fs.usage().limbo, Pages(3), "with its mark the page comes back");
    world.verify();
}

/// A page that fails between the last look at it and the free space is not seen there.
#[test]
fn a_page_that_fails_on_its_way_is_found_when_it_is_to_be_allocated() {
    let world = World::new(None);
    let gone = world.file("gone", &pattern(2, 2 * MIB));
    let failed = page_of(&gone, 100);
    drop(gone);
    unlink(&world.fs, "gone");
    let pgmap = world.device.pgmaps().remove(0).try_get_live().unwrap();
    pgmap.poison(PgmapOff(failed));

    let mut at = 0;
    let rest = create(&world.fs, "rest");
    while rest.write_at(&[5; PAGE_SIZE], at).is_ok() {
        at += PAGE;
    }
    assert_eq!(world.fs.usage().limbo, Pages(1), "I-65");
    assert_eq!(rest.bad_ranges().unwrap(), []);
    world.verify();

    pgmap.recover(failed * PAGE, &[0; PAGE_SIZE]).unwrap();
    assert_eq!(world.fs.usage().limbo, Pages(0), "with its mark the page comes back");
    rest.write_at(&[5; PAGE_SIZE], at).unwrap();
    assert_eq!(page_of(&rest, at / PAGE), failed);
    world.verify();
}

#[test]
fn a_lost_page_leaves_its_file_and_stays_out_of_the_free_space() {
    for policy in [NEVER, FreePolicy::Defer] {
        let world = World::new(None);
        let file = world.file("a", &pattern(1, 8 * PAGE));
        let free = world.fs.usage().free;
        let page = page_of(&file, 2);
        world.fail(page..page + 1);
        world.fail_in(&file, 6);

        file.punch(PAGE..4 * PAGE, policy).unwrap();
        file.truncate(5 * PAGE, policy).unwrap();

        assert_eq!(file.bad_ranges().unwrap(), []);
        assert_eq!((world.fs.usage().limbo, world.fs.usage().free), (Pages(2), free + Pages(4)));
        let mut seen = vec![1; PAGE_SIZE];
        assert_eq!(file.read_at(&mut seen, 2 * PAGE).unwrap(), PAGE_SIZE);
        assert!(seen.iter().all(|&byte| byte == 0), "a hole");
        world.verify();
        drop(file);
        unlink(&world.fs, "a");
        world.verify();

        let pgmap = world.device.pgmaps().remove(0).try_get_live().unwrap();
        pgmap.recover(page * PAGE, &[0; PAGE_SIZE]).unwrap();
        assert_eq!(world.fs.usage().limbo, Pages(1));
        world.verify();
    }
}

#[test]
fn a_truncate_into_a_lost_page_does_not_need_its_bytes() {
    let world = World::new(None);
    let file = world.file("a", &pattern(1, 4 * PAGE));
    world.fail_in(&file, 2);

    file.truncate(2 * PAGE + 9, NEVER).unwrap();
    file.truncate(4 * PAGE, NEVER).unwrap();

    assert_eq!(file.bad_ranges().unwrap(), one(2 * PAGE..3 * PAGE));
    file.write_at(&[3; PAGE_SIZE], 2 * PAGE).unwrap();
    assert!(contents(&file)[2 * PAGE_SIZE..3 * PAGE_SIZE].iter().all(|&byte| byte == 3));
    world.verify();
}

#[test]
fn a_file_with_lost_bytes_is_not_frozen() {
    let world = World::new(None);
    let file = world.file("a", &pattern(1, 4 * PAGE));
    world.fail_in(&file, 2);

    check_lost(file.freeze(Wait::Never).as_ref().err(), 2 * PAGE);

    file.write_at(&[3; PAGE_SIZE], 2 * PAGE).unwrap();
    file.freeze(Wait::Never).unwrap();
}

/// What is written after memory of a structure failed would rest on what nobody can read.
#[track_caller]
fn check_stopped(world: &World, object: &str) {
    let refused = world.file_or("late");
    let Err(FsError::Stopped(why)) = refused else { panic!("{object}: {refused:?}") };
    assert!(why.contains(object), "{why}");
}

impl World {
    fn file_or(&self, called: &str) -> Result<Arc<Inode>, FsError> {
        let root = self.fs.root().unwrap();
        self.fs.create(&root, &common::name(called), udax_fs::Kind::File, 0o644, 0, 0)
    }
}

#[test]
fn nothing_is_written_once_memory_of_a_structure_failed() {
    let last = 16 * MIB / PAGE - 1;
    for page in [0, 1, 2, last] {
        let world = World::new(None);
        world.fail(page..page + 1);
        check_stopped(&world, "superblock");
    }
    let world = World::new(None);
    let dir = mkdir(&world.fs, &world.fs.root().unwrap(), "dir");
    world.fs.create(&dir, &common::name("x"), udax_fs::Kind::File, 0o644, 0, 0).unwrap();
    world.fail(page_of(&dir, 0)..page_of(&dir, 0) + 1);
    check_stopped(&world, "a directory");
}

#[test]
fn the_node_of_a_block_tree_is_a_structure() {
    let world = World::new(None);
    let file = create(&world.fs, "sparse");
    let before: BTreeSet<u64> = free_pages(&world);
    file.write_at(&[1], 0).unwrap();
    file.write_at(&[1], 600 * PAGE).unwrap();
    let data = [page_of(&file, 0), page_of(&file, 600)];
    let after = free_pages(&world);
    let node = before.difference(&after).find(|page| !data.contains(page)).unwrap();

    world.fail(*node..node + 1);

    check_stopped(&world, "the block tree");
}

/// Which pages a probe can have, one by one.
fn free_pages(world: &World) -> BTreeSet<u64> {
    let file = create(&world.fs, "probe");
    let mut at = 0;
    while file.write_at(&[0; PAGE_SIZE], at).is_ok() {
        at += PAGE;
    }
    let extents = file.extents().unwrap();
    let pages = extents.iter().flat_map(|extent| extent.device.0..(extent.device + extent.pages).0);
    let pages = pages.collect();
    drop(file);
    unlink(&world.fs, "probe");
    pages
}

#[test]
fn a_failure_that_a_read_meets_is_told_to_every_mapping() {
    both(|world, populate| {
        let file = world.file("a", &pattern(1, 8 * PAGE));
        let mapped = file.map(FileIndex(0), Pages(8), writable(populate)).unwrap();
        mapped.vma().load_u64(3 * PAGE).unwrap();
        let page = page_of(&file, 3);
        world.media.failed.lock().insert(page);

        let read = file.read_at(&mut vec![0; 8 * PAGE_SIZE], 0);

        assert_eq!(read.unwrap(), 3 * PAGE_SIZE, "what is good before it");
        assert_eq!(file.bad_ranges().unwrap(), one(3 * PAGE..4 * PAGE));
        assert!(mapped.vma().load_u64(3 * PAGE).is_err(), "I-64");
        file.write_at(&[6; PAGE_SIZE], 3 * PAGE).unwrap();
        assert_eq!(mapped.vma().load_u64(3 * PAGE).unwrap(), u64::from_le_bytes([6; 8]));
        world.verify();
    });
}

#[test]
fn a_failure_that_a_write_meets_is_healed_or_refused_by_it() {
    let world = World::new(None);
    let file = world.file("a", &pattern(1, 8 * PAGE));
    let pages = [page_of(&file, 3), page_of(&file, 5)];
    world.media.failed.lock().extend(pages);

    let refused = file.write_at(&[1], 3 * PAGE + 7);
    assert!(matches!(refused, Err(FsError::PartlyLost { .. })), "{refused:?}");
    file.write_at(&[1; PAGE_SIZE], 5 * PAGE).unwrap();

    assert_eq!(file.bad_ranges().unwrap(), one(3 * PAGE..4 * PAGE));
}

#[test]
fn a_removed_device_is_told_of_no_failure() {
    let world = World::new(None);
    let file = world.file("a", &pattern(1, 4 * PAGE));
    let pgmap = world.device.pgmaps().remove(0).try_get_live().unwrap();
    let page = page_of(&file, 0);
    assert!(world.device.kill(Wait::Never).is_err(), "the test has a reference");

    pgmap.memory_failure(PgmapOff(page)..PgmapOff(page + 1));

    assert!(world.device.direct_access(DeviceOff(page), Pages(1)).is_err());
}
