//! What a large page map costs: by itself nothing, then a word for each page that is used.
//!
//! A test program of its own, with one test, because what it measures is that of the process.

use std::fs;
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::{MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff};

const TEBIBYTE: Pages = Pages(1 << 28);
const GIBIBYTE: u32 = 1 << 18;
const MEBIBYTE: u64 = 1 << 20;

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let told = fs::read_to_string("/proc/self/statm").expect("the host tells");
    let pages = told.split_whitespace().nth(1).expect("the second number");
    Pages(pages.parse().expect("a number")).bytes()
}

/// F-56.
#[test]
fn a_sparse_tebibyte_costs_a_word_for_each_page_that_was_used() {
    let media = Arc::new(FileMedia::memfd("sparse", TEBIBYTE.bytes()).unwrap());
    let range = MediaRange { media, start: 0, pages: TEBIBYTE };
    let before = resident();

    let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).unwrap();

    let live = pgmap.try_get_live().unwrap();
    let last = PgmapOff(TEBIBYTE.0 - 1);
    drop(live.request_folio(last.align_down(Order::Pud), Order::Pud).unwrap());
    assert!(resident().saturating_sub(before) < MEBIBYTE, "opening it touches no word");

    let folios = live.request_folios(PgmapOff(0), Order::Base, 4 * GIBIBYTE).unwrap();

    let words = 4 * u64::from(GIBIBYTE) * 8;
    // The host may round each of the three tables up to huge pages.
    let spent = resident().saturating_sub(before);
    assert!(spent < words + words / 80 + 6 * MEBIBYTE, "{spent} bytes for {words} bytes of words");
    drop(folios);
    drop((live, pgmap));
    assert!(resident() < before + MEBIBYTE, "it is given back");
}
