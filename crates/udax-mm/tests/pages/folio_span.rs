//! Spans of folios: references that are taken, divided, joined and put many at once.

use crate::{PMD, PUD, live, pages, pgmap_of, pinned_by, verify};
use std::ops::Range;
use std::thread;
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{
    FolioSpan, FrozenFolio, IdleSpan, LimboSink, Order, PgmapOff, PgmapRef, RequestError,
};

fn acquire(pgmap: &PgmapRef, range: Range<u64>) -> FolioSpan {
    let nr = range.end - range.start;
    let acquired = pgmap.acquire_folios(PgmapOff(range.start), Order::Base, nr);
    acquired.expect("nobody claims them")
}

/// Which pages of the first `count` cannot be claimed.
fn busy(pgmap: &PgmapRef, count: u64) -> Vec<u64> {
    (0..count).filter(|&page| pgmap.claim(pages(page..page + 1)).is_err()).collect()
}

#[test]
fn what_is_idle_is_requested_and_what_is_counted_is_got() {
    let pgmap = live(2 * PMD);
    for range in [PMD - 3..PMD + 4, 0..2 * PMD, 5..6] {
        let held =
            acquire(&pgmap, range.start + 1..range.end.min(range.start + 3).max(range.start + 1));
        let span = acquire(&pgmap, range.clone());
        assert_eq!((span.pages(), span.order()), (pages(range.clone()), Order::Base));
        verify(&pgmap);
        drop(held);
        assert_eq!(busy(&pgmap, 2 * PMD), range.clone().collect::<Vec<_>>());
        drop(span);
        verify(&pgmap);
        assert!(pgmap.claim(pages(0..2 * PMD)).is_ok());
    }
}

#[test]
fn large_folios_are_acquired_up_to_the_end_of_their_medium() {
    let pgmap = pgmap_of(&[2 * PMD, 3 * PMD]).try_get_live().unwrap();
    let span = pgmap.acquire_folios(PgmapOff(PMD), Order::Pmd, 3).map_err(|(_, e)| e).unwrap();
    assert_eq!(span.clone().into_folios().count(), 3);
    verify(&pgmap);
    drop(span);

    let odd = pgmap_of(&[PMD + 1, 2 * PMD]).try_get_live().unwrap();
    let (some, error) = odd.acquire_folios(PgmapOff(0), Order::Pmd, 3).unwrap_err();
    assert_eq!(some.pages(), pages(0..PMD));
    assert_eq!(error, RequestError::Crossing { offset: PgmapOff(PMD), order: Order::Pmd });
    drop(some);
    verify(&odd);
}

/// What is met is named, and the folios before it are handed over.
#[test]
fn acquiring_ends_at_the_first_folio_that_cannot_be_had() {
    let pgmap = live(3 * PMD);
    let poisoned = PMD + 9;
    pgmap.poison(PgmapOff(poisoned));
    let large = pgmap.request_folio(PgmapOff(2 * PMD), Order::Pmd).unwrap();
    let cases = [
        (7..PMD + 20, poisoned, RequestError::Poisoned(PgmapOff(poisoned))),
        (PMD + 10..3 * PMD, 2 * PMD, RequestError::Busy(PgmapOff(2 * PMD))),
        (2 * PMD + 4..2 * PMD + 6, 2 * PMD + 4, RequestError::Busy(PgmapOff(2 * PMD + 4))),
    ];
    for (asked, met, expected) in cases {
        let nr = asked.end - asked.start;
        let refused = pgmap.acquire_folios(PgmapOff(asked.start), Order::Base, nr);
        let (some, error) = refused.unwrap_err();
        assert_eq!((some.pages(), error), (pages(asked.start..met), expected));
        verify(&pgmap);
        drop(some);
        verify(&pgmap);
    }
    drop(large);
    let small = acquire(&pgmap, 5..6);
    let (none, error) = pgmap.acquire_folios(PgmapOff(0), Order::Pmd, 2).unwrap_err();
    assert!(none.is_empty());
    assert!(matches!(error, RequestError::Busy(_)), "{error}");
    drop(small);
    verify(&pgmap);
}

#[test]
fn what_cannot_be_folios_is_refused() {
    let pgmap = live(2 * PMD);
    let refused = |at, order, nr| pgmap.acquire_folios(PgmapOff(at), order, nr).unwrap_err().1;
    let misaligned = RequestError::Misaligned { offset: PgmapOff(1), order: Order::Pmd };
    assert_eq!(refused(1, Order::Pmd, 1), misaligned);
    let outside = RequestError::OutOfRange(pages(PMD..3 * PMD));
    assert_eq!(refused(PMD, Order::Pmd, 2), outside);
    assert!(matches!(refused(3, Order::Base, u64::MAX), RequestError::OutOfRange(_)));
    assert!(pgmap.acquire_folios(PgmapOff(2 * PMD), Order::Base, 0).is_ok_and(|s| s.is_empty()));
}

#[test]
fn a_span_is_divided_and_joined_without_a_change_of_any_count() {
    let pgmap = live(PUD);
    for (order, at) in [(Order::Base, PMD - 2), (Order::Pmd, PMD)] {
        let len = order.pages().0;
        let mut span = pgmap.request_folios(PgmapOff(at), order, 4).unwrap();
        let mut rest = span.split_off(PgmapOff(at + len));
        let last = rest.split_off(PgmapOff(at + 3 * len));
        assert_eq!(span.pages(), pages(at..at + len));

        let last = span.append(last).expect_err("a gap lies between");
        rest.append(last).expect("it lies behind");
        rest.append(span).expect("it lies before");

        assert_eq!(rest.pages(), pages(at..at + 4 * len));
        verify(&pgmap);
        assert_eq!(pgmap.claim(rest.pages()).unwrap_err(), RequestError::Busy(PgmapOff(at)));
        drop(rest);
        assert!(pgmap.claim(pages(0..PUD)).is_ok());
    }
}

#[test]
fn only_spans_of_one_kind_are_joined() {
    let (pgmap, other) = (live(2 * PMD), live(2 * PMD));
    let mut span = acquire(&pgmap, 0..PMD);
    let large = pgmap.request_folios(PgmapOff(PMD), Order::Pmd, 1).unwrap();
    assert!(span.append(large).is_err());
    assert!(span.append(acquire(&other, PMD..PMD + 1)).is_err());
    assert!(span.append(acquire(&pgmap, PMD..PMD + 1)).is_ok());
}

#[test]
fn the_clone_of_a_span_holds_each_folio() {
    let pgmap = live(2 * PMD);
    let span = acquire(&pgmap, PMD - 2..PMD + 2);
    let again = span.clone();
    drop(span);
    assert_eq!(busy(&pgmap, 2 * PMD), (PMD - 2..PMD + 2).collect::<Vec<_>>());
    drop(again);
    assert!(pgmap.claim(pages(0..2 * PMD)).is_ok());
}

#[test]
fn a_span_is_frozen_if_one_folio_is() {
    let pgmap = live(2 * PMD);
    let claim = pgmap.claim(pages(PMD + 1..PMD + 2)).unwrap();
    let frozen = FrozenFolio::freeze(claim, Order::Base, &pinned_by("freeze")).unwrap();
    let mut span = acquire(&pgmap, PMD - 1..PMD + 2);
    assert!(span.is_frozen());
    let last = span.split_off(PgmapOff(PMD + 1));
    assert!(last.is_frozen() && !span.is_frozen());
    drop(frozen);
}

/// Verifies the page map when it gets pages, and keeps them.
struct Verifying(PgmapRef, Mutex<Vec<IdleSpan>>);

impl LimboSink for Verifying {
    fn returned(&self, span: IdleSpan) {
        verify(&self.0);
        self.1.lock().push(span);
    }
}

/// The sink may wait for somebody who waits for the pages that were put before.
#[test]
fn what_was_put_is_idle_when_a_page_of_the_span_goes_to_its_sink() {
    let pgmap = live(PMD);
    let span = acquire(&pgmap, 0..8);
    let sink = Arc::new(Verifying(pgmap.clone(), Mutex::default()));
    let deferring: Arc<dyn LimboSink> = sink.clone();
    for page in [3, 5] {
        let (idle, deferred) = pgmap.claim_or_defer(pages(page..page + 1), &deferring).unwrap();
        assert!(idle.is_empty() && deferred.len() == 1);
    }

    drop(span);

    verify(&pgmap);
    assert_eq!(busy(&pgmap, PMD), [3, 5]);
    let kept: Vec<_> = sink.1.lock().drain(..).map(|span| span.pages()).collect();
    assert_eq!(kept, [pages(3..4), pages(5..6)]);
}

#[test]
fn threads_that_acquire_and_put_the_same_pages_leave_them_idle() {
    let pgmap = live(2 * PMD);
    thread::scope(|scope| {
        for worker in 0..3 {
            let pgmap = &pgmap;
            scope.spawn(move || {
                for round in 0..100 {
                    let first = (worker * 37 + round * 11) % PMD;
                    drop(acquire(pgmap, first..first + PMD));
                }
            });
        }
    });
    verify(&pgmap);
    assert!(pgmap.claim(pages(0..2 * PMD)).is_ok());
}
