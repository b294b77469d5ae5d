//! Whether a page map is live, and the count of those who rely on it.
//!
//! This file owns the count and the phases; the handles that count are in
//! [`handle`](crate::handle).
//!
//! While a page map is live nobody asks for the sum, so each thread counts in a slot of its own,
//! by plain loads and stores (the idea of `percpu_ref` in Linux; a slot may well be negative).
//! When the sum begins to matter, at `kill` or when the last strong handle goes, the count is
//! switched to one shared word, for good:
//!
//! 1. The mode becomes shared. A heavy fence makes every thread either see that, or have its
//!    change of its slot seen (the pair of a light fence in each change).
//! 2. A slot that its thread is just changing says so by its lowest bit, and is waited for: a few
//!    instructions of that thread.
//! 3. The slots are summed into the shared word, which stood at a bias until then, so that nobody
//!    took it for drained.
//!
//! The phases change, and the shared word leaves and reaches zero, under one lock: there is no
//! moment between the check and the get (T-2).

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, fences, thread};
use crate::threads::NUMBERS;
use crate::wait::Wait;
use std::time::Instant;

const SHARDED: u64 = 0;
const SHARED: u64 = 1;

/// What the shared word holds beside its count while the slots count as well.
const BIAS: u64 = 1 << 62;

/// The lowest bit of a slot: its thread is changing it.
const CHANGING: u64 = 1;
/// One reference in a slot.
const ONE: u64 = 2;

/// The state of one page map: I-01, Live -> Dying -> Dead; and the count of live references.
#[derive(Debug)]
pub(crate) struct Live {
    mode: AtomicU64,
    shared: AtomicU64,
    slots: [Slot; NUMBERS],
    phase: Mutex<Phase>,
    dead: Condvar,
}

/// What one thread counts. On cache lines of its own, and of the pair that processors fetch at
/// once.
///
/// Taken and given back are counted apart, so that a change of one need not wait for that of the
/// other to pass through the store buffer.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    taken: AtomicU64,
    given_back: AtomicU64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Live,
    /// No new reference is given out; those given out still count.
    Dying,
    Dead,
}

/// Where one thread gives a reference back.
///
/// Made of borrowed atomics only, because whoever gives up a reference may see all of [`Live`]
/// freed by another thread right after its last store here.
#[derive(Clone, Copy)]
pub(crate) struct WayOut<'a> {
    mode: &'a AtomicU64,
    shared: &'a AtomicU64,
    slot: Option<&'a AtomicU64>,
}

/// The answer to a request for a reference by somebody who has none.
#[must_use]
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Got {
    /// It is dying, or dead.
    Refused,
    /// Counted.
    Another,
    /// Counted, and nobody was counted before.
    First,
}

/// Whether somebody is counted still.
#[must_use]
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Drained {
    No,
    /// Nobody, from this step on.
    JustNow,
}

impl Live {
    /// Nobody is counted. Counts by thread where the host has the fence for it.
    pub(crate) fn new() -> Live {
        if fences::has_heavy() { Live::sharded() } else { Live::shared() }
    }

    fn sharded() -> Live {
        Live::with(SHARDED, BIAS)
    }

    fn shared() -> Live {
        Live::with(SHARED, 0)
    }

    fn with(mode: u64, shared: u64) -> Live {
        Live {
            mode: AtomicU64::new(mode),
            shared: AtomicU64::new(shared),
            slots: std::array::from_fn(|_| Slot::default()),
            phase: Mutex::new(Phase::Live),
            dead: Condvar::new(),
        }
    }

    /// Whether threads count apart, so that nobody knows the sum.
    pub(crate) fn is_sharded(&self) -> bool {
        self.mode.load(Ordering::Relaxed) == SHARDED
    }

    /// One reference more, unless the page map is dying (I-02).
    #[inline]
    pub(crate) fn try_get(&self, number: Option<usize>) -> Got {
        // A sharded count is that of a live page map: `kill` ends both.
        if self.take(number) { Got::Another } else { self.try_get_locked() }
    }

    /// One reference more, by somebody who has one.
    #[inline]
    pub(crate) fn raise(&self, number: Option<usize>) {
        if !self.take(number) {
            self.raise_shared();
        }
    }

    /// Where the thread with this number gives a reference back.
    #[inline]
    pub(crate) fn way_out(&self, number: Option<usize>) -> WayOut<'_> {
        let slot = number.and_then(|number| self.slots.get(number)).map(|slot| &slot.given_back);
        WayOut { mode: &self.mode, shared: &self.shared, slot }
    }

    #[inline]
    fn take(&self, number: Option<usize>) -> bool {
        let slot = number.and_then(|number| self.slots.get(number));
        slot.is_some_and(|slot| count(&slot.taken, &self.mode))
    }

    #[cold]
    fn raise_shared(&self) {
        self.shared.fetch_add(1, Ordering::Relaxed);
    }

    #[cold]
    fn try_get_locked(&self) -> Got {
        let phase = self.phase.lock();
        if *phase != Phase::Live {
            return Got::Refused;
        }
        match self.shared.fetch_add(1, Ordering::Relaxed) {
            0 => Got::First,
            _ => Got::Another,
        }
    }

    /// Gives up the last reference, after [`WayOut::lower`] left it to this. Returns
    /// [`Drained::No`], with nothing changed, if another came meanwhile.
    ///
    /// Acquire pairs with the Release in `lower` and in `count`: what is done once the page
    /// map is dead comes after every use of it.
    pub(crate) fn lower_last(&self) -> Drained {
        let mut phase = self.phase.lock();
        if self.shared.compare_exchange(1, 0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Drained::No;
        }
        self.die_if_dying(&mut phase);
        Drained::JustNow
    }

    /// Counts by one shared word from here on.
    pub(crate) fn share(&self) -> Drained {
        let _phase = self.phase.lock();
        self.switch()
    }

    /// Refuses new references from here on.
    pub(crate) fn kill(&self) -> Drained {
        let mut phase = self.phase.lock();
        if *phase != Phase::Live {
            return Drained::No;
        }
        *phase = Phase::Dying;
        let drained = self.switch();
        if self.shared.load(Ordering::Acquire) == 0 {
            self.die_if_dying(&mut phase);
        }
        drained
    }

    /// Waits until nobody is counted of a page map that was killed. Returns whether that is so.
    pub(crate) fn wait_dead(&self, wait: Wait) -> bool {
        let mut phase = self.phase.lock();
        while *phase != Phase::Dead {
            phase = match wait {
                Wait::Never => return false,
                Wait::Until(deadline) if Instant::now() >= deadline => return false,
                Wait::Until(deadline) => self.dead.wait_until(phase, deadline).0,
                Wait::Forever => self.dead.wait(phase),
            };
        }
        true
    }

    pub(crate) fn is_dead(&self) -> bool {
        *self.phase.lock() == Phase::Dead
    }

    fn die_if_dying(&self, phase: &mut Phase) {
        if *phase == Phase::Dying {
            *phase = Phase::Dead;
            self.dead.notify_all();
        }
    }

    /// Sums the slots into the shared word, once. The caller holds the lock of the phase.
    ///
    /// Release and Acquire: what threads did before they lowered their slots is handed on to
    /// whoever lowers the shared word last.
    fn switch(&self) -> Drained {
        if !self.is_sharded() {
            return Drained::No;
        }
        self.mode.store(SHARED, Ordering::Relaxed);
        fences::heavy();
        let sum = self.slots.iter().map(Slot::settled).fold(0, i64::wrapping_add);
        let change = sum.cast_unsigned().wrapping_sub(BIAS);
        let before = self.shared.fetch_add(change, Ordering::AcqRel);
        if before.wrapping_add(change) == 0 { Drained::JustNow } else { Drained::No }
    }
}

impl Slot {
    /// The references counted here, once its thread is through with its change. A thread that
    /// begins one after the heavy fence sees that it is too late, and leaves the count as it is.
    ///
    /// Acquire pairs with the Release in `count`.
    fn settled(&self) -> i64 {
        loop {
            let back = self.given_back.load(Ordering::Acquire);
            let taken = self.taken.load(Ordering::Acquire);
            if (taken | back) & CHANGING == 0 {
                return taken.wrapping_sub(back).cast_signed() >> 1;
            }
            thread::yield_now();
        }
    }
}

impl WayOut<'_> {
    /// One reference fewer. Returns false, with nothing changed, if it is the last one: then
    /// [`Live::lower_last`] decides.
    ///
    /// Release pairs with the Acquire in `lower_last`.
    #[inline]
    #[must_use]
    pub(crate) fn lower(self) -> bool {
        self.slot.is_some_and(|slot| count(slot, self.mode)) || lower_shared(self.shared)
    }
}

#[cold]
fn lower_shared(shared: &AtomicU64) -> bool {
    let not_last = |count: u64| (count > 1).then(|| count - 1);
    shared.fetch_update(Ordering::Release, Ordering::Relaxed, not_last).is_ok()
}

/// Counts one in `slot`, which is this thread's, so nobody else writes it. Returns false, with
/// nothing counted, if the count is shared.
///
/// Release pairs with the Acquire in `settled`.
#[inline]
fn count(slot: &AtomicU64, mode: &AtomicU64) -> bool {
    let before = slot.load(Ordering::Relaxed);
    slot.store(before | CHANGING, Ordering::Relaxed);
    fences::light();
    let is_sharded = mode.load(Ordering::Relaxed) == SHARDED;
    let after = if is_sharded { before.wrapping_add(ONE) } else { before };
    slot.store(after, Ordering::Release);
    is_sharded
}

/// The switch from slots to the shared word, in every order that threads can take.
#[cfg(all(test, loom))]
mod races {
    use super::*;
    use crate::sync::Arc;
    use crate::sync::thread::spawn;

    /// A sharded count, and how often it was told that it is drained.
    struct Counted {
        live: Live,
        drained: AtomicU64,
        bytes: AtomicU64,
    }

    impl Counted {
        fn new() -> Arc<Counted> {
            let none = || AtomicU64::new(0);
            Arc::new(Counted { live: Live::sharded(), drained: none(), bytes: none() })
        }

        fn note(&self, drained: Drained) {
            if drained == Drained::JustNow {
                self.drained.fetch_add(1, Ordering::Relaxed);
            }
        }

        /// What the drop of a live reference does, on the thread with this number.
        fn put(&self, number: usize) {
            while !self.live.way_out(Some(number)).lower() {
                let drained = self.live.lower_last();
                if drained == Drained::JustNow {
                    return self.note(drained);
                }
            }
        }

        fn end(&self) {
            self.note(self.live.kill());
            assert!(self.live.wait_dead(Wait::Forever));
        }

        fn assert_told_once(&self) {
            assert_eq!(self.drained.load(Ordering::Relaxed), 1, "who frees it is told once");
        }
    }

    /// Rule 3: who was counted before the end is waited for, and what it did is seen.
    ///
    /// Kills: no light fence; no heavy fence; a sum that does not wait for a change; CHANGING set
    /// after the mode was read. (A Release or Acquire that is missing does not show here: the fence
    /// that stands for the light one is stronger than it.)
    #[test]
    fn the_end_waits_for_a_reference_that_was_taken_before_it() {
        loom::model(|| {
            let counted = Counted::new();
            let user = spawn({
                let counted = Arc::clone(&counted);
                move || match counted.live.try_get(Some(0)) {
                    Got::Refused => false,
                    _ => {
                        counted.bytes.store(1, Ordering::Relaxed);
                        counted.put(0);
                        true
                    }
                }
            });

            counted.end();

            let written = counted.bytes.load(Ordering::Relaxed);
            assert_eq!(user.join().unwrap(), written == 1);
            counted.assert_told_once();
        });
    }

    /// A reference that one thread took and another gives back leaves one slot with more taken, and
    /// the other with more given back.
    ///
    /// Kills: slots summed without sign; the bias taken off before the slots are summed.
    #[test]
    fn a_reference_may_be_given_back_by_another_thread_during_the_switch() {
        loom::model(|| {
            let counted = Counted::new();
            assert_eq!(counted.live.try_get(Some(0)), Got::Another);
            let other = spawn({
                let counted = Arc::clone(&counted);
                move || counted.put(1)
            });

            counted.end();

            other.join().unwrap();
            counted.assert_told_once();
        });
    }

    /// Kills: a shared word that starts without the bias.
    #[test]
    fn a_clone_during_the_switch_keeps_the_page_map_from_being_dead() {
        loom::model(|| {
            let counted = Counted::new();
            assert_eq!(counted.live.try_get(Some(0)), Got::Another);
            let user = spawn({
                let counted = Arc::clone(&counted);
                move || {
                    counted.live.raise(Some(0));
                    counted.put(0);
                    assert!(!counted.live.is_dead(), "one of two references is left");
                    counted.put(0);
                }
            });

            counted.end();

            user.join().unwrap();
            counted.assert_told_once();
        });
    }

    /// The last strong handle goes while the last reference does: one of them frees.
    ///
    /// Kills: `share` that does not say that it drained; a last put that decides without the lock.
    #[test]
    fn a_count_that_is_shared_while_it_is_drained_says_so_once() {
        loom::model(|| {
            let counted = Counted::new();
            assert_eq!(counted.live.try_get(Some(0)), Got::Another);
            let user = spawn({
                let counted = Arc::clone(&counted);
                move || counted.put(0)
            });

            counted.note(counted.live.share());

            user.join().unwrap();
            counted.assert_told_once();
        });
    }
}
