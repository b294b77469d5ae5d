//! Random operations against the simplest model: a page is held by the handles that cover it.
//!
//! Besides the handles themselves the model knows which pages are poisoned and which are deferred.
//! After every step the page map verifies itself. `UDAX_STEPS` sets how many steps are taken at
//! least, `UDAX_SEED` repeats a run (`cargo xtask model`).

use crate::{PMD, pages, pgmap_of, pinned_by, verify};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{
    Folio, FolioSpan, IdleSpan, LimboSink, Order, PgmapOff, PgmapRef, PinError, PinnedFolio,
    PinnedSpan, RequestError, Wait,
};

/// The first medium ends inside the second block.
const FIRST: u64 = PMD + 100;
const SIZE: u64 = 4 * PMD;

#[derive(Clone, Debug)]
enum Op {
    Claim(Range<u64>),
    Request(u64, Order, u32),
    Acquire(u64, Order, u32),
    DivideFolios(Index, Index),
    CloneFolios(Index),
    PutFolios(Index),
    Activate(Index, Order),
    Split(Index, Index),
    DropSpan(Index),
    Get(u64),
    Clone(Index),
    Put(Index),
    Pin(Index),
    Unpin(Index),
    PinSpan(Range<u64>),
    UnpinSpan(Index),
    Defer(Range<u64>),
    Poison(u64),
    ClearPoison(u64),
    Kill,
    Reactivate,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Holder {
    Nobody,
    Claim,
    Count,
}

#[derive(Default)]
struct Sink(Mutex<Vec<IdleSpan>>);

impl LimboSink for Sink {
    fn returned(&self, span: IdleSpan) {
        self.0.lock().push(span);
    }
}

struct World {
    pgmap: PgmapRef,
    sink: Arc<Sink>,
    spans: Vec<IdleSpan>,
    folios: Vec<Folio>,
    folio_spans: Vec<FolioSpan>,
    pins: Vec<PinnedFolio>,
    pinned_spans: Vec<PinnedSpan>,
    poisoned: BTreeSet<u64>,
    deferred: BTreeSet<u64>,
}

fn index(page: u64) -> usize {
    usize::try_from(page).expect("a small model")
}

fn number(count: usize) -> u64 {
    u64::try_from(count).expect("a small model")
}

fn at(holders: &[Holder], page: u64) -> Holder {
    holders[index(page)]
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![3 => Just(Order::Base), 2 => Just(Order::Pmd)]
}

/// Often next to the edge of a block.
fn page() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => 0..SIZE,
        3 => (0..4u64, 0..3u64).prop_map(|(block, more)| block * PMD + more),
        1 => (1..4u64).prop_map(|block| block * PMD - 1),
    ]
}

fn span() -> impl Strategy<Value = Range<u64>> {
    let len = prop_oneof![0..4u64, Just(PMD), Just(2 * PMD), 0..SIZE];
    (page(), len).prop_map(|(at, len)| at..SIZE.min(at + len))
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<Index>;
    prop_oneof![
        3 => span().prop_map(Op::Claim),
        4 => (page(), order(), 0..5u32).prop_map(|(at, order, nr)| {
            Op::Request(PgmapOff(at).align_down(order).0, order, nr)
        }),
        4 => (page(), order(), 0..20u32).prop_map(|(at, order, nr)| {
            Op::Acquire(PgmapOff(at).align_down(order).0, order, nr)
        }),
        2 => (index(), index()).prop_map(|(span, at)| Op::DivideFolios(span, at)),
        1 => index().prop_map(Op::CloneFolios),
        4 => index().prop_map(Op::PutFolios),
        2 => (index(), order()).prop_map(|(span, order)| Op::Activate(span, order)),
        2 => (index(), index()).prop_map(|(span, at)| Op::Split(span, at)),
        2 => index().prop_map(Op::DropSpan),
        2 => page().prop_map(Op::Get),
        2 => index().prop_map(Op::Clone),
        5 => index().prop_map(Op::Put),
        2 => index().prop_map(Op::Pin),
        2 => index().prop_map(Op::Unpin),
        2 => span().prop_map(Op::PinSpan),
        2 => index().prop_map(Op::UnpinSpan),
        3 => span().prop_map(Op::Defer),
        1 => page().prop_map(Op::Poison),
        1 => page().prop_map(Op::ClearPoison),
        1 => Just(Op::Kill),
        1 => Just(Op::Reactivate),
    ]
}

fn pick<T>(list: &mut Vec<T>, index: Index) -> Option<T> {
    (!list.is_empty()).then(|| list.swap_remove(index.index(list.len())))
}

impl World {
    fn new() -> World {
        let pgmap = pgmap_of(&[FIRST, SIZE - FIRST]).try_get_live().expect("nobody killed it");
        World {
            pgmap,
            sink: Arc::default(),
            spans: Vec::new(),
            folios: Vec::new(),
            folio_spans: Vec::new(),
            pins: Vec::new(),
            pinned_spans: Vec::new(),
            poisoned: BTreeSet::new(),
            deferred: BTreeSet::new(),
        }
    }

    /// Who holds each page.
    fn holders(&self) -> Vec<Holder> {
        let mut holders = vec![Holder::Nobody; index(SIZE)];
        let mut mark = |pages: Range<PgmapOff>, holder| {
            let range = index(pages.start.0)..index(pages.end.0);
            holders[range].fill(holder);
        };
        self.spans.iter().for_each(|span| mark(span.pages(), Holder::Claim));
        self.folios.iter().for_each(|folio| mark(folio.pages(), Holder::Count));
        self.folio_spans.iter().for_each(|span| mark(span.pages(), Holder::Count));
        self.pins.iter().for_each(|pin| mark(pin.pages(), Holder::Count));
        self.pinned_spans.iter().for_each(|pin| mark(pin.pages(), Holder::Count));
        holders
    }

    /// Why `range` cannot be claimed.
    fn refusal(&self, range: Range<u64>) -> Option<RequestError> {
        let holders = self.holders();
        range.into_iter().find_map(|page| match at(&holders, page) {
            Holder::Claim | Holder::Count => Some(RequestError::Busy(PgmapOff(page))),
            Holder::Nobody => {
                self.poisoned.contains(&page).then_some(RequestError::Poisoned(PgmapOff(page)))
            }
        })
    }

    fn fits(range: &Range<u64>, order: Order) -> bool {
        let aligned = range.start.is_multiple_of(order.pages().0)
            && range.end.is_multiple_of(order.pages().0);
        let crosses = order == Order::Pmd && range.start <= PMD && range.end >= 2 * PMD;
        aligned && !crosses
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Claim(range) => self.claim(range),
            Op::Request(at, order, nr) => self.request(at, order, nr),
            Op::Acquire(at, order, nr) => self.acquire(at, order, nr),
            Op::DivideFolios(span, at) => self.divide_folios(span, at),
            Op::CloneFolios(index) => {
                let span = pick(&mut self.folio_spans, index);
                self.folio_spans.extend(span.into_iter().flat_map(|span| [span.clone(), span]));
            }
            Op::PutFolios(span) => drop(pick(&mut self.folio_spans, span)),
            Op::Activate(span, order) => self.activate(span, order),
            Op::Split(span, at) => self.split(span, at),
            Op::DropSpan(span) => drop(pick(&mut self.spans, span)),
            Op::Get(at) => self.get(at),
            Op::Clone(index) => {
                let folio = pick(&mut self.folios, index);
                self.folios.extend(folio.into_iter().flat_map(|folio| [folio.clone(), folio]));
            }
            Op::Put(folio) => drop(pick(&mut self.folios, folio)),
            Op::Pin(index) => {
                let folio = pick(&mut self.folios, index);
                self.pins.extend(folio.map(|folio| folio.pin(pinned_by("model"))));
            }
            Op::Unpin(pin) => drop(pick(&mut self.pins, pin)),
            Op::PinSpan(range) => self.pin_span(range),
            Op::UnpinSpan(pin) => drop(pick(&mut self.pinned_spans, pin)),
            Op::Defer(range) => self.defer(range),
            Op::Poison(page) => {
                self.poisoned.insert(page);
                self.pgmap.poison(PgmapOff(page));
            }
            Op::ClearPoison(page) => {
                self.poisoned.remove(&page);
                self.pgmap.clear_poison(PgmapOff(page));
            }
            Op::Kill => {
                assert!(self.pgmap.pgmap().kill(Wait::Never).is_err(), "the model holds it");
                assert!(self.pgmap.pgmap().try_get_live().is_none());
            }
            Op::Reactivate => std::mem::replace(self, World::new()).end(),
        }
        self.collect();
    }

    fn claim(&mut self, range: Range<u64>) {
        let refusal = self.refusal(range.clone());
        let claimed = self.pgmap.claim(pages(range));
        assert_eq!(claimed.as_ref().err(), refusal.as_ref());
        self.spans.extend(claimed);
    }

    fn request(&mut self, at: u64, order: Order, nr: u32) {
        let range = at..at + u64::from(nr) * order.pages().0;
        let fits = range.end <= SIZE && World::fits(&range, order);
        let requested = self.pgmap.request_folios(PgmapOff(at), order, nr);
        if fits {
            assert_eq!(requested.as_ref().err(), self.refusal(range).as_ref());
        } else {
            assert!(nr == 0 || requested.is_err());
        }
        self.folios.extend(requested.into_iter().flat_map(FolioSpan::into_folios));
    }

    /// Only where nobody claims a page: a claim is waited for.
    fn acquire(&mut self, at: u64, order: Order, nr: u32) {
        let range = at..at + u64::from(nr) * order.pages().0;
        let holders = self.holders();
        let is_claimed = |page| page < SIZE && holders[index(page)] == Holder::Claim;
        if range.clone().any(is_claimed) {
            return;
        }
        let is_had = |head: u64| match self.pgmap.get_folio(PgmapOff(head)) {
            Some(folio) => folio.order() == order,
            None => self.refusal(head..head + order.pages().0).is_none(),
        };
        let fits = |head: u64| World::fits(&(head..head + order.pages().0), order);
        let mut heads = range.clone().step_by(index(order.pages().0));
        let end = if range.end > SIZE {
            at
        } else {
            heads.find(|&head| !(fits(head) && is_had(head))).unwrap_or(range.end)
        };
        let (span, error) = match self.pgmap.acquire_folios(PgmapOff(at), order, u64::from(nr)) {
            Ok(span) => (span, None),
            Err((span, error)) => (span, Some(error)),
        };
        assert_eq!(span.pages(), pages(at..end), "{error:?}");
        assert_eq!(error.is_some(), end < range.end);
        self.folio_spans.push(span);
    }

    /// Divides a span, and joins the parts where others do not lie between.
    fn divide_folios(&mut self, span: Index, at: Index) {
        let Some(mut span) = pick(&mut self.folio_spans, span) else { return };
        let len = index(span.pages().end.since(span.pages().start).0 / span.order().pages().0);
        let folios = number(at.index(len + 1));
        let rest = span.split_off(PgmapOff(span.pages().start.0 + folios * span.order().pages().0));
        let apart = match self.folio_spans.first_mut() {
            Some(first) => first.append(rest).err(),
            None => Some(rest),
        };
        self.folio_spans.extend(apart);
        self.folio_spans.push(span);
    }

    fn activate(&mut self, span: Index, order: Order) {
        let Some(span) = pick(&mut self.spans, span) else { return };
        let range = span.pages().start.0..span.pages().end.0;
        let healthy = self.poisoned.range(range.clone()).next().is_none();
        let activated = span.activate(order);
        assert_eq!(activated.is_ok(), World::fits(&range, order) && healthy);
        match activated {
            Ok(folios) => self.folios.extend(folios.into_folios()),
            Err((span, _)) => self.spans.push(span),
        }
    }

    fn split(&mut self, span: Index, at: Index) {
        let Some(span) = pick(&mut self.spans, span) else { return };
        let len = index(span.pages().end.since(span.pages().start).0);
        let at = span.pages().start.0 + number(at.index(len + 1));
        let (before, after) = span.split(PgmapOff(at));
        self.spans.extend([before, after]);
    }

    fn get(&mut self, page: u64) {
        let folio = self.pgmap.get_folio(PgmapOff(page));
        assert_eq!(folio.is_some(), at(&self.holders(), page) == Holder::Count);
        self.folios.extend(folio);
    }

    fn pin_span(&mut self, range: Range<u64>) {
        let holders = self.holders();
        let missing = range.clone().find(|&page| at(&holders, page) != Holder::Count);
        let refusal = match missing {
            _ if range.is_empty() => Some(PinError::OutOfRange(pages(range.clone()))),
            Some(page) => Some(PinError::NotCounted(PgmapOff(page))),
            None => {
                let failed = self.poisoned.range(range.clone()).next();
                failed.map(|&page| PinError::Poisoned(PgmapOff(page)))
            }
        };
        let pinned = self.pgmap.pin(pages(range), pinned_by("model"));
        assert_eq!(pinned.as_ref().err(), refusal.as_ref());
        self.pinned_spans.extend(pinned);
    }

    fn defer(&mut self, range: Range<u64>) {
        let holders = self.holders();
        let taken = |page| at(&holders, page) == Holder::Claim || self.deferred.contains(&page);
        let refused = range.clone().any(taken);
        let later =
            |page: &u64| at(&holders, *page) == Holder::Count || self.poisoned.contains(page);
        let expected: BTreeSet<u64> = range.clone().filter(later).collect();
        let sink: Arc<dyn LimboSink> = self.sink.clone();
        let Ok((idle, limbo)) = self.pgmap.claim_or_defer(pages(range.clone()), &sink) else {
            assert!(refused);
            return;
        };
        assert!(!refused);
        let limbo: BTreeSet<u64> = limbo.iter().flat_map(|r| r.start.0..r.end.0).collect();
        assert_eq!(limbo, expected);
        let claimed: u64 = idle.iter().map(|s| s.pages().end.since(s.pages().start).0).sum();
        assert_eq!(claimed + number(limbo.len()), range.end - range.start);
        self.spans.extend(idle);
        self.deferred.extend(limbo);
    }

    /// What the sink got was deferred; what is still deferred has a reason.
    fn collect(&mut self) {
        for span in std::mem::take(&mut *self.sink.0.lock()) {
            let returned = span.pages().start.0..span.pages().end.0;
            assert!(returned.into_iter().all(|page| self.deferred.remove(&page)));
            self.spans.push(span);
        }
        let holders = self.holders();
        let waits =
            |page: &u64| at(&holders, *page) == Holder::Count || self.poisoned.contains(page);
        assert!(self.deferred.iter().all(waits));
    }

    /// Lets go of everything: every page is idle in the end, and the page map dead.
    fn end(self) {
        let World { pgmap, spans, folios, folio_spans, pins, pinned_spans, poisoned, sink, .. } =
            self;
        drop((spans, folios, folio_spans, pins, pinned_spans));
        sink.0.lock().clear();
        for page in poisoned {
            pgmap.clear_poison(PgmapOff(page));
        }
        sink.0.lock().clear();
        verify(&pgmap);
        drop(pgmap.claim(pages(0..SIZE)).expect("every page is idle in the end"));
        let owner = pgmap.pgmap().clone();
        drop(pgmap);
        let _dead = owner.kill(Wait::Never).expect("nobody holds a page");
        assert_eq!(owner.verify(), Ok(()));
    }
}

/// Runs 64 cases; the same seed gives the same ones.
fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// A number from the environment.
fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// F-10.
#[test]
fn every_page_is_held_by_exactly_the_handles_that_cover_it() {
    let steps = told("UDAX_STEPS").unwrap_or(8000);
    let seed = told("UDAX_SEED").unwrap_or_else(|| RandomState::new().hash_one(steps));
    println!("{steps} steps from UDAX_SEED={seed}");
    let taken = AtomicU64::new(0);
    for seed in (0..).map(|round| seed.wrapping_add(round)) {
        let run = runner(seed).run(&vec(op(), 1..60), |ops| {
            let mut world = World::new();
            for op in ops {
                world.apply(op);
                verify(&world.pgmap);
                taken.fetch_add(1, Ordering::Relaxed);
            }
            world.end();
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("UDAX_SEED={seed}: {error}"));
        if taken.load(Ordering::Relaxed) >= steps {
            break;
        }
    }
    println!("{} steps were taken", taken.load(Ordering::Relaxed));
}
