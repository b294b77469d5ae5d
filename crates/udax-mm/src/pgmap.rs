//! Page maps: memory from one or several media under one lifetime.
//!
//! This file owns what a page map is made of and can be asked for. The handles are in
//! [`handle`](crate::handle), liveness in [`live`](crate::live), the states of pages in
//! [`table`](crate::table), bytes in [`access`](crate::access).

use crate::access::Stores;
pub use crate::handle::{Pgmap, PgmapRef};

use crate::active::Lease;
use crate::block::Block;
use crate::folio::Folio;
use crate::folio_span::FolioSpan;
use crate::idle::IdleSpan;
use crate::limbo::Limbo;
use crate::media::{Media, MediaError, MediaFacts, MediaRange};
use crate::memory::{MemoryFailure, MemoryType};
use crate::pin::{PinRecord, Pins};
use crate::ranges::Ranges;
use crate::sync::{Arc, Mutex, Weak};
use crate::table::{Cure, Table};
use crate::tap::{StoreTap, Taps};
use crate::units::{Order, Pages, PgmapOff};
use crate::verify;
use crate::wait::{Patience, WaitQueues};
use crate::word::First;
use std::fmt;
use std::ops::Range;

/// Why [`Pgmap::new`] refused. Nothing was published (I-06).
#[derive(Debug, thiserror::Error)]
pub enum PgmapError {
    /// No range was given.
    #[error("a pgmap needs at least one range")]
    Empty,

    /// A range holds no page.
    #[error("range {range} of the pgmap has no pages")]
    ZeroLength {
        /// Which one.
        range: usize,
    },

    /// A range does not start at a page of its medium.
    #[error("range {range} of the pgmap starts at byte {start}, which is not a multiple of 4096")]
    Misaligned {
        /// Which one.
        range: usize,
        /// Its first byte.
        start: u64,
    },

    /// A range reaches beyond the end of its medium.
    #[error("range {range} of the pgmap ends after its medium, which has {len} bytes")]
    OutOfRange {
        /// Which one.
        range: usize,
        /// The length of the medium.
        len: u64,
    },

    /// Two ranges share a page of one medium.
    #[error("ranges {first} and {second} of the pgmap overlap in one medium")]
    Overlap {
        /// One range.
        first: usize,
        /// The other.
        second: usize,
    },

    /// Another page map, which is not dead, describes a part of a range.
    #[error("range {range} of the pgmap overlaps bytes {}..{} of its medium, which another pgmap describes", .taken.start, .taken.end)]
    InUse {
        /// Which one.
        range: usize,
        /// The first bytes of the medium that are described already.
        taken: Range<u64>,
    },

    /// Folios of one order do not fill a range.
    #[error("range {range} of the pgmap does not begin and end at a folio of order {order}")]
    NotWholeFolios {
        /// Which one.
        range: usize,
        /// The only order of the pgmap.
        order: Order,
    },

    /// The host has no memory for the words of so many pages: 8 bytes each, of which it has to keep
    /// only what is used.
    #[error("no memory for the words of {} pages", .0.0)]
    NoMemory(Pages),

    /// A medium failed.
    #[error(transparent)]
    Media(#[from] MediaError),
}

/// Why a request for pages failed. Nothing was changed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The pages do not lie inside the pgmap.
    #[error("pages {}..{} lie outside the pgmap", .0.start, .0.end)]
    OutOfRange(Range<PgmapOff>),

    /// The offset, or the number of pages, is not a multiple of the folio size.
    #[error("pgmap offset {offset} is not aligned to order {order}")]
    Misaligned {
        /// The first offset that is not.
        offset: PgmapOff,
        /// The order asked for.
        order: Order,
    },

    /// A folio would reach from one medium into the next.
    #[error("a folio of order {order} at pgmap offset {offset} crosses into another medium")]
    Crossing {
        /// The offset of the folio.
        offset: PgmapOff,
        /// The order asked for.
        order: Order,
    },

    /// The pgmap gives out folios of one order only.
    #[error("the pgmap has folios of order {fixed}, not of order {order}")]
    WrongOrder {
        /// The order asked for.
        order: Order,
        /// The order of the device.
        fixed: Order,
    },

    /// The first page found that is referenced or claimed.
    #[error("page {0} is in use")]
    Busy(PgmapOff),

    /// The first page found whose memory failed.
    #[error("page {0} is poisoned")]
    Poisoned(PgmapOff),
}

/// What a page map is made of.
pub(crate) struct Shared {
    kind: MemoryType,
    ranges: Ranges,
    table: Table,
    pins: Pins,
    limbo: Limbo,
    queues: WaitQueues,
    stores: Stores,
    on_failure: Mutex<Option<Weak<dyn MemoryFailure>>>,
    taps: Taps,
    /// None from the end on.
    pub(crate) leases: Mutex<Vec<Lease>>,
}

impl Pgmap {
    /// Lays `ranges` out one behind the other, all pages idle.
    ///
    /// # Errors
    ///
    /// A [`PgmapError`] that names the range: none may be empty, start off a page boundary, reach
    /// beyond its medium or overlap another.
    pub fn new(ranges: Vec<MediaRange>, kind: MemoryType) -> Result<Pgmap, PgmapError> {
        let ranges = Ranges::new(ranges)?;
        if let Some(order) = kind.fixed_order()
            && let Some(range) = ranges.first_not_whole(order)
        {
            return Err(PgmapError::NotWholeFolios { range, order });
        }
        let leases = ranges.lease()?;
        let shared = Shared {
            table: Table::new(ranges.size(), first(&kind))
                .ok_or(PgmapError::NoMemory(ranges.size()))?,
            kind,
            on_failure: Mutex::new(None),
            taps: Taps::default(),
            leases: Mutex::new(leases),
            ranges,
            pins: Pins::default(),
            limbo: Limbo::default(),
            queues: WaitQueues::default(),
            stores: Stores::default(),
        };
        Ok(Pgmap::of(shared))
    }

    /// The number of pages of all ranges.
    #[inline]
    pub fn size(&self) -> Pages {
        self.shared().ranges.size()
    }

    /// What kind of memory this is.
    #[inline]
    pub fn kind(&self) -> &MemoryType {
        &self.shared().kind
    }

    /// Has `listener` hear of memory that fails, in place of who was told before. It is not kept
    /// alive; one that is gone is not told.
    pub fn listen_for_failure(&self, listener: Weak<dyn MemoryFailure>) {
        *self.shared().on_failure.lock() = Some(listener);
    }

    /// Lets `tap` see the stores, flushes and fences that pass through the page map, until it is
    /// dropped.
    pub fn tap(&self, tap: Weak<dyn StoreTap>) {
        self.shared().taps.add(tap);
    }

    /// Every pin that is held, oldest first.
    pub fn pins(&self) -> Vec<PinRecord> {
        self.shared().pins.all()
    }

    /// The pages whose memory failed, in order. A dead page map still knows them: whoever describes
    /// the media again marks them again.
    pub fn poisoned(&self) -> Vec<PgmapOff> {
        self.table().poisoned()
    }

    /// What holds for all media together: the weakest persistence, the smallest host page.
    pub fn facts(&self) -> MediaFacts {
        self.shared().ranges.facts()
    }

    /// Checks every invariant that the page words can show, at a moment when no other thread
    /// changes them.
    ///
    /// # Errors
    ///
    /// Names the invariant that does not hold, and where.
    pub fn verify(&self) -> Result<(), String> {
        verify::verify(self)
    }

    #[inline]
    pub(crate) fn ranges(&self) -> &Ranges {
        &self.shared().ranges
    }

    #[inline]
    pub(crate) fn table(&self) -> &Table {
        &self.shared().table
    }

    pub(crate) fn registry(&self) -> &Pins {
        &self.shared().pins
    }

    pub(crate) fn limbo(&self) -> &Limbo {
        &self.shared().limbo
    }

    pub(crate) fn queues(&self) -> &WaitQueues {
        &self.shared().queues
    }

    pub(crate) fn taps(&self) -> &Taps {
        &self.shared().taps
    }

    pub(crate) fn stores(&self) -> &Stores {
        &self.shared().stores
    }

    /// Gives pages that the last put claimed to whoever deferred them, or else to the driver of the
    /// memory.
    pub(crate) fn hand_back(&self, span: IdleSpan) {
        self.limbo().deliver(span, |rest| match self.kind().device() {
            Some(driver) if !rest.pages().is_empty() => driver.folio_free(rest),
            _ => drop(rest),
        });
    }
}

impl fmt::Debug for Pgmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pgmap")
            .field("kind", &self.shared().kind)
            .field("ranges", &self.shared().ranges)
            .finish_non_exhaustive()
    }
}

impl PgmapRef {
    /// The number of pages of all ranges.
    #[inline]
    pub fn size(&self) -> Pages {
        self.pgmap().size()
    }

    /// Claims idle pages, all or none.
    ///
    /// A claim that is refused may make another one be refused that overlaps it and runs at the
    /// same time.
    ///
    /// # Errors
    ///
    /// [`RequestError::OutOfRange`]; [`RequestError::Busy`] or [`RequestError::Poisoned`] with the
    /// first page that is not idle.
    pub fn claim(&self, pages: Range<PgmapOff>) -> Result<IdleSpan, RequestError> {
        self.claim_up_to(pages, Order::Pud)
    }

    /// Claims `nr` adjacent folios and activates them: each leaves with one reference.
    ///
    /// # Errors
    ///
    /// Those of [`PgmapRef::claim`] and of [`IdleSpan::activate`].
    pub fn request_folios(
        &self,
        at: PgmapOff,
        order: Order,
        nr: u32,
    ) -> Result<FolioSpan, RequestError> {
        let len = u64::from(nr) * order.pages().0;
        let end = PgmapOff(at.0.saturating_add(len));
        self.check_folios(&(at..end), order)?;
        self.claim_up_to(at..end, order)?.activate(order).map_err(|(_, error)| error)
    }

    /// Claims one folio and activates it with one reference.
    ///
    /// # Errors
    ///
    /// Those of [`PgmapRef::request_folios`].
    #[inline]
    pub fn request_folio(&self, at: PgmapOff, order: Order) -> Result<Folio, RequestError> {
        // The error is made apart, so that the folio stays in registers.
        if self.is_folio(at, order) && self.pgmap().table().request(Block::covering(at, order)) {
            return Ok(Folio::counted(self.clone(), Block::covering(at, order)));
        }
        Err(self.refusal(at, order))
    }

    /// The folio that covers `at`, if somebody counts it already.
    ///
    /// Never raises a count from 0 to 1 (rule 2); so there is none for a claimed page either.
    #[inline]
    pub fn get_folio(&self, at: PgmapOff) -> Option<Folio> {
        if at.0 >= self.size().0 {
            return None;
        }
        let (leaf, seen) = self.pgmap().table().leaf(at);
        let got = self.pgmap().table().word(leaf).try_get(seen);
        got.then(|| Folio::counted(self.clone(), leaf))
    }

    /// Waits until each page of `pages` was seen without a pin. It does not wait for references.
    ///
    /// Somebody may pin a page again meanwhile; who needs more than a hint takes what keeps pins
    /// off and looks again.
    ///
    /// # Blocking
    ///
    /// Sleeps until the last unpin of each folio, as `patience` says: a [`Wait`], or one that
    /// [can be interrupted](Wait::unless).
    ///
    /// # Errors
    ///
    /// The first page that is still pinned when the patience ends.
    pub fn wait_unpinned<'a>(
        &self,
        pages: Range<PgmapOff>,
        patience: impl Into<Patience<'a>>,
    ) -> Result<(), PgmapOff> {
        let (pages, patience) = (self.clipped(pages), patience.into());
        let (table, queues) = (self.pgmap().table(), self.pgmap().queues());
        for (leaf, value) in table.leaves(pages.clone()) {
            if value.pins() > 0 && !queues.wait_unpinned(leaf, table.word(leaf), &patience) {
                return Err(leaf.head().max(pages.start));
            }
        }
        Ok(())
    }

    /// The first page of `pages` that is pinned.
    pub fn first_pinned(&self, pages: Range<PgmapOff>) -> Option<PgmapOff> {
        let pages = self.clipped(pages);
        let mut leaves = self.pgmap().table().leaves(pages.clone());
        let (leaf, _) = leaves.find(|(_, value)| value.pins() > 0)?;
        Some(leaf.head().max(pages.start))
    }

    /// The first page of `pages` that is pinned, or frozen: also a frozen page that only a
    /// translation is left of refuses every store.
    pub fn first_held(&self, pages: Range<PgmapOff>) -> Option<PgmapOff> {
        let pages = self.clipped(pages);
        let mut leaves = self.pgmap().table().leaves(pages.clone());
        let (leaf, _) = leaves.find(|(_, value)| value.pins() > 0 || value.is_frozen())?;
        Some(leaf.head().max(pages.start))
    }

    /// The pins that cover any page of `pages`, oldest first.
    pub fn pins_in(&self, pages: Range<PgmapOff>) -> Vec<PinRecord> {
        self.pgmap().registry().within(&pages)
    }

    /// How far the memory from `at` on is contiguous in one medium. A user mapping, or a folio of a
    /// larger order, must not reach further.
    ///
    /// # Panics
    ///
    /// Panics if `at` lies outside the pgmap.
    pub fn contiguous(&self, at: PgmapOff) -> Pages {
        self.pgmap().ranges().contiguous(at)
    }

    /// Where a page lives: its medium, and the first byte there.
    ///
    /// # Panics
    ///
    /// Panics if `at` lies outside the pgmap.
    pub fn locate(&self, at: PgmapOff) -> (&Arc<dyn Media>, u64) {
        let placed = self.pgmap().ranges().of(at);
        (placed.media(), placed.byte_in_media(at.byte()))
    }

    /// Marks a page whose memory failed. Whoever holds it keeps it; once idle, it is not given out
    /// again until [`PgmapRef::clear_poison`].
    ///
    /// # Panics
    ///
    /// Panics if `at` lies outside the pgmap.
    pub fn poison(&self, at: PgmapOff) {
        assert!(at.0 < self.size().0, "page {at} lies outside the pgmap");
        self.pgmap().table().poison(at);
    }

    /// Marks pages whose memory failed, as [`PgmapRef::poison`] does, and tells whoever
    /// [listens](Pgmap::listen_for_failure).
    ///
    /// # Panics
    ///
    /// Panics if a page lies outside the pgmap.
    pub fn memory_failure(&self, pages: Range<PgmapOff>) {
        assert!(pages.end.0 <= self.size().0, "page {} lies outside the pgmap", pages.end);
        (pages.start.0..pages.end.0).for_each(|page| self.poison(PgmapOff(page)));
        let listener = self.pgmap().shared().on_failure.lock().as_ref().and_then(Weak::upgrade);
        if let Some(listener) = listener {
            listener.memory_failure(pages);
        }
    }

    /// Takes the mark of [`PgmapRef::poison`] back.
    pub fn clear_poison(&self, at: PgmapOff) {
        let pgmap = self.pgmap();
        let claimed = |page: Block| IdleSpan::claimed(self.clone(), page.pages());
        match pgmap.table().clear_poison(at) {
            Cure::Done => (),
            Cure::Claimed(page) => pgmap.limbo().deliver(claimed(page), drop),
            Cure::Left(page) => pgmap.hand_back(claimed(page)),
        }
    }

    /// The first page of `pages` whose memory failed.
    pub fn first_poisoned(&self, pages: Range<PgmapOff>) -> Option<PgmapOff> {
        self.pgmap().table().first_poisoned(pages)
    }

    /// Whether `pages` can be folios of `order`.
    pub(crate) fn check_folios(
        &self,
        pages: &Range<PgmapOff>,
        order: Order,
    ) -> Result<(), RequestError> {
        self.check_aligned(pages, order)?;
        let mut heads = (pages.start.0..pages.end.0).step_by(step(order)).map(PgmapOff);
        heads.try_for_each(|head| self.check_folio(head, order))
    }

    /// Whether `pages` begin and end at folios of `order`, inside the page map.
    pub(crate) fn check_aligned(
        &self,
        pages: &Range<PgmapOff>,
        order: Order,
    ) -> Result<(), RequestError> {
        self.check_order(order)?;
        let misaligned = [pages.start, pages.end].into_iter().find(|at| !at.is_aligned(order));
        if let Some(offset) = misaligned {
            return Err(RequestError::Misaligned { offset, order });
        }
        self.check_range(pages)
    }

    /// Whether the pages from `at` on can be a folio of `order`.
    #[inline]
    fn is_folio(&self, at: PgmapOff, order: Order) -> bool {
        let fits = at.is_aligned(order) && at.0.saturating_add(order.pages().0) <= self.size().0;
        let is_large = order > Order::Base;
        fits && self.has_order(order) && (!is_large || self.contiguous(at) >= order.pages())
    }

    /// Why [`PgmapRef::is_folio`] is false.
    pub(crate) fn check_folio(&self, at: PgmapOff, order: Order) -> Result<(), RequestError> {
        self.check_order(order)?;
        if !at.is_aligned(order) {
            return Err(RequestError::Misaligned { offset: at, order });
        }
        self.check_range(&(at..PgmapOff(at.0.saturating_add(order.pages().0))))?;
        if self.contiguous(at) < order.pages() {
            return Err(RequestError::Crossing { offset: at, order });
        }
        Ok(())
    }

    /// Why [`PgmapRef::request_folio`] refused.
    #[cold]
    fn refusal(&self, at: PgmapOff, order: Order) -> RequestError {
        let misfit = self.check_folio(at, order).err();
        misfit.unwrap_or_else(|| self.pgmap().table().refusal(Block::covering(at, order)))
    }

    #[inline]
    fn has_order(&self, order: Order) -> bool {
        self.pgmap().kind().fixed_order().is_none_or(|fixed| fixed == order)
    }

    fn check_order(&self, order: Order) -> Result<(), RequestError> {
        match self.pgmap().kind().fixed_order() {
            Some(fixed) if fixed != order => Err(RequestError::WrongOrder { order, fixed }),
            _ => Ok(()),
        }
    }

    #[inline]
    pub(crate) fn check_range(&self, pages: &Range<PgmapOff>) -> Result<(), RequestError> {
        if pages.start > pages.end || pages.end.0 > self.size().0 {
            return Err(RequestError::OutOfRange(pages.clone()));
        }
        Ok(())
    }

    /// Claims `pages` in leaves of `largest` at most.
    fn claim_up_to(
        &self,
        pages: Range<PgmapOff>,
        largest: Order,
    ) -> Result<IdleSpan, RequestError> {
        self.check_range(&pages)?;
        let mut rest = pages.clone();
        while rest.start < rest.end {
            let run = self.pgmap().ranges().largest_run(&rest, largest);
            let claimed = self.pgmap().table().claim(run);
            rest.start = run.nth(claimed).head();
            if claimed < run.len() {
                self.pgmap().table().retire(pages.start..rest.start);
                return Err(self.pgmap().table().refusal(run.nth(claimed)));
            }
        }
        Ok(IdleSpan::claimed(self.clone(), pages))
    }

    fn clipped(&self, pages: Range<PgmapOff>) -> Range<PgmapOff> {
        pages.start..pages.end.min(PgmapOff(self.size().0))
    }
}

impl fmt::Debug for PgmapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PgmapRef").field(self.pgmap()).finish()
    }
}

/// The pages of a folio of `order`, as a step of an iterator.
pub(crate) fn step(order: Order) -> usize {
    usize::try_from(order.pages().0).expect("at most 2^18")
}

/// What the words of memory of this kind hold from the moment that they are counted.
fn first(kind: &MemoryType) -> First {
    match kind.device() {
        Some(_) => First::FOLIO.to_be_handed_back(),
        None => First::FOLIO,
    }
}
