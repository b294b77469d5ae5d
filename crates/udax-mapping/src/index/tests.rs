//! Entry locks: who gets them, who waits, and what is left of an entry that is cut.

use super::{Block, Conflict, Entry, Index};
use std::ops::Range;
use std::thread;
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::{FileIndex, MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff};

fn entry(is_dirty: bool) -> Entry {
    let media = Arc::new(FileMedia::memfd("index", Pages(1).bytes()).expect("a page of memory"));
    let range = MediaRange { media, start: 0, pages: Pages(1) };
    let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).expect("one page");
    Entry { pgmap, first: PgmapOff(1024), is_dirty }
}

fn insert(index: &Index, at: u64, order: Order, entry: Entry) {
    let block = index.lock(FileIndex(at), order).expect("nothing is in the way");
    index.update(block.head, |slot| *slot = Some(entry));
    index.unlock(block.head);
}

fn lock(index: &Index, at: u64) -> Block {
    index.lock_page(FileIndex(at))
}

/// The entries, as (head, pages, pgmap offset, dirty).
fn entries(index: &Index) -> Vec<(u64, u64, u64, bool)> {
    let of = |block: &Block| {
        let entry = block.entry.as_ref().expect("nothing is locked");
        (block.head.0, block.order.pages().0, entry.first.0, entry.is_dirty)
    };
    index.blocks().iter().map(of).collect()
}

fn wait_for_waiters(index: &Index, count: usize) {
    while index.state.lock().waiters < count {
        thread::yield_now();
    }
}

fn range(from: u64, to: u64) -> Range<FileIndex> {
    FileIndex(from)..FileIndex(to)
}

#[test]
fn a_block_over_smaller_entries_is_a_conflict_even_if_they_are_locked() {
    for at in [512, 600, 1023] {
        let index = Index::default();
        let locked = lock(&index, at);

        let block = index.lock(FileIndex(600), Order::Pmd).map(|block| block.head);

        assert_eq!(block, Err(Conflict), "I-31: page {at}");
        index.unlock(locked.head);
    }
}

#[test]
fn entries_beside_a_block_do_not_conflict() {
    let index = Index::default();
    let beside = [lock(&index, 511), lock(&index, 1024)];

    let block = index.lock(FileIndex(600), Order::Pmd).unwrap();

    assert_eq!(block.range(), range(512, 1024));
    index.unlock(block.head);
    for block in beside {
        index.unlock(block.head);
    }
}

#[test]
fn a_page_under_a_larger_entry_is_served_by_it() {
    let index = Index::default();
    insert(&index, 512, Order::Pmd, entry(false));

    let block = lock(&index, 1000);

    assert_eq!((block.head, block.order), (FileIndex(512), Order::Pmd));
    index.unlock(block.head);
}

#[test]
fn a_block_that_stays_empty_is_forgotten() {
    let index = Index::default();
    let block = lock(&index, 3);

    index.unlock(block.head);

    assert_eq!(entries(&index), [], "I-28");
}

#[test]
fn every_waiter_gets_the_lock_in_its_turn() {
    let index = Index::default();
    insert(&index, 0, Order::Pmd, entry(false));
    let held = lock(&index, 0);

    thread::scope(|scope| {
        for at in [0, 5, 511] {
            let index = &index;
            scope.spawn(move || {
                let block = lock(index, at);
                index.unlock(block.head);
            });
        }
        wait_for_waiters(&index, 3);
        index.unlock(held.head);
    });

    assert_eq!(index.first_locked(), None, "I-24, I-25");
}

#[test]
fn every_waiter_of_a_block_that_shrinks_finds_its_own_page() {
    let index = Index::default();
    let block = index.lock(FileIndex(0), Order::Pmd).unwrap();

    thread::scope(|scope| {
        let waiters = [7, 300].map(|at| {
            let index = &index;
            scope.spawn(move || lock(index, at).range())
        });
        wait_for_waiters(&index, 2);

        let page = index.shrink(block.head, FileIndex(3));

        assert_eq!(page.range(), range(3, 4));
        // Each keeps its lock, so neither wakes the other.
        let locked = waiters.map(|waiter| waiter.join().unwrap());
        assert_eq!(locked, [range(7, 8), range(300, 301)], "B-16");
    });
}

#[test]
fn a_waiter_of_a_forgotten_block_takes_its_place() {
    let index = Index::default();
    let block = index.lock(FileIndex(0), Order::Pmd).unwrap();

    thread::scope(|scope| {
        let waiter = scope.spawn(|| lock(&index, 7).range());
        wait_for_waiters(&index, 1);

        index.unlock(block.head);

        assert_eq!(waiter.join().unwrap(), range(7, 8), "B-14");
    });
}

#[test]
fn a_scan_waits_for_a_locked_entry_and_does_not_skip_it() {
    let index = Index::default();
    insert(&index, 4, Order::Base, entry(true));
    insert(&index, 9, Order::Base, entry(true));
    let held = lock(&index, 4);

    thread::scope(|scope| {
        let scan = || index.lock_next(FileIndex(0), FileIndex(20), |entry| entry.is_dirty);
        let found = scope.spawn(scan);
        wait_for_waiters(&index, 1);

        index.unlock(held.head);

        assert_eq!(found.join().unwrap().map(|block| block.head), Some(FileIndex(4)), "I-27");
    });
}

#[test]
fn a_scan_finds_the_entry_that_covers_its_start_and_stops_at_its_end() {
    let index = Index::default();
    insert(&index, 0, Order::Pmd, entry(true));
    insert(&index, 600, Order::Base, entry(true));
    insert(&index, 601, Order::Base, entry(false));
    let next = |from, to| {
        let found = index.lock_next(FileIndex(from), FileIndex(to), |entry| entry.is_dirty);
        found.map(|block| {
            index.unlock(block.head);
            block.head.0
        })
    };

    assert_eq!(next(100, 200), Some(0));
    assert_eq!(next(512, 600), None);
    assert_eq!(next(512, 601), Some(600));
    assert_eq!(next(601, 900), None);
}

#[test]
fn a_removal_takes_the_entries_of_its_range() {
    let index = Index::default();
    for at in [3, 4, 5, 6] {
        insert(&index, at, Order::Base, entry(true));
    }

    index.remove(&range(4, 6));

    assert_eq!(entries(&index), [(3, 1, 1024, true), (6, 1, 1024, true)]);
}

#[test]
fn a_clean_entry_that_is_cut_goes_as_a_whole() {
    let index = Index::default();
    insert(&index, 512, Order::Pmd, entry(false));

    index.remove(&range(1000, 2000));

    assert_eq!(entries(&index), []);
}

#[test]
fn a_dirty_entry_that_is_cut_leaves_its_dirty_pages() {
    let index = Index::default();
    insert(&index, 512, Order::Pmd, entry(true));

    index.remove(&range(514, u64::MAX));

    assert_eq!(entries(&index), [(512, 1, 1024, true), (513, 1, 1025, true)]);
}

#[test]
fn an_empty_range_removes_nothing() {
    let index = Index::default();
    insert(&index, 512, Order::Pmd, entry(false));

    index.remove(&range(600, 600));

    assert_eq!(entries(&index), [(512, 512, 1024, false)]);
}
