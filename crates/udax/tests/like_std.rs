//! A pool and a directory of the host get the same calls and give the same answers.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use udax::{OpenOptions, Pool};

mod common;

/// One call, on either side.
#[derive(Clone, Copy, Debug)]
enum Call {
    CreateDir(&'static str),
    CreateDirAll(&'static str),
    Write(&'static str, &'static str),
    CreateNew(&'static str),
    Append(&'static str, &'static str),
    Read(&'static str),
    List(&'static str),
    Len(&'static str),
    Kind(&'static str),
    Rename(&'static str, &'static str),
    Link(&'static str, &'static str),
    Symlink(&'static str, &'static str),
    ReadLink(&'static str),
    RemoveFile(&'static str),
    RemoveDir(&'static str),
    RemoveDirAll(&'static str),
    SetLen(&'static str, u64),
    Chmod(&'static str, u32),
    Mode(&'static str),
    Links(&'static str),
}

use Call::{
    Append, Chmod, CreateDir, CreateDirAll, CreateNew, Kind, Len, Link, Links, List, Mode,
    Read as ReadFile, ReadLink, RemoveDir, RemoveDirAll, RemoveFile, Rename, SetLen, Symlink,
    Write as WriteFile,
};

/// In order; each sees what those before it left.
const CALLS: &[Call] = &[
    List("/"),
    ReadFile("/missing"),
    WriteFile("/missing/file", "x"),
    CreateDir("/a"),
    CreateDir("/a"),
    CreateDir("/x/y"),
    CreateDirAll("/b/c/d"),
    CreateDirAll("/b/c/d"),
    WriteFile("/a/file", "hello"),
    ReadFile("/a/file"),
    Len("/a/file"),
    CreateNew("/a/file"),
    CreateNew("/a/new"),
    Append("/a/file", " world"),
    ReadFile("/a/file"),
    // A path through a file.
    ReadFile("/a/file/more"),
    CreateDir("/a/file/more"),
    CreateDirAll("/a/file"),
    CreateDirAll("/a/file/more"),
    // Sizes.
    SetLen("/a/file", 5),
    ReadFile("/a/file"),
    SetLen("/a/file", 8),
    ReadFile("/a/file"),
    // Dots.
    ReadFile("/a/../a/./file"),
    // Renames.
    Rename("/missing", "/z"),
    Rename("/a/file", "/b/file"),
    ReadFile("/a/file"),
    ReadFile("/b/file"),
    WriteFile("/b/other", "other"),
    Rename("/b/file", "/b/other"),
    ReadFile("/b/other"),
    Rename("/b/other", "/b/other"),
    Rename("/b/other", "/a"),
    Rename("/a", "/b/other"),
    Rename("/b", "/b/c/inside"),
    Rename("/a", "/b"),
    CreateDir("/empty"),
    Rename("/a", "/empty"),
    List("/"),
    List("/empty"),
    // Links.
    Link("/b/other", "/b/second"),
    Links("/b/other"),
    RemoveFile("/b/other"),
    ReadFile("/b/second"),
    Links("/b/second"),
    Symlink("second", "/b/link"),
    ReadFile("/b/link"),
    ReadLink("/b/link"),
    ReadLink("/b/second"),
    Kind("/b/link"),
    Symlink("nowhere", "/b/dangling"),
    ReadFile("/b/dangling"),
    WriteFile("/b/dangling", "made through a link"),
    ReadFile("/b/nowhere"),
    CreateNew("/b/dangling"),
    Symlink("../b", "/b/up"),
    ReadFile("/b/up/up/up/second"),
    Symlink("x", "/b/link"),
    // Permissions.
    Chmod("/b/second", 0o640),
    Mode("/b/second"),
    Chmod("/b/missing", 0o640),
    // Directories have links too.
    Links("/b"),
    Links("/"),
    // Removal.
    RemoveFile("/b"),
    RemoveDir("/b"),
    RemoveDir("/b/second"),
    RemoveFile("/missing"),
    RemoveDir("/missing"),
    RemoveDirAll("/b/second"),
    RemoveDirAll("/b/up"),
    List("/b"),
    RemoveDirAll("/b"),
    RemoveDirAll("/b"),
    List("/"),
    ReadFile("/empty"),
    List("/empty/new"),
    RemoveFile("/empty/new"),
    RemoveDir("/empty"),
    List("/"),
];

#[test]
fn a_pool_answers_as_a_directory_of_the_host() {
    let (_dir, path, pool) = common::on_file();
    let host = tempfile::tempdir().unwrap();
    for (number, &call) in CALLS.iter().enumerate() {
        let expected = on_host(host.path(), call).map_err(|error| error.kind());
        let found = on_pool(&pool, call).map_err(|error| error.kind());
        assert_eq!(found, expected, "call {number}: {call:?}");
        assert_eq!(pool.verify(), Ok(()), "after call {number}: {call:?}");
    }
    common::close_clean(&path, pool);
}

fn on_host(root: &Path, call: Call) -> io::Result<String> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    let at = |path: &str| root.join(&path[1..]);
    match call {
        CreateDir(path) => fs::create_dir(at(path)).map(none),
        CreateDirAll(path) => fs::create_dir_all(at(path)).map(none),
        WriteFile(path, text) => fs::write(at(path), text).map(none),
        CreateNew(path) => {
            fs::OpenOptions::new().write(true).create_new(true).open(at(path)).map(none)
        }
        Append(path, text) => {
            let mut file = fs::OpenOptions::new().append(true).open(at(path))?;
            file.write_all(text.as_bytes()).map(none)
        }
        // Of a directory the host says so only when it is read.
        ReadFile(path) => fs::read_to_string(at(path)),
        List(path) => {
            let names = fs::read_dir(at(path))?.map(|entry| entry.map(|entry| entry.file_name()));
            Ok(sorted(names.collect::<io::Result<_>>()?))
        }
        Len(path) => Ok(fs::metadata(at(path))?.len().to_string()),
        Kind(path) => Ok(fs::symlink_metadata(at(path))?.is_symlink().to_string()),
        Rename(from, to) => fs::rename(at(from), at(to)).map(none),
        Link(from, to) => fs::hard_link(at(from), at(to)).map(none),
        Symlink(target, path) => symlink(target, at(path)).map(none),
        ReadLink(path) => Ok(fs::read_link(at(path))?.display().to_string()),
        RemoveFile(path) => fs::remove_file(at(path)).map(none),
        RemoveDir(path) => fs::remove_dir(at(path)).map(none),
        RemoveDirAll(path) => fs::remove_dir_all(at(path)).map(none),
        SetLen(path, len) => {
            fs::OpenOptions::new().write(true).open(at(path))?.set_len(len).map(none)
        }
        Chmod(path, mode) => {
            fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).map(none)
        }
        Mode(path) => Ok((fs::metadata(at(path))?.mode() & 0o7777).to_string()),
        // Not every filesystem of a host counts the links of directories; ext4 and tmpfs do.
        Links(path) if at(path).is_dir() => {
            let dirs = fs::read_dir(at(path))?.filter(|entry| {
                entry.as_ref().is_ok_and(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            });
            Ok((2 + dirs.count()).to_string())
        }
        Links(path) => Ok(fs::metadata(at(path))?.nlink().to_string()),
    }
}

fn on_pool(pool: &Pool, call: Call) -> io::Result<String> {
    match call {
        CreateDir(path) => pool.create_dir(path).map(none),
        CreateDirAll(path) => pool.create_dir_all(path).map(none),
        WriteFile(path, text) => pool.write(path, text).map(none),
        CreateNew(path) => {
            OpenOptions::new().write(true).create_new(true).open(pool, path).map(none)
        }
        Append(path, text) => {
            let mut file = OpenOptions::new().append(true).open(pool, path)?;
            return file.write_all(text.as_bytes()).map(none);
        }
        ReadFile(path) => pool.read(path).map(|bytes| String::from_utf8(bytes).unwrap()),
        List(path) => {
            let names = pool.read_dir(path)?.map(|entry| Ok(entry?.file_name().to_owned()));
            names.collect::<udax::Result<_>>().map(sorted)
        }
        Len(path) => pool.metadata(path).map(|found| found.len().to_string()),
        Kind(path) => pool.symlink_metadata(path).map(|found| found.is_symlink().to_string()),
        Rename(from, to) => pool.rename(from, to).map(none),
        Link(from, to) => pool.hard_link(from, to).map(none),
        Symlink(target, path) => pool.symlink(target, path).map(none),
        ReadLink(path) => pool.read_link(path).map(|target| target.display().to_string()),
        RemoveFile(path) => pool.remove_file(path).map(none),
        RemoveDir(path) => pool.remove_dir(path).map(none),
        RemoveDirAll(path) => pool.remove_dir_all(path).map(none),
        SetLen(path, len) => {
            OpenOptions::new().write(true).open(pool, path)?.set_len(len).map(none)
        }
        Chmod(path, mode) => pool.set_permissions(path, mode).map(none),
        Mode(path) => pool.metadata(path).map(|found| found.mode().to_string()),
        Links(path) => pool.metadata(path).map(|found| found.links().to_string()),
    }
    .map_err(io::Error::from)
}

fn none<T>(_: T) -> String {
    String::new()
}

fn sorted(mut names: Vec<std::ffi::OsString>) -> String {
    names.sort();
    format!("{names:?}")
}

#[test]
fn a_file_is_a_stream_with_a_position() {
    let pool = common::in_memory();
    let mut file = pool.create_file("/stream").unwrap();
    file.write_all(b"0123456789").unwrap();
    assert_eq!(file.seek(SeekFrom::End(-4)).unwrap(), 6);
    assert_eq!(file.seek(SeekFrom::Current(-1)).unwrap(), 5);
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).unwrap();
    assert_eq!(tail, b"56789");
    assert_eq!(file.seek(SeekFrom::Current(-11)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    // A gap that is left by seeking reads as zeros.
    file.seek(SeekFrom::Start(12)).unwrap();
    file.write_all(b"!").unwrap();
    assert_eq!(pool.read("/stream").unwrap(), b"0123456789\0\0!");
}

#[test]
fn every_handle_that_appends_writes_at_the_end() {
    let pool = common::in_memory();
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    let mut first = options.open(&pool, "/log").unwrap();
    let mut second = options.open(&pool, "/log").unwrap();
    first.write_all(b"one ").unwrap();
    second.write_all(b"two ").unwrap();
    first.write_all(b"three").unwrap();
    assert_eq!(second.write_at(b"!", 0).unwrap(), 1);
    assert_eq!(pool.read("/log").unwrap(), b"one two three!");
}

#[test]
fn a_handle_does_only_what_it_was_opened_for() {
    use udax::ErrorKind::BadHandle;

    let pool = common::in_memory();
    pool.write("/file", b"bytes").unwrap();
    let reader = pool.open_file("/file").unwrap();
    assert_eq!(common::error(reader.write_at(b"x", 0)).kind(), BadHandle);
    assert_eq!(common::error(reader.set_len(0)).kind(), BadHandle);
    assert_eq!(common::error(reader.punch_hole(0..1)).kind(), BadHandle);
    let writer = OpenOptions::new().write(true).open(&pool, "/file").unwrap();
    assert_eq!(common::error(writer.read_at(&mut [0; 1], 0)).kind(), BadHandle);
    assert_eq!(pool.read("/file").unwrap(), b"bytes");
}

#[test]
fn an_open_file_outlives_its_name() {
    let (_dir, path, pool) = common::on_file();
    pool.write("/other", b"so that the directory has a page").unwrap();
    let free = pool.usage().free;
    let file = pool.create_file("/ghost").unwrap();
    file.write_all_at(&vec![7; 100_000], 0).unwrap();
    pool.remove_file("/ghost").unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 99_999).unwrap();
    assert_eq!(byte, [7]);
    file.write_all_at(&vec![8; 100_000], 100_000).unwrap();
    drop(file);
    assert_eq!(pool.usage().free, free);
    common::close_clean(&path, pool);
}

#[test]
fn a_directory_is_listed_whole_while_it_is_emptied() {
    let pool = common::in_memory();
    pool.create_dir("/many").unwrap();
    for number in 0..1000 {
        pool.write(format!("/many/entry {number}"), b"").unwrap();
    }
    let mut seen = 0;
    for entry in pool.read_dir("/many").unwrap() {
        pool.remove_file(entry.unwrap().path()).unwrap();
        seen += 1;
    }
    assert_eq!(seen, 1000);
    assert_eq!(pool.read_dir("/many").unwrap().count(), 0);
    assert_eq!(pool.verify(), Ok(()));
}

#[test]
fn a_canonical_path_has_no_links_and_no_dots() {
    let pool = common::in_memory();
    pool.create_dir_all("/a/b/c").unwrap();
    pool.symlink("/a/b", "/a/short").unwrap();
    let found = pool.canonicalize("a/short/c/../../b/./c").unwrap();
    assert_eq!(found, Path::new("/a/b/c"));
}

#[test]
fn attributes_are_kept_with_the_file() {
    use std::time::{Duration, UNIX_EPOCH};

    let (_dir, path, pool) = common::on_file();
    let file = OpenOptions::new().write(true).create(true).mode(0o600).open(&pool, "/f").unwrap();
    let (read, written) =
        (UNIX_EPOCH + Duration::new(1, 1), UNIX_EPOCH + Duration::from_nanos(1 << 60));
    file.set_times(&udax::Times::new().accessed(read).modified(written)).unwrap();
    pool.set_owner("/f", 12, 34).unwrap();
    drop(file);
    pool.close().unwrap();
    let pool = Pool::open(&path).unwrap();
    let found = pool.metadata("/f").unwrap();
    assert_eq!((found.mode(), found.uid(), found.gid()), (0o600, 12, 34));
    assert_eq!((found.accessed(), found.modified()), (read, written));
}
