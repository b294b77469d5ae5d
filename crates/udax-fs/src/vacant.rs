//! The proof that pages may be freed, and what happens to pages that are still in use.
//!
//! This file owns the way of a page out of a file: claimed by whoever broke the layout (or left in
//! limbo), freed by the commit, given back to the allocator when nobody uses it.

use crate::FsError;
use crate::alloc::Extent;
use crate::limbo::Decided;
use crate::ranges::Ranges;
use crate::store::Store;
use std::ops::Range;
use udax_mapping::LayoutBroken;
use udax_mm::sync::Arc;
use udax_mm::{IdleSpan, LimboSink, RequestError};

/// The proof that pages may be freed: nobody uses them, or their last put comes to the store.
///
/// Dropped without a commit, the pages stay where they are.
#[must_use]
#[derive(Debug)]
pub struct Vacant {
    store: Arc<Store>,
    idle: Vec<(Extent, IdleSpan)>,
    limbo: Vec<Extent>,
}

impl Vacant {
    /// Takes what breaking the layout claimed, and what it deferred with the store as sink.
    ///
    /// The layout must stay broken until the transaction is committed.
    pub(crate) fn take(store: &Arc<Store>, broken: &mut LayoutBroken<'_>) -> Vacant {
        let deferred = broken
            .limbo()
            .iter()
            .flat_map(|(pgmap, pages)| store.extents_of(pgmap.pgmap(), pages.clone()));
        let limbo = deferred.collect();
        let idle = broken.take_idle().into_iter().flat_map(|span| locate(store, span)).collect();
        Vacant { store: Arc::clone(store), idle, limbo }
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
        let mut vacant = Vacant { store: Arc::clone(store), idle: Vec::new(), limbo: Vec::new() };
        for &extent in extents {
            vacant.idle.extend(claim(store, extent)?);
        }
        Ok(vacant)
    }

    /// Whether every page of `extents` may be freed.
    pub(crate) fn covers(&self, extents: &[Extent]) -> bool {
        let idle = self.idle.iter().map(|(extent, _)| extent.range());
        let proven: Ranges = idle.chain(self.limbo.iter().map(|extent| extent.range())).collect();
        extents.iter().all(|extent| proven.covers(&extent.range()))
    }

    /// The transaction that frees `extents` committed. Other pages of the proof stay in use.
    pub(crate) fn free(mut self, extents: &[Extent]) {
        let mut freed: Ranges = extents.iter().map(|extent| extent.range()).collect();
        let in_limbo = self.limbo.iter().flat_map(|extent| freed.take(&extent.range()));
        let in_limbo: Vec<Extent> = in_limbo.map(Extent::of).collect();
        self.limbo.clear();

        let claims = self.idle.drain(..).map(|(_, claim)| claim).collect();
        let free = freed.iter().map(Extent::of).collect();
        self.store.let_go(Decided { claims, free });
        let decided = self.store.limbo.lock().free(&in_limbo);
        self.store.let_go(decided);
    }
}

impl Drop for Vacant {
    fn drop(&mut self) {
        if !self.limbo.is_empty() {
            let decided = self.store.limbo.lock().keep(&self.limbo);
            self.store.let_go(decided);
        }
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
    fn let_go(&self, decided: Decided) {
        drop(decided.claims);
        self.give_back(decided.free);
    }
}

/// Claims pages that the store says nobody can use, in pieces that lie in one medium each.
fn claim(store: &Store, extent: Extent) -> Result<Vec<(Extent, IdleSpan)>, FsError> {
    let mut claimed = Vec::new();
    let Range { mut start, end } = extent.range();
    while start < end {
        let span = store.span(Extent::of(start..end))?;
        let part = Extent::of(start..start + span.pages().0);
        match span.pgmap().claim(span.range()) {
            Ok(claim) => claimed.push((part, claim)),
            Err(RequestError::Poisoned(page)) => {
                let found = format!("page {page} of its medium is poisoned");
                return Err(FsError::corrupt("an object that is to be freed", found));
            }
            Err(error) => panic!("I-50: a page that no mapping shows is in use: {error}"),
        }
        start = part.end().0;
    }
    Ok(claimed)
}

/// Splits a claim into the extents of the device that it covers.
fn locate(store: &Store, span: IdleSpan) -> Vec<(Extent, IdleSpan)> {
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
