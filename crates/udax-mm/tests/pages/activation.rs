//! The start of a page map: what it takes of its media, and when others may have it.

use crate::{PMD, medium, pages, range};
use std::ops::Range;
use udax_mm::sync::Arc;
use udax_mm::{Media, MemoryType, Order, Pages, Pgmap, PgmapError, PgmapOff, Wait};

fn over(media: &Arc<dyn Media>, pages: Range<u64>) -> Result<Pgmap, PgmapError> {
    let range = range(media, pages.start, pages.end - pages.start);
    Pgmap::new(vec![range], MemoryType::FsDax)
}

#[track_caller]
fn assert_in_use(refused: Result<Pgmap, PgmapError>, at: usize, taken: Range<u64>) {
    let taken = Pages(taken.start).bytes()..Pages(taken.end).bytes();
    match refused {
        Err(PgmapError::InUse { range, taken: found }) => assert_eq!((range, found), (at, taken)),
        other => panic!("{other:?}"),
    }
}

/// F-02, I-05: identical, contained, containing and straddling; the whole range is compared.
#[test]
fn a_part_of_a_medium_has_one_page_map_at_a_time() {
    let media = medium(100);
    let _first = over(&media, 20..40).unwrap();
    for overlapping in [20..40, 25..30, 39..40, 20..21, 0..100, 10..21, 39..50, 19..41] {
        assert_in_use(over(&media, overlapping), 0, 20..40);
    }
    let _below = over(&media, 0..20).unwrap();
    let _above = over(&media, 40..100).unwrap();
}

#[test]
fn another_medium_is_another_memory() {
    let (_first, _second) = (over(&medium(4), 0..4).unwrap(), over(&medium(4), 0..4).unwrap());
}

/// F-01, I-06: what was taken before the range that is refused is given back.
#[test]
fn a_refused_activation_takes_nothing() {
    let (one, two) = (medium(8), medium(8));
    let _taken = over(&two, 4..8).unwrap();
    let ranges = || vec![range(&one, 0, 8), range(&two, 0, 4), range(&two, 6, 1)];
    assert_in_use(Pgmap::new(ranges(), MemoryType::FsDax), 2, 4..8);
    assert_eq!(Arc::strong_count(&one), 1);
    over(&one, 0..8).unwrap();
    over(&two, 0..4).unwrap();
}

/// Live -> Dying -> Dead -> Absent: the media are free again only after the end.
#[test]
fn a_medium_is_free_again_when_its_page_map_is_dead() {
    let media = medium(8);
    let first = over(&media, 0..8).unwrap();
    let folio = first.try_get_live().unwrap().request_folio(PgmapOff(1), Order::Base).unwrap();
    assert!(first.kill(Wait::Never).is_err());
    assert_in_use(over(&media, 0..8), 0, 0..8);
    drop(folio);
    assert!(first.kill(Wait::Never).is_ok());
    let second = over(&media, 0..8).unwrap();
    assert!(first.kill(Wait::Never).is_ok(), "idempotent");
    assert_in_use(over(&media, 0..8), 0, 0..8);
    drop(second);
    over(&media, 0..8).unwrap();
}

#[test]
fn a_medium_is_free_again_when_the_last_handle_is_gone() {
    let media = medium(8);
    let live = over(&media, 0..8).unwrap().try_get_live().unwrap();
    assert_in_use(over(&media, 0..8), 0, 0..8);
    drop(live);
    over(&media, 0..8).unwrap();
}

/// B-36, I-63: nothing of the first life shows in the second, not even its order.
#[test]
fn a_second_life_starts_with_idle_pages() {
    let media = medium(2 * PMD);
    let first = Pgmap::new(vec![range(&media, 0, 2 * PMD)], MemoryType::Generic(Order::Pmd));
    let first = first.unwrap();
    let live = first.try_get_live().unwrap();
    let _ = live.request_folios(PgmapOff(0), Order::Pmd, 2).unwrap();
    live.poison(PgmapOff(7));
    drop(live);
    assert!(first.kill(Wait::Never).is_ok());

    let second = over(&media, 0..2 * PMD).unwrap();
    let live = second.try_get_live().unwrap();
    assert_eq!(second.verify(), Ok(()));
    drop(live.claim(pages(0..2 * PMD)).unwrap());
    let _page = live.request_folio(PgmapOff(7), Order::Base).unwrap();
    assert_eq!(second.verify(), Ok(()));
}

/// The last put makes a dying page map dead, and its media free, though nobody asks again.
#[test]
fn a_medium_is_free_again_with_the_last_put_after_a_kill() {
    let media = medium(8);
    let first = over(&media, 0..8).unwrap();
    let folio = first.try_get_live().unwrap().request_folio(PgmapOff(1), Order::Base).unwrap();
    assert!(first.kill(Wait::Never).is_err());
    drop(folio);
    over(&media, 0..8).unwrap();
}
