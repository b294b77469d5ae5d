//! Bytes: one space over all media, and frozen pages that do not change.

use crate::{live, pages, pgmap_of, pinned_by, verify};
use std::panic::Location;
use udax_mm::{FrozenFolio, MediaError, Order, PgmapOff};

const PAGE: u64 = 4096;

#[test]
fn copies_cross_from_one_medium_into_the_next() {
    let pgmap = pgmap_of(&[1, 2, 1]).try_get_live().unwrap();
    let bytes: Vec<u8> = (0..3 * PAGE).map(|n| u8::try_from(n % 251).unwrap()).collect();
    pgmap.write(100, &bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    pgmap.read(100, &mut back).unwrap();
    assert_eq!(back, bytes);

    pgmap.zero(PAGE - 10, 20).unwrap();
    pgmap.read(100, &mut back).unwrap();
    let hole = 3986..4006;
    assert!(back[hole.clone()].iter().all(|&byte| byte == 0));
    assert_eq!((&back[..3986], &back[4006..]), (&bytes[..3986], &bytes[4006..]));
    pgmap.flush(0, 4 * PAGE, Location::caller()).unwrap();
    pgmap.fence(Location::caller()).unwrap();
}

#[test]
fn a_page_is_located_in_its_medium() {
    let pgmap = pgmap_of(&[3, 5]).try_get_live().unwrap();
    assert_eq!(pgmap.contiguous(PgmapOff(1)).0, 2);
    assert_eq!(pgmap.contiguous(PgmapOff(3)).0, 5);
    let (media, byte) = pgmap.locate(PgmapOff(4));
    assert_eq!((media.len(), byte), (5 * PAGE, PAGE));
}

#[test]
fn words_are_little_endian_and_aligned() {
    let pgmap = pgmap_of(&[1, 1]).try_get_live().unwrap();
    pgmap.store_u64(PAGE, 0x0102_0304_0506_0708).unwrap();
    let mut bytes = [0; 8];
    pgmap.read(PAGE, &mut bytes).unwrap();
    assert_eq!(bytes, [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(pgmap.load_u64(PAGE).unwrap(), 0x0102_0304_0506_0708);
    assert!(matches!(pgmap.load_u64(4), Err(MediaError::Misaligned { at: 4 })));
}

#[test]
fn bytes_outside_the_pgmap_are_refused() {
    let pgmap = live(2);
    let outside = |result| matches!(result, Err(MediaError::OutOfRange { .. }));
    assert!(outside(pgmap.read(2 * PAGE - 1, &mut [0; 2])));
    assert!(outside(pgmap.write(u64::MAX, &[0; 2])));
    assert!(outside(pgmap.zero(0, 2 * PAGE + 1)));
    assert!(outside(pgmap.load_u64(2 * PAGE).map(drop)));
    assert!(outside(pgmap.flush(0, u64::MAX, Location::caller())));
    assert!(pgmap.write(2 * PAGE, &[]).is_ok());
}

#[test]
fn frozen_pages_refuse_stores_until_they_are_idle() {
    let pgmap = live(10);
    let span = pgmap.claim(pages(4..6)).unwrap();
    let frozen = FrozenFolio::freeze(span, Order::Base, &pinned_by("reader")).unwrap();
    verify(&pgmap);
    let refused = |result, byte| matches!(result, Err(MediaError::Frozen { at }) if at == byte);

    assert!(refused(pgmap.write(4 * PAGE - 1, b"ab"), 4 * PAGE));
    assert!(refused(pgmap.zero(5 * PAGE + 8, 1), 5 * PAGE + 8));
    assert!(refused(pgmap.store_u64(6 * PAGE - 8, 1), 6 * PAGE - 8));
    assert!(pgmap.write(4 * PAGE - 1, b"a").is_ok());
    assert!(pgmap.write(6 * PAGE, b"a").is_ok());

    let again = FrozenFolio::get(&pgmap, PgmapOff(5), pinned_by("other")).unwrap();
    drop(frozen);
    assert!(refused(pgmap.write(5 * PAGE, b"a"), 5 * PAGE));
    let mapped = again.borrow().to_folio();
    drop(again);
    assert!(refused(pgmap.write(5 * PAGE, b"a"), 5 * PAGE));
    drop(mapped);
    assert!(pgmap.write(5 * PAGE, b"a").is_ok());
    verify(&pgmap);
}

#[test]
fn only_a_frozen_page_gives_a_frozen_folio() {
    let pgmap = live(10);
    let _folio = pgmap.request_folio(PgmapOff(1), Order::Base).unwrap();
    for page in [0, 1, 10] {
        assert!(FrozenFolio::get(&pgmap, PgmapOff(page), pinned_by("reader")).is_none());
    }
}
