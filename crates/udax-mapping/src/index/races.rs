//! The races of entry locks, in every order that threads can take. Run with `cargo xtask loom`.
//!
//! A block has four pages here. What a fault asks the owner, and what it shows, are flags.

use super::{Block, Entry, Index, Place};
use loom::model;
use std::ops::Range;
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use udax_mm::sync::thread::{JoinHandle, spawn};
use udax_mm::{FileIndex, MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff};

const ALL: Range<FileIndex> = FileIndex(0)..FileIndex(100);

fn index() -> Arc<Index> {
    Arc::new(Index::default())
}

fn with<T: 'static>(index: &Arc<Index>, run: impl FnOnce(&Index) -> T + 'static) -> JoinHandle<T> {
    let index = Arc::clone(index);
    spawn(move || run(&index))
}

fn join<const N: usize>(threads: [JoinHandle<()>; N]) {
    for thread in threads {
        thread.join().expect("a panic ends the execution");
    }
}

/// Gives a locked block a folio.
fn fill(index: &Index, block: &Block, is_dirty: bool) {
    let media = Arc::new(FileMedia::memfd("index", Pages(1).bytes()).expect("a page of memory"));
    let range = MediaRange { media, start: 0, pages: Pages(1) };
    let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).expect("one page");
    let place = Place { pgmap, first: PgmapOff(0), is_dirty, is_shared: false };
    index.insert(block.head, &place);
}

fn dirty(index: &Index, at: u64) {
    let block = index.lock_page(FileIndex(at));
    fill(index, &block, true);
    index.unlock(block.head);
}

/// Locks and unlocks the entry that covers a page.
fn visit(index: &Index, at: u64) {
    let block = index.lock_page(FileIndex(at));
    index.unlock(block.head);
}

/// Locks and unlocks the entry that covers a page if there is one, and tells its pages.
fn find(index: &Index, at: u64) -> Option<Range<FileIndex>> {
    let block = index.lock_existing(FileIndex(at))?;
    index.unlock(block.head);
    Some(block.range())
}

/// The dirty entries that a walk over the file meets.
fn walk(index: &Index) -> Vec<u64> {
    let (mut at, mut met) = (ALL.start, Vec::new());
    while let Some(block) = index.lock_dirty(&(at..ALL.end)) {
        index.unlock(block.head);
        at = block.range().end;
        met.push(block.head.0);
    }
    met
}

/// B-05, I-27: whoever has the entry locked at the moment of the scan, it is not stepped over.
///
/// Kills: a scan that takes only what it can lock at once.
#[test]
fn a_scan_meets_an_entry_that_is_locked_when_it_comes_by() {
    model(|| {
        let index = index();
        dirty(&index, 4);
        let fault = with(&index, |index| visit(index, 4));

        let found = index.lock_dirty(&ALL);

        assert_eq!(found.map(|block| block.head), Some(FileIndex(4)));
        index.unlock(FileIndex(4));
        fault.join().unwrap();
        assert!(!index.is_locked());
    });
}

/// B-06, I-27: the entry that a walk had to wait for is met, and so is the one behind it.
///
/// Kills: a walk that goes on behind what it has waited for.
#[test]
fn a_walk_does_not_skip_the_entry_that_it_waited_for() {
    model(|| {
        let index = index();
        dirty(&index, 4);
        dirty(&index, 5);
        let faults = [4, 5].map(|at| with(&index, move |index| visit(index, at)));

        assert_eq!(walk(&index), [4, 5]);

        join(faults);
        assert!(!index.is_locked());
    });
}

/// B-11, I-22, I-31: a fault of a page and one of the block around it end with one of the two.
///
/// Kills: a block that is locked over the smaller entry.
#[test]
fn of_a_small_and_a_large_fault_of_one_block_one_makes_the_entry() {
    model(|| {
        let index = index();
        let small = with(&index, |index| {
            let block = index.lock_page(FileIndex(2));
            if block.entry.is_none() {
                fill(index, &block, false);
            }
            index.unlock(block.head);
        });

        if let Ok(block) = index.lock(FileIndex(1), Order::Pmd) {
            assert!(block.entry.is_none(), "nobody else makes one of this size");
            fill(&index, &block, false);
            index.unlock(block.head);
        }

        small.join().unwrap();
        let blocks = index.blocks();
        assert_eq!(blocks.len(), 1, "{blocks:?}");
        assert_eq!(Pages(blocks[0].order.pages().0), index.pages());
        assert!(!index.is_locked());
    });
}

/// B-12, I-44: no zeros are left of a fault that asked before the data was allocated.
///
/// Kills: a settling that spares entries in which nothing is yet.
#[test]
fn a_fault_that_saw_a_hole_leaves_no_zeros_behind_an_allocation() {
    model(|| {
        let index = index();
        let is_data = Arc::new(AtomicBool::new(false));
        let fault = with(&index, {
            let is_data = Arc::clone(&is_data);
            move |index| {
                let block = index.lock_page(FileIndex(2));
                if !is_data.load(Ordering::Acquire) {
                    index.insert_zero(block.head);
                }
                index.unlock(block.head);
            }
        });

        is_data.store(true, Ordering::Release);
        index.settle(&ALL);
        index.remove_zeros(&ALL);

        fault.join().unwrap();
        let is_zero = |block: &Block| matches!(block.entry, Some(Entry::Zero));
        assert!(!index.blocks().iter().any(is_zero));
    });
}

/// B-14, I-25: who waits for a block at any of its pages is woken when it stays.
///
/// Kills: waiting under the number of the page and not of the block; waking nobody.
#[test]
fn a_waiter_at_any_page_of_a_block_is_woken() {
    model(|| {
        let index = index();
        let block = index.lock(FileIndex(0), Order::Pmd).unwrap();
        let waiters = [1, 3].map(|at| with(&index, move |index| visit(index, at)));

        fill(&index, &block, false);
        index.unlock(block.head);

        join(waiters);
        assert!(!index.is_locked());
    });
}

/// B-16, I-25: when a block goes every waiter is woken, and gets an entry of its own.
///
/// Kills: waking one of them, or none.
#[test]
fn every_waiter_of_a_block_that_goes_is_woken() {
    model(|| {
        let index = index();
        let block = index.lock(FileIndex(0), Order::Pmd).unwrap();
        let lock = |index: &Index, at| index.lock_page(FileIndex(at)).range();
        let waiters = [1, 3].map(|at| with(&index, move |index| lock(index, at)));

        index.unlock(block.head);

        // Each keeps its lock, so neither wakes the other.
        let locked = waiters.map(|waiter| waiter.join().unwrap());
        assert_eq!(locked, [1, 3].map(|at| FileIndex(at)..FileIndex(at + 1)));
    });
}

/// B-16, the other way that a block goes: it is exchanged for one of its pages.
///
/// Kills: a shrink that wakes nobody.
#[test]
fn every_waiter_of_a_block_that_shrinks_is_woken() {
    model(|| {
        let index = index();
        let block = index.lock(FileIndex(0), Order::Pmd).unwrap();
        let waiters = [1, 3].map(|at| with(&index, move |index| visit(index, at)));

        let page = index.shrink(block.head, FileIndex(1), Order::Base);
        fill(&index, &page, false);
        index.unlock(page.head);

        join(waiters);
        assert_eq!(index.blocks().len(), 1, "what stayed empty is forgotten");
        assert!(!index.is_locked());
    });
}

/// B-17, I-26: who locks by folio waits for the owner of the block, and gets what is there then.
///
/// Kills: a wait that ends with the block that went; one that nobody ends.
#[test]
fn who_locks_by_folio_gets_what_the_block_has_become() {
    model(|| {
        let index = index();
        let block = index.lock(FileIndex(0), Order::Pmd).unwrap();
        let finders = [1, 3].map(|at| with(&index, move |index| find(index, at)));

        let page = index.shrink(block.head, FileIndex(1), Order::Base);
        fill(&index, &page, true);
        index.unlock(page.head);

        let found = finders.map(|finder| finder.join().unwrap());
        assert_eq!(found, [Some(FileIndex(1)..FileIndex(2)), None]);
        assert!(!index.is_locked());
    });
}

/// F-19, B-17: failed memory takes a block apart while one thread waits for it by folio and one by
/// index.
///
/// Kills: a division that wakes nobody.
#[test]
fn every_waiter_of_a_block_that_is_divided_is_woken() {
    model(|| {
        let index = index();
        let block = index.lock(FileIndex(0), Order::Pmd).unwrap();
        fill(&index, &block, true);
        let finder = with(&index, |index| find(index, 2));
        let fault = with(&index, |index| visit(index, 3));

        let page = index.divide(block.head, FileIndex(1), &[FileIndex(2)]);
        index.unlock(page.head);

        assert_eq!(finder.join().unwrap(), None, "that page has failed");
        fault.join().unwrap();
        assert_eq!(index.pages(), Pages(3), "the good pages stay dirty");
        assert!(!index.is_locked());
    });
}

/// F-19: a lock by folio makes no entry, and takes none from a fault that has it for a moment only.
///
/// Kills: a look for an entry that leaves an empty one behind.
#[test]
fn a_lock_by_folio_beside_a_fault_that_shows_nothing_leaves_no_entry() {
    model(|| {
        let index = index();
        let finder = with(&index, |index| find(index, 3));
        let fault = with(&index, |index| visit(index, 3));

        if let Ok(block) = index.lock(FileIndex(0), Order::Pmd) {
            index.unlock(block.head);
        }

        fault.join().unwrap();
        finder.join().unwrap();
        assert_eq!(index.pages(), Pages(0), "I-28");
        assert!(!index.is_locked());
    });
}

/// What a locked block may become while others wait for it.
#[derive(Clone, Copy, Debug)]
enum Becomes {
    Nothing,
    ItsPage,
    Data,
}

/// F-19, B-14, B-16: one who waits for a whole block, beside one who waits for a page of it.
///
/// Kills: a wait for a block that only the unlock of a page ends; waking one of the two.
#[test]
fn waiters_for_the_block_and_for_a_page_of_it_are_all_woken() {
    for becomes in [Becomes::Nothing, Becomes::ItsPage, Becomes::Data] {
        model(move || {
            let index = index();
            let block = index.lock(FileIndex(0), Order::Pmd).unwrap();
            let whole = with(&index, |index| {
                let block = index.lock(FileIndex(1), Order::Pmd).ok()?;
                index.unlock(block.head);
                Some(block.order)
            });
            let page = with(&index, |index| visit(index, 3));

            let mut head = block.head;
            match becomes {
                Becomes::Nothing => {}
                Becomes::ItsPage => {
                    let page = index.shrink(head, FileIndex(2), Order::Base);
                    fill(&index, &page, true);
                    head = page.head;
                }
                Becomes::Data => fill(&index, &block, true),
            }
            index.unlock(head);

            page.join().unwrap();
            let whole = whole.join().unwrap();
            match becomes {
                // Nobody else may have a page of it at that moment.
                Becomes::Nothing => assert!(matches!(whole, None | Some(Order::Pmd))),
                Becomes::ItsPage => assert_eq!(whole, None, "I-31"),
                Becomes::Data => assert_eq!(whole, Some(Order::Pmd)),
            }
            assert!(!index.is_locked());
        });
    }
}

/// I-24, I-25: an unlock makes one of those who wait the owner.
///
/// Kills: handing the lock to all of them; unlocking what was handed on.
#[test]
fn one_thread_at_a_time_has_an_entry_locked() {
    model(|| {
        let index = index();
        dirty(&index, 4);
        let inside = Arc::new(AtomicU64::new(0));
        let enter = |index: &Index, inside: &AtomicU64| {
            let block = index.lock_page(FileIndex(4));
            assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "I-23");
            inside.fetch_sub(1, Ordering::Relaxed);
            index.unlock(block.head);
        };
        let others = [(); 2].map(|()| {
            let inside = Arc::clone(&inside);
            with(&index, move |index| enter(index, &inside))
        });

        enter(&index, &inside);

        join(others);
        assert!(!index.is_locked());
    });
}

/// I-26: who only looks is not handed the lock, and does not keep it from those who are.
///
/// Kills: counting a look as a turn.
#[test]
fn a_look_between_two_owners_loses_nothing() {
    model(|| {
        let index = index();
        dirty(&index, 4);
        let held = index.lock_page(FileIndex(4));
        let looker = with(&index, |index| index.settle(&ALL));
        let owner = with(&index, |index| visit(index, 4));

        index.unlock(held.head);

        looker.join().unwrap();
        owner.join().unwrap();
        assert!(!index.is_locked());
    });
}

/// The next block of a run is taken only if nobody has it or waits for it.
///
/// Kills: trying that takes what is locked.
#[test]
fn who_tries_does_not_come_between_an_owner_and_the_next() {
    model(|| {
        let index = index();
        dirty(&index, 4);
        let owner = with(&index, |index| visit(index, 4));
        let tries = with(&index, |index| {
            if let Some(block) = index.try_lock(FileIndex(4), Order::Base) {
                index.unlock(block.head);
            }
        });

        visit(&index, 4);

        owner.join().unwrap();
        tries.join().unwrap();
        assert!(!index.is_locked());
    });
}
