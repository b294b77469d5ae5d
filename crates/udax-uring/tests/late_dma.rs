//! Late DMA: a process dies while the kernel still reads a file of the disk into its pinned pages.
//! The pool is opened again at once and filled, and no byte of the transfer is in a new file.
//!
//! Two devices outlive the process. Its own ring, which the kernel takes down some time after the
//! death, with the transfers that are under way. And a ring of this process, in which the other one
//! registered its pins: it goes on for as long as this process wants, as the queue of a network
//! card does.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::io::stdin;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{PAGE, Source, fill, line, open, pattern, ring, skipped};
use udax::{CreateOptions, ErrorKind, LivingOwner, Pin, PinKind, PinOptions, Pool, Release};
use udax_uring::{Foreign, Registered, Ring, lend};

/// Tells the other process which pool to pin in, and whether the file is to be removed.
const OWNER: &str = "UDAX_TEST_OWNER";
const REMOVES: &str = "UDAX_TEST_OWNER_REMOVES";

/// Tells it what to read from, if it has a ring of its own.
const SOURCE: &str = "UDAX_TEST_OWNER_SOURCE";

/// Bytes that are pinned.
const LEN: u64 = 2 << 20;

/// Bytes of one transfer.
const PART: u64 = 16 * PAGE;

/// Bytes of a file that fills the pool; no two of them and of the device's are equal in a page.
const FILLER: u64 = 16 * PAGE;

/// The seeds of what the device brings, and of the first file that fills the pool.
const DEVICE: u64 = 7;
const FILLERS: u64 = 100;

/// A pool in memory that other processes can open.
struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Option<Place> {
        let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
            skipped("no /dev/shm");
            return None;
        };
        let path = dir.path().join("pool.udax");
        Pool::create(&path, 16 << 20, &CreateOptions::new()).unwrap().close().unwrap();
        Some(Place { path, _dir: dir })
    }
}

/// What becomes of the pinned file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Removed {
    /// Its own process removes it, before it dies.
    Before,
    /// Whoever opens the pool after the death.
    After,
}

/// The other process, whose pins are registered with a ring of its own or with that which is its
/// stdin. It says so and works until it is killed. Run by itself it does nothing.
#[test]
fn owner() {
    let Some(path) = std::env::var_os(OWNER) else { return };
    let pool = Pool::open(Path::new(&path)).unwrap();
    let file = pool.create_file("/ring").unwrap();
    file.set_len(LEN).unwrap();
    let options = PinOptions::new("ring").kind(PinKind::Write).registrable();
    let pin = file.pin(0..LEN, &options).unwrap();
    drop(file);
    if std::env::var_os(REMOVES).is_some() {
        pool.remove_file("/ring").unwrap();
    }
    match std::env::var_os(SOURCE) {
        Some(source) => read_for_ever(pin, Path::new(&source)),
        None => lend_for_ever(pin),
    }
}

fn lend_for_ever(pin: Pin) {
    let foreign = lend(stdin().as_fd(), vec![pin]).unwrap();
    let runs = foreign.runs().iter().map(|(addr, len)| format!("{addr} {len}"));
    say(&runs.collect::<Vec<_>>().join(","));
    loop {
        std::thread::park();
    }
}

/// Keeps many transfers under way, and says how many there were.
fn read_for_ever(pin: Pin, source: &Path) {
    let source = open(source);
    let mut buffers = Ring::new(64).unwrap().register(vec![pin]).unwrap();
    for round in 0_u64.. {
        begin_all(&mut buffers, &source);
        say(&round.to_string());
        // Half of them at most are done when the next ones begin.
        for _ in 0..LEN / PART / 2 {
            buffers.wait().unwrap().unwrap().result.unwrap();
        }
    }
}

/// Says a line to the process that started this one.
fn say(line: &str) {
    eprintln!("owner: {line}");
}

/// The next line that the other process says; it may have something to note before.
fn hear(child: &mut Child) -> String {
    loop {
        let line = line(child.stderr.as_mut().unwrap());
        assert_ne!(line, "", "it ended");
        match line.strip_prefix("owner: ") {
            Some(said) => return said.to_owned(),
            None => eprintln!("{line}"),
        }
    }
}

/// Begins to read all of the source into all of the buffer.
fn begin_all<B>(buffers: &mut Registered<B>, source: &impl AsFd) {
    for at in (0..LEN).step_by(usize::try_from(PART).unwrap()) {
        buffers.read_fixed(source, at, 0, at..at + PART).unwrap();
    }
}

/// Waits for every transfer that is under way.
fn finish_all<B>(buffers: &mut Registered<B>) {
    while let Some(done) = buffers.wait().unwrap() {
        assert_eq!(done.result.unwrap(), PART);
    }
}

fn start(place: &Place, removed: Removed) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "owner", "--nocapture"]).env(OWNER, &place.path);
    if removed == Removed::Before {
        command.env(REMOVES, "1");
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Opens the pool of a process that was killed a moment ago, and fills it. Returns how many files
/// that took.
fn open_and_fill(place: &Place, removed: Removed) -> (Pool, u64) {
    let pool = Pool::open(&place.path).unwrap();
    if removed == Removed::After {
        pool.remove_file("/ring").unwrap();
    }
    let count = fill(&pool, FILLERS, FILLER);
    assert!(count > 100, "{count} files filled the pool");
    (pool, count)
}

/// Asserts that each byte of each new file is right, and who the pages in quarantine are of.
fn check(pool: &Pool, count: u64, process: u32) {
    for number in 0..count {
        let bytes = pool.read(format!("/filler {number}")).unwrap();
        assert!(bytes == pattern(FILLERS + number, FILLER), "filler {number} was overwritten");
    }
    let [pin] = &pool.quarantine()[..] else { panic!("one pin is in quarantine") };
    assert_eq!((pin.process(), pin.label(), pin.pages().bytes()), (process, "ring", LEN));
    assert_eq!(pool.usage().quarantined.bytes(), LEN);
    pool.verify().unwrap();
}

/// The pages are there for new files once somebody who knows says so.
fn release(pool: &Pool) {
    let full = pool.write("/more", pattern(1, LEN / 2)).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Full);
    let released = pool.release_quarantine(&Release::All, LivingOwner::Refuse).unwrap();
    assert_eq!(released[0].withheld().bytes(), LEN);
    pool.write("/more", pattern(1, LEN / 2)).unwrap();
    assert!(pool.read("/more").unwrap() == pattern(1, LEN / 2));
    pool.verify().unwrap();
}

#[test]
fn a_device_that_goes_on_after_the_death_reaches_no_new_file() {
    for removed in [Removed::Before, Removed::After] {
        let (Some(ring), Some(place)) = (ring(64), Place::new()) else { return };
        let source = Source::new(&pattern(DEVICE, LEN));
        let mut child = start(&place, removed)
            .stdin(ring.as_fd().try_clone_to_owned().unwrap())
            .spawn()
            .unwrap();
        let said = hear(&mut child);
        let runs = said.split(',').map(|run| {
            let (addr, len) = run.split_once(' ').unwrap_or_else(|| panic!("{said}"));
            (addr.parse().unwrap(), len.parse().unwrap())
        });
        let mut buffers = ring.adopt(Foreign::at(runs.collect())).unwrap();

        begin_all(&mut buffers, &source.file);
        let process = child.id();
        kill(child);
        let (pool, count) = open_and_fill(&place, removed);
        finish_all(&mut buffers);
        // The pool is full, and the device begins anew.
        begin_all(&mut buffers, &source.file);
        finish_all(&mut buffers);
        check(&pool, count, process);
        assert_landed(&place, &pool);

        drop(buffers.unregister().unwrap());
        release(&pool);
    }
}

/// What the device brought is in the pages that are in quarantine: the test shows something.
fn assert_landed(place: &Place, pool: &Pool) {
    let bytes = std::fs::read(&place.path).unwrap();
    let ranges = pool.quarantine()[0].ranges().into_iter();
    let ranges = ranges.map(|range| range.start.byte()..range.end.byte());
    let landed = ranges.flat_map(|range| {
        let index = |at: u64| usize::try_from(at).unwrap();
        &bytes[index(range.start)..index(range.end)]
    });
    assert!(landed.copied().eq(pattern(DEVICE, LEN)), "the device wrote to the pinned pages");
}

#[test]
fn transfers_that_were_under_way_at_the_death_reach_no_new_file() {
    for (round, removed) in
        [Removed::Before, Removed::After].into_iter().cycle().take(6).enumerate()
    {
        let (Some(_), Some(place)) = (ring(4), Place::new()) else { return };
        let source = Source::new(&pattern(DEVICE, LEN));
        let mut child =
            start(&place, removed).env(SOURCE, source.path()).stdin(Stdio::null()).spawn().unwrap();
        // At another moment each time: after none, one, two rounds.
        for number in 0..=round / 2 {
            assert_eq!(hear(&mut child), number.to_string());
        }
        let process = child.id();
        kill(child);
        let (pool, count) = open_and_fill(&place, removed);
        check(&pool, count, process);
        release(&pool);
    }
}
