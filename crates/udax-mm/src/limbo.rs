//! Limbo: pages that are free already for their owner, and still in use by somebody else.
//!
//! This file owns the word that an owner leaves on such pages, and its delivery with the last put.

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

/// The deferred ranges of one page map, by first page. None overlaps another, none crosses from
/// one folio into another.
#[derive(Default)]
pub(crate) struct Limbo(Mutex<Deferred>);

type Deferred = BTreeMap<PgmapOff, (PgmapOff, Arc<dyn LimboSink>)>;

impl Limbo {
    /// Every deferred range, in order.
    pub(crate) fn ranges(&self) -> Vec<Range<PgmapOff>> {
        self.0.lock().iter().map(|(&start, &(end, _))| start..end).collect()
    }

    /// Hands the deferred parts of `span` to their sinks, and each part of the rest to `others`.
    pub(crate) fn deliver(&self, span: IdleSpan, others: impl Fn(IdleSpan)) {
        let mut rest = span;
        for (range, sink) in self.take(rest.pages()) {
            let (before, from) = rest.split(range.start);
            others(before);
            let (deferred, after) = from.split(range.end);
            rest = after;
            sink.returned(deferred);
        }
        others(rest);
    }

    fn take(&self, pages: Range<PgmapOff>) -> Vec<(Range<PgmapOff>, Arc<dyn LimboSink>)> {
        let mut deferred = self.0.lock();
        let starts: Vec<_> = deferred.range(pages).map(|(&start, _)| start).collect();
        let take = |start| deferred.remove(&start).map(|(end, sink)| (start..end, sink));
        starts.into_iter().filter_map(take).collect()
    }
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
    /// to `sink` with its last put, claimed, so that nobody can request it between. Never waits.
    ///
    /// Returns the spans that are idle at once, and the ranges in limbo. Of a folio that is only
    /// partly in `pages`, only that part goes to the sink. A poisoned page that nobody holds stays
    /// in limbo until the poison is cleared.
    ///
    /// # Errors
    ///
    /// [`RequestError::OutOfRange`]; [`RequestError::Busy`] if a page is claimed or in limbo
    /// already. Nothing was changed then.
    ///
    pub fn claim_or_defer(
        &self,
        pages: Range<PgmapOff>,
        sink: &Arc<dyn LimboSink>,
    ) -> Result<(Vec<IdleSpan>, Vec<Range<PgmapOff>>), RequestError> {
        self.check_range(&pages)?;
        let mut done = Progress { pgmap: self, sink, idle: Vec::new(), deferred: Vec::new() };
        // Locked throughout, so that a last put that runs meanwhile delivers after we know whether
        // all pages could be taken.
        let mut limbo = self.pgmap().limbo().0.lock();
        let taken = done.take_all(pages, &mut limbo);
        if taken.is_err() {
            // Their words claim themselves for nobody then.
            done.deferred.iter().for_each(|range| drop(limbo.remove(&range.start)));
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
        let withdrawn: Vec<_> = limbo.extract_if(pages, |_, _| true).collect();
        drop(limbo);
        withdrawn.into_iter().map(|(start, (end, _))| start..end).collect()
    }
}

impl Progress<'_> {
    fn take_all(
        &mut self,
        pages: Range<PgmapOff>,
        limbo: &mut Deferred,
    ) -> Result<(), RequestError> {
        let mut at = pages.start;
        while at < pages.end {
            let (leaf, value) = self.pgmap.pgmap().table().leaf(at);
            if value.is_idle() {
                at = self.claim(at..pages.end, leaf.order());
            } else if value.is_claimed() {
                return Err(RequestError::Busy(at));
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
    fn defer(
        &mut self,
        pages: Range<PgmapOff>,
        limbo: &mut Deferred,
    ) -> Result<PgmapOff, RequestError> {
        if let Some(taken) = overlapping(limbo, &pages) {
            return Err(RequestError::Busy(taken));
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
                limbo.insert(pages.start, (pages.end, Arc::clone(self.sink)));
                self.deferred.push(pages.clone());
                Ok(pages.end)
            }
        }
    }
}

/// The first page of `pages` that is deferred already.
fn overlapping(limbo: &Deferred, pages: &Range<PgmapOff>) -> Option<PgmapOff> {
    let (&start, &(end, _)) = limbo.range(..pages.end).next_back()?;
    (end > pages.start).then(|| start.max(pages.start))
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
