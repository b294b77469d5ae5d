//! Claims: all pages or none, and nobody else meanwhile.

use crate::{PMD, PUD, live, medium, pages, pgmap_of, pinned_by, range, verify};
use udax_mm::sync::Arc;
use udax_mm::{MemoryType, Order, Pgmap, PgmapError, PgmapOff, RequestError, Wait};

#[test]
fn a_claim_takes_all_pages_or_none() {
    let pgmap = live(3 * PMD);
    let busy = pgmap.request_folio(PgmapOff(2 * PMD + 5), Order::Base).unwrap();

    let refused = pgmap.claim(pages(1..3 * PMD)).unwrap_err();

    assert_eq!(refused, RequestError::Busy(PgmapOff(2 * PMD + 5)));
    verify(&pgmap);
    drop(busy);
    drop(pgmap.claim(pages(0..3 * PMD)).unwrap());
    verify(&pgmap);
}

#[test]
fn a_claimed_page_is_neither_claimed_nor_requested_nor_got() {
    let pgmap = live(2 * PMD);
    let span = pgmap.claim(pages(0..PMD)).unwrap();

    let busy = RequestError::Busy(PgmapOff(7));

    assert_eq!(pgmap.claim(pages(7..8)).unwrap_err(), busy);
    let request = pgmap.request_folio(PgmapOff(7), Order::Base);
    assert_eq!(request.unwrap_err(), busy);
    assert!(pgmap.get_folio(PgmapOff(7)).is_none());
    drop(span);
    assert!(pgmap.request_folio(PgmapOff(7), Order::Base).is_ok());
}

#[test]
fn a_block_with_one_busy_page_is_refused_at_that_page() {
    let pgmap = live(PUD);
    let _folio = pgmap.request_folio(PgmapOff(9 * PMD + 3), Order::Base).unwrap();

    let at = |order| pgmap.request_folio(PgmapOff(9 * PMD).align_down(order), order).unwrap_err();

    assert_eq!(at(Order::Pmd), RequestError::Busy(PgmapOff(9 * PMD + 3)));
    assert_eq!(at(Order::Pud), RequestError::Busy(PgmapOff(9 * PMD + 3)));
}

#[test]
fn a_claim_outside_the_pgmap_is_refused() {
    let pgmap = live(10);
    for range in [pages(0..11), pages(11..11), PgmapOff(5)..PgmapOff(4)] {
        let refused = pgmap.claim(range.clone()).unwrap_err();
        assert_eq!(refused, RequestError::OutOfRange(range));
    }
    assert!(pgmap.get_folio(PgmapOff(10)).is_none());
}

#[test]
fn a_request_that_is_too_long_for_a_number_is_refused() {
    let pgmap = live(10);
    let at = PgmapOff(u64::MAX).align_down(Order::Pmd);
    assert!(pgmap.request_folios(at, Order::Pmd, u32::MAX).is_err());
}

#[test]
fn an_empty_claim_claims_nothing() {
    let pgmap = live(4);
    let span = pgmap.claim(pages(2..2)).unwrap();
    assert!(pgmap.claim(pages(0..4)).is_ok());
    drop(span);
    verify(&pgmap);
}

#[test]
fn the_parts_of_a_split_claim_are_idle_one_by_one() {
    let pgmap = live(PUD);
    for at in [0, 1, PMD - 1, PMD, 7 * PMD + 3, PUD - 1, PUD] {
        let (before, after) = pgmap.claim(pages(0..PUD)).unwrap().split(PgmapOff(at));
        assert_eq!((before.pages(), after.pages()), (pages(0..at), pages(at..PUD)));
        verify(&pgmap);
        drop(before);
        verify(&pgmap);
        assert!(pgmap.claim(pages(0..at)).is_ok());
        assert!(at == PUD || pgmap.claim(pages(at..at + 1)).is_err());
        drop(after);
        verify(&pgmap);
        assert!(pgmap.request_folio(PgmapOff(0), Order::Pud).is_ok());
    }
}

#[test]
fn a_claim_of_a_block_becomes_pages() {
    let pgmap = live(PMD);
    let folios = pgmap.claim(pages(0..PMD)).unwrap().activate(Order::Base).unwrap();
    verify(&pgmap);
    let mut folios: Vec<_> = folios.into_folios().collect();
    assert_eq!(folios.len(), 512);
    folios.remove(100);
    verify(&pgmap);
    assert!(pgmap.claim(pages(100..101)).is_ok());
    assert!(pgmap.claim(pages(101..102)).is_err());
}

/// F-11: of a size nothing is left behind.
#[test]
fn a_block_that_was_one_folio_becomes_pages_and_one_folio_again() {
    let pgmap = live(2 * PMD);
    for _ in 0..2 {
        let block = pgmap.request_folio(PgmapOff(PMD), Order::Pmd).unwrap();
        verify(&pgmap);
        drop(block);
        verify(&pgmap);

        let folios = pgmap.request_folios(PgmapOff(PMD), Order::Base, 512).unwrap();
        verify(&pgmap);
        let last = folios.into_folios().last().unwrap();
        verify(&pgmap);
        assert_eq!((last.head(), last.order()), (PgmapOff(2 * PMD - 1), Order::Base));
        assert_eq!(last.pgmap().pgmap(), pgmap.pgmap());
        let busy = pgmap.request_folio(PgmapOff(PMD), Order::Pmd).unwrap_err();
        assert_eq!(busy, RequestError::Busy(last.head()));
        drop(last);
        verify(&pgmap);
    }
}

/// The pages were claimed one by one, because one of them was busy when the first were claimed.
#[test]
fn claims_of_pages_become_a_block() {
    struct Nobody;
    impl udax_mm::LimboSink for Nobody {
        fn returned(&self, span: udax_mm::IdleSpan) {
            drop(span);
        }
    }
    let pgmap = live(PMD);
    let folio = pgmap.request_folio(PgmapOff(9), Order::Base).unwrap();
    let sink: udax_mm::sync::Arc<dyn udax_mm::LimboSink> = udax_mm::sync::Arc::new(Nobody);
    let (mut idle, _) = pgmap.claim_or_defer(pages(0..9), &sink).unwrap();
    drop(folio);
    let (rest, _) = pgmap.claim_or_defer(pages(9..PMD), &sink).unwrap();
    drop((idle.pop(), rest));

    let (first, second) = pgmap.claim(pages(0..PMD)).unwrap().split(PgmapOff(9));
    drop(first);
    let (again, _) = pgmap.claim_or_defer(pages(0..9), &sink).unwrap();
    drop((again, second));
    let folio = pgmap.request_folio(PgmapOff(0), Order::Pmd).unwrap();
    verify(&pgmap);
    assert_eq!(folio.pages(), pages(0..PMD));
}

#[test]
fn a_folio_is_aligned_and_lies_in_one_medium() {
    let pgmap = pgmap_of(&[PMD / 2, 2 * PMD]).try_get_live().unwrap();
    let misaligned = RequestError::Misaligned { offset: PgmapOff(256), order: Order::Pmd };
    let crossing = RequestError::Crossing { offset: PgmapOff(0), order: Order::Pmd };

    assert_eq!(pgmap.request_folio(PgmapOff(256), Order::Pmd).unwrap_err(), misaligned);
    assert_eq!(pgmap.request_folio(PgmapOff(0), Order::Pmd).unwrap_err(), crossing);
    assert!(pgmap.request_folio(PgmapOff(PMD), Order::Pmd).is_ok());
    let (span, error) = pgmap.claim(pages(0..PMD)).unwrap().activate(Order::Pmd).unwrap_err();
    assert_eq!((span.pages(), error), (pages(0..PMD), crossing));
    verify(&pgmap);
}

/// I-09.
#[test]
fn a_generic_pgmap_has_folios_of_one_order() {
    let kind = MemoryType::Generic(Order::Pmd);
    let pgmap = Pgmap::new(vec![range(&medium(PMD), 0, PMD)], kind).unwrap();
    let pgmap = pgmap.try_get_live().unwrap();
    let wrong = RequestError::WrongOrder { order: Order::Base, fixed: Order::Pmd };
    assert_eq!(pgmap.request_folio(PgmapOff(0), Order::Base).unwrap_err(), wrong);
    assert!(pgmap.request_folio(PgmapOff(0), Order::Pmd).is_ok());
}

/// I-05: the whole ranges are compared, not their ends.
#[test]
fn ranges_that_overlap_anywhere_are_refused() {
    let media = medium(100);
    let other = medium(100);
    let check = |first: (u64, u64), second: (u64, u64)| {
        let first = range(&media, first.0, first.1);
        let ranges = vec![range(&other, 0, 100), first, range(&media, second.0, second.1)];
        Pgmap::new(ranges, MemoryType::FsDax)
    };
    for second in [(10, 5), (5, 6), (14, 1), (14, 9), (0, 100), (12, 1)] {
        let refused = check((10, 5), second).unwrap_err();
        assert!(matches!(refused, PgmapError::Overlap { first: 1, second: 2 }), "{refused}");
    }
    for second in [(0, 10), (15, 85)] {
        assert!(check((10, 5), second).is_ok());
    }
}

#[test]
fn a_bad_range_is_named() {
    let media = medium(10);
    let check = |bad| Pgmap::new(vec![range(&media, 0, 1), bad], MemoryType::FsDax).unwrap_err();
    let mut odd = range(&media, 1, 1);
    odd.start += 512;

    assert!(matches!(Pgmap::new(vec![], MemoryType::FsDax), Err(PgmapError::Empty)));
    assert!(matches!(check(range(&media, 5, 0)), PgmapError::ZeroLength { range: 1 }));
    assert!(matches!(check(range(&media, 5, 6)), PgmapError::OutOfRange { range: 1, .. }));
    assert!(matches!(check(odd), PgmapError::Misaligned { range: 1, start: 4608 }));
}

/// The words of a large page map are zero memory that nobody touches.
#[test]
fn a_terabyte_of_pages_is_described_at_once() {
    let pgmap = live(1 << 28);
    let last = PgmapOff((1 << 28) - PUD);
    let folio = pgmap.request_folio(last, Order::Pud).unwrap();
    assert_eq!(pgmap.get_folio(PgmapOff((1 << 28) - 1)).unwrap().head(), folio.head());
}

/// F-01, I-06.
#[test]
fn a_third_range_that_is_bad_lets_go_of_the_media() {
    let media = [medium(10), medium(10), medium(10)];
    let good = || vec![range(&media[0], 0, 10), range(&media[1], 2, 8)];
    for (medium, start, pages) in [(2, 0, 0), (2, 1, 10), (1, 9, 1)] {
        let bad = range(&media[medium], start, pages);
        let ranges = good().into_iter().chain([bad]).collect();
        assert!(Pgmap::new(ranges, MemoryType::FsDax).is_err());
        assert_eq!(media.each_ref().map(Arc::strong_count), [1, 1, 1]);
    }
    let pgmap = Pgmap::new(good(), MemoryType::FsDax).unwrap().try_get_live().unwrap();
    drop(pgmap.claim(pages(0..18)).unwrap());
    verify(&pgmap);
}

/// F-01, B-36: nothing of its first life is met in the second.
#[test]
fn a_second_life_of_a_medium_begins_with_idle_pages() {
    let media = medium(2 * PMD);
    let life = |kind| Pgmap::new(vec![range(&media, 0, 2 * PMD)], kind).unwrap();
    let first = life(MemoryType::Generic(Order::Pmd));
    let live = first.try_get_live().unwrap();
    let folio = live.request_folio(PgmapOff(0), Order::Pmd).unwrap();
    live.poison(PgmapOff(7));
    drop((live, folio.pin(pinned_by("driver")), folio));
    let _dead = first.kill(Wait::Never).unwrap();
    drop(first);

    let second = life(MemoryType::FsDax);

    assert!(second.pins().is_empty());
    let live = second.try_get_live().unwrap();
    assert!(live.get_folio(PgmapOff(7)).is_none());
    let folios = live.request_folios(PgmapOff(0), Order::Base, 1024).unwrap();
    verify(&live);
    drop(folios);
    drop(live.claim(pages(0..2 * PMD)).unwrap());
}
