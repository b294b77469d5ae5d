//! Pages that their owner gives up while others put them.

use crate::{BLOCK, Kept, NEXT, PAGE, PMD, page, pgmap, request, verify};
use loom::model;
use udax_mm::sync::Arc;
use udax_mm::sync::thread::spawn;
use udax_mm::{IdleSpan, LimboSink, Order, RequestError};

/// A deferred page comes back exactly once: at once, or with the last put.
///
/// Kills: LIMBO set without looking whether somebody still counts the page; a sink registered
/// after the bit is set and the lock is released.
#[test]
fn a_page_deferred_while_it_is_put_comes_back_once() {
    model(|| {
        let pgmap = pgmap(1);
        let folio = request(&pgmap, PAGE);
        let kept = Arc::new(Kept::default());
        let sink: Arc<dyn LimboSink> = kept.clone();
        let put = spawn(move || drop(folio));

        let (idle, limbo) = pgmap.claim_or_defer(page(PAGE), &sink).unwrap();

        put.join().unwrap();
        let returned = std::mem::take(&mut *kept.0.lock());
        assert_eq!((idle.len() + returned.len(), limbo.len()), (1, returned.len()));
        assert_eq!(pgmap.claim(page(PAGE)).unwrap_err(), RequestError::Busy(PAGE));
        drop((idle, returned));
        verify(&pgmap);
    });
}

/// Who gives up the rest of a folio while its last put hands the first page on gets the rest, and is
/// not told that somebody has it.
///
/// Kills: a last put that tells nobody what it is handing on.
#[test]
fn the_rest_of_a_folio_is_deferred_beside_its_last_put() {
    model(|| {
        let pgmap = pgmap(PMD);
        let folio = pgmap.request_folio(PAGE, Order::Pmd).unwrap();
        let kept = Arc::new(Kept::default());
        let sink: Arc<dyn LimboSink> = kept.clone();
        drop(pgmap.claim_or_defer(page(PAGE), &sink).unwrap());
        let put = spawn(move || drop(folio));

        let (idle, _) = pgmap.claim_or_defer(NEXT..BLOCK.end, &sink).unwrap();

        put.join().unwrap();
        let returned = std::mem::take(&mut *kept.0.lock());
        let count = |span: &IdleSpan| span.pages().end.since(span.pages().start).0;
        assert_eq!(idle.iter().chain(&returned).map(count).sum::<u64>(), PMD);
        drop((idle, returned));
        verify(&pgmap);
        assert!(pgmap.claim(BLOCK).is_ok());
    });
}

/// Drops what comes back.
struct Dropped;

impl LimboSink for Dropped {
    fn returned(&self, span: IdleSpan) {
        drop(span);
    }
}

/// Two folios whose last puts run: a deferral that meets the one on its way and looks again is not
/// refused for the other.
///
/// Kills: a word that is taken back before the last put that it will make claim the page.
#[test]
fn who_was_refused_looks_again_beside_a_last_put() {
    model(|| {
        let pgmap = pgmap(1);
        let folio = request(&pgmap, PAGE);
        let sink: Arc<dyn LimboSink> = Arc::new(Dropped);
        let put = spawn(move || drop(folio));
        drop(pgmap.claim_or_defer(page(PAGE), &sink).unwrap());
        pgmap.withdraw(page(PAGE));

        let again = pgmap.claim_or_defer(page(PAGE), &sink);

        put.join().unwrap();
        drop(again.unwrap());
        verify(&pgmap);
    });
}
