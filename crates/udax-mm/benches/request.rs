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

/// The page map, and a live reference. Without the first its references would count by one word.
fn pgmap() -> (Pgmap, PgmapRef) {
    let pages = Order::Pud.pages();
    let media = FileMedia::memfd("bench", pages.bytes()).expect("memfd works");
    let range = MediaRange { media: Arc::new(media), start: 0, pages: Pages(pages.0) };
    let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).expect("the range is good");
    let live = pgmap.try_get_live().expect("nobody killed it");
    (pgmap, live)
}

fn rounds(bencher: Bencher<'_, '_>, mut once: impl FnMut()) {
    bencher.counter(ROUNDS).bench_local(|| (0..ROUNDS).for_each(|_| once()));
}

fn request(pgmap: &PgmapRef, order: Order) {
    let folio = pgmap.request_folio(black_box(PgmapOff(0)), order).expect("idle");
    black_box(&folio);
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
    let (_owner, pgmap) = pgmap();
    let folio = pgmap.request_folio(PgmapOff(3), Order::Base).expect("idle");
    rounds(bencher, || {
        let got = black_box(&folio).clone();
        black_box(&got);
    });
}

#[divan::bench]
fn get_folio_and_put(bencher: Bencher<'_, '_>) {
    let (_owner, pgmap) = pgmap();
    let _folio = pgmap.request_folio(PgmapOff(3), Order::Base).expect("idle");
    rounds(bencher, || {
        let got = pgmap.get_folio(black_box(PgmapOff(3)));
        black_box(&got);
    });
}

#[divan::bench(args = [Order::Base, Order::Pmd, Order::Pud])]
fn request_and_put(bencher: Bencher<'_, '_>, order: Order) {
    let (_owner, pgmap) = pgmap();
    rounds(bencher, || request(&pgmap, order));
}

/// As in a file of small pages: the block above stays busy.
#[divan::bench]
fn request_and_put_beside_another(bencher: Bencher<'_, '_>) {
    let (_owner, pgmap) = pgmap();
    let _other = pgmap.request_folio(PgmapOff(1), Order::Base).expect("idle");
    rounds(bencher, || request(&pgmap, Order::Base));
}

fn info() -> PinInfo {
    let owner = PinOwner { process: 1, connection: 0, label: "bench".into() };
    PinInfo { owner, since: Instant::now(), kind: PinKind::Read, term: PinTerm::Short }
}

/// 1 GiB in 512 folios: compare with 512 x 3 bare pairs.
#[divan::bench]
fn pin_and_unpin_512_folios(bencher: Bencher<'_, '_>) {
    let (_owner, pgmap) = pgmap();
    let folios = pgmap.request_folios(PgmapOff(0), Order::Pmd, 512).expect("idle");
    let info = info();
    bencher.bench_local(|| drop(pgmap.pin(folios.pages(), info.clone()).expect("counted")));
}

#[divan::bench]
fn pin_and_unpin(bencher: Bencher<'_, '_>) {
    let info = info();
    let (_owner, pgmap) = pgmap();
    let folio = pgmap.request_folio(PgmapOff(3), Order::Base).expect("idle");
    rounds(bencher, || drop(black_box(folio.pin(info.clone()))));
}
