//! Frozen folios: pages whose bytes udax refuses to change.
//!
//! This file owns the handle. The refusal itself stands where bytes are stored
//! ([`PgmapRef::write`] and its siblings) and where pages are mapped writable.

use crate::block::Block;
use crate::folio::{Folio, FolioRef};
use crate::idle::IdleSpan;
use crate::pgmap::{PgmapRef, RequestError, step};
use crate::pin::{PinInfo, PinnedFolio};
use crate::units::{Order, PgmapOff};
use std::ops::Range;

/// A pinned folio whose bytes udax-mm refuses to write or to map writable.
///
/// Made of pages that nobody counts, so nobody has them mapped. They stay frozen until nobody
/// counts them again, that is at least for as long as this lives.
///
/// ```
/// # use udax_mm::{MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff};
/// # use udax_mm::{PinInfo, PinKind, PinOwner, PinTerm, media::FileMedia, sync::Arc};
/// # use udax_mm::frozen::FrozenFolio;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let media = Arc::new(FileMedia::memfd("example", 1 << 20)?);
/// # let range = MediaRange { media, start: 0, pages: Pages(256) };
/// # let pgmap = Pgmap::new(vec![range], MemoryType::FsDax)?.try_get_live().unwrap();
/// # let owner = PinOwner { process: 1, connection: 0, label: "example".into() };
/// # let since = std::time::Instant::now();
/// # let info = PinInfo { owner, since, kind: PinKind::Read, term: PinTerm::Long };
/// pgmap.write(0, b"ice")?;
/// let span = pgmap.claim(PgmapOff(0)..PgmapOff(1))?;
/// let frozen = FrozenFolio::freeze(span, Order::Base, &info).map_err(|(_, error)| error)?;
/// assert!(pgmap.write(0, b"water").is_err());
/// drop(frozen);
/// assert!(pgmap.write(0, b"water").is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FrozenFolio {
    pin: PinnedFolio,
}

impl FrozenFolio {
    /// Makes the pages of `span` frozen folios of `order`, in order of their pages.
    ///
    /// # Blocking
    ///
    /// Waits for stores to the page map that are under way.
    ///
    /// # Errors
    ///
    /// Gives the span back as [`IdleSpan::activate`] does.
    pub fn freeze(
        mut span: IdleSpan,
        order: Order,
        info: &PinInfo,
    ) -> Result<Vec<FrozenFolio>, (IdleSpan, RequestError)> {
        if let Err(error) = span.prepare(order) {
            return Err((span, error));
        }
        let pages = span.disarm();
        let pgmap = span.pgmap().clone();
        let freeze = |head| {
            let block = Block::covering(PgmapOff(head), order);
            let table = pgmap.pgmap().table();
            table.word(block).activate(table.first().frozen());
            FrozenFolio::counted(pgmap.clone(), block, info.clone())
        };
        let frozen = (pages.start.0..pages.end.0).step_by(step(order)).map(freeze).collect();
        // A store that began before it could see the pages frozen may still be under way.
        pgmap.pgmap().stores().synchronize();
        Ok(frozen)
    }

    /// Another handle of the folio that covers `at`, if it is frozen already.
    ///
    /// # Blocking
    ///
    /// Waits for stores to the page map that are under way.
    pub fn get(pgmap: &PgmapRef, at: PgmapOff, info: PinInfo) -> Option<FrozenFolio> {
        if at.0 >= pgmap.size().0 {
            return None;
        }
        let (leaf, _) = pgmap.pgmap().table().leaf(at);
        if !pgmap.pgmap().table().word(leaf).try_pin_frozen() {
            return None;
        }
        let frozen = FrozenFolio::counted(pgmap.clone(), leaf, info);
        // Whoever froze it may not have waited for the stores before it yet.
        pgmap.pgmap().stores().synchronize();
        Some(frozen)
    }

    /// All pages.
    pub fn pages(&self) -> Range<PgmapOff> {
        self.pin.pages()
    }

    /// The page map it belongs to.
    pub fn pgmap(&self) -> &PgmapRef {
        self.pin.pgmap()
    }

    /// Lends the folio for as long as this handle stays.
    pub fn borrow(&self) -> FolioRef<'_> {
        self.pin.borrow()
    }

    fn counted(pgmap: PgmapRef, block: Block, info: PinInfo) -> FrozenFolio {
        FrozenFolio { pin: PinnedFolio::pinned(Folio::counted(pgmap, block), info) }
    }
}
