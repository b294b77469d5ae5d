//! Spans of folios: many counted references in one handle.
//!
//! This file owns the handle, and the ways to come by many references at once. Each word is changed
//! on its own, and the block above many words once for all of them (protocol, rule 4).

use crate::block::{Block, Run};
use crate::folio::{Folio, leave};
use crate::pgmap::{PgmapRef, RequestError};
use crate::sync::thread;
use crate::units::{Order, PgmapOff};
use crate::word::{PageWord, Put};
use std::mem;
use std::ops::Range;

/// How often a page that looks busy is looked at again. A page that its owner permits to be used is
/// busy without being counted only for the moment of a last put.
const TRIES: u32 = 1 << 20;
/// The same for larger folios, where giving up only means smaller ones.
const BLOCK_TRIES: u32 = 16;

/// Adjacent folios of one order, with one reference each. Clone gets each of them, drop puts each.
///
/// Holds one live reference of the page map.
///
/// ```
/// # use udax_mm::{MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff};
/// # use udax_mm::{media::FileMedia, sync::Arc};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let media = Arc::new(FileMedia::memfd("example", 1 << 20)?);
/// # let range = MediaRange { media, start: 0, pages: Pages(256) };
/// # let pgmap = Pgmap::new(vec![range], MemoryType::FsDax)?.try_get_live().unwrap();
/// let mut span = pgmap.request_folios(PgmapOff(8), Order::Base, 8)?;
/// let rest = span.split_off(PgmapOff(12));
/// assert_eq!((span.pages(), rest.pages()), (PgmapOff(8)..PgmapOff(12), PgmapOff(12)..PgmapOff(16)));
/// drop(rest);
/// assert!(pgmap.claim(PgmapOff(12)..PgmapOff(16)).is_ok());
/// assert!(pgmap.claim(PgmapOff(11)..PgmapOff(12)).is_err());
/// # Ok(())
/// # }
/// ```
#[must_use]
#[derive(Debug)]
pub struct FolioSpan {
    pgmap: PgmapRef,
    pages: Range<PgmapOff>,
    order: Order,
}

impl FolioSpan {
    /// The folios one by one, each with its reference. Those not taken are put.
    pub fn into_folios(self) -> impl Iterator<Item = Folio> {
        let mut span = self;
        std::iter::from_fn(move || span.take_first())
    }

    /// All pages.
    #[inline]
    pub fn pages(&self) -> Range<PgmapOff> {
        self.pages.clone()
    }

    /// The size of each folio.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The page map they belong to.
    pub fn pgmap(&self) -> &PgmapRef {
        &self.pgmap
    }

    /// Whether there are no folios.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Whether the bytes of one of them cannot change until it is idle.
    pub fn is_frozen(&self) -> bool {
        self.first_frozen(&self.pages).is_some()
    }

    /// The first folio among `pages`, which are of this span, whose bytes cannot change.
    pub(crate) fn first_frozen(&self, pages: &Range<PgmapOff>) -> Option<PgmapOff> {
        let first = pages.start.align_down(self.order);
        let last = PgmapOff(pages.end.0.saturating_sub(1)).align_down(self.order);
        let folios = if pages.is_empty() { first..first } else { first..last + self.order.pages() };
        runs(folios, self.order).find_map(|run| {
            let frozen = (0..).zip(self.words(run)).find(|(_, word)| word.load().is_frozen());
            frozen.map(|(nr, _)| run.nth(nr).head())
        })
    }

    /// Takes in the folios of `other`, which begin where these end, or end where these begin.
    ///
    /// # Errors
    ///
    /// Hands back `other` if its folios are not adjacent, of another order or of another page map.
    pub fn append(&mut self, mut other: FolioSpan) -> Result<(), FolioSpan> {
        let is_alike = other.order == self.order && other.pgmap.pgmap() == self.pgmap.pgmap();
        if is_alike && other.pages.start == self.pages.end {
            self.pages.end = other.disarm().end;
        } else if is_alike && other.pages.end == self.pages.start {
            self.pages.start = other.pages.start;
            other.disarm();
        } else {
            return Err(other);
        }
        Ok(())
    }

    /// Divides the span: keeps the folios before `at`, and returns those from `at` on. Either may
    /// be none.
    ///
    /// # Panics
    ///
    /// Panics if `at` lies outside the span or inside a folio.
    pub fn split_off(&mut self, at: PgmapOff) -> FolioSpan {
        assert!(self.pages.start <= at && at <= self.pages.end, "page {at} lies outside the span");
        assert!(at.is_aligned(self.order), "page {at} lies inside a folio");
        let end = mem::replace(&mut self.pages.end, at);
        FolioSpan::counted(self.pgmap.clone(), at..end, self.order)
    }

    /// The handle of references that were just counted.
    pub(crate) fn counted(pgmap: PgmapRef, pages: Range<PgmapOff>, order: Order) -> FolioSpan {
        FolioSpan { pgmap, pages, order }
    }

    /// Takes the references out of the handle: dropping it does nothing more.
    pub(crate) fn disarm(&mut self) -> Range<PgmapOff> {
        let empty = self.pages.end..self.pages.end;
        mem::replace(&mut self.pages, empty)
    }

    fn take_first(&mut self) -> Option<Folio> {
        if self.pages.is_empty() {
            return None;
        }
        let block = Block::covering(self.pages.start, self.order);
        self.pages.start = block.pages().end;
        Some(Folio::counted(self.pgmap.clone(), block))
    }

    fn runs(&self) -> impl Iterator<Item = Run> + use<> {
        runs(self.pages(), self.order)
    }

    fn words(&self, run: Run) -> &[PageWord] {
        self.pgmap.pgmap().table().words(run)
    }

    fn put_run(&self, run: Run) {
        let table = self.pgmap.pgmap().table();
        let mut idle = 0;
        for (nr, word) in (0..).zip(self.words(run)) {
            match word.put() {
                Put::Counted => (),
                Put::Idle => idle += 1,
                Put::Last(before) => {
                    // Whoever gets the pages may wait for a lock, and its holder for this block.
                    table.lower_above(run.first(), mem::take(&mut idle));
                    leave(&self.pgmap, run.nth(nr), word.leave(before));
                }
            }
        }
        table.lower_above(run.first(), idle);
    }
}

impl Clone for FolioSpan {
    fn clone(&self) -> FolioSpan {
        self.runs().for_each(|run| self.words(run).iter().for_each(PageWord::get));
        FolioSpan::counted(self.pgmap.clone(), self.pages(), self.order)
    }
}

impl Drop for FolioSpan {
    fn drop(&mut self) {
        self.runs().for_each(|run| self.put_run(run));
    }
}

impl PgmapRef {
    /// Takes a reference of each of `nr` adjacent folios: one more if somebody counts it already,
    /// as a folio of exactly this order, and the first if it is idle.
    ///
    /// # Blocking
    ///
    /// A page that is neither idle nor counted is looked at again for a while, since it may be in
    /// the middle of a last put.
    ///
    /// # Errors
    ///
    /// Those of [`PgmapRef::request_folios`], with the folios before the one that was refused: it
    /// is [claimed or of another order](RequestError::Busy), [failed](RequestError::Poisoned) while
    /// nobody counted it, or [ends in another medium](RequestError::Crossing).
    pub fn acquire_folios(
        &self,
        at: PgmapOff,
        order: Order,
        nr: u64,
    ) -> Result<FolioSpan, (FolioSpan, RequestError)> {
        let mut span = FolioSpan::counted(self.clone(), at..at, order);
        let end = PgmapOff(at.0.saturating_add(nr.saturating_mul(order.pages().0)));
        if let Err(error) = self.check_aligned(&(at..end), order) {
            return Err((span, error));
        }
        while span.pages.end < end {
            let rest = span.pages.end..end;
            match self.acquire_run(&rest, order) {
                Ok(acquired) => span.pages.end = acquired,
                Err(error) => return Err((span, error)),
            }
        }
        Ok(span)
    }

    /// Takes references of folios from the first of `pages` on: of one at least, else of as many as
    /// one block above counts. Returns where they end.
    fn acquire_run(&self, pages: &Range<PgmapOff>, order: Order) -> Result<PgmapOff, RequestError> {
        let run = self.pgmap().ranges().largest_run(pages, order);
        self.check_folio(pages.start, order)?;
        let tries = if order == Order::Base { TRIES } else { BLOCK_TRIES };
        for _ in 0..tries {
            match self.pgmap().table().acquire(run) {
                0 => self.check_passing(run.first())?,
                acquired => return Ok(run.nth(acquired).head()),
            }
            thread::yield_now();
        }
        Err(self.pgmap().table().refusal(run.first()))
    }

    /// Whether what keeps `block` from being acquired may pass in a moment.
    fn check_passing(&self, block: Block) -> Result<(), RequestError> {
        let (leaf, seen) = self.pgmap().table().leaf(block.head());
        if seen.is_counted() && leaf.order() != block.order() {
            return Err(RequestError::Busy(block.head()));
        }
        if seen.is_only_poisoned() {
            return Err(RequestError::Poisoned(leaf.head()));
        }
        Ok(())
    }
}

/// The folios of `order` that fill `pages`, as many at once as one block above counts.
fn runs(pages: Range<PgmapOff>, order: Order) -> impl Iterator<Item = Run> {
    let mut rest = pages;
    std::iter::from_fn(move || {
        let run = (!rest.is_empty()).then(|| Run::within(&rest, order))?;
        rest.start = run.end();
        Some(run)
    })
}
