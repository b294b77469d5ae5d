//! Limbo: pages that are free already for their owner, and still in use by somebody else.
//!
//! This file owns the word that an owner leaves on such pages, and its delivery with the last put.
//! A last put has the pages for a moment between the two, and is waited for by who leaves word on
//! more pages of its folio.

use crate::idle::IdleSpan;
use crate::pgmap::{PgmapRef, RequestError};
use crate::sync::{Arc, Mutex, thread};
use crate::units::{Order, PgmapOff};
use crate::word::Defer;
use std::collections::BTreeMap;
use std::ops::Range;

/// Takes pages back with their last put.
///
/// Called by whoever puts the folio last, without any lock of this crate held (protocol, rule 18).
/// It must not block, and it must not panic.
pub trait LimboSink: Send + Sync {
    /// The pages are idle and claimed: nobody could request them between.
    fn returned(&self, span: IdleSpan);
}

/// How often a page is looked at again that is on its way to a sink. A sink does not block, so this is
/// only reached if its thread does not run at all.
const TRIES: u32 = 1 << 20;

/// The deferred ranges of one page map.
#[derive(Default)]
pub(crate) struct Limbo(Mutex<Deferred>);

#[derive(Default)]
struct Deferred {
    /// By first page. None overlaps another, none crosses from one folio into another. One that was
    /// taken back has no sink, and tells until the last put that this will claim the pages.
    words: BTreeMap<PgmapOff, (PgmapOff, Option<Arc<dyn LimboSink>>)>,
    /// What last puts have claimed and are handing on. Few.
    on_the_way: Vec<Range<PgmapOff>>,
}

impl Limbo {
    /// Every deferred range, in order.
    pub(crate) fn ranges(&self) -> Vec<Range<PgmapOff>> {
        let deferred = self.0.lock();
        let awaited = deferred.words.iter().filter(|(_, (_, sink))| sink.is_some());
        awaited.map(|(&start, &(end, _))| start..end).collect()
    }

    /// Hands the deferred parts of `span` to their sinks, and each part of the rest to `others`.
    pub(crate) fn deliver(&self, span: IdleSpan, others: impl Fn(IdleSpan)) {
        let pages = span.pages();
        let mut rest = span;
        for (range, sink) in self.take(&pages) {
            let (before, from) = rest.split(range.start);
            others(before);
            let (deferred, after) = from.split(range.end);
            rest = after;
            sink.returned(deferred);
        }
        others(rest);
        self.0.lock().arrived(&pages);
    }

    /// Takes the words on `pages`, which are on the way from here on.
    fn take(&self, pages: &Range<PgmapOff>) -> Vec<(Range<PgmapOff>, Arc<dyn LimboSink>)> {
        let mut deferred = self.0.lock();
        deferred.on_the_way.push(pages.clone());
        let taken = deferred.words.extract_if(pages.clone(), |_, _| true);
        taken.filter_map(|(start, (end, sink))| Some((start..end, sink?))).collect()
    }
}

impl Deferred {
    fn arrived(&mut self, pages: &Range<PgmapOff>) {
        let at = self.on_the_way.iter().position(|way| way == pages);
        self.on_the_way.swap_remove(at.expect("it was put there"));
    }

    /// The words on `pages`, by first page, the last one first, and whether somebody awaits them.
    fn overlapping(&self, pages: &Range<PgmapOff>) -> impl Iterator<Item = (PgmapOff, bool)> {
        let start = pages.start;
        let before = self.words.range(..pages.end).rev();
        let met = before.take_while(move |(_, (end, _))| *end > start);
        met.map(|(&start, (_, sink))| (start, sink.is_some()))
    }

    /// Leaves word on `pages`, of one folio, instead of any that was taken back.
    fn leave(&mut self, pages: &Range<PgmapOff>, sink: &Arc<dyn LimboSink>) {
        let withdrawn: Vec<_> = self.overlapping(pages).map(|(start, _)| start).collect();
        for start in withdrawn {
            self.words.remove(&start);
        }
        self.words.insert(pages.start, (pages.end, Some(Arc::clone(sink))));
    }

    /// Takes the words back that begin in `pages`. Returns those that somebody awaited.
    fn withdraw(&mut self, pages: Range<PgmapOff>) -> Vec<(Range<PgmapOff>, Arc<dyn LimboSink>)> {
        let words = self.words.range_mut(pages);
        words.filter_map(|(&start, (end, sink))| Some((start..*end, sink.take()?))).collect()
    }

    /// Whether claimed pages are the claim of a last put, which hands them on in a moment.
    fn is_passing(&self, pages: &Range<PgmapOff>) -> bool {
        let is_met = |way: &Range<PgmapOff>| way.start < pages.end && pages.start < way.end;
        self.overlapping(pages).next().is_some() || self.on_the_way.iter().any(is_met)
    }
}

/// Why pages could not be taken.
enum Refusal {
    /// A last put has them for a moment.
    Passing(PgmapOff),
    Final(RequestError),
}

/// What `claim_or_defer` has done so far.
struct Progress<'a> {
    pgmap: &'a PgmapRef,
    sink: &'a Arc<dyn LimboSink>,
    idle: Vec<IdleSpan>,
    /// One range per folio, as the sink will get them.
    deferred: Vec<Range<PgmapOff>>,
}

impl PgmapRef {
    /// Claims what is idle, and leaves word on the rest: each page somebody still counts is handed
    /// to `sink` with its last put, claimed, so that nobody can request it between.
    ///
    /// Returns the spans that are idle at once, and the ranges in limbo. Of a folio that is only
    /// partly in `pages`, only that part goes to the sink. A poisoned page that nobody holds stays
    /// in limbo until the poison is cleared.
    ///
    /// # Blocking
    ///
    /// Never sleeps. Lets last puts go first that are handing other pages of the same folios on.
    ///
    /// # Errors
    ///
    /// [`RequestError::OutOfRange`]; [`RequestError::Busy`] if a page is claimed or in limbo
    /// already, or if such a put does not end. Nothing was changed then.
    pub fn claim_or_defer(
        &self,
        pages: Range<PgmapOff>,
        sink: &Arc<dyn LimboSink>,
    ) -> Result<(Vec<IdleSpan>, Vec<Range<PgmapOff>>), RequestError> {
        self.check_range(&pages)?;
        let mut tries = 0;
        loop {
            match self.try_claim_or_defer(pages.clone(), sink) {
                Ok(taken) => return Ok(taken),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::Passing(page)) if tries == TRIES => {
                    return Err(RequestError::Busy(page));
                }
                Err(Refusal::Passing(_)) => tries += 1,
            }
            thread::yield_now();
        }
    }

    fn try_claim_or_defer(
        &self,
        pages: Range<PgmapOff>,
        sink: &Arc<dyn LimboSink>,
    ) -> Result<(Vec<IdleSpan>, Vec<Range<PgmapOff>>), Refusal> {
        let mut done = Progress { pgmap: self, sink, idle: Vec::new(), deferred: Vec::new() };
        // Locked throughout, so that a last put that runs meanwhile delivers after we know whether
        // all pages could be taken.
        let mut limbo = self.pgmap().limbo().0.lock();
        let taken = done.take_all(pages, &mut limbo);
        if taken.is_err() {
            // Their words claim themselves for nobody then.
            done.deferred.iter().for_each(|range| drop(limbo.withdraw(range.clone())));
        }
        drop(limbo);
        taken.map(|()| (done.idle, merged(done.deferred)))
    }
}

impl PgmapRef {
    /// Takes the word back that was left on `pages`, or on parts of them: their owner keeps them after
    /// all. Returns these parts; what else was left word on has reached its sink, or is about to.
    ///
    /// ```
    /// # use udax_mm::{LimboSink, IdleSpan, Order, PgmapOff};
    /// # use udax_mm::sync::Arc;
    /// # struct Nobody;
    /// # impl LimboSink for Nobody { fn returned(&self, _: IdleSpan) { unreachable!() } }
    /// # let media = Arc::new(udax_mm::media::FileMedia::memfd("example", 8 << 12)?);
    /// # let range = udax_mm::MediaRange { media, start: 0, pages: udax_mm::Pages(8) };
    /// # let owner = udax_mm::Pgmap::new(vec![range], udax_mm::MemoryType::FsDax)?;
    /// # let pgmap = owner.try_get_live().unwrap();
    /// let user = pgmap.request_folio(PgmapOff(3), Order::Base)?;
    /// let sink: Arc<dyn LimboSink> = Arc::new(Nobody);
    /// let (_idle, limbo) = pgmap.claim_or_defer(PgmapOff(2)..PgmapOff(5), &sink)?;
    /// assert_eq!(limbo, [PgmapOff(3)..PgmapOff(4)]);
    ///
    /// assert_eq!(pgmap.withdraw(PgmapOff(2)..PgmapOff(5)), limbo);
    /// drop(user); // the page is idle, and nobody is told
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn withdraw(&self, pages: Range<PgmapOff>) -> Vec<Range<PgmapOff>> {
        let mut limbo = self.pgmap().limbo().0.lock();
        // The words claim themselves for nobody then.
        let withdrawn = limbo.withdraw(pages);
        // Before the sinks, which may be the last handles of their owners.
        drop(limbo);
        withdrawn.into_iter().map(|(pages, _)| pages).collect()
    }
}

impl Progress<'_> {
    fn take_all(&mut self, pages: Range<PgmapOff>, limbo: &mut Deferred) -> Result<(), Refusal> {
        let mut at = pages.start;
        while at < pages.end {
            let (leaf, value) = self.pgmap.pgmap().table().leaf(at);
            if value.is_idle() {
                at = self.claim(at..pages.end, leaf.order());
            } else if value.is_claimed() {
                if limbo.is_passing(&leaf.pages()) {
                    return Err(Refusal::Passing(at));
                }
                return Err(Refusal::Final(RequestError::Busy(at)));
            } else {
                at = self.defer(at..leaf.pages().end.min(pages.end), limbo)?;
            }
        }
        Ok(())
    }

    /// Claims what is idle from the start of `pages` on, in blocks of `order` at most. Returns where to
    /// go on: behind it, or, if somebody was faster, at the same place.
    fn claim(&mut self, pages: Range<PgmapOff>, order: Order) -> PgmapOff {
        let run = self.pgmap.pgmap().ranges().largest_run(&pages, order);
        let claimed = self.pgmap.pgmap().table().claim(run);
        let end = run.nth(claimed).head();
        if claimed > 0 {
            self.add_idle(IdleSpan::claimed(self.pgmap.clone(), pages.start..end));
        }
        end
    }

    fn add_idle(&mut self, span: IdleSpan) {
        match self.idle.pop() {
            Some(last) if last.pages().end == span.pages().start => {
                self.idle.push(last.append(span));
            }
            last => self.idle.extend(last.into_iter().chain([span])),
        }
    }

    /// Leaves word on `pages`, which one leaf covers. Returns where to go on.
    fn defer(&mut self, pages: Range<PgmapOff>, limbo: &mut Deferred) -> Result<PgmapOff, Refusal> {
        if let Some((start, _)) = limbo.overlapping(&pages).find(|(_, is_awaited)| *is_awaited) {
            return Err(Refusal::Final(RequestError::Busy(start.max(pages.start))));
        }
        let table = self.pgmap.pgmap().table();
        let (leaf, _) = table.leaf(pages.start);
        if leaf.pages().end < pages.end {
            return Ok(pages.start);
        }
        match table.word(leaf).defer() {
            Defer::Changed => {
                thread::yield_now();
                Ok(pages.start)
            }
            Defer::Deferred => {
                limbo.leave(&pages, self.sink);
                self.deferred.push(pages.clone());
                Ok(pages.end)
            }
        }
    }
}

/// Adjacent ranges become one.
fn merged(ranges: Vec<Range<PgmapOff>>) -> Vec<Range<PgmapOff>> {
    let mut merged: Vec<Range<PgmapOff>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => merged.push(range),
        }
    }
    merged
}
