//! Pools on tables of devices: made, used, drawn, and refused with line and column.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs;

use common::{Bench, pattern};

/// Devices `a.img`, `b.img` and `c.img`, with a stack `pool.table` over stripes of two of them.
fn stack() -> Bench {
    let bench = Bench::new();
    for (name, len) in [("a.img", 16 << 20), ("b.img", 16 << 20), ("c.img", 20 << 20)] {
        fs::File::create(bench.path(name)).unwrap().set_len(len).unwrap();
    }
    fs::write(bench.path("low.table"), "0 32MiB striped 2 2MiB a.img 0 b.img 0").unwrap();
    let table =
        "# two devices and a tail\n\n0 28MiB linear low.table 4MiB\n28MiB 16MiB linear c.img 0\n";
    fs::write(bench.path("pool.table"), table).unwrap();
    bench
}

#[test]
fn a_pool_on_a_stack_is_used_like_any_other() {
    let bench = stack();
    bench.ok(&["create", "--table", "pool.table", "--label", "stacked"]);

    fs::write(bench.path("file"), pattern(25 << 20)).unwrap();
    bench.ok(&["cp", "file", "pool.table:/file"]);
    bench.ok(&["cp", "pool.table:/file", "copy"]);

    assert!(fs::read(bench.path("copy")).unwrap() == pattern(25 << 20));
    let pool = &bench.json(&["df", "pool.table"])["pools"][0];
    assert_eq!((&pool["label"], &pool["total"]), (&"stacked".into(), &(44 << 20).into()));
    bench.ok(&["check", "pool.table"]);
    bench.ok(&["rm", "pool.table:/file"]);
}

#[test]
fn a_stack_is_drawn_as_a_tree_with_what_would_be_better() {
    let bench = stack();
    let shifted = "0 28MiB linear low.table 4KiB\n28MiB 4MiB error\n";
    fs::write(bench.path("shifted.table"), shifted).unwrap();

    let drawn = bench.ok(&["table", "shifted.table"]);
    let expected = "\
shifted.table: 32.0 MiB; direct access; survives the death of a process, not of the host
├─ 0 B +28.0 MiB  linear, aligned to 4.0 KiB, folios of 4.0 KiB at most
│  ! line 1: no folio of 2 MiB fits, because sector 8 of device 1 lies where it is not aligned; take the device from sector 4096 on
│  └─ 4.0 KiB +28.0 MiB of low.table: 32.0 MiB; direct access; survives the death of a process, not of the host
│     └─ 0 B +32.0 MiB  striped, aligned to 2.0 MiB, folios of 2.0 MiB at most
│        ├─ 0 B +16.0 MiB of a.img (16.0 MiB)
│        └─ 0 B +16.0 MiB of b.img (16.0 MiB)
└─ 28.0 MiB +4.0 MiB  error
";
    assert_eq!(drawn, expected);

    let facts = bench.json(&["table", "pool.table"]);
    assert_eq!((&facts["size"], &facts["dax"]), (&(44 << 20).into(), &true.into()));
    let line = &facts["lines"][0];
    assert_eq!(line["segments"][0]["largest_folio"], 2 << 20);
    assert_eq!(line["devices"][0]["table"]["lines"][0]["devices"][1]["device"], "b.img");
    assert!(line.get("advice").is_none());
}

#[test]
fn a_table_can_be_drawn_while_its_devices_are_in_use() {
    let bench = stack();
    bench.ok(&["create", "--table", "pool.table"]);
    let held = fs::File::open(bench.path("a.img")).unwrap();
    held.lock().unwrap();

    let busy = bench.run(&["cp", "pool.table", "pool.table:/x"]);

    assert_ne!(busy.code, 0);
    assert!(busy.stderr.contains("open in process"), "{}", busy.stderr);
    bench.ok(&["table", "pool.table"]);
}

/// Nothing is created, and the error names line and column.
#[test]
fn a_bad_table_is_refused_with_line_and_column_and_creates_nothing() {
    let bench = stack();
    let before = bench.list();
    let cases = [
        (
            "0 8MiB linear a.img 0\n12MiB 4MiB linear b.img 0",
            "line 2, column 1: sectors 16384..24576",
        ),
        (
            "0 8MiB linear a.img 0\n4MiB 4MiB linear b.img 0",
            "line 2, column 1: sectors 8192..16384",
        ),
        ("0 8MiB linear a.img 1", "line 1, column 21: start on the device of 512 bytes"),
        ("0 8MiB mirror a.img 0", "line 1, column 8: there is no target \"mirror\""),
        ("0 32MiB linear a.img 0", "line 1, column 22: the line takes sectors 0..65536"),
        ("0 6MiB striped 2 6KiB a.img 0 b.img 0", "line 1, column 18: chunk of 6144 bytes"),
        ("0 8MiB linear bad.table 0", "bad.table -> bad.table; a stack has an end"),
        ("0 8MiB linear none.img 0", "line 1, column 15: none.img: No such file"),
        ("0 8MiB linear a.img 0\n8MiB 8MiB linear a.img 4MiB", "line 2, column 24: line 1 takes"),
        ("\u{0}\u{1}\u{2}", "line 1, column 1"),
    ];
    for (text, message) in cases {
        fs::write(bench.path("bad.table"), text).unwrap();
        for command in [&["create", "--table", "bad.table"][..], &["table", "bad.table"]] {
            let run = bench.run(command);
            assert_eq!(run.code, 1, "{text}");
            assert!(run.stderr.contains(message), "{text}: {}", run.stderr);
        }
    }
    fs::remove_file(bench.path("bad.table")).unwrap();
    assert_eq!(bench.list(), before);
    for name in ["a.img", "b.img", "c.img"] {
        assert!(fs::read(bench.path(name)).unwrap().iter().all(|byte| *byte == 0), "{name}");
    }
}

#[test]
fn a_pool_is_not_created_over_another_and_not_without_direct_access() {
    let bench = stack();
    bench.ok(&["create", "--table", "pool.table"]);

    let again = bench.run(&["create", "--table", "pool.table"]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("`--force` would lose it"), "{}", again.stderr);
    bench.ok(&["create", "--table", "pool.table", "--force"]);

    fs::write(bench.path("zero.table"), "0 8MiB linear c.img 0\n8MiB 8MiB zero").unwrap();
    let zero = bench.run(&["create", "--table", "zero.table", "--force"]);
    assert_eq!(zero.code, 1);
    let reason = "no direct access: line 2 of the table (zero)";
    assert!(zero.stderr.contains(reason), "{}", zero.stderr);
    assert!(bench.ok(&["table", "zero.table"]).contains(reason));

    let unnamed = bench.run(&["table", "c.img"]);
    assert!(unnamed.stderr.contains("call it c.table"), "{}", unnamed.stderr);
}

#[test]
fn what_a_pool_stores_to_a_logged_line_is_in_the_log() {
    let bench = stack();
    fs::write(bench.path("logged.table"), "0 16MiB log-writes a.img a.log").unwrap();
    bench.ok(&["create", "--table", "logged.table"]);

    let log = fs::read_to_string(bench.path("a.log")).unwrap();

    assert!(log.lines().any(|line| line.starts_with("store 0 0x")), "the superblock was written");
    let kinds = ["store ", "flush ", "fence "];
    assert!(log.lines().all(|line| kinds.iter().any(|kind| line.starts_with(kind))));
    assert!(kinds.iter().all(|kind| log.contains(kind)), "a pool flushes and fences");
}

#[test]
fn a_log_is_not_appended_to_what_is_no_log_and_not_made_for_nothing() {
    let bench = stack();
    fs::write(bench.path("notes"), "remember the milk").unwrap();
    let lines = ["0 8MiB log-writes a.img b.img", "0 8MiB log-writes a.img notes"];
    fs::write(bench.path("b.img"), vec![1; 16 << 20]).unwrap();
    for line in lines {
        fs::write(bench.path("logged.table"), line).unwrap();
        let refused = bench.run(&["create", "--table", "logged.table"]);
        assert!(refused.stderr.contains("is no log of a log-writes line"), "{}", refused.stderr);
    }
    assert_eq!(fs::read(bench.path("notes")).unwrap(), b"remember the milk");
    assert_eq!(fs::metadata(bench.path("b.img")).unwrap().len(), 16 << 20);

    let text = "0 8MiB log-writes a.img a.log\n8MiB 8MiB linear none.img 0";
    fs::write(bench.path("logged.table"), text).unwrap();
    bench.run(&["create", "--table", "logged.table"]);
    assert!(!bench.path("a.log").exists(), "nothing is created");
}

#[test]
fn a_pool_below_a_table_is_not_lost() {
    let bench = stack();
    fs::remove_file(bench.path("b.img")).unwrap();
    bench.ok(&["create", "b.img", "--size", "16M"]);

    let refused = bench.run(&["create", "--table", "pool.table"]);

    assert!(refused.stderr.contains("`--force` would lose it"), "{}", refused.stderr);
    bench.ok(&["check", "b.img"]);
}

/// A table that fails pages of a file, as a device with bad memory does.
#[test]
fn bytes_that_are_lost_are_listed_by_a_check_of_the_data() {
    let bench = stack();
    let (a, whole) = ("a.img", "0 16MiB linear a.img 0\n");
    fs::write(bench.path("one.table"), whole).unwrap();
    bench.ok(&["create", "--table", "one.table"]);
    fs::write(bench.path("good"), pattern(9 << 20)).unwrap();
    fs::write(bench.path("bad"), pattern(40_000)).unwrap();
    bench.ok(&["mkdir", "one.table:/dir"]);
    bench.ok(&["cp", "good", "one.table:/good"]);
    bench.ok(&["cp", "bad", "one.table:/dir/bad"]);
    assert_eq!(bench.json(&["check", "--data", "one.table"])["lost"], serde_json::json!([]));

    let extent = &bench.json(&["map", "one.table:/dir/bad"])["extents"][0];
    let sector = extent["device"].as_u64().unwrap() / 512;
    let (from, to, end) = (sector + 16, sector + 32, 16 << 11);
    let failing =
        format!("0 {from} linear {a} 0\n{from} 16 error\n{to} {} linear {a} {to}\n", end - to);
    fs::write(bench.path("one.table"), failing).unwrap();

    bench.ok(&["check", "one.table"]);
    let run = bench.run(&["check", "--data", "one.table"]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("/dir/bad: bytes 8192..16384 are lost\n"), "{}", run.stdout);
    assert!(run.stderr.contains("write their whole pages of 4 KiB anew"), "{}", run.stderr);
    let run = bench.run(&["check", "--data", "--json", "one.table"]);
    let found: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let lost = serde_json::json!([{ "name": "/dir/bad", "offset": 8192, "len": 8192 }]);
    assert_eq!(found["lost"], lost);
}

/// What is too deep is refused before the stack of the thread ends.
#[test]
fn tables_may_be_so_many_one_below_the_other_and_no_more() {
    let bench = stack();
    let chain = |count: usize| {
        for number in 1..count {
            let text = format!("0 8MiB linear {}.table 0", number + 1);
            fs::write(bench.path(format!("{number}.table")), text).unwrap();
        }
        fs::write(bench.path(format!("{count}.table")), "0 8MiB linear a.img 0").unwrap();
    };

    chain(64);
    bench.ok(&["table", "1.table"]);
    bench.ok(&["create", "--table", "1.table"]);
    bench.ok(&["check", "1.table"]);
    for count in [65, 5000] {
        chain(count);
        let deep = bench.run(&["table", "1.table"]);
        assert_eq!(deep.code, 1);
        assert!(deep.stderr.contains("more than 64 tables are one below"), "{}", deep.stderr);
    }
}

/// What `udax dev` would refuse is found before.
#[test]
fn a_table_can_be_checked_for_a_device_of_one_alignment() {
    let bench = stack();
    let odd = "0 4MiB linear a.img 0\n4MiB 4MiB linear b.img 4KiB\n";
    fs::write(bench.path("odd.table"), odd).unwrap();
    bench.ok(&["table", "odd.table"]);
    bench.ok(&["table", "odd.table", "--align", "4K"]);
    bench.ok(&["table", "pool.table", "--align", "2M"]);

    for command in [["table", "odd.table", "--align", "2M"], ["dev", "odd.table", "--align", "2M"]]
    {
        let refused = bench.run(&command);
        assert_eq!(refused.code, 1);
        let what = "line 2, column 24: 8 sectors are no multiple of 4096, the folio of the device";
        assert!(refused.stderr.contains(what), "{}", refused.stderr);
    }
    fs::File::create(bench.path("a.img")).unwrap().set_len((5 << 20) + 4096).unwrap();
    let partial = bench.run(&["table", "--align", "2M", "odd.table"]);
    assert!(partial.stderr.contains("line 1, column 15: a.img"), "{}", partial.stderr);
}
