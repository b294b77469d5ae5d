//! Pins: what a truncate waits for, and who that is.

use crate::{PMD, live, pages, pinned_by, verify};
use std::thread;
use std::time::{Duration, Instant};
use udax_mm::{Interrupt, Order, PgmapOff, PinInfo, PinKind, PinTerm, Wait};

#[test]
fn a_pin_is_listed_with_its_owner_until_it_is_dropped() {
    let pgmap = live(2 * PMD);
    let folio = pgmap.request_folio(PgmapOff(PMD), Order::Pmd).unwrap();
    let first = folio.pin(pinned_by("first"));
    let second = folio.pin(pinned_by("second"));
    verify(&pgmap);

    let labels = |range| {
        let pins = pgmap.pins_in(pages(range));
        pins.iter().map(|pin| pin.info.owner.label.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(labels(PMD + 3..PMD + 4), ["first", "second"]);
    assert_eq!(labels(0..PMD), Vec::<String>::new());
    drop(first);
    assert_eq!(labels(0..2 * PMD), ["second"]);
    drop(second);
    assert!(!folio.is_pinned());
    assert!(pgmap.pgmap().pins().is_empty());
    verify(&pgmap);
}

/// F-43.
#[test]
fn pins_of_a_range_are_listed_with_owner_age_kind_and_term() {
    let pgmap = live(2 * PMD);
    let before = Instant::now();
    let info = |label, kind, term| PinInfo { kind, term, ..pinned_by(label) };
    let folios = pgmap.request_folios(PgmapOff(0), Order::Base, 8).unwrap();
    let span = folios.into_pinned(info("ring", PinKind::Write, PinTerm::Long));
    let folio = pgmap.get_folio(PgmapOff(5)).unwrap();
    let page = folio.pin(info("copy", PinKind::Read, PinTerm::Short));

    let pins = pgmap.pins_in(pages(5..6));

    let told: Vec<_> = pins.iter().map(|pin| (pin.pages.clone(), pin.info.clone())).collect();
    for ((range, info), (held, expected)) in
        told.iter().zip([(span.pages(), span.info()), (page.pages(), page.info())])
    {
        assert_eq!((range, &info.owner, info.since), (&held, &expected.owner, expected.since));
        assert_eq!((info.kind, info.term), (expected.kind, expected.term));
        assert_eq!(info.owner.process, std::process::id());
        assert!(before <= info.since && info.since <= Instant::now());
    }
    assert_eq!(told.len(), 2);
    assert_eq!(pgmap.pins_in(pages(6..9)).len(), 1, "the page is not in the range");
    assert!(pgmap.pins_in(pages(8..2 * PMD)).is_empty());
}

/// I-58.
#[test]
fn a_pin_outlives_the_folio_it_was_made_of() {
    let pgmap = live(4);
    let pin = pgmap.request_folio(PgmapOff(0), Order::Base).unwrap().pin(pinned_by("dma"));
    verify(&pgmap);
    assert!(pgmap.claim(pages(0..1)).is_err());
    drop(pin);
    verify(&pgmap);
    assert!(pgmap.claim(pages(0..1)).is_ok());
}

#[test]
fn the_first_pinned_page_of_a_range_is_named() {
    let pgmap = live(3 * PMD);
    let folio = pgmap.request_folio(PgmapOff(PMD), Order::Pmd).unwrap();
    let _pin = folio.pin(pinned_by("dma"));
    assert_eq!(pgmap.first_pinned(pages(0..3 * PMD)), Some(PgmapOff(PMD)));
    assert_eq!(pgmap.first_pinned(pages(PMD + 9..PMD + 10)), Some(PgmapOff(PMD + 9)));
    assert_eq!(pgmap.first_pinned(pages(0..PMD)), None);
    assert_eq!(pgmap.first_pinned(pages(2 * PMD..u64::MAX)), None);
}

#[test]
fn waiting_for_pins_gives_up_at_the_deadline() {
    let pgmap = live(4);
    let _pin = pgmap.request_folio(PgmapOff(2), Order::Base).unwrap().pin(pinned_by("dma"));
    let soon = Wait::Until(Instant::now() + Duration::from_millis(1));
    for wait in [Wait::Never, Wait::Until(Instant::now()), soon] {
        assert_eq!(pgmap.wait_unpinned(pages(0..4), wait), Err(PgmapOff(2)));
    }
}

/// Rule 6.
#[test]
fn references_are_not_waited_for() {
    let pgmap = live(4);
    let folio = pgmap.request_folio(PgmapOff(2), Order::Base).unwrap();
    drop(folio.pin(pinned_by("dma")));
    assert_eq!(pgmap.wait_unpinned(pages(0..4), Wait::Forever), Ok(()));
}

/// T-5: the end of a range does not belong to it.
#[test]
fn a_pin_behind_the_range_is_not_waited_for() {
    let pgmap = live(4);
    let _pin = pgmap.request_folio(PgmapOff(2), Order::Base).unwrap().pin(pinned_by("dma"));
    assert_eq!(pgmap.wait_unpinned(pages(0..2), Wait::Never), Ok(()));
    assert_eq!(pgmap.wait_unpinned(pages(3..4), Wait::Never), Ok(()));
    assert_eq!(pgmap.first_pinned(pages(0..2)), None);
}

#[test]
fn the_last_unpin_of_each_folio_wakes() {
    let pgmap = live(4);
    let pin = |at| pgmap.request_folio(PgmapOff(at), Order::Base).unwrap().pin(pinned_by("dma"));
    let pins = [pin(0), pin(2), pin(3)];
    let sleeper = thread::spawn({
        let pgmap = pgmap.clone();
        move || pgmap.wait_unpinned(pages(0..4), Wait::Forever)
    });
    drop(pins);
    assert_eq!(sleeper.join().unwrap(), Ok(()));
}

#[test]
fn an_interrupt_ends_the_wait_for_a_pin_and_those_to_come() {
    let pgmap = live(4);
    let pin = pgmap.request_folio(PgmapOff(2), Order::Base).unwrap().pin(pinned_by("dma"));
    let interrupt = Interrupt::new();
    thread::scope(|scope| {
        let waits = [pages(0..4), pages(2..3)].map(|range| {
            let (pgmap, interrupt) = (&pgmap, &interrupt);
            scope.spawn(move || pgmap.wait_unpinned(range, Wait::Forever.unless(interrupt)))
        });
        interrupt.raise();
        let waits = waits.map(|wait| wait.join().unwrap());
        assert_eq!(waits, [Err(PgmapOff(2)), Err(PgmapOff(2))]);
    });
    let again = pgmap.wait_unpinned(pages(0..4), Wait::Forever.unless(&interrupt));
    assert_eq!(again, Err(PgmapOff(2)));
    drop(pin);
    assert_eq!(pgmap.wait_unpinned(pages(0..4), Wait::Forever.unless(&interrupt)), Ok(()));
    verify(&pgmap);
}
