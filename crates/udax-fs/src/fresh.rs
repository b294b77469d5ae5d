//! Fresh pages: allocated and claimed, and not yet part of anything.

use crate::FsError;
use crate::alloc::{Allocator, Extent, Goal};
use crate::store::Store;
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{DeviceOff, IdleSpan, Pages, RequestError};

/// Pages that no object uses yet, with the claim on them. Dropping it gives them back, so a call
/// that fails undoes itself.
#[must_use]
#[derive(Debug)]
pub struct Fresh {
    extent: Extent,
    claim: Option<IdleSpan>,
    /// Where the pages go when this is dropped; `None` once they belong to something.
    home: Option<Arc<Mutex<Allocator>>>,
}

impl Fresh {
    /// The pages; they are adjacent in one medium.
    pub(crate) fn extent(&self) -> Extent {
        self.extent
    }

    /// Splits after `pages` pages.
    ///
    /// # Panics
    ///
    /// Panics if a part would be empty.
    pub(crate) fn split(mut self, pages: Pages) -> (Fresh, Fresh) {
        assert!(Pages(0) < pages && pages < self.extent.pages, "both parts have pages");
        let (first, second) = match self.claim.take() {
            None => (None, None),
            Some(claim) => {
                let at = claim.pages().start + pages;
                let (first, second) = claim.split(at);
                (Some(first), Some(second))
            }
        };
        let Extent { start, pages: all } = self.extent;
        let home = self.home.take();
        let part = |start, pages, claim| Fresh {
            extent: Extent { start, pages },
            claim,
            home: home.clone(),
        };
        (part(start, pages, first), part(start + pages, all - pages, second))
    }

    /// The pages belong to something: they do not go back, and others may use them.
    pub(crate) fn keep(mut self) {
        self.home = None;
    }

    fn unclaimed(store: &Store, extent: Extent) -> Fresh {
        Fresh { extent, claim: None, home: Some(Arc::clone(&store.alloc)) }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // Before the pages go back: who allocates them claims them.
        drop(self.claim.take());
        if let Some(home) = self.home.take() {
            home.lock().release(self.extent);
        }
    }
}

/// Claims what was allocated, in order, in pieces that lie in one medium each.
///
/// Poisoned pages are set aside until their marks go, and others taken instead.
pub(crate) fn claim_all(store: &Store, extents: Vec<Extent>) -> Result<Vec<Fresh>, FsError> {
    let mut todo: Vec<Fresh> =
        extents.into_iter().rev().map(|extent| Fresh::unclaimed(store, extent)).collect();
    let mut claimed = Vec::new();
    while let Some(mut fresh) = todo.pop() {
        let span = store.span(fresh.extent)?;
        if span.pages() < fresh.extent.pages {
            let (first, rest) = fresh.split(span.pages());
            todo.push(rest);
            fresh = first;
        }
        match span.pgmap().claim(span.range()) {
            Ok(claim) => {
                fresh.claim = Some(claim);
                claimed.push(fresh);
            }
            Err(RequestError::Poisoned(page)) => {
                let bad = fresh.extent.start + page.since(span.at());
                todo.extend(replace(store, fresh, bad)?);
            }
            Err(error) => panic!("I-50: a free page is in use: {error}"),
        }
    }
    Ok(claimed)
}

/// Sets one page of `fresh` aside, and allocates as much anew, last piece first.
fn replace(store: &Store, fresh: Fresh, bad: DeviceOff) -> Result<Vec<Fresh>, FsError> {
    let wanted = fresh.extent.pages;
    let before = bad.since(fresh.extent.start);
    let from_bad = if before.is_empty() { fresh } else { fresh.split(before).1 };
    if from_bad.extent.pages > Pages(1) { from_bad.split(Pages(1)).0 } else { from_bad }.keep();
    // It failed on its way to the free space or out of it, where nobody found it to withhold it.
    store.set_aside(Extent { start: bad, pages: Pages(1) });

    let mut alloc = store.alloc.lock();
    let free = alloc.free();
    let extents = alloc.allocate(wanted, Goal::Packed).ok_or(FsError::NoSpace { wanted, free })?;
    drop(alloc);
    Ok(extents.into_iter().rev().map(|extent| Fresh::unclaimed(store, extent)).collect())
}
