//! Pinned spans: one handle and one entry in the list, a pin on every folio.

use crate::{PMD, live, pages, pinned_by, verify};
use std::thread;
use udax_mm::{Folio, Order, PgmapOff, PgmapRef, PinError, RequestError, Wait};

/// Small folios around a large one.
fn mixed(pgmap: &PgmapRef) -> Vec<Folio> {
    let small = |at, nr| pgmap.request_folios(PgmapOff(at), Order::Base, nr).expect("idle");
    let large = pgmap.request_folio(PgmapOff(PMD), Order::Pmd).expect("idle");
    let before = small(PMD - 3, 3).into_folios();
    before.chain([large]).chain(small(2 * PMD, 3).into_folios()).collect()
}

#[test]
fn one_handle_pins_every_folio_of_the_range() {
    let pgmap = live(3 * PMD);
    let folios = mixed(&pgmap);

    let pin = pgmap.pin(pages(PMD - 2..2 * PMD + 1), pinned_by("dma")).unwrap();

    verify(&pgmap);
    assert_eq!(pin.pages(), pages(PMD - 2..2 * PMD + 1));
    let is_pinned: Vec<bool> = folios.iter().map(Folio::is_pinned).collect();
    assert_eq!(is_pinned, [false, true, true, true, true, false, false]);
    assert_eq!(pgmap.pins_in(pages(0..3 * PMD)).len(), 1);
}

#[test]
fn a_part_of_a_large_folio_pins_the_whole() {
    let pgmap = live(2 * PMD);
    let folio = pgmap.request_folio(PgmapOff(PMD), Order::Pmd).unwrap();

    let pin = pgmap.pin(pages(PMD + 7..PMD + 9), pinned_by("dma")).unwrap();

    assert_eq!(pin.pages(), folio.pages());
    verify(&pgmap);
}

#[test]
fn a_span_outlives_the_folios_and_frees_them_with_its_end() {
    let pgmap = live(3 * PMD);
    let folios = mixed(&pgmap);
    let pin = pgmap.pin(pages(PMD - 3..2 * PMD + 3), pinned_by("dma")).unwrap();
    drop(folios);
    verify(&pgmap);
    let busy = pgmap.claim(pages(PMD + 1..PMD + 2)).unwrap_err();
    assert_eq!(busy, RequestError::Busy(PgmapOff(PMD + 1)));

    drop(pin);

    verify(&pgmap);
    assert!(pgmap.claim(pages(0..3 * PMD)).is_ok());
}

/// Rule 2, and all or none.
#[test]
fn a_page_that_nobody_counts_is_not_pinned_and_leaves_nothing_pinned() {
    let pgmap = live(3 * PMD);
    let folios = mixed(&pgmap);
    let _claimed = pgmap.claim(pages(2 * PMD + 4..2 * PMD + 5)).unwrap();
    let cases = [(PMD - 5..PMD, PMD - 5), (PMD - 1..2 * PMD + 9, 2 * PMD + 3)];
    for (range, missing) in cases {
        let refused = pgmap.pin(pages(range), pinned_by("dma")).unwrap_err();
        assert_eq!(refused, PinError::NotCounted(PgmapOff(missing)));
        assert!(!folios.iter().any(Folio::is_pinned));
        verify(&pgmap);
    }
}

#[test]
fn no_pages_and_pages_outside_are_refused() {
    let pgmap = live(4);
    for range in [pages(2..2), pages(0..5), pages(9..9)] {
        let refused = pgmap.pin(range.clone(), pinned_by("dma")).unwrap_err();
        assert_eq!(refused, PinError::OutOfRange(range));
    }
}

#[test]
fn references_become_pins() {
    let pgmap = live(3 * PMD);
    let folios = pgmap.request_folios(PgmapOff(PMD), Order::Pmd, 2).unwrap();

    let pin = folios.into_pinned(pinned_by("dma"));

    verify(&pgmap);
    assert_eq!(pin.pages(), pages(PMD..3 * PMD));
    assert_eq!(pgmap.first_pinned(pages(0..3 * PMD)), Some(PgmapOff(PMD)));
    drop(pin);
    verify(&pgmap);
    assert!(pgmap.claim(pages(0..3 * PMD)).is_ok());
}

#[test]
fn the_end_of_a_span_wakes_who_waits_for_any_of_its_folios() {
    let pgmap = live(3 * PMD);
    let folios = mixed(&pgmap);
    let pin = pgmap.pin(pages(PMD - 3..2 * PMD + 3), pinned_by("dma")).unwrap();
    let sleepers = [PMD - 3, PMD + 5, 2 * PMD + 2].map(|at| {
        let pgmap = pgmap.clone();
        thread::spawn(move || pgmap.wait_unpinned(pages(at..at + 1), Wait::Forever))
    });

    drop(pin);

    for sleeper in sleepers {
        assert_eq!(sleeper.join().unwrap(), Ok(()));
    }
    drop(folios);
}
