//! Files that programs have open for writing, or mapped, over a mount while somebody freezes them.
//! These tests need root and `/dev/fuse`; without them they say so and show nothing.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write, stdin};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::served::{BYTES, Served};
use common::{errno, store_mapped};
use rustix::mount::{UnmountFlags, unmount};
use udax::fs::FsError;
use udax::{ErrorKind, Wait};

/// Set in a child: the file that it maps.
const CHILD: &str = "UDAX_TEST_CHILD_MAPS";

impl Served {
    fn freeze(&self, wait: Wait) -> udax::Result<()> {
        self.pool.open_file("/file").unwrap().freeze(wait)
    }

    /// Freezes at once, which must be refused, and says how many handles were named.
    #[track_caller]
    fn handles_in_the_way(&self) -> usize {
        let refused = self.freeze(Wait::Never).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::OpenForWriting);
        let Some(&FsError::OpenForWriting { handles }) = refused.as_fs_error() else {
            panic!("{refused}")
        };
        handles
    }

    fn frozen_bytes(&self) -> Vec<u8> {
        self.pool.open_file("/file").unwrap().frozen().unwrap().to_vec()
    }
}

#[test]
fn a_file_is_not_frozen_while_it_is_open_for_writing_and_refuses_every_change_afterwards() {
    let Some(served) = Served::new() else { return };
    let path = served.at("file");
    let mut reader = fs::File::open(&path).unwrap();
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut append = fs::File::options().append(true).open(&path).unwrap();
    // `O_CREAT` of what is there.
    let create = fs::File::options().write(true).create(true).truncate(false).open(&path).unwrap();

    assert_eq!(served.handles_in_the_way(), 3);
    file.write_all_at(b"written", 100).unwrap();
    append.write_all(b"appended").unwrap();
    drop((file, append, create));
    served.freeze(Wait::Forever).unwrap();

    let refused = |done: std::io::Result<()>| assert_eq!(errno(done), libc::EPERM);
    refused(nix::unistd::truncate(&path, 0).map_err(Into::into));
    refused(nix::unistd::truncate(&path, 1 << 20).map_err(Into::into));
    refused(fs::write(&path, b"x"));
    refused(fs::File::options().append(true).open(&path).map(drop));
    refused(fs::File::options().read(true).write(true).open(&path).map(drop));
    refused(fs::File::options().write(true).create(true).truncate(true).open(&path).map(drop));
    // `O_TRUNC` changes the file, however it is opened.
    let truncating = fs::File::options().read(true).custom_flags(libc::O_TRUNC).open(&path);
    refused(truncating.map(drop));
    // The bytes are frozen, the attributes are not.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();

    let mut expected = BYTES.to_vec();
    expected[100..107].copy_from_slice(b"written");
    expected.extend_from_slice(b"appended");
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert!(bytes == expected);
    assert!(served.frozen_bytes() == expected);
    fs::remove_file(&path).unwrap();
    drop(reader);
    served.finish();
}

#[test]
fn a_file_that_was_made_over_the_mount_is_frozen_when_its_maker_has_closed_it() {
    let Some(served) = Served::new() else { return };
    fs::remove_file(served.at("file")).unwrap();
    let file = fs::File::create_new(served.at("file")).unwrap();
    file.write_all_at(b"bytes", 0).unwrap();
    let second = file.try_clone().unwrap();
    assert_eq!(served.handles_in_the_way(), 1, "a copy of a descriptor is the same handle");
    drop(file);
    assert_eq!(served.handles_in_the_way(), 1);
    drop(second);
    served.freeze(Wait::Forever).unwrap();
    assert_eq!(served.frozen_bytes(), b"bytes");
    served.finish();
}

/// A program that has mapped a file for writing and closed it.
struct Mapper {
    child: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Mapper {
    fn start(path: &Path) -> Mapper {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_maps_a_file", "--nocapture"])
            .env(CHILD, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let orders = child.stdin.take().unwrap();
        let mut mapper = Mapper { child, orders, lines };
        mapper.hears("the file is mapped and closed");
        mapper
    }

    fn goes_on(&mut self) {
        self.orders.write_all(b"go on\n").unwrap();
    }

    #[track_caller]
    fn hears(&mut self, what: &str) {
        assert!(self.lines.by_ref().any(|line| line.unwrap() == what), "it never said: {what}");
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        // A test that failed must not leave a mapping behind, which keeps the mount.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn child_that_maps_a_file() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let map = memmap2::MmapRaw::map_raw(&file).unwrap();
    drop(file);
    let orders = stdin();
    let await_order = || orders.read_line(&mut String::new()).unwrap();
    println!("\nthe file is mapped and closed");
    await_order();
    store_mapped(&map, 5_000, b"stored late");
    println!("\nthe bytes are stored");
    await_order();
    drop(map);
    println!("\nthe file is unmapped");
}

/// Refuses while `end` has not ended a mapping that was stored through, and then keeps the store.
fn check_mapped(end: impl FnOnce(&mut Mapper)) {
    let Some(served) = Served::new() else { return };
    let mut mapper = Mapper::start(&served.at("file"));
    assert_eq!(served.handles_in_the_way(), 1, "mapped and closed");
    mapper.goes_on();
    mapper.hears("the bytes are stored");
    assert_eq!(served.handles_in_the_way(), 1, "stored");

    end(&mut mapper);
    served.freeze(Wait::Forever).unwrap();

    let mut expected = BYTES;
    expected[5_000..5_011].copy_from_slice(b"stored late");
    assert!(served.frozen_bytes() == expected, "the store came too late");
    drop(mapper);
    let over_the_mount = fs::read(served.at("file")).unwrap();
    assert!(over_the_mount == expected);
    served.finish();
}

#[test]
fn a_mapping_whose_file_was_closed_keeps_the_file_from_being_frozen_until_it_is_unmapped() {
    check_mapped(Mapper::goes_on);
}

#[test]
fn a_mapping_ends_with_its_process_and_its_stores_are_in_the_frozen_file() {
    check_mapped(|mapper| mapper.child.kill().unwrap());
}

/// The kernel tells nobody of a close any more.
#[test]
fn what_is_open_when_the_connection_is_cut_off_does_not_keep_a_file_from_being_frozen() {
    let Some(served) = Served::new() else { return };
    let file = fs::File::options().write(true).open(served.at("file")).unwrap();
    assert_eq!(served.handles_in_the_way(), 1);

    // Ends the connection even if it cannot unmount what is in use.
    let _ = unmount(served.place.path(), UnmountFlags::FORCE);
    let _ = served.server.join().unwrap();

    served.pool.open_file("/file").unwrap().freeze(Wait::Never).unwrap();
    assert_eq!(errno(file.write_all_at(b"x", 0)), libc::ENOTCONN);
    drop(file);
    let _ = unmount(served.place.path(), UnmountFlags::DETACH);
}
