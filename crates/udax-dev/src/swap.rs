//! What it takes to follow another table, and what is left in the old one.

use crate::device::is_same;
use crate::mapped::Claimed;
use crate::table::SECTORS;
use crate::{DaxDevice, NoDax, TableError};
use std::time::Instant;
use udax_mm::sync::{Arc, Condvar, Mutex};
use udax_mm::{Pages, PgmapOff, PinRecord, Wait};

/// What a device left behind when its table changed.
#[derive(Debug)]
pub struct Swapped {
    /// Whether everything that was found through the old table is done. If not, the wait ran out
    /// first: somebody still copies by the old table.
    pub is_drained: bool,
    /// The devices that are in the table no more, and are still used.
    pub left: Vec<Left>,
}

/// What still lives in a device that is in the table no more.
#[derive(Debug)]
pub struct Left {
    /// The device. Once the old table is drained it can be claimed again; its pages are idle when its
    /// users are gone.
    pub device: Arc<dyn DaxDevice>,
    /// The pins on it, oldest first.
    pub pins: Vec<PinRecord>,
    /// The first folios and claims on it, in pages of their page map.
    pub pages: Vec<std::ops::Range<PgmapOff>>,
}

/// Why a table was not loaded into a device. The device follows its old one.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// It would have another size.
    #[error("the table has {} sectors, and the device has {}; give it lines for just as many", .new.0 * SECTORS, .size.0 * SECTORS)]
    Size {
        /// Pages of the device.
        size: Pages,
        /// Pages of the table.
        new: Pages,
    },

    /// It would lose its direct access.
    #[error("the device has direct access, and would have none: {}", .0.reason)]
    NoDax(NoDax),

    /// It would gain direct access.
    #[error("the device has no direct access ({}), and would have it; make a new device of the table", .0.reason)]
    Dax(NoDax),

    /// Its memory would promise less: persistence, registration, stores, or the size of host pages.
    #[error(
        "the table lies on memory that promises less than that of the device; use devices of the same kind"
    )]
    Weaker,

    /// Its page maps have folios of other sizes.
    #[error(
        "the devices of the table have folios of another size than those of the device; use devices of the same alignment"
    )]
    Folios,

    /// Pages would come to lie elsewhere, under a filesystem; or they would fail, or be there, in a
    /// table below that of the filesystem, where nobody knows where they were.
    #[error(
        "pages would come to lie in other memory, or fail in a table below, while a filesystem uses them; close it first, or let them fail in the table that it is on"
    )]
    InPlace,

    /// The table is wrong.
    #[error(transparent)]
    Table(#[from] TableError),

    /// The device was removed.
    #[error("the device was removed; make a new one of the table")]
    Dead,
}

/// Tells that nobody uses a table any more.
#[derive(Debug, Default)]
pub(crate) struct Drained {
    users: Mutex<Users>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Users {
    #[default]
    Some,
    None,
}

impl Drained {
    pub(crate) fn set(&self) {
        *self.users.lock() = Users::None;
        self.changed.notify_all();
    }

    /// Waits for it. Returns whether it is so.
    pub(crate) fn wait(&self, wait: Wait) -> bool {
        let mut users = self.users.lock();
        while *users == Users::Some {
            users = match wait {
                Wait::Never => return false,
                Wait::Until(deadline) if Instant::now() >= deadline => return false,
                Wait::Until(deadline) => self.changed.wait_until(users, deadline).0,
                Wait::Forever => self.changed.wait(users),
            };
        }
        true
    }
}

impl Left {
    /// What still lives in `device`, if anything does.
    pub(crate) fn of(device: &Arc<dyn DaxDevice>) -> Option<Left> {
        let (mut pins, mut pages) = (Vec::new(), Vec::new());
        for pgmap in device.pgmaps() {
            pins.extend(pgmap.pins());
            pages.extend(pgmap.busy());
        }
        let is_used = !pins.is_empty() || !pages.is_empty();
        is_used.then(|| Left { device: Arc::clone(device), pins, pages })
    }
}

/// The devices of `old` that are not in `new`.
pub(crate) fn gone(old: &[Arc<Claimed>], new: &[Arc<Claimed>]) -> Vec<Arc<dyn DaxDevice>> {
    let is_kept = |old: &Arc<Claimed>| new.iter().any(|new| is_same(&new.device, &old.device));
    old.iter().filter(|old| !is_kept(old)).map(|old| Arc::clone(&old.device)).collect()
}
