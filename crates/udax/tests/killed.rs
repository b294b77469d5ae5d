//! A process that dies while it writes loses nothing that a call had returned for.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use common::{Helper, child_pool, close_clean, on_file, say};
use udax::{OpenOptions, Pool};

mod common;

/// Bytes of a record: its number, again and again.
const RECORD: usize = 5000;

fn record(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(RECORD / 8)
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    for acknowledged in [1, 40, 150] {
        let (_dir, path, pool) = on_file();
        pool.close().unwrap();
        let mut child = Helper::start("child_that_writes_until_it_is_killed", &path);
        let pid = child.pid();
        while child.wait_for("wrote").parse::<u64>().unwrap() < acknowledged {}
        child.kill();

        let pool = Pool::open(&path).unwrap();
        assert_eq!(pool.recovered().unclean, Some(pid));
        assert!(!pool.recovered().rebooted);
        let log = pool.read("/log").unwrap();
        assert_eq!(log.len() % RECORD, 0, "an append is there whole or not at all");
        let records = log.chunks(RECORD).zip(0..);
        assert!(log.len() >= RECORD * usize::try_from(acknowledged).unwrap());
        for (found, number) in records {
            assert!(found == record(number), "record {number}");
        }
        for number in 0..=acknowledged {
            assert_eq!(pool.read(format!("/dir/{number}")).unwrap(), number.to_le_bytes());
        }
        close_clean(&path, pool);
        assert_eq!(Pool::open(&path).unwrap().recovered().unclean, None);
    }
}

#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = child_pool() else { return };
    let pool = Pool::open(path).unwrap();
    pool.create_dir("/dir").unwrap();
    let log = OpenOptions::new().append(true).create(true).open(&pool, "/log").unwrap();
    for number in 0.. {
        // A pool of 16 MiB holds some thousand records; the parent kills long before.
        log.append(&record(number)).unwrap();
        pool.write(format!("/dir/new {number}"), number.to_le_bytes()).unwrap();
        pool.rename(format!("/dir/new {number}"), format!("/dir/{number}")).unwrap();
        say("wrote", number);
    }
}
