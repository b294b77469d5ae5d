//! The device seam: what every DAX device answers, whatever it is made of.

use crate::{DaxSpan, Hold, Holder, HolderError};
use std::fmt::Debug;
use udax_mm::media::Site;
use udax_mm::sync::Weak;
use udax_mm::{DeviceOff, MediaError, MediaFacts, Pages, Pgmap, PgmapOff, StillBusy, Wait};

/// Why direct access was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AccessError {
    /// The device, or one below it, was removed or is being removed.
    #[error("the device was removed; open the pool again on a device that is there")]
    Dead,

    /// The page does not lie on the device.
    #[error("page {at} lies outside the device, which has {size} pages")]
    OutOfRange {
        /// The page asked for.
        at: DeviceOff,
        /// The size of the device.
        size: Pages,
    },
}

/// Why bytes of a device could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// The device gave no access.
    #[error(transparent)]
    Access(#[from] AccessError),

    /// The medium failed.
    #[error(transparent)]
    Media(#[from] MediaError),
}

/// A device whose pages are memory (`struct dax_device`).
///
/// A page of a device is reached only through [`direct_access`](DaxDevice::direct_access); there
/// is no global table of pages.
pub trait DaxDevice: Send + Sync + Debug {
    /// The number of pages. Does not change while the device exists, and outlives its removal.
    fn size(&self) -> Pages;

    /// Says where the pages from `at` on are: 1 to `max` of them, never across a range, target or
    /// medium boundary (I-62).
    ///
    /// # Errors
    ///
    /// [`AccessError::Dead`] from the moment that removal begins; [`AccessError::OutOfRange`] if
    /// `at` does not lie on the device.
    ///
    /// # Panics
    ///
    /// Panics if `max` is zero.
    fn direct_access(&self, at: DeviceOff, max: Pages) -> Result<DaxSpan, AccessError>;

    /// Waits until everything that this thread flushed before is in the persistence domain, on
    /// every page map below. `site` is the source line that asked.
    ///
    /// # Blocking
    ///
    /// Waits for the media.
    ///
    /// # Errors
    ///
    /// [`IoError`] if a device below is gone or its medium failed; what was flushed may then not
    /// be persistent.
    fn fence(&self, site: Site) -> Result<(), IoError>;

    /// What holds for every page of the device: the weakest of what the media below promise.
    fn facts(&self) -> MediaFacts;

    /// Every page map below, each once.
    fn pgmaps(&self) -> Vec<Pgmap>;

    /// Where page `at` of `pgmap` lies on this device, or `None` if it is not part of it.
    ///
    /// This is the way up: pins, limbo and poison are found in a page map and are told in terms of
    /// the device.
    fn device_off(&self, pgmap: &Pgmap, at: PgmapOff) -> Option<DeviceOff>;

    /// Claims the device: `holder` is told when it is removed, until the [`Hold`] is dropped.
    ///
    /// The device keeps no strong reference, so a holder may own its hold.
    ///
    /// # Errors
    ///
    /// [`HolderError`] if somebody holds it already or it was removed.
    fn hold(&self, holder: Weak<dyn Holder>) -> Result<Hold, HolderError>;

    /// Takes the device away: refuses new access at once, tells the holder, and waits until
    /// nobody uses a page of it.
    ///
    /// May be called again after an error, to wait for the rest.
    ///
    /// # Blocking
    ///
    /// Waits for every folio, pin and span, for as long as `wait` says, and for the holder to take
    /// its translations back.
    ///
    /// # Errors
    ///
    /// [`StillBusy`] names who still uses the device when `wait` runs out. Access stays refused.
    fn kill(&self, wait: Wait) -> Result<(), StillBusy>;
}
