//! Pins of files as callers hold them: the pinned pages, and the record of a lease.

use std::ops::Deref;

use udax_mapping::PinnedFolios;
use udax_mm::sync::Arc;
use udax_mm::{Pages, PgmapOff, PgmapRef, PinTerm};

use crate::FsError;
use crate::alloc::Extent;
use crate::inode::Keeper;
use crate::pin_record::PinHolder;
use crate::pin_table::PinGrant;
use crate::store::Store;

/// A pinned range of a file. Dropping it lets the pages go.
///
/// A long-term pin is recorded on the medium before there is one of these, and its record is taken
/// out before the pages go: whoever opens the pool after an unclean end of this process knows every
/// page that a device may reach, and none that it cannot. A pin for writing keeps its file in memory,
/// as a handle does, until the file has no name: whoever opens it finds that a device stores to it.
#[derive(Debug)]
pub struct HeldPin {
    // Dropped first: a page that another file has by then must not be taken for one of a pin.
    _grant: Option<PinGrant>,
    pinned: PinnedFolios,
    // Dropped last: it may be what keeps the file, which flushes what was stored.
    _keeper: Option<Keeper>,
}

impl HeldPin {
    /// Records a pin, if it is for long; both are durable, or neither is.
    ///
    /// # Errors
    ///
    /// Those of [`PinGrant::record`]; the pin is dropped then.
    pub(crate) fn grant(
        store: &Arc<Store>,
        pinned: PinnedFolios,
        keeper: Option<Keeper>,
    ) -> Result<HeldPin, FsError> {
        let grant = match pinned.info().term {
            PinTerm::Short => None,
            PinTerm::Long => {
                let mut extents = Vec::new();
                for (pgmap, pages) in pinned.pages() {
                    add_extents(&mut extents, store, pgmap, pages)?;
                }
                Some(PinGrant::record(store, &PinHolder::of(pinned.info()), &extents)?)
            }
        };
        Ok(HeldPin { _grant: grant, pinned, _keeper: keeper })
    }
}

impl Deref for HeldPin {
    type Target = PinnedFolios;

    fn deref(&self) -> &PinnedFolios {
        &self.pinned
    }
}

/// Adds the extents of the device behind pages of a page map, joined where they are adjacent.
fn add_extents(
    extents: &mut Vec<Extent>,
    store: &Store,
    pgmap: &PgmapRef,
    pages: std::ops::Range<PgmapOff>,
) -> Result<(), FsError> {
    let mut at = pages.start;
    while at < pages.end {
        let start = store.device().device_off(pgmap.pgmap(), at);
        let start = start.expect("a file's pages lie on the device of its pool");
        // As far as page map and device go side by side.
        let span = store.span(Extent { start, pages: pages.end.since(at) })?;
        let part: Pages = span.pages();
        match extents.last_mut() {
            Some(last) if last.end() == start => last.pages = last.pages + part,
            _ => extents.push(Extent { start, pages: part }),
        }
        at = at + part;
    }
    Ok(())
}
