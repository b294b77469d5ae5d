//! Taps: who sees the stores, flushes and fences that pass through a page map.
//!
//! For targets that record. A store of the processor through a mapping passes through no page map,
//! and nobody sees it.

use crate::media::{MediaError, Site};
use crate::pgmap::PgmapRef;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, Weak};
use std::ops::Range;

/// Sees what passes through a page map.
pub trait StoreTap: Send + Sync {
    /// Bytes of the page map are about to be stored: `store` does that, once.
    ///
    /// Called by whoever stores. What is recorded of stores to the same bytes is in their order if
    /// the tap lets one of them through at a time.
    ///
    /// # Errors
    ///
    /// That of `store`.
    fn store(
        &self,
        pgmap: &PgmapRef,
        bytes: Range<u64>,
        store: &mut dyn FnMut() -> Result<(), MediaError>,
    ) -> Result<(), MediaError>;

    /// Bytes of the page map are about to be flushed on behalf of `site`: `flush` does that, once.
    /// What is recorded of stores and flushes is in their order as for [`store`](StoreTap::store).
    ///
    /// # Errors
    ///
    /// That of `flush`.
    fn flush(
        &self,
        pgmap: &PgmapRef,
        bytes: Range<u64>,
        site: Site,
        flush: &mut dyn FnMut() -> Result<(), MediaError>,
    ) -> Result<(), MediaError>;

    /// What was flushed before is in the persistence domain, on behalf of `site`.
    fn fenced(&self, site: Site);
}

/// The taps of a page map.
#[derive(Default)]
pub(crate) struct Taps {
    /// Whether there ever was one. Relaxed: who stores while a tap is set may be seen or not.
    is_tapped: AtomicBool,
    taps: Mutex<Vec<Weak<dyn StoreTap>>>,
}

impl Taps {
    /// Lets `tap` see what passes from here on, until it is dropped.
    pub(crate) fn add(&self, tap: Weak<dyn StoreTap>) {
        let mut taps = self.taps.lock();
        taps.retain(|tap| tap.strong_count() > 0);
        taps.push(tap);
        self.is_tapped.store(true, Ordering::Relaxed);
    }

    /// Those who see what passes now.
    #[inline]
    pub(crate) fn all(&self) -> Vec<Arc<dyn StoreTap>> {
        if !self.is_tapped.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.taps.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// Makes a flush that all `taps` see.
pub(crate) fn flush_through(
    taps: &[Arc<dyn StoreTap>],
    pgmap: &PgmapRef,
    bytes: &Range<u64>,
    site: Site,
    flush: &mut dyn FnMut() -> Result<(), MediaError>,
) -> Result<(), MediaError> {
    match taps.split_first() {
        None => flush(),
        Some((tap, rest)) => tap.flush(pgmap, bytes.clone(), site, &mut || {
            flush_through(rest, pgmap, bytes, site, flush)
        }),
    }
}

/// Makes a store that all `taps` see.
pub(crate) fn store_through(
    taps: &[Arc<dyn StoreTap>],
    pgmap: &PgmapRef,
    bytes: &Range<u64>,
    store: &mut dyn FnMut() -> Result<(), MediaError>,
) -> Result<(), MediaError> {
    match taps.split_first() {
        None => store(),
        Some((tap, rest)) => {
            tap.store(pgmap, bytes.clone(), &mut || store_through(rest, pgmap, bytes, store))
        }
    }
}
