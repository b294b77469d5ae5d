//! Pinned spans: one handle and one entry in the list, a pin on every folio.

use crate::memory::Freeing;
use crate::{PMD, live, medium, pages, pgmap_of, pinned_by, range, verify};
use std::thread;
use udax_mm::image::Image;
use udax_mm::recorder::Recorder;
use udax_mm::sync::Arc;
use udax_mm::{
    Folio, FrozenFolio, Media, MediaError, MemoryType, Order, Pgmap, PgmapOff, PgmapRef, PinError,
    PinInfo, PinKind, RequestError, Wait,
};

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

/// What a device is told: the bytes are at those addresses, across media and folios.
#[test]
fn iovecs_are_where_the_bytes_of_the_pinned_pages_are() {
    let pgmap = pgmap_of(&[PMD, 8]);
    let live = pgmap.try_get_live().unwrap();
    let pin = live.request_folios(PgmapOff(PMD - 2), Order::Base, 5).unwrap();
    let pin = pin.into_pinned(pinned_by("dma"));

    let iovecs = pin.iovecs().unwrap();

    let lengths: Vec<usize> = iovecs.iter().map(|iovec| iovec.len).collect();
    assert_eq!(lengths, [2 * 4096, 3 * 4096]);
    for (iovec, at) in iovecs.iter().zip([PMD - 2, PMD]) {
        let (media, byte) = live.locate(PgmapOff(at));
        let start = media.address().unwrap().addr().get();
        assert_eq!(iovec.start.addr().get() - start, usize::try_from(byte).unwrap());
    }
}

#[test]
fn ranges_that_follow_one_another_in_one_medium_are_one_iovec() {
    let media = medium(8);
    let ranges = vec![range(&media, 2, 3), range(&media, 5, 3), range(&media, 0, 2)];
    let pgmap = Pgmap::new(ranges, MemoryType::FsDax).unwrap().try_get_live().unwrap();
    let pin = pgmap.request_folios(PgmapOff(0), Order::Base, 8).unwrap();
    let pin = pin.into_pinned(pinned_by("dma"));
    let lengths: Vec<usize> = pin.iovecs().unwrap().iter().map(|i| i.len / 4096).collect();
    assert_eq!(lengths, [6, 2]);
}

#[test]
fn what_is_not_mapped_in_this_process_has_no_iovec() {
    let recorder: Arc<dyn Media> = Arc::new(Recorder::new(Image::zeroed(8 * 4096)));
    let private = MemoryType::Private(Arc::new(Freeing::default()));
    for (media, kind) in [(recorder, MemoryType::FsDax), (medium(8), private)] {
        let pgmap = Pgmap::new(vec![range(&media, 0, 8)], kind).unwrap().try_get_live().unwrap();
        let pin = pgmap.request_folios(PgmapOff(3), Order::Base, 1).unwrap();
        let refused = pin.into_pinned(pinned_by("dma")).iovecs();
        assert!(matches!(refused, Err(MediaError::NotAddressable { at: 12_288 })), "{refused:?}");
    }
}

#[test]
fn a_frozen_page_is_pinned_for_reading_only() {
    let pgmap = live(4);
    let span = pgmap.claim(pages(0..4)).unwrap();
    let _frozen = FrozenFolio::freeze(span, Order::Base, &pinned_by("model")).unwrap();
    let info = |kind| PinInfo { kind, ..pinned_by("dma") };
    let refused = pgmap.pin(pages(1..3), info(PinKind::Write)).unwrap_err();
    assert_eq!(refused, PinError::Frozen(PgmapOff(1)));
    assert!(pgmap.pin(pages(1..3), info(PinKind::Read)).is_ok());
    verify(&pgmap);
}

#[test]
fn a_page_that_failed_is_not_pinned() {
    let pgmap = live(2 * PMD);
    let _folio = pgmap.request_folio(PgmapOff(PMD), Order::Pmd).unwrap();
    pgmap.poison(PgmapOff(PMD + 5));
    let refused = pgmap.pin(pages(PMD + 3..PMD + 9), pinned_by("dma")).unwrap_err();
    assert_eq!(refused, PinError::Poisoned(PgmapOff(PMD + 5)));
    verify(&pgmap);
    assert_eq!(pgmap.first_pinned(pages(0..2 * PMD)), None);
    let pin = pgmap.pin(pages(PMD..PMD + 5), pinned_by("dma")).unwrap();
    let refused = pin.iovecs();
    assert!(matches!(refused, Err(MediaError::Poisoned { .. })), "it pins the whole folio");
}

#[test]
fn a_pin_of_no_folio_is_not_listed() {
    let pgmap = live(16);
    let pin = pgmap.request_folios(PgmapOff(5), Order::Base, 0).unwrap();
    let _pin = pin.into_pinned(pinned_by("dma"));
    assert!(pgmap.pins_in(pages(0..16)).is_empty());
    verify(&pgmap);
}
