//! Flows: where pages may be cloned to another place while threads run, and when that was done.
//!
//! Places of one round do not form chains: what one flow leads to is no part of another. So a byte
//! that is cloned comes from one other byte only, and that one is changed by its owner only.

use crate::model::{FILES, PAGE, PAGES};
use crate::rng::Rng;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use udax_mm::sync::Mutex;
use udax_mm::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// A page of a file.
pub(crate) type Place = (usize, u64);

/// A moment of a round. No two events have the same.
pub(crate) type Tick = u64;

/// The flows of one round.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    all: Vec<Flow>,
    clock: AtomicU64,
}

/// Pages that may be cloned from one place to another.
pub(crate) struct Flow {
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) pages: u64,
    clones: Mutex<Clones>,
}

/// The clones of one flow.
#[derive(Default)]
struct Clones {
    running: usize,
    /// When the last one ended, whatever became of it.
    ended: Tick,
    /// For each page, counted from the start, the last one that was done, by its beginning.
    done: Vec<Range<Tick>>,
}

/// What the clones of a flow say about one page.
#[derive(Debug)]
pub(crate) struct Outlook {
    /// The last clone that was done, by its beginning.
    done: Range<Tick>,
    is_running: bool,
    ended: Tick,
}

impl Flows {
    /// Draws some. `ends` are the pages that each file may have, of which there may be none.
    pub(crate) fn draw(ends: &[u64; FILES], rng: &mut Rng) -> Flows {
        let mut flows = Flows::default();
        for _ in 0..rng.below(5) {
            let (from, to) = (rng.index(FILES), rng.index(2));
            let pages = if rng.once_in(6) { 512 } else { 1 + rng.below(12) };
            let mut first = |end: u64| {
                let near = if rng.once_in(4) { PAGES } else { crate::model::NEAR };
                let free = end.checked_sub(pages)?;
                Some(rng.below(near.min(free + 1)))
            };
            if let (Some(first_from), Some(first_to)) = (first(ends[from]), first(ends[to])) {
                let clones = Clones {
                    done: vec![0..0; usize::try_from(pages).unwrap()],
                    ..Clones::default()
                };
                flows.add(Flow {
                    from: (from, first_from),
                    to: (to, first_to),
                    pages,
                    clones: Mutex::new(clones),
                });
            }
        }
        flows
    }

    /// Adds one, unless there would be a chain.
    fn add(&mut self, flow: Flow) {
        let is_apart = |(a, first): Place, (b, other): Place, of: u64| {
            a != b || first + flow.pages <= other || other + of <= first
        };
        let is_alone = self.all.iter().all(|other| {
            is_apart(flow.to, other.to, other.pages)
                && is_apart(flow.to, other.from, other.pages)
                && is_apart(flow.from, other.to, other.pages)
        });
        if is_alone && is_apart(flow.to, flow.from, flow.pages) {
            self.all.push(flow);
        }
    }

    pub(crate) fn now(&self) -> Tick {
        self.clock.fetch_add(1, SeqCst) + 1
    }

    pub(crate) fn any(&self, rng: &mut Rng) -> Option<&Flow> {
        (!self.all.is_empty()).then(|| &self.all[rng.index(self.all.len())])
    }

    /// The flow that leads to a page.
    pub(crate) fn leading_to(&self, page: Place) -> Option<&Flow> {
        self.all.iter().find(|flow| flow.holds(flow.to, page))
    }

    /// Whether a page may be replaced by a clone.
    pub(crate) fn leads_to(&self, page: Place) -> bool {
        self.leading_to(page).is_some()
    }

    /// Where a page may be cloned to.
    pub(crate) fn out_of(&self, page: Place) -> impl Iterator<Item = Place> {
        let out = self.all.iter().filter(move |flow| flow.holds(flow.from, page));
        out.map(move |flow| (flow.to.0, flow.to.1 + page.1 - flow.from.1))
    }

    /// The pages of a file that may come to be shared.
    pub(crate) fn touch(&self, file: usize) -> BTreeSet<u64> {
        let sides =
            self.all.iter().flat_map(|flow| [(flow.from, flow.pages), (flow.to, flow.pages)]);
        let sides = sides.filter(|((of, _), _)| *of == file);
        sides.flat_map(|((_, first), pages)| first..first + pages).collect()
    }
}

impl Flow {
    fn holds(&self, side: Place, page: Place) -> bool {
        side.0 == page.0 && (side.1..side.1 + self.pages).contains(&page.1)
    }

    /// Where what may come to a page lies.
    pub(crate) fn source(&self, page: u64) -> Place {
        (self.from.0, self.from.1 + page - self.to.1)
    }

    /// Some bytes of it, counted from the start: pages.
    pub(crate) fn part(&self, rng: &mut Rng) -> Range<u64> {
        if rng.once_in(2) {
            return 0..self.pages * PAGE;
        }
        let start = rng.below(self.pages);
        start * PAGE..(start + 1 + rng.below(self.pages - start)) * PAGE
    }

    /// Notes that `clone` runs, which returns how many bytes of `part` are done.
    pub(crate) fn note<E>(
        &self,
        flows: &Flows,
        part: &Range<u64>,
        clone: impl FnOnce() -> Result<u64, E>,
    ) -> Result<u64, E> {
        self.clones.lock().running += 1;
        let begin = flows.now();
        let result = clone();
        let end = flows.now();
        let mut clones = self.clones.lock();
        clones.running -= 1;
        clones.ended = clones.ended.max(end);
        let len = result.as_ref().copied().unwrap_or(0);
        for page in part.start / PAGE..(part.start + len) / PAGE {
            let done = &mut clones.done[usize::try_from(page).unwrap()];
            if done.start < begin {
                *done = begin..end;
            }
        }
        result
    }

    /// What may have happened to a page of the target.
    pub(crate) fn outlook(&self, page: u64) -> Outlook {
        let clones = self.clones.lock();
        let done = clones.done[usize::try_from(page - self.to.1).unwrap()].clone();
        Outlook { done, is_running: clones.running > 0, ended: clones.ended }
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} to {:?}, {} pages", self.from, self.to, self.pages)
    }
}

impl Outlook {
    /// Whether what was there, or would have come there, until `end` can be found by a look that
    /// began at `look`: no clone was done from beginning to end in between.
    pub(crate) fn is_left(&self, end: Tick, look: Tick) -> bool {
        !(end < self.done.start && self.done.end < look)
    }

    /// Whether a clone may have changed the page after `seen`.
    pub(crate) fn may_have_come(&self, seen: Tick) -> bool {
        self.is_running || seen < self.ended
    }
}

#[test]
fn what_was_there_before_a_whole_clone_is_not_found_after_it() {
    let outlook = Outlook { done: 10..20, is_running: false, ended: 20 };
    assert!(!outlook.is_left(9, 21), "a clone came in between");
    assert!(outlook.is_left(9, 15) && outlook.is_left(12, 21), "it may have");
    assert!(outlook.may_have_come(15) && !outlook.may_have_come(20));
}
