//! `udax matrix`: what is shown of files of the host is what they do, and udax is safe. Where
//! `io_uring` is not permitted the tests say so and show nothing.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;

use common::{Bench, Run};
use serde_json::Value;

/// Past the capture of the test harness, so that it is seen.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED, nothing is shown: {why}");
}

/// Runs some cells; none where the host does not permit it.
fn matrix(args: &[&str]) -> Option<(Run, Value)> {
    let bench = Bench::new();
    fs::create_dir(bench.path("tmp")).unwrap();
    let mut command = bench.command(&[&["matrix", "--json"], args].concat());
    let run = Run::new(command.env("TMPDIR", bench.path("tmp")).output().unwrap());
    assert_eq!(fs::read_dir(bench.path("tmp")).unwrap().count(), 0, "nothing is left behind");
    if run.stderr.contains("does not permit io_uring") {
        skipped(&run.stderr);
        return None;
    }
    let json = serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{}", run.stderr));
    Some((run, json))
}

/// The verdict of one cell and what was seen; none where it cannot be performed.
fn cell(backing: &str, action: &str) -> Option<(String, String)> {
    let (_, json) = matrix(&["--backing", backing, "--action", action])?;
    let cell = &json["rows"][0]["cells"][0];
    assert_eq!(cell["action"], action);
    assert!(cell["done"].as_str().unwrap().contains(' '), "what is done by that name: {cell}");
    let text = |name: &str| cell[name].as_str().unwrap().to_owned();
    if text("verdict") == "unavailable" && text("why").contains("/dev/shm cannot be written") {
        skipped(&text("why"));
        return None;
    }
    Some((text("verdict"), text("why")))
}

fn check(backing: &str, cases: &[(&str, &str, &str)]) {
    for (action, verdict, why) in cases {
        let Some(found) = cell(backing, action) else { return };
        assert_eq!(&found.0, verdict, "{backing}, {action}: {}", found.1);
        assert!(found.1.contains(why), "{backing}, {action}: {}", found.1);
    }
}

#[test]
fn a_file_that_is_truncated_or_punched_loses_the_bytes_of_a_device() {
    let lost = "success was reported";
    check("tmpfs", &[("truncate", "lost", lost), ("punch", "lost", lost)]);
    check("memfd", &[("truncate", "lost", lost), ("punch", "lost", lost)]);
}

#[test]
fn a_file_that_shrinks_kills_who_has_it_mapped() {
    check("tmpfs", &[("shrink", "killed", "SIGBUS")]);
    check("memfd", &[("shrink", "killed", "SIGBUS")]);
}

#[test]
fn a_seal_keeps_a_file_from_shrinking_and_not_from_being_punched() {
    let cases = [
        ("truncate", "refused", "not permitted"),
        ("shrink", "refused", "not permitted"),
        ("punch", "lost", "success was reported"),
    ];
    check("sealed", &cases);
}

#[test]
fn pages_of_a_file_that_goes_are_given_to_nobody_else() {
    check("tmpfs", &[("unlink", "safe", "mapping"), ("dies", "safe", "came after its death")]);
}

/// The verdicts of all actions on one kind of file, and what was seen; none where they cannot be
/// performed.
fn row(args: &[&str]) -> Option<(String, Vec<(String, String)>)> {
    let (_, json) = matrix(args)?;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let row = &json["rows"][0];
    let cells = row["cells"].as_array().unwrap().iter();
    let cells: Vec<_> = cells.map(|cell| (text(&cell["verdict"]), text(&cell["why"]))).collect();
    assert_eq!(cells.len(), 5, "{json}");
    Some((text(&row["backing"]), cells))
}

/// The kernel refuses the buffer, so nobody comes to act on the file.
#[test]
fn a_file_on_a_disk_is_not_registered() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let args = ["--dir", dir.to_str().unwrap(), "--backing", "disk"];
    let Some((backing, cells)) = row(&args) else { return };
    if backing == "file on tmpfs" {
        return skipped("the build is in memory");
    }
    for (verdict, why) in &cells {
        assert_eq!(verdict, "refused", "{cells:?}");
        assert!(why.starts_with("register: "), "{cells:?}");
    }
}

/// How many huge pages of 2 MiB the host has to give; none if it has no such thing.
fn free_huge_pages() -> Option<u64> {
    let free = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    fs::read_to_string(free).ok().map(|free| free.trim().parse().unwrap())
}

#[test]
fn a_memfd_of_huge_pages_is_no_better_than_another_and_unavailable_where_there_are_none() {
    let before = free_huge_pages();
    let Some((_, huge)) = row(&["--backing", "huge"]) else { return };
    let after = free_huge_pages();
    if [before, after].iter().all(|free| free.unwrap_or(0) == 0) {
        for (verdict, why) in &huge {
            assert_eq!(verdict, "unavailable", "{huge:?}");
            let is_told = why.contains("huge pages of 2 MiB are needed and 0 are free");
            assert!(is_told || before.is_none(), "{huge:?}");
        }
        return;
    }
    // The file, and the files of the others.
    if before.min(after) < Some(8) {
        return skipped("others have the huge pages of this host");
    }
    let Some((_, memfd)) = row(&["--backing", "memfd"]) else { return };
    let verdicts = |cells: &[(String, String)]| -> Vec<String> {
        cells.iter().map(|(verdict, _)| verdict.clone()).collect()
    };
    assert_eq!(verdicts(&huge), verdicts(&memfd), "{huge:?}");
}

#[test]
fn whatever_becomes_of_a_udax_file_the_bytes_are_with_the_holder() {
    let stayed = "stayed with the holder";
    check("udax", &[("truncate", "safe", stayed), ("punch", "safe", stayed)]);
    check("udax", &[("unlink", "safe", stayed)]);
}

#[test]
fn the_removal_of_a_udax_device_waits_for_the_holder() {
    check("udax", &[("shrink", "safe", "named the holder")]);
}

#[test]
fn the_death_of_who_holds_pages_of_a_pool_is_safe() {
    // As of a file of the host: a transfer that is cancelled with the holder shows nothing.
    check("udax", &[("dies", "safe", "came after its death")]);
}

#[test]
fn the_exit_code_says_whether_udax_is_safe() {
    let cases: [(&[&str], Value); 3] = [
        (&["--backing", "udax", "--action", "unlink"], true.into()),
        (&["--backing", "tmpfs", "--action", "truncate"], Value::Null),
        (&["--backing", "udax", "--action", "dies"], true.into()),
    ];
    for (args, is_safe) in cases {
        let Some((run, json)) = matrix(args) else { return };
        assert_eq!(json["udax_is_safe"], is_safe, "{args:?}");
        assert_eq!(run.code, i32::from(is_safe == false), "{args:?}: {}", run.stderr);
        assert_eq!(run.stderr.contains("udax is not safe"), is_safe == false, "{}", run.stderr);
    }
}

#[test]
fn every_cell_is_a_column_of_the_table() {
    let bench = Bench::new();
    let run = bench.run(&["matrix", "--backing", "memfd", "--backing", "udax"]);
    if run.stderr.contains("does not permit io_uring") {
        return skipped(&run.stderr);
    }
    let words = |start: &str| -> Vec<String> {
        let line = run.stdout.lines().find(|line| line.starts_with(start)).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(words("memfd "), ["memfd", "LOST", "LOST", "safe", "[1]", "KILLED", "safe"]);
    if run.stdout.contains("/dev/shm cannot be written") {
        return skipped("udax, holder dies: /dev/shm cannot be written");
    }
    let of_udax = ["safe", "safe", "safe", "safe", "[2]", "safe", "[3]"];
    assert_eq!(words("udax pool in memory")[4..], of_udax, "{}", run.stdout);
    assert!(
        run.stdout.contains("\n[2] shrink: the device of the pool is removed"),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout.contains("\n[3] holder dies: the holder is killed, the pool"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("\nmemfd, truncate, punch: LOST: "), "{}", run.stdout);
    assert!(run.stderr.contains("memfd: truncate"), "progress: {}", run.stderr);
}
