//! Poison: failed memory is not given out again, whatever held it when it failed.

use crate::{PMD, PUD, live, pages, verify};
use udax_mm::{Order, PgmapOff, RequestError};

fn refused(at: u64) -> RequestError {
    RequestError::Poisoned(PgmapOff(at))
}

#[test]
fn an_idle_page_that_fails_is_refused_until_cleared() {
    let pgmap = live(PUD);
    pgmap.poison(PgmapOff(700));
    pgmap.poison(PgmapOff(700));
    verify(&pgmap);
    for order in [Order::Base, Order::Pmd, Order::Pud] {
        let at = PgmapOff(700).align_down(order);
        assert_eq!(pgmap.request_folio(at, order).unwrap_err(), refused(700));
    }
    assert_eq!(pgmap.first_poisoned(pages(0..PUD)), Some(PgmapOff(700)));
    pgmap.clear_poison(PgmapOff(700));
    pgmap.clear_poison(PgmapOff(700));
    verify(&pgmap);
    assert!(pgmap.request_folio(PgmapOff(0), Order::Pud).is_ok());
}

#[test]
fn a_folio_that_fails_is_idle_but_for_the_failed_page() {
    let pgmap = live(PUD);
    for order in [Order::Base, Order::Pmd, Order::Pud] {
        let folio = pgmap.request_folio(PgmapOff(0), order).unwrap();
        pgmap.poison(PgmapOff(0));
        assert!(pgmap.get_folio(PgmapOff(0)).is_some(), "whoever holds it keeps it");
        verify(&pgmap);
        drop(folio);
        verify(&pgmap);
        assert_eq!(pgmap.claim(pages(0..2)).unwrap_err(), refused(0));
        assert!(pgmap.claim(pages(1..PUD)).is_ok());
        pgmap.clear_poison(PgmapOff(0));
        verify(&pgmap);
    }
}

#[test]
fn a_claim_that_fails_is_idle_but_for_the_failed_page() {
    let pgmap = live(PUD);
    let span = pgmap.claim(pages(0..PUD)).unwrap();
    pgmap.poison(PgmapOff(PMD + 7));
    let (span, error) = span.activate(Order::Base).unwrap_err();
    assert_eq!(error, refused(PMD + 7));
    let (first, second) = span.split(PgmapOff(PMD + 3));
    verify(&pgmap);
    drop(second);
    assert_eq!(pgmap.claim(pages(PMD + 3..PUD)).unwrap_err(), refused(PMD + 7));
    drop(first);
    verify(&pgmap);
    assert!(pgmap.claim(pages(0..PMD + 7)).is_ok());
}

#[test]
fn a_poison_cleared_in_time_leaves_nothing_behind() {
    let pgmap = live(PMD);
    let folio = pgmap.request_folio(PgmapOff(0), Order::Pmd).unwrap();
    pgmap.poison(PgmapOff(3));
    pgmap.clear_poison(PgmapOff(3));
    verify(&pgmap);
    drop(folio);
    verify(&pgmap);
    assert!(pgmap.request_folio(PgmapOff(0), Order::Pmd).is_ok());
}
