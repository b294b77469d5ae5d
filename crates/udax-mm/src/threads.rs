//! Small numbers for threads: no two running threads have the same one.
//!
//! This file owns the numbers and nothing that is kept by number; [`live`](crate::live) keeps a
//! count for each. A thread takes its number on first use and gives it back when it ends. There
//! are [`NUMBERS`]; a thread that finds none does without for the rest of its life.

/// How many threads can have a number at once.
#[cfg(not(any(loom, shuttle)))]
pub(crate) const NUMBERS: usize = 64;
/// Loom's tests name the number of each thread themselves.
#[cfg(loom)]
pub(crate) const NUMBERS: usize = 2;
/// So few that a thread of the tests finds none.
#[cfg(shuttle)]
pub(crate) const NUMBERS: usize = 3;

/// The number of this thread, if it has one.
#[cfg(not(any(loom, shuttle)))]
#[inline]
pub(crate) fn number() -> Option<usize> {
    own::number()
}

/// The number that shuttle gives to the running thread.
#[cfg(shuttle)]
pub(crate) fn number() -> Option<usize> {
    let thread = shuttle::current::try_get_current_task()?;
    Some(usize::from(thread)).filter(|&number| number < NUMBERS)
}

/// None: what is kept by number is not what most of loom's tests are about, and each access to it
/// would multiply the interleavings that they explore.
#[cfg(loom)]
pub(crate) fn number() -> Option<usize> {
    None
}

#[cfg(not(any(loom, shuttle)))]
mod own {
    use super::NUMBERS;
    use crate::sync::atomic::{AtomicU64, Ordering};
    use std::cell::Cell;

    /// A thread that has not asked yet.
    const UNASKED: usize = usize::MAX;
    /// A thread that found no number, or gave its own back because it is about to end.
    const NONE: usize = usize::MAX - 1;

    /// One bit for each number: whether a thread has it.
    static TAKEN: AtomicU64 = AtomicU64::new(0);

    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(UNASKED) };
        static LEASE: Lease = const { Lease(Cell::new(NONE)) };
    }

    /// Gives the number back when the thread ends.
    struct Lease(Cell<usize>);

    impl Drop for Lease {
        /// Release pairs with the Acquire in `take`: the next thread with this number finds what
        /// this one kept under it.
        fn drop(&mut self) {
            NUMBER.set(NONE);
            if self.0.get() < NUMBERS {
                TAKEN.fetch_and(!bit(self.0.get()), Ordering::Release);
            }
        }
    }

    #[inline]
    pub(super) fn number() -> Option<usize> {
        match NUMBER.get() {
            number @ 0..NUMBERS => Some(number),
            NONE => None,
            _ => ask(),
        }
    }

    #[cold]
    fn ask() -> Option<usize> {
        let number = take();
        NUMBER.set(number.unwrap_or(NONE));
        LEASE.with(|lease| lease.0.set(number.unwrap_or(NONE)));
        number
    }

    /// Acquire pairs with the Release in the drop of [`Lease`].
    fn take() -> Option<usize> {
        let lowest = |taken: u64| (taken != u64::MAX).then_some(taken | (taken + 1));
        let before = TAKEN.fetch_update(Ordering::Acquire, Ordering::Relaxed, lowest).ok()?;
        usize::try_from(before.trailing_ones()).ok()
    }

    fn bit(number: usize) -> u64 {
        1 << number
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::{NUMBERS, number};
    use crate::sync::{Arc, Mutex, mpsc};
    use std::collections::BTreeSet;
    use std::thread;

    #[test]
    fn running_threads_have_different_numbers_and_a_thread_keeps_its_own() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let threads = (0..8).map(|_| {
            let (seen, (go, wait)) = (Arc::clone(&seen), mpsc::channel::<()>());
            let thread = thread::spawn(move || {
                let mine = number();
                seen.lock().push(mine);
                let _ = wait.recv();
                assert_eq!(number(), mine);
            });
            (thread, go)
        });
        let threads: Vec<_> = threads.collect();
        while seen.lock().len() < 8 {
            thread::yield_now();
        }
        for (thread, go) in threads {
            drop(go);
            thread.join().unwrap();
        }
        let mut seen = seen.lock().clone();
        seen.retain(Option::is_some);
        let different: BTreeSet<_> = seen.iter().collect();
        assert_eq!(different.len(), seen.len());
    }

    #[test]
    fn numbers_are_used_again() {
        for _ in 0..2 * NUMBERS {
            assert!(thread::spawn(number).join().unwrap().is_some());
        }
    }
}
