//! Limbo: pages that their owner gave up come back with the last put, claimed.

use crate::{PMD, PUD, live, pages, pinned_by, verify};
use std::ops::Range;
use std::thread;
use std::time::Duration;
use udax_mm::sync::{Arc, Mutex, mpsc};
use udax_mm::{IdleSpan, LimboSink, Order, PgmapOff, PgmapRef, RequestError};

/// Keeps what comes back.
#[derive(Default)]
struct Kept(Mutex<Vec<IdleSpan>>);

impl LimboSink for Kept {
    fn returned(&self, span: IdleSpan) {
        self.0.lock().push(span);
    }
}

impl Kept {
    /// First page and end of each span, which is dropped.
    fn take(&self) -> Vec<(u64, u64)> {
        let spans = std::mem::take(&mut *self.0.lock());
        spans.iter().map(|span| (span.pages().start.0, span.pages().end.0)).collect()
    }
}

fn sink() -> (Arc<Kept>, Arc<dyn LimboSink>) {
    let kept = Arc::new(Kept::default());
    (kept.clone(), kept)
}

type Outcome = (Vec<Range<PgmapOff>>, Vec<Range<PgmapOff>>);

fn defer(pgmap: &PgmapRef, range: Range<u64>, sink: &Arc<dyn LimboSink>) -> Outcome {
    let (idle, limbo) = pgmap.claim_or_defer(pages(range), sink).expect("nothing is claimed");
    (idle.iter().map(IdleSpan::pages).collect(), limbo)
}

#[test]
fn idle_pages_are_claimed_at_once_and_the_rest_with_the_last_put() {
    let pgmap = live(100);
    let (kept, sink) = sink();
    let folio = pgmap.request_folios(PgmapOff(20), Order::Base, 2).unwrap();
    let transient = pgmap.get_folio(PgmapOff(20)).unwrap();

    let outcome = defer(&pgmap, 10..30, &sink);
    assert_eq!(outcome, (vec![pages(10..20), pages(22..30)], vec![pages(20..22)]));
    verify(&pgmap);
    drop(folio);
    assert_eq!(kept.take(), [(21, 22)]);
    drop(transient);
    assert_eq!(kept.take(), [(20, 21)]);
    verify(&pgmap);
}

#[test]
fn nobody_can_request_a_page_between_its_last_put_and_its_sink() {
    struct Prober(Mutex<Vec<RequestError>>);
    impl LimboSink for Prober {
        fn returned(&self, span: IdleSpan) {
            let refused = span.pgmap().claim(span.pages()).unwrap_err();
            self.0.lock().push(refused);
        }
    }
    let pgmap = live(4);
    let prober = Arc::new(Prober(Mutex::new(Vec::new())));
    let sink: Arc<dyn LimboSink> = prober.clone();
    let pin = pgmap.request_folio(PgmapOff(3), Order::Base).unwrap().pin(pinned_by("dma"));
    drop(pgmap.claim_or_defer(pages(3..4), &sink).unwrap());
    drop(pin);
    assert_eq!(*prober.0.lock(), [RequestError::Busy(PgmapOff(3))]);
    assert!(pgmap.claim(pages(3..4)).is_ok());
}

#[test]
fn parts_of_a_folio_go_to_their_sinks_and_the_rest_is_idle() {
    let pgmap = live(PUD);
    for order in [Order::Pmd, Order::Pud] {
        let (one, one_sink) = sink();
        let (two, two_sink) = sink();
        let folio = pgmap.request_folio(PgmapOff(0), order).unwrap();
        assert_eq!(defer(&pgmap, 5..9, &one_sink), (vec![], vec![pages(5..9)]));
        assert_eq!(defer(&pgmap, 9..40, &two_sink), (vec![], vec![pages(9..40)]));
        assert_eq!(defer(&pgmap, 511..512, &one_sink), (vec![], vec![pages(511..512)]));
        verify(&pgmap);

        drop(folio);
        verify(&pgmap);
        assert!(pgmap.claim(pages(0..5)).is_ok());
        assert!(pgmap.claim(pages(40..511)).is_ok());
        assert_eq!(pgmap.claim(pages(0..41)).unwrap_err(), RequestError::Busy(PgmapOff(5)));
        assert_eq!(one.take(), [(5, 9), (511, 512)]);
        assert_eq!(two.take(), [(9, 40)]);
        verify(&pgmap);
        assert!(pgmap.request_folio(PgmapOff(0), Order::Pud).is_ok());
    }
}

#[test]
fn a_deferral_that_meets_a_claim_changes_nothing() {
    let pgmap = live(2 * PMD);
    let (kept, sink) = sink();
    let folio = pgmap.request_folio(PgmapOff(4), Order::Base).unwrap();
    let claim = pgmap.claim(pages(600..601)).unwrap();

    let refused = pgmap.claim_or_defer(pages(0..PMD + 200), &sink).unwrap_err();

    assert_eq!(refused, RequestError::Busy(PgmapOff(600)));
    assert!(pgmap.claim(pages(0..4)).is_ok());
    drop(folio);
    assert_eq!(kept.take(), []);
    drop(claim);
    verify(&pgmap);
    assert!(pgmap.claim(pages(0..2 * PMD)).is_ok());
}

/// Whoever was asked for the pages puts them at the moment in which their owner gives up the next ones.
#[test]
fn the_rest_of_a_folio_is_given_up_while_its_first_pages_are_on_their_way() {
    struct Slow(Mutex<mpsc::Sender<()>>, Mutex<mpsc::Receiver<()>>);
    impl LimboSink for Slow {
        fn returned(&self, _: IdleSpan) {
            self.0.lock().send(()).unwrap();
            // Until the others are refused, if they are.
            let _ = self.1.lock().recv_timeout(Duration::from_millis(100));
        }
    }
    let pgmap = live(PMD);
    let (entered, has_entered) = mpsc::channel();
    let (done, is_done) = mpsc::channel();
    let slow: Arc<dyn LimboSink> = Arc::new(Slow(Mutex::new(entered), Mutex::new(is_done)));
    let folio = pgmap.request_folio(PgmapOff(0), Order::Pmd).unwrap();
    drop(pgmap.claim_or_defer(pages(5..6), &slow).unwrap());
    let put = thread::spawn(move || drop(folio));
    has_entered.recv().unwrap();

    let (_, other) = sink();
    let rest = pgmap.claim_or_defer(pages(6..PMD), &other);

    // The sink may have ended.
    let _ = done.send(());
    put.join().unwrap();
    let (idle, limbo) = rest.unwrap();
    assert_eq!((idle[0].pages(), idle.len(), limbo), (pages(6..PMD), 1, vec![]));
    drop(idle);
    verify(&pgmap);
}

#[test]
fn a_page_is_deferred_once() {
    let pgmap = live(PMD);
    let (kept, sink) = sink();
    let folio = pgmap.request_folio(PgmapOff(0), Order::Pmd).unwrap();
    drop(pgmap.claim_or_defer(pages(10..20), &sink).unwrap());
    for range in [0..11, 19..20, 12..13, 0..PMD] {
        let refused = pgmap.claim_or_defer(pages(range), &sink).unwrap_err();
        assert!(matches!(refused, RequestError::Busy(_)));
    }
    drop(folio);
    assert_eq!(kept.take(), [(10, 20)]);
    verify(&pgmap);
}

#[test]
fn a_poisoned_page_stays_in_limbo_until_the_poison_is_cleared() {
    let pgmap = live(10);
    let (kept, sink) = sink();
    pgmap.poison(PgmapOff(4));
    let outcome = defer(&pgmap, 3..6, &sink);
    assert_eq!(outcome, (vec![pages(3..4), pages(5..6)], vec![pages(4..5)]));
    assert_eq!(kept.take(), []);
    pgmap.clear_poison(PgmapOff(4));
    assert_eq!(kept.take(), [(4, 5)]);
    verify(&pgmap);
}
