//! How many threads answer faults, and which of them reads the next one.
//!
//! This file owns the numbers. The threads are in [`faults`](crate::faults).
//!
//! At any time one thread at least waits for messages, whatever the others do, because a zap goes
//! on only when the kernel's message about it was read. So a thread that is about to serve a fault
//! makes sure that another one waits; and when as many serve as may, the one that waits keeps the
//! faults for those who are done.

use std::collections::VecDeque;

/// Threads that wait though nothing happens: one takes a fault, and the other waits on.
pub(crate) const SPARE: usize = 2;
/// Threads that serve faults at once.
pub(crate) const MOST: usize = 64;

/// Who waits, who serves, and what nobody serves yet.
#[derive(Debug)]
pub(crate) struct Hands<T> {
    waiting: usize,
    serving: usize,
    /// Only when as many serve as may.
    queue: VecDeque<T>,
}

/// What the thread that read a fault does with it.
#[must_use]
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Take<T> {
    /// Serves it; somebody else waits for messages.
    Serve(T),
    /// The same, once it has started the thread that waits, which is counted already.
    ServeAfterStart(T),
    /// Waits on: somebody who is done will serve it.
    Queued,
}

impl<T> Hands<T> {
    /// For [`SPARE`] threads that wait.
    pub(crate) fn new() -> Hands<T> {
        Hands { waiting: SPARE, serving: 0, queue: VecDeque::new() }
    }

    /// A thread that waited has read a fault.
    pub(crate) fn take(&mut self, fault: T) -> Take<T> {
        if self.serving == MOST {
            self.queue.push_back(fault);
            return Take::Queued;
        }
        self.serving += 1;
        if self.waiting > 1 {
            self.waiting -= 1;
            return Take::Serve(fault);
        }
        Take::ServeAfterStart(fault)
    }

    /// The thread that should have waited could not be started, so the caller does, and leaves the
    /// fault to somebody who is done. Returns it if that one is done already, and waits: then the
    /// caller serves.
    pub(crate) fn not_started(&mut self, fault: T) -> Option<T> {
        if self.waiting > 1 {
            self.waiting -= 1;
            return Some(fault);
        }
        self.serving -= 1;
        assert!(self.serving > 0, "faults: with two threads one serves when the other waits");
        self.queue.push_back(fault);
        None
    }

    /// A thread has served a fault. Returns the next one that it serves, or none: it waits.
    pub(crate) fn done(&mut self) -> Option<T> {
        let next = self.queue.pop_front();
        if next.is_none() {
            self.serving -= 1;
            self.waiting += 1;
        }
        next
    }

    /// Whether more threads wait than have to.
    pub(crate) fn has_surplus(&self) -> bool {
        self.waiting > SPARE
    }

    /// A thread that waited long enough ends, if more wait than have to. Returns whether it does.
    #[must_use]
    pub(crate) fn leave(&mut self) -> bool {
        let leaves = self.has_surplus();
        if leaves {
            self.waiting -= 1;
        }
        leaves
    }
}

#[cfg(test)]
mod tests {
    use super::{Hands, MOST, SPARE, Take};

    /// Serves faults from `first` on until as many are served as may be.
    fn all_serving() -> Hands<usize> {
        let mut hands = Hands::new();
        for fault in 0..MOST {
            let take = hands.take(fault);
            let starts = fault + 1 >= SPARE;
            assert_eq!(
                take,
                if starts { Take::ServeAfterStart(fault) } else { Take::Serve(fault) }
            );
            assert!(hands.waiting >= 1, "somebody reads");
        }
        hands
    }

    #[test]
    fn somebody_waits_whatever_the_others_do() {
        let mut hands = all_serving();
        assert_eq!(hands.take(MOST), Take::Queued);
        assert_eq!(hands.take(MOST + 1), Take::Queued);
        assert_eq!((hands.waiting, hands.serving), (1, MOST));
        assert_eq!(hands.done(), Some(MOST), "the first that was queued");
        assert_eq!(hands.done(), Some(MOST + 1));
        assert_eq!(hands.done(), None);
        assert_eq!((hands.waiting, hands.serving), (2, MOST - 1));
    }

    #[test]
    fn threads_that_are_not_needed_end_and_two_stay() {
        let mut hands = all_serving();
        (0..MOST).for_each(|_| assert_eq!(hands.done(), None));
        assert_eq!((hands.waiting, hands.serving), (MOST + 1, 0));
        let left = (0..2 * MOST).filter(|_| hands.leave()).count();
        assert_eq!((left, hands.waiting), (MOST + 1 - SPARE, SPARE));
    }

    #[test]
    fn a_fault_is_served_though_no_thread_can_be_started_for_it() {
        let mut hands = Hands::new();
        assert_eq!(hands.take('a'), Take::Serve('a'));
        let Take::ServeAfterStart(fault) = hands.take('b') else { panic!("nobody else waits") };
        assert_eq!(hands.not_started(fault), None);
        assert_eq!((hands.waiting, hands.serving), (1, 1));
        assert_eq!(hands.done(), Some('b'));
        assert_eq!(hands.done(), None);
    }

    /// The other one is done before it is known that no thread could be started.
    #[test]
    fn who_cannot_start_a_thread_serves_if_another_waits_by_then() {
        let mut hands = Hands::new();
        assert_eq!(hands.take('a'), Take::Serve('a'));
        let Take::ServeAfterStart(fault) = hands.take('b') else { panic!("nobody else waits") };
        assert_eq!(hands.done(), None);
        assert_eq!(hands.not_started(fault), Some('b'));
        assert_eq!((hands.waiting, hands.serving), (1, 1));
        assert_eq!(hands.done(), None);
        assert_eq!((hands.waiting, hands.serving), (2, 0));
    }
}
