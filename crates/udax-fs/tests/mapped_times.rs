//! The times of a file whose bytes change without a call: through mappings, and by devices. They move
//! once a sync or flush finds what may have been stored; who caches the file goes by them.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{MIB, Pool, create, lookup, pattern, pin_info};
use udax_fs::{FileMapping, Filesystem, Inode, SetAttr};
use udax_mapping::{MapMode, Sharing};
use udax_mm::sync::Arc;
use udax_mm::{Access, FileIndex, Pages, PinKind, Wait};

const FOR_STORES: MapMode = MapMode {
    access: Access::Write,
    sharing: Sharing::Shared,
    populate: udax_mapping::Populate::Lazy,
    floor: udax_mm::Order::Base,
};

/// A file of four pages whose times are on the medium.
fn file(fs: &Filesystem) -> Arc<Inode> {
    let file = create(fs, "a");
    file.write_at(&pattern(1, 4 * 4096), 0).unwrap();
    file.sync().unwrap();
    file
}

fn mapped(file: &Arc<Inode>, mode: MapMode) -> FileMapping {
    file.map(FileIndex(0), Pages(4), mode).unwrap()
}

fn set_mtime(file: &Inode, mtime: i64) {
    file.set_attr(&SetAttr { mtime: Some(mtime), ..SetAttr::default() }).unwrap();
}

/// Runs `run`, and says whether the time of the last change moved.
fn moves(file: &Inode, run: impl FnOnce()) -> bool {
    let before = file.attr();
    run();
    let after = file.attr();
    assert_eq!(after.mtime > before.mtime, after.mtime != before.mtime, "never back");
    assert!(after.mtime == before.mtime || after.ctime > before.ctime);
    after.mtime != before.mtime
}

#[test]
fn a_sync_that_finds_stores_moves_the_times_durably() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file(&fs);
    let map = mapped(&file, FOR_STORES);
    for value in [1, 2] {
        map.vma().store_u64(64, value).unwrap();
        assert!(
            moves(&file, || file.sync().unwrap()),
            "store {value}: no fault tells of the second"
        );
    }
    // What a crash would leave is in the file as it is now.
    let on_the_medium = lookup(&pool.copy().mount(), "a").attr().mtime;
    assert_eq!(on_the_medium, file.attr().mtime);
    drop(map);
    file.sync().unwrap();
    assert!(!moves(&file, || file.sync().unwrap()), "nobody can store any more");
    fs.verify().unwrap();
}

#[test]
fn a_flush_that_finds_stores_moves_the_times() {
    let fs = Pool::new(8 * MIB).mount();
    let file = file(&fs);
    let map = mapped(&file, FOR_STORES);
    for value in [1, 2] {
        map.vma().store_u64(64, value).unwrap();
        assert!(moves(&file, || file.flush(64..72).unwrap()), "store {value}");
    }
    fs.verify().unwrap();
}

#[test]
fn mappings_that_change_nothing_move_no_time() {
    let fs = Pool::new(8 * MIB).mount();
    let file = file(&fs);
    let private = MapMode { sharing: Sharing::Private, ..FOR_STORES };
    let (loads, own) = (mapped(&file, MapMode::default()), mapped(&file, private));
    let _device = file.pin(FileIndex(0)..FileIndex(4), pin_info("device", PinKind::Read)).unwrap();
    let is_moved = moves(&file, || {
        loads.vma().load_u64(64).unwrap();
        own.vma().store_u64(64, 1).unwrap();
        file.flush(0..4 * 4096).unwrap();
        file.sync().unwrap();
    });
    assert!(!is_moved);
}

#[test]
fn what_a_device_may_have_stored_moves_the_times() {
    let fs = Pool::new(8 * MIB).mount();
    let file = file(&fs);
    let pin = file.pin(FileIndex(1)..FileIndex(2), pin_info("device", PinKind::Write)).unwrap();
    for value in [1, 2] {
        pin.write(0, &[value; 8]).unwrap();
        assert!(moves(&file, || file.sync().unwrap()), "store {value}");
    }
}

/// Of what was stored after the last sync, as well.
#[test]
fn a_file_that_is_closed_without_a_sync_keeps_the_time_of_its_stores() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    for is_synced in [false, true] {
        let file = create(&fs, if is_synced { "synced" } else { "not" });
        file.write_at(&pattern(1, 4 * 4096), 0).unwrap();
        file.sync().unwrap();
        let map = mapped(&file, FOR_STORES);
        map.vma().store_u64(64, 1).unwrap();
        if is_synced {
            file.sync().unwrap();
        }
        let before = file.attr().mtime;
        map.vma().store_u64(64, 2).unwrap();
        drop((map, file));
        let file = lookup(&fs, if is_synced { "synced" } else { "not" });
        assert!(file.attr().mtime > before, "synced before: {is_synced}");
    }
}

/// Who copies a file by a mapping sets its time last.
#[test]
fn a_time_that_was_set_stays_unless_the_file_can_be_stored_to_at_a_sync() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file(&fs);
    let map = mapped(&file, FOR_STORES);
    map.vma().store_u64(64, 1).unwrap();
    file.flush(64..72).unwrap();
    set_mtime(&file, 5);
    drop(map);
    file.sync().unwrap();
    assert_eq!(file.attr().mtime, 5);

    let map = mapped(&file, FOR_STORES);
    map.vma().store_u64(64, 2).unwrap();
    set_mtime(&file, 6);
    map.vma().store_u64(64, 3).unwrap();
    assert!(moves(&file, || file.sync().unwrap()));
    set_mtime(&file, 7);
    assert!(moves(&file, || file.flush(64..72).unwrap()));
    let is_moved = moves(&file, || {
        map.vma().store_u64(64, 4).unwrap();
        drop(map);
        file.sync().unwrap();
    });
    assert!(is_moved, "stored after the flush");
}

#[test]
fn a_file_that_is_frozen_after_stores_has_their_time_for_good() {
    let fs = Pool::new(8 * MIB).mount();
    let file = file(&fs);
    let map = mapped(&file, FOR_STORES);
    map.vma().store_u64(64, 1).unwrap();
    drop(map);
    assert!(moves(&file, || file.freeze(Wait::Never).unwrap()));
    assert!(!moves(&file, || file.sync().unwrap()));
    assert!(!moves(&file, || file.freeze(Wait::Never).unwrap()));

    let other = create(&fs, "b");
    other.write_at(&[1; 100], 0).unwrap();
    assert!(!moves(&other, || other.freeze(Wait::Never).unwrap()), "its bytes did not change");
    fs.verify().unwrap();
}
