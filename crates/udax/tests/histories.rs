//! Two stories from the field, which ended otherwise with files mapped by mmap.
//!
//! **reth** read its database through shared mappings while the same process truncated and rewrote
//! the files. A reader that touched a page behind the new end got SIGBUS and the process died, so
//! the mappings were given up for read(2). Here a reader finds what the file was, zeros, what it
//! becomes, or an error; it never dies. One that has nothing but an address is in `raw_reader.rs`.
//!
//! **iceoryx2** shares segments of memory between processes. One that died while it held a segment
//! left the file, its lock and its pins behind, and the next start had to find out whether
//! anything of it was still alive. Here the kernel ends the lock with the process, and the pins are on
//! record: who opens the pool next finds the segment whole, is told by name what the dead process
//! held, gives its pages to nobody while a device may still reach them, and releases them with one call.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use common::{
    Helper, child_pool, close_clean, error, in_memory, on_file, say, skipped, wait_for_parent,
};
use std::thread;
use udax::{
    Access, ErrorKind, File, FileExtent, FreePolicy, LivingOwner, MapOptions, Mapping, OpenOptions,
    PinKind, PinOptions, PinTerm, Pool, Populate, RecordedPin, Release, Wait,
};
use udax_mm::sync::atomic::{AtomicBool, Ordering};

mod common;

const PAGE: u64 = 4096;

/// Pages of the file that is rewritten.
const PAGES: u64 = 24;

/// How often it is.
const TIMES: u64 = 300;

fn us(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn open(pool: &Pool, name: &str) -> File {
    OpenOptions::new().read(true).write(true).create(true).open(pool, name).unwrap()
}

/// What a page holds in the `time`th version: its number and that of the version, never zero.
fn page(time: u64, number: u64) -> Vec<u8> {
    ((time << 8) + number + 1).to_le_bytes().repeat(us(PAGE) / 8)
}

/// Asserts that every word of a page is zero or of one of the versions, and this page.
fn check_page(bytes: &[u8], number: u64) {
    for word in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(word.try_into().unwrap());
        let is_of_page = word & 0xff == number + 1 && word >> 8 < TIMES;
        assert!(word == 0 || is_of_page, "page {number} shows {word:#x}");
    }
}

/// Reads pages through a mapping until the writer is done. Says how many it read and how many were
/// refused.
fn read_on(map: &Mapping, is_done: &AtomicBool) -> (u64, u64) {
    let (mut read, mut refused) = (0, 0);
    while !is_done.load(Ordering::Acquire) || read == 0 {
        for number in 0..PAGES {
            let mut bytes = vec![0xee; us(PAGE)];
            match map.read(&mut bytes, number * PAGE) {
                Ok(()) => {
                    check_page(&bytes, number);
                    read += 1;
                }
                Err(refusal) => {
                    assert_eq!(refusal.kind(), ErrorKind::Media, "{refusal}");
                    refused += 1;
                }
            }
        }
    }
    (read, refused)
}

/// Truncates and rewrites the file again and again.
fn rewrite(file: &File) {
    for time in 0..TIMES {
        file.set_len_with(0, FreePolicy::Wait(Wait::Forever)).unwrap();
        for number in 0..PAGES {
            file.write_all_at(&page(time, number), number * PAGE).unwrap();
        }
    }
}

fn read_while_it_is_rewritten(populate: Populate) {
    let pool = in_memory();
    if let (Some(why), Populate::Lazy) = (pool.why_eager(), populate) {
        return skipped(why);
    }
    let file = open(&pool, "/table");
    file.write_all_at(&page(0, 0), 0).unwrap();
    let options = MapOptions::new().populate(populate);
    let map = file.map(0..PAGES * PAGE, &options).unwrap();
    assert_eq!(map.faulting(), populate);
    let is_done = AtomicBool::new(false);

    thread::scope(|scope| {
        let readers = [(); 2].map(|()| scope.spawn(|| read_on(&map, &is_done)));
        rewrite(&file);
        is_done.store(true, Ordering::Release);
        for reader in readers {
            reader.join().unwrap();
        }
    });

    for number in 0..PAGES {
        let mut bytes = vec![0; us(PAGE)];
        map.read(&mut bytes, number * PAGE).unwrap();
        assert!(bytes == page(TIMES - 1, number), "page {number} is the last version's");
    }
    assert_eq!(pool.verify(), Ok(()));
}

#[test]
fn a_reader_of_a_lazy_mapping_lives_while_the_file_is_truncated_and_rewritten() {
    read_while_it_is_rewritten(Populate::Lazy);
}

#[test]
fn a_reader_of_an_eager_mapping_lives_while_the_file_is_truncated_and_rewritten() {
    read_while_it_is_rewritten(Populate::Eager);
}

/// With a slice there is no error to return, so the file may not change at all: what is to be read
/// so is frozen, and the next version takes its name.
#[test]
fn a_reader_of_a_frozen_file_reads_on_while_it_is_refused_to_writers_and_replaced() {
    let pool = in_memory();
    let write = |time: u64| {
        let file = open(&pool, "/table.new");
        for number in 0..PAGES {
            file.write_all_at(&page(time, number), number * PAGE).unwrap();
        }
        file.freeze(Wait::Forever).unwrap();
        drop(file);
        pool.rename("/table.new", "/table").unwrap();
    };
    write(0);
    let frozen = pool.open_file("/table").unwrap().frozen().unwrap();
    let is_done = AtomicBool::new(false);

    thread::scope(|scope| {
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut rounds = 0;
                while !is_done.load(Ordering::Acquire) || rounds == 0 {
                    for (found, number) in frozen.chunks_exact(us(PAGE)).zip(0..) {
                        assert!(found == page(0, number), "page {number}");
                    }
                    rounds += 1;
                }
            })
        });
        for time in 1..TIMES / 10 {
            let file = OpenOptions::new().read(true).write(true).open(&pool, "/table");
            let refused = file.and_then(|file| file.set_len(0));
            assert_eq!(error(refused).kind(), ErrorKind::Frozen);
            write(time);
        }
        is_done.store(true, Ordering::Release);
        for reader in readers {
            reader.join().unwrap();
        }
    });

    drop(frozen);
    assert_eq!(pool.verify(), Ok(()));
}

/// Bytes of the segment that is shared.
const SEGMENT: u64 = 64 * PAGE;

/// How many shares of it there are.
const SHARES: u64 = 4;

fn word(at: u64) -> u64 {
    at * 0x9e37_79b9 + 1
}

#[test]
fn a_process_that_dies_with_shares_of_a_segment_is_named_and_one_call_releases_them() {
    let (_dir, path, pool) = on_file();
    // The directory keeps the room for its names.
    pool.write("/segment", b"").unwrap();
    pool.remove_file("/segment").unwrap();
    let before = pool.usage();
    pool.close().unwrap();
    let mut child = Helper::start("child_that_shares_a_segment_until_it_is_killed", &path);
    child.wait_for("shared");
    assert_eq!(error(Pool::open(&path)).kind(), ErrorKind::InUse, "it is alive");
    let pid = child.pid();
    check_shares(&Pool::recorded_pins(&path).unwrap(), pid, Holder::Lives);
    child.kill();

    let pool = Pool::open(&path).unwrap();

    let recovered = pool.recovered();
    assert_eq!((recovered.unclean, recovered.quarantined), (Some(pid), SHARES));
    assert!(pool.pins().unwrap().is_empty(), "nobody who lives holds anything");
    assert_eq!(pool.usage().limbo.0, 0);
    check_shares(&pool.quarantine(), pid, Holder::Died);
    let segment = pool.open_file("/segment").unwrap();
    let map = segment.map(0..SEGMENT, &MapOptions::new()).unwrap();
    for at in (0..SEGMENT).step_by(8) {
        assert_eq!(map.load(at).unwrap(), word(at), "byte {at}");
    }
    let extents = segment.extents().unwrap();
    drop((map, segment));
    pool.remove_file("/segment").unwrap();
    assert_eq!(pool.usage().quarantined.bytes(), SEGMENT, "a device may still reach them");
    check_next_segment(&pool, &extents);

    // The device is stopped, and the manager of the segments knows it.
    let released = pool.release_quarantine(&Release::Process(pid), LivingOwner::Refuse).unwrap();

    check_shares(&released, pid, Holder::Died);
    assert!(pool.quarantine().is_empty());
    let after = pool.usage();
    let withheld = (after.limbo.0, after.quarantined.0);
    assert_eq!((after.free.0, withheld), (before.free.0, (0, 0)), "nothing leaks");
    assert_eq!(pool.verify(), Ok(()));
    close_clean(&path, pool);
    let next = Pool::open(&path).unwrap();
    assert_eq!((next.recovered().unclean, next.recovered().quarantined), (None, 0));
}

/// What has become of a process that held shares.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Holder {
    Lives,
    Died,
}

/// Asserts that the shares of process `pid` are on record by name, and that they are all of it.
#[track_caller]
fn check_shares(pins: &[RecordedPin], pid: u32, holder: Holder) {
    assert_eq!(pins.len(), us(SHARES), "{pins:?}");
    for pin in pins {
        assert_eq!((pin.process(), pin.label(), pin.kind()), (pid, "subscriber", PinKind::Write));
        assert_eq!(pin.pages().bytes(), SEGMENT / SHARES);
        assert_eq!(pin.is_owner_alive(), holder == Holder::Lives);
        assert_eq!(pin.is_quarantined(), holder == Holder::Died);
    }
}

/// Asserts that a new segment of the same name gets other pages than those of `withheld`, and removes
/// it.
fn check_next_segment(pool: &Pool, withheld: &[FileExtent]) {
    let segment = open(pool, "/segment");
    segment.allocate(0..SEGMENT).unwrap();
    for extent in segment.extents().unwrap() {
        let meets = |other: &&FileExtent| {
            other.device < extent.device + extent.pages
                && extent.device < other.device + other.pages
        };
        assert_eq!(withheld.iter().find(meets), None, "{extent:?}");
    }
    drop(segment);
    pool.remove_file("/segment").unwrap();
}

#[test]
fn child_that_shares_a_segment_until_it_is_killed() {
    let Some(path) = child_pool() else { return };
    let pool = Pool::open(path).unwrap();
    let segment = open(&pool, "/segment");
    segment.set_len(SEGMENT).unwrap();
    let map = segment.map(0..SEGMENT, &MapOptions::new().access(Access::Write)).unwrap();
    let share = PinOptions::new("subscriber").kind(PinKind::Write).term(PinTerm::Long);
    let part = SEGMENT / SHARES;
    let pins: Vec<_> = (0..SHARES)
        .map(|number| segment.pin(number * part..(number + 1) * part, &share).unwrap())
        .collect();
    for at in (0..SEGMENT).step_by(8) {
        map.store(at, word(at)).unwrap();
    }
    map.flush(0..SEGMENT).unwrap();
    assert_eq!(segment.pins().len(), pins.len());
    say("shared", pins.len());
    wait_for_parent();
}
