//! A process dies while a device still stores for it: the device's bytes land in no other file.
//!
//! The device is a thread of the parent that stores through the pool's host file, from before the
//! death until after the pool is full: it knows nothing of the death, as a network card does not.
//! A device of the kernel's own stands in `udax-uring`, `tests/late_dma.rs`.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::fs::File as HostFile;
use std::os::unix::fs::FileExt;
use std::path::Path;
use udax_mm::sync::atomic::{AtomicBool, Ordering};

use common::{Helper, child_pool, close_clean, error, in_memory, on_file, say, wait_for_parent};
use udax::{
    ErrorKind, LivingOwner, OpenOptions, OpenPool, Pin, PinKind, PinOptions, PinTerm, Pool, Release,
};

mod common;

/// Bytes that the device has.
const LEN: u64 = 1 << 20;

/// What the device stores. No file is filled with it.
const DMA: u8 = 0xdd;

/// A device that stores to ranges of a host file, as it was told by a process.
struct Device {
    host: HostFile,
    /// First byte and length of each.
    ranges: Vec<(u64, u64)>,
}

impl Device {
    /// Listens to the child `name`, which pins a file on the pool at `path`.
    fn of(child: &mut Helper, path: &Path) -> Device {
        let host = HostFile::options().write(true).open(path).unwrap();
        let count: usize = child.wait_for("extents").parse().unwrap();
        let mut ranges = Vec::new();
        for _ in 0..count {
            let line = child.wait_for("extent");
            let (at, len) = line.split_once(' ').unwrap();
            ranges.push((at.parse().unwrap(), len.parse().unwrap()));
        }
        assert_eq!(ranges.iter().map(|(_, len)| len).sum::<u64>(), LEN);
        Device { host, ranges }
    }

    fn store(&self) {
        for &(at, len) in &self.ranges {
            self.host.write_all_at(&vec![DMA; usize::try_from(len).unwrap()], at).unwrap();
        }
    }

    /// Stores again and again while `during` runs, and once after it.
    fn store_while<R>(&self, during: impl FnOnce() -> R) -> R {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    self.store();
                }
                self.store();
            });
            let done = during();
            is_over.store(true, Ordering::Relaxed);
            done
        })
    }
}

/// Creates files until the pool is full, and returns how many. Each has its own byte.
fn fill(pool: &Pool) -> u8 {
    for number in 0.. {
        let bytes = vec![number; 300_000];
        match pool.write(format!("/new {number}"), &bytes) {
            Ok(()) => assert!(number < 100, "the pool is small"),
            Err(error) if error.kind() == ErrorKind::Full => return number,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("a pool is full one day")
}

/// Asserts that each new file has its own bytes and no other.
fn check_new_files(pool: &Pool, count: u8) {
    assert!(count > 20, "{count} files");
    for number in 0..count {
        let bytes = pool.read(format!("/new {number}")).unwrap();
        assert_eq!(bytes.len(), 300_000);
        let strange = bytes.iter().position(|&byte| byte != number);
        assert_eq!(
            strange,
            None,
            "byte of file {number} that is {:?}",
            strange.map(|at| bytes[at])
        );
    }
}

/// Kills the child while the device stores, reopens at once, lets `first` happen, fills the pool,
/// and checks every byte of every new file.
fn late_dma(name: &str, first: impl FnOnce(&Pool)) {
    let (_dir, path, pool) = on_file();
    pool.close().unwrap();
    let mut child = Helper::start(name, &path);
    let device = Device::of(&mut child, &path);
    child.wait_for("pinned");
    let pid = child.pid();
    let (pool, count) = device.store_while(|| {
        child.kill();
        let pool = Pool::open(&path).unwrap();
        first(&pool);
        let count = fill(&pool);
        (pool, count)
    });
    check_new_files(&pool, count);

    assert_eq!((pool.recovered().unclean, pool.recovered().quarantined), (Some(pid), 1));
    let [pin] = &pool.quarantine()[..] else { panic!("one pin") };
    assert_eq!((pin.process(), pin.label(), pin.kind()), (pid, "nic ring", PinKind::Write));
    assert!(!pin.is_owner_alive());
    assert_eq!(pool.usage().quarantined.bytes(), LEN);
    // The device is stopped, and somebody knows it.
    assert_eq!(
        pool.release_quarantine(&Release::Process(pid), LivingOwner::Refuse).unwrap().len(),
        1
    );
    assert_eq!(pool.usage().quarantined.bytes(), 0);
    pool.write("/more", vec![1; 900_000]).unwrap();
    close_clean(&path, pool);
    assert_eq!(Pool::open(&path).unwrap().recovered().quarantined, 0);
}

#[test]
fn a_file_that_died_with_its_process_gives_no_page_to_another() {
    late_dma("child_that_pins_and_removes_until_it_is_killed", |_| {});
}

#[test]
fn a_file_that_is_removed_after_the_death_gives_no_page_to_another() {
    late_dma("child_that_pins_until_it_is_killed", |pool| {
        let len = pool.read("/ring").unwrap().len();
        assert_eq!(u64::try_from(len).unwrap(), LEN, "the file is there until then");
        pool.remove_file("/ring").unwrap();
    });
}

#[test]
fn a_file_that_is_emptied_after_the_death_gets_other_pages() {
    late_dma("child_that_pins_until_it_is_killed", |pool| {
        let ring = OpenOptions::new().read(true).write(true).open(pool, "/ring").unwrap();
        ring.set_len(0).unwrap();
        ring.write_all_at(&[7; 8192], 0).unwrap();
        let before: Vec<_> = pool.quarantine()[0].ranges();
        let meets =
            |extent: &udax::FileExtent| before.iter().any(|range| range.contains(&extent.device));
        assert!(!ring.extents().unwrap().iter().any(meets));
    });
}

#[test]
fn child_that_pins_until_it_is_killed() {
    let Some(path) = child_pool() else { return };
    let pool = Pool::open(path).unwrap();
    let _pin = pin_ring(&pool);
    say("pinned", "/ring");
    wait_for_parent();
}

#[test]
fn child_that_pins_and_removes_until_it_is_killed() {
    let Some(path) = child_pool() else { return };
    let pool = Pool::open(path).unwrap();
    let _pin = pin_ring(&pool);
    pool.remove_file("/ring").unwrap();
    say("pinned", "nothing that has a name");
    wait_for_parent();
}

/// Pins a new file for a device that writes, and tells where its bytes lie.
fn pin_ring(pool: &Pool) -> Pin {
    pool.write("/ring", vec![1; usize::try_from(LEN).unwrap()]).unwrap();
    let ring = OpenOptions::new().read(true).write(true).open(pool, "/ring").unwrap();
    let pin = ring.pin(0..LEN, &PinOptions::new("nic ring").kind(PinKind::Write)).unwrap();
    let extents = ring.extents().unwrap();
    say("extents", extents.len());
    for extent in extents {
        say("extent", format_args!("{} {}", extent.device.byte(), extent.pages.bytes()));
    }
    pin
}

#[test]
fn pins_are_seen_while_their_process_has_the_pool_open() {
    let (_dir, path, pool) = on_file();
    pool.close().unwrap();
    let mut child = Helper::start("child_that_pins_until_it_is_killed", &path);
    child.wait_for("pinned");
    let pid = child.pid();
    assert_eq!(error(Pool::open(&path)).kind(), ErrorKind::InUse);
    let [pin] = &Pool::recorded_pins(&path).unwrap()[..] else { panic!("one pin") };
    assert_eq!((pin.process(), pin.label(), pin.pages().bytes()), (pid, "nic ring", LEN));
    assert!(!pin.is_quarantined() && pin.is_owner_alive());
    child.kill();
    let [pin] = &Pool::recorded_pins(&path).unwrap()[..] else { panic!("one pin") };
    assert!(pin.is_quarantined() && !pin.is_owner_alive());
}

#[test]
fn a_pin_for_a_call_leaves_no_record() {
    let (_dir, path, pool) = on_file();
    pool.write("/file", [1; 9000]).unwrap();
    let file = pool.open_file("/file").unwrap();
    let short = file.pin(0..9000, &PinOptions::new("copy").term(PinTerm::Short)).unwrap();
    assert_eq!(pool.pins().unwrap()[0].term(), PinTerm::Short);
    assert!(Pool::recorded_pins(&path).unwrap().is_empty());
    let long = file.pin(0..9000, &PinOptions::new("nic")).unwrap();
    assert_eq!(Pool::recorded_pins(&path).unwrap().len(), 1);
    drop((short, long, file));
    close_clean(&path, pool);
    assert!(Pool::recorded_pins(&path).unwrap().is_empty());
}

#[test]
fn a_pool_that_is_open_to_read_grants_pins_for_a_call_only() {
    let (_dir, path, pool) = on_file();
    pool.write("/file", [1; 9000]).unwrap();
    pool.close().unwrap();
    let pool = Pool::open_with(&path, &OpenPool::new().read_only(true)).unwrap();
    let file = pool.open_file("/file").unwrap();
    assert_eq!(error(file.pin(0..9, &PinOptions::new("nic"))).kind(), ErrorKind::ReadOnly);
    file.pin(0..9, &PinOptions::new("copy").term(PinTerm::Short)).unwrap();
}

#[test]
fn a_pool_in_memory_has_nothing_in_quarantine() {
    let pool = in_memory();
    assert!(pool.quarantine().is_empty());
    let none = pool.release_quarantine(&Release::All, LivingOwner::Refuse).unwrap();
    assert!(none.is_empty());
}
