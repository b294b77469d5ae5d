//! `udax tour` on a small directory.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs;

use common::{Bench, make_tree};

#[test]
fn every_step_holds_and_nothing_is_left_behind() {
    let bench = Bench::new();
    make_tree(&bench.path("in"));
    fs::create_dir(bench.path("tmp")).unwrap();
    let mut command = bench.command(&["tour", "in"]);
    let output = command.env("TMPDIR", bench.path("tmp")).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), output.stderr);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&stderr));
    assert!(stdout.contains("All 10 steps held"), "{stdout}");
    assert_eq!(fs::read_dir(bench.path("tmp")).unwrap().count(), 0);
}

#[test]
fn the_story_is_told_as_json_too_and_the_pool_is_kept_where_asked() {
    let bench = Bench::new();
    fs::create_dir(bench.path("empty")).unwrap();
    let story = bench.json(&["tour", "empty", "--pool", "p.udax"]);
    let steps = story["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 10);
    assert!(steps.iter().all(|step| !step["saw"].as_array().unwrap().is_empty()), "{story}");
    assert!(story["figures"].as_array().unwrap().len() > 5, "{story}");
    bench.assert_clean();
}

#[test]
fn a_step_that_fails_is_named() {
    let bench = Bench::new();
    fs::write(bench.path("file"), b"no directory").unwrap();
    let run = bench.run(&["tour", "file"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("tour, step 1 (create a pool): file"), "{}", run.stderr);
}
