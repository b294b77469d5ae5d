//! Bad input: the error names the thing and the cure, the exit code is right, nothing changes.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;

use common::Bench;

/// Runs the tool, which must exit with `code`, and say all of `words` on stderr.
#[track_caller]
fn check(bench: &Bench, args: &[&str], code: i32, words: &[&str]) {
    let run = bench.run(args);
    assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
    assert_eq!(run.stdout, "", "{args:?}");
    for word in words {
        assert!(run.stderr.contains(word), "{args:?} does not say {word:?}: {}", run.stderr);
    }
    if code == 1 {
        assert!(run.stderr.starts_with("udax: "), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn wrong_usage_exits_with_two() {
    let bench = Bench::with_pool("8M");
    check(&bench, &[], 2, &["Usage"]);
    check(&bench, &["frobnicate"], 2, &["frobnicate"]);
    check(&bench, &["create", "q.udax", "--size", "0"], 2, &["size of zero", "at least one"]);
    check(&bench, &["create", "q.udax", "--size", "4X"], 2, &["`X` is not a unit", "K, M, G"]);
    check(&bench, &["create", "q.udax", "--size", "1.5G"], 2, &["whole number", "1536M"]);
    check(&bench, &["create", "q.udax", "--size", "-1"], 2, &["does not start with a number"]);
    let label = "x".repeat(65);
    check(&bench, &["create", "q.udax", "--label", &label], 1, &["q.udax", "at most 64 bytes"]);
    check(&bench, &["cp", "a"], 2, &["DESTINATION"]);
    check(&bench, &["rm", "file"], 2, &["path on the host", "POOL:/path"]);
    check(&bench, &["cat", ":/a"], 2, &["no pool is named"]);
    assert!(!bench.path("q.udax").exists());
}

#[test]
fn a_pool_is_not_created_over_a_file_or_too_small() {
    let bench = Bench::with_pool("8M");
    let before = fs::read(bench.path("p.udax")).unwrap();
    check(&bench, &["create", "p.udax"], 1, &["p.udax", "exists already", "remove it first"]);
    assert!(fs::read(bench.path("p.udax")).unwrap() == before);
    check(&bench, &["create", "q.udax", "--size", "64K"], 1, &["q.udax", "at least"]);
    assert!(!bench.path("q.udax").exists());
    check(&bench, &["create", "no/q.udax"], 1, &["no/q.udax", "No such file"]);
}

#[test]
fn what_is_no_pool_is_left_alone() {
    let bench = Bench::new();
    fs::write(bench.path("text"), b"this is text").unwrap();
    fs::write(bench.path("zeros"), vec![0; 4 << 20]).unwrap();
    check(&bench, &["ls", "missing"], 1, &["missing"]);
    check(&bench, &["ls", "text"], 1, &["text"]);
    check(&bench, &["ls", "zeros"], 1, &["zeros", "not a udax pool", "udax create"]);
    check(&bench, &["check", "zeros"], 1, &["zeros", "not a udax pool"]);
    check(&bench, &["ls", "."], 1, &["directory"]);
    assert_eq!(fs::read(bench.path("text")).unwrap(), b"this is text");
    assert!(fs::read(bench.path("zeros")).unwrap() == vec![0; 4 << 20]);
}

#[test]
fn a_truncated_pool_says_so() {
    let bench = Bench::with_pool("8M");
    fs::File::options().write(true).open(bench.path("p.udax")).unwrap().set_len(6 << 20).unwrap();
    check(&bench, &["ls", "p.udax"], 1, &["p.udax", "truncated", "restore"]);
}

#[test]
fn a_flipped_bit_in_the_superblock_is_mended_from_the_mirror_and_said() {
    let bench = Bench::with_pool("8M");
    flip(&bench, 9);
    let run = bench.run(&["ls", "p.udax"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("its mirror was used"), "{}", run.stderr);
    assert_eq!(bench.run(&["ls", "p.udax"]).stderr, "");
}

#[test]
fn a_check_of_a_damaged_superblock_says_how_it_is_mended() {
    let bench = Bench::with_pool("8M");
    flip(&bench, 9);
    let run = bench.run(&["check", "p.udax"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("`udax df p.udax`, writes it again"), "{}", run.stderr);
    bench.ok(&["df", "p.udax"]);
    bench.assert_clean();
}

/// A session that died may leave a change half done: the journal has it, its place does not.
#[test]
fn a_check_completes_the_change_that_the_last_session_died_in() {
    let bench = Bench::with_pool("8M");
    bench.ok(&["mkdir", "p.udax:/dir"]);
    let host = fs::File::open(bench.path("p.udax")).unwrap();
    let mut at = [0; 8];
    // The first write of the last transaction: the journal is in page 2, behind a header of 64
    // bytes.
    host.read_exact_at(&mut at, 2 * 4096 + 64).unwrap();
    flip(&bench, u64::from_le_bytes(at) + 1);
    bench.assert_clean();
}

#[test]
fn a_pool_that_cannot_be_read_at_all_is_to_be_restored() {
    let bench = Bench::with_pool("8M");
    flip(&bench, 9);
    flip(&bench, (8 << 20) - 4096 + 9);
    check(&bench, &["check", "p.udax"], 1, &["the superblock is corrupt", "restore the pool"]);
}

/// Flips a bit of the pool.
fn flip(bench: &Bench, at: u64) {
    let host = fs::File::options().read(true).write(true).open(bench.path("p.udax")).unwrap();
    let mut byte = [0];
    host.read_exact_at(&mut byte, at).unwrap();
    host.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn paths_that_cannot_be_are_refused() {
    let bench = Bench::with_pool("8M");
    fs::write(bench.path("file"), b"bytes").unwrap();
    bench.ok(&["cp", "file", "p.udax:/file"]);
    let long = format!("p.udax:/{}", "x".repeat(256));
    check(&bench, &["mkdir", &long], 1, &["at most 255 bytes", "256"]);
    check(&bench, &["cat", "p.udax:/file/below"], 1, &["p.udax:/file/below", "not a directory"]);
    check(&bench, &["cat", "p.udax:/none"], 1, &["p.udax:/none: no such file or directory"]);
    check(&bench, &["cat", "p.udax:/"], 1, &["is a directory"]);
    check(&bench, &["mkdir", "p.udax:/file"], 1, &["p.udax:/file", "exists"]);
    check(&bench, &["rm", "-r", "p.udax:/"], 1, &["the root directory stays"]);
    check(&bench, &["rm", "p.udax:/file/"], 1, &["p.udax:/file", "not a directory", "the slash"]);
    bench.ok(&["mkdir", "p.udax:/dir"]);
    check(&bench, &["rm", "p.udax:/dir"], 1, &["is a directory", "-r"]);
    check(&bench, &["cp", "p.udax:/dir", "out"], 1, &["is a directory", "-r"]);
    check(&bench, &["cp", "file", "p.udax:/no/file"], 1, &["p.udax:/no/file"]);
    check(&bench, &["cp", "file", "out"], 1, &["POOL:/path"]);
    check(&bench, &["mv", "p.udax:/dir", "p.udax:/dir/er"], 1, &["into itself"]);
    check(&bench, &["mv", "p.udax:/file", "q.udax:/file"], 1, &["two pools", "udax cp -r"]);
    check(&bench, &["ln", "file", "p.udax:/l"], 1, &["path on the host", "-s"]);
    bench.assert_clean();
}

#[test]
fn a_frozen_file_is_not_overwritten() {
    let bench = Bench::with_pool("8M");
    fs::write(bench.path("file"), b"for ever").unwrap();
    bench.ok(&["cp", "file", "p.udax:/file"]);
    bench.ok(&["freeze", "p.udax:/file"]);
    fs::write(bench.path("file"), b"other").unwrap();
    check(&bench, &["cp", "file", "p.udax:/file"], 1, &["p.udax:/file", "frozen"]);
    assert_eq!(bench.ok(&["cat", "p.udax:/file"]), "for ever");
}
