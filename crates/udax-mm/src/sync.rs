//! The one place that names `std::sync`: the real primitives, or those of loom under `cfg(loom)`,
//! or those of shuttle under `cfg(shuttle)`.
//!
//! Locks here do not poison: a panic inside udax is a bug that is reported where it happens, and
//! the threads that come later go on with what the invariants still hold. [`Arc`] is always the
//! real one, because trait objects live in it; loom and shuttle check the atomics and the locks.
//!
//! Loom explores every order of a few steps, stale loads included. Shuttle draws orders of many
//! steps at random, and every load of it sees the last store: it finds wrong protocols, and never a
//! wrong [`Ordering`](atomic::Ordering).
//!
//! Which lock is taken under which other is recorded where [`lock_order`] says.

#[cfg(not(all(any(debug_assertions, feature = "lock-order"), not(any(loom, shuttle)))))]
#[path = "sync/plain.rs"]
mod guards;
#[cfg(all(any(debug_assertions, feature = "lock-order"), not(any(loom, shuttle))))]
#[path = "sync/recorded.rs"]
mod guards;
pub mod lock_order;

use std::sync::PoisonError;
use std::time::Instant;

pub use std::sync::{Arc, OnceLock, Weak, mpsc};

#[cfg(loom)]
use loom::sync as imp;
#[cfg(shuttle)]
use shuttle::sync as imp;
#[cfg(not(any(loom, shuttle)))]
use std::sync as imp;

pub use guards::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// Atomic integers and fences.
pub mod atomic {
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
    #[cfg(shuttle)]
    pub use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
    #[cfg(not(any(loom, shuttle)))]
    pub use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
}

/// Threads that loom or shuttle know of.
pub mod thread {
    #[cfg(loom)]
    pub use loom::thread::{JoinHandle, spawn, yield_now};
    #[cfg(shuttle)]
    pub use shuttle::thread::{JoinHandle, spawn, yield_now};
    #[cfg(not(any(loom, shuttle)))]
    pub use std::thread::{JoinHandle, spawn, yield_now};
}

/// A pair of fences that costs one side nothing: of a light and a heavy one, at least one of the
/// two threads sees what the other stored before its fence.
pub(crate) mod fences {
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) use super::fences_of_linux::{has_heavy, heavy, light};
    #[cfg(loom)]
    pub(crate) use super::fences_of_loom::{has_heavy, heavy, light};
    #[cfg(shuttle)]
    pub(crate) use super::fences_of_shuttle::{has_heavy, heavy, light};
}

#[cfg(not(any(loom, shuttle)))]
mod fences_of_linux {
    use super::OnceLock;
    use rustix::thread::{MembarrierCommand, membarrier};
    use std::sync::atomic::{Ordering, compiler_fence};

    /// Whether the host runs a fence in every thread of the process on request.
    pub(crate) fn has_heavy() -> bool {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        *REGISTERED.get_or_init(|| membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok())
    }

    /// Runs a fence in every thread of the process.
    pub(crate) fn heavy() {
        if membarrier(MembarrierCommand::PrivateExpedited).is_err() {
            // A fork: the child is a process of its own.
            let registered = membarrier(MembarrierCommand::RegisterPrivateExpedited);
            let fenced = registered.and_then(|()| membarrier(MembarrierCommand::PrivateExpedited));
            fenced.expect("the host has the fence, as it had before");
        }
    }

    /// Keeps the compiler from moving loads and stores; the processor is dealt with by `heavy`.
    #[inline]
    pub(crate) fn light() {
        compiler_fence(Ordering::SeqCst);
    }
}

/// As strong as the real ones, and known to loom.
#[cfg(loom)]
mod fences_of_loom {
    use super::atomic::{Ordering, fence};

    pub(crate) fn has_heavy() -> bool {
        false
    }

    pub(crate) fn heavy() {
        fence(Ordering::SeqCst);
    }

    pub(crate) fn light() {
        fence(Ordering::SeqCst);
    }
}

/// None: each thread of shuttle sees the stores of all others at once, and in one order.
#[cfg(shuttle)]
mod fences_of_shuttle {
    use shuttle::rand::{Rng, thread_rng};

    /// Drawn for each page map, so that both ways to count are explored.
    pub(crate) fn has_heavy() -> bool {
        thread_rng().gen_bool(0.75)
    }

    pub(crate) fn heavy() {}

    pub(crate) fn light() {}
}

/// A mutex that does not poison.
#[derive(Debug, Default)]
pub struct Mutex<T>(imp::Mutex<T>);

impl<T> Mutex<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Mutex<T> {
        Mutex(imp::Mutex::new(value))
    }

    /// Locks, waiting for the holder.
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let noted = guards::note::<T>();
        guards::mutex(self.0.lock().unwrap_or_else(PoisonError::into_inner), noted)
    }
}

/// A readers-writer lock that does not poison.
#[derive(Debug, Default)]
pub struct RwLock<T>(imp::RwLock<T>);

impl<T> RwLock<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> RwLock<T> {
        RwLock(imp::RwLock::new(value))
    }

    /// Locks shared.
    #[track_caller]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        let noted = guards::note::<T>();
        guards::read(self.0.read().unwrap_or_else(PoisonError::into_inner), noted)
    }

    /// Locks exclusively.
    #[track_caller]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        let noted = guards::note::<T>();
        guards::write(self.0.write().unwrap_or_else(PoisonError::into_inner), noted)
    }
}

/// A condition variable for [`Mutex`].
#[derive(Debug, Default)]
pub struct Condvar(imp::Condvar);

impl Condvar {
    /// A condition nobody waits for.
    pub fn new() -> Condvar {
        Condvar(imp::Condvar::new())
    }

    /// Wakes one waiter.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes every waiter.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Releases the lock, sleeps until woken, and locks again.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let (guard, noted) = guards::open(guard);
        guards::mutex(self.0.wait(guard).unwrap_or_else(PoisonError::into_inner), noted)
    }

    /// Like [`Condvar::wait`], but at the latest until `deadline`. Returns whether it is still
    /// before the deadline.
    pub fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Instant,
    ) -> (MutexGuard<'a, T>, bool) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return (guard, false);
        }
        let (guard, noted) = guards::open(guard);
        let (guard, timeout) =
            self.0.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner);
        (guards::mutex(guard, noted), !timeout.timed_out())
    }
}
