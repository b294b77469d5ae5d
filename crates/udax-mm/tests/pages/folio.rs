//! Folios: a count starts with an activation and ends with the last put.

use crate::{PMD, PUD, live, pages, verify};
use udax_mm::{Order, PgmapOff, RequestError};

/// T-1, B-45.
#[test]
fn a_bulk_request_touches_each_folio_once() {
    for n in 1..=5 {
        let pgmap = live(8 * PMD);
        for order in [Order::Base, Order::Pmd] {
            let len = order.pages().0 * u64::from(n);
            let folios = pgmap.request_folios(PgmapOff(PMD), order, n).unwrap();
            verify(&pgmap);
            let folios: Vec<_> = folios.into_folios().collect();
            let heads: Vec<_> = folios.iter().map(|folio| folio.head().0).collect();
            let expected: Vec<_> = (0..u64::from(n)).map(|k| PMD + k * order.pages().0).collect();
            assert_eq!(heads, expected);
            assert!(folios.iter().all(|folio| pgmap.claim(folio.pages()).is_err()));
            drop(folios);
            verify(&pgmap);
            assert!(pgmap.claim(pages(PMD..PMD + len)).is_ok());
        }
    }
}

/// F-06: a failure midway rolls back.
#[test]
fn a_bulk_request_that_meets_a_busy_folio_leaves_the_others_idle() {
    let pgmap = live(8 * PMD);
    for order in [Order::Base, Order::Pmd] {
        let head = |k: u32| PgmapOff(PMD + u64::from(k) * order.pages().0);
        let cases = (1..=5).flat_map(|n| (0..n).map(move |k| (n, k)));
        for (n, busy) in cases {
            let folio = pgmap.request_folio(head(busy), order).unwrap();

            let refused = pgmap.request_folios(head(0), order, n).unwrap_err();

            assert_eq!(refused, RequestError::Busy(head(busy)));
            verify(&pgmap);
            for other in (0..n).filter(|&other| other != busy) {
                assert!(pgmap.request_folio(head(other), order).is_ok());
            }
            drop(folio);
            assert!(pgmap.request_folios(head(0), order, n).is_ok());
        }
    }
}

#[test]
fn a_span_puts_the_folios_that_nobody_took() {
    let pgmap = live(8);
    let mut folios = pgmap.request_folios(PgmapOff(0), Order::Base, 5).unwrap().into_folios();
    let second = folios.nth(1).unwrap();
    drop(folios);
    assert!(pgmap.claim(pages(2..8)).is_ok());
    assert!(pgmap.claim(pages(0..1)).is_ok());
    assert_eq!(pgmap.claim(second.pages()).unwrap_err(), RequestError::Busy(PgmapOff(1)));
}

/// T-4: the release is driven by the last put, whoever does it.
#[test]
fn a_transient_get_between_request_and_put_neither_leaks_nor_drops() {
    let pgmap = live(4);
    let folio = pgmap.request_folio(PgmapOff(2), Order::Base).unwrap();
    let transient = pgmap.get_folio(PgmapOff(2)).unwrap();

    drop(folio);
    assert_eq!(pgmap.claim(pages(2..3)).unwrap_err(), RequestError::Busy(PgmapOff(2)));
    let owner = pgmap.pgmap().clone();
    drop(pgmap);
    assert!(owner.kill(udax_mm::Wait::Never).is_err());
    drop(transient);
    assert!(owner.kill(udax_mm::Wait::Never).is_ok());
}

#[test]
fn last_put_makes_every_page_idle() {
    let pgmap = live(PUD);
    for order in [Order::Base, Order::Pmd, Order::Pud] {
        let folio = pgmap.request_folio(PgmapOff(0), order).unwrap();
        let clones = vec![folio.clone(); 3];
        drop(folio);
        assert!(pgmap.claim(pages(0..1)).is_err());
        verify(&pgmap);
        drop(clones);
        verify(&pgmap);
        drop(pgmap.claim(pages(0..PUD)).unwrap());
    }
}

/// Rule 2.
#[test]
fn get_folio_never_starts_a_count() {
    let pgmap = live(4);
    assert!(pgmap.get_folio(PgmapOff(1)).is_none());
    let folio = pgmap.request_folio(PgmapOff(1), Order::Base).unwrap();
    assert!(pgmap.get_folio(PgmapOff(1)).is_some());
    drop(folio);
    assert!(pgmap.get_folio(PgmapOff(1)).is_none());
}

#[test]
fn every_page_of_a_folio_leads_to_it() {
    let pgmap = live(PUD);
    for order in [Order::Pmd, Order::Pud] {
        let folio = pgmap.request_folio(PgmapOff(0), order).unwrap();
        for page in [0, 1, 511, order.pages().0 - 1] {
            let same = pgmap.get_folio(PgmapOff(page)).unwrap();
            assert_eq!((same.head(), same.order()), (folio.head(), order));
        }
        assert!(pgmap.get_folio(PgmapOff(order.pages().0)).is_none());
    }
}

#[test]
fn a_borrowed_folio_becomes_a_reference_of_its_own() {
    let pgmap = live(4);
    let folio = pgmap.request_folio(PgmapOff(3), Order::Base).unwrap();
    let own = folio.borrow().to_folio();
    drop(folio);
    assert_eq!(pgmap.get_folio(PgmapOff(3)).unwrap().head(), own.head());
}
