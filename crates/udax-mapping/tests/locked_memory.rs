//! A process that locks all its memory, also what it maps later: the host fills what it maps at once,
//! and has to ask for the pages of a lazy mapping nevertheless. In a test program of its own, because
//! the lock is one of the whole process.

mod common;

use common::{PAGE, TestFile, both, mode, range};
use rustix::mm::{MlockAllFlags, mlockall, munlockall};
use std::thread;
use udax_mapping::Populate;
use udax_mm::sync::{Mutex, OnceLock};
use udax_mm::{Access, FileIndex, Pages, Wait};

/// What the process locks is one test's at a time.
static LOCKS: OnceLock<Mutex<()>> = OnceLock::new();

/// The page 2 is a hole.
fn pages() -> Vec<Option<u64>> {
    (0..40).map(|page| (page != 2).then_some(page)).collect()
}

#[test]
fn a_process_that_locks_its_memory_sees_the_bytes_of_the_file() {
    let _alone = LOCKS.get_or_init(Mutex::default).lock();
    if let Err(error) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        return common::skipped(&error.into());
    }
    both(64, &pages(), |file, populate| {
        (0..40).for_each(|page| file.fill_block(page, u8::try_from(page + 1).expect("a byte")));
        let map = |access| file.mapping.map(FileIndex(0), Pages(40), mode(access, populate));
        let (reader, writer) =
            (map(Access::Read).expect("addresses"), map(Access::Write).expect("addresses"));
        let byte =
            |page: u64| (reader.vma().load_u64(page * PAGE).expect("a page")).to_le_bytes()[0];
        let shown = |page: u64| if page == 2 { 0 } else { page + 1 };
        for page in 0..40 {
            assert_eq!(u64::from(byte(page)), shown(page), "page {page}");
        }
        writer.vma().store_u64(2 * PAGE, 7).expect("a block is free");
        assert_eq!(byte(2), 7);

        file.punch(range(5, 9), Wait::Never).expect("nobody pins it");
        assert_eq!((byte(4), byte(6)), (5, 0), "what was taken back is asked for again");
        file.truncate(20, Wait::Never).expect("nobody pins it");
        assert!(reader.vma().load_u64(30 * PAGE).is_err());
        file.verify();
    });
    munlockall().expect("it was locked");
}

/// The host then asks for pages too, of every mapping and as if to store, while threads ask for them
/// and a hole is punched.
#[test]
fn memory_is_locked_and_unlocked_beside_faults() {
    let _alone = LOCKS.get_or_init(Mutex::default).lock();
    let (current, future) = (MlockAllFlags::CURRENT, MlockAllFlags::FUTURE);
    if let Err(error) = mlockall(future).and_then(|()| munlockall()) {
        return common::skipped(&error.into());
    }
    for _ in 0..8 {
        let Some(file) = TestFile::lazy(64, &pages()) else { return };
        (0..40).for_each(|page| file.fill_block(page, u8::try_from(page + 1).expect("a byte")));
        let map = |access| {
            let mode = mode(access, Populate::Lazy);
            file.mapping.map(FileIndex(0), Pages(40), mode).expect("addresses")
        };
        let (reader, writer) = (map(Access::Read), map(Access::Write));
        let touch = || {
            for page in (0..40).filter(|page| ![2, 6].contains(page)).cycle().take(38 * 30) {
                let loaded = reader.vma().load_u64(page * PAGE).expect("a page");
                assert_eq!(u64::from(loaded.to_le_bytes()[0]), page + 1, "page {page}");
                writer.vma().store_u64(page * PAGE + 64, page).expect("a page");
                if page % 8 == 0 {
                    file.punch(range(6, 7), Wait::Never).expect("nobody pins it");
                    assert_eq!(reader.vma().load_u64(6 * PAGE).expect("a hole"), 0);
                }
            }
        };
        thread::scope(|scope| {
            let touching = scope.spawn(touch);
            while !touching.is_finished() {
                for flags in [current, future, current | future] {
                    mlockall(flags).expect("it is permitted");
                    munlockall().expect("it was locked");
                }
            }
        });
        file.verify();
    }
}

/// The host touches every address that there is, also those of which a mapping is about to be made.
#[test]
fn a_mapping_that_is_made_while_memory_is_locked_shows_the_file() {
    let _alone = LOCKS.get_or_init(Mutex::default).lock();
    let current = MlockAllFlags::CURRENT;
    if let Err(error) = mlockall(current).and_then(|()| munlockall()) {
        return common::skipped(&error.into());
    }
    let Some(file) = TestFile::lazy(64, &pages()) else { return };
    let make = || {
        for _ in 0..300 {
            let mode = mode(Access::Read, Populate::Lazy);
            let mapped = file.mapping.map(FileIndex(0), Pages(40), mode).expect("addresses");
            let word = |page: u64| mapped.vma().load_u64(page * PAGE).expect("a page");
            assert_eq!((0..40).map(word).sum::<u64>(), 0, "the blocks are zeros");
        }
    };
    thread::scope(|scope| {
        let making = scope.spawn(make);
        while !making.is_finished() {
            mlockall(current).expect("it is permitted");
            munlockall().expect("it was locked");
        }
    });
    file.verify();
}
