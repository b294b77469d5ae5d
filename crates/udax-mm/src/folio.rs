//! Folios: handles that count.
//!
//! This file owns the handles of one counted folio; many are in [`folio_span`](crate::folio_span),
//! pins in [`pin`](crate::pin).

use crate::block::Block;
use crate::idle::IdleSpan;
use crate::pgmap::PgmapRef;
use crate::pin::{PinInfo, PinnedFolio};
use crate::units::{Order, PgmapOff};
use crate::value::Value;
use crate::word::{Left, PageWord, Put};
use std::fmt;
use std::ops::Range;

/// A counted reference to one folio. Clone is get, drop is put.
///
/// Holds a live reference of the page map.
///
/// ```
/// # use udax_mm::{MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff};
/// # use udax_mm::{media::FileMedia, sync::Arc};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let media = Arc::new(FileMedia::memfd("example", 4 << 20)?);
/// # let range = MediaRange { media, start: 0, pages: Pages(1024) };
/// # let pgmap = Pgmap::new(vec![range], MemoryType::FsDax)?.try_get_live().unwrap();
/// assert!(pgmap.get_folio(PgmapOff(700)).is_none(), "nobody counts it");
/// let folio = pgmap.request_folio(PgmapOff(512), Order::Pmd)?;
/// let same = pgmap.get_folio(PgmapOff(700)).expect("the folio covers it");
/// assert_eq!(same.head(), folio.head());
/// # Ok(())
/// # }
/// ```
pub struct Folio {
    pgmap: PgmapRef,
    block: Block,
}

/// A folio borrowed from whoever counts it.
#[derive(Clone, Copy, Debug)]
pub struct FolioRef<'a> {
    folio: &'a Folio,
}

impl Folio {
    /// The first page.
    #[inline]
    pub fn head(&self) -> PgmapOff {
        self.block.head()
    }

    /// The size.
    #[inline]
    pub fn order(&self) -> Order {
        self.block.order()
    }

    /// All pages.
    #[inline]
    pub fn pages(&self) -> Range<PgmapOff> {
        self.block.pages()
    }

    /// The page map it belongs to.
    pub fn pgmap(&self) -> &PgmapRef {
        &self.pgmap
    }

    /// Lends the folio for as long as this handle stays.
    #[inline]
    pub fn borrow(&self) -> FolioRef<'_> {
        FolioRef { folio: self }
    }

    /// A reference that truncation waits for, known to the page map as `info` says.
    pub fn pin(&self, info: PinInfo) -> PinnedFolio {
        self.word().pin();
        PinnedFolio::pinned(Folio::counted(self.pgmap.clone(), self.block), info)
    }

    /// Whether anybody pins it.
    pub fn is_pinned(&self) -> bool {
        self.word().load().pins() > 0
    }

    /// Whether its bytes cannot change until it is idle.
    pub fn is_frozen(&self) -> bool {
        self.word().load().is_frozen()
    }

    /// The handle of a reference that was just counted.
    #[inline]
    pub(crate) fn counted(pgmap: PgmapRef, block: Block) -> Folio {
        Folio { pgmap, block }
    }

    #[inline(never)]
    fn leave(&self, before: Value) {
        leave(&self.pgmap, self.block, self.word().leave(before));
    }

    #[inline]
    pub(crate) fn block(&self) -> Block {
        self.block
    }

    #[inline]
    pub(crate) fn word(&self) -> &PageWord {
        self.pgmap.pgmap().table().word(self.block)
    }
}

impl Clone for Folio {
    #[inline]
    fn clone(&self) -> Folio {
        self.word().get();
        Folio::counted(self.pgmap.clone(), self.block)
    }
}

impl Drop for Folio {
    #[inline]
    fn drop(&mut self) {
        match self.word().put() {
            Put::Counted => (),
            Put::Idle => self.pgmap.pgmap().table().lower_above(self.block, 1),
            Put::Last(before) => self.leave(before),
        }
    }
}

impl fmt::Debug for Folio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folio")
            .field("head", &self.head())
            .field("order", &self.order())
            .field("word", &self.word().load())
            .finish_non_exhaustive()
    }
}

impl FolioRef<'_> {
    /// The first page.
    #[inline]
    pub fn head(&self) -> PgmapOff {
        self.folio.head()
    }

    /// The size.
    #[inline]
    pub fn order(&self) -> Order {
        self.folio.order()
    }

    /// All pages.
    #[inline]
    pub fn pages(&self) -> Range<PgmapOff> {
        self.folio.pages()
    }

    /// The page map it belongs to.
    pub fn pgmap(&self) -> &PgmapRef {
        self.folio.pgmap()
    }

    /// Whether its bytes cannot change until it is idle.
    pub fn is_frozen(&self) -> bool {
        self.folio.is_frozen()
    }

    /// A counted reference of its own.
    pub fn to_folio(&self) -> Folio {
        self.folio.clone()
    }
}

/// Does what the last put of the folio `block` left to do.
pub(crate) fn leave(pgmap: &PgmapRef, block: Block, left: Left) {
    match left {
        Left::Done => (),
        Left::Idle => pgmap.pgmap().table().lower_above(block, 1),
        Left::Claimed => {
            pgmap.pgmap().hand_back(IdleSpan::claimed(pgmap.clone(), block.pages()));
        }
    }
}
