//! Who holds which page, counted apart from the page map under test.
//!
//! A hand is entered after its handle was given out, and taken out before the handle is given back.
//! So whoever is found here beside a claim is wrong, at any moment.

use std::ops::Range;
use std::thread::panicking;
use udax_mm::sync::Arc;
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::{
    Folio, FolioSpan, FrozenFolio, IdleSpan, PgmapOff, PgmapRef, PinnedFolio, PinnedSpan,
};

/// The pages that are watched: those at the ends of a block.
const WATCHED: [PgmapOff; 4] = [PgmapOff(0), PgmapOff(1), PgmapOff(511), PgmapOff(512)];

/// More than there are hands.
const CLAIM: u64 = 1 << 32;

/// How many count each watched page, or CLAIM.
#[derive(Default)]
pub(crate) struct Holders([AtomicU64; WATCHED.len()]);

/// Any handle of pages.
pub(crate) enum Held {
    Claim(IdleSpan),
    Folio(Folio),
    Folios(FolioSpan),
    Pin(PinnedFolio),
    Pins(PinnedSpan),
    Frozen(FrozenFolio),
}

/// A handle, and its entry in [`Holders`].
pub(crate) struct Hand {
    /// None only after it was taken out.
    held: Option<Held>,
    holders: Arc<Holders>,
}

impl Holders {
    /// Checks that every hand was given back.
    #[track_caller]
    pub(crate) fn assert_nobody(&self) {
        let held = self.0.iter().any(|count| count.load(Ordering::Relaxed) > 0);
        assert!(!held, "I-04: no page of a dead pgmap is in use");
    }

    fn enter(&self, held: &Held) {
        let (more, most) = if held.is_claim() { (CLAIM, 0) } else { (1, CLAIM - 1) };
        for (page, count) in self.of(held) {
            let before = count.fetch_add(more, Ordering::Relaxed);
            assert!(before <= most, "rule 1: page {page} is claimed, and somebody else holds it");
        }
    }

    fn leave(&self, held: &Held) {
        let less = if held.is_claim() { CLAIM } else { 1 };
        for (_, count) in self.of(held) {
            count.fetch_sub(less, Ordering::Relaxed);
        }
    }

    fn of(&self, held: &Held) -> impl Iterator<Item = (PgmapOff, &AtomicU64)> {
        let pages = held.pages();
        WATCHED.into_iter().zip(&self.0).filter(move |(page, _)| pages.contains(page))
    }
}

impl Held {
    fn is_claim(&self) -> bool {
        matches!(self, Held::Claim(_))
    }

    fn is_pin(&self) -> bool {
        matches!(self, Held::Pin(_) | Held::Pins(_) | Held::Frozen(_))
    }

    fn pages(&self) -> Range<PgmapOff> {
        match self {
            Held::Claim(span) => span.pages(),
            Held::Folio(folio) => folio.pages(),
            Held::Folios(span) => span.pages(),
            Held::Pin(pin) => pin.pages(),
            Held::Pins(pins) => pins.pages(),
            Held::Frozen(frozen) => frozen.pages(),
        }
    }

    fn pgmap(&self) -> &PgmapRef {
        match self {
            Held::Claim(span) => span.pgmap(),
            Held::Folio(folio) => folio.pgmap(),
            Held::Folios(span) => span.pgmap(),
            Held::Pin(pin) => pin.pgmap(),
            Held::Pins(pins) => pins.pgmap(),
            Held::Frozen(frozen) => frozen.pgmap(),
        }
    }
}

impl Hand {
    /// Enters a handle that was just given out.
    pub(crate) fn new(held: Held, holders: &Arc<Holders>) -> Hand {
        holders.enter(&held);
        Hand { held: Some(held), holders: Arc::clone(holders) }
    }

    /// The handle, taken out.
    pub(crate) fn into_held(mut self) -> Held {
        self.take_out().expect("it is taken out once")
    }

    pub(crate) fn is_claim(&self) -> bool {
        self.held().is_claim()
    }

    pub(crate) fn is_pin(&self) -> bool {
        self.held().is_pin()
    }

    pub(crate) fn pages(&self) -> Range<PgmapOff> {
        self.held().pages()
    }

    pub(crate) fn pgmap(&self) -> PgmapRef {
        self.held().pgmap().clone()
    }

    /// One more reference of a folio, if this is one.
    pub(crate) fn to_folio(&self) -> Option<Folio> {
        match self.held() {
            Held::Folio(folio) => Some(folio.clone()),
            Held::Pin(pin) => Some(pin.borrow().to_folio()),
            Held::Frozen(frozen) => Some(frozen.borrow().to_folio()),
            Held::Claim(_) | Held::Folios(_) | Held::Pins(_) => None,
        }
    }

    fn held(&self) -> &Held {
        self.held.as_ref().expect("it is not taken out")
    }

    fn take_out(&mut self) -> Option<Held> {
        let held = self.held.take()?;
        self.holders.leave(&held);
        Some(held)
    }
}

impl Drop for Hand {
    /// After a failure nothing is given back: a second panic would hide the first.
    fn drop(&mut self) {
        if panicking() {
            std::mem::forget(self.held.take());
        } else {
            drop(self.take_out());
        }
    }
}
