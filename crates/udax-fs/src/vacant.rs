//! The proof that pages may be freed, and what happens to pages that are still in use.
//!
//! This file owns the way of a page out of a file: claimed by whoever broke the layout (or left in
//! limbo), freed by the commit, given back to the allocator when nobody uses it.

use crate::FsError;
use crate::alloc::Extent;
use crate::inode::spans;
use crate::limbo::Decided;
use crate::ranges::Ranges;
use crate::store::Store;
use crate::tree::Run;
use std::ops::Range;
use udax_mapping::{Deferred, LayoutBroken};
use udax_mm::sync::{Arc, Weak};
use udax_mm::{IdleSpan, LimboSink, Pages, PgmapOff, PgmapRef, RequestError};

/// The proof that pages may be freed: nobody uses them, or their last put comes to the store.
///
/// Dropped without a commit, the pages stay where they are.
#[must_use]
#[derive(Debug)]
pub struct Vacant {
    store: Arc<Store>,
    idle: Vec<(Extent, IdleSpan)>,
    limbo: Vec<Extent>,
    /// Pages whose memory failed, and that nobody holds.
    failed: Vec<Extent>,
}

impl Vacant {
    /// Takes what breaking the layout claimed, and what it deferred with the store as sink.
    ///
    /// The layout must stay broken until the transaction is committed.
    pub(crate) fn take(store: &Arc<Store>, broken: &mut LayoutBroken<'_>) -> Vacant {
        let extents = |ranges: &[(PgmapRef, Range<PgmapOff>)]| {
            let ranges = ranges.iter();
            ranges.flat_map(|(map, pages)| store.extents_of(map.pgmap(), pages.clone())).collect()
        };
        let (limbo, failed) = (extents(broken.limbo()), extents(broken.failed()));
        let idle = broken.take_idle().into_iter().flat_map(|span| locate(store, span)).collect();
        Vacant { store: Arc::clone(store), idle, limbo, failed }
    }

    /// Claims pages that no mapping ever showed: of directories, and of files while mounting.
    ///
    /// # Errors
    ///
    /// The device's.
    ///
    /// # Panics
    ///
    /// Panics if somebody uses one of them (I-50).
    pub(crate) fn claim(store: &Arc<Store>, extents: &[Extent]) -> Result<Vacant, FsError> {
        let mut vacant = Vacant::none(store);
        // A tree may have the same pages at several places.
        let pages: Ranges = extents.iter().map(|extent| extent.range()).collect();
        for range in pages.iter() {
            vacant.add(Extent::of(range))?;
        }
        Ok(vacant)
    }

    /// The proof of no page: for what other places of trees refer to, or for nothing.
    pub(crate) fn none(store: &Arc<Store>) -> Vacant {
        let (idle, limbo, failed) = (Vec::new(), Vec::new(), Vec::new());
        Vacant { store: Arc::clone(store), idle, limbo, failed }
    }

    /// Splits off the proof of the pages of `extents`, as far as this is one of them.
    pub(crate) fn split_off(&mut self, extents: &[Extent]) -> Vacant {
        let mut part = Vacant::none(&self.store);
        let mut wanted: Ranges = extents.iter().map(|extent| extent.range()).collect();
        let mut left: Ranges = self.limbo.iter().map(|extent| extent.range()).collect();
        let in_limbo = wanted.iter().flat_map(|range| left.take(&range)).collect::<Vec<_>>();
        part.limbo = in_limbo.into_iter().map(Extent::of).collect();
        self.limbo = left.iter().map(Extent::of).collect();
        let mut left: Ranges = self.failed.iter().map(|extent| extent.range()).collect();
        let failed = wanted.iter().flat_map(|range| left.take(&range)).collect::<Vec<_>>();
        part.failed = failed.into_iter().map(Extent::of).collect();
        self.failed = left.iter().map(Extent::of).collect();
        for (extent, claim) in std::mem::take(&mut self.idle) {
            divide(extent, claim, &wanted.take(&extent.range()), &mut part.idle, &mut self.idle);
        }
        part
    }

    /// Whether every page of `extents` may be freed.
    pub(crate) fn covers(&self, extents: &[Extent]) -> bool {
        let idle = self.idle.iter().map(|(extent, _)| extent.range());
        let others = self.limbo.iter().chain(&self.failed).map(|extent| extent.range());
        let proven: Ranges = idle.chain(others).collect();
        extents.iter().all(|extent| proven.covers(&extent.range()))
    }

    /// The transaction that frees `extents` committed. Other pages of the proof stay in use.
    ///
    /// Pages that this is no proof of were shared when it was made, and nothing else refers to them
    /// any more: whoever still uses them gives them back (rule 26).
    pub(crate) fn free(mut self, extents: &[Extent]) {
        let mut freed: Ranges = extents.iter().map(|extent| extent.range()).collect();
        let mut kept: Ranges = self.limbo.drain(..).map(Extent::range).collect();
        let take = |from: &mut Ranges, of: Vec<Range<u64>>| -> Vec<Extent> {
            of.iter().flat_map(|range| from.take(range)).map(Extent::of).collect()
        };
        let in_limbo = take(&mut kept, freed.iter().collect());
        for extent in &in_limbo {
            freed.take(&extent.range());
        }
        let failed = take(&mut freed, self.failed.iter().map(|extent| extent.range()).collect());
        let free = take(&mut freed, self.idle.iter().map(|(extent, _)| extent.range()).collect());

        let claims = self.idle.drain(..).map(|(_, claim)| claim).collect();
        self.store.let_go(Decided { claims, free });
        self.store.free_in_limbo(&in_limbo);
        self.store.keep_in_limbo(kept);
        freed.iter().for_each(|range| self.store.free_in_use(Extent::of(range)));
        for extent in failed {
            self.store.set_aside(extent);
        }
    }

    /// Claims pages that the store says nobody can use, in pieces that lie in one medium each.
    fn add(&mut self, extent: Extent) -> Result<(), FsError> {
        let Range { mut start, end } = extent.range();
        while start < end {
            let mut span = self.store.span(Extent::of(start..end))?;
            if let Some(page) = span.pgmap().first_poisoned(span.range()) {
                if page == span.at() {
                    self.failed.push(Extent::of(start..start + 1));
                    start += 1;
                    continue;
                }
                span = span.slice(Pages(0), page.since(span.at()));
            }
            let part = Extent::of(start..start + span.pages().0);
            match span.pgmap().claim(span.range()) {
                Ok(claim) => self.idle.push((part, claim)),
                // It failed after the look, which is repeated.
                Err(RequestError::Poisoned(_)) => continue,
                Err(error) => panic!("I-50: a page that no mapping shows is in use: {error}"),
            }
            start = part.end().0;
        }
        Ok(())
    }
}

impl Drop for Vacant {
    fn drop(&mut self) {
        self.store.keep_in_limbo(self.limbo.drain(..).map(Extent::range).collect());
    }
}

impl LimboSink for Store {
    fn returned(&self, span: IdleSpan) {
        let pages = locate(self, span);
        let decided = self.limbo.lock().returned(pages);
        self.let_go(decided);
    }
}

impl Store {
    /// Lets claims go, then frees pages: who allocates them claims them.
    pub(crate) fn let_go(&self, decided: Decided) {
        drop(decided.claims);
        self.give_back(decided.free);
    }

    /// Frees pages in limbo with their last put.
    fn free_in_limbo(&self, extents: &[Extent]) {
        let decided = self.limbo.lock().free(extents);
        self.let_go(decided);
    }

    /// Lets pages in limbo stay with their file: the word on them is withdrawn, and what has come
    /// back, or is about to, is let go.
    fn keep_in_limbo(&self, mut pages: Ranges) {
        for range in pages.iter().collect::<Vec<_>>() {
            let Range { mut start, end } = range;
            // Nobody gives pages of a device back that is gone.
            while let Some(span) =
                (start < end).then(|| self.span(Extent::of(start..end)).ok()).flatten()
            {
                for withdrawn in span.pgmap().withdraw(span.range()) {
                    for extent in self.extents_of(span.pgmap().pgmap(), withdrawn) {
                        pages.take(&extent.range());
                    }
                }
                start += span.pages().0;
            }
        }
        let came_back: Vec<Extent> = pages.iter().map(Extent::of).collect();
        let decided = self.limbo.lock().keep(&came_back);
        self.let_go(decided);
    }

    /// Adds the pins on those pages of `runs`, which a file has given up, that nothing refers to any
    /// more. A break names no pin of what others had then (rule 26).
    pub(crate) fn add_pins_of(&self, runs: Vec<Run>, deferred: &mut Deferred) {
        for run in runs {
            let whole = Extent { start: run.device, pages: run.pages };
            let freed = self.limbo.lock().freed_in(&whole.range());
            let part = |pages: Range<u64>| {
                let Extent { start, pages } = Extent::of(pages);
                let index = run.index + start.since(run.device);
                Run { index, device: start, pages, ..run }
            };
            // A device that is gone tells its holders itself.
            let found = spans(self, freed.into_iter().map(part).collect()).unwrap_or_default();
            for (index, span) in found {
                deferred.add_shared(index, span.pgmap(), &span.range());
            }
        }
    }

    /// Frees pages that nothing refers to, with their last put where somebody still counts them.
    fn free_in_use(self: &Arc<Store>, extent: Extent) {
        let sink: Arc<dyn LimboSink> = Arc::new(Whenever(Arc::downgrade(self)));
        let Range { mut start, end } = extent.range();
        // A device that is gone gives nothing out again.
        while let Some(span) =
            (start < end).then(|| self.span(Extent::of(start..end)).ok()).flatten()
        {
            let Ok((claims, limbo)) = span.pgmap().claim_or_defer(span.range(), &sink) else {
                return;
            };
            let extents = |pages| self.extents_of(span.pgmap().pgmap(), pages);
            let free = claims.iter().flat_map(|claim| extents(claim.pages())).collect();
            self.let_go(Decided { claims, free });
            self.free_in_limbo(&limbo.into_iter().flat_map(extents).collect::<Vec<_>>());
            start += span.pages().0;
        }
    }
}

/// Takes pages back for a store that may be gone by then: a page that failed may never come back,
/// and must not keep the store that waits for it.
struct Whenever(Weak<Store>);

impl LimboSink for Whenever {
    fn returned(&self, span: IdleSpan) {
        if let Some(store) = self.0.upgrade() {
            store.returned(span);
        }
    }
}

/// Divides a claim on an extent: `parts` of it, which are in order, go to `into`, the rest to `rest`.
fn divide(
    extent: Extent,
    claim: IdleSpan,
    parts: &[Range<u64>],
    into: &mut Vec<(Extent, IdleSpan)>,
    rest: &mut Vec<(Extent, IdleSpan)>,
) {
    let first = claim.pages().start;
    let page = |at: u64| first + Pages(at - extent.start.0);
    let (mut at, mut left) = (extent.start.0, claim);
    for part in parts {
        let (before, from) = left.split(page(part.start));
        let (inside, after) = from.split(page(part.end));
        rest.push((Extent::of(at..part.start), before));
        into.push((Extent::of(part.clone()), inside));
        (at, left) = (part.end, after);
    }
    rest.push((Extent::of(at..extent.end().0), left));
    rest.retain(|(extent, _)| !extent.pages.is_empty());
}

/// Splits a claim into the extents of the device that it covers.
pub(crate) fn locate(store: &Store, span: IdleSpan) -> Vec<(Extent, IdleSpan)> {
    let mut extents = store.extents_of(span.pgmap().pgmap(), span.pages()).into_iter().peekable();
    let mut rest = Some(span);
    let mut located = Vec::new();
    while let Some(extent) = extents.next() {
        let span = rest.take().expect("a claim has as many pages as its extents");
        if extents.peek().is_none() {
            located.push((extent, span));
        } else {
            let at = span.pages().start + extent.pages;
            let (first, second) = span.split(at);
            located.push((extent, first));
            rest = Some(second);
        }
    }
    located
}

#[cfg(test)]
#[path = "vacant_tests.rs"]
mod tests;
