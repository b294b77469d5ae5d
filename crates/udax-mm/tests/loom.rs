//! The races of page words, live references, pins and limbo, in every order that threads can take.
//!
//! Run with `cargo xtask loom`. The page maps are tiny; what a race needs is two or three threads.

#![cfg(loom)]

#[path = "loom/folio_span.rs"]
mod folio_span;
#[path = "loom/interrupt.rs"]
mod interrupt;
#[path = "loom/limbo.rs"]
mod limbo;
mod support;
#[path = "loom/use_count.rs"]
mod use_count;

use loom::model;
use std::ops::Range;
use support::{Counter, info};
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::sync::thread::{JoinHandle, spawn};
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{
    DeviceMemory, Folio, FrozenFolio, IdleSpan, LimboSink, MediaRange, MemoryType, Order, Pages,
    Pgmap, PgmapOff, PgmapRef, RequestError, Wait,
};

const PAGE: PgmapOff = PgmapOff(0);
const NEXT: PgmapOff = PgmapOff(1);
/// The pages of a block, of which there are few under loom.
const PMD: u64 = Order::Pmd.pages().0;
const BLOCK: Range<PgmapOff> = PgmapOff(0)..PgmapOff(PMD);

/// Keeps what comes back.
#[derive(Default)]
struct Kept(Mutex<Vec<IdleSpan>>);

impl LimboSink for Kept {
    fn returned(&self, span: IdleSpan) {
        self.0.lock().push(span);
    }
}

fn pgmap_on(media: &Arc<Counter>, pages: u64) -> PgmapRef {
    let ranges = vec![MediaRange { media: media.clone(), start: 0, pages: Pages(pages) }];
    Pgmap::new(ranges, MemoryType::FsDax).unwrap().try_get_live().unwrap()
}

fn pgmap(pages: u64) -> PgmapRef {
    pgmap_on(&Arc::default(), pages)
}

fn request(pgmap: &PgmapRef, at: PgmapOff) -> Folio {
    pgmap.request_folio(at, Order::Base).unwrap()
}

fn page(at: PgmapOff) -> Range<PgmapOff> {
    at..PgmapOff(at.0 + 1)
}

fn with<T: 'static>(pgmap: &PgmapRef, run: impl FnOnce(PgmapRef) -> T + 'static) -> JoinHandle<T> {
    let pgmap = pgmap.clone();
    spawn(move || run(pgmap))
}

/// Writes to the word of each page, which nobody else may touch under a claimed block.
fn divided(block: IdleSpan) -> (IdleSpan, IdleSpan) {
    block.split(NEXT)
}

/// For tests that walk over all pages of a block.
fn long_model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = model::Builder::new();
    builder.max_branches = 100_000;
    builder.check(test);
}

#[track_caller]
fn verify(pgmap: &PgmapRef) {
    assert_eq!(pgmap.pgmap().verify(), Ok(()));
}

/// Rule 1: a page has one claim.
///
/// Kills: `claim` as a load and a store.
#[test]
fn one_of_two_claims_of_a_page_wins() {
    model(|| {
        let pgmap = pgmap(2);
        let claims = [(); 2].map(|()| with(&pgmap, |pgmap| pgmap.claim(page(PAGE))));

        let claims = claims.map(|claim| claim.join().unwrap());

        assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 1);
        drop(claims);
        verify(&pgmap);
        assert!(pgmap.claim(PAGE..PgmapOff(2)).is_ok());
    });
}

/// Rule 4: a block is raised before the page and lowered after it, so it is never claimed above a
/// page that is not idle yet.
///
/// Kills: raising the parent after the child; a raise that passes a block claimed as a whole.
#[test]
fn a_claim_of_a_block_and_a_request_of_a_page_in_it_exclude_each_other() {
    long_model(|| {
        let pgmap = pgmap(PMD);
        let block = with(&pgmap, |pgmap| pgmap.claim(BLOCK).map(divided));

        let folio = pgmap.request_folio(PAGE, Order::Base);

        let block = block.join().unwrap();
        assert!(folio.is_ok() != block.is_ok());
        assert_eq!(pgmap.claim(page(PAGE)).unwrap_err(), RequestError::Busy(PAGE));
    });
}

/// Rule 4, the other way.
///
/// Kills: lowering the parent before the child is idle.
#[test]
fn a_block_is_claimed_only_after_its_last_page_is_idle() {
    long_model(|| {
        let pgmap = pgmap(PMD);
        let folio = request(&pgmap, PAGE);
        let put = spawn(move || drop(folio));

        let block = pgmap.claim(BLOCK).map(divided);

        put.join().unwrap();
        assert_eq!(pgmap.claim(page(PAGE)).is_ok(), block.is_err());
    });
}

/// Rule 4: while the last page of a block is put, another page of it can be requested.
///
/// Kills: a grandparent lowered for a parent that was raised again.
#[test]
fn a_block_counts_its_busy_pages_while_they_come_and_go() {
    model(|| {
        let pgmap = pgmap(2);
        let folio = request(&pgmap, PAGE);
        let put = spawn(move || drop(folio));

        let next = request(&pgmap, NEXT);

        put.join().unwrap();
        verify(&pgmap);
        drop(next);
        verify(&pgmap);
    });
}

/// Rule 4: two threads find a block idle, and each raises the one above it first.
///
/// Kills: a raise that came second and keeps its count of the grandparent.
#[test]
fn two_pages_that_leave_idle_at_once_raise_the_block_above_once() {
    model(|| {
        let pgmap = pgmap(2);
        let next = with(&pgmap, |pgmap| request(&pgmap, NEXT));

        let folio = request(&pgmap, PAGE);

        let next = next.join().unwrap();
        verify(&pgmap);
        drop((folio, next));
        verify(&pgmap);
    });
}

/// Rule 2: a get finds a count, or it finds none; it does not revive a page that was put last.
///
/// Kills: `try_get` that adds and then looks.
#[test]
fn a_get_that_meets_the_last_put_keeps_the_page_or_finds_none() {
    model(|| {
        let pgmap = pgmap(1);
        let folio = request(&pgmap, PAGE);
        let put = spawn(move || drop(folio));

        let got = pgmap.get_folio(PAGE);

        assert!(got.is_none() || pgmap.claim(page(PAGE)).is_err());
        put.join().unwrap();
        verify(&pgmap);
        drop(got);
        verify(&pgmap);
        assert!(pgmap.claim(page(PAGE)).is_ok());
    });
}

/// T-4: of several puts exactly one is the last.
///
/// Kills: `put` that subtracts and then looks whether zero is left.
#[test]
fn one_of_two_puts_makes_the_page_idle() {
    model(|| {
        let pgmap = pgmap(1);
        let folio = request(&pgmap, PAGE);
        let put = spawn({
            let folio = folio.clone();
            move || drop(folio)
        });

        drop(folio);

        put.join().unwrap();
        verify(&pgmap);
        assert!(pgmap.claim(page(PAGE)).is_ok());
    });
}

/// Rule 3: a request that found the page map live is waited for by its end (T-2).
///
/// Kills: a token given out after the phase was read and the lock released.
#[test]
fn a_kill_waits_for_the_request_that_came_before_it() {
    model(|| {
        let owner = pgmap(1).pgmap().clone();
        let killer = spawn({
            let owner = owner.clone();
            move || owner.kill(Wait::Forever).map(drop).is_ok()
        });

        let folio = owner.try_get_live().map(|pgmap| request(&pgmap, PAGE));

        drop(folio);
        assert!(killer.join().unwrap());
        assert!(owner.try_get_live().is_none());
        assert_eq!(owner.verify(), Ok(()));
    });
}

/// I-14: the last unpin wakes who sleeps, and who does not sleep yet sees it.
///
/// Kills: waking without taking the lock of the queue; WAITERS set outside of it; no wake.
#[test]
fn the_last_unpin_is_not_missed_by_who_waits_for_it() {
    model(|| {
        let pgmap = pgmap(1);
        let folio = request(&pgmap, PAGE);
        let pins = [folio.pin(info()), folio.pin(info())];
        let unpins = pins.map(|pin| spawn(move || drop(pin)));

        assert_eq!(pgmap.wait_unpinned(page(PAGE), Wait::Forever), Ok(()));

        unpins.into_iter().for_each(|unpin| unpin.join().unwrap());
        verify(&pgmap);
    });
}

/// Frozen bytes do not change, not even by a store that was under way.
///
/// Kills: no wait for stores in `freeze`; a store that looks at the page word before it takes its
/// shard.
#[test]
fn no_store_lands_in_a_page_once_it_is_frozen() {
    model(|| {
        let media = Arc::new(Counter::default());
        let pgmap = pgmap_on(&media, 1);
        let store = with(&pgmap, |pgmap| drop(pgmap.store_u64(0, 1)));

        let span = pgmap.claim(page(PAGE)).unwrap();
        let frozen = FrozenFolio::freeze(span, Order::Base, &info()).unwrap();

        let stores = media.stores();
        store.join().unwrap();
        assert_eq!(media.stores(), stores);
        drop(frozen);
    });
}

/// A second handle of a frozen page is no earlier than the first one.
///
/// Kills: no wait for stores in `FrozenFolio::get`.
#[test]
fn no_store_lands_in_a_frozen_page_that_somebody_else_is_freezing() {
    model(|| {
        let media = Arc::new(Counter::default());
        let pgmap = pgmap_on(&media, 1);
        let store = with(&pgmap, |pgmap| drop(pgmap.store_u64(0, 1)));
        let freeze = with(&pgmap, |pgmap| {
            FrozenFolio::freeze(pgmap.claim(page(PAGE)).unwrap(), Order::Base, &info()).unwrap()
        });

        if let Some(_frozen) = FrozenFolio::get(&pgmap, PAGE, info()) {
            let stores = media.stores();
            store.join().unwrap();
            assert_eq!(media.stores(), stores);
        }
        drop(freeze.join().unwrap());
    });
}

/// Poison sticks, whatever happens to the page meanwhile.
///
/// Kills: a put that forgets POISONED; `poison` that gives up when the word changed.
#[test]
fn a_page_poisoned_while_it_is_put_is_not_given_out_again() {
    model(|| {
        let pgmap = pgmap(1);
        let folio = request(&pgmap, PAGE);
        let put = spawn(move || drop(folio));

        pgmap.poison(PAGE);

        put.join().unwrap();
        verify(&pgmap);
        assert_eq!(pgmap.claim(page(PAGE)).unwrap_err(), RequestError::Poisoned(PAGE));
    });
}

/// Poison and a request of an idle page: one of them finds the other.
///
/// Kills: `poison_idle` as a plain store; `poison` that does not raise the block above.
#[test]
fn a_page_poisoned_while_it_is_requested_is_refused_or_marked() {
    model(|| {
        let pgmap = pgmap(2);
        let poison = with(&pgmap, |pgmap| pgmap.poison(PAGE));

        let folio = pgmap.request_folio(PAGE, Order::Base);

        poison.join().unwrap();
        verify(&pgmap);
        assert_eq!(pgmap.first_poisoned(page(PAGE)), Some(PAGE));
        drop(folio);
        verify(&pgmap);
        assert_eq!(pgmap.claim(page(PAGE)).unwrap_err(), RequestError::Poisoned(PAGE));
    });
}

/// The last put of a poisoned page takes two steps, and the end of the poison may come between.
///
/// Kills: `leave` that does not look at the word again; `clear_poison` that leaves it claimed.
#[test]
fn poison_that_is_cleared_during_the_last_put_leaves_the_page_idle() {
    model(|| {
        let pgmap = pgmap(1);
        let folio = request(&pgmap, PAGE);
        pgmap.poison(PAGE);
        let put = spawn(move || drop(folio));

        pgmap.clear_poison(PAGE);

        put.join().unwrap();
        verify(&pgmap);
        assert!(pgmap.claim(page(PAGE)).is_ok());
    });
}

/// Rule 6: a fault that comes in during the wait takes a reference and not a pin, and is not
/// waited for.
///
/// Kills: a wait for no reference instead of no pin.
#[test]
fn a_refault_during_the_wait_does_not_prolong_it() {
    model(|| {
        let pgmap = pgmap(1);
        let pin = request(&pgmap, PAGE).pin(info());
        let holder = with(&pgmap, move |pgmap| {
            let refault = pgmap.get_folio(PAGE);
            drop(pin);
            refault
        });

        assert_eq!(pgmap.wait_unpinned(page(PAGE), Wait::Forever), Ok(()));

        let refault = holder.join().unwrap();
        assert!(refault.is_some());
        verify(&pgmap);
    });
}

/// The last reference of a pinned span goes in the same step as its pin.
///
/// Kills: `unpin_and_put` that keeps WAITERS, or that does not wake.
#[test]
fn the_last_put_of_a_pinned_span_wakes_who_waits_and_leaves_the_page_idle() {
    model(|| {
        let pgmap = pgmap(1);
        let folio = request(&pgmap, PAGE);
        let pin = pgmap.pin(page(PAGE), info()).unwrap();
        drop(folio);
        let put = spawn(move || drop(pin));

        assert_eq!(pgmap.wait_unpinned(page(PAGE), Wait::Forever), Ok(()));

        put.join().unwrap();
        verify(&pgmap);
        assert!(pgmap.claim(page(PAGE)).is_ok());
    });
}

/// A span is unpinned in one step where others count the folio, unless somebody sleeps.
///
/// Kills: that step taken past WAITERS.
#[test]
fn the_last_unpin_of_a_span_wakes_though_others_count_the_folio() {
    model(|| {
        let pgmap = pgmap(1);
        let folio = request(&pgmap, PAGE);
        let pin = pgmap.pin(page(PAGE), info()).unwrap();
        let unpin = spawn(move || drop(pin));

        assert_eq!(pgmap.wait_unpinned(page(PAGE), Wait::Forever), Ok(()));

        unpin.join().unwrap();
        verify(&pgmap);
        drop(folio);
    });
}

/// F-41, I-57: of a pin and a claim, as of a truncate, exactly one succeeds.
///
/// Kills: a pin that looks and then counts.
#[test]
fn a_pin_and_a_claim_of_a_page_exclude_each_other() {
    model(|| {
        let pgmap = pgmap(1);
        let folio = request(&pgmap, PAGE);
        let pin = with(&pgmap, |pgmap| pgmap.pin(page(PAGE), info()));

        drop(folio);
        let claim = pgmap.claim(page(PAGE));

        let pin = pin.join().unwrap();
        assert!(pin.is_ok() != claim.is_ok());
        verify(&pgmap);
    });
}

/// F-41: a pin that is taken while somebody waits for another is waited for too.
///
/// Kills: WAITERS cleared with a pin that is not the last; a sleeper that does not look again.
#[test]
fn a_pin_taken_during_a_wait_is_waited_for() {
    model(|| {
        let pgmap = pgmap(1);
        let folio = request(&pgmap, PAGE);
        let first = folio.pin(info());
        let used = Arc::new(AtomicU64::new(0));
        let holder = spawn({
            let used = used.clone();
            move || {
                let second = folio.pin(info());
                drop(first);
                used.store(1, Ordering::Relaxed);
                drop(second);
            }
        });

        assert_eq!(pgmap.wait_unpinned(page(PAGE), Wait::Forever), Ok(()));

        assert_eq!(used.load(Ordering::Relaxed), 1, "the second pin is no longer used");
        holder.join().unwrap();
    });
}

/// A pin of somebody else's folio finds it counted, or does not pin (rule 2).
///
/// Kills: `try_count` that raises from zero; a pin that is not undone.
#[test]
fn a_pin_that_meets_the_last_put_holds_the_page_or_finds_it_uncounted() {
    model(|| {
        let pgmap = pgmap(1);
        let folio = request(&pgmap, PAGE);
        let put = spawn(move || drop(folio));

        let pin = pgmap.pin(page(PAGE), info());

        put.join().unwrap();
        verify(&pgmap);
        assert_eq!(pgmap.claim(page(PAGE)).is_ok(), pin.is_err());
    });
}

/// A folio of another size may come up while it is pinned: only what is pinned keeps its order.
///
/// Kills: a span that begins where the folio began before it was pinned.
#[test]
fn a_pin_of_pages_whose_folio_changes_size_covers_what_it_pinned() {
    long_model(|| {
        let pgmap = pgmap(PMD);
        let block = pgmap.request_folio(PAGE, Order::Pmd).unwrap();
        let other = with(&pgmap, |pgmap| {
            drop(block);
            pgmap.request_folio(NEXT, Order::Base)
        });

        let pin = pgmap.pin(page(NEXT), info());

        let folio = other.join().unwrap();
        verify(&pgmap);
        drop((pin, folio));
        verify(&pgmap);
    });
}

/// A driver that counts what it gets back.
#[derive(Debug, Default)]
struct Driver(AtomicU64);

impl DeviceMemory for Driver {
    fn folio_free(&self, pages: IdleSpan) {
        self.0.fetch_add(1, Ordering::Relaxed);
        drop(pages);
    }
}

/// A page that is cured and fails again between the two steps of its last put goes to its driver
/// once.
///
/// Kills: a second step that takes an idle page that failed for its own.
#[test]
fn a_page_that_fails_again_during_its_last_put_is_freed_once() {
    model(|| {
        let driver = Arc::new(Driver::default());
        let media = Arc::new(Counter::default());
        let ranges = vec![MediaRange { media, start: 0, pages: Pages(1) }];
        let kind = MemoryType::Coherent(driver.clone());
        let pgmap = Pgmap::new(ranges, kind).unwrap().try_get_live().unwrap();
        let folio = request(&pgmap, PAGE);
        pgmap.poison(PAGE);
        let put = spawn(move || drop(folio));

        pgmap.clear_poison(PAGE);
        pgmap.poison(PAGE);

        put.join().unwrap();
        assert_eq!(driver.0.load(Ordering::Relaxed), 1);
        verify(&pgmap);
    });
}
