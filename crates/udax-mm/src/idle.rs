//! Idle spans: the exclusive claim on pages that nobody counts.
//!
//! This file owns the linear handle; the claim itself stands in the page words.

use crate::block::Block;
use crate::folio_span::FolioSpan;
use crate::media::MediaError;
use crate::pgmap::{PgmapRef, RequestError, step};
use crate::units::{Order, PgmapOff};
use std::mem;
use std::ops::Range;

/// Exclusive claim on adjacent pages: nobody counts them, and nobody can start.
///
/// Linear, so not Clone. Dropping it retires the claim, and the pages are idle again. It is what a
/// filesystem consumes to free blocks, and what new blocks are zeroed under.
///
/// ```
/// # use udax_mm::{MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff, RequestError};
/// # use udax_mm::{media::FileMedia, sync::Arc};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let media = Arc::new(FileMedia::memfd("example", 1 << 20)?);
/// # let range = MediaRange { media, start: 0, pages: Pages(256) };
/// # let pgmap = Pgmap::new(vec![range], MemoryType::FsDax)?.try_get_live().unwrap();
/// let span = pgmap.claim(PgmapOff(8)..PgmapOff(16))?;
/// span.zero()?;
/// assert_eq!(pgmap.claim(PgmapOff(0)..PgmapOff(9)).unwrap_err(), RequestError::Busy(PgmapOff(8)));
/// let folios = span.activate(Order::Base).map_err(|(_, error)| error)?;
/// assert_eq!(folios.into_folios().count(), 8);
/// # Ok(())
/// # }
/// ```
#[must_use]
#[derive(Debug)]
pub struct IdleSpan {
    pgmap: PgmapRef,
    pages: Range<PgmapOff>,
}

impl IdleSpan {
    /// The pages claimed.
    pub fn pages(&self) -> Range<PgmapOff> {
        self.pages.clone()
    }

    /// The page map they belong to.
    pub fn pgmap(&self) -> &PgmapRef {
        &self.pgmap
    }

    /// Divides the claim: the pages before `at`, and those from `at` on. Either may be empty.
    ///
    /// # Panics
    ///
    /// Panics if `at` lies outside the span.
    pub fn split(mut self, at: PgmapOff) -> (IdleSpan, IdleSpan) {
        assert!(self.pages.start <= at && at <= self.pages.end, "page {at} lies outside the span");
        if self.pages.start < at && at < self.pages.end {
            self.pgmap.pgmap().table().split_at(at);
        }
        let after = IdleSpan::claimed(self.pgmap.clone(), at..self.pages.end);
        self.pages.end = at;
        (self, after)
    }

    /// Makes all pages folios of `order`, with one reference each.
    ///
    /// # Errors
    ///
    /// Gives the span back if its ends are not aligned to `order`, if a folio would cross from one
    /// medium into the next, if the page map has folios of another order only, or if a page was
    /// poisoned since it was claimed.
    pub fn activate(mut self, order: Order) -> Result<FolioSpan, (IdleSpan, RequestError)> {
        if let Err(error) = self.prepare(order) {
            return Err((self, error));
        }
        let table = self.pgmap.pgmap().table();
        for head in (self.pages.start.0..self.pages.end.0).step_by(step(order)) {
            table.word(Block::covering(PgmapOff(head), order)).activate(table.first());
        }
        let pages = self.disarm();
        Ok(FolioSpan::counted(self.pgmap.clone(), pages, order))
    }

    /// Zeros all bytes of the span, which nobody can see.
    ///
    /// # Errors
    ///
    /// What the medium reports.
    pub fn zero(&self) -> Result<(), MediaError> {
        let len = self.pages.end.since(self.pages.start).bytes();
        self.pgmap.zero(self.pages.start.byte(), len)
    }

    /// The handle of pages that were just claimed in whole leaves.
    pub(crate) fn claimed(pgmap: PgmapRef, pages: Range<PgmapOff>) -> IdleSpan {
        IdleSpan { pgmap, pages }
    }

    /// One span of two adjacent ones.
    pub(crate) fn append(mut self, mut next: IdleSpan) -> IdleSpan {
        assert!(self.pages.end == next.pages.start, "only adjacent spans become one");
        self.pages.end = next.disarm().end;
        self
    }

    /// Makes the page words leaves of `order`, all still claimed.
    pub(crate) fn prepare(&self, order: Order) -> Result<(), RequestError> {
        self.pgmap.check_folios(&self.pages, order)?;
        let table = self.pgmap.pgmap().table();
        let mut marked = table.leaves(self.pages()).filter(|(_, value)| value.is_poisoned());
        if let Some(page) = marked.find_map(|(leaf, _)| table.first_poisoned(leaf.pages())) {
            return Err(RequestError::Poisoned(page));
        }
        table.split(self.pages(), order);
        let mut heads = (self.pages.start.0..self.pages.end.0).step_by(step(order));
        heads.try_for_each(|head| table.join(Block::covering(PgmapOff(head), order)))
    }

    /// Takes the claim out of the handle: dropping it does nothing more.
    pub(crate) fn disarm(&mut self) -> Range<PgmapOff> {
        let empty = self.pages.start..self.pages.start;
        mem::replace(&mut self.pages, empty)
    }
}

impl Drop for IdleSpan {
    fn drop(&mut self) {
        self.pgmap.pgmap().table().retire(self.pages());
    }
}
