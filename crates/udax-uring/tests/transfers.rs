//! What transfers between files and registered buffers do.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use common::{PAGE, Source, bytes_of, contents, fill, finish, pattern, pinned, pipe, pool, ring};
use rustix::io::Errno;
use udax::{Pin, PinOptions, Pool};
use udax_uring::{Registered, TransferError};

/// A buffer of `len` bytes of a pool.
fn buffer(len: u64) -> Option<(Pool, Registered<Pin>)> {
    let ring = ring(8)?;
    let pool = pool(16);
    let pin = pinned(&pool, "/buffer", len);
    Some((pool, ring.register(vec![pin]).unwrap()))
}

#[test]
fn a_read_lands_in_its_range_and_in_no_other_byte() {
    let Some((_pool, mut buffers)) = buffer(4 * PAGE) else { return };
    let source = Source::new(&pattern(1, 2 * PAGE));
    let read = buffers.read_fixed(&source.file, PAGE, 0, 2 * PAGE..3 * PAGE).unwrap();
    finish(&mut buffers, read, PAGE);
    let mut wanted = vec![0; 8192];
    wanted.extend(&pattern(1, 2 * PAGE)[4096..]);
    wanted.extend([0; 4096]);
    assert!(bytes_of(&buffers.buffers()[0]) == wanted);
}

#[test]
fn a_write_moves_the_pinned_bytes_into_the_file() {
    let Some((_pool, mut buffers)) = buffer(4 * PAGE) else { return };
    buffers.buffers()[0].write(&pattern(2, 4 * PAGE), 0).unwrap();
    let file = tempfile::tempfile().unwrap();
    let write = buffers.write_fixed(&file, 100, 0, PAGE..2 * PAGE).unwrap();
    finish(&mut buffers, write, PAGE);
    let mut wanted = vec![0; 100];
    wanted.extend(&pattern(2, 4 * PAGE)[4096..8192]);
    assert!(contents(&file) == wanted);
}

#[test]
fn the_pin_reads_what_the_kernel_wrote_and_so_does_the_file() {
    let Some((pool, mut buffers)) = buffer(2 * PAGE) else { return };
    let source = Source::new(&pattern(3, 2 * PAGE));
    let read = buffers.read_fixed(&source.file, 0, 0, 0..2 * PAGE).unwrap();
    finish(&mut buffers, read, 2 * PAGE);
    assert!(pool.read("/buffer").unwrap() == pattern(3, 2 * PAGE));
}

#[test]
fn a_read_over_the_end_of_the_file_counts_what_was_there() {
    let Some((_pool, mut buffers)) = buffer(4 * PAGE) else { return };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&pattern(4, 5000)).unwrap();
    let read = buffers.read_fixed(&file, 0, 0, 0..4 * PAGE).unwrap();
    finish(&mut buffers, read, 5000);
}

#[test]
fn the_file_may_be_closed_while_it_is_read() {
    let Some((_pool, mut buffers)) = buffer(PAGE) else { return };
    let (reader, mut writer) = pipe();
    let read = buffers.read_fixed(&reader, 0, 0, 0..PAGE).unwrap();
    drop(reader);
    // Takes the number that was free.
    let _other = File::open("/dev/null").unwrap();
    writer.write_all(b"late").unwrap();
    finish(&mut buffers, read, 4);
    assert!(bytes_of(&buffers.buffers()[0]).starts_with(b"late\0"));
}

#[test]
fn the_error_of_a_file_is_that_of_the_transfer() {
    let Some((_pool, mut buffers)) = buffer(PAGE) else { return };
    let null = File::options().write(true).open("/dev/null").unwrap();
    buffers.read_fixed(&null, 0, 0, 0..PAGE).unwrap();
    let error = buffers.wait().unwrap().unwrap().result.unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::BADF));
    assert!(buffers.wait().unwrap().is_none(), "nothing is under way");
}

#[test]
fn what_is_outside_of_a_buffer_is_refused() {
    let Some((_pool, mut buffers)) = buffer(PAGE) else { return };
    let file = tempfile::tempfile().unwrap();
    for range in [0..PAGE + 1, PAGE..2 * PAGE, 5..5, PAGE..PAGE, 0..u64::MAX] {
        let refused = buffers.read_fixed(&file, 0, 0, range.clone());
        assert!(matches!(refused, Err(TransferError::OutOfRange { .. })), "{range:?}");
    }
    let refused = buffers.write_fixed(&file, 0, 1, 0..PAGE);
    assert!(matches!(refused, Err(TransferError::NoSuchBuffer { buffer: 1, count: 1 })));
    assert_eq!(buffers.under_way(), 0);
}

/// Has every transfer at `at` refused, and finds a file and its position as they were.
fn check_past_the_last_byte(buffers: &mut Registered<Pin>, at: u64, len: u64) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"as it was").unwrap();
    file.seek(SeekFrom::Start(3)).unwrap();
    let refused = [
        buffers.write_fixed(&file, at, 0, 0..len).unwrap_err(),
        buffers.read_fixed(&file, at, 0, 0..len).unwrap_err(),
    ];
    for error in refused {
        let is_named = matches!(
            error,
            TransferError::PastLastByte { at: named, len: moved } if (named, moved) == (at, len)
        );
        assert!(is_named, "{error}");
    }
    assert_eq!(buffers.under_way(), 0, "nothing was handed over");
    assert!(buffers.wait().unwrap().is_none());
    assert_eq!(contents(&file), b"as it was");
    assert_eq!(file.stream_position().unwrap(), 3);
}

/// The last byte that a file can have is before `i64::MAX`.
const LAST: u64 = u64::MAX / 2;

#[test]
fn an_offset_that_no_file_has_is_not_the_position_of_the_file() {
    let Some((_pool, mut buffers)) = buffer(PAGE) else { return };
    for at in [u64::MAX, u64::MAX - 1, u64::MAX - 4, LAST + 1, LAST, LAST - 3] {
        check_past_the_last_byte(&mut buffers, at, 4);
    }
    assert!(bytes_of(&buffers.buffers()[0]) == [0; 4096], "nothing was read");
    // The next lower one is for the host to judge.
    let file = tempfile::tempfile().unwrap();
    let read = buffers.read_fixed(&file, LAST - 4, 0, 0..4).unwrap();
    assert_eq!(buffers.wait().unwrap().unwrap().transfer, read);
}

#[test]
fn the_last_run_of_a_transfer_is_not_at_the_position_of_the_file_either() {
    let Some(ring) = ring(64) else { return };
    let pool = pool(4);
    let pin = scattered(&pool, 64);
    let mut buffers = ring.register(vec![pin]).unwrap();
    for at in [u64::MAX - 10, u64::MAX - PAGE, LAST - 2 * PAGE + 1] {
        check_past_the_last_byte(&mut buffers, at, 2 * PAGE);
    }
}

/// Makes a file whose pages lie apart, because every second block was free.
fn scattered(pool: &Pool, pages: u64) -> Pin {
    for number in 0..2 * pages {
        pool.write(format!("/{number}"), pattern(9, PAGE)).unwrap();
    }
    fill(pool, 900, PAGE);
    for number in 0..2 * pages {
        if number % 2 == 0 {
            pool.remove_file(format!("/{number}")).unwrap();
        }
    }
    let pin = pinned(pool, "/scattered", (pages - 4) * PAGE);
    assert!(pin.iovecs().unwrap().len() > 20, "the pages lie apart");
    pin
}

#[test]
fn a_range_of_many_runs_is_read_whole_though_the_queue_is_short() {
    let Some(ring) = ring(4) else { return };
    let pool = pool(4);
    let pin = scattered(&pool, 64);
    let mut buffers = ring.register(vec![pin]).unwrap();
    let source = Source::new(&pattern(5, 60 * PAGE));
    let read = buffers.read_fixed(&source.file, 0, 0, 0..60 * PAGE).unwrap();
    finish(&mut buffers, read, 60 * PAGE);
    assert!(bytes_of(&buffers.buffers()[0]) == pattern(5, 60 * PAGE));
}

#[test]
fn what_lies_between_the_runs_is_left_alone() {
    let Some(ring) = ring(64) else { return };
    let pool = pool(4);
    let pin = scattered(&pool, 64);
    let mut buffers = ring.register(vec![pin]).unwrap();
    let source = Source::new(&pattern(5, 60 * PAGE));
    let read = buffers.read_fixed(&source.file, 0, 0, 0..60 * PAGE).unwrap();
    finish(&mut buffers, read, 60 * PAGE);
    for number in (1..128).step_by(2) {
        assert!(pool.read(format!("/{number}")).unwrap() == pattern(9, PAGE), "{number}");
    }
}

#[test]
fn transfers_end_in_any_order_and_are_told_apart() {
    let Some((_pool, mut buffers)) = buffer(2 * PAGE) else { return };
    let (slow, mut writer) = pipe();
    let mut fast = tempfile::tempfile().unwrap();
    fast.write_all(b"fast").unwrap();
    fast.seek(SeekFrom::Start(0)).unwrap();
    let first = buffers.read_fixed(&slow, 0, 0, 0..PAGE).unwrap();
    let second = buffers.read_fixed(&fast, 0, 0, PAGE..2 * PAGE).unwrap();
    finish(&mut buffers, second, 4);
    writer.write_all(b"slower").unwrap();
    finish(&mut buffers, first, 6);
}

#[test]
fn a_buffer_that_is_pinned_for_reading_is_never_stored_to() {
    let Some(ring) = ring(8) else { return };
    let pool = pool(8);
    let file = pool.create_file("/file").unwrap();
    file.write_all_at(&pattern(6, PAGE), 0).unwrap();
    let pin = file.pin(0..PAGE, &PinOptions::new("reader").registrable()).unwrap();
    let mut buffers = ring.register(vec![pin]).unwrap();
    let source = Source::new(&pattern(7, PAGE));
    let refused = buffers.read_fixed(&source.file, 0, 0, 0..PAGE).unwrap_err();
    assert!(matches!(refused, TransferError::ReadOnly(0)), "{refused}");
    let out = tempfile::tempfile().unwrap();
    let write = buffers.write_fixed(&out, 0, 0, 0..PAGE).unwrap();
    finish(&mut buffers, write, PAGE);
    assert!(contents(&out) == pattern(6, PAGE));
}
