//! The two handles of a page map, and the moment it is freed.
//!
//! This file owns the memory that the handles share. What they can be asked for is in
//! [`pgmap`](crate::pgmap).

use crate::live::{Drained, Got, Live};
use crate::pgmap::Shared;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::threads;
use crate::wait::Wait;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// Memory with one lifetime: live, dying or dead.
///
/// Clone is another strong handle. A strong handle keeps the media mapped; it does not keep the
/// page map live, that is what [`PgmapRef`] does. The last one may have to wait for other threads
/// to be through with a few instructions when it is dropped.
///
/// A page map does not survive a `fork`: its child must not touch it.
///
/// ```
/// # use udax_mm::{MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff, Wait};
/// # use udax_mm::{media::FileMedia, sync::Arc};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let media = Arc::new(FileMedia::memfd("example", 1 << 20)?);
/// let range = MediaRange { media, start: 0, pages: Pages(256) };
/// let pgmap = Pgmap::new(vec![range], MemoryType::FsDax)?;
///
/// let live = pgmap.try_get_live().expect("nobody killed it");
/// let folio = live.request_folio(PgmapOff(3), Order::Base)?;
/// drop(live);
/// assert!(pgmap.kill(Wait::Never).is_err(), "a folio is in use");
/// drop(folio);
/// let _dead = pgmap.kill(Wait::Never)?;
/// assert!(pgmap.try_get_live().is_none());
/// # Ok(())
/// # }
/// ```
///
/// # Invariants
///
/// 1. `inner` came from a box, and is not freed while a `Pgmap` that is dropped one day, or a
///    [`PgmapRef`], exists: `Inner::strong` counts each of the former, and one more for all of the
///    latter.
pub struct Pgmap {
    inner: NonNull<Inner>,
}

/// Proof that a page map is live.
///
/// Clone is another live reference. [`Pgmap::kill`] returns when the last one is dropped; every
/// handle of a page holds one. Taking one and giving it back touches memory of the running thread
/// only, for as long as the page map has a strong handle and nobody kills it, the host has
/// `membarrier`, and no more than 64 threads use page maps at once; else a word that all share.
pub struct PgmapRef {
    /// Counted in `Inner::live`, and not in `Inner::strong`.
    pgmap: ManuallyDrop<Pgmap>,
}

/// # Invariants
///
/// 1. `strong` counts the handles [`Pgmap`], and one more while `live` counts somebody or is
///    sharded, so that nobody knows.
/// 2. Whoever lowers `strong` to zero frees the box.
struct Inner {
    strong: AtomicU64,
    live: Live,
    shared: Shared,
}

// SAFETY: the handle is a counted pointer to an `Inner`, which is Send and Sync (asserted below);
// the counts are atomic.
unsafe impl Send for Pgmap {}
// SAFETY: as for Send.
unsafe impl Sync for Pgmap {}

const _: () = {
    const fn is_shareable<T: Send + Sync>() {}
    is_shareable::<Inner>();
};

impl Pgmap {
    /// The first handle.
    pub(crate) fn of(shared: Shared) -> Pgmap {
        let live = Live::new();
        let strong = AtomicU64::new(1 + u64::from(live.is_sharded()));
        let inner = Box::new(Inner { strong, live, shared });
        // INVARIANT: 1 by the count of one, and of another for a sharded count.
        Pgmap { inner: NonNull::from(Box::leak(inner)) }
    }

    /// A live reference; none from [`Pgmap::kill`] onward (I-02).
    #[inline]
    pub fn try_get_live(&self) -> Option<PgmapRef> {
        let inner = self.inner();
        match inner.live.try_get(threads::number()) {
            Got::Refused => return None,
            Got::Another => (),
            Got::First => drop(inner.strong.fetch_add(1, Ordering::Relaxed)),
        }
        Some(self.counted_live())
    }

    /// Refuses further live references, and waits until the last one is gone. Returns whether it
    /// is.
    pub(crate) fn end(&self, wait: Wait) -> bool {
        let inner = self.inner();
        if inner.live.kill() == Drained::JustNow {
            // SAFETY: a sharded count is counted (invariant 1 of `Inner`), and is none from here
            // on.
            unsafe { release(self.inner) };
        }
        inner.live.wait_dead(wait)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.inner().live.is_dead()
    }

    /// What all handles share.
    #[inline]
    pub(crate) fn shared(&self) -> &Shared {
        &self.inner().shared
    }

    #[inline]
    fn inner(&self) -> &Inner {
        // SAFETY: invariant 1.
        unsafe { self.inner.as_ref() }
    }

    /// The handle of a live reference that was just counted.
    fn counted_live(&self) -> PgmapRef {
        PgmapRef { pgmap: ManuallyDrop::new(Pgmap { inner: self.inner }) }
    }
}

impl Clone for Pgmap {
    fn clone(&self) -> Pgmap {
        let before = self.inner().strong.fetch_add(1, Ordering::Relaxed);
        assert!(before < u64::MAX / 2, "a page map has fewer than 2^63 handles");
        Pgmap { inner: self.inner }
    }
}

impl Drop for Pgmap {
    /// The last strong handle of a sharded count switches it before it goes, so that the last live
    /// reference knows that it is the last.
    fn drop(&mut self) {
        let inner = self.inner();
        let is_last_of_sharded = |strong| strong == 2 && inner.live.is_sharded();
        let lower = |strong| (!is_last_of_sharded(strong)).then(|| strong - 1);
        match inner.strong.fetch_update(Ordering::AcqRel, Ordering::Relaxed, lower) {
            // SAFETY: this was the last.
            Ok(1) => unsafe { free(self.inner) },
            Ok(_) => (),
            Err(_) => {
                if inner.live.share() == Drained::JustNow {
                    // SAFETY: a sharded count is counted, and is none from here on.
                    unsafe { release(self.inner) };
                }
                // SAFETY: this handle is counted, and is none from here on.
                unsafe { release(self.inner) };
            }
        }
    }
}

/// Handles are equal if they are of the same page map.
impl PartialEq for Pgmap {
    fn eq(&self, other: &Pgmap) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Pgmap {}

impl PgmapRef {
    /// The page map that is live.
    #[inline]
    pub fn pgmap(&self) -> &Pgmap {
        &self.pgmap
    }
}

impl Clone for PgmapRef {
    #[inline]
    fn clone(&self) -> PgmapRef {
        self.pgmap.inner().live.raise(threads::number());
        self.pgmap.counted_live()
    }
}

impl Drop for PgmapRef {
    #[inline]
    fn drop(&mut self) {
        let way_out = self.pgmap.inner().live.way_out(threads::number());
        if !way_out.lower() {
            self.lower_last();
        }
    }
}

impl PgmapRef {
    #[cold]
    fn lower_last(&self) {
        // Counted still, so the page map is there whatever others do, until the last step.
        let live = &self.pgmap.inner().live;
        loop {
            if live.lower_last() == Drained::JustNow {
                if live.is_dead() {
                    self.pgmap.died();
                }
                // SAFETY: all live references together are counted, and there is none any more.
                return unsafe { release(self.pgmap.inner) };
            }
            if live.way_out(threads::number()).lower() {
                return;
            }
        }
    }
}

/// One owner fewer, which the caller was counted as.
///
/// Release pairs with the Acquire of the last one, which frees.
///
/// # Safety
///
/// The caller was counted in `strong`, and does not touch `inner` afterwards on that account.
unsafe fn release(inner: NonNull<Inner>) {
    // SAFETY: the caller is counted still, so `inner` is not freed.
    let strong = unsafe { &inner.as_ref().strong };
    if strong.fetch_sub(1, Ordering::AcqRel) == 1 {
        // SAFETY: `strong` was just lowered to zero.
        unsafe { free(inner) };
    }
}

/// Frees the page map, which nobody owns any more.
///
/// # Safety
///
/// The caller lowered `strong` to zero.
unsafe fn free(inner: NonNull<Inner>) {
    // SAFETY: it came from a box (invariant 1 of `Pgmap`), and no handle is left that could reach
    // it (invariant 1 of `Inner`); the caller alone frees it (invariant 2).
    drop(unsafe { Box::from_raw(inner.as_ptr()) });
}
