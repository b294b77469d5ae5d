//! What a user mapping shows: pages of many folios at once, and private copies of them.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Instant;
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::{
    Access, FolioSpan, FrozenFolio, MediaError, MediaRange, MemoryType, Order, PAGE_SIZE, Pages,
    Pgmap, PgmapOff, PgmapRef, PinInfo, PinKind, PinOwner, PinTerm, Prefault, Vma, VmaOff,
};

const PAGE: u64 = 4096;

/// A page map over media of these sizes, in which every word of page `n` is `n + 1`.
fn pgmap(sizes: &[u64]) -> PgmapRef {
    let range = |&pages: &u64| {
        let media = Arc::new(FileMedia::memfd("show", pages * PAGE).unwrap());
        MediaRange { media, start: 0, pages: Pages(pages) }
    };
    let ranges = sizes.iter().map(range).collect();
    let pgmap = Pgmap::new(ranges, MemoryType::FsDax).unwrap().try_get_live().unwrap();
    for page in 0..pgmap.size().0 {
        pgmap.write(page * PAGE, &(page + 1).to_le_bytes().repeat(PAGE_SIZE / 8)).unwrap();
    }
    pgmap
}

fn pages(range: Range<u64>) -> Range<PgmapOff> {
    PgmapOff(range.start)..PgmapOff(range.end)
}

fn folios(pgmap: &PgmapRef, range: Range<u64>) -> FolioSpan {
    let nr = range.end - range.start;
    pgmap.acquire_folios(PgmapOff(range.start), Order::Base, nr).map_err(|(_, e)| e).unwrap()
}

/// The first word of each page, if it can be loaded.
fn words(vma: &Vma) -> Vec<Option<u64>> {
    (0..vma.pages().0).map(|page| vma.load_u64(page * PAGE).ok()).collect()
}

/// How many areas of the host lie in a vma.
fn areas(vma: &Vma) -> usize {
    let (start, end) = (vma.addr(), vma.addr() + usize::try_from(vma.pages().bytes()).unwrap());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let first = |line: &str| usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
    maps.lines().map(first).filter(|at| (start..end).contains(at)).count()
}

/// Which pages of a vma are present, as the host tells.
fn present(vma: &Vma) -> Vec<bool> {
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    let entry = |page: u64| {
        let mut entry = [0; 8];
        let at = (u64::try_from(vma.addr()).unwrap() / PAGE + page) * 8;
        pagemap.read_exact_at(&mut entry, at).unwrap();
        u64::from_ne_bytes(entry) >> 63 == 1
    };
    (0..vma.pages().0).map(entry).collect()
}

fn freeze(pgmap: &PgmapRef, page: u64) -> Vec<FrozenFolio> {
    let owner = PinOwner { process: 1, connection: 0, label: "test".into() };
    let info = PinInfo { owner, since: Instant::now(), kind: PinKind::Read, term: PinTerm::Long };
    FrozenFolio::freeze(pgmap.claim(pages(page..page + 1)).unwrap(), Order::Base, &info).unwrap()
}

#[test]
fn pages_of_many_folios_are_one_area_of_the_host() {
    let pgmap = pgmap(&[64]);
    let span = folios(&pgmap, 8..40);
    let vma = Vma::reserve(Pages(6)).unwrap();
    vma.map_span(VmaOff(0), &span, pages(20..26), Access::Write, Prefault::No).unwrap();

    assert_eq!(words(&vma), (21..27).map(Some).collect::<Vec<_>>());
    assert_eq!(areas(&vma), 1);
    vma.store_u64(5 * PAGE + 8, 7).unwrap();
    assert_eq!(pgmap.load_u64(25 * PAGE + 8).unwrap(), 7);

    vma.map_span(VmaOff(2), &span, pages(8..9), Access::Read, Prefault::No).unwrap();
    assert_eq!(vma.load_u64(2 * PAGE).unwrap(), 9);
    assert!(matches!(vma.store_u64(2 * PAGE, 1), Err(MediaError::Fault { .. })));
}

#[test]
fn a_range_that_crosses_media_shows_each_of_them() {
    let pgmap = pgmap(&[5, 3, 8]);
    let span = folios(&pgmap, 0..16);
    let vma = Vma::reserve(Pages(14)).unwrap();
    vma.map_span(VmaOff(1), &span, pages(2..15), Access::Read, Prefault::Yes).unwrap();
    assert_eq!(words(&vma)[1..], (3..16).map(Some).collect::<Vec<_>>());
}

#[test]
fn prefaulted_pages_are_there_before_they_are_touched() {
    let pgmap = pgmap(&[16]);
    let span = folios(&pgmap, 0..16);
    let vma = Vma::reserve(Pages(8)).unwrap();
    vma.map_span(VmaOff(0), &span, pages(0..4), Access::Write, Prefault::Yes).unwrap();
    vma.map_span(VmaOff(4), &span, pages(8..12), Access::Write, Prefault::No).unwrap();
    assert_eq!(present(&vma), [true, true, true, true, false, false, false, false]);
}

#[test]
fn what_must_not_be_shown_is_refused() {
    let pgmap = pgmap(&[16]);
    let frozen = freeze(&pgmap, 5);
    let span = folios(&pgmap, 0..16);
    pgmap.poison(PgmapOff(11));
    let vma = Vma::reserve(Pages(16)).unwrap();
    let map = |range, access| vma.map_span(VmaOff(0), &span, pages(range), access, Prefault::No);

    let error = map(2..8, Access::Write).unwrap_err();
    assert_eq!(error.to_string(), "page 5 is frozen and cannot be mapped writable");
    map(2..5, Access::Write).unwrap();
    map(6..8, Access::Write).unwrap();
    map(2..8, Access::Read).unwrap();
    assert_eq!(map(8..12, Access::Read).unwrap_err().to_string(), "page 11 is poisoned");
    let private = vma.map_private(VmaOff(0), &span, pages(10..12), Access::Read).unwrap_err();
    assert_eq!(private.to_string(), "page 11 is poisoned");
    drop(frozen);
}

#[test]
fn a_large_folio_that_is_frozen_is_refused_in_part() {
    let pgmap = pgmap(&[1024]);
    let owner = PinOwner { process: 1, connection: 0, label: "test".into() };
    let info = PinInfo { owner, since: Instant::now(), kind: PinKind::Read, term: PinTerm::Long };
    let claim = pgmap.claim(pages(512..1024)).unwrap();
    let _frozen = FrozenFolio::freeze(claim, Order::Pmd, &info).unwrap();
    let span = pgmap.acquire_folios(PgmapOff(0), Order::Pmd, 2).unwrap();
    let vma = Vma::reserve(Pages(4)).unwrap();
    let map = |range| vma.map_span(VmaOff(0), &span, pages(range), Access::Write, Prefault::No);
    map(500..504).unwrap();
    assert!(map(700..704).is_err());
    assert!(map(510..514).is_err());
}

#[test]
fn a_private_page_is_copied_with_its_first_store_and_nobody_else_sees_that() {
    let pgmap = pgmap(&[16]);
    let span = folios(&pgmap, 0..16);
    let vma = Vma::reserve(Pages(8)).unwrap();
    vma.map_private(VmaOff(1), &span, pages(4..10), Access::Write).unwrap();
    assert_eq!(words(&vma)[1..7], (5..11).map(Some).collect::<Vec<_>>());
    assert_eq!(vma.copied_pages(VmaOff(0)..VmaOff(8)).unwrap(), []);

    for page in [2, 3, 6] {
        vma.store_u64(page * PAGE, 99).unwrap();
    }

    let words = words(&vma);
    assert_eq!(words[1..7], [5, 99, 99, 8, 9, 99].map(Some));
    let copied = [VmaOff(2)..VmaOff(4), VmaOff(6)..VmaOff(7)];
    assert_eq!(vma.copied_pages(VmaOff(0)..VmaOff(8)).unwrap(), copied);
    assert_eq!(vma.copied_pages(VmaOff(3)..VmaOff(6)).unwrap(), [VmaOff(3)..VmaOff(4)]);
    assert!((4..10).all(|page| pgmap.load_u64(page * PAGE).unwrap() == page + 1));
    pgmap.store_u64(4 * PAGE, 41).unwrap();
    pgmap.store_u64(5 * PAGE + 8, 42).unwrap();
    assert_eq!(vma.load_u64(PAGE).unwrap(), 41, "not copied yet");
    assert_eq!(vma.load_u64(2 * PAGE + 8).unwrap(), 6, "copied before");

    vma.zap(VmaOff(2), Pages(1)).unwrap();
    assert_eq!(vma.copied_pages(VmaOff(0)..VmaOff(4)).unwrap(), [VmaOff(3)..VmaOff(4)]);
}

#[test]
fn more_copies_than_one_look_takes_are_found() {
    let pgmap = pgmap(&[1300]);
    let span = folios(&pgmap, 0..1300);
    let vma = Vma::reserve(Pages(1300)).unwrap();
    vma.map_private(VmaOff(0), &span, pages(0..1300), Access::Write).unwrap();
    (500..1100).for_each(|page| vma.store_u64(page * PAGE, 1).unwrap());
    let copied = vma.copied_pages(VmaOff(0)..VmaOff(1300)).unwrap();
    assert_eq!(copied, [VmaOff(500)..VmaOff(1100)]);
}

#[test]
fn a_frozen_page_may_be_copied_and_stays_as_it_is() {
    let pgmap = pgmap(&[16]);
    let frozen = freeze(&pgmap, 5);
    let span = folios(&pgmap, 5..6);
    let vma = Vma::reserve(Pages(1)).unwrap();
    vma.map_private(VmaOff(0), &span, pages(5..6), Access::Write).unwrap();
    vma.store_u64(0, 99).unwrap();
    assert_eq!(vma.load_u64(0).unwrap(), 99);
    assert_eq!(pgmap.load_u64(5 * PAGE).unwrap(), 6);
    drop(frozen);
}

#[test]
fn a_private_hole_is_zeros_and_takes_stores() {
    let vma = Vma::reserve(Pages(4)).unwrap();
    vma.map_private_hole(VmaOff(1), Pages(2)).unwrap();
    assert_eq!(vma.load_u64(PAGE).unwrap(), 0);
    vma.store_u64(2 * PAGE, 5).unwrap();
    assert_eq!(vma.load_u64(2 * PAGE).unwrap(), 5);
    assert!(vma.load_u64(0).is_err() && vma.load_u64(3 * PAGE).is_err());
}
