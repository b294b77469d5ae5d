//! The holder of a device: the one user who is told before it is taken away, of memory that failed,
//! and that its table changed.
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

    /// Takes back what shows pages of the device, because a table below changed: from now on they
    /// are where [`direct_access`](crate::DaxDevice::direct_access) says. Translations may come back
    /// at once.
    ///
    /// Called by whoever changes the table, which must not be changed again from here.
    fn moved(&self);
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
    told: Condvar,
}

struct State {
    holder: Option<Weak<dyn Holder>>,
    notice: Notice,
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
            state: Mutex::new(State { holder: None, notice: Notice::NotYet }),
            told: Condvar::new(),
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
    /// # Errors
    ///
    /// [`HolderError::Held`] if there is one, [`HolderError::Removed`] once removal began.
    pub fn claim(self: &Arc<Self>, holder: Weak<dyn Holder>) -> Result<Hold, HolderError> {
        let mut state = self.state.lock();
        if state.notice != Notice::NotYet {
            return Err(HolderError::Removed);
        }
        if state.holder.is_some() {
            return Err(HolderError::Held);
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
            self.told.notify_all();
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

    /// Whether the holder, if there is one, lets pages come to lie in other memory.
    pub fn permits_move(&self) -> bool {
        self.holder().is_none_or(|holder| holder.permits_move())
    }

    /// Tells the holder, if there is one, that a table changed.
    ///
    /// # Blocking
    ///
    /// Returns when the holder has taken back what shows pages of the device.
    pub fn moved(&self) {
        if let Some(holder) = self.holder() {
            holder.moved();
        }
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
            state = self.told.wait(state);
        }
        if state.notice == Notice::Done {
            return None;
        }
        let holder = state.holder.take();
        state.notice = if holder.is_some() { Notice::Running } else { Notice::Done };
        holder
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
