//! Many threads that share data between few files: the counts are right for all of them (O-5).
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::thread;

use common::{KIB, MIB, Pool, create, pattern, pin_info, unlink};
use udax_fs::{Filesystem, FreePolicy, FsError, Inode};
use udax_mm::sync::Arc;
use udax_mm::{FileIndex, Pages, PinKind, Wait};

const PAGE: u64 = 4 * KIB;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Numbers without a pattern, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn range(&mut self) -> std::ops::Range<u64> {
        let start = self.below(30);
        start * PAGE..(start + 1 + self.below(20)) * PAGE
    }
}

/// One thing after another, each of which may be refused.
fn step(files: &[Arc<Inode>], numbers: &mut Numbers) -> Result<(), FsError> {
    let mut pick = || &files[usize::try_from(numbers.below(3)).unwrap()];
    let (file, other) = (pick(), pick());
    let (range, at) = (numbers.range(), numbers.below(40) * PAGE);
    let policy =
        if numbers.below(2) == 0 { FreePolicy::Defer } else { FreePolicy::Wait(Wait::Forever) };
    match numbers.below(12) {
        0..4 => file.clone_range(range, other, at, Wait::Forever).map(drop),
        4 => file.truncate(range.start + numbers.below(PAGE), policy).map(drop),
        5 => file.truncate(0, policy).map(drop),
        6 => file.punch(range.start + 5..range.end - 9, policy).map(drop),
        7 => file.unshare(range),
        8 => file.dedupe_range(range, other, at, Wait::Forever).map(drop),
        9 => file.pin(FileIndex(0)..FileIndex(3), pin_info("thread", PinKind::Read)).map(drop),
        10 => file.read_at(&mut [0; 9000], range.start).map(drop),
        _ => file.write_at(&pattern(at, range.end - range.start), range.start + 77).map(drop),
    }
}

fn start(pool: &Pool) -> (Arc<Filesystem>, Pages, Vec<Arc<Inode>>) {
    let fs = pool.mount();
    let files = NAMES.map(|name| create(&fs, name)).to_vec();
    let free = fs.usage().free;
    for (seed, file) in (1..).zip(&files) {
        file.write_at(&pattern(seed, 40 * PAGE), 0).unwrap();
    }
    (fs, free, files)
}

fn finish(pool: &Pool, fs: &Filesystem, free: Pages, files: Vec<Arc<Inode>>) {
    fs.verify().unwrap();
    for file in &files {
        file.truncate(0, FreePolicy::Wait(Wait::Never)).unwrap();
        fs.verify().unwrap();
    }
    let usage = fs.usage();
    assert_eq!((usage.free, usage.limbo, usage.shared), (free, Pages(0), Pages(0)));
    drop(files);
    for name in NAMES {
        unlink(fs, name);
    }
    fs.unmount().unwrap();
    pool.check();
}

#[test]
fn threads_that_share_between_three_files_leave_the_counts_right() {
    let pool = Pool::new(16 * MIB);
    let (fs, free, files) = start(&pool);
    thread::scope(|scope| {
        for seed in 1..=16 {
            let files = &files[..3];
            scope.spawn(move || {
                let mut numbers = Numbers(seed * 0x9e37_79b9);
                for _ in 0..200 {
                    let result = step(files, &mut numbers);
                    if let Err(error @ (FsError::Corrupt { .. } | FsError::Device(_))) = result {
                        panic!("{error}");
                    }
                }
            });
        }
    });
    finish(&pool, &fs, free, files);
}

/// Whoever reads one file while the others give up, or copy, the pages it has, reads that file.
#[test]
fn a_file_that_nobody_changes_reads_the_same_while_others_share_its_pages_and_let_them_go() {
    let pool = Pool::new(16 * MIB);
    let (fs, free, files) = start(&pool);
    let bytes = pattern(4, 40 * PAGE);
    thread::scope(|scope| {
        let source = &files[3];
        for file in &files[..3] {
            scope.spawn(|| {
                for round in 0..60 {
                    source.clone_range(0..40 * PAGE, file, 0, Wait::Forever).unwrap();
                    file.write_at(&[7; 5000], round * 1000).unwrap();
                    file.truncate(round * 500, FreePolicy::Defer).unwrap();
                }
            });
        }
        scope.spawn(|| {
            let mut seen = vec![0; bytes.len()];
            for _ in 0..100 {
                source.read_at(&mut seen, 0).unwrap();
                assert!(seen == bytes);
            }
        });
    });
    finish(&pool, &fs, free, files);
}
