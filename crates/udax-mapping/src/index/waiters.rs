//! Who waits for a locked entry.
//!
//! Owns the queues. An unlock hands the lock to the first that waits for it, which keeps it locked
//! all the while; so nobody can come between, and no wakeup is lost on a thread that does not
//! come back (I-25). Who only wants to see it unlocked once ([`Turn::Look`]) is never handed the
//! lock (I-26).

use std::collections::{BTreeMap, VecDeque};
use udax_mm::FileIndex;
use udax_mm::sync::{Arc, Condvar};

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// The lock.
    Own,
    /// A moment at which the entry is unlocked, gone or handed on.
    Look,
}

/// What became of a wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Woken {
    /// The lock is the waiter's.
    Owner,
    /// Nothing is known: look again from scratch.
    Again,
}

/// The waiters of every entry of an index, under its mutex.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// By first index. Two entries with one first index are never locked at once (I-22).
    queues: BTreeMap<FileIndex, VecDeque<Waiter>>,
    outcomes: BTreeMap<u64, Woken>,
    next: u64,
}

/// One waiter, in its queue.
#[derive(Debug)]
struct Waiter {
    number: u64,
    turn: Turn,
    bell: Arc<Condvar>,
}

/// The waiter's own end.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u64,
    pub(super) bell: Arc<Condvar>,
}

impl Waiters {
    /// Queues the caller for the entry at `head`, which it has just seen locked: one step with its
    /// look, because both happen under the mutex (I-24).
    pub(super) fn enqueue(&mut self, head: FileIndex, turn: Turn) -> Ticket {
        let number = self.next;
        self.next += 1;
        let bell = Arc::new(Condvar::new());
        let waiter = Waiter { number, turn, bell: Arc::clone(&bell) };
        self.queues.entry(head).or_default().push_back(waiter);
        Ticket { number, bell }
    }

    /// What became of a wait, if it is over.
    pub(super) fn outcome(&mut self, ticket: &Ticket) -> Option<Woken> {
        self.outcomes.remove(&ticket.number)
    }

    /// The entry at `head` is being unlocked and stays. Returns whether the lock was handed on, and
    /// so stays locked.
    pub(super) fn hand_on(&mut self, head: FileIndex) -> bool {
        let Some(queue) = self.queues.remove(&head) else { return false };
        let mut rest = VecDeque::with_capacity(queue.len());
        let mut has_owner = false;
        for waiter in queue {
            match waiter.turn {
                Turn::Look => self.wake(&waiter, Woken::Again),
                Turn::Own if has_owner => rest.push_back(waiter),
                Turn::Own => {
                    has_owner = true;
                    self.wake(&waiter, Woken::Owner);
                }
            }
        }
        if !rest.is_empty() {
            self.queues.insert(head, rest);
        }
        has_owner
    }

    /// The entry at `head` is gone, or is not what the waiters saw: all of them look again.
    pub(super) fn dismiss(&mut self, head: FileIndex) {
        for waiter in self.queues.remove(&head).unwrap_or_default() {
            self.wake(&waiter, Woken::Again);
        }
    }

    /// How many threads wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
    }

    fn wake(&mut self, waiter: &Waiter, woken: Woken) {
        self.outcomes.insert(waiter.number, woken);
        waiter.bell.notify_one();
    }
}
