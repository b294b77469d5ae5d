//! `udax cp`: what goes in comes out again.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;

use common::{Bench, assert_same, make_tree, pattern};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// A pool that holds the tree of `make_tree` at `/tree`; the tree is at `in`.
fn imported() -> Bench {
    let bench = Bench::with_pool("256M");
    make_tree(&bench.path("in"));
    bench.ok(&["cp", "-r", "in", "p.udax:/tree"]);
    bench
}

#[test]
fn a_tree_comes_out_as_it_went_in() {
    let bench = imported();
    bench.ok(&["cp", "-r", "p.udax:/tree", "out"]);
    assert_same(&bench.path("in"), &bench.path("out"));
    bench.assert_clean();
}

#[test]
fn a_tree_goes_from_pool_to_pool_and_within_one() {
    let bench = imported();
    bench.ok(&["create", "q.udax", "--size", "256M"]);
    bench.ok(&["cp", "-r", "p.udax:/tree", "q.udax:/"]);
    bench.ok(&["cp", "-r", "q.udax:/tree", "q.udax:/again"]);
    bench.ok(&["cp", "-r", "q.udax:/again", "out"]);
    assert_same(&bench.path("in"), &bench.path("out"));
}

#[test]
fn importing_again_overwrites() {
    let bench = imported();
    fs::write(bench.path("in/empty"), b"no longer").unwrap();
    fs::write(bench.path("in/deep/er/large"), b"not any more").unwrap();
    fs::remove_file(bench.path("in/link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", bench.path("in/link")).unwrap();
    bench.ok(&["cp", "-r", "in/.", "p.udax:/tree"]);
    bench.ok(&["cp", "-r", "p.udax:/tree", "out"]);
    assert_same(&bench.path("in"), &bench.path("out"));
    bench.ok(&["cp", "-r", "p.udax:/tree/.", "out"]);
    assert_same(&bench.path("in"), &bench.path("out"));
    bench.assert_clean();
}

#[test]
fn holes_stay_holes_on_both_ways() {
    let bench = imported();
    let file = &bench.json(&["stat", "p.udax:/tree/sparse"])["files"][0];
    assert_eq!(file["size"], 64 << 20);
    assert!(file["allocated"].as_u64().unwrap() < 8 << 20, "{file}");
    bench.ok(&["cp", "p.udax:/tree/sparse", "out"]);
    assert!(fs::metadata(bench.path("out")).unwrap().blocks() * 512 < 8 << 20);
}

#[test]
fn names_are_bytes_on_the_command_line_too() {
    let bench = imported();
    let name = OsStr::from_bytes(b"not utf-8 \xff\xfe");
    let mut path = b"p.udax:/tree/".to_vec();
    path.extend_from_slice(name.as_bytes());
    let path = OsString::from_vec(path);
    assert_eq!(bench.ok(&[OsStr::new("cat"), &path]), "named by bytes");
    bench.ok(&[OsStr::new("cp"), &path, OsStr::new(".")]);
    assert_eq!(fs::read(bench.path(name)).unwrap(), b"named by bytes");
    let listed = bench.json(&["ls", "p.udax:/tree"]);
    assert!(listed.to_string().contains("6e6f74207574662d3820fffe"), "{listed}");
}

#[test]
fn one_file_goes_into_a_directory_or_under_a_name() {
    let bench = Bench::with_pool("8M");
    fs::write(bench.path("a"), b"of a").unwrap();
    std::os::unix::fs::symlink("a", bench.path("link")).unwrap();
    bench.ok(&["cp", "a", "p.udax:/"]);
    bench.ok(&["cp", "link", "p.udax:/b"]);
    assert_eq!(bench.ok(&["cat", "p.udax:/a", "p.udax:/b"]), "of aof a");
    assert_eq!(bench.json(&["stat", "p.udax:/b"])["files"][0]["kind"], "file");
}

#[test]
fn a_symbolic_link_in_the_way_is_replaced_and_not_followed() {
    let bench = Bench::with_pool("8M");
    fs::write(bench.path("name"), b"new").unwrap();
    fs::write(bench.path("other"), b"old").unwrap();
    bench.ok(&["cp", "other", "p.udax:/"]);
    bench.ok(&["ln", "-s", "other", "p.udax:/name"]);
    bench.ok(&["cp", "name", "p.udax:/"]);
    assert_eq!(bench.ok(&["cat", "p.udax:/name", "p.udax:/other"]), "newold");
}

#[test]
fn what_has_no_bytes_is_skipped_and_counted() {
    let bench = Bench::with_pool("8M");
    fs::create_dir(bench.path("in")).unwrap();
    fs::write(bench.path("in/file"), b"bytes").unwrap();
    let fifo = bench.path("in/fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let run = bench.run(&["cp", "-r", "in", "p.udax:/", "--json"]);
    assert_eq!(run.code, 0);
    assert!(run.stderr.contains("in/fifo: skipped: it is a fifo"), "{}", run.stderr);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&report["files"], &report["skipped"]), (&1.into(), &1.into()));
}

#[test]
fn the_pool_itself_is_not_copied_into_itself() {
    let bench = Bench::with_pool("8M");
    let run = bench.run(&["cp", "-r", ".", "p.udax:/"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("p.udax: skipped: it is the pool itself"), "{}", run.stderr);
}

#[test]
fn the_pool_itself_is_no_source_either() {
    let bench = Bench::with_pool("8M");
    let run = bench.run(&["cp", "p.udax", "p.udax:/copy"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("p.udax: is the pool itself"), "{}", run.stderr);
    assert_eq!(bench.ok(&["ls", "p.udax"]), "");
}

#[test]
fn a_file_that_does_not_tell_its_length_is_copied_whole() {
    let bench = Bench::with_pool("8M");
    assert_eq!(fs::metadata("/proc/version").unwrap().len(), 0);
    bench.ok(&["cp", "/proc/version", "p.udax:/version"]);
    assert_eq!(
        bench.ok(&["cat", "p.udax:/version"]).as_bytes(),
        fs::read("/proc/version").unwrap()
    );
}

#[test]
fn a_slash_at_the_end_asks_for_a_directory() {
    let bench = imported();
    fs::write(bench.path("file"), b"file").unwrap();
    for args in [["file", "p.udax:/none/"], ["p.udax:/tree/deep/small", "none/"]] {
        let run = bench.run(&["cp", args[0], args[1]]);
        assert_eq!(run.code, 1, "{args:?}");
        assert!(run.stderr.contains("no such directory"), "{}", run.stderr);
    }
    bench.ok(&["cp", "-r", "in/deep", "p.udax:/new/"]);
    bench.ok(&["cp", "file", "p.udax:/new/"]);
    assert_eq!(bench.ok(&["cat", "p.udax:/new/file"]), "file");
}

#[test]
fn a_colon_before_a_slash_in_the_path_of_a_pool_is_no_end_of_it() {
    let bench = Bench::new();
    fs::create_dir(bench.path("a:")).unwrap();
    bench.ok(&["create", "a:/p.udax", "--size", "8M"]);
    fs::write(bench.path("a:/file"), b"file").unwrap();
    bench.ok(&["cp", "a:/file", "a:/p.udax:/b:"]);
    assert_eq!(bench.ok(&["ls", "a:/p.udax"]), "b:\n");
    assert_eq!(bench.ok(&["cat", "a:/p.udax:/b:"]), "file");
    bench.ok(&["mkdir", "a:/p.udax:/c:"]);
    bench.ok(&["mv", "a:/p.udax:/b:", "a:/p.udax:/c:/d"]);
    assert_eq!(bench.ok(&["cat", "a:/p.udax:/c:/d"]), "file");
}

#[test]
fn a_directory_is_not_copied_into_itself() {
    let bench = imported();
    let run = bench.run(&["cp", "-r", "p.udax:/tree", "p.udax:/tree/deep"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("cannot be copied into itself"), "{}", run.stderr);
    bench.assert_clean();
}

#[test]
fn a_file_that_does_not_fit_is_removed_again() {
    let bench = Bench::with_pool("8M");
    fs::write(bench.path("large"), pattern(16 << 20)).unwrap();
    // The page of the directory stays, as that of every directory that had an entry.
    bench.ok(&["mkdir", "p.udax:/a"]);
    let before = bench.json(&["df", "p.udax"])["pools"][0]["free"].clone();
    let run = bench.run(&["cp", "large", "p.udax:/"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("p.udax:/large: the pool is full"), "{}", run.stderr);
    assert_eq!(bench.ok(&["ls", "p.udax"]), "a\n");
    assert_eq!(bench.json(&["df", "p.udax"])["pools"][0]["free"], before);
    bench.assert_clean();
}

#[test]
fn a_full_pool_ends_a_copy() {
    let bench = Bench::with_pool("8M");
    fs::create_dir(bench.path("in")).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(bench.path("in").join(name), pattern(8 << 20)).unwrap();
    }
    let run = bench.run(&["cp", "-r", "in", "p.udax:/"]);
    assert_eq!((run.code, run.stderr.lines().count()), (1, 1), "{}", run.stderr);
    assert!(run.stderr.contains("p.udax:/in/a: the pool is full"), "{}", run.stderr);
}

#[test]
fn one_unreadable_file_does_not_end_a_copy() {
    let bench = Bench::with_pool("8M");
    fs::create_dir(bench.path("in")).unwrap();
    fs::write(bench.path("in/b"), b"b").unwrap();
    bench.ok(&["mkdir", "-p", "p.udax:/in/a"]);
    fs::write(bench.path("in/a"), b"a file where the pool has a directory").unwrap();
    let run = bench.run(&["cp", "-r", "in", "p.udax:/"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("p.udax:/in/a: a directory is in the way"), "{}", run.stderr);
    assert!(run.stderr.ends_with("udax: one file was not copied\n"), "{}", run.stderr);
    assert_eq!(bench.ok(&["cat", "p.udax:/in/b"]), "b");
}

#[test]
fn the_file_of_the_pool_is_no_destination() {
    let dir = tempfile::tempdir().unwrap();
    let pool = dir.path().join("p.udax");
    let udax = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_udax"));
        command.current_dir(dir.path()).args(args).output().unwrap()
    };
    assert!(udax(&["create", "p.udax", "--size", "8M"]).status.success());
    std::fs::write(dir.path().join("f"), b"bytes").unwrap();
    assert!(udax(&["cp", "f", "p.udax:/f"]).status.success());

    let refused = udax(&["cp", "p.udax:/f", "p.udax"]);

    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is the pool itself"));
    assert_eq!(std::fs::metadata(&pool).unwrap().len(), 8 << 20);
    assert!(udax(&["check", "p.udax"]).status.success());
}

/// The figures of the pool.
fn df(bench: &Bench) -> serde_json::Value {
    bench.json(&["df", "p.udax"])["pools"][0].clone()
}

#[test]
fn a_copy_within_a_pool_takes_no_room_and_says_so() {
    let bench = Bench::with_pool("64M");
    fs::write(bench.path("large"), pattern(20 << 20)).unwrap();
    bench.ok(&["cp", "large", "p.udax:/a"]);
    let before = df(&bench);
    let report = bench.json(&["cp", "p.udax:/a", "p.udax:/b"]);
    assert_eq!((&report["bytes"], &report["shared"]), (&(20 << 20).into(), &(20 << 20).into()));
    let after = df(&bench);
    let taken = before["free"].as_u64().unwrap() - after["free"].as_u64().unwrap();
    assert!(taken < 64 << 10, "{taken} bytes");
    assert_eq!(after["shared"], 20 << 20);
    let map = bench.json(&["map", "p.udax:/b"]);
    assert_eq!(map["shared"], 20 << 20);
    assert_eq!(map["extents"][0]["shared"], true);
    assert_eq!(bench.json(&["stat", "p.udax:/b"])["files"][0]["shared"], 20 << 20);
    assert!(bench.ok(&["stat", "p.udax:/b"]).contains("20.0 MiB of it shared"));
    bench.ok(&["cp", "p.udax:/b", "out"]);
    assert!(fs::read(bench.path("out")).unwrap() == pattern(20 << 20));
    bench.ok(&["rm", "p.udax:/a"]);
    assert_eq!(df(&bench)["shared"], 0);
    bench.assert_clean();
}

#[test]
fn a_copy_shares_pages_as_it_is_told() {
    let bench = Bench::with_pool("64M");
    bench.ok(&["create", "q.udax", "--size", "16M"]);
    fs::write(bench.path("file"), pattern(1 << 20)).unwrap();
    bench.ok(&["cp", "file", "p.udax:/a"]);
    bench.ok(&["cp", "--reflink=never", "p.udax:/a", "p.udax:/copy"]);
    assert_eq!(df(&bench)["shared"], 0);
    bench.ok(&["cp", "--reflink", "p.udax:/a", "p.udax:/clone"]);
    assert_eq!(df(&bench)["shared"], 1 << 20);
    for (from, to) in [("p.udax:/a", "q.udax:/a"), ("file", "p.udax:/b"), ("p.udax:/a", "out")] {
        let run = bench.run(&["cp", "--reflink=always", from, to]);
        assert_eq!(run.code, 1, "{from} {to}");
        let words = ["different pools", "same pool"];
        assert!(words.iter().any(|words| run.stderr.contains(words)), "{}", run.stderr);
        bench.ok(&["cp", "--reflink=auto", from, to]);
    }
    assert!(!bench.path("none").exists());
    bench.ok(&["cp", "p.udax:/clone", "out"]);
    assert!(fs::read(bench.path("out")).unwrap() == pattern(1 << 20));
}
