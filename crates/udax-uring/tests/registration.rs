//! Which memory the kernel registers, and what is said where it does not.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::os::fd::AsFd;

use common::{PAGE, disk, finish, is_tmpfs, pattern, pool, ring, skipped};
use udax::{CreateOptions, ErrorKind, Pin, PinKind, PinOptions, PinTerm, Pool};
use udax_mm::Media;
use udax_mm::media::{Durability, FileMedia};
use udax_uring::{RegisterError, lend};

/// A directory on a disk; says so where there is none.
fn on_disk() -> Option<tempfile::TempDir> {
    let dir = disk();
    if is_tmpfs(dir.path()) {
        skipped(format_args!("{} is in memory", dir.path().display()));
        return None;
    }
    Some(dir)
}

#[test]
fn a_pool_in_a_file_on_a_disk_refuses_a_registrable_pin_and_says_why() {
    let Some(dir) = on_disk() else { return };
    let pool = Pool::create(dir.path().join("p.udax"), 8 << 20, &CreateOptions::new()).unwrap();
    let file = pool.create_file("/file").unwrap();
    file.set_len(PAGE).unwrap();
    let options = PinOptions::new("io_uring").kind(PinKind::Write);
    let refused = file.pin(0..PAGE, &options.clone().registrable()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotRegistrable);
    assert!(refused.to_string().contains("regist"), "{refused}");
    assert!(pool.pins().unwrap().is_empty());
}

#[test]
fn the_kernel_does_refuse_the_pages_of_such_a_file() {
    let Some(dir) = on_disk() else { return };
    let Some(ring) = ring(4) else { return };
    let pool = Pool::create(dir.path().join("p.udax"), 8 << 20, &CreateOptions::new()).unwrap();
    let file = pool.create_file("/file").unwrap();
    file.set_len(PAGE).unwrap();
    // Pinned all the same, and not asked whether it can be registered.
    let pin = file.pin(0..PAGE, &PinOptions::new("io_uring").kind(PinKind::Write)).unwrap();
    let refused = ring.register(vec![pin]).unwrap_err();
    assert!(matches!(refused.error, RegisterError::NotRegistrable(_)), "{refused}");
}

#[test]
fn a_pool_in_a_file_in_memory_is_registered() {
    let Some(ring) = ring(4) else { return };
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return skipped("no /dev/shm") };
    let pool = Pool::create(dir.path().join("p.udax"), 8 << 20, &CreateOptions::new()).unwrap();
    let file = pool.create_file("/file").unwrap();
    file.set_len(PAGE).unwrap();
    let options = PinOptions::new("io_uring").kind(PinKind::Write).registrable();
    ring.register(vec![file.pin(0..PAGE, &options).unwrap()]).unwrap();
}

#[test]
fn a_mapping_of_a_file_of_the_host_is_a_buffer_too() {
    let Some(ring) = ring(4) else { return };
    let media = FileMedia::memfd("buffer", 4 * PAGE).unwrap();
    let mut buffers = ring.register(vec![media]).unwrap();
    let source = common::Source::new(&pattern(1, PAGE));
    let read = buffers.read_fixed(&source.file, 0, 0, 0..PAGE).unwrap();
    finish(&mut buffers, read, PAGE);
    let mut bytes = vec![0; 4096];
    buffers.buffers()[0].read(0, &mut bytes).unwrap();
    assert!(bytes == pattern(1, PAGE));
}

#[test]
fn a_file_that_is_mapped_for_reading_is_refused() {
    let Some(ring) = ring(4) else { return };
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return skipped("no /dev/shm") };
    let path = dir.path().join("file");
    drop(FileMedia::create(&path, PAGE, Durability::Process).unwrap());
    let media = FileMedia::open_read_only(&path).unwrap();
    let refused = ring.register(vec![media]).unwrap_err();
    assert!(matches!(refused.error, RegisterError::NotRegistrable(_)), "{refused}");
}

/// A pool, and a file of it that is pinned for a long term and then for a short one.
fn long_and_short() -> (Pool, Vec<Pin>) {
    let pool = pool(8);
    let file = pool.create_file("/file").unwrap();
    file.set_len(PAGE).unwrap();
    let options = PinOptions::new("io_uring").kind(PinKind::Write).registrable();
    let pin = |term| file.pin(0..PAGE, &options.clone().term(term)).unwrap();
    let pins = vec![pin(PinTerm::Long), pin(PinTerm::Short)];
    (pool, pins)
}

/// The second of two buffers is the one that was refused, and both are given back.
#[track_caller]
fn check_given_back(pool: &Pool, error: &RegisterError, buffers: &[Pin]) {
    assert!(matches!(error, RegisterError::ShortTerm(1)), "{error}");
    assert!(error.to_string().contains("PinTerm::Long"), "{error}");
    let terms: Vec<_> = buffers.iter().map(Pin::term).collect();
    assert_eq!(terms, [PinTerm::Long, PinTerm::Short]);
    assert_eq!(pool.pins().unwrap().len(), 2);
}

#[test]
fn a_pin_for_a_call_is_not_registered_and_one_for_long_is() {
    let (Some(first), Some(second)) = (ring(4), ring(4)) else { return };
    let (pool, pins) = long_and_short();
    let mut refused = first.register(pins).unwrap_err();
    check_given_back(&pool, &refused.error, &refused.buffers);
    refused.buffers.pop();
    let registered = second.register(refused.buffers).unwrap();
    assert_eq!(registered.buffers()[0].term(), PinTerm::Long);
}

#[test]
fn a_pin_for_a_call_is_not_lent_and_one_for_long_is() {
    let Some(ring) = ring(4) else { return };
    let (pool, pins) = long_and_short();
    let mut refused = lend(ring.as_fd(), pins).unwrap_err();
    check_given_back(&pool, &refused.error, &refused.buffers);
    refused.buffers.pop();
    assert_eq!(lend(ring.as_fd(), refused.buffers).unwrap().runs().len(), 1);
}
