//! When the kernel lets go of buffers, and when their pins are dropped.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::thread;

use common::{PAGE, bytes_of, pattern, pinned, pipe, pool, ring};
use udax::{ErrorKind, Pin, Pool, Wait};
use udax_uring::Registered;

/// How often a test looks that could be lucky once: what the kernel does later, it may do at once.
const OFTEN: u32 = 100;

/// A buffer whose file is gone, and a read into it that waits for a pipe.
fn waiting(pool: &Pool) -> Option<(Registered<Pin>, File)> {
    let ring = ring(4)?;
    let mut buffers = ring.register(vec![pinned(pool, "/buffer", PAGE)]).unwrap();
    pool.remove_file("/buffer").unwrap();
    let (reader, writer) = pipe();
    buffers.read_fixed(&reader, 0, 0, 0..PAGE).unwrap();
    Some((buffers, writer))
}

#[test]
fn dropping_the_buffers_ends_a_read_that_waits_for_ever() {
    let pool = pool(8);
    for _ in 0..OFTEN {
        let Some((buffers, mut writer)) = waiting(&pool) else { return };
        drop(buffers);
        let error = writer.write_all(b"late").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "nobody reads any more");
        assert!(pool.usage().limbo.is_empty());
    }
}

#[test]
fn unregistering_gives_the_pins_back_and_nothing_reads_into_them_any_more() {
    let pool = pool(8);
    for _ in 0..OFTEN {
        let Some((buffers, mut writer)) = waiting(&pool) else { return };
        let pins = buffers.unregister().unwrap();
        writer.write_all(b"late").unwrap_err();
        assert_eq!(bytes_of(&pins[0]), [0; 4096]);
    }
}

#[test]
fn more_reads_than_the_queue_takes_are_ended_too() {
    let Some(ring) = ring(4) else { return };
    let pool = pool(8);
    let mut buffers = ring.register(vec![pinned(&pool, "/buffer", PAGE)]).unwrap();
    let (reader, _writer) = pipe();
    for _ in 0..50 {
        buffers.read_fixed(&reader, 0, 0, 0..PAGE).unwrap();
    }
    assert_eq!(buffers.under_way(), 50);
    assert_eq!(buffers.unregister().unwrap().len(), 1);
}

#[test]
fn a_device_that_is_removed_waits_for_the_buffers() {
    let pool = pool(8);
    let Some((buffers, _writer)) = waiting(&pool) else { return };
    let refused = pool.remove_device(Wait::Never).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Pinned, "{refused}");
    assert!(refused.to_string().contains("io_uring"), "{refused}");
    thread::scope(|scope| {
        let removed = scope.spawn(|| pool.remove_device(Wait::Forever));
        drop(buffers);
        removed.join().unwrap().unwrap();
    });
}

#[test]
fn buffers_that_the_kernel_refuses_are_given_back() {
    let Some(ring) = ring(4) else { return };
    let pool = pool(8);
    let pin = pinned(&pool, "/buffer", PAGE);
    pin.write(&pattern(1, PAGE), 0).unwrap();
    // A ring has one table of buffers, and this one has it already.
    let shared = ring.as_fd().try_clone_to_owned().unwrap();
    let _first = ring.register(vec![pinned(&pool, "/first", PAGE)]).unwrap();
    let refused = udax_uring::lend(shared.as_fd(), vec![pin]).unwrap_err();
    assert!(bytes_of(&refused.buffers[0]) == pattern(1, PAGE), "{refused}");
}
