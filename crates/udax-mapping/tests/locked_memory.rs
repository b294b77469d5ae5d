//! A process that locks all its memory, also what it maps later: the host fills what it maps at once,
//! and has to ask for the pages of a lazy mapping nevertheless. In a test program of its own, because
//! the lock is one of the whole process.

mod common;

use common::{PAGE, both, mode, range};
use rustix::mm::{MlockAllFlags, mlockall, munlockall};
use udax_mm::{Access, FileIndex, Pages, Wait};

/// The page 2 is a hole.
fn pages() -> Vec<Option<u64>> {
    (0..40).map(|page| (page != 2).then_some(page)).collect()
}

#[test]
fn a_process_that_locks_its_memory_sees_the_bytes_of_the_file() {
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
