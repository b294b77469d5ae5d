//! Quarantine: pages that a device may still reach for a process that died.
//!
//! This file owns which pages these are and what follows: they are never allocated. Pages that a
//! file has stay with it, and the file is used as before the death; once freed they are withheld
//! instead of becoming free. Only a release ends a quarantine, or another run of the host, which
//! ends what devices did in the one before (rule 36). The records are in the pin table.

use std::ops::Range;
use std::time::SystemTime;

use udax_mm::sync::{Arc, Mutex};
use udax_mm::{DeviceOff, Pages, PinKind};

use crate::alloc::Extent;
use crate::pin_record::{PinEntry, PinHolder, PinState, recorded_label};
use crate::pin_table::{Loaded, Written};
use crate::ranges::Ranges;
use crate::store::Store;
use crate::superblock::Session;
use crate::{Filesystem, FsError, MountMode};

/// A long-term pin as the medium has it: a lease of a device on pages of the pool.
///
/// # Examples
///
/// ```
/// # use std::ffi::OsStr;
/// # use udax_mm::{FileIndex, MediaRange, MemoryType, Pages, Pgmap, media::FileMedia, sync::Arc};
/// # use udax_mm::{PinInfo, PinKind, PinOwner, PinTerm};
/// # use udax_dev::PgmapDevice;
/// use udax_fs::{Filesystem, FormatOptions, Kind, MountMode, Name, Release};
///
/// # let media = Arc::new(FileMedia::memfd("doc", Pages(1024).bytes())?);
/// # let (host, _) = udax_mm::Media::backing(&*media).unwrap();
/// # let host = host.try_clone_to_owned()?.into();
/// # let device = |media| -> Result<_, Box<dyn std::error::Error>> {
/// #     let ranges = vec![MediaRange { media, start: 0, pages: Pages(1024) }];
/// #     Ok(Arc::new(PgmapDevice::new(Pgmap::new(ranges, MemoryType::FsDax)?)))
/// # };
/// # let again = FileMedia::from_file(host, udax_mm::media::Durability::Process)?;
/// # let (device, second) = (device(media)?, device(Arc::new(again))?);
/// Filesystem::format(device.clone(), &FormatOptions::default())?;
/// let (fs, _) = Filesystem::mount(device, MountMode::ReadWrite, None)?;
/// let file = fs.create(&fs.root()?, &Name::new(OsStr::new("a"))?, Kind::File, 0o644, 0, 0)?;
/// file.write_at(b"for a device", 0)?;
/// # let owner = PinOwner { process: std::process::id(), connection: 0, label: "nic".into() };
/// # let since = std::time::Instant::now();
/// # let info = PinInfo { owner, since, kind: PinKind::Write, term: PinTerm::Long };
/// let pin = file.pin(FileIndex(0)..FileIndex(1), info)?;
///
/// // The process dies with the pin, and the next one opens the pool.
/// std::mem::forget(pin);
/// # drop((file, fs));
/// let (fs, recovered) = Filesystem::mount(second, MountMode::ReadWrite, None)?;
/// assert_eq!(recovered.quarantined, 1);
/// assert_eq!(fs.quarantine()[0].label(), "nic");
/// # let which = &Release::All;
/// # fs.release_quarantine(which, udax_fs::LivingOwner::Ignore)?;
/// # assert!(fs.quarantine().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RecordedPin {
    state: PinState,
    holder: PinHolder,
    extents: Vec<Extent>,
    withheld: Pages,
}

/// Which pins [`Filesystem::release_quarantine`] is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Release {
    /// All of them.
    All,
    /// Those of this process.
    Process(u32),
    /// Those with this label, as far as a record has it: 64 bytes at most, and none behind a zero.
    Label(String),
}

/// What a release does if the owner of a pin is alive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LivingOwner {
    /// Refuses, because a device may work for it.
    Refuse,
    /// Releases its pages all the same: somebody knows that no device does.
    Ignore,
}

/// Whether the owners of pins that the medium calls held may still hold them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owners {
    /// Somebody may have the filesystem mounted for writing.
    MayLive,
    /// Nobody has: what is recorded is in quarantine.
    AreGone,
}

/// See the module. The lock is taken before those of the pin table and of the allocator.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(Mutex<Ward>);

#[derive(Debug, Default)]
struct Ward {
    pins: Vec<Held>,
    /// The pages of all pins.
    covered: Ranges,
    /// Those of them that no file has, and that are not free.
    withheld: Ranges,
}

/// A pin in quarantine.
#[derive(Debug)]
struct Held {
    holder: PinHolder,
    written: Vec<Written>,
    extents: Vec<Extent>,
}

/// What mounting did about recorded pins.
#[derive(Debug, Default)]
pub(crate) struct Adopted {
    /// Pins in quarantine.
    pub(crate) quarantined: u64,
    /// Pins of an earlier run of the host, which are no more.
    pub(crate) released: u64,
    /// Pages that are free after the next fence.
    pub(crate) trimmed: Vec<Extent>,
}

impl RecordedPin {
    /// The process that took the pin.
    pub fn process(&self) -> u32 {
        self.holder.process
    }

    /// What the owner called itself, cut to 64 bytes.
    pub fn label(&self) -> &str {
        &self.holder.label
    }

    /// What the device does.
    pub fn kind(&self) -> PinKind {
        self.holder.kind
    }

    /// When it was taken, by the clock of the host.
    pub fn since(&self) -> SystemTime {
        self.holder.since()
    }

    /// Whether the owner died, as far as the medium knows; else the pin is held.
    pub fn is_quarantined(&self) -> bool {
        self.state == PinState::Quarantined
    }

    /// Whether the process that took it runs. Another process of the same number does not count.
    pub fn is_owner_alive(&self) -> bool {
        self.holder.is_alive()
    }

    /// How many pages it holds.
    pub fn pages(&self) -> Pages {
        Pages(self.extents.iter().map(|extent| extent.pages.0).sum())
    }

    /// Those of them that no file has: they would be free, were it not for the quarantine.
    pub fn withheld(&self) -> Pages {
        self.withheld
    }

    /// Where its pages lie on the device.
    pub fn ranges(&self) -> Vec<Range<DeviceOff>> {
        self.extents.iter().map(|extent| extent.start..extent.end()).collect()
    }
}

impl Release {
    fn is_about(&self, holder: &PinHolder) -> bool {
        match self {
            Release::All => true,
            Release::Process(process) => holder.process == *process,
            Release::Label(label) => holder.label == recorded_label(label),
        }
    }
}

impl Filesystem {
    /// The pins of earlier sessions whose pages are in quarantine.
    pub fn quarantine(&self) -> Vec<RecordedPin> {
        self.core().store.quarantine.list()
    }

    /// Ends the quarantine of some pins, durably, because somebody knows that no device works for
    /// their owners any more. Pages that no file has become free. Returns what was released.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::OwnerAlive`] if an owner lives and `living` says to refuse,
    /// [`FsError::ReadOnly`], and [`FsError::Device`] if the device fails. Nothing is released
    /// then, unless the device failed at the very end, while the table gave pages back:
    /// [`Filesystem::quarantine`] tells.
    pub fn release_quarantine(
        &self,
        which: &Release,
        living: LivingOwner,
    ) -> Result<Vec<RecordedPin>, FsError> {
        self.core().check_writable()?;
        self.core().store.release(which, living)
    }

    /// The long-term pins that the table on `device` names, whoever has it mounted. Writes
    /// nothing, and may miss a pin that is taken or dropped meanwhile.
    ///
    /// # Errors
    ///
    /// What [`Filesystem::mount`] returns for the superblock, and [`FsError::Device`].
    pub fn recorded_pins(
        device: Arc<dyn udax_dev::DaxDevice>,
        owners: Owners,
    ) -> Result<Vec<RecordedPin>, FsError> {
        let bytes = udax_dev::DaxBytes::new(Arc::clone(&device));
        let (superblock, _) = crate::superblock::Superblock::read(&bytes)?;
        let store = Store::new(device, superblock.geometry, superblock.uuid);
        let loaded = Loaded::of(&store)?;
        let pins = loaded.pins.into_iter().map(|found| found.pin);
        let pins = pins.filter(|pin| !pin.holder.is_before_boot());
        let mut recorded: Vec<RecordedPin> = Vec::new();
        for PinEntry { state, holder, extent } in pins {
            let state = if owners == Owners::AreGone { PinState::Quarantined } else { state };
            if let Some(pin) = recorded.iter_mut().find(|pin| pin.holder == holder) {
                pin.extents.push(extent);
            } else {
                let (extents, withheld) = (vec![extent], Pages(0));
                recorded.push(RecordedPin { state, holder, extents, withheld });
            }
        }
        Ok(recorded)
    }
}

impl Quarantine {
    /// Pages that are neither free nor of a file.
    pub(crate) fn withheld(&self) -> Pages {
        Pages(self.0.lock().withheld.count())
    }

    /// Every pin, in the order of the table.
    pub(crate) fn list(&self) -> Vec<RecordedPin> {
        let ward = self.0.lock();
        ward.pins.iter().map(|pin| ward.recorded(pin)).collect()
    }

    /// The label of a pin by which a device may store to `extent`.
    pub(crate) fn writer_of(&self, extent: Extent) -> Option<String> {
        let ward = self.0.lock();
        if ward.covered.overlapping(&extent.range()).is_empty() {
            return None;
        }
        let meets = |other: &Extent| other.start < extent.end() && extent.start < other.end();
        let writes =
            |pin: &&Held| pin.holder.kind == PinKind::Write && pin.extents.iter().any(meets);
        ward.pins.iter().find(writes).map(|pin| pin.holder.label.clone())
    }

    /// Whether any of `extent` is in quarantine.
    pub(crate) fn covers_any(&self, extent: Extent) -> bool {
        !self.0.lock().covered.overlapping(&extent.range()).is_empty()
    }

    /// The parts of `pages` that a device may read for a holder that died, in order.
    pub(crate) fn read_in(&self, pages: &Range<u64>) -> Vec<Range<u64>> {
        let ward = self.0.lock();
        if ward.covered.overlapping(pages).is_empty() {
            return Vec::new();
        }
        let readers = ward.pins.iter().filter(|pin| pin.holder.kind == PinKind::Read);
        let extents = readers.flat_map(|pin| &pin.extents);
        let read: Ranges = extents.map(|extent| extent.range()).collect();
        read.overlapping(pages)
    }

    /// Withholds what of `extents` is in quarantine, and returns the rest.
    fn divide(&self, extents: Vec<Extent>) -> Vec<Extent> {
        let mut ward = self.0.lock();
        if ward.covered.count() == 0 {
            return extents;
        }
        let mut free = Vec::new();
        for extent in extents {
            let mut rest: Ranges = std::iter::once(extent.range()).collect();
            for range in ward.covered.overlapping(&extent.range()) {
                rest.take(&range);
                ward.withheld.insert(range);
            }
            free.extend(rest.iter().map(Extent::of));
        }
        free
    }
}

impl Ward {
    fn recorded(&self, pin: &Held) -> RecordedPin {
        let overlap = |extent: &Extent| self.withheld.overlapping(&extent.range());
        let withheld = pin.extents.iter().flat_map(overlap).map(|range| range.end - range.start);
        RecordedPin {
            state: PinState::Quarantined,
            holder: pin.holder.clone(),
            extents: pin.extents.clone(),
            withheld: Pages(withheld.sum()),
        }
    }

    fn add(&mut self, written: Written, entry: PinEntry) {
        let PinEntry { holder, extent, .. } = entry;
        self.covered.insert(extent.range());
        if let Some(pin) = self.pins.iter_mut().find(|pin| pin.holder == holder) {
            pin.written.push(written);
            pin.extents.push(extent);
        } else {
            let (written, extents) = (vec![written], vec![extent]);
            self.pins.push(Held { holder, written, extents });
        }
    }

    /// Forgets pins, and returns all pages that were withheld, those of other pins among them.
    fn forget(&mut self, is_released: impl Fn(&Held) -> bool) -> Vec<Extent> {
        self.pins.retain(|pin| !is_released(pin));
        let extents = self.pins.iter().flat_map(|pin| &pin.extents);
        self.covered = extents.map(|extent| extent.range()).collect();
        std::mem::take(&mut self.withheld).iter().map(Extent::of).collect()
    }
}

impl Store {
    /// Frees pages that nothing uses, except those in quarantine, which are withheld.
    pub(crate) fn give_back(&self, extents: Vec<Extent>) {
        let free = self.quarantine.divide(extents);
        let mut alloc = self.alloc.lock();
        for extent in free {
            alloc.release(extent);
        }
    }

    /// Takes what recorded pins hold out of the free pages. A writable mount brings the table up
    /// to date with that; durable after the next fence.
    ///
    /// Nobody allocates before this returns.
    ///
    /// # Errors
    ///
    /// [`FsError::Corrupt`] if records may be missing and the mount would allocate; the device's.
    pub(crate) fn adopt_pins(&self, loaded: &Loaded, mode: MountMode) -> Result<Adopted, FsError> {
        let mut adopted = Adopted::default();
        let (before, mut pins): (Vec<_>, Vec<_>) =
            loaded.pins.iter().cloned().partition(|found| found.pin.holder.is_before_boot());
        if mode == MountMode::ReadWrite {
            if let Some(found) = &loaded.broken {
                if !Session::was_before_boot(self.bytes())? {
                    return Err(FsError::corrupt("the pin table", found.clone()));
                }
                loaded.mend(self)?;
            }
            let mut clear = loaded.torn.clone();
            clear.extend(before.iter().map(|found| found.written.place));
            self.clear_places(loaded, &clear)?;
            for found in pins.iter_mut().filter(|found| found.pin.state == PinState::Held) {
                self.mark_quarantined(found)?;
            }
            self.pins.adopt(loaded.pages.clone(), pins.iter().map(|found| found.written.place));
            adopted.trimmed = self.pins.trim(self)?;
        }
        let mut ward = self.quarantine.0.lock();
        for found in pins {
            ward.add(found.written, found.pin);
        }
        self.withhold_free(&mut ward);
        adopted.released = count_pins(before.iter().map(|found| &found.pin.holder));
        adopted.quarantined = crate::num::to_u64(ward.pins.len());
        Ok(adopted)
    }

    fn withhold_free(&self, ward: &mut Ward) {
        if ward.covered.count() == 0 {
            return;
        }
        let mut alloc = self.alloc.lock();
        for free in alloc.extents() {
            for range in ward.covered.overlapping(&free.range()) {
                alloc.reserve(Extent::of(range.clone())).expect("the pages are free");
                ward.withheld.insert(range);
            }
        }
    }

    /// See [`Filesystem::release_quarantine`].
    fn release(&self, which: &Release, living: LivingOwner) -> Result<Vec<RecordedPin>, FsError> {
        // Held to the end: of two that release the same pin, the second finds nothing.
        let mut ward = self.quarantine.0.lock();
        let is_released = |pin: &Held| which.is_about(&pin.holder);
        let chosen = || ward.pins.iter().filter(|pin| is_released(pin));
        let alive = chosen().find(|pin| pin.holder.is_alive());
        if let Some(pin) = alive.filter(|_| living == LivingOwner::Refuse) {
            let PinHolder { process, label, .. } = pin.holder.clone();
            return Err(FsError::OwnerAlive { process, label });
        }
        let released: Vec<RecordedPin> = chosen().map(|pin| ward.recorded(pin)).collect();
        let written: Vec<Written> = chosen().flat_map(|pin| pin.written.clone()).collect();
        if released.is_empty() {
            return Ok(released);
        }
        self.erase_records(&written)?;
        let free = ward.forget(is_released);
        drop(ward);
        self.pins.give_back_released(&written);
        // First, because they are released whatever becomes of the table.
        self.give_back(free);
        let trimmed = self.trim_pins()?;
        self.give_back(trimmed);
        Ok(released)
    }

    /// Takes empty pages off the pin table. They may be used at once.
    fn trim_pins(&self) -> Result<Vec<Extent>, FsError> {
        let trimmed = self.pins.trim(self)?;
        if !trimmed.is_empty() {
            self.fence()?;
        }
        Ok(trimmed)
    }
}

/// How many pins records belong to.
fn count_pins<'p>(holders: impl Iterator<Item = &'p PinHolder>) -> u64 {
    let mut distinct: Vec<&PinHolder> = Vec::new();
    for holder in holders {
        if !distinct.contains(&holder) {
            distinct.push(holder);
        }
    }
    crate::num::to_u64(distinct.len())
}

#[cfg(test)]
#[path = "quarantine_tests.rs"]
mod tests;
