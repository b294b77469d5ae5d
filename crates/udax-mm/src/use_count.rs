//! How many use something, and the wait until nobody does.
//!
//! Knows nothing of what is used. Whoever wants nobody to come after the wait keeps them out by a lock
//! of its own, and looks at the count under it.

use crate::sync::Arc;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::wait::{Patience, Sleeper, WaitQueue};

/// A count of users, as `i_writecount` of Linux is of who may write a file. Clone is another handle
/// of the same one.
///
/// ```
/// use udax_mm::{UseCount, Wait};
///
/// let writers = UseCount::default();
/// let writer = writers.enter();
/// assert_eq!(writers.wait_unused(Wait::Never), Err(1));
/// let other = std::thread::spawn(move || drop(writer));
/// writers.wait_unused(Wait::Forever).unwrap();
/// # other.join().unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct UseCount(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    users: AtomicUsize,
    queue: WaitQueue,
}

/// Somebody who is counted. Drop counts it no more.
#[must_use]
#[derive(Debug)]
pub struct CountedUse(UseCount);

impl UseCount {
    /// Counts one more.
    ///
    /// Relaxed: a lock of the caller orders it before or after who looks whether somebody is counted.
    pub fn enter(&self) -> CountedUse {
        self.0.users.fetch_add(1, Ordering::Relaxed);
        CountedUse(self.clone())
    }

    /// How many are counted.
    ///
    /// Acquire pairs with the Release in the drop of [`CountedUse`]: who finds nobody sees what they
    /// did.
    pub fn users(&self) -> usize {
        self.0.users.load(Ordering::Acquire)
    }

    /// Sleeps until nobody is counted, once; somebody may be again at once.
    ///
    /// # Blocking
    ///
    /// As `wait` says.
    ///
    /// # Errors
    ///
    /// Returns how many there still were, at least one, if the time ran out or the wait was
    /// interrupted.
    pub fn wait_unused<'i>(&self, wait: impl Into<Patience<'i>>) -> Result<(), usize> {
        let patience = wait.into();
        let _listed = patience.list(Sleeper::Unused(self.clone()));
        if self.0.queue.sleep_until(|| self.users() == 0, &patience) {
            return Ok(());
        }
        // The last may have gone after the time was over.
        match self.users() {
            0 => Ok(()),
            users => Err(users),
        }
    }

    /// Has everybody who sleeps look again.
    pub(crate) fn wake(&self) {
        self.0.queue.wake();
    }

    pub(crate) fn is_same(&self, other: &UseCount) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Drop for CountedUse {
    /// Release pairs with the Acquire in [`UseCount::users`].
    fn drop(&mut self) {
        if self.0.0.users.fetch_sub(1, Ordering::Release) == 1 {
            self.0.wake();
        }
    }
}
