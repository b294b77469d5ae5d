//! Files that somebody has open for writing, and what becomes of those who want to freeze them.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{KIB, MIB, Pool, contents, create, lookup, mkdir, name, pattern, pin_info, unlink};
use udax_fs::{Filesystem, FsError, HeldPin, Inode, Kind, MountMode};
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::{Arc, Mutex, mpsc};
use udax_mm::{FileIndex, Interrupt, Patience, PinKind, Recall, Wait};

fn file_of(fs: &Filesystem, called: &str) -> Arc<Inode> {
    let file = create(fs, called);
    file.write_at(&pattern(1, 40 * KIB), 0).unwrap();
    file
}

/// Freezes, which must be refused, and says how many handles were named.
#[track_caller]
fn handles_in_the_way<'i>(file: &Inode, wait: impl Into<Patience<'i>>) -> usize {
    let refused = file.freeze(wait).unwrap_err();
    assert!(!file.attr().is_frozen);
    let FsError::OpenForWriting { handles } = refused else { panic!("{refused}") };
    handles
}

#[test]
fn a_file_that_is_open_for_writing_is_not_frozen_and_the_handles_are_counted() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let (file, other) = (file_of(&fs, "a"), file_of(&fs, "b"));
    let (first, second) = (file.write_access().unwrap(), file.write_access().unwrap());
    let of_the_other = other.write_access().unwrap();

    assert_eq!(handles_in_the_way(&file, Wait::Never), 2);
    assert_eq!(
        file.freeze(Wait::Never).unwrap_err().to_string(),
        "the file is open for writing by 2 handles; close it there before it is frozen"
    );
    drop(first);
    assert_eq!(handles_in_the_way(&file, Wait::Never), 1);
    file.write_at(b"still", 0).unwrap();
    drop(second);
    file.freeze(Wait::Never).unwrap();

    assert!(matches!(file.write_access(), Err(FsError::Frozen)));
    assert_eq!(contents(&file)[..5], *b"still");
    assert_eq!(handles_in_the_way(&other, Wait::Never), 1);
    drop(of_the_other);
    // Of a file that is frozen already, nothing is waited for.
    file.freeze(Wait::Never).unwrap();
    fs.verify().unwrap();
}

#[test]
fn a_freeze_waits_until_the_last_handle_is_closed() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    for round in 0..10 {
        let file = file_of(&fs, &format!("{round}"));
        let (starts, has_started) = mpsc::channel();
        let (first, last) = (file.write_access().unwrap(), file.write_access().unwrap());
        let is_last = AtomicBool::new(false);
        thread::scope(|scope| {
            let freeze = scope.spawn(|| {
                starts.send(()).unwrap();
                file.freeze(Wait::Forever).unwrap();
                is_last.load(Ordering::SeqCst)
            });
            has_started.recv().unwrap();
            // One that does not wait is refused by then.
            let soon = Instant::now() + Duration::from_millis(20);
            while !freeze.is_finished() && Instant::now() < soon {
                thread::yield_now();
            }
            drop(first);
            last.inode().write_at(b"the last store", 0).unwrap();
            is_last.store(true, Ordering::SeqCst);
            drop(last);
            assert!(freeze.join().unwrap(), "it did not wait");
        });
        assert_eq!(contents(&file)[..14], *b"the last store");
    }
    fs.verify().unwrap();
}

#[test]
fn a_freeze_gives_up_at_its_deadline_and_says_what_it_waited_for() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a");
    let _access = file.write_access().unwrap();

    assert_eq!(handles_in_the_way(&file, Wait::Until(Instant::now())), 1);
    let soon = Instant::now() + Duration::from_millis(20);
    assert_eq!(handles_in_the_way(&file, Wait::Until(soon)), 1);

    assert!(Instant::now() >= soon, "it gave up too early");
}

#[test]
fn the_wait_for_handles_can_be_interrupted() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a");
    let access = file.write_access().unwrap();
    let interrupt = Interrupt::new();
    thread::scope(|scope| {
        let freeze = scope.spawn(|| file.freeze(Wait::Forever.unless(&interrupt)));
        interrupt.raise();
        let ended = freeze.join().unwrap();
        assert!(matches!(ended, Err(FsError::Interrupted { handles: 1 })), "{ended:?}");
    });
    assert!(!file.attr().is_frozen);

    drop(access);

    // There is nothing to wait for.
    file.freeze(Wait::Forever.unless(&interrupt)).unwrap();
}

/// The freeze is past its wait for handles when it waits for the pin. Whoever holds that opens the
/// file, lets the pin go, and raises the interrupt, so that the freeze ends if it waits again.
#[test]
fn a_file_that_is_opened_while_its_freeze_waits_for_a_pin_is_not_frozen() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a");
    let interrupt = Interrupt::new();
    let pin = Arc::new(Mutex::new(None::<HeldPin>));
    let access = Arc::new(Mutex::new(None));
    let recall = Recall::call({
        let (file, interrupt) = (Arc::downgrade(&file), interrupt.clone());
        let (pin, access) = (Arc::clone(&pin), Arc::clone(&access));
        move |_| {
            let opened = file.upgrade().unwrap().write_access().unwrap();
            *access.lock() = Some(opened);
            let pin = pin.lock().take();
            drop(pin);
            interrupt.raise();
        }
    });
    let range = FileIndex(2)..FileIndex(4);
    let pinned = file.pin_leased(range, pin_info("device", PinKind::Write), recall).unwrap();
    *pin.lock() = Some(pinned);

    let ended = file.freeze(Wait::Forever.unless(&interrupt));

    assert!(matches!(ended, Err(FsError::Interrupted { handles: 1 })), "{ended:?}");
    assert!(!file.attr().is_frozen);
    *access.lock() = None;
    file.freeze(Wait::Never).unwrap();
    fs.verify().unwrap();
}

/// Whoever wins, the file is not both frozen and open for writing, and one of the two goes through.
#[test]
fn an_open_for_writing_and_a_freeze_that_race_exclude_each_other() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    for round in 0..500 {
        let file = create(&fs, &format!("{round}"));
        file.write_at(b"text", 0).unwrap();
        let has_begun = AtomicBool::new(false);
        let (frozen, access) = thread::scope(|scope| {
            let freeze = scope.spawn(|| {
                has_begun.store(true, Ordering::Relaxed);
                file.freeze(Wait::Never)
            });
            while !has_begun.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            // From before its first look to after its commit.
            for _ in 0..round * 20 {
                std::hint::spin_loop();
            }
            let access = file.write_access();
            (freeze.join().unwrap(), access)
        });
        assert_ne!(frozen.is_ok(), access.is_ok(), "{frozen:?}, {access:?}");
        assert_eq!(file.attr().is_frozen, frozen.is_ok());
    }
}

/// The count is that of the one inode there is: it stays in memory, with a name or without.
#[test]
fn a_write_access_keeps_the_file() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let access = file_of(&fs, "a").write_access().unwrap();
    assert_eq!(handles_in_the_way(&lookup(&fs, "a"), Wait::Never), 1);
    let before = fs.usage().used;
    unlink(&fs, "a");
    assert!(contents(access.inode()) == pattern(1, 40 * KIB));
    drop(access);
    assert!(fs.usage().used < before, "the last handle frees it");
    fs.verify().unwrap();
}

#[test]
fn only_files_that_can_be_written_are_opened_for_writing() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    file_of(&fs, "a");
    let root = fs.root().unwrap();
    let dir = mkdir(&fs, &root, "dir");
    assert!(matches!(dir.write_access(), Err(FsError::IsADirectory)));
    let link = fs.symlink(&root, &name("link"), b"a", 0, 0).unwrap();
    assert_eq!(link.kind(), Kind::Symlink);
    assert!(matches!(link.write_access(), Err(FsError::NotAFile)));
    drop((root, dir, link));
    fs.unmount().unwrap();
    let (fs, _) = Filesystem::mount(pool.device(), MountMode::ReadOnly, None).unwrap();
    assert!(matches!(lookup(&fs, "a").write_access(), Err(FsError::ReadOnly)));
}
