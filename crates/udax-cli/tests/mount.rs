//! `udax mount`: how it ends. Needs root and `/dev/fuse`; without them the tests say so and show
//! nothing.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use common::{Bench, Run};
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Pid, Signal, kill_process};
use udax_mm::sync::atomic::{AtomicU64, Ordering};

/// Starts `udax mount p.udax mnt`, and waits until it serves; none where it cannot.
fn begin(bench: &Bench) -> Option<Child> {
    fs::create_dir(bench.path("mnt")).unwrap();
    let mut command = bench.command(&["mount", "p.udax", "mnt"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    if line.contains("is mounted on") {
        return Some(child);
    }
    let run = Run::new(child.wait_with_output().unwrap());
    assert!(run.stderr.contains("/dev/fuse") || run.stderr.contains("not permitted"));
    // Past the capture of the test harness, so that it is seen.
    let _ = writeln!(std::io::stderr(), "SKIPPED, nothing is shown: {}", run.stderr);
    None
}

fn terminate(child: &Child) {
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
}

/// Makes `count` files in the directory `dir`, and counts them as they are done.
fn fill(dir: &OwnedFd, of: &str, count: u32, done: &AtomicU64) {
    for number in 0..count {
        let name = format!("{of} {number}");
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let file = openat(dir, name.as_str(), flags, Mode::RUSR).unwrap();
        assert_eq!(rustix::io::write(&file, name.as_bytes()).unwrap(), name.len());
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_mount_that_is_terminated_finishes_what_runs_and_serves_what_is_open() {
    let bench = Bench::with_pool("64M");
    let Some(mut child) = begin(&bench) else { return };
    let dir = OwnedFd::from(fs::File::open(bench.path("mnt")).unwrap());
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for of in ["a", "b"] {
            let (dir, done) = (&dir, &done);
            scope.spawn(move || fill(dir, of, 500, done));
        }
        while done.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        terminate(&child);
    });
    let mut said = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("served until they are closed"), "{said}");
    assert_eq!(fs::read_dir(bench.path("mnt")).unwrap().count(), 0);
    drop(dir);
    let run = Run::new(child.wait_with_output().unwrap());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = bench.run(&["cat", "p.udax:/a 499", "p.udax:/b 499"]);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("a 499b 499", ""));
    assert_eq!(bench.json(&["check", "p.udax"])["files"], 1000);
}

#[test]
fn a_mount_that_nobody_uses_ends_at_once_and_closes_the_pool() {
    let bench = Bench::with_pool("8M");
    let Some(child) = begin(&bench) else { return };
    fs::write(bench.path("mnt/file"), b"text").unwrap();
    terminate(&child);
    let run = Run::new(child.wait_with_output().unwrap());
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(bench.run(&["ls", "p.udax"]).stderr, "");
    bench.assert_clean();
}
