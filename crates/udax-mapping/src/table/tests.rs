//! Leaves: what late answers may hide, how they are joined, and what a zap takes.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use super::{Absent, Leaf, Sharing, Shown, Spare, Table, Target};
use std::ops::Range;
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::vma::Prefault;
use udax_mm::{Access, FileIndex, MediaRange, MemoryType, Order, PAGE_SIZE, Pages, Pgmap};
use udax_mm::{PgmapOff, PgmapRef, Vma, VmaOff};

/// A page map whose page n holds n.
fn pgmap(pages: u64) -> PgmapRef {
    let media = Arc::new(FileMedia::memfd("table", Pages(pages).bytes()).unwrap());
    let range = MediaRange { media, start: 0, pages: Pages(pages) };
    let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).unwrap().try_get_live().unwrap();
    for page in 0..pages.min(200) {
        let byte = u8::try_from(page).unwrap();
        pgmap.write(PgmapOff(page).byte(), &[byte; PAGE_SIZE]).unwrap();
    }
    pgmap
}

fn show(table: &Table, at: u64, pgmap: &PgmapRef, page: u64, order: Order) {
    let first = PgmapOff(page);
    let folios = pgmap.acquire_folios(first, order, 1).unwrap();
    let (access, sharing) = (Access::Read, Sharing::Shared);
    let shown = Shown { folios, first, access, sharing };
    let range = VmaOff(at).span(order.pages());
    table.map_folios(range, VmaOff(at), shown, Prefault::No).unwrap();
}

fn table(pages: u64) -> Table {
    Table::new(Vma::reserve(Pages(pages)).unwrap())
}

/// The leaves, as (first page, pages, whether it shows folios).
fn leaves(table: &Table) -> Vec<(u64, u64, bool)> {
    let mut leaves = Vec::new();
    table.for_each(|leaf| leaves.push((leaf.at.0, leaf.pages.0, leaf.shown().is_some())));
    leaves
}

fn byte(table: &Table, page: u64) -> Option<u8> {
    let mut byte = [0];
    table.vma().read(VmaOff(page).byte(), &mut byte).ok().map(|()| byte[0])
}

fn zap(table: &Table, range: Range<u64>) {
    let range = FileIndex(range.start)..FileIndex(range.end);
    table.zap(&range, |at| FileIndex(at.0), Spare::Nothing);
}

#[test]
fn a_late_failure_does_not_hide_a_folio() {
    let (pgmap, table) = (pgmap(4), table(4));
    show(&table, 2, &pgmap, 3, Order::Base);

    let late = VmaOff(2)..VmaOff(3);
    let shown = table.map_absent(late.clone(), VmaOff(2), Absent::Failed).unwrap();

    assert_eq!((shown, byte(&table, 2)), (late, Some(3)));
}

#[test]
fn a_hole_lies_between_folios() {
    let (pgmap, table) = (pgmap(4), table(4));
    show(&table, 2, &pgmap, 3, Order::Base);

    let all = VmaOff(0)..VmaOff(4);
    let shown = table.map_absent(all.clone(), VmaOff(0), Absent::ReadOnlyHole).unwrap();

    assert_eq!(shown, VmaOff(0)..VmaOff(2));
    assert_eq!(leaves(&table), [(0, 2, false), (2, 1, true)]);

    let shown = table.map_absent(all, VmaOff(3), Absent::ReadOnlyHole).unwrap();

    assert_eq!(shown, VmaOff(3)..VmaOff(4), "it begins behind a folio");
    assert_eq!(leaves(&table), [(0, 2, false), (2, 1, true), (3, 1, false)]);
}

#[test]
fn pages_side_by_side_are_one_leaf_in_whatever_order_they_come() {
    let (pgmap, table) = (pgmap(8), table(8));
    for page in [1, 3, 2, 0] {
        show(&table, page, &pgmap, page + 4, Order::Base);
    }
    show(&table, 4, &pgmap, 0, Order::Base);

    assert_eq!(leaves(&table), [(0, 4, true), (4, 1, true)], "page 0 does not follow page 7");
    assert_eq!([0, 1, 2, 3, 4].map(|at| byte(&table, at)), [4, 5, 6, 7, 0].map(Some));
}

#[test]
fn a_zap_takes_pages_out_of_the_middle_and_their_references() {
    let (pgmap, table) = (pgmap(8), table(8));
    (0..6).for_each(|page| show(&table, page, &pgmap, page, Order::Base));

    zap(&table, 2..4);

    assert_eq!(leaves(&table), [(0, 2, true), (4, 2, true)]);
    assert_eq!([1, 2, 3, 4].map(|at| byte(&table, at)), [Some(1), None, None, Some(4)]);
    assert!(pgmap.claim(PgmapOff(2)..PgmapOff(4)).is_ok(), "I-12");
    assert!(pgmap.claim(PgmapOff(1)..PgmapOff(2)).is_err());
}

#[test]
fn a_zap_takes_a_large_folio_that_it_cuts_as_a_whole() {
    let (pgmap, table) = (pgmap(1536), table(1536));
    (0..3).for_each(|block| show(&table, block * 512, &pgmap, block * 512, Order::Pmd));
    assert_eq!(leaves(&table), [(0, 1536, true)]);

    zap(&table, 600..601);

    assert_eq!(leaves(&table), [(0, 512, true), (1024, 512, true)]);
    assert!(pgmap.claim(PgmapOff(512)..PgmapOff(1024)).is_ok());
}

#[test]
fn a_folio_that_is_shown_in_part_is_counted_for_all_its_pages() {
    let (pgmap, table) = (pgmap(512), table(8));
    let folios = pgmap.acquire_folios(PgmapOff(0), Order::Pmd, 1).unwrap();
    let (access, sharing) = (Access::Read, Sharing::Shared);
    let shown = Shown { folios, first: PgmapOff(100), access, sharing };
    table.map_folios(VmaOff(0)..VmaOff(8), VmaOff(0), shown, Prefault::No).unwrap();

    // The table begins with page 100 of the file; page 7 is outside, and of the same folio.
    let index = |at: VmaOff| FileIndex(100 + at.0);
    table.zap(&(FileIndex(7)..FileIndex(8)), index, Spare::Nothing);

    assert_eq!(leaves(&table), [], "rule 10");
}

#[test]
fn nothing_is_shown_in_a_table_that_was_closed() {
    let (pgmap, table) = (pgmap(4), table(4));
    show(&table, 0, &pgmap, 0, Order::Base);
    table.close();

    show(&table, 1, &pgmap, 1, Order::Base);

    assert_eq!(leaves(&table), []);
    assert!(pgmap.claim(PgmapOff(0)..PgmapOff(4)).is_ok());
}

#[test]
fn leaves_of_different_access_stay_apart() {
    let pgmap = pgmap(4);
    let leaf = |at: u64, access| {
        let first = PgmapOff(at);
        let folios = pgmap.acquire_folios(first, Order::Base, 1).unwrap();
        let target = Target::Folios(Shown { folios, first, access, sharing: Sharing::Shared });
        Leaf { at: VmaOff(at), pages: Pages(1), target }
    };
    let mut first = leaf(0, Access::Read);

    assert!(first.join(leaf(1, Access::Write)).is_some());
    assert!(first.join(leaf(1, Access::Read)).is_none());
    assert!(first.join(leaf(3, Access::Read)).is_some(), "there is a gap");
    assert_eq!(first.range(), VmaOff(0)..VmaOff(2));
}
