//! A name that the pool makes while a program creates it over the mount.
//!
//! The kernel looks a name up, finds nothing, and asks for a new file. It takes what it gets for one
//! that the program has made, and checks no permission. So it must not get one that was made in
//! between: a program would have the file of somebody else open, and emptied.
//! The test needs root and `/dev/fuse`; without them it says so and shows nothing.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs::{self, File, Permissions};
use std::hint::spin_loop;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::thread;

use common::served::Served;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, setfsuid};
use udax::{OpenOptions, Pool};
use udax_mm::sync::atomic::{AtomicUsize, Ordering};

/// Somebody who is not root.
const SOMEBODY: u32 = 1000;

/// How often both make a file of the same name.
const ROUNDS: usize = 2000;

/// The round that is on, which another thread waits for.
#[derive(Default)]
struct Round(AtomicUsize);

impl Round {
    fn begin(&self, round: usize) {
        self.0.store(round, Ordering::Release);
    }

    fn await_begin(&self, round: usize) {
        while self.0.load(Ordering::Acquire) < round {
            spin_loop();
        }
    }
}

/// Makes the file of each round, ever another time between the questions of the kernel.
fn make_in_the_pool(pool: &Pool, round_on: &Round) {
    for round in 1..=ROUNDS {
        round_on.await_begin(round);
        for _ in 0..round % 50 * 100 {
            spin_loop();
        }
        // The program may be faster.
        let _ = OpenOptions::new().write(true).create_new(true).open(pool, format!("/{round}"));
    }
}

/// Opens a file in the mount `dir` as programs do that save something.
fn create_over_the_mount(dir: &File, name: &str) -> Result<File, Errno> {
    let flags = OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_RDWR;
    openat(dir, name, flags, Mode::from_bits_truncate(0o600)).map(File::from)
}

/// Creates the file of each round over the mount. Says how many files it made, or whose it got.
fn make_over_the_mount(dir: &File, round_on: &Round) -> Result<usize, u32> {
    // Of this thread only.
    setfsuid(Uid::from_raw(SOMEBODY));
    let mut made = 0;
    for round in 1..=ROUNDS {
        round_on.begin(round);
        match create_over_the_mount(dir, &round.to_string()) {
            Ok(file) => match file.metadata().unwrap().uid() {
                SOMEBODY => made += 1,
                other => return Err(other),
            },
            Err(other) => assert_eq!(other, Errno::EACCES, "it was made, and not by the program"),
        }
    }
    Ok(made)
}

#[test]
fn a_program_that_creates_a_file_never_has_that_of_somebody_else_open() {
    let Some(served) = Served::new() else { return };
    fs::set_permissions(served.place.path(), Permissions::from_mode(0o777)).unwrap();
    let dir = File::open(served.place.path()).unwrap();
    let round_on = Round::default();
    let made = thread::scope(|scope| {
        scope.spawn(|| make_in_the_pool(&served.pool, &round_on));
        let made = scope.spawn(|| make_over_the_mount(&dir, &round_on)).join();
        // Also if it has failed.
        round_on.begin(ROUNDS);
        made.unwrap()
    });
    let made = made.unwrap_or_else(|owner| panic!("it has a file of user {owner} open"));
    println!("{made} of {ROUNDS} files were made by the program");
    drop(dir);
    served.finish();
}
