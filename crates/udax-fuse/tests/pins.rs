//! Every way in which programs take pages from a file over a mount, while a device still has some
//! of them: what the holder is told, and that the bytes are nobody else's until it lets go (B-03).
//! These tests need root and `/dev/fuse`; without them they say so and show nothing.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use common::served::Served;
use nix::fcntl::{FallocateFlags, fallocate};
use udax::{OpenOptions, Pin, PinKind, PinOptions, Recalled};
use udax_mm::RecallReason;
use udax_mm::sync::mpsc::{Receiver, channel};

const PAGE: u64 = 4096;

/// What the device has of the file.
const PINNED: Range<u64> = 2 * PAGE..6 * PAGE;

/// The kernel tells of the last use of a file without waiting; it has for this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ten pages, none like another.
fn bytes() -> Vec<u8> {
    (0..10 * PAGE).map(|at| u8::try_from((at / PAGE * 7 + at) % 251).unwrap()).collect()
}

fn pinned_bytes() -> Vec<u8> {
    bytes()[usize::try_from(PINNED.start).unwrap()..usize::try_from(PINNED.end).unwrap()].to_vec()
}

/// A device that has pinned pages of a file, and what it is told.
struct Device {
    pin: Pin,
    told: Receiver<Recalled>,
}

impl Device {
    fn of(served: &Served, file: &str) -> Device {
        let (tell, told) = channel();
        let options = PinOptions::new("the device")
            .kind(PinKind::Write)
            .on_recall(move |recalled| tell.send(recalled.clone()).unwrap());
        let mut open = OpenOptions::new();
        let file = open.read(true).write(true).open(&served.pool, file).unwrap();
        let pin = file.pin(PINNED, &options).unwrap();
        Device { pin, told }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = pinned_bytes();
        bytes.fill(0);
        self.pin.read(&mut bytes, 0).unwrap();
        bytes
    }
}

fn limbo(served: &Served) -> u64 {
    served.pool.usage().limbo.0
}

/// Waits until the kernel has told of what it knows already.
#[track_caller]
fn await_that(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::yield_now();
    }
}

/// Gives out all that is free, to a file of other bytes.
fn fill(served: &Served) {
    let mut filler = File::create_new(served.at("filler")).unwrap();
    while filler.write_all(&[0xee; 1 << 14]).is_ok() {}
    while filler.write_all(&[0xee; 4096]).is_ok() {}
    assert!(served.pool.usage().free.0 < 16, "{:?}", served.pool.usage());
}

/// Runs `end` on the file "pinned" of the mount, which takes `taken` of what a device has of it.
fn check(how: &str, taken: Range<u64>, end: impl FnOnce(&Served)) {
    let Some(served) = Served::new() else { return };
    let before = served.pool.usage().used;
    fs::write(served.at("pinned"), bytes()).unwrap();
    let device = Device::of(&served, "/pinned");
    // The kernel has pages of it, too.
    assert!(fs::read(served.at("pinned")).unwrap() == bytes(), "{how}");

    end(&served);

    let told = device.told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{how}: not recalled"));
    let expected = Recalled { range: taken.clone(), deadline: None, why: RecallReason::Deferred };
    assert_eq!(told, expected, "{how}");
    // Whoever is told is told when the pages are in limbo.
    assert_eq!(limbo(&served) * PAGE, taken.end - taken.start, "{how}");
    fill(&served);
    assert!(device.bytes() == pinned_bytes(), "{how}");
    device.pin.write(&[0xdd; 4 * 4096], 0).unwrap();
    let filler = served.pool.read("/filler").unwrap();
    assert!(filler.iter().all(|&byte| byte == 0xee), "{how}: the device wrote to another file");
    assert!(device.told.try_recv().is_err(), "{how}: it is told once");

    drop(device);
    assert_eq!(limbo(&served), 0, "{how}");
    for left in ["filler", "pinned"] {
        if served.at(left).exists() {
            fs::remove_file(served.at(left)).unwrap();
        }
    }
    await_that(how, || served.pool.usage().used == before);
    let pool = served.pool.clone();
    served.finish();
    // Nobody is at work any more.
    assert_eq!(pool.verify(), Ok(()), "{how}");
}

#[test]
fn a_name_that_goes_leaves_a_device_its_pages() {
    check("unlink", PINNED, |served| fs::remove_file(served.at("pinned")).unwrap());
    check("unlink, and the last close", PINNED, |served| {
        let file = File::open(served.at("pinned")).unwrap();
        fs::remove_file(served.at("pinned")).unwrap();
        assert_eq!(limbo(served), 0, "it is open");
        let mut read = bytes();
        read.fill(0);
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes());
    });
    check("the last of two names", PINNED, |served| {
        fs::hard_link(served.at("pinned"), served.at("second")).unwrap();
        fs::remove_file(served.at("pinned")).unwrap();
        assert_eq!(limbo(served), 0, "it has a name");
        fs::remove_file(served.at("second")).unwrap();
    });
    check("another file takes the name", PINNED, |served| {
        fs::write(served.at("other"), b"other").unwrap();
        fs::rename(served.at("other"), served.at("pinned")).unwrap();
        assert_eq!(fs::read(served.at("pinned")).unwrap(), b"other");
    });
    check("with the folder it is in", PINNED, |served| {
        fs::create_dir(served.at("folder")).unwrap();
        fs::rename(served.at("pinned"), served.at("folder/pinned")).unwrap();
        fs::remove_dir_all(served.at("folder")).unwrap();
    });
}

#[test]
fn a_file_that_is_cut_off_leaves_a_device_its_pages() {
    check("truncate(2) to nothing", PINNED, |served| {
        nix::unistd::truncate(&served.at("pinned"), 0).unwrap();
    });
    check("truncate(2) in the middle, and an extension", 4 * PAGE..6 * PAGE, |served| {
        let path = served.at("pinned");
        let cut = i64::try_from(4 * PAGE).unwrap();
        nix::unistd::truncate(&path, cut).unwrap();
        nix::unistd::truncate(&path, 40 << 10).unwrap();
        let mut expected = bytes();
        expected[usize::try_from(cut).unwrap()..].fill(0);
        assert!(fs::read(path).unwrap() == expected);
    });
    check("open with O_TRUNC", PINNED, |served| {
        let file = File::create(served.at("pinned")).unwrap();
        file.write_all_at(&[1; 4096], 2 * PAGE).unwrap();
    });
    check("open with O_TRUNC for reading too, and rewrite", PINNED, |served| {
        let mut options = File::options();
        let mut file =
            options.read(true).write(true).truncate(true).open(served.at("pinned")).unwrap();
        file.write_all(&vec![1; 40 << 10]).unwrap();
    });
}

#[test]
fn a_hole_that_is_punched_leaves_a_device_its_pages() {
    let punch = |served: &Served, mode, at: u64, len: u64| {
        let file = File::options().write(true).open(served.at("pinned")).unwrap();
        let (at, len) = (i64::try_from(at).unwrap(), i64::try_from(len).unwrap());
        fallocate(&file, mode, at, len).unwrap();
    };
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    check("punch all", PINNED, |served| punch(served, hole, 0, 10 * PAGE));
    check("punch two pages", 3 * PAGE..5 * PAGE, |served| {
        punch(served, hole, 3 * PAGE, 2 * PAGE);
        let expected = [&bytes()[..3 * 4096], &[0; 2 * 4096], &bytes()[5 * 4096..]].concat();
        assert!(fs::read(served.at("pinned")).unwrap() == expected);
    });
    let zero = FallocateFlags::FALLOC_FL_ZERO_RANGE;
    check("zero all", PINNED, |served| punch(served, zero, 0, 10 * PAGE));
}
