//! Which memory the kernel registers, and what is said where it does not.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use common::{PAGE, disk, finish, is_tmpfs, pattern, ring, skipped};
use udax::{CreateOptions, ErrorKind, PinKind, PinOptions, Pool};
use udax_mm::Media;
use udax_mm::media::{Durability, FileMedia};
use udax_uring::RegisterError;

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
