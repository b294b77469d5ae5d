//! Pinned spans: many folios pinned by one handle.
//!
//! This file owns the handle. It keeps nothing for each page: a pinned folio keeps its order, so
//! the folios are found again by a walk over the page words.

use crate::block::Block;
use crate::folio::leave;
use crate::folio_span::FolioSpan;
use crate::pgmap::PgmapRef;
use crate::pin::{Listed, PinInfo, PinKind, PinRecord};
use crate::recall::Lease;
use crate::units::PgmapOff;
use crate::word::Unpin;
use std::ops::Range;

/// Folios side by side, each of them pinned: references that truncation waits for, under one handle
/// and one entry of [`Pgmap::pins`](crate::Pgmap::pins). Drop is unpin; not Clone.
///
/// ```
/// # use udax_mm::{MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff, Wait};
/// # use udax_mm::{PinInfo, PinKind, PinOwner, PinTerm, media::FileMedia, sync::Arc};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let media = Arc::new(FileMedia::memfd("example", 1 << 20)?);
/// # let range = MediaRange { media, start: 0, pages: Pages(256) };
/// # let pgmap = Pgmap::new(vec![range], MemoryType::FsDax)?.try_get_live().unwrap();
/// # let owner = PinOwner { process: 1, connection: 0, label: "example".into() };
/// # let since = std::time::Instant::now();
/// # let info = PinInfo { owner, since, kind: PinKind::Write, term: PinTerm::Long };
/// let folios = pgmap.request_folios(PgmapOff(0), Order::Base, 256)?;
/// let pin = pgmap.pin(PgmapOff(0)..PgmapOff(100), info)?;
/// drop(folios);
/// assert_eq!(pgmap.pins_in(pin.pages()).len(), 1, "one pin, however many pages");
/// assert!(pgmap.claim(PgmapOff(100)..PgmapOff(256)).is_ok());
/// assert!(pgmap.claim(PgmapOff(99)..PgmapOff(100)).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PinnedSpan {
    pgmap: PgmapRef,
    pages: Range<PgmapOff>,
    listed: Listed,
    info: PinInfo,
}

/// Why [`PgmapRef::pin`] refused. Nothing is pinned then.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PinError {
    /// No page was named, or they do not lie inside the pgmap.
    #[error("pages {}..{} are no pages of the pgmap", .0.start, .0.end)]
    OutOfRange(Range<PgmapOff>),

    /// Nobody counts this page, and a pin never raises a count from zero (rule 2).
    #[error("nobody holds page {0}, so it cannot be pinned")]
    NotCounted(PgmapOff),

    /// The pin is for writing, and the bytes of this page must not change.
    #[error("page {0} is frozen, so it cannot be pinned for writing")]
    Frozen(PgmapOff),

    /// The memory of this page failed.
    #[error("page {0} is poisoned, so it cannot be pinned")]
    Poisoned(PgmapOff),
}

impl PinnedSpan {
    /// All pages of the folios that are pinned.
    pub fn pages(&self) -> Range<PgmapOff> {
        self.pages.clone()
    }

    /// The page map they belong to.
    pub fn pgmap(&self) -> &PgmapRef {
        &self.pgmap
    }

    /// What the page map tells of this pin.
    pub fn info(&self) -> &PinInfo {
        &self.info
    }

    /// The handle of pins that the words of `pages`, whole folios, count already.
    fn pinned(
        pgmap: PgmapRef,
        pages: Range<PgmapOff>,
        info: PinInfo,
        lease: Option<Lease>,
    ) -> PinnedSpan {
        let record = PinRecord { pages: pages.clone(), info: info.clone(), lease };
        let listed = pgmap.pgmap().registry().add(record);
        PinnedSpan { pgmap, pages, listed, info }
    }
}

impl Drop for PinnedSpan {
    fn drop(&mut self) {
        self.pgmap.pgmap().registry().remove(&self.listed);
        unpin(&self.pgmap, &self.pages);
    }
}

impl FolioSpan {
    /// Makes each reference of the span a pin.
    pub fn into_pinned(self, info: PinInfo) -> PinnedSpan {
        self.into_listed(info, None)
    }

    /// The same, by a holder that can be asked to let go.
    pub fn into_leased(self, info: PinInfo, lease: Lease) -> PinnedSpan {
        self.into_listed(info, Some(lease))
    }

    fn into_listed(mut self, info: PinInfo, lease: Option<Lease>) -> PinnedSpan {
        let pages = self.disarm();
        let (pgmap, order) = (self.pgmap().clone(), self.order());
        let mut rest = pages.clone();
        while rest.start < rest.end {
            let block = Block::covering(rest.start, order);
            pgmap.pgmap().table().word(block).pin_reference();
            rest.start = block.end();
        }
        PinnedSpan::pinned(pgmap, pages, info, lease)
    }
}

impl PgmapRef {
    /// Pins every folio that covers a page of `pages`, all or none. Somebody has to count them
    /// already. Takes no memory for each page.
    ///
    /// # Errors
    ///
    /// [`PinError::NotCounted`] with the first page that nobody counts, or that is claimed;
    /// [`PinError::Frozen`] and [`PinError::Poisoned`] likewise; [`PinError::OutOfRange`].
    pub fn pin(&self, pages: Range<PgmapOff>, info: PinInfo) -> Result<PinnedSpan, PinError> {
        if pages.is_empty() || pages.end.0 > self.size().0 {
            return Err(PinError::OutOfRange(pages));
        }
        let mut pinned = pages.start..pages.start;
        while pinned.end < pages.end {
            let leaf =
                self.pin_leaf(pinned.end, info.kind).inspect_err(|_| unpin(self, &pinned))?;
            // Only what is pinned keeps its order.
            pinned = pinned.start.min(leaf.head())..leaf.end();
        }
        if let Some(failed) = self.first_poisoned(pages) {
            unpin(self, &pinned);
            return Err(PinError::Poisoned(failed));
        }
        Ok(PinnedSpan::pinned(self.clone(), pinned, info, None))
    }

    /// Pins the folio that covers `at`, and returns its pages.
    fn pin_leaf(&self, at: PgmapOff, kind: PinKind) -> Result<Block, PinError> {
        let table = self.pgmap().table();
        loop {
            let (leaf, seen) = table.leaf(at);
            if kind == PinKind::Write && seen.is_frozen() {
                return Err(PinError::Frozen(at));
            }
            // A folio is frozen from its first reference on, or not at all.
            if table.word(leaf).try_pin(seen) {
                return Ok(leaf);
            }
            if !table.leaf(at).1.is_counted() {
                return Err(PinError::NotCounted(at));
            }
        }
    }
}

/// Gives back one pin, and its reference, of each folio of `pages`.
fn unpin(pgmap: &PgmapRef, pages: &Range<PgmapOff>) {
    let table = pgmap.pgmap().table();
    let mut at = pages.start;
    while at < pages.end {
        let (leaf, seen) = table.leaf(at);
        let (unpin, left) = table.word(leaf).unpin_and_put(seen);
        if let Unpin::Wake = unpin {
            pgmap.pgmap().queues().wake(leaf);
        }
        leave(pgmap, leaf, left);
        at = leaf.end();
    }
}
