//! How long a caller is ready to wait, and the queues it waits in.
//!
//! Only pins are waited for (protocol, rule 6).

use crate::block::Block;
use crate::interrupt::Interrupt;
use crate::sync::{Arc, Condvar, Mutex};
use crate::word::{PageWord, Watch};
use std::time::Instant;

const QUEUES: usize = 16;

/// How long to wait for what stands in the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// Not at all: an error says at once what stands in the way.
    Never,
    /// Until this moment; then an error says what still stands in the way.
    Until(Instant),
    /// For as long as it takes.
    Forever,
}

/// How long to wait, and who may end it before: [`Wait::unless`].
#[derive(Clone, Copy, Debug)]
pub struct Patience<'a> {
    wait: Wait,
    interrupt: Option<&'a Interrupt>,
}

impl Wait {
    /// As long, unless `interrupt` is raised.
    pub fn unless(self, interrupt: &Interrupt) -> Patience<'_> {
        Patience { wait: self, interrupt: Some(interrupt) }
    }
}

impl From<Wait> for Patience<'_> {
    fn from(wait: Wait) -> Self {
        Patience { wait, interrupt: None }
    }
}

impl Patience<'_> {
    /// How long.
    pub fn wait(&self) -> Wait {
        self.wait
    }

    /// Whether somebody has ended it.
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.is_some_and(Interrupt::is_raised)
    }
}

/// Where threads sleep for the last unpin of a folio, hashed by its first page.
#[derive(Clone, Debug, Default)]
pub(crate) struct WaitQueues(Arc<[WaitQueue; QUEUES]>);

#[derive(Debug, Default)]
struct WaitQueue {
    /// Held from asking the word to wake until asleep, and taken by whoever wakes.
    sleepers: Mutex<Sleepers>,
    woken: Condvar,
}

/// Somebody who sleeps in one of the queues.
#[derive(Clone, Debug)]
pub(crate) struct Sleeper {
    queues: WaitQueues,
    queue: usize,
}

/// What the lock of a queue is around.
#[derive(Debug, Default)]
struct Sleepers;

impl WaitQueues {
    /// Sleeps until the folio of `word` has no pin. Returns false if the time ran out, or somebody
    /// has interrupted it.
    pub(crate) fn wait_unpinned(
        &self,
        block: Block,
        word: &PageWord,
        patience: &Patience<'_>,
    ) -> bool {
        let _listed = patience.interrupt.map(|interrupt| interrupt.list(self.sleeper(block)));
        let queue = self.of(block);
        let mut guard = queue.sleepers.lock();
        while let Watch::Pinned = word.watch() {
            guard = match patience.wait {
                _ if patience.is_interrupted() => return false,
                Wait::Never => return false,
                Wait::Until(deadline) if Instant::now() >= deadline => return false,
                Wait::Until(deadline) => queue.woken.wait_until(guard, deadline).0,
                Wait::Forever => queue.woken.wait(guard),
            };
        }
        true
    }

    /// Wakes whoever sleeps for the folio.
    pub(crate) fn wake(&self, block: Block) {
        self.of(block).wake();
    }

    fn of(&self, block: Block) -> &WaitQueue {
        &self.0[number_of(block)]
    }

    fn sleeper(&self, block: Block) -> Sleeper {
        Sleeper { queues: self.clone(), queue: number_of(block) }
    }
}

impl WaitQueue {
    /// Wakes everybody. Without the lock a sleeper between its look at the word and its sleep would
    /// miss it.
    fn wake(&self) {
        drop(self.sleepers.lock());
        self.woken.notify_all();
    }
}

impl Sleeper {
    /// Has everybody in the queue look again.
    pub(crate) fn wake(&self) {
        self.queues.0[self.queue].wake();
    }
}

/// Sleepers of one queue are alike.
impl PartialEq for Sleeper {
    fn eq(&self, other: &Sleeper) -> bool {
        Arc::ptr_eq(&self.queues.0, &other.queues.0) && self.queue == other.queue
    }
}

/// Which queue is that of a folio.
fn number_of(block: Block) -> usize {
    // Fibonacci hashing, because heads of large folios differ only in high bits.
    let hash = block.head().0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
    usize::try_from(hash).expect("four bits")
}
