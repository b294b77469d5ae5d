//! Opening and closing page maps, and threads that count folios at once.
//!
//! Of the rows with threads, compare two with one: the time of an operation stays the same where
//! threads do not meet, and the work of two is twice that of one.

use divan::{Bencher, black_box};
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::{Folio, Media, MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff, PgmapRef};

/// Operations per sample: enough for threads to run at once for most of it.
const ROUNDS: u32 = 200_000;

const TERABYTE: u64 = 1 << 40;

fn main() {
    divan::main();
}

fn open(media: &Arc<dyn Media>, pages: Pages) -> Pgmap {
    let range = MediaRange { media: Arc::clone(media), start: 0, pages };
    Pgmap::new(vec![range], MemoryType::FsDax).expect("the range is good")
}

fn pgmap() -> (Pgmap, PgmapRef) {
    let pages = Order::Pud.pages();
    let media: Arc<dyn Media> = Arc::new(FileMedia::memfd("bench", pages.bytes()).expect("memfd"));
    let pgmap = open(&media, pages);
    let live = pgmap.try_get_live().expect("nobody killed it");
    (pgmap, live)
}

#[divan::bench]
fn open_and_close_1_tib(bencher: Bencher<'_, '_>) {
    let media: Arc<dyn Media> = Arc::new(FileMedia::memfd("bench", TERABYTE).expect("sparse"));
    bencher.bench_local(|| drop(black_box(open(&media, Pages(TERABYTE / 4096)))));
}

#[divan::bench]
fn open_and_close_1_tib_with_its_medium(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| {
        let media: Arc<dyn Media> = Arc::new(FileMedia::memfd("bench", TERABYTE).expect("sparse"));
        drop(black_box(open(&media, Pages(TERABYTE / 4096))));
    });
}

/// The page of this thread: two threads have different ones.
fn page() -> PgmapOff {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static PAGE: PgmapOff = PgmapOff(NEXT.fetch_add(1000, Ordering::Relaxed));
    }
    PAGE.with(|page| *page)
}

fn get_and_put(folio: &Folio) {
    for _ in 0..ROUNDS {
        let got = black_box(folio).clone();
        black_box(&got);
    }
}

#[divan::bench(threads = [1, 2], sample_count = 40)]
fn get_and_put_of_different_folios(bencher: Bencher<'_, '_>) {
    let (_owner, pgmap) = pgmap();
    bencher.counter(ROUNDS).bench(|| {
        get_and_put(&pgmap.request_folio(page(), Order::Base).expect("idle"));
    });
}

#[divan::bench(threads = [1, 2], sample_count = 40)]
fn get_and_put_of_one_folio(bencher: Bencher<'_, '_>) {
    let (_owner, pgmap) = pgmap();
    let folio = pgmap.request_folio(PgmapOff(0), Order::Base).expect("idle");
    bencher.counter(ROUNDS).bench(|| get_and_put(&folio));
}

#[divan::bench(threads = [1, 2], sample_count = 40)]
fn bare_add_and_sub_of_one_atomic(bencher: Bencher<'_, '_>) {
    let count = AtomicU64::new(1);
    bencher.counter(ROUNDS).bench(|| {
        for _ in 0..ROUNDS {
            black_box(&count).fetch_add(1, Ordering::Relaxed);
            black_box(&count).fetch_sub(1, Ordering::Release);
        }
    });
}

#[divan::bench(threads = [1, 2], sample_count = 40)]
fn request_and_put_of_different_folios(bencher: Bencher<'_, '_>) {
    let (_owner, pgmap) = pgmap();
    bencher.counter(ROUNDS).bench(|| {
        let at = page();
        for _ in 0..ROUNDS {
            let folio = pgmap.request_folio(black_box(at), Order::Base).expect("idle");
            black_box(&folio);
        }
    });
}
