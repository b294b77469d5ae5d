//! Entry locks: who gets them, who waits, and what is left of an entry that is cut.

use super::{Block, Conflict, Entry, Index, Place};
use std::ops::Range;
use std::thread;
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::{FileIndex, MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff};

/// A page map of one page. Where entries say that folios lie is nobody's business here.
fn pgmap() -> Pgmap {
    let media = Arc::new(FileMedia::memfd("index", Pages(1).bytes()).expect("a page of memory"));
    let range = MediaRange { media, start: 0, pages: Pages(1) };
    Pgmap::new(vec![range], MemoryType::FsDax).expect("one page")
}

fn insert(index: &Index, at: u64, order: Order, is_dirty: bool) {
    let block = index.lock(FileIndex(at), order).expect("nothing is in the way");
    let (first, is_shared) = (PgmapOff(1024), false);
    index.insert(block.head, &Place { pgmap: pgmap(), first, is_dirty, is_shared });
    index.unlock(block.head);
}

fn insert_zero(index: &Index, at: u64, order: Order) {
    let block = index.lock(FileIndex(at), order).expect("nothing is in the way");
    index.insert_zero(block.head);
    index.unlock(block.head);
}

fn lock(index: &Index, at: u64) -> Block {
    index.lock_page(FileIndex(at))
}

/// The entries, as (head, pages, pgmap offset, dirty). A hole has no offset.
fn entries(index: &Index) -> Vec<(u64, u64, Option<u64>, bool)> {
    let of = |block: &Block| {
        let place = block.place();
        let first = place.map(|place| place.first.0);
        let is_dirty = place.is_some_and(|place| place.is_dirty);
        assert!(block.entry.is_some(), "nothing is locked");
        (block.head.0, block.order.pages().0, first, is_dirty)
    };
    index.blocks().iter().map(of).collect()
}

fn wait_for_waiters(index: &Index, count: usize) {
    while index.state.lock().waiters.len() < count {
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
    insert(&index, 512, Order::Pmd, false);

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
    insert(&index, 0, Order::Pmd, false);
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

    assert!(!index.is_locked(), "I-24, I-25");
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

        let page = index.shrink(block.head, FileIndex(3), Order::Base);

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
    insert(&index, 4, Order::Base, true);
    insert(&index, 9, Order::Base, true);
    let held = lock(&index, 4);

    thread::scope(|scope| {
        let scan = || index.lock_dirty(&range(0, 20));
        let found = scope.spawn(scan);
        wait_for_waiters(&index, 1);

        index.unlock(held.head);

        assert_eq!(found.join().unwrap().map(|block| block.head), Some(FileIndex(4)), "I-27");
    });
}

#[test]
fn a_scan_finds_the_entry_that_covers_its_start_and_stops_at_its_end() {
    let index = Index::default();
    insert(&index, 0, Order::Pmd, true);
    insert(&index, 600, Order::Base, true);
    insert(&index, 601, Order::Base, false);
    let next = |from, to| {
        let found = index.lock_dirty(&range(from, to));
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
        insert(&index, at, Order::Base, true);
    }

    index.remove(&range(4, 6));

    assert_eq!(entries(&index), [(3, 1, Some(1024), true), (6, 1, Some(1024), true)]);
}

#[test]
fn a_clean_entry_that_is_cut_goes_as_a_whole() {
    let index = Index::default();
    insert(&index, 512, Order::Pmd, false);

    index.remove(&range(1000, 2000));

    assert_eq!(entries(&index), []);
}

#[test]
fn a_dirty_entry_that_is_cut_leaves_its_dirty_pages() {
    let index = Index::default();
    insert(&index, 512, Order::Pmd, true);

    index.remove(&range(514, u64::MAX));

    assert_eq!(entries(&index), [(512, 1, Some(1024), true), (513, 1, Some(1025), true)]);
}

#[test]
fn an_empty_range_removes_nothing() {
    let index = Index::default();
    insert(&index, 512, Order::Pmd, false);

    index.remove(&range(600, 600));

    assert_eq!(entries(&index), [(512, 512, Some(1024), false)]);
}

#[test]
fn a_dirty_gibibyte_that_is_cut_leaves_blocks_as_large_as_fit() {
    let index = Index::default();
    insert(&index, 1 << 18, Order::Pud, true);

    index.remove(&range((1 << 18) + 513, u64::MAX));

    let first = 1 << 18;
    let left = [(first, 512, Some(1024), true), (first + 512, 1, Some(1536), true)];
    assert_eq!(entries(&index), left);
}

#[test]
fn an_unlock_hands_the_lock_to_the_first_that_waits() {
    let index = Index::default();
    insert(&index, 4, Order::Base, false);
    let held = lock(&index, 4);

    thread::scope(|scope| {
        let first = scope.spawn(|| lock(&index, 4).head);
        wait_for_waiters(&index, 1);

        index.unlock(held.head);

        // Nobody can come between: it is locked before the waiter has woken.
        assert!(index.try_lock(FileIndex(4), Order::Base).is_none(), "I-25");
        assert_eq!(first.join().unwrap(), FileIndex(4));
        index.unlock(FileIndex(4));
        assert!(!index.is_locked());
    });
}

#[test]
fn who_only_looks_is_not_handed_the_lock() {
    let index = Index::default();
    insert(&index, 4, Order::Base, false);
    let held = lock(&index, 4);

    thread::scope(|scope| {
        let looker = scope.spawn(|| index.settle(&range(0, 100)));
        wait_for_waiters(&index, 1);
        let owner = scope.spawn(|| lock(&index, 4).head);
        wait_for_waiters(&index, 2);

        index.unlock(held.head);

        looker.join().unwrap();
        assert_eq!(owner.join().unwrap(), FileIndex(4), "I-26");
        index.unlock(FileIndex(4));
    });
}

#[test]
fn settling_waits_for_nobody_who_came_later() {
    let index = Index::default();
    insert(&index, 4, Order::Base, false);
    insert(&index, 9, Order::Base, false);

    index.settle(&range(0, 100));

    let _late = lock(&index, 4);
    index.settle(&range(5, 100));
}

#[test]
fn a_hole_becomes_a_folio_and_never_the_other_way_round() {
    let index = Index::default();
    insert_zero(&index, 512, Order::Pmd);
    assert_eq!(entries(&index), [(512, 512, None, false)]);

    insert(&index, 512, Order::Pmd, true);

    assert_eq!(entries(&index), [(512, 512, Some(1024), true)], "I-30");
}

#[test]
fn a_page_under_a_hole_of_2_mib_downgrades_it() {
    let index = Index::default();
    insert_zero(&index, 512, Order::Pmd);
    let block = lock(&index, 700);
    assert_eq!((block.order, matches!(block.entry, Some(Entry::Zero))), (Order::Pmd, true));

    let page = index.shrink(block.head, FileIndex(700), Order::Base);
    index.insert_zero(page.head);
    index.unlock(page.head);

    assert_eq!(entries(&index), [(700, 1, None, false)], "F-20");
}

#[test]
fn forgetting_holes_spares_data_and_what_is_locked() {
    let index = Index::default();
    insert_zero(&index, 3, Order::Base);
    insert_zero(&index, 5, Order::Base);
    insert(&index, 4, Order::Base, false);
    let held = lock(&index, 5);

    index.remove_zeros(&range(0, 10));

    index.unlock(held.head);
    assert_eq!(entries(&index), [(4, 1, Some(1024), false), (5, 1, None, false)]);
}

#[test]
fn a_writeback_meets_what_was_dirty_when_it_began() {
    let index = Index::default();
    insert(&index, 1, Order::Base, true);
    insert(&index, 512, Order::Pmd, true);
    index.tag(&range(0, u64::MAX));
    insert(&index, 2, Order::Base, true);

    let mut met = Vec::new();
    while let Some(block) = index.lock_tagged(&range(0, u64::MAX)) {
        index.untag(block.head);
        index.unlock(block.head);
        met.push(block.head.0);
    }

    assert_eq!(met, [1, 512]);
}

/// The entries that a writeback has tagged, as their heads.
fn tagged(index: &Index) -> Vec<u64> {
    let mut heads = Vec::new();
    while let Some(block) = index.lock_tagged(&range(0, u64::MAX)) {
        heads.push(block.head.0);
        index.untag(block.head);
        index.unlock(block.head);
    }
    heads
}

#[test]
fn a_divided_entry_leaves_its_good_pages_dirty_and_tagged() {
    let index = Index::default();
    insert(&index, 512, Order::Pmd, true);
    index.tag(&range(0, u64::MAX));
    let head = lock(&index, 515).head;

    let block = index.divide(head, FileIndex(515), &[FileIndex(513), FileIndex(515)]);

    assert!(block.entry.is_none() && block.head == FileIndex(515));
    index.unlock(block.head);
    let left = entries(&index);
    assert_eq!(left.len(), 510);
    assert_eq!(left[..2], [(512, 1, Some(1024), true), (514, 1, Some(1026), true)]);
    assert_eq!(tagged(&index).len(), 510, "I-43: the writeback that runs flushes them");
}

#[test]
fn a_clean_entry_that_is_divided_leaves_nothing() {
    let index = Index::default();
    insert(&index, 512, Order::Pmd, false);
    let head = lock(&index, 600).head;

    let block = index.divide(head, FileIndex(600), &[FileIndex(513)]);

    index.unlock(block.head);
    assert_eq!(entries(&index), []);
}

#[test]
fn the_page_that_a_divided_entry_was_locked_for_stays_locked_with_its_stores() {
    let index = Index::default();
    insert(&index, 512, Order::Pmd, true);
    let head = lock(&index, 600).head;

    let block = index.divide(head, FileIndex(600), &[FileIndex(513)]);

    let place = block.place().expect("it is good").clone();
    assert_eq!((block.head, place.first, place.is_dirty), (FileIndex(600), PgmapOff(1112), true));
    assert!(index.try_lock(FileIndex(600), Order::Base).is_none());
    index.unlock(block.head);
    assert_eq!(entries(&index).len(), 511);
}

#[test]
fn a_dirty_entry_that_is_cut_stays_tagged() {
    let index = Index::default();
    insert(&index, 512, Order::Pmd, true);
    index.tag(&range(0, u64::MAX));

    index.remove(&range(514, u64::MAX));

    assert_eq!(tagged(&index), [512, 513], "I-43");
}

/// A writeback that fails late may find that its file has become one that shares the data.
#[test]
fn what_is_shared_meanwhile_is_not_marked_dirty_again() {
    let index = Index::default();
    insert(&index, 3, Order::Base, false);
    let block = lock(&index, 4);
    let (first, is_shared) = (PgmapOff(7), true);
    index.insert(block.head, &Place { pgmap: pgmap(), first, is_dirty: false, is_shared });
    index.unlock(block.head);

    index.redirty(&[FileIndex(3), FileIndex(4), FileIndex(5)]);

    assert_eq!(entries(&index), [(3, 1, Some(1024), true), (4, 1, Some(7), false)], "I-36");
}

/// Who waits to lock an entry by folio gets what is there then, not what was.
#[test]
fn an_existing_entry_is_waited_for_and_not_made() {
    let index = Arc::new(Index::default());
    assert!(index.lock_existing(FileIndex(3)).is_none());
    lock(&index, 3);
    let waiter = thread::spawn({
        let index = Arc::clone(&index);
        move || index.lock_existing(FileIndex(3)).map(|block| index.unlock(block.head)).is_some()
    });
    wait_for_waiters(&index, 1);

    index.unlock(FileIndex(3));

    assert!(!waiter.join().unwrap(), "I-28: the empty one is gone");
    assert_eq!(entries(&index), []);
}

/// Until the owner was told of all of them.
#[test]
fn stores_are_known_until_every_entry_that_may_have_them_was_looked_at() {
    let index = Index::default();
    assert!(!index.take_stores(&range(0, u64::MAX)));
    for at in [3, 1024] {
        insert(&index, at, Order::Base, false);
        let block = lock(&index, at);
        index.set_dirty(block.head, true);
        index.unlock(block.head);
    }

    assert!(index.take_stores(&range(0, 1024)), "told of, and kept: an entry lies behind");
    assert!(index.take_stores(&range(4, u64::MAX)), "one lies before");
    assert!(index.take_stores(&range(3, 1025)));
    assert!(!index.has_stores());

    let block = lock(&index, 3);
    index.set_dirty(block.head, false);
    index.unlock(block.head);
    assert!(!index.has_stores(), "what becomes clean was not stored to");
    index.note_stores();
    assert!(index.take_stores(&range(0, u64::MAX)));
}
