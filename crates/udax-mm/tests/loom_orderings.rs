//! What a thread may rely on that is told something by a page word: that it sees what was done
//! before (each Acquire with its Release), and that it is told at all.
//!
//! Run with `cargo xtask loom`. Loom lets a Relaxed load find an old value unless something orders
//! it, so one Relaxed atomic stands for the bytes of a page. Handles are held while the bytes are
//! looked at, because dropping one is an Acquire as well.

#![cfg(loom)]

mod support;

use loom::model;
use std::ops::Range;
use support::{Counter, info};
use udax_mm::sync::Arc;
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::sync::thread::spawn;
use udax_mm::{
    Folio, IdleSpan, LimboSink, MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff, PgmapRef,
    Wait,
};

const PAGE: PgmapOff = PgmapOff(0);
/// Shares a wait queue with [`PAGE`].
const FELLOW: PgmapOff = PgmapOff(13);
/// The pages of a block, of which there are few under loom.
const PMD: u64 = Order::Pmd.pages().0;
const BLOCK: Range<PgmapOff> = PgmapOff(0)..PgmapOff(PMD);

/// The bytes of a page, as far as these tests look at them.
#[derive(Clone)]
struct Bytes(Arc<AtomicU64>);

impl Bytes {
    fn new() -> Bytes {
        Bytes(Arc::new(AtomicU64::new(0)))
    }

    fn write(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    #[track_caller]
    fn assert_written(&self) {
        assert_eq!(self.0.load(Ordering::Relaxed), 1, "the bytes are seen as they were written");
    }
}

impl LimboSink for Bytes {
    fn returned(&self, span: IdleSpan) {
        self.assert_written();
        drop(span);
    }
}

fn pgmap(pages: u64) -> PgmapRef {
    let ranges =
        vec![MediaRange { media: Arc::<Counter>::default(), start: 0, pages: Pages(pages) }];
    Pgmap::new(ranges, MemoryType::FsDax).unwrap().try_get_live().unwrap()
}

fn request(pgmap: &PgmapRef, at: PgmapOff) -> Folio {
    pgmap.request_folio(at, Order::Base).unwrap()
}

fn page(at: PgmapOff) -> Range<PgmapOff> {
    at..PgmapOff(at.0 + 1)
}

/// For a test that walks over all pages of a block.
fn long_model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = model::Builder::new();
    builder.max_branches = 100_000;
    builder.check(test);
}

/// Writes the bytes in another thread, and then drops `held`.
fn write_and_drop<T: 'static>(bytes: &Bytes, held: T) {
    let bytes = bytes.clone();
    spawn(move || {
        bytes.write();
        drop(held);
    });
}

/// Kills: no Release in `put`; no Acquire in `claim`.
#[test]
fn a_claimer_sees_what_the_last_holder_did() {
    model(|| {
        let (pgmap, bytes) = (pgmap(1), Bytes::new());
        write_and_drop(&bytes, request(&pgmap, PAGE));

        if let Ok(_held) = pgmap.claim(page(PAGE)) {
            bytes.assert_written();
        }
    });
}

/// Kills: no Release in `retire_page`.
#[test]
fn a_claimer_sees_what_the_last_claimer_did() {
    model(|| {
        let (pgmap, bytes) = (pgmap(1), Bytes::new());
        write_and_drop(&bytes, pgmap.claim(page(PAGE)).unwrap());

        if let Ok(_held) = pgmap.claim(page(PAGE)) {
            bytes.assert_written();
        }
    });
}

/// Kills: no Acquire in `leave`, which the count needs if another holder wrote.
#[test]
fn the_last_put_comes_after_every_use_of_the_folio() {
    model(|| {
        let (pgmap, bytes) = (pgmap(1), Bytes::new());
        let folio = request(&pgmap, PAGE);
        let sink: Arc<dyn LimboSink> = Arc::new(bytes.clone());
        drop(pgmap.claim_or_defer(page(PAGE), &sink).unwrap());
        write_and_drop(&bytes, folio.clone());

        drop(folio);
    });
}

/// Kills: no Release in `retire_block`; no Acquire in `raise`.
#[test]
fn who_takes_a_page_of_a_block_sees_what_its_holder_did() {
    model(|| {
        let (pgmap, bytes) = (pgmap(PMD), Bytes::new());
        write_and_drop(&bytes, pgmap.claim(BLOCK).unwrap());

        if let Ok(_held) = pgmap.claim(page(PAGE)) {
            bytes.assert_written();
        }
    });
}

/// Kills: no Release in `lower`.
#[test]
fn who_takes_a_block_sees_what_the_holder_of_a_page_did() {
    long_model(|| {
        let (pgmap, bytes) = (pgmap(PMD), Bytes::new());
        write_and_drop(&bytes, request(&pgmap, PAGE));

        if let Ok(_held) = pgmap.request_folio(PAGE, Order::Pmd) {
            bytes.assert_written();
        }
    });
}

/// Kills: no Acquire in `put`: whoever was last hands on what the others did.
#[test]
fn who_takes_a_block_sees_what_every_holder_of_a_page_did() {
    long_model(|| {
        let (pgmap, bytes) = (pgmap(PMD), Bytes::new());
        let folio = request(&pgmap, PAGE);
        write_and_drop(&bytes, folio.clone());
        drop(folio);

        if let Ok(_held) = pgmap.request_folio(PAGE, Order::Pmd) {
            bytes.assert_written();
        }
    });
}

/// A page is written anew before its poison is cleared.
///
/// Kills: no Release in `clear_poison`.
#[test]
fn who_takes_a_page_that_was_cured_sees_its_new_bytes() {
    model(|| {
        let (pgmap, bytes) = (pgmap(1), Bytes::new());
        pgmap.poison(PAGE);
        let cure = spawn({
            let (pgmap, bytes) = (pgmap.clone(), bytes.clone());
            move || {
                bytes.write();
                pgmap.clear_poison(PAGE);
            }
        });

        if let Ok(_held) = pgmap.claim(page(PAGE)) {
            bytes.assert_written();
        }
        cure.join().unwrap();
    });
}

/// Kills: no Release in `unpin`; no Acquire in `watch` where nothing is pinned.
#[test]
fn who_waited_for_a_pin_sees_what_its_holder_did() {
    model(|| {
        let (pgmap, bytes) = (pgmap(1), Bytes::new());
        let folio = request(&pgmap, PAGE);
        write_and_drop(&bytes, folio.pin(info()));

        assert_eq!(pgmap.wait_unpinned(page(PAGE), Wait::Forever), Ok(()));
        bytes.assert_written();
    });
}

/// B-16.
///
/// Kills: a wake-up for one of several sleepers.
#[test]
fn every_sleeper_of_a_folio_is_woken() {
    model(|| {
        let pgmap = pgmap(1);
        let pin = request(&pgmap, PAGE).pin(info());
        let sleepers = [(); 2].map(|()| {
            let pgmap = pgmap.clone();
            spawn(move || pgmap.wait_unpinned(page(PAGE), Wait::Forever))
        });

        drop(pin);

        for sleeper in sleepers {
            assert_eq!(sleeper.join().unwrap(), Ok(()));
        }
    });
}

/// Folios share wait queues. A sleeper that gave up leaves word to wake it.
///
/// Kills: a sleeper that does not look again when it is woken.
#[test]
fn a_sleeper_woken_for_another_folio_sleeps_on() {
    model(|| {
        let pgmap = pgmap(FELLOW.0 + 1);
        let [pin, fellow] = [PAGE, FELLOW].map(|at| request(&pgmap, at).pin(info()));
        assert_eq!(pgmap.wait_unpinned(page(FELLOW), Wait::Never), Err(FELLOW));
        let sleeper = spawn({
            let pgmap = pgmap.clone();
            move || {
                assert_eq!(pgmap.wait_unpinned(page(PAGE), Wait::Forever), Ok(()));
                assert_eq!(pgmap.first_pinned(page(PAGE)), None);
            }
        });

        drop(fellow);
        drop(pin);

        sleeper.join().unwrap();
    });
}
