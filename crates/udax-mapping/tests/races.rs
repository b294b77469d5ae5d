//! Many threads that touch the same pages at once, through mappings that want them in other sizes
//! (F-24, B-11, B-13). What they find afterwards is checked, and `verify` after each round. More
//! rounds: `cargo xtask stress faults`.

mod common;

use common::{PAGE, TestFile, info, mode, range};
use std::env;
use std::thread::{self, yield_now};
use udax_mapping::{Fallback, MapMode, Populate, Sharing, UserMapping};
use udax_mm::sync::Arc;
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::{Access, FileIndex, Order, Pages, PinKind, Vma, Wait};

const THREADS: u64 = 4;
/// A block of data, a block of a hole, and some pages of a hole that get data.
const DATA: u64 = 0;
const HOLE: u64 = 512;
const FILLED: u64 = 1024;
const END: u64 = FILLED + 8;

/// How many rounds: `UDAX_STEPS`, or a few.
fn rounds() -> u64 {
    env::var("UDAX_STEPS").map_or(400, |steps| steps.parse().expect("UDAX_STEPS is a number"))
}

/// A file of these, where the host permits lazy mappings.
fn file() -> Option<Arc<TestFile>> {
    let mut pages = vec![None; usize::try_from(END).expect("short")];
    for (page, block) in pages.iter_mut().zip(512..1024) {
        *page = Some(block);
    }
    TestFile::lazy(2048, &pages)
}

fn map(file: &TestFile, from: u64, pages: u64, sharing: Sharing, access: Access) -> UserMapping {
    let mode = MapMode { sharing, ..mode(access, Populate::Lazy) };
    file.mapping.map(FileIndex(from), Pages(pages), mode).expect("the file can be mapped")
}

/// The byte of a thread in a page.
fn load(vma: &Vma, page: u64, worker: u64) -> u8 {
    let mut byte = [0];
    vma.read(page * PAGE + worker, &mut byte).expect("the page is there");
    byte[0]
}

fn store(vma: &Vma, page: u64, worker: u64, byte: u8) {
    vma.write(page * PAGE + worker, &[byte]).expect("the page is there");
}

/// Runs `touch` in all threads at the same time.
fn at_once(touch: impl Fn(u64) + Sync) {
    let ready = AtomicU64::new(0);
    thread::scope(|scope| {
        for worker in 0..THREADS {
            let (ready, touch) = (&ready, &touch);
            scope.spawn(move || {
                ready.fetch_add(1, Ordering::AcqRel);
                while ready.load(Ordering::Acquire) < THREADS {
                    yield_now();
                }
                touch(worker);
            });
        }
    });
}

/// Takes back every entry, and what was filled.
fn reset(file: &TestFile) {
    drop(file.mapping.break_layout(range(0, END), Wait::Never).expect("nobody pins a page"));
    file.punch(range(FILLED, END), Wait::Never).expect("nobody pins a page");
    assert_eq!(file.mapping.entry_pages(), Pages(0));
}

fn round_byte(round: u64) -> u8 {
    u8::try_from(round % 250 + 1).expect("a byte")
}

/// In one size: the block is one folio for all of them, and nobody takes a page of it apart.
#[test]
fn many_threads_can_fault_the_same_pages() {
    let Some(file) = file() else { return };
    for round in 0..rounds() {
        let (byte, before) = (round_byte(round), file.mapping.stats());
        let mapped = map(&file, 0, END, Sharing::Shared, Access::Write);
        at_once(|worker| {
            for page in (DATA..HOLE).step_by(73).chain(FILLED..END) {
                store(mapped.vma(), page, worker, byte);
            }
        });

        for page in (DATA..HOLE).step_by(73).chain(FILLED..END) {
            for worker in 0..THREADS {
                assert_eq!(load(mapped.vma(), page, worker), byte, "page {page}: a store is lost");
            }
        }
        let after = file.mapping.stats();
        let large = after.faults(Order::Pmd) - before.faults(Order::Pmd);
        assert!((1..=THREADS).contains(&large), "each thread faults for it once: {large}");
        let small = after.faults(Order::Base) - before.faults(Order::Base);
        assert!((8..=8 * THREADS).contains(&small), "only for what was filled: {small}");
        assert_eq!(file.mapping.entry_pages(), Pages(512 + 8), "one entry for each");
        file.verify();
        drop(mapped);
        reset(&file);
    }
}

/// In different sizes: 2 MiB of the block, and a few pages of it; zeros of 2 MiB, and a page of them that
/// is stored to; each page read first, or stored to at once.
#[test]
fn small_and_large_faults_of_one_block_race_and_nothing_is_lost() {
    let Some(file) = file() else { return };
    let (mut large, mut small) = (0, 0);
    for round in 0..rounds() {
        let byte = round_byte(round);
        let whole = map(&file, 0, END, Sharing::Shared, Access::Write);
        let part = map(&file, 8, 4, Sharing::Shared, Access::Write);
        let zeros = map(&file, 0, END, Sharing::Shared, Access::Read);
        let page_of_zeros = map(&file, HOLE + 3, 2, Sharing::Shared, Access::Read);
        at_once(|worker| {
            // By turns they come first.
            match (worker + round) % 4 {
                0 => store(part.vma(), 1, worker, byte),
                1 => store(whole.vma(), 9, worker, byte),
                2 => {
                    load(part.vma(), 1, worker);
                    store(part.vma(), 1, worker, byte);
                }
                _ => {
                    load(zeros.vma(), 9, worker);
                    store(whole.vma(), 9, worker, byte);
                }
            }
            if (worker + round).is_multiple_of(2) {
                assert_eq!(load(zeros.vma(), HOLE + 3, worker), 0);
                assert_eq!(load(page_of_zeros.vma(), 0, worker), 0);
            } else {
                assert_eq!(load(page_of_zeros.vma(), 0, worker), 0);
                assert_eq!(load(zeros.vma(), HOLE + 300, worker), 0);
            }
            load(zeros.vma(), FILLED, worker);
            store(whole.vma(), FILLED, worker, byte);
            assert_eq!(load(zeros.vma(), FILLED, worker), byte, "I-33, B-12");
        });

        for worker in 0..THREADS {
            for (vma, page) in [(&whole, 9), (&part, 1), (&zeros, 9)] {
                assert_eq!(load(vma.vma(), page, worker), byte, "round {round}: a store is lost");
            }
            assert_eq!(load(whole.vma(), FILLED, worker), byte);
        }
        assert_eq!(file.byte_of_block(512 + 9), byte, "it is in the file");
        assert_eq!(file.blocks()[usize::try_from(HOLE + 3).expect("short")], None, "still a hole");
        let pin = file.mapping.pin(range(9, 10), info("which size", PinKind::Read));
        match common::folios(&pin.expect("it is there"))[0].1 {
            Order::Base => small += 1,
            _ => large += 1,
        }
        file.verify();
        drop((whole, part, zeros, page_of_zeros));
        reset(&file);
    }
    assert_eq!(large + small, rounds(), "the first one decides");
}

/// B-11 was found in private mappings: stores to what they show, and to zeros, large and small.
#[test]
fn private_stores_race_with_faults_of_every_size_and_stay_private() {
    let Some(file) = file() else { return };
    file.fill_block(512 + 9, 0x55);
    for round in 0..rounds() {
        let byte = round_byte(round);
        let private = map(&file, 0, END, Sharing::Private, Access::Write);
        let part = map(&file, 8, 4, Sharing::Private, Access::Write);
        let shared = map(&file, 0, END, Sharing::Shared, Access::Read);
        at_once(|worker| {
            let (page, zero) = (9, HOLE + 3);
            match (worker + round) % 4 {
                0 => store(private.vma(), page, worker, byte),
                1 => store(part.vma(), 1, worker, byte),
                2 => assert_eq!(load(shared.vma(), page, worker), 0x55),
                // A read that is upgraded.
                _ => {
                    load(private.vma(), page, worker);
                    load(private.vma(), zero, worker);
                }
            }
            store(private.vma(), page, worker, byte);
            store(private.vma(), zero, worker, byte);
            store(part.vma(), 1, worker, byte);
            assert_eq!(load(shared.vma(), zero, worker), 0, "I-39");
            assert_eq!(load(private.vma(), HOLE + 200, worker), 0);
        });

        for worker in 0..THREADS {
            for (vma, page) in [(&private, 9), (&private, HOLE + 3), (&part, 1)] {
                assert_eq!(load(vma.vma(), page, worker), byte, "round {round}: a store is lost");
            }
            assert_eq!(load(shared.vma(), 9, worker), 0x55, "I-39");
        }
        assert_eq!(load(private.vma(), 9, THREADS), 0x55, "the rest of the page was copied");
        assert_eq!(load(private.vma(), 10, 0), 0);
        assert_eq!(file.byte_of_block(512 + 9), 0x55, "I-39");
        assert_eq!(file.blocks()[usize::try_from(HOLE + 3).expect("short")], None, "still a hole");
        file.verify();
        drop((private, part, shared));
        reset(&file);
    }
}

/// B-13: a fault at addresses that are not congruent to the file locks what its index says, and threads
/// that fault there and in a congruent mapping, on both sides of a border, all end.
#[test]
fn faults_at_congruent_and_other_addresses_race_and_all_end() {
    let Some(file) = TestFile::lazy(2048, &common::data(512, 1024)) else { return };
    for round in 0..rounds() {
        let byte = round_byte(round);
        // By the page that they start with: 2 MiB fit in the first one only.
        let mapped = [0, 1, 511, 5]
            .map(|from| map(&file, from, 1024 - from, Sharing::Shared, Access::Write));
        at_once(|worker| {
            let turn = usize::try_from((worker + round) % THREADS).expect("few");
            let border = [511, 512, 1000, 600];
            for step in 0..4 {
                let page = border[if worker % 2 == 0 { step } else { 3 - step }];
                let vma = &mapped[(turn + step) % mapped.len()];
                let at = page - vma.range().start.0;
                store(vma.vma(), at, worker, byte);
                assert_eq!(load(vma.vma(), at, worker), byte);
            }
        });
        for page in [511, 512, 1000, 600] {
            for worker in 0..THREADS {
                for vma in &mapped {
                    assert_eq!(load(vma.vma(), page - vma.range().start.0, worker), byte);
                }
            }
        }
        file.verify();
        drop(mapped);
        let all = file.mapping.break_layout(range(0, 1024), Wait::Never);
        drop(all.expect("nobody pins a page"));
    }
    let stats = file.mapping.stats();
    let kinds = [stats.fallbacks(Fallback::Colour), stats.faults(Order::Pmd)];
    assert!(kinds.iter().all(|&count| count > 0), "both kinds were there: {stats:?}");
}
