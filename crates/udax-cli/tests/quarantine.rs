//! What the tool says of pins, held and left behind, and how it releases them.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use common::Bench;
use udax::{OpenOptions, PinKind, PinOptions, Pool};

/// Set in a child: the pool it works on.
const CHILD: &str = "UDAX_TEST_CHILD_POOL";

/// A process that pins 3 pages of a file in the pool of `bench`, 2 of which are in no file any
/// more.
fn pinning(bench: &Bench) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_pins_until_it_is_killed", "--nocapture"])
        .env(CHILD, bench.path("p.udax"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "pinned"));
    child
}

#[test]
fn child_that_pins_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let pool = Pool::open(path).unwrap();
    pool.write("/ring", [7; 12_288]).unwrap();
    let ring = OpenOptions::new().read(true).write(true).open(&pool, "/ring").unwrap();
    let _pin = ring.pin(0..12_288, &PinOptions::new("nic ring").kind(PinKind::Write)).unwrap();
    ring.set_len(4096).unwrap();
    println!("\npinned");
    std::io::stdout().flush().unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

/// A pool whose owner died, and the number of that process.
fn died() -> (Bench, u32) {
    let bench = Bench::with_pool("16M");
    let mut child = pinning(&bench);
    let pid = child.id();
    child.kill().unwrap();
    child.wait().unwrap();
    (bench, pid)
}

#[test]
fn pins_are_listed_while_the_pool_is_open_and_after_a_death() {
    let bench = Bench::with_pool("16M");
    assert_eq!(bench.ok(&["pins", "p.udax"]), "no long-term pins\n");
    let mut child = pinning(&bench);
    let pid = child.id();
    let held = bench.json(&["pins", "p.udax"]);
    assert_eq!((&held["name"], &held["pins"][0]["process"]), (&"p.udax".into(), &pid.into()));
    assert_eq!(
        (&held["pins"][0]["state"], &held["pins"][0]["alive"]),
        (&"held".into(), &true.into())
    );
    assert!(bench.ok(&["pins", "p.udax"]).starts_with("held"));
    child.kill().unwrap();
    child.wait().unwrap();
    let left = &bench.json(&["pins", "p.udax"])["pins"][0];
    assert_eq!((&left["state"], &left["alive"]), (&"quarantine".into(), &false.into()));
    assert_eq!((&left["bytes"], &left["device"]), (&12_288.into(), &"writes".into()));
    assert!(bench.ok(&["pins", "p.udax"]).contains("nic ring"));
}

#[test]
fn df_and_check_tell_what_is_in_quarantine_and_by_whom() {
    let (bench, pid) = died();
    let run = bench.run(&["df", "p.udax"]);
    assert!(run.stderr.contains("in quarantine"), "{}", run.stderr);
    assert!(run.stdout.contains("8.0 KiB  withheld"), "{}", run.stdout);
    assert!(run.stdout.contains("nic ring writes"), "{}", run.stdout);
    assert!(run.stdout.contains(&format!("process {pid}, which is gone")), "{}", run.stdout);
    let pool = &bench.json(&["df", "p.udax"])["pools"][0];
    let figure = |name: &str| pool[name].as_u64().unwrap();
    assert_eq!(figure("quarantined"), 8192);
    assert_eq!(figure("used") + figure("free") + figure("quarantined"), figure("total"));
    assert_eq!(
        (&pool["quarantine"][0]["bytes"], &pool["quarantine"][0]["withheld"]),
        (&12_288.into(), &8192.into())
    );
    let report = bench.json(&["check", "p.udax"]);
    assert_eq!(
        (&report["clean"], &report["quarantine"][0]["label"]),
        (&true.into(), &"nic ring".into())
    );
    assert_eq!(report["free"].as_u64().unwrap(), figure("free"));
    assert!(bench.ok(&["check", "p.udax"]).starts_with("quarantine"));
}

#[test]
fn a_release_says_what_it_released() {
    let (bench, pid) = died();
    let other = (pid + 1).to_string();
    for args in [["--process", &other], ["--label", "gpu"]] {
        let args = ["release", "p.udax", args[0], args[1]];
        assert_eq!(bench.json(&args)["pins"], serde_json::json!([]));
    }
    let released = bench.json(&["release", "p.udax", "--label", "nic ring"]);
    assert_eq!((&released["pins"][0]["process"], &released["freed"]), (&pid.into(), &8192.into()));
    assert_eq!(bench.json(&["df", "p.udax"])["pools"][0]["quarantined"], 0);
    bench.assert_clean();
    let none = bench.ok(&["release", "p.udax", "--all"]);
    assert_eq!(none, "0 released, 0 B became free\n");
}

#[test]
fn a_release_asks_for_one_choice() {
    let (bench, _) = died();
    assert_eq!(bench.run(&["release", "p.udax"]).code, 2);
    assert_eq!(bench.run(&["release", "p.udax", "--all", "--label", "x"]).code, 2);
    assert!(
        bench.ok(&["release", "p.udax", "--all"]).ends_with("1 released, 8.0 KiB became free\n")
    );
}

#[test]
fn a_release_of_an_open_pool_names_who_has_it_open() {
    let bench = Bench::with_pool("16M");
    let mut child = pinning(&bench);
    let run = bench.run(&["release", "p.udax", "--all", "--force"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains(&format!("process {}", child.id())), "{}", run.stderr);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The pins may be those of a client of the process that died.
#[test]
fn a_release_refuses_for_a_living_owner_unless_it_is_forced() {
    let bench = Bench::with_pool("16M");
    // To who opens a copy the session seems to have died; the owner of the pin, this process, lives.
    let pool = Pool::open(bench.path("p.udax")).unwrap();
    pool.write("/ring", [7; 4096]).unwrap();
    let ring = pool.open_file("/ring").unwrap();
    let _pin = ring.pin(0..4096, &PinOptions::new("me")).unwrap();
    std::fs::copy(bench.path("p.udax"), bench.path("copy.udax")).unwrap();
    let run = bench.run(&["release", "copy.udax", "--all"]);
    assert_eq!(run.code, 1);
    let pid = std::process::id();
    assert!(run.stderr.contains(&format!("process {pid}")), "{}", run.stderr);
    assert!(run.stderr.contains("--force"), "{}", run.stderr);
    let forced = bench.json(&["release", "copy.udax", "--all", "--force"]);
    assert_eq!(forced["pins"][0]["label"], "me");
}
