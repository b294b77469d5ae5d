//! A device that follows a table (a mapped device of device-mapper).
//!
//! This file owns the table in use and its replacement. A table in use is an [`Arc`] that every span
//! found through it keeps, so its last user is known without a count of our own: whoever replaces it
//! waits until it is dropped. The tables of a stack are worked out into one [`Plan`] at the top, which
//! keeps the tables below that it came from; so a table below is dropped only when nobody uses it
//! through those above.

use crate::change::Change;
use crate::device::is_same;
use crate::failure::OfTable;
use crate::holder::Changing;
use crate::plan::{Plan, Way};
use crate::swap::{self, Drained, Left, SwapError, Swapped};
use crate::targets::Tap;
use crate::{
    AccessError, DaxDevice, Field, Hold, Holder, HolderError, HolderSlot, IoError, NoDax, Problem,
    Route, Table, TableError, Target,
};
use arc_swap::{ArcSwap, Guard};
use std::collections::BTreeSet;
use std::fmt;
use std::iter;
use std::ops::Range;
use std::panic::Location;
use udax_mm::media::Site;
use udax_mm::sync::{Arc, Mutex, Weak};
use udax_mm::{DeviceOff, MediaFacts, Order, Pages, Pgmap, PgmapOff, StillBusy, Wait};

/// A device that follows a table.
///
/// It is the holder of each device below, so no device is under two tables, and the removal of any
/// of them is told to the holder of the whole and ends access to the whole (I-66). Memory that fails
/// below is told in pages of the whole, through as many tables as there are (I-64).
///
/// # Examples
///
/// ```
/// # use udax_mm::{DeviceOff, MediaRange, MemoryType, Pages, Pgmap, media::FileMedia, sync::Arc};
/// # use udax_dev::{DaxDevice, Mapped, PgmapDevice, Table};
/// # fn device(pages: Pages) -> Result<Arc<dyn DaxDevice>, Box<dyn std::error::Error>> {
/// #     let media = Arc::new(FileMedia::memfd("mapped", pages.bytes())?);
/// #     let ranges = vec![MediaRange { media, start: 0, pages }];
/// #     Ok(Arc::new(PgmapDevice::new(Pgmap::new(ranges, MemoryType::FsDax)?)))
/// # }
/// let joined = Mapped::new(Table::concat(vec![device(Pages(4))?, device(Pages(8))?])?)?;
/// assert_eq!(joined.size(), Pages(12));
///
/// // Access never crosses from one device into the next.
/// assert_eq!(joined.direct_access(DeviceOff(1), Pages(12))?.pages(), Pages(3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Mapped {
    core: Arc<Core>,
}

/// What the devices below tell, and the handle shares.
#[derive(Debug)]
pub(crate) struct Core {
    size: Pages,
    dax: Result<(), NoDax>,
    facts: MediaFacts,
    /// The orders that folios have, by kind of page map; none if there was no memory.
    orders: BTreeSet<Option<Order>>,
    slot: Arc<HolderSlot>,
    current: ArcSwap<Version>,
    /// One load of a table at a time. Held while devices are claimed, which may wait.
    swaps: Mutex<Turn>,
    /// Devices of tables before, to which stores may be under way.
    leaving: Mutex<Vec<Arc<Leaving>>>,
    /// One change of what is in use at a time. Taken from a device below towards those above, and
    /// never held while a device is claimed.
    change: Mutex<Change>,
}

/// What the lock of loads is around: the turn to load a table.
#[derive(Debug, Default)]
struct Turn;

/// What the device follows.
#[derive(Debug)]
pub(crate) enum Version {
    Live(Loaded),
    /// It was removed. Its devices are kept, to be waited for.
    Dead(Vec<Arc<Claimed>>),
}

/// A table in use.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) table: Arc<Table>,
    pub(crate) plan: Plan,
    pub(crate) below: Vec<Arc<Claimed>>,
    taps: Vec<Arc<Tap>>,
    /// Told when the last user is gone.
    pub(crate) drained: Arc<Drained>,
}

/// A device below, with this one's claim on it.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) device: Arc<dyn DaxDevice>,
    _hold: Hold,
    /// Kept, because the device does not keep its holder.
    holder: Arc<OfTable>,
}

/// A device that is in the table no more. What was flushed to it is to be fenced.
#[derive(Debug)]
struct Leaving {
    device: Arc<dyn DaxDevice>,
    /// Told when nobody uses the tables any more that it was in.
    drained: Vec<Arc<Drained>>,
}

/// What a table that was replaced leaves behind.
struct Replaced {
    /// The devices that are not in the new one.
    gone: Vec<Arc<dyn DaxDevice>>,
    /// Told when nobody uses it, or one before it, any more.
    drained: Vec<Arc<Drained>>,
}

/// One use of a table.
pub(crate) struct Section(Guard<Arc<Version>>);

impl Mapped {
    /// Makes a device that follows `table`, and claims what is below.
    ///
    /// # Errors
    ///
    /// [`TableError`] if a device cannot be claimed. None is claimed then.
    pub fn new(table: Table) -> Result<Mapped, TableError> {
        let core = Arc::new(Core {
            size: table.size(),
            dax: table.dax(),
            facts: table.facts(),
            orders: table.orders(),
            slot: HolderSlot::new(),
            current: ArcSwap::from_pointee(Version::Dead(Vec::new())),
            swaps: Mutex::default(),
            leaving: Mutex::default(),
            change: Mutex::default(),
        });
        // Claimed before the plan is worked out: who changes a table below from here on tells us.
        let below = core.claim_all(&table, &[])?;
        let turn = core.change.lock();
        begin_use(&table, &below)?;
        let plan = table.plan();
        core.follow(Arc::new(table), plan, below);
        drop(turn);
        Ok(Mapped { core })
    }

    /// Whole devices, end to end in the given order.
    ///
    /// # Errors
    ///
    /// [`TableError`] if there is no device, one is empty, is named twice, or cannot be claimed.
    pub fn concat(devices: Vec<Arc<dyn DaxDevice>>) -> Result<Mapped, TableError> {
        Mapped::new(Table::concat(devices)?)
    }

    /// The table it follows; none once it was removed.
    pub fn table(&self) -> Option<Arc<Table>> {
        match &**self.core.current.load() {
            Version::Live(loaded) => Some(Arc::clone(&loaded.table)),
            Version::Dead(_) => None,
        }
    }

    /// Follows another table from here on.
    ///
    /// Accesses that begin later go by the new table. Those that began before end on the old one,
    /// and are waited for. The holder takes back what shows pages of the device. Folios and pins
    /// of the old table stay valid: their page map lives, and what still uses one that is in no
    /// table any more is reported.
    ///
    /// # Blocking
    ///
    /// Waits, as `wait` says, for spans that were found through the old table, also by way of
    /// tables above; and for the holder.
    ///
    /// # Errors
    ///
    /// [`SwapError`] if the device would not be the same device: of another size, with or without
    /// direct access (I-66, B-47), with weaker promises or other folios; or if pages would come to
    /// lie in other memory, also after a while in which they fail, under a holder that does not
    /// permit that. Nothing changed then.
    #[track_caller]
    pub fn swap(&self, table: Table, wait: Wait) -> Result<Swapped, SwapError> {
        let (core, site) = (&self.core, Location::caller());
        core.check_swap(&table)?;
        let table = Arc::new(table);
        let turn = core.swaps.lock();
        check_loop(&table, &core.slot.upwards())?;
        let claimed = core.claimed();
        let below = core.claim_all(&table, &claimed)?;
        drop(claimed);
        let changing = core.slot.change();
        check_loop(&table, changing.slots())?;
        let loaded = core.load(table, below, &changing)?;
        drop((changing, turn));
        let is_drained = loaded.drained.iter().all(|drained| drained.wait(wait));
        if is_drained {
            core.fence_leaving(site);
        }
        Ok(Swapped { is_drained, left: loaded.gone.iter().filter_map(Left::of).collect() })
    }

    /// The orders that its folios have, by kind of page map: the same for every table that it follows.
    pub fn orders(&self) -> &BTreeSet<Option<Order>> {
        &self.core.orders
    }

    /// The table in use.
    pub(crate) fn version(&self) -> Arc<Version> {
        self.core.current.load_full()
    }
}

impl Core {
    pub(crate) fn slot(&self) -> Arc<HolderSlot> {
        Arc::clone(&self.slot)
    }

    /// The claims of every table that is used.
    fn claimed(&self) -> Vec<Arc<Claimed>> {
        let change = self.change.lock();
        let used: Vec<_> = iter::once(self.current.load_full()).chain(change.used()).collect();
        let dropped = change.dropped();
        drop(change);
        for drained in dropped {
            // Its claims are given back in a moment, and until then nobody has them.
            drained.wait(Wait::Forever);
        }
        used.iter().flat_map(|version| version.below()).cloned().collect()
    }

    /// Puts `table` in the place of the one in use, while the holder shows no page.
    fn load(
        &self,
        table: Arc<Table>,
        below: Vec<Arc<Claimed>>,
        changing: &Changing,
    ) -> Result<Replaced, SwapError> {
        let mut change = self.change.lock();
        let version = self.current.load_full();
        let Version::Live(old) = &*version else { return Err(SwapError::Dead) };
        begin_use(&table, &below)?;
        let plan = table.plan();
        change.check_places(changing, &old.plan, &plan)?;
        let gone = swap::gone(&old.below, &below);
        let drained: Vec<_> = version.drained().into_iter().chain(change.drained()).collect();
        // Known before the table is in use, by which a fence has to reach them.
        let leaving = |device: &Arc<dyn DaxDevice>| {
            Arc::new(Leaving { device: Arc::clone(device), drained: drained.clone() })
        };
        self.leaving.lock().extend(gone.iter().map(leaving));
        let mut next = Some((table, plan, below));
        self.slot.suspended(&mut || {
            let (table, plan, below) = next.take().expect("a change is made once");
            self.follow(table, plan, below);
            change.retire(&version);
        });
        assert!(next.is_none(), "a holder lets the change be made that it is told of");
        Ok(Replaced { gone, drained })
    }

    /// Puts a table in use. The caller has the lock of changes.
    fn follow(&self, table: Arc<Table>, plan: Plan, below: Vec<Arc<Claimed>>) {
        let logged = table.lines().iter().filter_map(|line| match &line.target {
            Target::LogWrites(log) => Some(log.tap(line.pages)),
            _ => None,
        });
        let taps = logged.collect();
        let loaded = Loaded { table, plan, below, taps, drained: Arc::default() };
        self.current.store(Arc::new(Version::Live(loaded)));
    }

    /// Claims every device of the table once, or none; those of `claimed` are claimed already.
    fn claim_all(
        self: &Arc<Self>,
        table: &Table,
        claimed: &[Arc<Claimed>],
    ) -> Result<Vec<Arc<Claimed>>, TableError> {
        let claim = |device: &Arc<dyn DaxDevice>| {
            if let Some(claimed) = claimed.iter().find(|c| is_same(&c.device, device)) {
                return Ok(Arc::clone(claimed));
            }
            let holder = Arc::new(OfTable::new(Arc::downgrade(self), Arc::downgrade(device)));
            let weak: Weak<OfTable> = Arc::downgrade(&holder);
            let hold =
                device.hold(weak).map_err(|why| table.at_device(device, Problem::Claim(why)))?;
            Ok(Arc::new(Claimed { device: Arc::clone(device), _hold: hold, holder }))
        };
        table.below().iter().map(|below| claim(&below.device)).collect()
    }

    fn check_swap(&self, table: &Table) -> Result<(), SwapError> {
        let (size, new) = (self.size, table.size());
        if size != new {
            return Err(SwapError::Size { size, new });
        }
        match (&self.dax, table.dax()) {
            (Ok(()), Err(why)) => return Err(SwapError::NoDax(why)),
            (Err(why), Ok(())) => return Err(SwapError::Dax(why.clone())),
            _ => (),
        }
        if table.below().is_empty() {
            return Ok(());
        }
        if self.facts.weakest(table.facts()) != self.facts {
            return Err(SwapError::Weaker);
        }
        // What had no memory is not divided into folios of one order, and neither is what is above.
        let any_order = BTreeSet::from([None]);
        let orders = if self.orders.is_empty() { &any_order } else { &self.orders };
        if !table.orders().is_subset(orders) {
            return Err(SwapError::Folios);
        }
        Ok(())
    }

    /// Makes what was flushed to devices of tables before persistent, and forgets them, if nobody
    /// uses those tables any more. One that cannot do it is kept, for the next fence to say so.
    fn fence_leaving(&self, site: Site) {
        let is_drained = |leaving: &Arc<Leaving>| {
            leaving.drained.iter().all(|drained| drained.wait(Wait::Never))
        };
        let mut done = self.leaving.lock().clone();
        done.retain(|leaving| is_drained(leaving) && leaving.fence(site).is_ok());
        let is_done = |leaving: &Arc<Leaving>| done.iter().any(|done| Arc::ptr_eq(done, leaving));
        self.leaving.lock().retain(|leaving| !is_done(leaving));
    }

    /// Waits until nobody uses a table that was replaced.
    fn wait_drained(&self, wait: Wait) -> Result<(), StillBusy> {
        let drained: Vec<_> = self.change.lock().drained().collect();
        if drained.iter().all(|drained| drained.wait(wait)) {
            return Ok(());
        }
        let mut busy = StillBusy { pins: Vec::new(), pages: Vec::new() };
        for left in self.leaving.lock().iter().filter_map(|leaving| Left::of(&leaving.device)) {
            busy.pages.extend(left.pages);
        }
        Err(busy)
    }

    /// Works the plan out again when `change_below` has changed the table of `device`, if that is in the
    /// table in use.
    pub(crate) fn below_changes(
        &self,
        device: &Arc<dyn DaxDevice>,
        change_below: &mut dyn FnMut(),
    ) {
        let mut change = self.change.lock();
        let version = self.current.load_full();
        let old = match &*version {
            Version::Live(old) if old.below.iter().any(|b| is_same(&b.device, device)) => old,
            // Claimed, and refused in the end, or in use no more.
            _ => return change_below(),
        };
        self.slot.suspended(&mut || {
            change_below();
            self.follow(Arc::clone(&old.table), old.table.plan(), old.below.clone());
            change.retire(&version);
        });
    }

    /// Ends access because a device below goes, if it is in the table still, and tells the holder.
    pub(crate) fn below_ends(&self, device: &Arc<dyn DaxDevice>) {
        self.end_if(|below| below.iter().any(|claimed| is_same(&claimed.device, device)));
    }

    /// Ends access if `is_concerned` by what is below, tells the holder, and returns what is below.
    fn end_if(&self, is_concerned: impl Fn(&[Arc<Claimed>]) -> bool) -> Vec<Arc<Claimed>> {
        let turn = self.change.lock();
        let below = self.current.load().below().to_vec();
        if !is_concerned(&below) {
            return Vec::new();
        }
        self.current.store(Arc::new(Version::Dead(below.clone())));
        drop(turn);
        self.slot.notify();
        below
    }

    /// Tells the holder of pages of a device below that failed.
    pub(crate) fn below_failed(&self, device: &Arc<dyn DaxDevice>, pages: &Range<DeviceOff>) {
        if let Version::Live(loaded) = &**self.current.load() {
            for pages in loaded.table.up(device, pages) {
                self.slot.failed(pages);
            }
        }
    }
}

impl Leaving {
    fn fence(&self, site: Site) -> Result<(), IoError> {
        match self.device.fence(site) {
            // It was removed after the table let it go.
            Err(IoError::Access(AccessError::Dead)) => Ok(()),
            fenced => fenced,
        }
    }
}

impl Version {
    /// Where pages go, counted from 0.
    pub(crate) fn plan_of(self: Arc<Self>, pages: &Range<DeviceOff>) -> Plan {
        let mut plan = match &*self {
            Version::Live(loaded) => loaded.plan.slice(pages),
            Version::Dead(_) => {
                let why = "the device below was removed";
                Plan::one(Way::Fails(why.into()), pages)
            }
        };
        plan.keep(self);
        plan
    }

    /// Tells when nobody uses it any more.
    pub(crate) fn drained(&self) -> Option<Arc<Drained>> {
        match self {
            Version::Live(loaded) => Some(Arc::clone(&loaded.drained)),
            Version::Dead(_) => None,
        }
    }

    fn below(&self) -> &[Arc<Claimed>] {
        match self {
            Version::Live(loaded) => &loaded.below,
            Version::Dead(below) => below,
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // First what is released, then word of it: who waits may claim a device at once.
        self.taps.clear();
        self.below.clear();
        self.plan = Plan::default();
        self.drained.set();
    }
}

impl DaxDevice for Mapped {
    fn size(&self) -> Pages {
        self.core.size
    }

    fn dax(&self) -> Result<(), NoDax> {
        self.core.dax.clone()
    }

    fn route(&self, at: DeviceOff, max: Pages) -> Result<Route, AccessError> {
        assert!(!max.is_empty(), "I-62: a span has at least one page");
        let version = self.core.current.load();
        let Version::Live(loaded) = &**version else { return Err(AccessError::Dead) };
        let size = self.core.size;
        if at.0 >= size.0 {
            return Err(AccessError::OutOfRange { at, size });
        }
        match loaded.plan.route(at, max) {
            Ok(Route::Memory(span)) => {
                assert!(span.pages() <= max, "I-62: a span does not cross the end of its line");
                Ok(Route::Memory(span.within(Section(version))))
            }
            Err(AccessError::Failed { pages, by, .. }) => {
                Err(AccessError::Failed { at, pages, by })
            }
            other => other,
        }
    }

    fn fence(&self, site: Site) -> Result<(), IoError> {
        let version = self.core.current.load();
        version.below().iter().try_for_each(|below| below.device.fence(site))?;
        let leaving = self.core.leaving.lock().clone();
        leaving.iter().try_for_each(|leaving| leaving.fence(site))
    }

    fn facts(&self) -> MediaFacts {
        self.core.facts
    }

    fn pgmaps(&self) -> Vec<Pgmap> {
        let mut pgmaps: Vec<Pgmap> = Vec::new();
        let version = self.core.current.load();
        for pgmap in version.below().iter().flat_map(|below| below.device.pgmaps()) {
            if !pgmaps.contains(&pgmap) {
                pgmaps.push(pgmap);
            }
        }
        pgmaps
    }

    fn device_off(&self, pgmap: &Pgmap, at: PgmapOff) -> Option<DeviceOff> {
        let version = self.core.current.load();
        let Version::Live(loaded) = &**version else { return None };
        loaded.below.iter().find_map(|below| {
            let page = below.device.device_off(pgmap, at)?.span(Pages(1));
            loaded.table.up(&below.device, &page).first().map(|range| range.start)
        })
    }

    fn hold(&self, holder: Weak<dyn Holder>) -> Result<Hold, HolderError> {
        self.core.slot.claim(holder)
    }

    fn kill(&self, wait: Wait) -> Result<(), StillBusy> {
        let mut busy: Option<StillBusy> = None;
        // All are killed even if one is busy: what follows a table with a dead device is dead.
        for below in self.core.end_if(|_| true) {
            if let Err(found) = below.device.kill(wait) {
                match &mut busy {
                    Some(busy) => {
                        busy.pins.extend(found.pins);
                        busy.pages.extend(found.pages);
                    }
                    None => busy = Some(found),
                }
            }
        }
        let drained = self.core.wait_drained(wait);
        busy.map_or(drained, Err)
    }

    fn as_mapped(&self) -> Option<&Mapped> {
        Some(self)
    }
}

impl Table {
    /// An error about a device below, at the first line that takes it.
    fn at_device(&self, device: &Arc<dyn DaxDevice>, problem: Problem) -> TableError {
        let takes = |(number, line): (usize, &crate::Line)| {
            let member = line.target.members().iter().position(|m| is_same(&m.device, device))?;
            Some((number, line.target.rules().argument_of(member)))
        };
        let (number, start) =
            self.lines().iter().enumerate().find_map(takes).expect("a line takes the device");
        let field = match start {
            // The device is named before where it starts.
            Field::Argument(n) if n > 1 => Field::Argument(n - 1),
            other => other,
        };
        TableError { line: number + 1, field, problem }
    }
}

/// Refuses a table that stands on a device of `above`.
fn check_loop(table: &Table, above: &[Arc<HolderSlot>]) -> Result<(), TableError> {
    let is_above = |device: &&Arc<dyn DaxDevice>| {
        let slot = device.as_mapped().map(|mapped| &mapped.core.slot);
        slot.is_some_and(|slot| above.iter().any(|above| Arc::ptr_eq(above, slot)))
    };
    match table.below().iter().map(|below| &below.device).find(is_above) {
        Some(device) => Err(table.at_device(device, Problem::Loop)),
        None => Ok(()),
    }
}

/// Takes what was claimed into use; refuses a table with a device that was removed after that.
fn begin_use(table: &Table, below: &[Arc<Claimed>]) -> Result<(), TableError> {
    for claimed in below {
        claimed.holder.begin_use();
    }
    match below.iter().find(|claimed| claimed.holder.is_gone()) {
        Some(gone) => Err(table.at_device(&gone.device, Problem::Claim(HolderError::Removed))),
        None => Ok(()),
    }
}

impl Clone for Section {
    fn clone(&self) -> Section {
        Section(Guard::from_inner(Arc::clone(&self.0)))
    }
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Section").field(&Arc::as_ptr(&self.0).addr()).finish()
    }
}
