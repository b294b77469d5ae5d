//! Spans of folios, which many references are taken and put with at once.

use crate::support::info;
use crate::{NEXT, PAGE, PMD, long_model, page, pgmap, verify, with};
use loom::model;
use udax_mm::sync::thread::spawn;
use udax_mm::{FrozenFolio, Order, PgmapOff, PgmapRef, RequestError};

/// Rule 4: a block is raised once for the pages that one thread acquires, by as many as turn out to
/// be idle.
///
/// Kills: pages that were counted already and stay raised; a span that does not lower for each.
#[test]
fn pages_that_two_threads_acquire_are_counted_once_in_the_block_above() {
    model(|| {
        let pgmap = pgmap(2);
        let acquire = |pgmap: PgmapRef| pgmap.acquire_folios(PAGE, Order::Base, 2).unwrap();
        let other = with(&pgmap, acquire);

        let span = acquire(pgmap.clone());

        let other = other.join().unwrap();
        verify(&pgmap);
        drop((span, other));
        verify(&pgmap);
        assert!(pgmap.claim(PAGE..PgmapOff(2)).is_ok());
    });
}

/// A page that is between the two steps of its last put is neither counted nor idle. It is looked
/// at again.
///
/// Kills: an acquisition that gives up at once.
#[test]
fn a_page_can_be_acquired_while_it_is_put() {
    model(|| {
        let pgmap = pgmap(1);
        let frozen = FrozenFolio::freeze(pgmap.claim(page(PAGE)).unwrap(), Order::Base, &info());
        let put = spawn(move || drop(frozen));

        let again = pgmap.acquire_folios(PAGE, Order::Base, 1).unwrap();

        put.join().unwrap();
        verify(&pgmap);
        assert_eq!(pgmap.claim(again.pages()).unwrap_err(), RequestError::Busy(PAGE));
    });
}

/// A page of a larger folio does not become one of its own in a moment, so nobody waits for it.
///
/// Kills: an acquisition that looks again whatever it has seen.
#[test]
fn a_page_of_a_larger_folio_is_refused_at_once() {
    long_model(|| {
        let pgmap = pgmap(PMD);
        let large = pgmap.request_folio(PAGE, Order::Pmd).unwrap();

        let (none, error) = pgmap.acquire_folios(NEXT, Order::Base, 1).unwrap_err();

        assert!(none.is_empty());
        assert_eq!(error, RequestError::Busy(NEXT));
        drop(large);
    });
}
