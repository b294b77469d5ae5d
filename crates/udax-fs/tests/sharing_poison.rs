//! Memory that fails under data which two files share: both lose it, and each heals by itself.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::io::Write as _;

use common::{KIB, MIB, Pool, contents, create, pattern};
use udax_dev::{DaxDevice, PgmapDevice};
use udax_fs::{FileMapping, Filesystem, FreePolicy, FsError, Inode, MountMode};
use udax_mapping::{FaultError, MapMode, Populate};
use udax_mm::sync::Arc;
use udax_mm::{
    Access, FaultService, FileIndex, MediaError, PAGE_SIZE, Pages, PgmapOff, RequestError, Wait,
};

const PAGE: u64 = 4 * KIB;
const LEN: u64 = 8 * PAGE;
/// The page that fails.
const BAD: std::ops::Range<u64> = 3 * PAGE..4 * PAGE;

/// Two files that share all their pages, of which one has failed.
struct World {
    fs: Arc<Filesystem>,
    device: Arc<PgmapDevice>,
    populate: Populate,
    bytes: Vec<u8>,
    files: [Arc<Inode>; 2],
    maps: [FileMapping; 2],
    bad: u64,
    _pool: Pool,
}

impl World {
    /// Both files are mapped for `access`, and shown.
    fn new(service: Option<Arc<FaultService>>, access: Access) -> World {
        let pool = Pool::new(16 * MIB);
        let device = pool.device();
        let populate = if service.is_some() { Populate::Lazy } else { Populate::Eager };
        let (fs, _) = Filesystem::mount(device.clone(), MountMode::ReadWrite, service).unwrap();
        let files = [create(&fs, "a"), create(&fs, "b")];
        let bytes = pattern(1, LEN);
        files[0].write_at(&bytes, 0).unwrap();
        files[0].clone_range(0..LEN, &files[1], 0, Wait::Never).unwrap();
        let mode = MapMode { access, populate, ..MapMode::default() };
        let maps = [&files[0], &files[1]].map(|file| {
            let map = file.map(FileIndex(0), Pages(8), mode).unwrap();
            map.vma().read(0, &mut vec![0; 8 * PAGE_SIZE]).unwrap();
            map
        });
        let bad = page_of(&files[0], 3);
        let world = World { fs, device, populate, bytes, files, maps, bad, _pool: pool };
        world.pgmap().memory_failure(PgmapOff(bad)..PgmapOff(bad + 1));
        world
    }

    fn pgmap(&self) -> udax_mm::PgmapRef {
        self.device.pgmaps().remove(0).try_get_live().unwrap()
    }

    #[track_caller]
    fn verify(&self) {
        self.fs.verify().unwrap();
        self.device.pgmaps().remove(0).verify().unwrap();
    }

    /// Every way to the page of a file is an error.
    #[track_caller]
    fn check_lost(&self, which: usize) {
        let (file, map) = (&self.files[which], &self.maps[which]);
        let touched = map.vma().read(BAD.start + 5, &mut [0]);
        let is_there = matches!(touched, Err(MediaError::Fault { at }) if at == BAD.start + 5);
        assert!(is_there, "F-44: {touched:?}");
        if self.populate == Populate::Lazy {
            check_poisoned(map);
        }
        let read = file.read_at(&mut [0; 9], BAD.start);
        assert!(matches!(read, Err(FsError::Lost { at, .. }) if at == BAD.start), "{read:?}");
        assert_eq!(file.bad_ranges().unwrap(), [BAD]);
        let mut around = [0];
        map.vma().read(BAD.start - 1, &mut around).unwrap();
        map.vma().read(BAD.end, &mut around).unwrap();
    }

    #[track_caller]
    fn check_healed(&self, which: usize, new: &[u8]) {
        let mut expected = self.bytes.clone();
        expected[3 * PAGE_SIZE..4 * PAGE_SIZE].copy_from_slice(new);
        assert_eq!(self.files[which].bad_ranges().unwrap(), []);
        assert!(contents(&self.files[which]) == expected);
        let mut shown = vec![0; expected.len()];
        self.maps[which].vma().read(0, &mut shown).unwrap();
        assert!(shown == expected, "the mapping shows the new bytes");
    }
}

/// The last touch was answered as one of failed memory.
#[track_caller]
fn check_poisoned(map: &FileMapping) {
    let why = map.last_fault_error().expect("a touch failed");
    let is_poison = matches!(*why, FaultError::Request(RequestError::Poisoned(_)));
    assert!(is_poison, "BUS_MCEERR_AR, not any SIGBUS: {why:?}");
}

/// Where page `index` of a file lies.
fn page_of(file: &Inode, index: u64) -> u64 {
    let extents = file.extents().unwrap();
    let extent = extents.iter().rfind(|extent| extent.index.0 <= index).unwrap();
    extent.device.0 + index - extent.index.0
}

/// With lazy mappings where the host permits them, and with eager ones.
fn both(access: Access, test: impl Fn(&World)) {
    match FaultService::new() {
        Ok(service) => test(&World::new(Some(Arc::new(service)), access)),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED lazy mappings: {error}");
        }
    }
    test(&World::new(None, access));
}

/// F-44, F-45: the first gets a page of its own, and the second is left with the page and its mark.
#[test]
fn files_that_share_a_bad_page_lose_it_together_and_heal_one_by_one() {
    both(Access::Read, |world| {
        for which in [0, 1] {
            world.check_lost(which);
        }
        world.verify();

        let new = [2, 3].map(|seed| pattern(seed, PAGE));
        world.files[1].write_at(&new[1], BAD.start).unwrap();
        world.check_healed(1, &new[1]);
        assert_ne!(page_of(&world.files[1], 3), world.bad, "a page of its own");
        world.check_lost(0);
        world.verify();

        world.files[0].write_at(&new[0], BAD.start).unwrap();
        world.check_healed(0, &new[0]);
        world.check_healed(1, &new[1]);
        assert_eq!(page_of(&world.files[0], 3), world.bad, "F-45: in place");
        assert_eq!(world.pgmap().first_poisoned(PgmapOff(0)..PgmapOff(4096)), None);
        world.verify();
    });
}

#[test]
fn what_would_keep_a_part_of_a_shared_bad_page_is_refused_and_names_it() {
    both(Access::Read, |world| {
        let file = &world.files[1];
        let free = world.fs.usage().free;
        let policy = FreePolicy::Wait(Wait::Never);
        let refused = [
            file.write_at(&[9; 8], BAD.start + 8).err(),
            file.write_at(&[9; PAGE_SIZE], BAD.start - PAGE + 8).err(),
            file.unshare(0..LEN).err(),
            file.truncate(BAD.start + 10, policy).err(),
            file.punch(BAD.start + 10..LEN, policy).err(),
        ];
        for (which, why) in refused.into_iter().enumerate() {
            let is_named = matches!(
                why,
                Some(FsError::PartlyLost { start, end }) if (start, end) == (BAD.start, BAD.end)
            );
            assert!(is_named, "F-45: {which}: {why:?}");
        }
        for which in [0, 1] {
            world.check_lost(which);
        }
        world.verify();
        assert_eq!(world.fs.usage().free, free);
        assert_eq!(file.attr().size, LEN);
        let mut around = vec![0; 3 * PAGE_SIZE];
        file.read_at(&mut around, 0).unwrap();
        assert!(around == world.bytes[..3 * PAGE_SIZE], "nothing of it was written");
    });
}

/// A store gives the file a copy, and there is nothing to copy: that is not any failure.
#[test]
fn a_store_through_a_mapping_to_a_shared_bad_page_is_poison() {
    let Ok(service) = FaultService::new() else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: userfaultfd is not permitted");
        return;
    };
    let world = World::new(Some(Arc::new(service)), Access::Write);
    for map in &world.maps {
        let stored = map.vma().write(BAD.start + 16, &[1]);
        assert!(matches!(stored, Err(MediaError::Fault { .. })), "{stored:?}");
        check_poisoned(map);
        map.vma().write(BAD.end, &[7]).unwrap();
    }
    let pinned = world.files[0]
        .pin(FileIndex(3)..FileIndex(4), common::pin_info("device", udax_mm::PinKind::Write));
    let is_poison =
        matches!(pinned, Err(FsError::Fault(FaultError::Request(RequestError::Poisoned(_)))));
    assert!(is_poison, "{pinned:?}");
    for which in [0, 1] {
        world.check_lost(which);
    }
    world.verify();
}

/// Where the pages lie is not the writer's business: it is refused before it changed anything.
#[test]
fn a_write_of_shared_pages_in_two_places_is_one_step() {
    let pool = Pool::new(16 * MIB);
    let device = pool.device();
    let (fs, _) = Filesystem::mount(device.clone(), MountMode::ReadWrite, None).unwrap();
    let [file, between, clone] = ["a", "between", "b"].map(|name| create(&fs, name));
    for seed in 0..2 {
        file.append(&pattern(seed, PAGE)).unwrap();
        between.append(&pattern(9, PAGE)).unwrap();
    }
    assert_ne!(page_of(&file, 1), page_of(&file, 0) + 1, "the pages lie apart");
    file.clone_range(0..2 * PAGE, &clone, 0, Wait::Never).unwrap();
    let bad = PgmapOff(page_of(&file, 1));
    device.pgmaps().remove(0).try_get_live().unwrap().memory_failure(bad..bad + Pages(1));

    let refused = clone.write_at(&[7; 16], PAGE - 8);

    assert!(matches!(refused, Err(FsError::PartlyLost { .. })), "{refused:?}");
    let mut first = vec![0; PAGE_SIZE];
    clone.read_at(&mut first, 0).unwrap();
    assert!(first == pattern(0, PAGE));
    fs.verify().unwrap();
}
