//! The holder of a device: the one user who is told before it is taken away, of memory that failed,
//! and that its table changed. Who changes a table asks the holder first, and nobody becomes holder
//! between the answer and the change ([`Changing`]).
//!
//! A device keeps a [`HolderSlot`]; claiming it gives a [`Hold`], and dropping the hold releases
//! it. Only the hold can release, and there is no second one before it is dropped, so an old holder
//! cannot release a newer one (I-61, B-33). A hold that is dropped after the device was removed, and
//! its holder told, changes nothing (B-34).

use std::fmt;
use std::ops::Range;
use udax_mm::DeviceOff;
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::{Arc, Condvar, Mutex, Weak};

/// Told before a device is taken away (`MF_MEM_PRE_REMOVE`), of memory that failed
/// (`notify_failure`), and that a table below changed.
pub trait Holder: Send + Sync {
    /// Takes back every translation of the device's pages, and lets none come back.
    ///
    /// The device refuses new access before it calls this, and drains only after it returned. Pins
    /// need not be ended here: the device waits for them. Called with no lock held; may release
    /// the hold, must not remove the device.
    fn removing(&self);

    /// Takes back what shows these pages, whose memory failed, and tells whoever used them. They
    /// are marked already: nobody is given them until the mark goes.
    ///
    /// Called by whoever found the failure, with no lock held; by several threads at once, and more
    /// than once for a page that fails again. A device that nobody holds tells nobody: the mark
    /// stands, and a touch finds it.
    fn failed(&self, pages: Range<DeviceOff>);

    /// Whether pages of the device may come to lie in other memory. One that keeps claims or
    /// references of pages across calls, as a filesystem does, says no, and no table is loaded that
    /// would move them.
    fn permits_move(&self) -> bool {
        false
    }

    /// Takes back what shows pages of the device, and runs `change`, once, while no translation can
    /// come back: it puts another table in use, and pages are where
    /// [`direct_access`](crate::DaxDevice::direct_access) says from then on (`dmsetup suspend`,
    /// `resume`). One whose pages stay where they are may run `change` first.
    ///
    /// Called by whoever changes the table. Neither may a table be changed nor a device be claimed
    /// from here: both wait until this has returned.
    fn suspended(&self, change: &mut dyn FnMut());

    /// The slot of the device that the holder makes of this one, if it makes one, as a table does:
    /// the way up a stack.
    fn above(&self) -> Option<Arc<HolderSlot>> {
        None
    }
}

/// Why a device could not be claimed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HolderError {
    /// Somebody holds it.
    #[error("the device is in use by another filesystem or table; close that first")]
    Held,

    /// It was removed.
    #[error("the device was removed; open it again")]
    Removed,
}

/// The right to be told of a device's removal. Dropping it releases the device.
#[must_use = "dropping a hold releases the device"]
#[derive(Debug)]
pub struct Hold {
    slot: Arc<HolderSlot>,
}

/// The place of a device's one holder.
///
/// A stacked device passes what the devices below it say on to its own slot: a notice of removal
/// from any of them reaches the holder at the top, once.
pub struct HolderSlot {
    /// Whether access is still given. Falls once, before the holder is told.
    is_live: AtomicBool,
    state: Mutex<State>,
    /// Signalled when the notice has been given, and when no table changes any more.
    changed: Condvar,
}

struct State {
    holder: Option<Weak<dyn Holder>>,
    notice: Notice,
    /// How many tables below are being changed.
    changes: usize,
}

/// A change of what lies below a device: until it is dropped nobody claims that device, or one above
/// it, so whoever was asked whether pages may move is whoever uses them.
#[must_use = "dropping it lets claims go on"]
pub(crate) struct Changing {
    slots: Vec<Arc<HolderSlot>>,
    permits_move: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Notice {
    NotYet,
    Running,
    Done,
}

impl HolderSlot {
    /// An empty slot of a live device.
    #[must_use]
    pub fn new() -> Arc<HolderSlot> {
        Arc::new(HolderSlot {
            is_live: AtomicBool::new(true),
            state: Mutex::new(State { holder: None, notice: Notice::NotYet, changes: 0 }),
            changed: Condvar::new(),
        })
    }

    /// Whether removal has not begun.
    pub fn is_live(&self) -> bool {
        // Relaxed: a fault that must not miss the removal is ordered by the layout lock, which the
        // holder takes exclusively while it is told.
        self.is_live.load(Ordering::Relaxed)
    }

    /// Makes `holder` the one who is told.
    ///
    /// # Blocking
    ///
    /// Waits while a table below is changed.
    ///
    /// # Errors
    ///
    /// [`HolderError::Held`] if there is one, [`HolderError::Removed`] once removal began.
    pub fn claim(self: &Arc<Self>, holder: Weak<dyn Holder>) -> Result<Hold, HolderError> {
        let mut state = self.state.lock();
        loop {
            if state.notice != Notice::NotYet {
                return Err(HolderError::Removed);
            }
            if state.holder.is_some() {
                return Err(HolderError::Held);
            }
            if state.changes == 0 {
                break;
            }
            state = self.changed.wait(state);
        }
        state.holder = Some(holder);
        Ok(Hold { slot: Arc::clone(self) })
    }

    /// Ends access and tells the holder, exactly once however often it is called.
    ///
    /// # Blocking
    ///
    /// Returns only when the holder has been told, also if another thread is telling it.
    pub fn notify(&self) {
        if let Some(holder) = self.begin_notice() {
            if let Some(holder) = holder.upgrade() {
                holder.removing();
            }
            self.state.lock().notice = Notice::Done;
            self.changed.notify_all();
        }
    }

    /// Tells the holder, if there is one, of pages whose memory failed.
    ///
    /// # Blocking
    ///
    /// Returns when the holder has done what it does about them.
    pub fn failed(&self, pages: Range<DeviceOff>) {
        if let Some(holder) = self.holder() {
            holder.failed(pages);
        }
    }

    /// Runs `change`, which puts another table in use, while the holder, if there is one, shows no page
    /// of the device.
    ///
    /// # Blocking
    ///
    /// Returns when the holder has taken back what shows pages of the device.
    pub fn suspended(&self, change: &mut dyn FnMut()) {
        match self.holder() {
            Some(holder) => holder.suspended(change),
            None => change(),
        }
    }

    /// Keeps this device, and those that are made of it, from being claimed, and asks who holds the
    /// last of them whether pages may move.
    pub(crate) fn change(self: &Arc<Self>) -> Changing {
        let (slots, holder) = self.walk_up(HolderSlot::begin_change);
        let mut changing = Changing { slots, permits_move: true };
        changing.permits_move = holder.is_none_or(|holder| holder.permits_move());
        changing
    }

    /// This slot and those above it, in order.
    pub(crate) fn upwards(self: &Arc<Self>) -> Vec<Arc<HolderSlot>> {
        self.walk_up(HolderSlot::holder).0
    }

    /// Visits this slot and those above it, each once. Returns them, and the holder of the last.
    fn walk_up(
        self: &Arc<Self>,
        visit: fn(&HolderSlot) -> Option<Arc<dyn Holder>>,
    ) -> (Vec<Arc<HolderSlot>>, Option<Arc<dyn Holder>>) {
        let (mut slots, mut holder) = (vec![Arc::clone(self)], visit(self));
        while let Some(above) = holder.as_ref().and_then(|holder| holder.above()) {
            // Two changes that would make a circle of tables both see it, and take it back.
            if slots.iter().any(|slot| Arc::ptr_eq(slot, &above)) {
                return (slots, None);
            }
            holder = visit(&above);
            slots.push(above);
        }
        (slots, holder)
    }

    fn begin_change(&self) -> Option<Arc<dyn Holder>> {
        let mut state = self.state.lock();
        state.changes += 1;
        state.holder.as_ref().and_then(Weak::upgrade)
    }

    /// The holder, read once: it is told also if it releases meanwhile (B-33).
    fn holder(&self) -> Option<Arc<dyn Holder>> {
        self.state.lock().holder.as_ref().and_then(Weak::upgrade)
    }

    /// The holder to tell, or `None` if the notice has been given already.
    fn begin_notice(&self) -> Option<Weak<dyn Holder>> {
        let mut state = self.state.lock();
        self.is_live.store(false, Ordering::Relaxed);
        while state.notice == Notice::Running {
            state = self.changed.wait(state);
        }
        if state.notice == Notice::Done {
            return None;
        }
        let holder = state.holder.take();
        state.notice = if holder.is_some() { Notice::Running } else { Notice::Done };
        holder
    }
}

impl Changing {
    /// Whether the holder, if there is one, lets pages come to lie in other memory.
    pub(crate) fn permits_move(&self) -> bool {
        self.permits_move
    }

    /// The slots of the device and of those above it.
    pub(crate) fn slots(&self) -> &[Arc<HolderSlot>] {
        &self.slots
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        for slot in &self.slots {
            let mut state = slot.state.lock();
            state.changes -= 1;
            if state.changes == 0 {
                slot.changed.notify_all();
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.slot.state.lock().holder = None;
    }
}

impl fmt::Debug for HolderSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("HolderSlot")
            .field("is_held", &state.holder.is_some())
            .field("notice", &state.notice)
            .finish_non_exhaustive()
    }
}
