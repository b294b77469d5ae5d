//! Regions: one medium, carved into devices that are bound one way or another.
//!
//! This file owns which device has which part of the medium, how it is bound, and what is known of bad
//! pages between two bindings. How parts are found and given back is in [`parts`]. It never touches
//! a byte.
//!
//! A binding makes a page map and a device of its own, and a binding that has ended stays ended: who
//! still has its device has a dead one. So nothing of one mode can be left in the next (I-63, B-36),
//! but for one thing that has to be: memory that failed under a device is bad under the next, too.

mod parts;

use crate::{DaxDevice, PgmapDevice};
use parts::Parts;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use udax_mm::sync::{Arc, Mutex, MutexGuard};
use udax_mm::{
    DeviceOff, Media, MediaRange, MemoryType, Order, Pages, Pgmap, PgmapError, PgmapOff, StillBusy,
    Wait,
};

/// One medium, carved into devices (`dax_region`). Clones are handles of the same region.
///
/// # Examples
///
/// ```
/// # use udax_mm::{Order, Pages, Wait, media::FileMedia, sync::Arc};
/// # use udax_dev::{DaxDevice, Mode, Region, RegionError};
/// let region = Region::new(Arc::new(FileMedia::memfd("region", 8 << 20)?));
/// let device = region.create("scratch", Pages(512), Order::Pmd)?;
///
/// let dax = device.bind(Mode::DevDax)?;
/// assert_eq!(dax.size(), Pages(512));
/// assert!(matches!(device.resize(Pages(1024)), Err(RegionError::Bound { .. })));
///
/// device.unbind(Wait::Forever)?;
/// device.resize(Pages(1024))?;
/// assert_eq!(device.bind(Mode::FsDax)?.size(), Pages(1024));
/// assert!(dax.direct_access(Default::default(), Pages(1)).is_err(), "this one stays dead");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Region {
    shared: Arc<Shared>,
}

/// A device of a region (`dev_dax`): parts of the medium under one name. Clones are handles of the
/// same device.
///
/// It keeps the region (B-21), and a name that was removed is never another device's: its handles go
/// on to say so.
///
/// # Examples
///
/// ```
/// # use udax_mm::{Order, Pages, media::FileMedia, sync::Arc};
/// # use udax_dev::Region;
/// let region = Region::new(Arc::new(FileMedia::memfd("region", 8 << 20)?));
/// let [one, other] = ["one", "other"].map(|name| region.create(name, Pages(512), Order::Base));
/// let (one, other) = (one?, other?);
///
/// // What follows it belongs to the other device, so it comes to lie in two parts.
/// one.resize(Pages(700))?;
/// assert_eq!(one.ranges()?.len(), 2);
///
/// other.remove()?;
/// assert!(other.ranges().is_err());
/// assert_eq!(region.free(Order::Base), Pages(2048 - 700));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RegionDevice {
    shared: Arc<Shared>,
    id: Id,
}

/// What a device of a region is bound as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Memory for a filesystem, in folios of any order ([`MemoryType::FsDax`]).
    FsDax,
    /// A device that is mapped as it is, in folios of its alignment ([`MemoryType::Generic`]).
    DevDax,
}

/// Why a region or a device of one could not be changed. Nothing changed then.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// The device was removed.
    #[error("the device was removed from its region; create another")]
    Removed,

    /// Another device has the name.
    #[error("the region has a device named {0} already")]
    NameTaken(Arc<str>),

    /// A device of no pages.
    #[error("a device has at least one page; remove it instead")]
    Empty,

    /// The size is not a multiple of the alignment.
    #[error("{} pages are no whole number of folios of {} pages, the alignment of the device", .pages.0, .align.pages().0)]
    Misaligned {
        /// The size that was asked for.
        pages: Pages,
        /// The alignment of the device.
        align: Order,
    },

    /// The host maps the medium in larger pages than the device would.
    #[error("the host maps the medium in pages of {host_page} bytes; use an alignment of at least as many, not {}", .align.pages().bytes())]
    HostPage {
        /// The alignment that was asked for.
        align: Order,
        /// Bytes in a page of the host.
        host_page: usize,
    },

    /// The region has not that much left at this alignment.
    #[error("{} pages are free in the region at this alignment, and {} more are needed", .free.0, .wanted.0)]
    NoSpace {
        /// The pages that are missing to the size.
        wanted: Pages,
        /// The pages that whole folios could have.
        free: Pages,
    },

    /// The device is in use.
    #[error("the device {name} is bound as {mode}; unbind it first")]
    Bound {
        /// Its name.
        name: Arc<str>,
        /// How it is bound.
        mode: Mode,
    },

    /// The last binding is being ended, and somebody still uses its pages.
    #[error("the device is being unbound")]
    Busy(#[from] StillBusy),

    /// There could be no page map: somebody else has pages of the medium. It can be bound again.
    #[error("the device could not be bound")]
    Pgmap(#[from] PgmapError),
}

/// Never given twice in one region.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Id(u64);

#[derive(Debug)]
struct Shared {
    media: Arc<dyn Media>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    devices: BTreeMap<Id, Device>,
    next: u64,
    /// First bytes of pages of the medium that are known to be bad, under idle devices and none.
    bad: BTreeSet<u64>,
}

#[derive(Debug)]
struct Device {
    name: Arc<str>,
    align: Order,
    parts: Parts,
    bound: Option<Bound>,
}

/// A binding that has not been seen to have ended.
#[derive(Clone, Debug)]
struct Bound {
    mode: Mode,
    device: Arc<PgmapDevice>,
    pgmap: Pgmap,
}

impl Region {
    /// A region of all of `media`, without a device.
    #[must_use]
    pub fn new(media: Arc<dyn Media>) -> Region {
        Region { shared: Arc::new(Shared { media, state: Mutex::default() }) }
    }

    /// Makes a device of free parts of the medium, in one part where there is one.
    ///
    /// # Errors
    ///
    /// [`RegionError::NameTaken`], [`RegionError::Empty`], [`RegionError::Misaligned`],
    /// [`RegionError::HostPage`] and [`RegionError::NoSpace`].
    pub fn create(
        &self,
        name: &str,
        pages: Pages,
        align: Order,
    ) -> Result<RegionDevice, RegionError> {
        let name: Arc<str> = name.into();
        let host_page = self.shared.media.facts().host_page;
        if u64::try_from(host_page).is_ok_and(|page| page > align.pages().bytes()) {
            return Err(RegionError::HostPage { align, host_page });
        }
        check_size(pages, align)?;
        let mut state = self.shared.state.lock();
        if state.devices.values().any(|device| device.name == name) {
            return Err(RegionError::NameTaken(name));
        }
        let mut parts = Parts::default();
        state.grow(&mut parts, pages, align, self.shared.media.len())?;
        let id = Id(state.next);
        state.next += 1;
        state.devices.insert(id, Device { name, align, parts, bound: None });
        drop(state);
        Ok(self.handle(id))
    }

    /// The devices, in the order in which they were created.
    pub fn devices(&self) -> Vec<RegionDevice> {
        self.shared.state.lock().devices.keys().map(|&id| self.handle(id)).collect()
    }

    /// How much a device of this alignment could be given.
    pub fn free(&self, align: Order) -> Pages {
        self.shared.state.lock().free(align, self.shared.media.len()).pages()
    }

    fn handle(&self, id: Id) -> RegionDevice {
        RegionDevice { shared: Arc::clone(&self.shared), id }
    }
}

impl RegionDevice {
    /// The name it was created by.
    ///
    /// # Errors
    ///
    /// [`RegionError::Removed`].
    pub fn name(&self) -> Result<Arc<str>, RegionError> {
        self.look(|device| Arc::clone(&device.name))
    }

    /// The size of its folios when it is bound as [`Mode::DevDax`], and what its parts are aligned to.
    ///
    /// # Errors
    ///
    /// [`RegionError::Removed`].
    pub fn align(&self) -> Result<Order, RegionError> {
        self.look(|device| device.align)
    }

    /// The number of pages.
    ///
    /// # Errors
    ///
    /// [`RegionError::Removed`].
    pub fn pages(&self) -> Result<Pages, RegionError> {
        self.look(|device| device.parts.pages())
    }

    /// Where its pages lie in the medium, in order.
    ///
    /// # Errors
    ///
    /// [`RegionError::Removed`].
    pub fn ranges(&self) -> Result<Vec<MediaRange>, RegionError> {
        self.look(|device| device.parts.ranges(&self.shared.media))
    }

    /// How it is bound, if it is: also while it is being unbound.
    ///
    /// # Errors
    ///
    /// [`RegionError::Removed`].
    pub fn mode(&self) -> Result<Option<Mode>, RegionError> {
        self.look(|device| device.bound.as_ref().map(|bound| bound.mode))
    }

    /// The pages whose memory failed, in order: those that the page map has marked, or will have when
    /// it is bound.
    ///
    /// # Errors
    ///
    /// [`RegionError::Removed`].
    pub fn bad_pages(&self) -> Result<Vec<DeviceOff>, RegionError> {
        let state = self.shared.state.lock();
        let device = state.device(self.id)?;
        let pages = match &device.bound {
            Some(bound) => bound.pgmap.poisoned(),
            None => state.bad_pages(device),
        };
        Ok(pages.into_iter().map(|page| DeviceOff(page.0)).collect())
    }

    /// Gives the device another size: takes free parts behind what it has, or gives its end back.
    ///
    /// # Errors
    ///
    /// [`RegionError::Bound`] and [`RegionError::Busy`] while it is not idle; else as
    /// [`Region::create`].
    pub fn resize(&self, pages: Pages) -> Result<(), RegionError> {
        let mut state = self.idle()?;
        let device = state.device(self.id)?;
        let (align, mut parts) = (device.align, device.parts.clone());
        check_size(pages, align)?;
        let old = parts.pages();
        if pages < old {
            parts.cut(old - pages);
        } else {
            state.grow(&mut parts, pages - old, align, self.shared.media.len())?;
        }
        state.device_mut(self.id)?.parts = parts;
        Ok(())
    }

    /// Removes the device: its parts are free, and its handles say that it is gone.
    ///
    /// # Errors
    ///
    /// [`RegionError::Bound`] and [`RegionError::Busy`] while it is not idle.
    pub fn remove(&self) -> Result<(), RegionError> {
        self.idle()?.devices.remove(&self.id);
        Ok(())
    }

    /// Makes a device of its pages, all of them idle but for those known to be bad.
    ///
    /// It lives until it is killed, by [`unbind`](RegionDevice::unbind) or otherwise. A dead one does
    /// not come back: to bind again makes another.
    ///
    /// # Errors
    ///
    /// [`RegionError::Bound`] and [`RegionError::Busy`] while it is not idle;
    /// [`RegionError::Pgmap`] if somebody else describes a part of the medium. It can be bound when
    /// that is over.
    pub fn bind(&self, mode: Mode) -> Result<Arc<PgmapDevice>, RegionError> {
        let mut state = self.idle()?;
        let device = state.device(self.id)?;
        let kind = match mode {
            Mode::FsDax => MemoryType::FsDax,
            Mode::DevDax => MemoryType::Generic(device.align),
        };
        let pgmap = Pgmap::new(device.parts.ranges(&self.shared.media), kind)?;
        mark(&pgmap, state.bad_pages(device));
        let made = Arc::new(PgmapDevice::new(pgmap.clone()));
        let bound = Bound { mode, device: Arc::clone(&made), pgmap };
        state.device_mut(self.id)?.bound = Some(bound);
        Ok(made)
    }

    /// Kills the device that binding made, and waits until nobody uses a page of it. Does nothing if
    /// it is not bound.
    ///
    /// # Blocking
    ///
    /// As [`DaxDevice::kill`].
    ///
    /// # Errors
    ///
    /// [`RegionError::Busy`] names who still uses it when `wait` runs out. It is neither bound nor idle
    /// then: this may be called again, to wait for the rest.
    pub fn unbind(&self, wait: Wait) -> Result<(), RegionError> {
        let Some(bound) = self.look(|device| device.bound.clone())? else { return Ok(()) };
        bound.device.kill(wait)?;
        self.shared.state.lock().settle(self.id, &bound)
    }

    /// The state, in which this device is idle.
    fn idle(&self) -> Result<MutexGuard<'_, State>, RegionError> {
        let mut state = self.shared.state.lock();
        if let Some(bound) = state.device(self.id)?.bound.clone() {
            // Somebody may have killed the device without us.
            state.settle(self.id, &bound)?;
        }
        Ok(state)
    }

    fn look<T>(&self, look: impl FnOnce(&Device) -> T) -> Result<T, RegionError> {
        Ok(look(self.shared.state.lock().device(self.id)?))
    }
}

impl State {
    fn device(&self, id: Id) -> Result<&Device, RegionError> {
        self.devices.get(&id).ok_or(RegionError::Removed)
    }

    fn device_mut(&mut self, id: Id) -> Result<&mut Device, RegionError> {
        self.devices.get_mut(&id).ok_or(RegionError::Removed)
    }

    /// What no device has, in whole folios of `align`.
    fn free(&self, align: Order, len: u64) -> Parts {
        Parts::between(self.devices.values().map(|device| &device.parts), align, len)
    }

    fn grow(
        &self,
        parts: &mut Parts,
        pages: Pages,
        align: Order,
        len: u64,
    ) -> Result<(), RegionError> {
        let free = self.free(align, len);
        if free.pages() < pages {
            return Err(RegionError::NoSpace { wanted: pages, free: free.pages() });
        }
        parts.take(pages, free);
        Ok(())
    }

    /// The pages of an idle device that are known to be bad.
    fn bad_pages(&self, device: &Device) -> Vec<PgmapOff> {
        let place = |&byte: &u64| device.parts.page_of(byte);
        let mut pages: Vec<_> = self.bad.iter().filter_map(place).collect();
        pages.sort_unstable();
        pages
    }

    /// Makes the device idle if `bound`, its last binding, has ended: what the page map knew of bad
    /// pages is known here from then on, and nothing else of it is kept.
    fn settle(&mut self, id: Id, bound: &Bound) -> Result<(), RegionError> {
        let device = self.devices.get_mut(&id).ok_or(RegionError::Removed)?;
        let is_last = device.bound.as_ref().is_some_and(|last| last.pgmap == bound.pgmap);
        if !is_last {
            // Somebody else saw it end.
            return Ok(());
        }
        if bound.pgmap.try_get_live().is_some() {
            return Err(RegionError::Bound { name: Arc::clone(&device.name), mode: bound.mode });
        }
        let _dead = bound.pgmap.kill(Wait::Never)?;
        device.bound = None;
        let parts = &device.parts;
        self.bad.retain(|&byte| parts.page_of(byte).is_none());
        self.bad.extend(bound.pgmap.poisoned().into_iter().map(|page| parts.byte_of(page)));
        Ok(())
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::FsDax => "memory of a filesystem",
            Mode::DevDax => "a device that is mapped as it is",
        })
    }
}

fn check_size(pages: Pages, align: Order) -> Result<(), RegionError> {
    if pages.is_empty() {
        return Err(RegionError::Empty);
    }
    if !pages.0.is_multiple_of(align.pages().0) {
        return Err(RegionError::Misaligned { pages, align });
    }
    Ok(())
}

/// Marks pages of a page map of which nobody has been given one yet.
fn mark(pgmap: &Pgmap, bad: Vec<PgmapOff>) {
    let live = pgmap.try_get_live().expect("nobody else has it to kill it");
    for page in bad {
        live.poison(page);
    }
}
