//! B-46: the host walks the page tables of a mapping for purposes of its own: to lock pages in memory,
//! to see which were touched, to show them in `/proc`. Nothing of that changes what a mapping shows. It
//! also stops threads in the middle of what they do.

mod common;

use common::{PAGE, TestFile, both, mode, range};
use rustix::mm::{MlockAllFlags, mlockall, munlockall};
use std::fs;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use udax_mapping::{MapMode, Populate, Sharing, UserMapping};
use udax_mm::sync::{Mutex, MutexGuard, OnceLock};
use udax_mm::{Access, FileIndex, Order, Pages, Wait};

/// A block of 2 MiB, small pages, a hole, small pages.
const LEN: u64 = 530;

fn pages() -> Vec<Option<u64>> {
    let mut pages: Vec<Option<u64>> = (512..1024).map(Some).collect();
    pages.extend([Some(3), Some(9), None, None, Some(5)]);
    pages.resize(usize::try_from(LEN).expect("short"), None);
    pages
}

fn byte(page: u64) -> u8 {
    u8::try_from(page % 251).expect("a byte")
}

fn skipped(what: &str, why: &std::io::Error) {
    // Past the capture of the test harness, so that it is seen.
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {why}");
}

/// Held by each test: what it does with the process it does with the mappings of the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: OnceLock<Mutex<()>> = OnceLock::new();
    ALONE.get_or_init(Mutex::default).lock()
}

/// Everything that `/proc` says of the addresses of this process.
fn show_everything(mapped: &UserMapping) {
    for table in ["smaps", "numa_maps", "smaps_rollup"] {
        match fs::read_to_string(format!("/proc/self/{table}")) {
            Ok(text) => assert!(!text.is_empty(), "{table}"),
            Err(error) => skipped(table, &error),
        }
    }
    let mut pagemap = fs::File::open("/proc/self/pagemap").expect("there is one");
    let addr = u64::try_from(mapped.vma().addr()).expect("an address");
    pagemap.seek(SeekFrom::Start(addr / PAGE * 8)).expect("it has a place for each page");
    let mut words = vec![0; usize::try_from(LEN * 8).expect("short")];
    pagemap.read_exact(&mut words).expect("it is mapped");
    let present = words.chunks_exact(8).filter(|word| word[7] & 0x80 != 0).count();
    assert!(present > 0, "what was touched is there");
}

/// Takes marks off the pages of the whole process: 1 "referenced", 2 of private memory, 3 of files, 4
/// "written since", for which the host protects what can be stored to.
fn clear_marks() {
    for what in ["1", "2", "3", "4"] {
        if let Err(error) = fs::write("/proc/self/clear_refs", what) {
            skipped("clear_refs", &error);
        }
    }
}

/// Locks what the process has mapped in memory, which touches all of it, and lets it go again.
fn lock_everything() {
    match mlockall(MlockAllFlags::CURRENT).map_err(std::io::Error::from) {
        Ok(()) => munlockall().expect("what can be locked can be unlocked"),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::OutOfMemory | ErrorKind::PermissionDenied));
            skipped("mlockall", &error);
        }
    }
}

fn check(file: &TestFile, mapped: &UserMapping, copied: &[u64]) {
    for page in 0..LEN {
        let mut found = [0];
        mapped.vma().read(page * PAGE, &mut found).expect("it is in the file");
        let of_file =
            file.blocks()[usize::try_from(page).expect("short")].map_or(0, |_| byte(page));
        let expected = if copied.contains(&page) { 0xfe } else { of_file };
        assert_eq!(found[0], expected, "page {page}");
    }
    file.verify();
}

#[test]
fn what_the_host_does_with_page_tables_changes_nothing_of_a_mapping() {
    let _alone = alone();
    both(2048, &pages(), |file, how| {
        for (page, block) in (0..).zip(file.blocks()) {
            if let Some(block) = block {
                file.fill_block(block, byte(page));
            }
        }
        let map = |sharing, access| {
            let mode = MapMode { sharing, ..mode(access, how) };
            file.mapping.map(FileIndex(0), Pages(LEN), mode).expect("it can be mapped")
        };
        let reader = map(Sharing::Shared, Access::Read);
        let private = map(Sharing::Private, Access::Write);
        let copied = [3, 514, 515];
        for page in copied {
            private.vma().write(page * PAGE, &[0xfe]).expect("it can be stored to");
        }
        let all = |file| {
            check(file, &reader, &[]);
            check(file, &private, &copied);
        };
        all(file);
        let large = file.mapping.stats().faults(Order::Pmd);
        assert!(large > 0, "there is a block of 2 MiB");
        let blocks = file.blocks();

        for walk in [clear_marks, lock_everything, || ()] {
            walk();
            show_everything(&reader);
            all(file);
        }
        assert_eq!(file.blocks(), blocks, "no hole was filled");

        // Stores still reach the file, and the pages can still be taken away.
        let writer = file.mapping.map(FileIndex(0), Pages(513), mode(Access::Write, how));
        let writer = writer.expect("it can be mapped");
        clear_marks();
        writer.vma().write(7 * PAGE, &[0x77]).expect("it can be stored to");
        assert_eq!(file.byte_of_block(512 + 7), 0x77);
        file.punch(range(0, 514), Wait::Never).expect("nothing is counted by the host");
        let mut gone = [1];
        reader.vma().read(7 * PAGE, &mut gone).expect("a hole is zeros");
        assert_eq!(gone, [0]);
    });
}

#[test]
fn a_lazy_mapping_is_filled_by_who_locks_it_in_memory() {
    let _alone = alone();
    let Some(file) = TestFile::lazy(2048, &pages()) else { return };
    let mapped = file.mapping.map(FileIndex(0), Pages(520), mode(Access::Read, Populate::Lazy));
    let mapped = mapped.expect("it can be mapped");

    let locked = mlockall(MlockAllFlags::CURRENT).map_err(std::io::Error::from);
    if let Err(error) = locked {
        return skipped("mlockall", &error);
    }
    munlockall().expect("what can be locked can be unlocked");

    let stats = file.mapping.stats();
    assert_eq!((stats.faults(Order::Pmd), stats.failures), (1, 0), "{stats:?}");
    assert!(mapped.vma().write(519 * PAGE, &[1]).is_err(), "it is for reading");
    file.truncate(0, Wait::Never).expect("nobody counts a page");
    drop(mapped);
    file.verify();
}

/// F-32: a copy into or out of a mapping goes on where a signal stopped it, and a fault that a signal
/// interrupts is asked for once more. The process is stopped and continued all the time.
#[test]
fn copies_that_signals_interrupt_go_on_where_they_were() {
    let _alone = alone();
    // Not aligned, so that a touch brings in little.
    let pages: Vec<Option<u64>> = (1..1200).map(Some).chain([None; 48]).collect();
    let Some(file) = TestFile::lazy(2048, &pages) else { return };
    let signals = "for i in $(seq 300); do kill -STOP $0; kill -CONT $0; done";
    let process = std::process::id().to_string();
    let child = std::process::Command::new("sh").args(["-c", signals, &process]).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return skipped("signals", &error),
    };
    let len = u64::try_from(pages.len()).expect("short");
    let mut round = 0_u8;
    while child.try_wait().expect("it is a child").is_none() {
        round = round % 200 + 1;
        let map = |access| {
            let mapped = file.mapping.map(FileIndex(0), Pages(len), mode(access, Populate::Lazy));
            mapped.expect("it can be mapped")
        };
        let (writer, reader) = (map(Access::Write), map(Access::Read));
        let mut bytes = vec![round; usize::try_from(len * PAGE).expect("short")];
        writer.vma().write(0, &bytes).expect("all of it is in the file");
        bytes.fill(0);
        reader.vma().read(0, &mut bytes).expect("all of it is in the file");
        assert!(bytes.iter().all(|&found| found == round), "what was written");
        drop((writer, reader));
        let all = file.mapping.break_layout(range(0, len), Wait::Never);
        drop(all.expect("nobody pins a page"));
    }
    assert!(round > 0 && file.mapping.stats().failures == 0);
    file.verify();
}
