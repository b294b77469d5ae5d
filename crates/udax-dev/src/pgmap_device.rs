//! The device at the bottom of every stack: one whole page map.

use crate::failure::OfPgmap;
use crate::{
    AccessError, DaxDevice, DaxSpan, Hold, Holder, HolderError, HolderSlot, IoError, NoDax, Route,
};
use udax_mm::media::Site;
use udax_mm::sync::{Arc, Weak};
use udax_mm::{DeviceOff, MediaFacts, Pages, Pgmap, PgmapOff, StillBusy, Wait};

/// A device over one whole page map: page n of the device is page n of the page map.
#[derive(Debug)]
pub struct PgmapDevice {
    pgmap: Pgmap,
    slot: Arc<HolderSlot>,
    /// Kept, because the page map does not keep it.
    _failures: Arc<OfPgmap>,
}

impl PgmapDevice {
    /// Makes a device of `pgmap`. From then on the holder of the device hears of memory that fails
    /// there, in place of who heard of it before.
    #[must_use]
    pub fn new(pgmap: Pgmap) -> PgmapDevice {
        let slot = HolderSlot::new();
        let failures = Arc::new(OfPgmap { slot: Arc::clone(&slot) });
        let listener: Weak<OfPgmap> = Arc::downgrade(&failures);
        pgmap.listen_for_failure(listener);
        PgmapDevice { pgmap, slot, _failures: failures }
    }
}

impl DaxDevice for PgmapDevice {
    fn size(&self) -> Pages {
        self.pgmap.size()
    }

    fn dax(&self) -> Result<(), NoDax> {
        if self.pgmap.kind().is_addressable() {
            return Ok(());
        }
        Err(NoDax {
            reason: "its memory is private to it, and the processor cannot address it".into(),
        })
    }

    fn route(&self, at: DeviceOff, max: Pages) -> Result<Route, AccessError> {
        if !self.slot.is_live() {
            return Err(AccessError::Dead);
        }
        let pgmap = self.pgmap.try_get_live().ok_or(AccessError::Dead)?;
        DaxSpan::new(pgmap, PgmapOff(at.0), max).map(Route::Memory)
    }

    fn fence(&self, site: Site) -> Result<(), IoError> {
        let pgmap = self.pgmap.try_get_live().ok_or(AccessError::Dead)?;
        Ok(pgmap.fence(site)?)
    }

    fn facts(&self) -> MediaFacts {
        self.pgmap.facts()
    }

    fn pgmaps(&self) -> Vec<Pgmap> {
        vec![self.pgmap.clone()]
    }

    fn device_off(&self, pgmap: &Pgmap, at: PgmapOff) -> Option<DeviceOff> {
        (self.pgmap == *pgmap && at.0 < self.pgmap.size().0).then_some(DeviceOff(at.0))
    }

    fn hold(&self, holder: Weak<dyn Holder>) -> Result<Hold, HolderError> {
        self.slot.claim(holder)
    }

    fn kill(&self, wait: Wait) -> Result<(), StillBusy> {
        self.slot.notify();
        self.pgmap.kill(wait).map(|_dead| ())
    }
}
