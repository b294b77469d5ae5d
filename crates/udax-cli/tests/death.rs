//! Copies that are stopped, kindly and not: the pool is whole either way.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use common::{Bench, Run, assert_same, pattern};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

const FILES: u32 = 2000;

/// Makes many files behind a fifo, whose skipping tells that the copy has begun.
fn make_many(root: &Path) {
    fs::create_dir(root).unwrap();
    mknodat(CWD, root.join("0"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let bytes = pattern(40_000);
    for number in 0..FILES {
        fs::write(root.join(format!("file {number}")), &bytes[..40_000 - 16]).unwrap();
    }
}

/// Starts the copy and waits until it has begun.
fn begin(bench: &Bench) -> Child {
    let mut command = bench.command(&["cp", "-r", "in", "p.udax:/", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("skipped"), "{line}");
    child
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Asserts that the pool holds nothing but whole files of the tree, and takes all of it.
fn assert_whole(bench: &Bench) {
    bench.assert_clean();
    bench.ok(&["cp", "-r", "p.udax:/in", "part"]);
    for entry in fs::read_dir(bench.path("part")).unwrap() {
        let name = entry.unwrap().file_name();
        let copied = fs::read(bench.path("part").join(&name)).unwrap();
        let original = fs::read(bench.path("in").join(&name)).unwrap();
        assert!(original.starts_with(&copied), "{} has other bytes", name.display());
    }
    fs::remove_file(bench.path("in/0")).unwrap();
    bench.ok(&["cp", "-r", "in", "p.udax:/"]);
    bench.ok(&["cp", "-r", "p.udax:/in", "out"]);
    assert_same(&bench.path("in"), &bench.path("out"));
    bench.assert_clean();
}

#[test]
fn a_copy_that_is_killed_leaves_a_clean_pool() {
    let bench = Bench::with_pool("256M");
    make_many(&bench.path("in"));
    let mut child = begin(&bench);
    signal(&child, Signal::KILL);
    let pid = child.id();
    child.wait().unwrap();
    let run = bench.run(&["ls", "p.udax"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains(&format!("process {pid} did not close it")), "{}", run.stderr);
    assert_whole(&bench);
}

#[test]
fn a_copy_that_is_interrupted_stops_between_files_and_says_what_is_done() {
    let bench = Bench::with_pool("256M");
    make_many(&bench.path("in"));
    let child = begin(&bench);
    signal(&child, Signal::INT);
    let run = Run::new(child.wait_with_output().unwrap());
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("interrupted"), "{}", run.stderr);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["interrupted"], true);
    let there = bench.json(&["check", "p.udax"])["files"].clone();
    assert_eq!(report["files"], there);
    assert!(there.as_u64().unwrap() < u64::from(FILES));
    let run = bench.run(&["ls", "p.udax"]);
    assert_eq!(run.stderr, "", "the pool was closed");
    assert_whole(&bench);
}

#[test]
fn a_pool_that_is_open_names_the_process() {
    let bench = Bench::with_pool("256M");
    make_many(&bench.path("in"));
    let mut child = begin(&bench);
    signal(&child, Signal::STOP);
    let run = bench.run(&["ls", "p.udax"]);
    signal(&child, Signal::KILL);
    let pid = child.id();
    child.wait().unwrap();
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains(&format!("open in process {pid}")), "{}", run.stderr);
}
