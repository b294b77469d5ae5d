//! The device seam: what every DAX device answers, whatever it is made of.

use crate::{DaxSpan, Hold, Holder, HolderError, Mapped};
use std::fmt::Debug;
use udax_mm::media::Site;
use udax_mm::sync::{Arc, Weak};
use udax_mm::{DeviceOff, MediaError, MediaFacts, Pages, Pgmap, PgmapOff, StillBusy, Wait};

/// Why direct access was refused.
///
/// The kernel says the same with an errno: `EOPNOTSUPP`, `ENXIO`, `ERANGE` and `EIO`. That a number
/// of pages is negative (`EINVAL`) cannot be said here. Memory that failed (`EHWPOISON`) is granted
/// apart from what is good, and answers for itself when it is touched.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AccessError {
    /// The device has no direct access.
    #[error(transparent)]
    NoDax(#[from] NoDax),

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

    /// A table sends the page to its `error` target.
    #[error("page {at} of the device fails: {by}")]
    Failed {
        /// The page asked for.
        at: DeviceOff,
        /// How many of the pages asked for fail, at least.
        pages: Pages,
        /// The line of the table that fails it.
        by: Arc<str>,
    },
}

/// Why a device has no direct access (`EOPNOTSUPP`).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the device has no direct access: {reason}")]
pub struct NoDax {
    /// What stands in the way, with the line of each table on the way to it.
    pub reason: Arc<str>,
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

/// What lies behind pages of a device, for a copy that ends with the call.
#[derive(Clone, Debug)]
pub enum Route {
    /// Memory.
    Memory(DaxSpan),
    /// This many pages that read as zeros, and forget what is stored.
    Zeros(Pages),
}

/// A device whose pages are memory (`struct dax_device`).
///
/// A page of a device is reached only through [`direct_access`](DaxDevice::direct_access); there
/// is no global table of pages.
pub trait DaxDevice: Send + Sync + Debug {
    /// The number of pages. Does not change while the device exists, and outlives its removal.
    fn size(&self) -> Pages;

    /// Whether the device has direct access. The answer does not change while the device exists
    /// (I-66, B-47).
    ///
    /// # Errors
    ///
    /// [`NoDax`] says why not. Its bytes can still be copied.
    fn dax(&self) -> Result<(), NoDax> {
        Ok(())
    }

    /// Says where the pages from `at` on are: 1 to `max` of them, never across a range, target,
    /// chunk or medium boundary, and either all good or all failed (I-62).
    ///
    /// # Errors
    ///
    /// [`AccessError::NoDax`] if the device has none; [`AccessError::Dead`] from the moment that
    /// removal begins; [`AccessError::OutOfRange`] if `at` does not lie on the device;
    /// [`AccessError::Failed`] if a table says that it fails.
    ///
    /// # Panics
    ///
    /// Panics if `max` is zero.
    fn direct_access(&self, at: DeviceOff, max: Pages) -> Result<DaxSpan, AccessError> {
        Ok(self.recovery_access(at, max)?.clipped_to_one_state())
    }

    /// The same, but good and failed memory in one span (`DAX_RECOVERY_WRITE`): for who looks at
    /// the marks of pages, or gives failed ones new bytes.
    ///
    /// # Errors
    ///
    /// As [`direct_access`](DaxDevice::direct_access).
    ///
    /// # Panics
    ///
    /// Panics if `max` is zero.
    fn recovery_access(&self, at: DeviceOff, max: Pages) -> Result<DaxSpan, AccessError> {
        self.dax()?;
        match self.route(at, max)? {
            Route::Memory(span) => Ok(span),
            Route::Zeros(_) => unreachable!("a device with direct access has no zeros"),
        }
    }

    /// Says what lies behind the pages from `at` on, for a copy: also where there is no direct
    /// access, which is memory or reads as zeros. Good and failed memory are not told apart.
    ///
    /// # Errors
    ///
    /// Those of [`direct_access`](DaxDevice::direct_access), but [`AccessError::NoDax`].
    ///
    /// # Panics
    ///
    /// Panics if `max` is zero.
    fn route(&self, at: DeviceOff, max: Pages) -> Result<Route, AccessError>;

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

    /// Claims the device: `holder` is told what happens to it, until the [`Hold`] is dropped.
    ///
    /// The device keeps no strong reference, so a holder may own its hold. Who needs the device and
    /// not the claim (the NULL holder of Linux) keeps a reference to the device.
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

    /// The device as one that follows a table, if it does. A stack is walked by this, from the top
    /// down.
    fn as_mapped(&self) -> Option<&Mapped> {
        None
    }
}

/// Whether both are the same device.
pub(crate) fn is_same(one: &Arc<dyn DaxDevice>, other: &Arc<dyn DaxDevice>) -> bool {
    address(one) == address(other)
}

/// What tells a device from every other one that exists.
pub(crate) fn address(device: &Arc<dyn DaxDevice>) -> usize {
    Arc::as_ptr(device).cast::<()>().addr()
}
