//! The first story of `histories.rs`, by readers that have nothing but an address, as in C: what was cut
//! off is SIGBUS, and no load finds bytes of another file. Each reads in a process of its own.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;
#[path = "syscalls/raw.rs"]
mod raw;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::thread;

use common::{Helper, child_pool, in_memory, say, skipped};
use udax::{File, FreePolicy, MapOptions, OpenOptions, Pool, Populate, Wait};
use udax_mm::sync::atomic::{AtomicBool, Ordering};

const PAGE: u64 = 4096;

/// Pages of the file that is rewritten.
const PAGES: u64 = 24;

/// How often it is.
const TIMES: u64 = 300;

/// What the file loses each time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Loses {
    /// All, and its size.
    All,
    /// All but the pages that are read.
    TheRest,
    /// Its pages, and not its size.
    Pages,
}

impl Loses {
    const ALL: [(Loses, &'static str); 3] =
        [(Loses::All, "all"), (Loses::TheRest, "the rest"), (Loses::Pages, "pages")];

    /// The pages that are read.
    fn read(self) -> u64 {
        if self == Loses::TheRest { PAGES / 2 } else { PAGES }
    }

    /// Takes them from the file.
    fn act(self, file: &File) {
        let wait = FreePolicy::Wait(Wait::Forever);
        match self {
            Loses::All => file.set_len_with(0, wait).unwrap(),
            Loses::TheRest => file.set_len_with(PAGES / 2 * PAGE, wait).unwrap(),
            Loses::Pages => file.punch_hole_with(0..PAGES * PAGE, wait).unwrap(),
        };
    }
}

fn us(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// What a page holds in the `time`th version: its number and that of the version, never zero.
fn word(time: u64, number: u64) -> u64 {
    (time << 8) + number + 1
}

fn write(file: &File, time: u64) {
    for number in 0..PAGES {
        let page = word(time, number).to_le_bytes().repeat(us(PAGE) / 8);
        file.write_all_at(&page, number * PAGE).unwrap();
    }
}

/// Loads words until the writer is done. Each is zero or one that this page has had.
fn load_on(addr: usize, pages: u64, is_done: &AtomicBool) {
    let mut rounds = 0;
    while !is_done.load(Ordering::Acquire) || rounds == 0 {
        for number in 0..pages {
            for at in (0..PAGE).step_by(512) {
                let found = u64::from_le(raw::load(addr + us(number * PAGE + at)));
                let is_of_page = found & 0xff == number + 1 && found >> 8 < TIMES;
                if found != 0 && !is_of_page {
                    say("foreign", format_args!("page {number} shows {found:#x}"));
                    std::process::exit(3);
                }
            }
        }
        rounds += 1;
    }
}

/// Runs a child with a reader, and returns how it ended; none if the host permits no such mapping.
fn outcome(loses: &str, populate: Populate) -> Option<ExitStatus> {
    let what = format!("{loses}, {populate:?}");
    let mut child = Helper::start("child_that_reads_by_address", Path::new(&what));
    let reading = child.wait_for("reading");
    if reading != format!("{populate:?}") {
        skipped(format_args!("mappings are {reading}"));
        child.kill();
        return None;
    }
    Some(child.wait())
}

/// Asserts that no reader ends otherwise than by itself, or by SIGBUS where that is legal.
fn check(loses: Loses, may_be_sigbus: impl Fn(Populate) -> bool) {
    let (_, name) = Loses::ALL.into_iter().find(|(other, _)| *other == loses).unwrap();
    for populate in [Populate::Lazy, Populate::Eager] {
        for _ in 0..2 {
            let Some(ended) = outcome(name, populate) else { break };
            let is_sigbus = ended.signal() == Some(libc::SIGBUS);
            let is_legal = ended.success() || (is_sigbus && may_be_sigbus(populate));
            assert!(is_legal, "{name}, {populate:?}: {ended}");
        }
    }
}

#[test]
fn a_load_of_what_was_cut_off_is_sigbus_and_never_another_file() {
    check(Loses::All, |_| true);
}

#[test]
fn a_load_of_what_the_file_keeps_is_good_while_the_rest_is_cut_off_and_written() {
    check(Loses::TheRest, |_| false);
}

/// An eager mapping cannot wait until the punch is done, and says so by SIGBUS.
#[test]
fn a_load_of_a_range_that_is_punched_is_zeros_and_never_another_file() {
    check(Loses::Pages, |populate| populate == Populate::Eager);
}

#[test]
fn child_that_reads_by_address() {
    let Some(what) = child_pool() else { return };
    let what = what.to_str().unwrap().to_owned();
    let (name, populate) = what.split_once(", ").unwrap();
    let (loses, _) = Loses::ALL.into_iter().find(|(_, other)| *other == name).unwrap();
    let populate = if populate == "Lazy" { Populate::Lazy } else { Populate::Eager };

    let pool = in_memory();
    let file = open(&pool, "/table");
    write(&file, 0);
    let map = file.map(0..PAGES * PAGE, &MapOptions::new().populate(populate)).unwrap();
    let is_done = AtomicBool::new(false);
    load_on(map.addr(), PAGES, &AtomicBool::new(true));
    say("reading", format_args!("{:?}", map.faulting()));

    thread::scope(|scope| {
        let readers = [(); 2].map(|()| scope.spawn(|| load_on(map.addr(), loses.read(), &is_done)));
        rewrite(&pool, &file, loses);
        is_done.store(true, Ordering::Release);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert_eq!(pool.verify(), Ok(()));
}

fn open(pool: &Pool, path: &str) -> File {
    OpenOptions::new().read(true).write(true).create(true).open(pool, path).unwrap()
}

/// Takes pages from the file, has another file use them, and writes the file anew, again and again.
fn rewrite(pool: &Pool, file: &File, loses: Loses) {
    for time in 1..TIMES {
        loses.act(file);
        pool.write("/other", vec![0xff; us(PAGES * PAGE)]).unwrap();
        write(file, time);
        pool.remove_file("/other").unwrap();
    }
}
