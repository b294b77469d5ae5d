//! A buffer that a process lends to the ring of another outlives it: what a device does that is
//! still writing when its user is killed.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::io::{Write, stdin};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{PAGE, finish, line, pattern, pinned, pipe, pool, ring, skipped};
use udax::PinOptions;
use udax_mm::Media;
use udax_mm::media::{Durability, FileMedia};
use udax_uring::{Foreign, RegisterError, Registered, Ring, lend};

/// Tells the process that lends which file to lend.
const LENDER: &str = "UDAX_TEST_LENDER";

/// The other process: lends all of a file to the ring that is its stdin, and waits to be killed.
/// Run by itself it does nothing.
#[test]
fn lender() {
    let Some(path) = std::env::var_os(LENDER) else { return };
    let media = FileMedia::open(Path::new(&path), Durability::Process).unwrap();
    let foreign = lend(stdin().as_fd(), vec![media]).unwrap();
    let [(addr, len)] = foreign.runs() else { panic!("{foreign:?}") };
    // Past the capture of the test harness.
    writeln!(std::io::stderr(), "{addr} {len}").unwrap();
    loop {
        std::thread::park();
    }
}

/// Starts the lender. Returns the buffer that it lends.
fn borrow(ring: Ring, path: &Path) -> (Child, Registered<Foreign>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "lender", "--nocapture"]).env(LENDER, path);
    command.stdin(ring.as_fd().try_clone_to_owned().unwrap());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let said = line(child.stderr.as_mut().unwrap());
    let (addr, len) = said.split_once(' ').unwrap_or_else(|| panic!("{said}"));
    let foreign = Foreign::at(vec![(addr.parse().unwrap(), len.parse().unwrap())]);
    (child, ring.adopt(foreign).unwrap())
}

#[test]
fn a_read_that_was_under_way_lands_after_the_lender_was_killed() {
    let Some(ring) = ring(4) else { return };
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return skipped("no /dev/shm") };
    let path = dir.path().join("file");
    let media = FileMedia::create(&path, 2 * PAGE, Durability::Process).unwrap();
    let (mut child, mut buffers) = borrow(ring, &path);
    let (reader, mut writer) = pipe();
    let read = buffers.read_fixed(&reader, 0, 0, PAGE..2 * PAGE).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    writer.write_all(&pattern(1, PAGE)).unwrap();
    finish(&mut buffers, read, PAGE);
    let mut bytes = vec![0; 8192];
    media.read(0, &mut bytes).unwrap();
    assert_eq!(bytes[..4096], [0; 4096]);
    assert!(bytes[4096..] == pattern(1, PAGE));
}

#[test]
fn addresses_that_nobody_lent_are_refused_by_the_kernel() {
    let Some(ring) = ring(4) else { return };
    let mut buffers = ring.adopt(Foreign::at(vec![(0x10000, 4096)])).unwrap();
    let source = common::Source::new(&pattern(1, PAGE));
    buffers.read_fixed(&source.file, 0, 0, 0..PAGE).unwrap();
    buffers.wait().unwrap().unwrap().result.unwrap_err();
    assert_eq!(buffers.unregister().unwrap().len(), 1);
}

#[test]
fn a_buffer_that_is_pinned_for_reading_is_not_lent() {
    let Some(ring) = ring(4) else { return };
    let pool = pool(8);
    drop(pinned(&pool, "/file", PAGE));
    let file = pool.open_file("/file").unwrap();
    let pin = file.pin(0..PAGE, &PinOptions::new("reader").registrable()).unwrap();
    let refused = lend(ring.as_fd(), vec![pin]).unwrap_err();
    assert!(matches!(refused.error, RegisterError::ReadOnly(0)), "{refused}");
}

#[test]
fn what_is_lent_stays_pinned() {
    let Some(ring) = ring(4) else { return };
    let pool = pool(8);
    let pin = pinned(&pool, "/file", PAGE);
    pool.remove_file("/file").unwrap();
    lend(ring.as_fd(), vec![pin]).unwrap();
    drop(ring);
    assert_eq!(pool.usage().limbo.bytes(), PAGE, "nobody says when the other process is done");
}
