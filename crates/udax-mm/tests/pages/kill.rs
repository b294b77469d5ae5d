//! The end of a page map: no page of a dead one is in use, for every kind of memory.

use crate::memory::Freeing;
use crate::{medium, pages, pinned_by, range};
use std::thread;
use udax_mm::sync::Arc;
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::{Access, MemoryType, Order, Pages, Pgmap, PgmapOff, StillBusy, Vma, VmaOff, Wait};

/// I-04 knows no difference between them.
fn kinds() -> Vec<MemoryType> {
    let driver = Arc::new(Freeing::default());
    vec![
        MemoryType::FsDax,
        MemoryType::Generic(Order::Base),
        MemoryType::Private(driver.clone()),
        MemoryType::Coherent(driver.clone()),
        MemoryType::P2pdma(driver),
    ]
}

fn pgmap(kind: MemoryType) -> Pgmap {
    Pgmap::new(vec![range(&medium(100), 0, 100)], kind).expect("the range is good")
}

/// I-02.
#[test]
fn a_killed_pgmap_gives_out_no_reference() {
    for kind in kinds() {
        let pgmap = pgmap(kind);
        let held = pgmap.try_get_live().unwrap();
        assert!(pgmap.kill(Wait::Never).is_err());
        assert!(pgmap.try_get_live().is_none());
        drop(held);
        assert!(pgmap.try_get_live().is_none());
        assert!(pgmap.kill(Wait::Never).is_ok());
        assert!(pgmap.try_get_live().is_none());
    }
}

/// I-04, I-08.
#[test]
fn every_handle_of_a_page_keeps_the_pgmap_from_being_dead() {
    for kind in kinds() {
        let pgmap = pgmap(kind);
        let live = pgmap.try_get_live().unwrap();
        let folio = live.request_folio(PgmapOff(1), Order::Base).unwrap();
        let pin = folio.pin(pinned_by("dma"));
        let span = live.claim(pages(50..60)).unwrap();

        let busy = |pgmap: &Pgmap| match pgmap.kill(Wait::Never) {
            Ok(_) => panic!("a page is in use"),
            Err(StillBusy { pins, pages }) => (pins.len(), pages.len()),
        };
        assert_eq!(busy(&pgmap), (1, 11));
        drop((live, folio));
        assert_eq!(busy(&pgmap), (1, 11));
        drop(span);
        assert_eq!(busy(&pgmap), (1, 1));
        drop(pin);
        assert!(pgmap.kill(Wait::Never).is_ok());
        assert_eq!(pgmap.verify(), Ok(()));
    }
}

#[test]
fn work_in_progress_goes_on_while_a_pgmap_is_dying() {
    let pgmap = pgmap(MemoryType::FsDax);
    let live = pgmap.try_get_live().unwrap();
    assert!(pgmap.kill(Wait::Never).is_err());
    let folio = live.request_folio(PgmapOff(1), Order::Base).unwrap();
    live.write(0, b"last words").unwrap();
    drop((folio, live));
    assert!(pgmap.kill(Wait::Never).is_ok());
}

#[test]
fn kill_waits_for_the_last_reference() {
    let pgmap = pgmap(MemoryType::FsDax);
    let live = pgmap.try_get_live().unwrap();
    let pin = live.request_folio(PgmapOff(1), Order::Base).unwrap().pin(pinned_by("dma"));
    drop(live);
    let killer = thread::spawn({
        let pgmap = pgmap.clone();
        move || pgmap.kill(Wait::Forever).is_ok()
    });
    drop(pin);
    assert!(killer.join().unwrap());
}

/// F-07: what is mapped and what is pinned is waited for, of every kind of memory, and nobody has
/// to call again: the last put ends it.
#[test]
fn the_end_waits_for_what_is_mapped_or_pinned_and_comes_with_the_last_put() {
    for kind in kinds() {
        let is_mappable = kind.is_addressable();
        let pgmap = pgmap(kind);
        let live = pgmap.try_get_live().unwrap();
        let folio = live.request_folio(PgmapOff(1), Order::Base).unwrap();
        let pin = folio.pin(pinned_by("dma"));
        drop(live);
        let vma = Vma::reserve(Pages(1)).unwrap();
        let mapped = vma.map(VmaOff(0), folio.borrow(), folio.pages(), Access::Read);
        assert_eq!(mapped.is_ok(), is_mappable);
        let killer = thread::spawn({
            let pgmap = pgmap.clone();
            move || pgmap.kill(Wait::Forever).is_ok()
        });
        while pgmap.try_get_live().is_some() {
            thread::yield_now();
        }
        drop(pin);
        assert!(pgmap.kill(Wait::Never).is_err(), "it is mapped still");
        vma.zap(VmaOff(0), Pages(1)).unwrap();

        drop(folio);

        assert!(killer.join().unwrap());
    }
}

/// F-03, B-18.
#[test]
fn lookups_during_teardown_find_a_live_pgmap_or_none() {
    let pgmap = pgmap(MemoryType::FsDax);
    let is_over = AtomicU64::new(0);
    let look_up = |at: u64| {
        let was_over = is_over.load(Ordering::Acquire) == 1;
        let Some(live) = pgmap.try_get_live() else { return false };
        assert!(!was_over, "I-03: nobody finds a dead page map");
        let folio = live.request_folio(PgmapOff(at % 4), Order::Base);
        assert!(folio.is_err() || live.get_folio(PgmapOff(at % 4)).is_some());
        live.load_u64(PgmapOff(at).byte()).unwrap();
        true
    };
    thread::scope(|scope| {
        for at in 0..8 {
            let look_up = &look_up;
            scope.spawn(move || while look_up(at) {});
        }
        (0..100).for_each(|at| assert!(look_up(at)));

        let _dead = pgmap.kill(Wait::Forever).unwrap();

        is_over.store(1, Ordering::Release);
    });
    assert_eq!(pgmap.verify(), Ok(()));
    assert!(pgmap.kill(Wait::Never).is_ok());
}

#[test]
fn a_refused_kill_says_who_holds_what() {
    let pgmap = pgmap(MemoryType::FsDax);
    let live = pgmap.try_get_live().unwrap();
    let _pin = live.request_folio(PgmapOff(7), Order::Base).unwrap().pin(pinned_by("backup"));
    let message = pgmap.kill(Wait::Never).unwrap_err().to_string();
    assert!(message.contains("in use is one folio or claim, the first on pages 7..8"), "{message}");
    assert!(message.contains("by backup (process"), "{message}");
    assert!(message.contains("on pages 7..8 for "), "{message}");
}

/// A page map that nobody killed leaves nothing behind: its media are let go.
#[test]
fn dropping_the_last_handle_lets_go_of_the_media() {
    let media = medium(4);
    let pgmap = Pgmap::new(vec![range(&media, 0, 4)], MemoryType::FsDax).unwrap();
    let live = pgmap.try_get_live().unwrap();
    drop(live.request_folio(PgmapOff(0), Order::Base).unwrap());
    drop((pgmap, live));
    assert_eq!(udax_mm::sync::Arc::strong_count(&media), 1);
}
