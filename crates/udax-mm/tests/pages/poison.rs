//! Poison: failed memory is not given out again, whatever held it when it failed.

use crate::{PMD, PUD, live, pages, pinned_by, verify};
use udax_mm::{FrozenFolio, MediaError, Order, PAGE_SIZE, PgmapOff, RequestError};

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

/// Loads and stores around page 2, the first byte of which is 8192.
fn check_touches(pgmap: &udax_mm::PgmapRef, is_refused: impl Fn(&Result<(), MediaError>) -> bool) {
    let mut bytes = vec![0; 3 * PAGE_SIZE];
    for touch in [
        pgmap.read(4096, &mut bytes),
        pgmap.write(8000, &bytes[..200]),
        pgmap.zero(4096, 8192),
        pgmap.load_u64(8192).map(drop),
        pgmap.store_u64(8192, 1),
    ] {
        assert!(is_refused(&touch), "{touch:?}");
    }
}

#[test]
fn a_touch_of_a_poisoned_page_is_refused_before_a_byte_is_copied() {
    let pgmap = live(PMD);
    pgmap.write(4096, &[1; PAGE_SIZE]).unwrap();
    pgmap.poison(PgmapOff(2));

    check_touches(&pgmap, |touch| matches!(touch, Err(MediaError::Poisoned { at: 8192 })));

    assert_eq!(pgmap.load_u64(4096).unwrap(), 0x0101_0101_0101_0101, "no zero was stored");
    let inside = pgmap.read(8200, &mut [0; 8]);
    assert!(matches!(inside, Err(MediaError::Poisoned { at: 8200 })), "{inside:?}");
    pgmap.read(12_288, &mut [0; 8]).unwrap();
    pgmap.clear_poison(PgmapOff(2));
    check_touches(&pgmap, Result::is_ok);
}

#[test]
fn a_recovery_write_clears_the_poison_of_its_pages_only() {
    let pgmap = live(PMD);
    for page in 1..=3 {
        pgmap.poison(PgmapOff(page));
    }
    pgmap.recover(4096, &[7; 2 * PAGE_SIZE]).unwrap();
    verify(&pgmap);
    assert_eq!(pgmap.first_poisoned(pages(0..PMD)), Some(PgmapOff(3)));
    assert_eq!(pgmap.load_u64(8192).unwrap(), 0x0707_0707_0707_0707);
}

#[test]
fn a_recovery_write_of_partial_pages_is_refused_and_clears_nothing() {
    let pgmap = live(PMD);
    pgmap.poison(PgmapOff(1));
    for (at, len) in [(4096, 4095), (4097, 4096), (4096, 8)] {
        let refused = pgmap.recover(at, &vec![1; len]);
        assert!(matches!(refused, Err(MediaError::PartialRecovery { .. })), "{refused:?}");
    }
    let outside = pgmap.recover(pgmap.size().bytes(), &[1; PAGE_SIZE]);
    assert!(matches!(outside, Err(MediaError::OutOfRange { .. })), "{outside:?}");
    assert_eq!(pgmap.first_poisoned(pages(0..PMD)), Some(PgmapOff(1)));
}

#[test]
fn a_frozen_page_is_not_recovered() {
    let pgmap = live(PMD);
    let span = pgmap.claim(pages(1..2)).unwrap();
    let frozen = FrozenFolio::freeze(span, Order::Base, &pinned_by("reader")).unwrap();
    pgmap.poison(PgmapOff(1));
    let refused = pgmap.recover(4096, &[1; PAGE_SIZE]);
    assert!(matches!(refused, Err(MediaError::Frozen { at: 4096 })), "{refused:?}");
    assert_eq!(pgmap.first_poisoned(pages(0..PMD)), Some(PgmapOff(1)));
    drop(frozen);
}

#[test]
fn no_pages_are_not_poisoned() {
    let pgmap = live(8);
    pgmap.poison(PgmapOff(2));
    let (start, end) = (PgmapOff(5), PgmapOff(1));
    assert_eq!(pgmap.first_poisoned(start..end), None);
    assert_eq!(pgmap.first_poisoned(pages(2..2)), None);
    assert!(pgmap.read(2 * 4096 + 8, &mut []).is_ok());
}

#[test]
fn the_memory_of_a_pinned_page_is_not_replaced() {
    let pgmap = live(8);
    let pin = pgmap.request_folio(PgmapOff(2), Order::Base).unwrap().pin(pinned_by("dma"));
    pgmap.poison(PgmapOff(2));
    let refused = pgmap.recover(4096, &[1; 2 * PAGE_SIZE]);
    assert!(matches!(refused, Err(MediaError::Pinned { at: 8192 })), "{refused:?}");
    drop(pin);
    pgmap.recover(4096, &[1; 2 * PAGE_SIZE]).unwrap();
    assert_eq!(pgmap.load_u64(8192).unwrap(), u64::from_le_bytes([1; 8]));
}
