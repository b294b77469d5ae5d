//! Several threads in one filesystem: nothing hangs, and what is left is sound.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::thread;

use common::{KIB, MIB, Pool, name, pattern, pin_info};
use udax_fs::{Filesystem, FreePolicy, FsError, Inode, Kind, RenameMode};
use udax_mapping::{MapMode, Populate};
use udax_mm::sync::Arc;
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::{Access, FileIndex, Pages, PinKind, Recall, Wait};

/// Numbers without a pattern, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn path(&mut self) -> &'static str {
        ["a", "b", "c", "d"][usize::try_from(self.below(4)).unwrap()]
    }
}

/// One thing after another, each of which may be refused.
fn step(fs: &Arc<Filesystem>, numbers: &mut Numbers) -> Result<(), FsError> {
    let root = fs.root()?;
    let (from, to) = (name(numbers.path()), name(numbers.path()));
    match numbers.below(8) {
        0 => fs.create(&root, &from, Kind::File, 0o644, 0, 0).map(drop),
        1 => fs.unlink(&root, &from),
        2 => fs.rename(&root, &from, &root, &to, RenameMode::Replace),
        3 => fs.link(&fs.lookup(&root, &from)?, &root, &to),
        4 => fs.read_dir(&root, 0, 100).map(drop),
        _ => use_file(&fs.lookup(&root, &from)?, numbers),
    }
}

fn use_file(file: &Arc<Inode>, numbers: &mut Numbers) -> Result<(), FsError> {
    let at = numbers.below(300 * KIB);
    let policy =
        if numbers.below(2) == 0 { FreePolicy::Defer } else { FreePolicy::Wait(Wait::Forever) };
    match numbers.below(9) {
        0 => file.write_at(&pattern(at, 20_000), at).map(drop),
        1 => file.append(&pattern(at, 5000)).map(drop),
        2 => file.truncate(at, policy).map(drop),
        3 => file.punch(at..at + 50_000, policy).map(drop),
        4 => file.allocate(at..at + 20_000),
        5 => file.read_at(&mut [0; 8192], at).map(drop),
        6 => file.pin(FileIndex(0)..FileIndex(3), pin_info("thread", PinKind::Read)).map(drop),
        7 => {
            let (access, populate) = (Access::Write, Populate::Eager);
            let mode = MapMode { access, populate, ..MapMode::default() };
            let map = file.map(FileIndex(1), Pages(20), mode)?;
            // Refused past the end, wherever that is by now.
            let _ = map.vma().write(5000, b"stored");
            file.sync()
        }
        _ => file.set_attr(&udax_fs::SetAttr::default()).map(drop),
    }
}

#[test]
fn threads_leave_a_sound_filesystem() {
    let pool = Pool::new(16 * MIB);
    let fs = pool.mount();
    let threads = (1..=4).map(|seed| {
        let fs = Arc::clone(&fs);
        thread::spawn(move || {
            let mut numbers = Numbers(seed * 0x9e37_79b9);
            for _ in 0..1500 {
                let result = step(&fs, &mut numbers);
                if let Err(error @ (FsError::Corrupt { .. } | FsError::Device(_))) = result {
                    panic!("{error}");
                }
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    for thread in threads {
        thread.join().unwrap();
    }
    fs.verify().unwrap();
    fs.unmount().unwrap();
    pool.check();
    pool.mount().verify().unwrap();
}

/// A freeze that had waited for a pin came between two steps of an append, which could not be taken
/// back any more: a part of it was frozen for ever.
#[test]
fn a_freeze_has_all_of_an_append_or_nothing() {
    const LEN: u64 = 12 * MIB;
    let pool = Pool::new(48 * MIB);
    let fs = pool.mount();
    let bytes = pattern(1, LEN);
    for _ in 0..10 {
        let file = common::create(&fs, "file");
        file.append(&bytes).unwrap();
        let is_wanted = Arc::new(AtomicBool::new(false));
        let recall = Recall::call({
            let is_wanted = Arc::clone(&is_wanted);
            move |_| is_wanted.store(true, Ordering::Relaxed)
        });
        let info = pin_info("in the way", PinKind::Read);
        let pin = file.pin_leased(FileIndex(0)..FileIndex(1), info, recall).unwrap();
        thread::scope(|scope| {
            let appender = scope.spawn(|| -> Result<(), FsError> {
                loop {
                    file.append(&bytes)?;
                    file.truncate(LEN, FreePolicy::Defer)?;
                }
            });
            let freezer = scope.spawn(|| file.freeze(Wait::Forever));
            let is_half = || !file.attr().size.is_multiple_of(LEN);
            let is_ready = || is_wanted.load(Ordering::Relaxed) && is_half();
            while !is_ready() && !appender.is_finished() {
                thread::yield_now();
            }
            drop(pin);
            freezer.join().unwrap().unwrap();
            assert!(matches!(appender.join().unwrap(), Err(FsError::Frozen)));
        });
        let size = file.attr().size;
        assert_eq!(size % LEN, 0, "{size} bytes are frozen");
        assert!(common::contents(&file).chunks(bytes.len()).all(|part| part == bytes));
        common::unlink(&fs, "file");
    }
    fs.verify().unwrap();
}
