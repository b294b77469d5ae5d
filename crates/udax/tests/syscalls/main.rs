//! The kernel stores into mappings and loads from them, in system calls that are told an address:
//! read(2) of a pipe or file, readv(2), recv(2), `process_vm_writev`(2), and their opposites.
//!
//! A fault of the kernel is served as one of the program is; what cannot be served is EFAULT of the
//! call, or a count of what was moved before, and nobody dies of it.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod raw;

use std::io::{self, Write as _};
use std::thread;
use std::time::Duration;

use raw::Way;
use udax::{
    Access, File, FreePolicy, MapOptions, Mapping, OpenOptions, PinKind, PinOptions, Pool,
    Populate, Wait,
};
use udax_mm::PgmapOff;
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::mpsc;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// A pool with a file, and how the file is mapped.
struct World {
    pool: Pool,
    file: File,
    populate: Populate,
}

impl World {
    fn new(populate: Populate) -> World {
        let pool = Pool::create_in_memory("system calls", 32 << 20).unwrap();
        let file = open(&pool, "/file");
        World { pool, file, populate }
    }

    fn map(&self, len: u64, options: MapOptions) -> Mapping {
        self.file.map(0..len, &options.populate(self.populate)).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        self.pool.read("/file").unwrap()
    }

    fn verify(&self) {
        assert_eq!(self.pool.verify(), Ok(()));
    }
}

fn open(pool: &Pool, path: &str) -> File {
    OpenOptions::new().read(true).write(true).create(true).open(pool, path).unwrap()
}

/// Runs with each way and each kind of mapping, each time in a pool of its own.
fn each_way(test: impl Fn(&World, Way)) {
    for populate in [Populate::Lazy, Populate::Eager] {
        for way in Way::ALL {
            let world = World::new(populate);
            if !is_as_asked(&world) {
                break;
            }
            test(&world, way);
            world.verify();
        }
    }
}

/// Whether the host permits the kind of mapping. Says so past the capture of the harness if not.
fn is_as_asked(world: &World) -> bool {
    let file = open(&world.pool, "/probe");
    file.set_len(PAGE).unwrap();
    let map = file.map(0..PAGE, &MapOptions::new().populate(world.populate)).unwrap();
    let is_as_asked = map.faulting() == world.populate;
    if !is_as_asked {
        let _ = writeln!(io::stderr(), "SKIPPED lazy mappings: no userfaultfd");
    }
    is_as_asked
}

fn for_stores() -> MapOptions {
    MapOptions::new().access(Access::Write)
}

fn us(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// Bytes that tell their place, none of them zero.
fn pattern(seed: u64, len: u64) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 7 + at / 256 + seed) % 251).unwrap() + 1).collect()
}

/// `bytes` with others from byte `at` on.
fn over(bytes: &[u8], at: u64, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[us(at)..][..new.len()].copy_from_slice(new);
    bytes
}

/// Asserts that the kernel says EFAULT, and nothing else.
#[track_caller]
fn check_refused<T: std::fmt::Debug>(refused: io::Result<T>, what: &str) {
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EFAULT), "{what}");
}

/// Has the kernel store a few bytes at byte `at`, and load what is around them.
#[track_caller]
fn store(map: &Mapping, way: Way, at: u64, bytes: &[u8]) {
    let stored = way.store(map.addr() + us(at), bytes).unwrap();
    assert_eq!(stored, bytes.len(), "{way:?}");
    let loaded = way.load((map.addr() + us(at) - 1, bytes.len() + 2)).unwrap();
    assert!(loaded[1..=bytes.len()] == *bytes, "{way:?} loads what it stored");
}

#[test]
fn the_kernel_fills_pages_that_nobody_has_touched() {
    each_way(|world, way| {
        world.file.write_all_at(&pattern(1, 8 * PAGE), 0).unwrap();
        let map = world.map(8 * PAGE, for_stores());
        let new = pattern(2, 2 * PAGE + 20);

        store(&map, way, 3 * PAGE - 10, &new);

        assert!(world.bytes() == over(&pattern(1, 8 * PAGE), 3 * PAGE - 10, &new), "{way:?}");
        assert!(way.load((map.addr(), us(8 * PAGE))).unwrap() == world.bytes(), "{way:?}");
    });
}

#[test]
fn a_range_that_begins_inside_a_page_has_its_own_address() {
    each_way(|world, way| {
        let before = pattern(1, 4 * PAGE);
        world.file.write_all_at(&before, 0).unwrap();
        let options = for_stores().populate(world.populate);
        let map = world.file.map(PAGE + 100..3 * PAGE, &options).unwrap();

        store(&map, way, 7, &[9; 50]);

        assert!(world.bytes() == over(&before, PAGE + 107, &[9; 50]), "{way:?}");
    });
}

/// A hole that was read shows zeros that are protected: a store of the kernel allocates, too.
#[test]
fn the_kernel_stores_to_a_hole_that_was_read() {
    each_way(|world, way| {
        world.file.set_len(8 * PAGE).unwrap();
        let map = world.map(8 * PAGE, for_stores());
        assert!(way.load((map.addr(), us(8 * PAGE))).unwrap() == vec![0; us(8 * PAGE)]);
        let new = pattern(2, PAGE + 20);

        store(&map, way, 3 * PAGE - 10, &new);

        assert!(world.bytes() == over(&vec![0; us(8 * PAGE)], 3 * PAGE - 10, &new), "{way:?}");
        if world.populate == Populate::Lazy {
            let pages: u64 = world.file.extents().unwrap().iter().map(|e| e.pages.0).sum();
            assert_eq!(pages, 3, "{way:?}: what was only read is a hole");
        }
    });
}

/// F-28, I-36: the clone keeps its bytes, whether the page was read before or not.
#[test]
fn the_kernel_stores_to_a_copy_of_a_page_that_is_shared() {
    for is_read_before in [false, true] {
        each_way(|world, way| {
            let before = pattern(1, 8 * PAGE);
            world.file.write_all_at(&before, 0).unwrap();
            let clone = open(&world.pool, "/clone");
            world.file.clone_range(0..8 * PAGE, &clone, 0, Wait::Forever).unwrap();
            let reader = clone.map(0..8 * PAGE, &MapOptions::new().populate(world.populate));
            let (map, reader) = (world.map(8 * PAGE, for_stores()), reader.unwrap());
            if is_read_before {
                for map in [&map, &reader] {
                    assert!(way.load((map.addr(), us(8 * PAGE))).unwrap() == before);
                }
            }
            let new = pattern(2, PAGE + 20);

            store(&map, way, 3 * PAGE - 10, &new);

            assert!(world.bytes() == over(&before, 3 * PAGE - 10, &new), "{way:?}");
            assert!(world.pool.read("/clone").unwrap() == before, "{way:?}");
            assert!(way.load((reader.addr(), us(8 * PAGE))).unwrap() == before, "{way:?}");
        });
    }
}

#[test]
fn what_the_kernel_stores_in_a_private_mapping_is_not_in_the_file() {
    each_way(|world, way| {
        let before = pattern(1, 4 * PAGE);
        world.file.write_all_at(&before, 0).unwrap();
        world.file.set_len(8 * PAGE).unwrap();
        let before = over(&vec![0; us(8 * PAGE)], 0, &before);
        let map = world.map(8 * PAGE, for_stores().private());
        for at in [PAGE - 10, 5 * PAGE - 10] {
            let new = pattern(at, PAGE + 20);

            store(&map, way, at, &new);

            let shown = way.load((map.addr(), us(8 * PAGE))).unwrap();
            assert!(shown[us(at)..][..new.len()] == new, "{way:?}, byte {at}");
            assert!(world.bytes() == before, "{way:?}, byte {at}");
        }
    });
}

/// The host tells nobody, and the next touch has to end as in any private mapping: it finds what the
/// file has.
#[test]
fn private_pages_that_are_given_back_are_those_of_the_file_again() {
    each_way(|world, way| {
        world.file.write_all_at(&pattern(1, PAGE), 0).unwrap();
        world.file.set_len(3 * PAGE).unwrap();
        let of_file = world.bytes();
        let map = world.map(3 * PAGE, for_stores().private());
        for page in 0..3 {
            let (at, new) = (page * PAGE + 10, [0xfe; 20]);
            for _ in 0..2 {
                answered(|| store(&map, way, at, &new));
                raw::dont_need((map.addr() + us(page * PAGE), us(PAGE)));
            }
            let shown = answered(|| way.load((map.addr(), us(3 * PAGE))).unwrap());
            assert!(shown == of_file, "{way:?}, page {page}");
            raw::dont_need((map.addr() + us(page * PAGE), us(PAGE)));
            answered(|| store(&map, way, at, &new));
            assert!(world.bytes() == of_file, "{way:?}, page {page}");
            raw::dont_need((map.addr() + us(page * PAGE), us(PAGE)));
        }
    });
}

/// What marks the page goes as well when the program gives it back.
#[test]
fn a_page_that_failed_stays_so_when_it_is_given_back() {
    each_way(|world, way| {
        world.file.write_all_at(&pattern(1, 3 * PAGE), 0).unwrap();
        let map = world.map(3 * PAGE, for_stores());
        let failed = world.file.extents().unwrap()[0].device.0 + 1;
        let pgmap = world.pool.filesystem().device().pgmaps().remove(0).try_get_live().unwrap();
        pgmap.memory_failure(PgmapOff(failed)..PgmapOff(failed + 1));
        let page = (map.addr() + us(PAGE), us(PAGE));
        for _ in 0..2 {
            check_refused(answered(|| way.load(page)), "it failed");
            raw::dont_need(page);
        }
        let shown = way.load((map.addr() + us(2 * PAGE), us(PAGE))).unwrap();
        assert!(shown == pattern(1, 3 * PAGE)[us(2 * PAGE)..], "{way:?}");
    });
}

/// Makes a touch, and ends the process if it finds no end: a thread that faults for ever cannot be
/// joined.
fn answered<T: Send>(touch: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let (done, is_done) = mpsc::channel();
        let touching = scope.spawn(move || {
            let touched = touch();
            done.send(()).unwrap();
            touched
        });
        if let Err(mpsc::RecvTimeoutError::Timeout) = is_done.recv_timeout(Duration::from_mins(1)) {
            let _ = writeln!(io::stderr(), "a touch is not answered");
            std::process::exit(1);
        }
        touching.join().unwrap()
    })
}

/// Pages of 4 KiB on one side of the border, and one of 2 MiB on the other.
#[test]
fn one_system_call_stores_across_the_border_of_2_mib() {
    each_way(|world, way| {
        world.file.write_all_at(&pattern(1, 4 * MIB + PAGE), 0).unwrap();
        let map = world.map(4 * MIB + PAGE, for_stores());
        for border in [2 * MIB, 4 * MIB] {
            let new = pattern(border, PAGE + 20);
            let before = world.bytes();
            let at = border - PAGE / 2;

            store(&map, way, at, &new);

            assert!(world.bytes() == over(&before, at, &new), "{way:?}, {border}");
        }
    });
}

#[test]
fn a_store_of_the_kernel_to_a_mapping_for_reading_is_efault() {
    each_way(|world, way| {
        let before = pattern(1, 4 * PAGE);
        world.file.write_all_at(&before, 0).unwrap();
        let map = world.map(4 * PAGE, MapOptions::new());
        check_refused(way.store(map.addr() + us(3 * PAGE) + 10, &[7; 100]), "a missing page");
        assert!(way.load((map.addr(), us(3 * PAGE))).unwrap() == before[..us(3 * PAGE)]);
        check_refused(way.store(map.addr() + 10, &[7; 100]), "a page that is shown");
        assert!(way.load((map.addr(), us(3 * PAGE))).unwrap() == before[..us(3 * PAGE)]);
        assert!(world.bytes() == before, "{way:?}");
    });
}

/// The kernel moves what there is and says how much, or EFAULT; and goes on when the file grows.
#[test]
fn a_system_call_past_the_end_of_the_file_is_efault_and_kills_nobody() {
    each_way(|world, way| {
        let before = pattern(1, 2 * PAGE);
        world.file.write_all_at(&before, 0).unwrap();
        let map = world.map(8 * PAGE, for_stores());
        let past_end = map.addr() + us(2 * PAGE);
        check_refused(way.store(past_end + 10, &[7; 100]), &format!("{way:?}: store"));
        check_refused(way.load((past_end + 10, 100)), &format!("{way:?}: load"));

        // Some calls move pieces, some nothing if they cannot move all.
        match way.store(past_end - 50, &[7; 100]) {
            Ok(stored) => assert!(stored <= 50, "{way:?}: {stored} bytes"),
            refused @ Err(_) => check_refused(refused, &format!("{way:?}: across the end")),
        }
        let now = world.bytes();
        assert_eq!(now.len(), before.len(), "{way:?}: the file did not grow");
        assert!(now[..us(2 * PAGE - 50)] == before[..us(2 * PAGE - 50)], "{way:?}");

        world.file.set_len(8 * PAGE).unwrap();
        store(&map, way, 2 * PAGE + 10, &[9; 100]);
        assert!(world.bytes()[us(2 * PAGE + 10)..][..100] == [9; 100], "{way:?}");
        world.file.set_len(PAGE).unwrap();
        check_refused(way.load((map.addr() + us(PAGE), 8)), &format!("{way:?}: cut off"));
    });
}

/// How often the file is truncated under the kernel.
const TIMES: u64 = 60;

/// What the kernel stores is in the file, or the range was cut off meanwhile: never elsewhere.
///
/// That holds of calls that touch the addresses. `process_vm_writev`, as `O_DIRECT`, pins pages of the
/// host first and stores later, of which nobody tells udax: whoever does that in a range that may be
/// cut off takes a [`Pin`](udax::Pin) of it.
#[test]
fn system_calls_race_with_a_thread_that_truncates_and_fills_the_file() {
    each_way(|world, way| {
        if way == Way::Process {
            return race_with_a_pin(world);
        }
        let len = 8 * PAGE;
        world.file.set_len(len).unwrap();
        let other = open(&world.pool, "/other");
        let map = world.map(len, for_stores());
        let is_done = AtomicBool::new(false);

        thread::scope(|scope| {
            let _done = Done(&is_done);
            scope.spawn(|| {
                while !is_done.load(Ordering::Acquire) {
                    race(&map, way);
                }
            });
            for time in 0..TIMES {
                world.file.set_len_with(0, FreePolicy::Wait(Wait::Forever)).unwrap();
                // Takes the blocks that the truncate has given back.
                let bytes = vec![0xb0; us(len)];
                other.write_all_at(&bytes, 0).unwrap();
                world.file.set_len(len).unwrap();
                // Refaults beside the kernel; eager mappings may be on their way.
                let _ = map.store(time % 8 * PAGE, FOREIGN);
                assert!(world.pool.read("/other").unwrap() == bytes, "{way:?}: a freed block");
                other.set_len(0).unwrap();
            }
        });

        store(&map, way, PAGE + 10, &[9; 100]);
        assert!(world.bytes()[us(PAGE + 10)..][..100] == [9; 100], "{way:?}");
    });
}

/// With a pin of the range, the pages that `process_vm_writev` stores to late are in limbo until it
/// ends, and nobody else's.
fn race_with_a_pin(world: &World) {
    let len = 8 * PAGE;
    let other = open(&world.pool, "/other");
    for _ in 0..TIMES {
        world.file.set_len(len).unwrap();
        let map = world.map(len, for_stores());
        let pin = world.file.pin(0..len, &PinOptions::new("late").kind(PinKind::Write)).unwrap();
        thread::scope(|scope| {
            let late = scope.spawn(|| {
                race(&map, Way::Process);
                drop(pin);
            });
            world.file.set_len(0).unwrap();
            let bytes = vec![0xb0; us(len)];
            other.write_all_at(&bytes, 0).unwrap();
            late.join().unwrap();
            assert!(world.pool.read("/other").unwrap() == bytes, "a freed block");
        });
        other.set_len(0).unwrap();
    }
}

/// Ends the other thread, also after a panic.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What the program itself stores.
const FOREIGN: u64 = u64::from_le_bytes([0xcc; 8]);

/// A store and a load of the kernel, over a border of pages.
fn race(map: &Mapping, way: Way) {
    for page in [2, 4] {
        let at = map.addr() + us(page * PAGE - 64);
        match way.store(at, &[0xaa; 128]) {
            Ok(stored) => assert!(stored <= 128),
            refused @ Err(_) => check_refused(refused, "a store"),
        }
        match way.load((at, 128)) {
            Ok(bytes) => {
                let foreign = bytes.iter().find(|byte| ![0, 0xaa, 0xcc].contains(*byte));
                assert_eq!(foreign, None, "{way:?} loads what the file never had");
            }
            refused @ Err(_) => check_refused(refused, "a load"),
        }
    }
}
