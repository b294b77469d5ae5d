//! What a reference costs, next to a bare atomic counter.
//!
//! Compare the rows with `bare_add_and_sub`: absolute times say something about the machine only.

use divan::Bencher;
use divan::black_box;
use std::time::Instant;
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::{
    MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff, PgmapRef, PinInfo, PinKind, PinOwner,
    PinTerm,
};

/// Operations per sample, so that the clock is not what is measured.
const ROUNDS: u32 = 1000;

fn main() {
    divan::main();
}

fn pgmap() -> PgmapRef {
    let pages = Order::Pud.pages();
    let media = FileMedia::memfd("bench", pages.bytes()).expect("memfd works");
    let range = MediaRange { media: Arc::new(media), start: 0, pages: Pages(pages.0) };
    let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).expect("the range is good");
    pgmap.try_get_live().expect("nobody killed it")
}

fn rounds(bencher: Bencher<'_, '_>, mut once: impl FnMut()) {
    bencher.counter(ROUNDS).bench_local(|| (0..ROUNDS).for_each(|_| once()));
}

#[divan::bench]
fn bare_add_and_sub(bencher: Bencher<'_, '_>) {
    let count = AtomicU64::new(1);
    rounds(bencher, || {
        black_box(&count).fetch_add(1, Ordering::Relaxed);
        black_box(&count).fetch_sub(1, Ordering::Release);
    });
}

#[divan::bench]
fn get_and_put(bencher: Bencher<'_, '_>) {
    let folio = pgmap().request_folio(PgmapOff(3), Order::Base).expect("idle");
    rounds(bencher, || drop(black_box(black_box(&folio).clone())));
}

#[divan::bench]
fn get_folio_and_put(bencher: Bencher<'_, '_>) {
    let pgmap = pgmap();
    let _folio = pgmap.request_folio(PgmapOff(3), Order::Base).expect("idle");
    rounds(bencher, || drop(black_box(pgmap.get_folio(black_box(PgmapOff(3))))));
}

#[divan::bench(args = [Order::Base, Order::Pmd, Order::Pud])]
fn request_and_put(bencher: Bencher<'_, '_>, order: Order) {
    let pgmap = pgmap();
    rounds(bencher, || drop(black_box(pgmap.request_folio(PgmapOff(0), order)).expect("idle")));
}

/// As in a file of small pages: the block above stays busy.
#[divan::bench]
fn request_and_put_beside_another(bencher: Bencher<'_, '_>) {
    let pgmap = pgmap();
    let _other = pgmap.request_folio(PgmapOff(1), Order::Base).expect("idle");
    rounds(bencher, || {
        drop(black_box(pgmap.request_folio(PgmapOff(0), Order::Base)).expect("idle"));
    });
}

#[divan::bench]
fn pin_and_unpin(bencher: Bencher<'_, '_>) {
    let owner = PinOwner { process: 1, connection: 0, label: "bench".into() };
    let since = Instant::now();
    let info = PinInfo { owner, since, kind: PinKind::Read, term: PinTerm::Short };
    let folio = pgmap().request_folio(PgmapOff(3), Order::Base).expect("idle");
    rounds(bencher, || drop(black_box(folio.pin(info.clone()))));
}
