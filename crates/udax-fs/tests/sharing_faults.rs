//! Stores and pins through mappings of shared data: the file moves to a copy, page by page.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::io::Write as _;
use std::thread;

use common::{KIB, MIB, Pool, contents, create, pattern, pin_info, shared_pages};
use udax_dev::{DaxDevice, PgmapDevice};
use udax_fs::{FileMapping, Filesystem, FreePolicy, Inode, MountMode};
use udax_mapping::{MapMode, Populate, Sharing};
use udax_mm::sync::Arc;
use udax_mm::{Access, FaultService, FileIndex, Pages, PinKind, Wait};

const PAGE: u64 = 4 * KIB;
const LEN: u64 = 40 * PAGE;

/// Two files that share all their pages, on a pool whose mappings are lazy or eager.
struct World {
    fs: Arc<Filesystem>,
    device: Arc<PgmapDevice>,
    populate: Populate,
    bytes: Vec<u8>,
    file: Arc<Inode>,
    clone: Arc<Inode>,
    _pool: Pool,
}

impl World {
    fn new(service: Option<Arc<FaultService>>, len: u64) -> World {
        let pool = Pool::new(16 * MIB);
        let device = pool.device();
        let populate = if service.is_some() { Populate::Lazy } else { Populate::Eager };
        let (fs, _) = Filesystem::mount(device.clone(), MountMode::ReadWrite, service).unwrap();
        let (file, clone) = (create(&fs, "a"), create(&fs, "b"));
        let bytes = pattern(1, len);
        file.write_at(&bytes, 0).unwrap();
        file.clone_range(0..len, &clone, 0, Wait::Never).unwrap();
        World { fs, device, populate, bytes, file, clone, _pool: pool }
    }

    fn map(&self, file: &Arc<Inode>, access: Access) -> FileMapping {
        let pages = Pages::holding(file.attr().size);
        let mode = MapMode { access, populate: self.populate, ..MapMode::default() };
        file.map(FileIndex(0), pages, mode).unwrap()
    }

    fn map_private(&self, file: &Arc<Inode>) -> FileMapping {
        let (access, sharing) = (Access::Write, Sharing::Private);
        let mode = MapMode { access, sharing, populate: self.populate, ..MapMode::default() };
        file.map(FileIndex(0), Pages::holding(file.attr().size), mode).unwrap()
    }

    fn over(&self, at: u64, bytes: &[u8]) -> Vec<u8> {
        let mut new = self.bytes.clone();
        let at = usize::try_from(at).unwrap();
        new[at..at + bytes.len()].copy_from_slice(bytes);
        new
    }
}

/// Runs a test with lazy mappings, where they are permitted, and with eager ones.
fn both(len: u64, test: impl Fn(&World)) {
    match FaultService::new() {
        Ok(service) => test(&World::new(Some(Arc::new(service)), len)),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED lazy mappings: {error}");
        }
    }
    test(&World::new(None, len));
}

fn shown(map: &FileMapping, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    map.vma().read(0, &mut bytes).unwrap();
    bytes
}

/// F-28, I-36.
#[test]
fn a_store_through_a_mapping_changes_one_of_the_files_that_share_a_page() {
    both(LEN, |world| {
        let map = world.map(&world.clone, Access::Write);
        assert!(shown(&map, LEN) == world.bytes);
        map.vma().write(3 * PAGE + 100, &[7; 200]).unwrap();
        let expected = world.over(3 * PAGE + 100, &[7; 200]);
        assert!(shown(&map, LEN) == expected);
        assert!(contents(&world.clone) == expected && contents(&world.file) == world.bytes);
        if world.populate == Populate::Lazy {
            assert_eq!(shared_pages(&world.clone), 39, "one page was copied");
        }
        world.fs.verify().unwrap();
        world.clone.sync().unwrap();
        world.fs.verify().unwrap();
    });
}

#[test]
fn every_mapping_of_a_file_shows_the_copy() {
    both(LEN, |world| {
        let (reader, writer) =
            (world.map(&world.clone, Access::Read), world.map(&world.clone, Access::Write));
        let source = world.map(&world.file, Access::Read);
        assert!(shown(&reader, LEN) == world.bytes && shown(&source, LEN) == world.bytes);
        writer.vma().write(8 * PAGE - 4, &[7; 8]).unwrap();
        let expected = world.over(8 * PAGE - 4, &[7; 8]);
        assert!(shown(&reader, LEN) == expected && shown(&writer, LEN) == expected);
        assert!(shown(&source, LEN) == world.bytes);
        world.fs.verify().unwrap();
    });
}

/// F-22: what is stored privately is the host's copy, and the files share on.
#[test]
fn a_private_store_to_shared_data_changes_no_file_and_ends_no_sharing() {
    both(LEN, |world| {
        let (private, untouched) =
            (world.map_private(&world.clone), world.map_private(&world.clone));
        assert!(shown(&private, LEN) == world.bytes);
        let used = world.fs.usage().used;

        private.vma().write(3 * PAGE + 100, &[7; 200]).unwrap();
        untouched.vma().write(3 * PAGE + 100, &[7; 200]).unwrap();

        let mut expected = world.over(3 * PAGE + 100, &[7; 200]);
        assert!(shown(&private, LEN) == expected && shown(&untouched, LEN) == expected);
        assert!(contents(&world.clone) == world.bytes && contents(&world.file) == world.bytes);
        assert_eq!((shared_pages(&world.clone), shared_pages(&world.file)), (40, 40));
        assert_eq!((world.fs.usage().used, world.clone.stats().copies), (used, 0));

        // The page that was copied is the mapping's own; the next is the file's.
        world.clone.write_at(&[8; 8192], 3 * PAGE).unwrap();
        world.file.write_at(&[9; 4096], 20 * PAGE).unwrap();
        expected[4 * 4096..5 * 4096].fill(8);
        assert!(shown(&private, LEN) == expected && shown(&untouched, LEN) == expected);
        assert!(contents(&world.clone) == world.over(3 * PAGE, &[8; 8192]));
        assert!(contents(&world.file) == world.over(20 * PAGE, &[9; 4096]));
        assert_eq!(shared_pages(&world.clone), 37);
        world.fs.verify().unwrap();
    });
}

/// F-22: a store through a shared mapping shows in the pages that a private one has not copied.
#[test]
fn a_shared_store_to_shared_data_shows_in_a_private_mapping_where_it_has_no_copy() {
    both(LEN, |world| {
        let (private, writer) =
            (world.map_private(&world.clone), world.map(&world.clone, Access::Write));
        private.vma().write(5 * PAGE - 2, &[7; 2]).unwrap();
        assert!(shown(&private, LEN) == world.over(5 * PAGE - 2, &[7; 2]));

        writer.vma().write(5 * PAGE - 2, &[8; 4]).unwrap();

        assert!(shown(&private, LEN) == world.over(5 * PAGE - 2, &[7, 7, 8, 8]));
        assert!(shown(&writer, LEN) == world.over(5 * PAGE - 2, &[8; 4]));
        drop(writer);
        world.clone.sync().unwrap();
        drop(private);
        assert!(contents(&world.clone) == world.over(5 * PAGE - 2, &[8; 4]));
        assert!(contents(&world.file) == world.bytes);
        world.fs.verify().unwrap();
    });
}

/// I-44: no mapping shows what the file had before the write.
#[test]
fn a_write_to_shared_data_shows_in_mappings() {
    both(LEN, |world| {
        let map = world.map(&world.clone, Access::Read);
        assert!(shown(&map, LEN) == world.bytes);
        for (at, len) in [(10, 20), (5 * PAGE, PAGE), (9 * PAGE - 1, 2 * PAGE)] {
            let new = pattern(at, len);
            world.clone.write_at(&new, at).unwrap();
            assert!(shown(&map, LEN) == contents(&world.clone));
        }
        assert!(contents(&world.file) == world.bytes);
        world.fs.verify().unwrap();
    });
}

/// B-30, I-46: a page that was stored to and is dirty goes too, when the file gets other data.
#[test]
fn what_was_stored_to_the_target_of_a_clone_is_gone() {
    both(LEN, |world| {
        let map = world.map(&world.clone, Access::Write);
        map.vma().write(0, &[7; 9000]).unwrap();
        world.file.clone_range(0..LEN, &world.clone, 0, Wait::Never).unwrap();
        assert!(shown(&map, LEN) == world.bytes && contents(&world.clone) == world.bytes);
        world.clone.sync().unwrap();
        assert!(contents(&world.file) == world.bytes, "nothing was written back to the source");
        world.fs.verify().unwrap();
    });
}

#[test]
fn a_clone_has_what_was_stored_through_mappings_of_the_source_before_and_nothing_of_after() {
    both(LEN, |world| {
        world.file.unshare(0..LEN).unwrap();
        let map = world.map(&world.file, Access::Write);
        map.vma().write(100, &[7; 5000]).unwrap();
        world.file.clone_range(0..LEN, &world.clone, 0, Wait::Never).unwrap();
        map.vma().write(50, &vec![8; 20_000]).unwrap();
        assert!(contents(&world.clone) == world.over(100, &[7; 5000]));
        let after = world.over(100, &[7; 5000]);
        let mut after = after;
        after[50..20_050].fill(8);
        assert!(contents(&world.file) == after);
        world.fs.verify().unwrap();
    });
}

#[test]
fn a_sharer_that_is_mapped_keeps_its_pages_when_the_other_goes() {
    both(LEN, |world| {
        let map = world.map(&world.clone, Access::Read);
        assert!(shown(&map, LEN) == world.bytes);
        world.file.truncate(0, FreePolicy::Wait(Wait::Never)).unwrap();
        let other = create(&world.fs, "c");
        other.write_at(&pattern(9, MIB), 0).unwrap();
        assert!(shown(&map, LEN) == world.bytes);
        drop(map);
        // It is the only one now, and stores in place.
        let places = world.clone.extents().unwrap();
        let map = world.map(&world.clone, Access::Write);
        map.vma().write(0, &[7; 9000]).unwrap();
        assert_eq!(world.clone.extents().unwrap(), places);
        world.fs.verify().unwrap();
    });
}

#[test]
fn a_page_that_is_shown_for_reading_is_stored_to_in_place_once_the_file_has_it_alone() {
    both(LEN, |world| {
        let map = world.map(&world.clone, Access::Write);
        assert!(shown(&map, LEN) == world.bytes);
        let shared_before = shared_pages(&world.clone);
        world.file.truncate(0, FreePolicy::Wait(Wait::Never)).unwrap();
        let places = world.clone.extents().unwrap();
        map.vma().write(7 * PAGE, &[7; 100]).unwrap();
        assert_eq!(world.clone.extents().unwrap().len(), places.len(), "{shared_before} shared");
        assert!(contents(&world.clone) == world.over(7 * PAGE, &[7; 100]));
        world.fs.verify().unwrap();
    });
}

/// O-3: the failed copy leaves nothing dirty.
#[test]
fn a_store_whose_copy_fails_is_refused_and_changes_nothing() {
    let Ok(service) = FaultService::new() else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: lazy mappings are not permitted");
        return;
    };
    let world = World::new(Some(Arc::new(service)), LEN);
    let extent = world.file.extents().unwrap()[0];
    let bad = extent.device + FileIndex(5).since(extent.index);
    let span = world.device.direct_access(bad, Pages(1)).unwrap();
    span.pgmap().poison(span.at());
    let before = (world.fs.usage(), world.clone.extents().unwrap());
    let map = world.map(&world.clone, Access::Write);
    assert!(map.vma().write(5 * PAGE + 8, &[7; 8]).is_err());
    assert_eq!((world.fs.usage(), world.clone.extents().unwrap()), before);
    map.vma().write(6 * PAGE, &[7; 8]).unwrap();
    drop(map);
    world.fs.verify().unwrap();
    span.pgmap().clear_poison(span.at());
    assert!(contents(&world.clone) == world.over(6 * PAGE, &[7; 8]));
    assert!(contents(&world.file) == world.bytes);
}

#[test]
fn a_pin_to_write_gets_pages_of_the_file_alone() {
    both(LEN, |world| {
        let range = FileIndex(3)..FileIndex(6);
        let pin = world.clone.pin(range, pin_info("device", PinKind::Write)).unwrap();
        pin.write(10, &[7; 100]).unwrap();
        assert!(contents(&world.clone) == world.over(3 * PAGE + 10, &[7; 100]));
        assert!(contents(&world.file) == world.bytes);
        assert_eq!(shared_pages(&world.clone), 37);
        world.fs.verify().unwrap();
    });
}

#[test]
fn a_pin_to_read_shared_data_keeps_what_it_has_when_the_file_moves_away() {
    both(LEN, |world| {
        let range = FileIndex(3)..FileIndex(6);
        let pin = world.clone.pin(range, pin_info("device", PinKind::Read)).unwrap();
        let map = world.map(&world.clone, Access::Write);
        map.vma().write(4 * PAGE, &[7; 100]).unwrap();
        world.clone.write_at(&[8; 100], 5 * PAGE).unwrap();
        let mut seen = vec![0; usize::try_from(3 * PAGE).unwrap()];
        pin.read(0, &mut seen).unwrap();
        assert!(seen[..] == world.bytes[usize::try_from(3 * PAGE).unwrap()..][..seen.len()]);
        assert!(contents(&world.file) == world.bytes);
        world.fs.verify().unwrap();
        drop((map, pin));
        world.clone.truncate(0, FreePolicy::Wait(Wait::Never)).unwrap();
        world.fs.verify().unwrap();
        assert_eq!(world.fs.usage().limbo, Pages(0));
    });
}

#[test]
fn a_2_mib_extent_that_is_shared_is_copied_by_pages() {
    both(4 * MIB, |world| {
        let reader = world.map(&world.clone, Access::Read);
        assert!(shown(&reader, 4 * MIB) == world.bytes);
        let free = world.fs.usage().free;
        world.clone.write_at(&[7; 10], 100 * PAGE).unwrap();
        if world.populate == Populate::Lazy {
            let map = world.map(&world.clone, Access::Write);
            map.vma().write(700 * PAGE, &[7; 10]).unwrap();
            let taken = free - world.fs.usage().free;
            assert!(taken < Pages(6), "{taken} pages: two of data, and nodes");
        }
        assert!(shown(&reader, 4 * MIB) == contents(&world.clone));
        assert!(contents(&world.file) == world.bytes);
        world.fs.verify().unwrap();
    });
}

/// I-36: of a block of which the other file has copied a page, one page is the file's own, and no
/// other becomes so with it.
#[test]
fn a_page_that_became_the_files_own_makes_no_other_one_writable() {
    both(4 * MIB, |world| {
        let reader = world.map(&world.file, Access::Read);
        assert!(shown(&reader, 4 * MIB) == world.bytes);
        world.clone.write_at(&[7; 10], 100 * PAGE).unwrap();
        let [writer, other] = [(); 2].map(|()| world.map(&world.file, Access::Write));
        for (map, page, byte) in
            [(&writer, 100, 1), (&writer, 101, 2), (&other, 101, 3), (&other, 102, 4)]
        {
            map.vma().write(page * PAGE, &[byte; 10]).unwrap();
        }
        world.fs.verify().unwrap();
        assert!(contents(&world.clone) == world.over(100 * PAGE, &[7; 10]));
        for map in [&reader, &writer, &other] {
            assert!(shown(map, 4 * MIB) == contents(&world.file));
        }
        world.file.sync().unwrap();
        world.fs.verify().unwrap();
    });
}

/// A page that is a file's own is not counted with pages of others: who maps those is in nobody's
/// way.
#[test]
fn who_maps_what_is_left_of_a_shared_block_keeps_no_page_of_the_other_file() {
    both(4 * MIB, |world| {
        let reader = world.map(&world.file, Access::Read);
        assert!(shown(&reader, 4 * MIB) == world.bytes);
        world.clone.write_at(&[7; 10], 100 * PAGE).unwrap();
        let other = world.map(&world.clone, Access::Read);
        assert!(shown(&other, 4 * MIB) == contents(&world.clone));
        drop(reader);
        world.file.truncate(0, FreePolicy::Wait(Wait::Never)).unwrap();
        assert!(shown(&other, 4 * MIB) == contents(&world.clone));
        world.fs.verify().unwrap();
    });
}

/// Who shows shared data for reading never shows the place that a file has left (rule 28).
#[test]
fn readers_never_see_a_page_that_the_file_has_left() {
    let Ok(service) = FaultService::new() else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: lazy mappings are not permitted");
        return;
    };
    let world = World::new(Some(Arc::new(service)), LEN);
    let writer = world.map(&world.clone, Access::Write);
    for round in 1..=40_u8 {
        world.file.clone_range(0..LEN, &world.clone, 0, Wait::Forever).unwrap();
        thread::scope(|scope| {
            for first in 0..2 {
                let writer = &writer;
                scope.spawn(move || {
                    for page in (first..40).step_by(2) {
                        writer.vma().write(page * PAGE, &[round; 8]).unwrap();
                    }
                });
            }
            scope.spawn(|| {
                // A new mapping faults, in runs, while the pages move.
                let reader = world.map(&world.clone, Access::Read);
                shown(&reader, LEN);
                let pin =
                    world.clone.pin(FileIndex(0)..FileIndex(40), pin_info("device", PinKind::Read));
                drop(pin.unwrap());
            });
            scope.spawn(|| {
                for _ in 0..10 {
                    let mut seen = vec![0; usize::try_from(LEN).unwrap()];
                    world.clone.read_at(&mut seen, 0).unwrap();
                }
            });
        });
        let reader = world.map(&world.clone, Access::Read);
        let found = shown(&reader, LEN);
        for (page, bytes) in found.chunks(4096).enumerate() {
            assert_eq!(bytes[..8], [round; 8], "page {page}");
            assert!(bytes[8..] == world.bytes[page * 4096 + 8..(page + 1) * 4096]);
        }
        assert!(found == contents(&world.clone));
        assert!(contents(&world.file) == world.bytes);
        world.fs.verify().unwrap();
    }
}

/// Nobody faults for a store to a page that the file has come to have alone.
///
/// Kills: a protected copy that outlives the sharing.
#[test]
fn a_copy_that_was_read_is_no_more_shown_when_the_page_is_the_files_own() {
    type Change = fn(&World, &FileMapping);
    let changes: [Change; 3] = [
        |world, _| assert_eq!(world.clone.write_at(&[9; 8], PAGE).unwrap(), 8),
        |_, other| other.vma().write(PAGE, &[9; 8]).unwrap(),
        |world, _| {
            let page = FileIndex(1)..FileIndex(2);
            world
                .clone
                .pin(page, pin_info("nic", PinKind::Write))
                .unwrap()
                .write(0, &[9; 8])
                .unwrap();
        },
    ];
    for change in changes {
        both(LEN, |world| {
            let (map, other) =
                (world.map(&world.clone, Access::Write), world.map(&world.clone, Access::Write));
            assert!(shown(&map, LEN) == world.bytes);
            world.file.truncate(0, FreePolicy::Defer).unwrap();
            assert_eq!(shared_pages(&world.clone), 0);

            change(world, &other);

            assert!(shown(&map, LEN) == world.over(PAGE, &[9; 8]), "I-44");
            assert!(contents(&world.clone) == world.over(PAGE, &[9; 8]));
        });
    }
}

/// What a mapping comes to show is claimed by nobody, also where it is filled before the clone
/// returns.
/// A page at the edge of a punch or a shrink, which is zeroed in place, too.
#[test]
fn what_is_zeroed_in_a_page_that_became_the_files_own_is_zero_in_copies_of_it() {
    both(LEN, |world| {
        let map = world.map(&world.clone, Access::Write);
        assert!(shown(&map, LEN) == world.bytes);
        world.file.truncate(0, FreePolicy::Wait(Wait::Never)).unwrap();
        assert_eq!(shared_pages(&world.clone), 0);

        let never = FreePolicy::Wait(Wait::Never);
        world.clone.punch(3 * PAGE + 100..3 * PAGE + 200, never).unwrap();
        world.clone.punch(5 * PAGE - 7..6 * PAGE + 9, never).unwrap();
        assert!(shown(&map, LEN) == contents(&world.clone));
        let end = 20 * PAGE + 50;
        world.clone.truncate(end, never).unwrap();
        let mut expected = contents(&world.clone);
        expected.resize(usize::try_from(21 * PAGE).unwrap(), 0);
        assert!(shown(&map, 21 * PAGE) == expected);
        world.fs.verify().unwrap();
    });
}

#[test]
fn mappings_show_what_was_cloned_under_them() {
    both(LEN, |world| {
        let maps = [&world.file, &world.clone].map(|file| world.map(file, Access::Read));
        for (seed, from, to) in [(2, 0, 1), (3, 1, 0)] {
            let files = [&world.file, &world.clone];
            let new = pattern(seed, LEN);
            files[from].write_at(&new, 0).unwrap();
            assert!(shown(&maps[from], LEN) == new);

            files[from].clone_range(0..LEN, files[to], 0, Wait::Never).unwrap();

            assert!(shown(&maps[to], LEN) == new && shown(&maps[from], LEN) == new);
            assert_eq!(shared_pages(files[to]), 40);
        }
        world.fs.verify().unwrap();
    });
}

/// The number in every page of the first half of a file, and in the pages of the other half that
/// come from it.
fn number(file: &Inode, page: u64) -> u64 {
    let mut bytes = [0; 8];
    assert_eq!(file.read_at(&mut bytes, page * PAGE).unwrap(), 8);
    u64::from_le_bytes(bytes)
}

/// Clones the first half of `from` over the second of `to` while others store to both: each page
/// holds what it held at some moment of the clone.
fn clone_again_and_again(from: &Inode, to: &Inode) {
    for round in 0..60 {
        let page = round % 20;
        let before = number(from, page);
        from.clone_range(0..20 * PAGE, to, 20 * PAGE, Wait::Forever).unwrap();
        let (cloned, after) = (number(to, 20 + page), number(from, page));
        assert!(before <= cloned && cloned <= after, "F-37: {before} {cloned} {after}");
    }
}

/// Stores ever larger numbers to the first half of a file, by writes and through a mapping.
fn store_again_and_again(file: &Inode, map: &FileMapping) {
    for number in 1..=60_u64 {
        for page in 0..20 {
            if (number + page).is_multiple_of(2) {
                file.write_at(&number.to_le_bytes(), page * PAGE).unwrap();
            } else {
                // An eager mapping shows SIGBUS for a moment while pages leave it.
                while map.vma().store_u64(page * PAGE, number).is_err() {
                    assert_eq!(map.populate(), Populate::Eager);
                    thread::yield_now();
                }
            }
        }
    }
}

/// F-37.
#[test]
fn two_clones_in_opposite_directions_do_not_block_each_other() {
    both(LEN, |world| {
        let zeros = vec![0; usize::try_from(LEN).unwrap()];
        let files = [&world.file, &world.clone];
        for file in files {
            assert_eq!(file.write_at(&zeros, 0).unwrap(), zeros.len());
        }
        let maps = files.map(|file| world.map(file, Access::Write));
        thread::scope(|scope| {
            scope.spawn(|| clone_again_and_again(files[0], files[1]));
            scope.spawn(|| clone_again_and_again(files[1], files[0]));
            scope.spawn(|| store_again_and_again(files[0], &maps[0]));
            scope.spawn(|| store_again_and_again(files[1], &maps[1]));
        });
        for file in files {
            assert!((0..20).all(|page| number(file, page) == 60));
        }
        clone_again_and_again(files[0], files[1]);
        clone_again_and_again(files[1], files[0]);
        for (file, map) in files.into_iter().zip(&maps) {
            assert!((0..40).all(|page| number(file, page) == 60));
            assert!(shown(map, LEN) == contents(file));
        }
        world.fs.verify().unwrap();
    });
}

/// F-55: the mapping of a file counts what stores and pins copy, and nothing for the other file.
#[test]
fn pages_that_a_store_and_a_pin_copy_are_counted() {
    let world = World::new(None, LEN);
    let device = pin_info("device", PinKind::Write);
    drop(world.clone.pin(FileIndex(0)..FileIndex(2), device.clone()).unwrap());
    drop(world.clone.pin(FileIndex(1)..FileIndex(3), device).unwrap());
    assert_eq!((world.clone.stats().copies, world.clone.stats().pins), (3, 2));
    assert_eq!((world.file.stats().copies, world.file.stats().pins), (0, 0));
}
