//! What commands print: facts for people, and the same as JSON.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use common::{Bench, Run, pattern};

/// A pool with a file of 5 MiB, a directory, and two links.
fn filled() -> Bench {
    let bench = Bench::with_pool("64M");
    fs::write(bench.path("file"), pattern(5 << 20)).unwrap();
    bench.ok(&["mkdir", "-p", "p.udax:/dir/below"]);
    bench.ok(&["cp", "file", "p.udax:/dir"]);
    bench.ok(&["ln", "-s", "dir/file", "p.udax:/soft"]);
    bench.ok(&["ln", "p.udax:/dir/file", "p.udax:/hard"]);
    bench
}

#[test]
fn create_and_df_tell_sizes_in_bytes() {
    let bench = Bench::new();
    let made = bench.json(&["create", "q.udax", "--size", "16M", "--label", "a label"]);
    assert_eq!((&made["name"], &made["total"]), (&"q.udax".into(), &(16 << 20).into()));
    let pool = &bench.json(&["df", "q.udax"])["pools"][0];
    assert_eq!(pool["label"], "a label");
    assert_eq!(pool["limbo"], 0);
    let figure = |name: &str| pool[name].as_u64().unwrap();
    assert_eq!(figure("used") + figure("free"), figure("total"));
    assert!(bench.ok(&["df", "q.udax"]).contains("16.0 MiB"));
}

#[test]
fn listings_are_sorted_and_show_links() {
    let bench = filled();
    assert_eq!(bench.ok(&["ls", "p.udax"]), "dir\nhard\nsoft -> dir/file\n");
    let entries = &bench.json(&["ls", "p.udax:/"])["entries"];
    assert_eq!((&entries[1]["kind"], &entries[1]["links"]), (&"file".into(), &2.into()));
    assert_eq!(entries[2]["target"]["name"], "dir/file");
    let long = bench.ok(&["ls", "-l", "p.udax:/hard"]);
    assert!(long.starts_with("-rw"), "{long}");
    assert!(long.contains(" 5242880 "), "{long}");
}

#[test]
fn a_tree_is_drawn() {
    let bench = filled();
    let drawn = bench.ok(&["tree", "p.udax"]);
    let lines: Vec<&str> = drawn.lines().collect();
    assert_eq!(lines[1..4], ["├── dir", "│   ├── below", "│   └── file"]);
    assert_eq!(bench.json(&["tree", "p.udax"])["entries"][0]["entries"][1]["size"], 5 << 20);
}

#[test]
fn map_accounts_for_every_byte_and_shows_huge_blocks() {
    let bench = filled();
    let map = bench.json(&["map", "p.udax:/dir/file"]);
    let extents = map["extents"].as_array().unwrap();
    let figure = |extent: &serde_json::Value, name: &str| extent[name].as_u64().unwrap();
    let lens: u64 = extents.iter().map(|extent| figure(extent, "len")).sum();
    assert_eq!((lens, figure(&map, "data")), (5 << 20, 5 << 20));
    assert_eq!((figure(&map, "holes"), figure(&map, "huge")), (0, 4 << 20));
    for extent in extents.iter().filter(|extent| extent["order"] == 9) {
        assert!(figure(extent, "alignment") >= 2 << 20, "{extent}");
        assert_eq!(figure(extent, "device") % figure(extent, "alignment"), 0, "{extent}");
    }
}

#[test]
fn a_touched_file_says_by_which_folios_it_is_mapped_and_why_not_by_larger_ones() {
    let bench = filled();
    for how in ["--touch", "--touch=eager"] {
        let touched = &bench.json(&["map", how, "p.udax:/dir/file"])["touched"];
        let folios = serde_json::json!([
            { "order": 0, "bytes": 4096, "count": 256 },
            { "order": 9, "bytes": 2 << 20, "count": 2 },
        ]);
        assert_eq!(touched["folios"], folios, "{how}");
        for none in ["failures", "poison", "copies", "pins", "breaks", "waits", "wakeups"] {
            assert_eq!(touched[none], 0, "{none}: it is only read");
        }
        let fallbacks = touched["fallbacks"].as_array().unwrap();
        assert!(!fallbacks.is_empty(), "{how}");
        for fallback in fallbacks {
            assert_eq!(fallback["reason"], "bounds", "the mapping ends with the file");
        }
    }
    let said = bench.ok(&["map", "--touch", "p.udax:/dir/file"]);
    assert!(said.contains("2 of 2.0 MiB, 256 of 4.0 KiB"), "{said}");
    assert!(said.contains("not larger"), "{said}");
    assert!(bench.json(&["map", "p.udax:/dir/file"]).get("touched").is_none());
    bench.assert_clean();
}

#[test]
fn moves_and_removals_are_seen() {
    let bench = filled();
    bench.ok(&["mv", "p.udax:/hard", "p.udax:/soft", "p.udax:/dir"]);
    bench.ok(&["mv", "p.udax:/dir/file", "p.udax:/moved"]);
    assert_eq!(bench.ok(&["ls", "p.udax:/dir"]), "below\nhard\nsoft -> dir/file\n");
    bench.ok(&["rm", "p.udax:/moved"]);
    bench.ok(&["rm", "-r", "p.udax:/dir"]);
    bench.ok(&["rm", "-f", "p.udax:/dir"]);
    assert_eq!(bench.ok(&["ls", "p.udax"]), "");
    bench.assert_clean();
}

#[test]
fn a_frozen_file_is_shown_as_such() {
    let bench = filled();
    assert_eq!(bench.json(&["freeze", "p.udax:/hard"])["files"][0]["size"], 5 << 20);
    assert_eq!(bench.json(&["stat", "p.udax:/dir/file"])["files"][0]["frozen"], true);
    assert!(bench.ok(&["ls", "-l", "p.udax"]).contains("hard [frozen]"));
}

#[test]
fn check_counts_what_is_there() {
    let bench = filled();
    let report = bench.json(&["check", "p.udax"]);
    assert_eq!((&report["files"], &report["symlinks"]), (&1.into(), &1.into()));
    assert_eq!(report["problems"], serde_json::json!([]));
}

/// Over a mount, only the owner of the root directory may write to it.
#[test]
fn the_root_directory_belongs_to_who_creates_the_pool() {
    let bench = Bench::new();
    let mut create = bench.command(&["create", "p.udax", "--size", "8M"]);
    let mut owner = rustix::process::geteuid().as_raw();
    if owner == 0 {
        owner = 65534;
        std::os::unix::fs::chown(bench.path(""), Some(owner), None).unwrap();
        create.uid(owner).gid(owner);
    }
    match create.output() {
        Ok(output) => assert!(output.status.success(), "{}", Run::new(output).stderr),
        Err(error) => {
            // Past the capture of the test harness, so that it is seen.
            let _ =
                writeln!(std::io::stderr(), "SKIPPED, another user may not run the tool: {error}");
            return;
        }
    }
    assert_eq!(bench.json(&["stat", "p.udax:/"])["files"][0]["uid"], owner);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let bench = filled();
    let mut child = bench
        .command(&["cat", "p.udax:/dir/file"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let run = Run::new(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}
