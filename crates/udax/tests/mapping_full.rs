//! A mapping of a file in a full pool: a store that finds no room is refused, and can be done once there
//! is room, as a write can.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use udax::{Access, MapOptions, Pool, Wait};

const PAGE: u64 = 4096;

#[test]
fn a_store_that_found_no_room_can_be_done_when_there_is() {
    let pool = Pool::create_in_memory("pool", 8 << 20).unwrap();
    let (sparse, filler) =
        (pool.create_file("/sparse").unwrap(), pool.create_file("/filler").unwrap());
    sparse.set_len(4 * PAGE).unwrap();
    sparse.write_all_at(&[1; 4096], 2 * PAGE).unwrap();
    pool.clone_file("/sparse", "/clone", Wait::Never).unwrap();
    let map = sparse.map(0..4 * PAGE, &MapOptions::new().access(Access::Write)).unwrap();
    assert_eq!((map.load(PAGE).unwrap(), map.load(2 * PAGE).unwrap() & 0xff), (0, 1));
    let mut at = 0;
    while filler.write_all_at(&[7; 4096], at).is_ok() {
        at += PAGE;
    }

    // A hole, and a page that is shared.
    let refused = [map.store(PAGE, 5), map.store(2 * PAGE, 6)];
    if map.faulting() == udax::Populate::Lazy {
        assert!(refused.iter().all(Result::is_err), "{refused:?}");
        assert!(map.last_fault_error().unwrap().contains("full"));
        assert_eq!(map.load(PAGE).unwrap(), 0, "a hole is still one");
        assert_eq!(map.load(2 * PAGE).unwrap() & 0xff, 1, "nothing is lost");
    }
    drop(filler);
    pool.remove_file("/filler").unwrap();
    map.store(PAGE, 5).unwrap();
    map.store(2 * PAGE, 6).unwrap();
    assert_eq!(pool.read("/sparse").unwrap()[4096], 5);
    assert_eq!(pool.read("/clone").unwrap()[8192], 1);
}

#[test]
fn a_flush_of_a_range_that_ends_before_it_begins_flushes_nothing() {
    let pool = Pool::create_in_memory("pool", 8 << 20).unwrap();
    pool.write("/file", [1; 4096]).unwrap();
    let map = pool.open_file("/file").unwrap().map(0..PAGE, &MapOptions::new()).unwrap();
    let (from, to) = (8, 0);
    map.flush(from..to).unwrap();
}
