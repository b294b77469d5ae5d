//! `udax map`: why a file is not mapped by larger folios, and why not at the first touch.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::io::Write;
use std::os::unix::process::CommandExt;

use common::{Bench, Run};
use serde_json::Value;
use udax::{CreateOptions, OpenOptions, Pool, Wait};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// Past the capture of the test harness, so that it is seen.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED, nothing is shown: {why}");
}

fn write(pool: &Pool, path: &str, len: u64) -> udax::File {
    pool.write(path, vec![7; usize::try_from(len).unwrap()]).unwrap();
    OpenOptions::new().read(true).write(true).open(pool, path).unwrap()
}

/// A pool with a file for each reason.
fn with_reasons() -> Bench {
    let bench = Bench::with_pool("64M");
    let pool = Pool::open(bench.path("p.udax")).unwrap();
    write(&pool, "/whole", 4 * MIB);
    write(&pool, "/short", 3 * MIB);
    write(&pool, "/holed", 4 * MIB).punch_hole(3 * MIB..3 * MIB + PAGE).unwrap();
    let source = write(&pool, "/source", 4 * MIB + PAGE);
    let shifted = pool.create_file("/shifted").unwrap();
    source.clone_range(PAGE..4 * MIB + PAGE, &shifted, 0, Wait::Forever).unwrap();
    drop((source, shifted));
    pool.remove_file("/source").unwrap();
    let source = write(&pool, "/shared", 2 * MIB);
    let clone = pool.create_file("/clone").unwrap();
    source.clone_range(0..2 * MIB, &clone, 0, Wait::Forever).unwrap();
    drop((source, clone));
    pool.close().unwrap();
    bench
}

/// Reasons, each with its count.
type Reasons = Vec<(String, u64)>;

/// The reasons of a list.
fn reasons(list: &Value) -> Reasons {
    let reason = |found: &Value| {
        assert!(found["meaning"].as_str().unwrap().contains(' '), "a sentence: {found}");
        (found["reason"].as_str().unwrap().to_owned(), found["count"].as_u64().unwrap())
    };
    list.as_array().unwrap().iter().map(reason).collect()
}

/// What the layout says of each extent: offset, order, reasons.
fn layout(bench: &Bench, path: &str) -> Vec<(u64, u64, Reasons)> {
    let map = bench.json(&["map", path]);
    let extent = |extent: &Value| {
        let figure = |name: &str| extent[name].as_u64().unwrap();
        (figure("offset"), figure("order"), reasons(&extent["not_larger"]))
    };
    map["extents"].as_array().unwrap().iter().map(extent).collect()
}

fn because(reason: &str, count: u64) -> Reasons {
    vec![(reason.to_owned(), count)]
}

#[test]
fn the_layout_says_why_an_extent_is_not_mapped_by_larger_folios() {
    let bench = with_reasons();
    let whole = layout(&bench, "p.udax:/whole");
    assert_eq!(whole, [(0, 9, because("eof", 1))], "no gibibyte");
    let short = layout(&bench, "p.udax:/short");
    assert_eq!(short[1..], [(2 * MIB, 0, because("eof", 1))]);
    let holed = layout(&bench, "p.udax:/holed");
    let holed: Vec<_> = holed.iter().filter(|(_, order, _)| *order == 0).collect();
    let cut = because("extent", 1);
    assert_eq!(holed, [&(2 * MIB, 0, cut.clone()), &(3 * MIB + PAGE, 0, cut)]);
    let shifted = layout(&bench, "p.udax:/shifted");
    assert!(shifted.iter().all(|(_, order, _)| *order == 0), "{shifted:?}");
    let all: Vec<_> = shifted.into_iter().flat_map(|(_, _, why)| why).collect();
    assert!(all.iter().any(|(reason, _)| reason == "alignment"), "{all:?}");

    assert_eq!(layout(&bench, "p.udax:/shared"), [(0, 0, because("shared", 1))]);

    let said = bench.ok(&["map", "p.udax:/holed"]);
    assert!(said.contains("not larger, extent: the extent does not cover the block"), "{said}");
}

/// The touch meets the first reason of each file, and pages that are mapped already.
#[test]
fn a_touch_counts_the_reasons_that_it_met() {
    let bench = with_reasons();
    let cases = [
        ("/whole", None),
        ("/short", Some("bounds")),
        ("/holed", Some("extent")),
        ("/shifted", Some("alignment")),
        ("/shared", Some("shared")),
    ];
    for how in ["--touch=lazy", "--touch=eager"] {
        for (path, expected) in cases {
            let map = bench.json(&["map", how, &format!("p.udax:{path}")]);
            let mut found = reasons(&map["touched"]["fallbacks"]);
            found.retain(|(reason, _)| reason != "conflict");
            let found: Vec<&str> = found.iter().map(|(reason, _)| &**reason).collect();
            assert_eq!(found, Vec::from_iter(expected), "{path}, {how}");
        }
    }
    bench.assert_clean();
}

/// What counts is where the memory lies below the table, and not where it lies in the pool.
#[test]
fn a_table_that_shifts_its_devices_is_seen_in_the_layout() {
    let bench = Bench::new();
    std::fs::File::create(bench.path("a.img")).unwrap().set_len(65 * MIB).unwrap();
    std::fs::write(bench.path("p.table"), "0 64MiB linear a.img 1MiB").unwrap();
    let pool = Pool::create_on_table(bench.path("p.table"), &CreateOptions::new()).unwrap();
    write(&pool, "/file", 4 * MIB);
    pool.close().unwrap();

    let map = bench.json(&["map", "--touch=eager", "p.table:/file"]);

    assert_eq!(reasons(&map["touched"]["fallbacks"])[0].0, "alignment");
    let extents = map["extents"].as_array().unwrap();
    let found: Vec<_> = extents.iter().flat_map(|e| reasons(&e["not_larger"])).collect();
    assert_eq!(found[0].0, "alignment", "{map}");
}

/// The figures of a pool and of a file say it too, to whoever has to change it.
#[test]
fn a_user_without_userfaultfd_learns_that_mappings_are_eager_and_what_would_help() {
    let bench = Bench::with_pool("16M");
    write(&Pool::open(bench.path("p.udax")).unwrap(), "/file", 2 * PAGE);
    let run = |args: &[&str]| {
        let mut command = bench.command(args);
        if rustix::process::geteuid().is_root() {
            for name in ["", "p.udax"] {
                std::os::unix::fs::chown(bench.path(name), Some(65534), None).unwrap();
            }
            command.uid(65534).gid(65534);
        }
        command.output().map(Run::new)
    };
    let Ok(df) = run(&["df", "--json", "p.udax"]) else {
        return skipped("another user may not run the tool");
    };
    let of_pool: Value = serde_json::from_str(&df.stdout).unwrap();
    let map = run(&["map", "--json", "--touch", "p.udax:/file"]).unwrap();
    let of_file: Value = serde_json::from_str(&map.stdout).unwrap();
    if of_file["touched"]["faulting"] == "lazy" {
        assert!(of_file.get("why_eager").is_none(), "{of_file}");
        return skipped("this host permits userfaultfd to everybody");
    }

    let told = [
        &of_pool["pools"][0]["why_eager"],
        &of_file["why_eager"],
        &of_file["touched"]["why_eager"],
    ];
    for why in told {
        assert_eq!(why["reason"], "userfaultfd", "{of_pool} {of_file}");
        assert!(why["meaning"].as_str().unwrap().contains("vm.unprivileged_userfaultfd"), "{why}");
    }
    let cases: [(&[&str], &str); 3] = [
        (&["df", "p.udax"], "mappings are eager: no userfaultfd"),
        (&["map", "p.udax:/file"], "mappings are eager: no userfaultfd"),
        (&["map", "--touch", "p.udax:/file"], "eager: no userfaultfd"),
    ];
    for (args, text) in cases {
        let said = run(args).unwrap().stdout;
        assert!(said.contains(text) && said.contains("CAP_SYS_PTRACE"), "{args:?}: {said}");
    }
}

#[test]
fn a_mapping_that_was_asked_to_be_eager_says_that() {
    let bench = Bench::with_pool("16M");
    write(&Pool::open(bench.path("p.udax")).unwrap(), "/file", 2 * PAGE);
    let touched = &bench.json(&["map", "--touch=eager", "p.udax:/file"])["touched"];
    assert_eq!(
        (&touched["faulting"], &touched["why_eager"]["reason"]),
        (&"eager".into(), &"asked".into())
    );
}
