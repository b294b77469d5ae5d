//! Devices without a filesystem: what `udax dev` does and refuses.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs;

use common::{Bench, pattern};

fn device(len: u64) -> Bench {
    let bench = Bench::new();
    fs::File::create(bench.path("d.img")).unwrap().set_len(len).unwrap();
    bench
}

#[test]
fn bytes_go_to_the_device_and_come_back() {
    let bench = device(8 << 20);
    fs::write(bench.path("in"), pattern(3_000_000)).unwrap();

    let facts = bench.json(&["dev", "d.img", "write", "4K", "in", "read", "4K", "3000000", "out"]);

    assert_eq!((&facts["size"], &facts["alignment"]), (&(8 << 20).into(), &(2 << 20).into()));
    assert_eq!(facts["steps"][0]["length"], 3_000_000);
    assert!(fs::read(bench.path("out")).unwrap() == pattern(3_000_000));
    let image = fs::read(bench.path("d.img")).unwrap();
    assert!(image[4096..][..3_000_000] == pattern(3_000_000), "the device is the file");
}

#[test]
fn a_device_is_mapped_in_folios_of_its_alignment_and_of_no_other() {
    let bench = device(8 << 20);

    let huge = bench.json(&["dev", "d.img", "map", "0", "8M"]);
    assert_eq!(huge["steps"][0]["folios"], serde_json::json!([[2 << 20, 4]]));
    let base = bench.json(&["dev", "--align", "4K", "d.img", "map", "0", "2M"]);
    let [folios] = &base["steps"][0]["folios"].as_array().unwrap()[..] else { panic!("{base}") };
    assert_eq!(folios[0], 4096);

    let refused = bench.run(&["dev", "d.img", "map", "4K", "2M"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("2 MiB"), "{}", refused.stderr);
    let small = device((2 << 20) + 4096);
    let refused = small.run(&["dev", "d.img"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("2 MiB"), "{}", refused.stderr);
}

#[test]
fn removal_names_who_pins_and_takes_the_device_once_nobody_does() {
    let bench = device(8 << 20);

    let steps =
        ["pin", "nic", "0", "2M", "pins", "kill", "unpin", "nic", "kill", "read", "0", "8", "x"];
    let run = bench.run(&[&["dev", "d.img"][..], &steps].concat());

    assert_eq!(run.code, 1, "what follows the end fails");
    assert!(run.stdout.contains("kill   refused"), "{}", run.stdout);
    assert!(run.stdout.lines().any(|line| line.contains("refused") && line.contains("nic")));
    assert!(run.stdout.ends_with("kill   done\n"), "{}", run.stdout);
    assert!(run.stderr.contains("removed"), "{}", run.stderr);
}

#[test]
fn a_pool_is_not_written_over_by_mistake() {
    let bench = Bench::with_pool("16M");
    fs::write(bench.path("in"), [1; 4096]).unwrap();

    let refused = bench.run(&["dev", "p.udax", "write", "0", "in"]);

    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("a pool is on the device"), "{}", refused.stderr);
    bench.assert_clean();
    bench.ok(&["dev", "p.udax", "read", "0", "4K", "out"]);
    bench.ok(&["dev", "--force", "p.udax", "write", "0", "in"]);
}

#[test]
fn a_table_is_a_device_too() {
    let bench = device(8 << 20);
    fs::File::create(bench.path("e.img")).unwrap().set_len(8 << 20).unwrap();
    fs::write(bench.path("s.table"), "0 16MiB striped 2 2MiB d.img 0 e.img 0").unwrap();
    fs::write(bench.path("in"), pattern(5 << 20)).unwrap();

    let facts = bench.json(&["dev", "s.table", "write", "0", "in", "map", "0", "16M"]);

    assert_eq!(facts["steps"][1]["folios"], serde_json::json!([[2 << 20, 8]]));
    let (d, e) = (fs::read(bench.path("d.img")).unwrap(), fs::read(bench.path("e.img")).unwrap());
    let all = pattern(5 << 20);
    assert!(d[..2 << 20] == all[..2 << 20] && e[..2 << 20] == all[2 << 20..4 << 20]);

    fs::write(bench.path("odd.table"), "0 6MiB linear d.img 4KiB").unwrap();
    let refused = bench.run(&["dev", "odd.table"]);
    assert_eq!(refused.code, 1, "no folio of 2 MiB lies in it: {}", refused.stdout);
}

#[test]
fn a_file_that_is_there_is_not_emptied_and_what_does_not_fit_changes_nothing() {
    let bench = device(8 << 20);
    fs::write(bench.path("d.img"), pattern(8 << 20)).unwrap();
    fs::write(bench.path("long"), pattern(9 << 20)).unwrap();
    let refused = |steps: &[&str], why: &str| {
        let run = bench.run(&[&["dev", "d.img"][..], steps].concat());
        assert_eq!(run.code, 1);
        assert!(run.stderr.contains(why), "{}", run.stderr);
    };

    refused(&["read", "0", "4K", "d.img"], "the file exists and is not empty");
    refused(&["read", "0", "9M", "new"], "the device has 8388608");
    refused(&["write", "0", "long"], "the device has 8388608");

    assert!(!bench.path("new").exists());
    assert!(fs::read(bench.path("d.img")).unwrap() == pattern(8 << 20));
    let out = bench.command(&["dev", "d.img", "read", "0", "8", "/dev/stdout"]).output().unwrap();
    assert!(out.stdout.starts_with(&pattern(8)));
}
