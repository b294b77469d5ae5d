//! Which pages of a page map are poisoned, and that none is without a lock.
//!
//! This file owns the list. That the words of pages agree with it is up to
//! [`table`](crate::table).

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::units::PgmapOff;
use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut, Range};

/// The poisoned pages of a page map.
pub(crate) struct Poisoned {
    /// How many there are. Changes with the lock held only, and is Relaxed: whoever was told of a
    /// poisoned page sees it counted, and whoever was not might as well have looked earlier.
    count: AtomicUsize,
    pages: Mutex<BTreeSet<PgmapOff>>,
}

/// The locked list. Its end brings the count up to date.
pub(crate) struct Locked<'a> {
    count: &'a AtomicUsize,
    pages: MutexGuard<'a, BTreeSet<PgmapOff>>,
}

impl Poisoned {
    /// No page is poisoned.
    pub(crate) fn new() -> Poisoned {
        Poisoned { count: AtomicUsize::new(0), pages: Mutex::default() }
    }

    /// Locks the list to look at it or to change it.
    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked { count: &self.count, pages: self.pages.lock() }
    }

    /// The first poisoned page of `pages`. Takes no lock while no page at all is poisoned.
    pub(crate) fn first(&self, pages: Range<PgmapOff>) -> Option<PgmapOff> {
        if pages.is_empty() || self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.pages.lock().range(pages).next().copied()
    }
}

impl Deref for Locked<'_> {
    type Target = BTreeSet<PgmapOff>;

    fn deref(&self) -> &BTreeSet<PgmapOff> {
        &self.pages
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut BTreeSet<PgmapOff> {
        &mut self.pages
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.count.store(self.pages.len(), Ordering::Relaxed);
    }
}
