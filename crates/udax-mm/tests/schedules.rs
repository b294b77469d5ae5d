//! Random schedules: threads that claim, request, pin, put, defer, poison, kill and bring back one
//! small page map, in orders drawn at random, with every invariant checked once they are quiet.
//!
//! Run with `cargo xtask schedules`. A failure names its seed, which repeats it. Shuttle does not
//! know stale loads; those are loom's.
//!
//! Nobody may wait for what nobody will give back. So a thread that sleeps holds nothing, and while
//! one sleeps nothing is left on the shelf: not by threads that end, and not by the last put.

#![cfg(shuttle)]

#[path = "support/explore.rs"]
mod explore;
mod holders;
mod support;

use holders::{Hand, Held, Holders};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use std::mem;
use std::ops::Range;
use support::{Counter, info};
use udax_mm::sync::thread::spawn;
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{
    FrozenFolio, IdleSpan, LimboSink, MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff,
    PgmapRef, RequestError, Wait,
};

/// One block, and a few pages of the next.
const SIZE: u64 = 520;
const ALL: Range<PgmapOff> = PgmapOff(0)..PgmapOff(SIZE);

/// The pages that single pages are drawn from. What happens to the others happens to a whole block.
const PAGES: [PgmapOff; 5] =
    [PgmapOff(0), PgmapOff(1), PgmapOff(511), PgmapOff(512), PgmapOff(519)];

/// The first pages and ends of the ranges that are drawn: some in a block, one across two.
const RANGES: [(u64, u64); 7] =
    [(0, 1), (0, 2), (1, 2), (510, 513), (512, 514), (0, 512), (0, SIZE)];

const THREADS: usize = 3;
const STEPS: usize = 8;

/// What a thread does at once.
type Step = fn(&mut Actor);

/// How often each step is drawn.
const WEIGHTS: [(u32, Step); 18] = [
    (6, Actor::claim),
    (6, Actor::activate),
    (2, Actor::split),
    (2, Actor::freeze),
    (8, Actor::request),
    (8, Actor::get),
    (5, Actor::duplicate),
    (5, Actor::pin),
    (4, Actor::pin_range),
    (10, Actor::put),
    (4, Actor::put_all),
    (6, Actor::defer),
    (5, Actor::poison),
    (6, Actor::clear_poison),
    (4, Actor::exchange),
    (3, Actor::wait_unpinned),
    (3, Actor::kill),
    (2, Actor::kill_and_wait),
];

/// Handles that no thread holds: put aside by one, to be taken or put by another.
#[derive(Default)]
struct Shelf {
    stock: Mutex<Stock>,
    holders: Arc<Holders>,
}

#[derive(Default)]
struct Stock {
    hands: Vec<Hand>,
    /// Threads that wait for the handles of others.
    sleepers: u32,
    /// Pages that were deferred, less those that came back. May be negative while one of the two is
    /// being told.
    promised: i64,
}

/// A page map that is brought back whenever it has died, its memory, and what lies about.
struct World {
    odds: Odds,
    media: Arc<Counter>,
    pgmap: Mutex<Pgmap>,
    shelf: Arc<Shelf>,
}

/// What the threads of one execution do, and where. A few steps on a few pages meet more often than
/// all on all; so each execution leaves some out.
struct Odds {
    steps: Vec<(u32, Step)>,
    pages: Vec<PgmapOff>,
    ranges: Vec<(u64, u64)>,
}

/// A thread, and the handles that it holds.
struct Actor {
    world: Arc<World>,
    /// Of the page map, from the beginning of a step on; none if that was dying.
    live: Option<PgmapRef>,
    hands: Vec<Hand>,
}

#[test]
fn random_schedules_keep_every_invariant() {
    explore::explore(RandomScheduler::new_from_seed, execution);
}

#[test]
fn schedules_of_few_preemptions_keep_every_invariant() {
    explore::explore(|seed, count| PctScheduler::new_from_seed(seed, 3, count), execution);
}

impl Shelf {
    /// Puts handles aside, or gives them back if somebody waits for them.
    fn leave(&self, hands: Vec<Hand>) {
        let mut stock = self.stock.lock();
        if stock.sleepers == 0 {
            stock.hands.extend(hands);
            return;
        }
        drop(stock);
        drop(hands);
    }

    fn take_all(&self) -> Vec<Hand> {
        mem::take(&mut self.stock.lock().hands)
    }

    /// Waits for what others hold, with nothing left here.
    fn sleep<T>(&self, wait: impl FnOnce() -> T) -> T {
        let mut stock = self.stock.lock();
        stock.sleepers += 1;
        let hands = mem::take(&mut stock.hands);
        drop(stock);
        drop(hands);
        let woken = wait();
        self.stock.lock().sleepers -= 1;
        woken
    }

    /// Gives everything back, and what comes of that.
    fn clear(&self) {
        loop {
            let mut hands = self.take_all();
            if hands.is_empty() {
                return;
            }
            while !hands.is_empty() {
                drop(hands.swap_remove(draw(hands.len())));
            }
        }
    }
}

impl LimboSink for Shelf {
    fn returned(&self, span: IdleSpan) {
        self.stock.lock().promised -= count(&span.pages());
        self.leave(vec![Hand::new(Held::Claim(span), &self.holders)]);
    }
}

impl World {
    fn new() -> Arc<World> {
        let media = Arc::default();
        let pgmap = Mutex::new(pgmap_on(&media));
        Arc::new(World { odds: Odds::new(), media, pgmap, shelf: Arc::default() })
    }

    fn pgmap(&self) -> Pgmap {
        self.pgmap.lock().clone()
    }

    /// Puts a fresh page map in the place of a dead one.
    fn reactivate(&self) {
        let mut pgmap = self.pgmap.lock();
        if pgmap.kill(Wait::Never).is_ok() {
            self.shelf.holders.assert_nobody();
            // Poisoned pages that nobody holds do not come back.
            self.shelf.stock.lock().promised = 0;
            *pgmap = pgmap_on(&self.media);
        }
    }

    /// Checks everything at a moment when no other thread runs.
    fn verify(&self) {
        let hands = self.shelf.take_all();
        let pgmap = self.pgmap();
        assert_eq!(pgmap.verify(), Ok(()));
        let pins = hands.iter().filter(|hand| hand.is_pin()).count();
        assert_eq!(pgmap.pins().len(), pins);
        let live = pgmap.try_get_live().or_else(|| Some(hands.first()?.pgmap()));
        match live {
            Some(live) => PAGES.into_iter().for_each(|page| verify_page(&live, page, &hands)),
            None => assert!(pgmap.kill(Wait::Never).is_ok(), "nobody holds it"),
        }
        self.shelf.leave(hands);
    }

    /// Ends the page map whose handles were all given back, and finds a new one idle.
    fn end(&self) {
        let pgmap = self.pgmap();
        if let Some(live) = pgmap.try_get_live() {
            for page in PAGES {
                live.clear_poison(page);
            }
            self.shelf.clear();
            assert_eq!(self.shelf.stock.lock().promised, 0, "what was deferred came back once");
            assert!(live.claim(ALL).is_ok(), "every page is idle");
        }
        assert!(pgmap.kill(Wait::Forever).is_ok());
        assert_eq!(pgmap.verify(), Ok(()));
        self.reactivate();
        let live = self.pgmap().try_get_live().expect("it is alive again");
        assert_eq!(live.pgmap().verify(), Ok(()));
        assert!(live.claim(ALL).is_ok(), "every page is idle");
    }

    /// Gives up the page map while it is live, and its handles on two threads.
    fn abandon(self: Arc<World>) {
        let mut hands = self.shelf.take_all();
        let others = hands.split_off(hands.len() / 2);
        let shelf = Arc::clone(&self.shelf);
        let put = [hands, others].map(|hands| spawn(move || drop(hands)));
        drop(self);
        for put in put {
            put.join().expect("a panic ends the execution");
        }
        shelf.clear();
    }
}

impl Odds {
    fn new() -> Odds {
        Odds { steps: some_of(&WEIGHTS), pages: some_of(&PAGES), ranges: some_of(&RANGES) }
    }

    fn step(&self) -> Step {
        let mut left = thread_rng().gen_range(0..self.steps.iter().map(|(weight, _)| weight).sum());
        for &(weight, step) in &self.steps {
            if left < weight {
                return step;
            }
            left -= weight;
        }
        unreachable!("less than all weights was drawn")
    }

    fn page(&self) -> PgmapOff {
        self.pages[draw(self.pages.len())]
    }

    fn range(&self) -> Range<PgmapOff> {
        let (start, end) = self.ranges[draw(self.ranges.len())];
        PgmapOff(start)..PgmapOff(end)
    }
}

impl Actor {
    fn run(mut self) {
        for _ in 0..STEPS {
            self.live = self.world.pgmap().try_get_live();
            match self.live {
                Some(_) => self.world.odds.step()(&mut self),
                None => self.come_back(),
            }
        }
        self.live = None;
        self.world.shelf.leave(self.hands);
    }

    /// The page map is dying, and whoever kills it waits for our handles.
    fn come_back(&mut self) {
        self.hands.clear();
        if thread_rng().gen_bool(0.7) {
            self.world.reactivate();
        }
    }

    fn claim(&mut self) {
        let claimed = self.live().claim(self.world.odds.range());
        self.hold(claimed.ok().map(Held::Claim));
    }

    fn activate(&mut self) {
        let Some(span) = self.take_claim() else { return };
        let activated = span.activate(drawn_order());
        self.hold(Some(activated.map_or_else(|(span, _)| Held::Claim(span), Held::Folios)));
    }

    fn split(&mut self) {
        let Some(span) = self.take_claim() else { return };
        let pages = span.pages();
        let at = PAGES.into_iter().find(|page| *page > pages.start && *page < pages.end);
        let (before, after) = span.split(at.unwrap_or(pages.end));
        self.hold([before, after].map(Held::Claim));
    }

    fn freeze(&mut self) {
        let Some(span) = self.take_claim() else { return };
        // A frozen folio is a handle for each page, and a block has too many.
        let order =
            if span.pages() == (PgmapOff(0)..PgmapOff(512)) { Order::Pmd } else { Order::Base };
        match FrozenFolio::freeze(span, order, &info()) {
            Ok(frozen) => self.hold(frozen.into_iter().map(Held::Frozen)),
            Err((span, _)) => self.hold([Held::Claim(span)]),
        }
    }

    fn request(&mut self) {
        let requested = match drawn_order() {
            Order::Base => self.live().request_folio(self.world.odds.page(), Order::Base),
            large => self.live().request_folio(PgmapOff(0), large),
        };
        self.hold(requested.ok().map(Held::Folio));
    }

    fn get(&mut self) {
        self.hold(self.live().get_folio(self.world.odds.page()).map(Held::Folio));
    }

    fn duplicate(&mut self) {
        let clone = self.drawn_hand().and_then(Hand::to_folio);
        self.hold(clone.map(Held::Folio));
    }

    fn pin(&mut self) {
        let folio = self.drawn_hand().and_then(Hand::to_folio);
        self.hold(folio.map(|folio| Held::Pin(folio.pin(info()))));
    }

    fn pin_range(&mut self) {
        self.hold(self.live().pin(self.world.odds.range(), info()).ok().map(Held::Pins));
    }

    fn put(&mut self) {
        drop(self.take());
    }

    fn put_all(&mut self) {
        self.hands.clear();
    }

    fn defer(&mut self) {
        let shelf = Arc::clone(&self.world.shelf);
        let sink: Arc<dyn LimboSink> = shelf.clone();
        if let Ok((idle, limbo)) = self.live().claim_or_defer(self.world.odds.range(), &sink) {
            shelf.stock.lock().promised += limbo.iter().map(count).sum::<i64>();
            self.hold(idle.into_iter().map(Held::Claim));
        }
    }

    fn poison(&mut self) {
        self.live().poison(self.world.odds.page());
    }

    fn clear_poison(&mut self) {
        self.live().clear_poison(self.world.odds.page());
    }

    /// Handles change hands, so that one thread puts what another took.
    fn exchange(&mut self) {
        let theirs = self.world.shelf.take_all();
        let mine = mem::replace(&mut self.hands, theirs);
        self.world.shelf.leave(mine);
    }

    fn wait_unpinned(&mut self) {
        self.hands.clear();
        let pages = self.world.odds.range();
        let waited = self.world.shelf.sleep(|| self.live().wait_unpinned(pages, Wait::Forever));
        assert_eq!(waited, Ok(()));
    }

    fn kill(&mut self) {
        let pgmap = self.live().pgmap().clone();
        self.live = None;
        let is_dead = pgmap.kill(Wait::Never).is_ok();
        assert!(self.hands.is_empty() || !is_dead, "our own handles keep it");
        assert!(pgmap.try_get_live().is_none(), "I-02: kill refuses from its return on");
    }

    fn kill_and_wait(&mut self) {
        let pgmap = self.live().pgmap().clone();
        self.live = None;
        self.hands.clear();
        assert!(self.world.shelf.sleep(|| pgmap.kill(Wait::Forever)).is_ok());
        assert!(pgmap.try_get_live().is_none(), "I-02: kill refuses from its return on");
        assert_eq!(pgmap.verify(), Ok(()));
    }

    fn live(&self) -> &PgmapRef {
        self.live.as_ref().expect("a step begins with a page map that was live")
    }

    fn hold(&mut self, held: impl IntoIterator<Item = Held>) {
        let holders = &self.world.shelf.holders;
        self.hands.extend(held.into_iter().map(|held| Hand::new(held, holders)));
    }

    fn take(&mut self) -> Option<Hand> {
        (!self.hands.is_empty()).then(|| self.hands.swap_remove(draw(self.hands.len())))
    }

    /// A claim, if one is found where we look.
    fn take_claim(&mut self) -> Option<IdleSpan> {
        let place = self.hands.iter().position(Hand::is_claim)?;
        match self.hands.swap_remove(place).into_held() {
            Held::Claim(span) => Some(span),
            _ => unreachable!("a claim was found"),
        }
    }

    fn drawn_hand(&self) -> Option<&Hand> {
        (!self.hands.is_empty()).then(|| &self.hands[draw(self.hands.len())])
    }
}

/// The word of a page says what the handles do: a claim is refused if and only if somebody holds
/// the page, or it is poisoned.
fn verify_page(live: &PgmapRef, page: PgmapOff, hands: &[Hand]) {
    let of_page = || hands.iter().filter(|hand| hand.pages().contains(&page));
    let this = page..PgmapOff(page.0 + 1);
    let expected = match (of_page().count(), live.first_poisoned(this.clone())) {
        (0, None) => Ok(()),
        (0, Some(_)) => Err(RequestError::Poisoned(page)),
        _ => Err(RequestError::Busy(page)),
    };
    assert_eq!(live.claim(this.clone()).map(drop), expected, "a claim of page {page}");
    let is_claimed = of_page().any(Hand::is_claim);
    assert!(
        !is_claimed || of_page().count() == 1,
        "page {page} has one claim, and nobody counts it"
    );
    let is_counted = of_page().count() > 0 && !is_claimed;
    assert_eq!(live.get_folio(page).is_some(), is_counted, "whether page {page} is counted");
    let is_pinned = of_page().any(Hand::is_pin);
    assert_eq!(
        live.first_pinned(this.clone()).is_some(),
        is_pinned,
        "whether page {page} is pinned"
    );
}

/// One execution: the threads run, and what is left is checked, given back and checked again.
fn execution() {
    let world = World::new();
    let threads = [(); THREADS].map(|()| {
        let actor = Actor { world: Arc::clone(&world), live: None, hands: Vec::new() };
        spawn(move || actor.run())
    });
    for thread in threads {
        thread.join().expect("a panic ends the execution");
    }
    world.verify();
    let media = Arc::clone(&world.media);
    if thread_rng().gen_bool(0.5) {
        world.shelf.clear();
        world.verify();
        world.end();
        drop(world);
    } else {
        world.abandon();
    }
    assert_eq!(Arc::strong_count(&media), 1, "every page map is freed");
}

fn pgmap_on(media: &Arc<Counter>) -> Pgmap {
    let range = MediaRange { media: media.clone(), start: 0, pages: Pages(SIZE) };
    Pgmap::new(vec![range], MemoryType::FsDax).expect("it lies on the medium")
}

fn count(pages: &Range<PgmapOff>) -> i64 {
    i64::try_from(pages.end.since(pages.start).0).expect("few pages")
}

fn draw(end: usize) -> usize {
    thread_rng().gen_range(0..end)
}

/// Some of `all`, and at least one.
fn some_of<T: Copy>(all: &[T]) -> Vec<T> {
    let kept = thread_rng().gen_range(0.0..1.0);
    let mut some: Vec<T> = all.iter().filter(|_| thread_rng().gen_bool(kept)).copied().collect();
    if some.is_empty() {
        some.push(all[draw(all.len())]);
    }
    some
}

fn drawn_order() -> Order {
    if thread_rng().gen_bool(0.3) { Order::Pmd } else { Order::Base }
}
