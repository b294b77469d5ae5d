//! A mounted pool, used as any directory is. These tests need root and `/dev/fuse`; without them
//! they say so and show nothing.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use common::{errno, is_impossible, load_mapped, skipped, store_mapped};
use rustix::fs::{FallocateFlags, RenameFlags, fallocate, renameat_with, statvfs};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;
use udax::{CreateOptions, OpenPool, Pool, Wait};
use udax_fuse::{MountError, MountOptions, Session, Unmounted, mount};

/// Set in a child: the pool that it mounts, and where.
const CHILD: &str = "UDAX_TEST_CHILD_MOUNT";

/// A pool on a file, mounted by another process.
///
/// Not by this one: a process that faults on a mapping of its own mount may wait for itself.
struct Mounted {
    dir: PathBuf,
    pool_path: PathBuf,
    server: Child,
    /// What the server says; it must find somebody who listens.
    _lines: Lines<BufReader<ChildStdout>>,
    _place: TempDir,
}

impl Mounted {
    /// Mounts a new pool, or says why it cannot be shown here.
    fn new() -> Option<Mounted> {
        let place = tempfile::tempdir().unwrap();
        let pool_path = place.path().join("pool.udax");
        Pool::create(&pool_path, 64 << 20, &CreateOptions::new()).unwrap().close().unwrap();
        Mounted::serve(place, pool_path)
    }

    fn serve(place: TempDir, pool_path: PathBuf) -> Option<Mounted> {
        let dir = place.path().join("mnt");
        fs::create_dir(&dir).unwrap();
        let mut server = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_serves_a_mount", "--nocapture"])
            .env(CHILD, place.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let said = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("the pool is"));
        if said.as_deref() != Some("the pool is mounted") {
            skipped(&format!("{said:?}"));
            server.wait().unwrap();
            return None;
        }
        Some(Mounted { dir, pool_path, server, _lines: lines, _place: place })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Unmounts, waits for the server, checks the pool and opens it.
    fn finish(self) -> Pool {
        // A test beside this one may be starting a child, which has every open file for a moment.
        let tried = (0..100_000).map(|_| unmount(&self.dir, UnmountFlags::empty()));
        let mut settled = tried.skip_while(|tried| {
            let is_busy = *tried == Err(Errno::BUSY);
            is_busy.then(std::thread::yield_now).is_some()
        });
        settled.next().expect("nobody has a file open").unwrap();
        self.ended()
    }

    /// Waits for the server to end by itself, checks the pool and opens it.
    fn ended(mut self) -> Pool {
        assert!(self.server.wait().unwrap().success());
        let pool = self.reopen();
        assert_eq!(pool.recovered().unclean, None);
        pool
    }

    fn reopen(&self) -> Pool {
        assert_eq!(Pool::check(&self.pool_path).unwrap().problems, []);
        Pool::open(&self.pool_path).unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nothing to do after `finish`; a test that failed must leave no mount behind.
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = unmount(&self.dir, UnmountFlags::DETACH);
    }
}

#[test]
fn child_that_serves_a_mount() {
    let Some(place) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let path = place.join("pool.udax");
    let is_writable = !fs::metadata(&path).unwrap().permissions().readonly();
    let pool = Pool::open_with(path, &OpenPool::new().read_only(!is_writable)).unwrap();
    match mount(pool.clone(), place.join("mnt"), &MountOptions::new().threads(3)) {
        Err(error) if is_impossible(&error) => {
            println!("\nthe pool is not mounted: {error}");
        }
        session => {
            println!("\nthe pool is mounted");
            session.unwrap().run().unwrap();
            pool.close().unwrap();
        }
    }
}

#[test]
fn a_mounted_pool_is_a_directory_like_any_other() {
    let Some(mounted) = Mounted::new() else { return };
    let text = b"over the mount ".repeat(50_000);
    fs::create_dir_all(mounted.at("a/b")).unwrap();
    fs::write(mounted.at("a/b/file"), &text).unwrap();
    assert_eq!(fs::read(mounted.at("a/b/file")).unwrap(), text);
    fs::hard_link(mounted.at("a/b/file"), mounted.at("second")).unwrap();
    symlink("a/b/file", mounted.at("link")).unwrap();
    assert_eq!(fs::read(mounted.at("link")).unwrap(), text);
    assert_eq!(fs::metadata(mounted.at("second")).unwrap().nlink(), 2);
    fs::remove_file(mounted.at("a/b/file")).unwrap();
    assert_eq!(errno(fs::read(mounted.at("link"))), libc::ENOENT);
    assert_eq!(errno(fs::remove_dir(mounted.at("a"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::create_dir(mounted.at("second/below"))), libc::ENOTDIR);
    assert_eq!(errno(fs::write(mounted.at(&"n".repeat(256)), b"")), libc::ENAMETOOLONG);
    fs::set_permissions(mounted.at("second"), fs::Permissions::from_mode(0o640)).unwrap();

    let pool = mounted.finish();
    assert_eq!(pool.read("/second").unwrap(), text);
    assert_eq!(pool.metadata("/second").unwrap().mode(), 0o640);
    assert_eq!(pool.read_link("/link").unwrap(), Path::new("a/b/file"));
}

#[test]
fn appends_truncates_and_holes_are_those_of_linux() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.at("file");
    fs::write(&path, b"0123456789").unwrap();
    let mut log = fs::File::options().append(true).open(&path).unwrap();
    log.write_all(b"ab").unwrap();
    log.write_all(b"cd").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"0123456789abcd");
    let mut file = fs::File::options().read(true).write(true).open(&path).unwrap();
    file.set_len(4).unwrap();
    file.set_len(6).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"0123\0\0");
    file.set_len(1 << 20).unwrap();
    file.write_all_at(b"end", (1 << 20) - 3).unwrap();
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap(), 4096);
    assert_eq!(
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(4096)).unwrap(),
        (1 << 20) - 4096
    );
    let (punch, zero) =
        (FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, FallocateFlags::ZERO_RANGE);
    fallocate(&file, punch, 0, 2).unwrap();
    fallocate(&file, FallocateFlags::KEEP_SIZE, 2 << 20, 4096).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    fallocate(&file, zero, (1 << 20) - 2, 4).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, 3 << 20).unwrap();
    assert_eq!(fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096), Err(Errno::OPNOTSUPP));
    assert_eq!(file.metadata().unwrap().len(), 3 << 20);
    file.seek(SeekFrom::Start((1 << 20) - 4)).unwrap();
    let mut bytes = [9; 6];
    file.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"\0e\0\0\0\0");
    fs::write(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    drop((log, file));
    assert_eq!(mounted.finish().read("/file").unwrap(), b"new");
}

#[test]
fn a_shared_mapping_and_the_file_show_each_other() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.at("mapped");
    let file = fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(1 << 20).unwrap();
    let map = memmap2::MmapRaw::map_raw(&file).unwrap();
    file.write_all_at(b"from the file", 70_000).unwrap();
    assert_eq!(load_mapped(&map, 70_000, 13), b"from the file");
    store_mapped(&map, 4_090, b"from the mapping");
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes, 4_090).unwrap();
    assert_eq!(&bytes, b"from the mapping");
    map.flush().unwrap();
    drop((map, file));
    assert_eq!(&mounted.finish().read("/mapped").unwrap()[4_090..4_106], b"from the mapping");
}

#[test]
fn renames_take_the_flags_of_renameat2() {
    let Some(mounted) = Mounted::new() else { return };
    fs::write(mounted.at("a"), b"a").unwrap();
    fs::write(mounted.at("b"), b"b").unwrap();
    let dir = fs::File::open(&mounted.dir).unwrap();
    let no_replace = renameat_with(&dir, "a", &dir, "b", RenameFlags::NOREPLACE);
    assert_eq!(no_replace, Err(Errno::EXIST));
    renameat_with(&dir, "a", &dir, "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(mounted.at("a")).unwrap(), b"b");
    fs::rename(mounted.at("a"), mounted.at("b")).unwrap();
    assert_eq!(fs::read(mounted.at("b")).unwrap(), b"b");
    assert!(!mounted.at("a").exists());
    drop(dir);
    mounted.finish();
}

#[test]
fn an_open_file_without_a_name_is_whole_until_it_is_closed() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.at("ghost");
    let mut options = fs::File::options();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path).unwrap();
    file.write_all_at(&vec![5; 200_000], 0).unwrap();
    let full = statvfs(&mounted.dir).unwrap().f_bfree;
    fs::remove_file(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 199_999).unwrap();
    assert_eq!((byte, file.metadata().unwrap().nlink()), ([5], 0));
    drop(file);
    let found = mounted.finish().usage().free.0;
    assert!(found > full, "{found} pages are free, and {full} were with the file");
}

#[test]
fn a_large_directory_is_listed_whole() {
    let Some(mounted) = Mounted::new() else { return };
    let dir = mounted.at("many");
    fs::create_dir(&dir).unwrap();
    for number in 0..1_000 {
        fs::write(dir.join(format!("a name that takes some room {number}")), b"").unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    // None twice either.
    assert_eq!(names.len(), 1_000);
    assert!(names.is_sorted_by(|a, b| a < b));
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(fs::read_dir(&mounted.dir).unwrap().count(), 0);
    mounted.finish();
}

#[test]
fn a_full_pool_is_enospc_and_statfs_says_how_full() {
    let Some(mounted) = Mounted::new() else { return };
    let before = statvfs(&mounted.dir).unwrap();
    assert_eq!(before.f_blocks * before.f_frsize, 64 << 20);
    assert_eq!(errno(fs::write(mounted.at("large"), vec![1; 70 << 20])), libc::ENOSPC);
    fs::remove_file(mounted.at("large")).unwrap();
    // The blocks come back when the kernel forgets the file, which it says without waiting.
    while statvfs(&mounted.dir).unwrap().f_bfree + 8 < before.f_bfree {
        std::thread::yield_now();
    }
    fs::write(mounted.at("small"), vec![1; 1 << 20]).unwrap();
    let after = statvfs(&mounted.dir).unwrap();
    let used = before.f_bfree - after.f_bfree;
    assert!((256..300).contains(&used), "{used} blocks for a MiB");
    mounted.finish();
}

#[test]
fn a_new_file_belongs_to_the_caller_or_to_the_group_of_the_directory() {
    let Some(mounted) = Mounted::new() else { return };
    let dir = mounted.at("shared");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, None, Some(4321)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o2775)).unwrap();
    fs::write(dir.join("file"), b"").unwrap();
    fs::create_dir(dir.join("below")).unwrap();
    assert_eq!(fs::metadata(dir.join("file")).unwrap().gid(), 4321);
    assert_eq!(fs::metadata(dir.join("below")).unwrap().mode() & 0o7000, 0o2000);
    fs::write(mounted.at("mine"), b"").unwrap();
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(fs::metadata(mounted.at("mine")).unwrap().uid(), uid);
    mounted.finish();
}

#[test]
fn a_pool_is_mounted_only_on_an_empty_directory() {
    let Some(mounted) = Mounted::new() else { return };
    let pool = || Pool::create_in_memory("second", 8 << 20).unwrap();
    let options = MountOptions::new();
    let found = mount(pool(), &mounted.dir, &options).unwrap_err();
    assert!(matches!(found, MountError::AlreadyMounted { .. }), "{found}");
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, b"").unwrap();
    let found = mount(pool(), &file, &options).unwrap_err();
    assert!(matches!(found, MountError::NotADirectory(_)), "{found}");
    let found = mount(pool(), place.path(), &options).unwrap_err();
    assert!(matches!(found, MountError::NotEmpty(_)), "{found}");
    let found = mount(pool(), place.path().join("missing"), &options).unwrap_err();
    assert!(matches!(found, MountError::Host { .. }), "{found}");
    mounted.finish();
}

#[test]
fn a_pool_that_is_open_read_only_is_mounted_so() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("pool.udax");
    let pool = Pool::create(&path, 8 << 20, &CreateOptions::new()).unwrap();
    pool.write("/file", b"text").unwrap();
    pool.close().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let Some(mounted) = Mounted::serve(place, path) else { return };
    assert_eq!(fs::read(mounted.at("file")).unwrap(), b"text");
    assert_eq!(errno(fs::write(mounted.at("file"), b"x")), libc::EROFS);
}

#[test]
fn a_frozen_file_is_read_and_not_written() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("pool.udax");
    let pool = Pool::create(&path, 8 << 20, &CreateOptions::new()).unwrap();
    pool.write("/frozen", b"text").unwrap();
    pool.open_file("/frozen").unwrap().freeze(Wait::Forever).unwrap();
    pool.close().unwrap();
    let Some(mounted) = Mounted::serve(place, path) else { return };
    assert_eq!(fs::read(mounted.at("frozen")).unwrap(), b"text");
    let opened = fs::File::options().write(true).open(mounted.at("frozen"));
    assert_eq!(errno(opened), libc::EPERM);
    assert_eq!(errno(fs::write(mounted.at("frozen"), b"x")), libc::EPERM);
    fs::remove_file(mounted.at("frozen")).unwrap();
    mounted.finish();
}

/// fuser 0.18 counts the nanoseconds of a time before 1970 backwards; the mount turns them around.
#[test]
fn copy_file_range_shares_whole_pages_and_copies_the_rest() {
    let Some(mounted) = Mounted::new() else { return };
    let bytes: Vec<u8> = (0..(3_u32 << 20) / 4 + 77).flat_map(u32::to_le_bytes).collect();
    fs::write(mounted.at("a"), &bytes).unwrap();
    let copied = fs::copy(mounted.at("a"), mounted.at("b")).unwrap();
    assert_eq!(copied, u64::try_from(bytes.len()).unwrap());
    let (from, to) = (fs::File::open(mounted.at("a")).unwrap(), mounted.at("c"));
    let to = fs::File::options().read(true).write(true).create_new(true).open(to).unwrap();
    // From inside a page on: nothing can be shared.
    let copy = |from_at: u64, at: u64, len: usize| {
        let (mut from_at, mut at, mut left) = (from_at, at, len);
        while left > 0 {
            let (from_at, at) = (Some(&mut from_at), Some(&mut at));
            left -= rustix::fs::copy_file_range(&from, from_at, &to, at, left).unwrap();
        }
    };
    copy(10, 0, 9000);
    copy(8192, 12_288, 100_000);
    let b = fs::read(mounted.at("b")).unwrap();
    assert!(b == bytes);
    let c = fs::read(mounted.at("c")).unwrap();
    assert!(c[..9000] == bytes[10..9010] && c[12_288..] == bytes[8192..108_192]);
    fs::File::options().write(true).open(mounted.at("b")).unwrap().write_all(b"other").unwrap();
    assert!(fs::read(mounted.at("a")).unwrap() == bytes, "the clone was written, not the source");
    drop((from, to));

    let pool = mounted.finish();
    let shared = |name: &str| -> u64 {
        let extents = pool.open_file(name).unwrap().extents().unwrap();
        extents.iter().filter(|extent| extent.is_shared).map(|extent| extent.pages.0).sum()
    };
    assert_eq!(shared("/b"), 768, "all but the first of 769 pages");
    assert_eq!(shared("/c"), 100_000 / 4096);
    assert!(pool.read("/a").unwrap() == bytes);
}

#[test]
fn times_before_1970_are_kept_to_the_nanosecond() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.at("old");
    let file = fs::File::create_new(&path).unwrap();
    let times =
        [(-1, 999_999_999), (-1, 0), (-1, 500_000_000), (-2, 1), (-1_000_000_000, 7), (0, 0)];
    for (seconds, nanos) in times {
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
        let both = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(&file, &both).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (seconds, nanos));
        assert_eq!((found.atime(), found.atime_nsec()), (seconds, nanos));
    }
    let halfway = std::time::UNIX_EPOCH - std::time::Duration::from_millis(500);
    file.set_modified(halfway).unwrap();
    drop(file);
    assert_eq!(mounted.finish().metadata("/old").unwrap().modified(), halfway);
}

#[test]
fn a_mount_whose_server_is_killed_loses_nothing_that_was_written() {
    let Some(mut mounted) = Mounted::new() else { return };
    for number in 0..200 {
        fs::write(mounted.at(&format!("file {number}")), vec![7; 5_000]).unwrap();
    }
    mounted.server.kill().unwrap();
    mounted.server.wait().unwrap();
    assert_eq!(errno(fs::read_dir(&mounted.dir)), libc::ENOTCONN);
    let found = mount(mounted.reopen(), &mounted.dir, &MountOptions::new()).unwrap_err();
    assert!(matches!(found, MountError::AlreadyMounted { .. }), "{found}");
    unmount(&mounted.dir, UnmountFlags::empty()).unwrap();
    let pool = mounted.reopen();
    for number in 0..200 {
        assert_eq!(pool.read(format!("/file {number}")).unwrap(), vec![7; 5_000]);
    }
}

#[test]
fn what_is_open_and_mapped_when_a_mount_goes_is_served_until_it_is_closed() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.at("mapped");
    let file = fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let ghost = fs::File::create_new(mounted.at("ghost")).unwrap();
    ghost.write_all_at(&vec![1; 100_000], 0).unwrap();
    fs::remove_file(mounted.at("ghost")).unwrap();
    file.set_len(1 << 20).unwrap();
    let map = memmap2::MmapRaw::map_raw(&file).unwrap();
    store_mapped(&map, 5_000, b"before");

    unmount(&mounted.dir, UnmountFlags::DETACH).unwrap();

    assert_eq!(fs::read_dir(&mounted.dir).unwrap().count(), 0);
    store_mapped(&map, 500_000, b"after");
    file.write_all_at(b"written", 900_000).unwrap();
    drop((map, file, ghost));
    let pool = mounted.ended();
    assert_eq!(pool.recovered().orphans, 0);
    let bytes = pool.read("/mapped").unwrap();
    assert_eq!(&bytes[5_000..5_006], b"before");
    assert_eq!(&bytes[500_000..500_005], b"after");
    assert_eq!(&bytes[900_000..900_007], b"written");
}

/// A session of this process on a new pool in memory, or why there is none here.
fn in_memory(dir: &Path) -> Option<Session> {
    let pool = Pool::create_in_memory("pool", 8 << 20).unwrap();
    match mount(pool, dir, &MountOptions::new()) {
        Err(error) if is_impossible(&error) => {
            skipped(&error);
            None
        }
        session => Some(session.unwrap()),
    }
}

#[test]
fn an_unmounter_ends_a_session_and_frees_the_directory_even_if_a_file_is_open() {
    let place = tempfile::tempdir().unwrap();
    let Some(session) = in_memory(place.path()) else { return };
    let unmounter = session.unmounter();
    let server = std::thread::spawn(move || session.run());
    let file = fs::File::create_new(place.path().join("file")).unwrap();
    assert_eq!(unmounter.unmount().unwrap(), Unmounted::InUse);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    file.write_all_at(b"still served", 0).unwrap();
    drop(file);
    server.join().unwrap().unwrap();
}

/// A directory that was unmounted by somebody else may have another mount by the time the handler
/// of Ctrl-C runs.
#[test]
fn an_unmounter_leaves_what_was_mounted_there_later() {
    let place = tempfile::tempdir().unwrap();
    let Some(session) = in_memory(place.path()) else { return };
    let first = session.unmounter();
    let first_server = std::thread::spawn(move || session.run());
    let file = fs::File::create_new(place.path().join("file")).unwrap();
    unmount(place.path(), UnmountFlags::DETACH).unwrap();
    let session = in_memory(place.path()).unwrap();
    let second = session.unmounter();
    let second_server = std::thread::spawn(move || session.run());
    fs::write(place.path().join("of the second"), b"text").unwrap();

    assert_eq!(first.unmount().unwrap(), Unmounted::InUse);

    assert_eq!(fs::read(place.path().join("of the second")).unwrap(), b"text");
    drop(file);
    first_server.join().unwrap().unwrap();
    // Which of the two it is depends on the tests beside this one: a fork keeps files open.
    let _ = second.unmount().unwrap();
    second_server.join().unwrap().unwrap();
}
