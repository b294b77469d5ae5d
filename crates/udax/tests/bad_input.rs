//! Bad input gets an error that names the thing and the cure, and changes nothing.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Helper, SIZE, child_pool, error, on_file, place, say, wait_for_parent};
use udax::{CreateOptions, ErrorKind, OpenPool, PAGE_SIZE, Pool};

mod common;

/// Asserts that opening `path` fails so, says `words`, and leaves every byte as it was.
#[track_caller]
fn refused(path: &Path, kind: ErrorKind, words: &[&str]) {
    let before = fs::read(path).unwrap();
    let found = error(Pool::open(path));
    assert_eq!(found.kind(), kind, "{found}");
    let text = found.to_string();
    for word in words.iter().chain([&path.to_str().unwrap()]) {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
    assert!(before == fs::read(path).unwrap(), "opening changed the file");
}

/// A closed pool with one file.
fn closed_pool() -> (tempfile::TempDir, PathBuf) {
    let (dir, path, pool) = on_file();
    pool.write("/file", [5; 10_000]).unwrap();
    pool.close().unwrap();
    (dir, path)
}

/// Changes bytes of a file of the host.
fn patch(path: &Path, at: u64, change: impl FnOnce(&mut [u8; 8])) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at).unwrap();
    change(&mut bytes);
    file.write_all_at(&bytes, at).unwrap();
}

#[test]
fn a_file_that_is_no_pool_is_refused() {
    let (_dir, path) = place();
    fs::write(&path, vec![b'x'; 4 << 20]).unwrap();
    refused(&path, ErrorKind::NotAPool, &["not a udax pool", "udax create"]);
    fs::write(&path, b"a short text").unwrap();
    refused(&path, ErrorKind::NotAPool, &["12 bytes", "udax create"]);
    fs::write(&path, b"").unwrap();
    refused(&path, ErrorKind::NotAPool, &["udax create"]);
}

#[test]
fn a_directory_or_a_missing_file_is_refused() {
    let (dir, path) = place();
    assert_eq!(error(Pool::open(&path)).kind(), ErrorKind::NotFound);
    assert!(!path.exists());
    let found = error(Pool::open_with(dir.path(), &OpenPool::new().read_only(true)));
    assert_eq!(found.kind(), ErrorKind::IsADirectory);
}

#[test]
fn a_truncated_pool_is_refused() {
    let (_dir, path) = closed_pool();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(SIZE / 2).unwrap();
    refused(&path, ErrorKind::Truncated, &["4096", "2048 pages", "truncated", "restore"]);
    file.set_len(SIZE / 2 + 17).unwrap();
    refused(&path, ErrorKind::NotAPool, &["truncated", "restore"]);
}

#[test]
fn a_newer_version_is_refused() {
    let (_dir, path) = closed_pool();
    for at in superblocks() {
        patch(&path, at + 8, |bytes| bytes[4] = 99);
        let mut record = [0; 256];
        fs::File::open(&path).unwrap().read_exact_at(&mut record, at).unwrap();
        let checksum = crc32fast::hash(&record[12..]);
        patch(&path, at + 8, |bytes| bytes[..4].copy_from_slice(&checksum.to_le_bytes()));
    }
    refused(&path, ErrorKind::NewerVersion, &["version 99", "newer udax"]);
}

#[test]
fn a_flipped_bit_in_the_superblock_is_mended_from_the_mirror_and_said() {
    let (_dir, path) = closed_pool();
    patch(&path, superblocks()[0] + 64, |bytes| bytes[3] ^= 0x10);
    assert_eq!(Pool::check(&path).unwrap().problems[0].object, "superblock");
    let pool = Pool::open(&path).unwrap();
    assert!(pool.recovered().mirror_used);
    assert_eq!(pool.read("/file").unwrap(), [5; 10_000]);
    common::close_clean(&path, pool);
    assert!(!Pool::open(&path).unwrap().recovered().mirror_used);
}

#[test]
fn a_flipped_bit_in_the_mirror_is_mended_from_the_superblock() {
    let (_dir, path) = closed_pool();
    patch(&path, superblocks()[1] + 64, |bytes| bytes[3] ^= 0x10);
    assert_eq!(Pool::check(&path).unwrap().problems[0].object, "superblock");
    common::close_clean(&path, Pool::open(&path).unwrap());
}

#[test]
fn a_pool_without_any_good_superblock_is_refused() {
    let (_dir, path) = closed_pool();
    for at in superblocks() {
        patch(&path, at + 64, |bytes| bytes[3] ^= 0x10);
    }
    let kind = error(Pool::open(&path)).kind();
    assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::NotAPool), "{kind:?}");
}

#[test]
fn a_flipped_bit_in_an_inode_is_found_and_the_rest_stays_readable() {
    let (_dir, path, pool) = on_file();
    pool.write("/bad", vec![1; 0x1235]).unwrap();
    // The last transaction is repeated at each open; it must not be one of the bad file.
    pool.write("/good", b"good").unwrap();
    let ino = pool.metadata("/bad").unwrap().ino().0;
    pool.close().unwrap();

    let size_at = find_inode(&path, ino, 0x1235);
    patch(&path, size_at, |bytes| bytes[0] ^= 1);

    refused(&path, ErrorKind::Corrupt, &[&format!("inode {ino}"), "udax check"]);
    let report = Pool::check(&path).unwrap();
    assert!(report.problems.iter().any(|found| found.object.contains(&ino.to_string())));
    let pool = Pool::open_with(&path, &OpenPool::new().read_only(true)).unwrap();
    assert_eq!(pool.recovered().corrupt.len(), 1);
    assert_eq!(pool.read("/good").unwrap(), b"good");
    assert_eq!(error(pool.read("/bad")).kind(), ErrorKind::Corrupt);
}

#[test]
fn a_full_pool_undoes_the_operation() {
    let (_dir, path, pool) = on_file();
    let mut number = 0;
    let (before, failed) = loop {
        let before = pool.usage();
        if let Err(failed) = pool.write(format!("/file {number}"), vec![7; 300_000]) {
            break (before, failed);
        }
        number += 1;
    };
    assert_eq!(failed.kind(), ErrorKind::Full, "{failed}");
    assert!(failed.to_string().contains("the pool is full"), "{failed}");
    // The file was made, and nothing of its bytes is left.
    let last = format!("/file {number}");
    if pool.exists(&last).unwrap() {
        assert_eq!(pool.metadata(&last).unwrap().len(), 0);
        pool.remove_file(&last).unwrap();
    }
    assert_eq!(pool.usage().free, before.free);
    assert_eq!(pool.read("/file 0").unwrap(), vec![7; 300_000]);
    pool.remove_file("/file 0").unwrap();
    pool.write("/again", vec![8; 300_000]).unwrap();
    common::close_clean(&path, pool);
}

#[test]
fn names_that_cannot_be_are_refused() {
    let pool = common::in_memory();
    let long = format!("/{}", "n".repeat(256));
    for (path, kind) in [
        (long.as_str(), ErrorKind::NameTooLong),
        ("/a\0b", ErrorKind::InvalidName),
        ("/", ErrorKind::InvalidInput),
        ("/..", ErrorKind::InvalidInput),
    ] {
        assert_eq!(error(pool.create_dir(path)).kind(), kind, "{path:?}");
    }
    pool.write(format!("/{}", "n".repeat(255)), b"").unwrap();
    assert_eq!(pool.read_dir("/").unwrap().count(), 1);
}

#[test]
fn a_path_through_a_file_is_refused() {
    let pool = common::in_memory();
    pool.write("/file", b"x").unwrap();
    let found = error(pool.read("/file/below"));
    assert_eq!(found.to_string(), "/file/below: not a directory");
    assert_eq!(error(pool.write("/file/below", b"y")).kind(), ErrorKind::NotADirectory);
}

#[test]
fn links_that_lead_in_a_circle_are_refused() {
    let pool = common::in_memory();
    pool.symlink("/two", "/one").unwrap();
    pool.symlink("/one", "/two").unwrap();
    assert_eq!(error(pool.read("/one")).kind(), ErrorKind::SymlinkLoop);
    assert!(pool.symlink_metadata("/one").unwrap().is_symlink());
}

#[test]
fn a_pool_needs_a_size_and_a_free_path() {
    let (_dir, path) = place();
    let options = CreateOptions::new();
    let sizes = [(0, ErrorKind::InvalidInput), (1 << 20, ErrorKind::TooSmall)];
    for (size, kind) in sizes {
        assert_eq!(error(Pool::create(&path, size, &options)).kind(), kind, "size {size}");
        assert_eq!(error(Pool::create_in_memory("p", size)).kind(), kind, "size {size}");
        assert!(!path.exists());
    }
    // Found only when the file is there: it is removed again.
    error(Pool::create(&path, 1 << 62, &options));
    assert!(!path.exists());
    fs::write(&path, b"precious").unwrap();
    let found = error(Pool::create(&path, SIZE, &options));
    assert_eq!(found.kind(), ErrorKind::AlreadyExists, "{found}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_size_is_rounded_up_to_pages() {
    let (_dir, path) = place();
    let pool = Pool::create(&path, (4 << 20) + 1, &CreateOptions::new()).unwrap();
    let page = u64::try_from(PAGE_SIZE).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), (4 << 20) + page);
    assert_eq!(pool.usage().total.0, 1025);
}

#[test]
fn a_pool_that_is_open_is_refused_with_the_pid_of_its_holder() {
    let (_dir, path) = closed_pool();
    let mut holder = Helper::start("child_that_holds_a_pool", &path);
    holder.wait_for("holding");
    let pid = holder.pid().to_string();
    for options in [OpenPool::new(), OpenPool::new().read_only(true)] {
        let found = error(Pool::open_with(&path, &options));
        assert_eq!(found.kind(), ErrorKind::InUse);
        assert!(found.to_string().contains(&pid), "{found}");
    }
    assert_eq!(error(Pool::check(&path)).kind(), ErrorKind::InUse);
    holder.kill();
    Pool::open(&path).unwrap();
}

#[test]
fn child_that_holds_a_pool() {
    let Some(path) = child_pool() else { return };
    let _pool = Pool::open(path).unwrap();
    say("holding", "it");
    wait_for_parent();
}

#[test]
fn several_readers_share_a_pool_and_keep_writers_out() {
    let (_dir, path) = closed_pool();
    let read_only = OpenPool::new().read_only(true);
    let first = Pool::open_with(&path, &read_only).unwrap();
    let second = Pool::open_with(&path, &read_only).unwrap();
    assert_eq!(error(Pool::open(&path)).kind(), ErrorKind::InUse);
    assert_eq!(error(first.write("/new", b"")).kind(), ErrorKind::ReadOnly);
    assert_eq!(error(second.remove_file("/file")).kind(), ErrorKind::ReadOnly);
    drop((first, second));
    Pool::open(&path).unwrap();
}

#[test]
fn a_pool_is_closed_only_when_nothing_of_it_is_open() {
    let (_dir, path, pool) = on_file();
    let file = pool.create_file("/file").unwrap();
    let found = error(pool.close());
    assert_eq!(found.kind(), ErrorKind::StillOpen, "{found}");
    file.write_all_at(b"late", 0).unwrap();
    drop(file);
    let pool = Pool::open(&path).unwrap();
    assert_eq!(pool.recovered().unclean, None);
    assert_eq!(pool.read("/file").unwrap(), b"late");
}

/// Where the superblock and its mirror lie.
fn superblocks() -> [u64; 2] {
    [0, SIZE - u64::try_from(PAGE_SIZE).unwrap()]
}

/// Where the size of inode `ino` lies: in the last record of 256 bytes with the number 32 bytes
/// later; those before it are in the journal.
fn find_inode(path: &Path, ino: u64, size: u64) -> u64 {
    let image = fs::read(path).unwrap();
    let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
    let found = (0..image.len())
        .step_by(256)
        .rev()
        .find(|&at| word(at + 32) == size && word(at + 64) == ino);
    u64::try_from(found.expect("the record of the inode") + 32).unwrap()
}
