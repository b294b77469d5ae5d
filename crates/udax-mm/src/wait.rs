//! How long a caller is ready to wait, and the queues it waits in.
//!
//! Of pages, only pins are waited for (protocol, rule 6).

use crate::block::Block;
use crate::interrupt::{Interrupt, Listed};
use crate::sync::{Arc, Condvar, Mutex};
use crate::use_count::UseCount;
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

impl<'a> Patience<'a> {
    /// How long.
    pub fn wait(&self) -> Wait {
        self.wait
    }

    /// Whether somebody has ended it.
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.is_some_and(Interrupt::is_raised)
    }

    /// Has whoever ends it wake `sleeper` from here on.
    pub(crate) fn list(&self, sleeper: Sleeper) -> Option<Listed<'a>> {
        self.interrupt.map(|interrupt| interrupt.list(sleeper))
    }
}

/// Where threads sleep for the last unpin of a folio, hashed by its first page.
#[derive(Clone, Debug, Default)]
pub(crate) struct WaitQueues(Arc<[WaitQueue; QUEUES]>);

/// Where threads sleep until something is over.
#[derive(Debug, Default)]
pub(crate) struct WaitQueue {
    /// Held from asking whether it is over until asleep, and taken by whoever wakes.
    sleepers: Mutex<Sleepers>,
    woken: Condvar,
}

/// Somebody who sleeps.
#[derive(Clone, Debug)]
pub(crate) enum Sleeper {
    /// In one of the queues of a page map.
    Unpin { queues: WaitQueues, queue: usize },
    /// Until nobody is counted.
    Unused(UseCount),
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
        let _listed = patience.list(self.sleeper(block));
        self.of(block).sleep_until(|| matches!(word.watch(), Watch::Unpinned), patience)
    }

    /// Wakes whoever sleeps for the folio.
    pub(crate) fn wake(&self, block: Block) {
        self.of(block).wake();
    }

    fn of(&self, block: Block) -> &WaitQueue {
        &self.0[number_of(block)]
    }

    fn sleeper(&self, block: Block) -> Sleeper {
        Sleeper::Unpin { queues: self.clone(), queue: number_of(block) }
    }
}

impl WaitQueue {
    /// Sleeps until `is_over`. Returns false if the time ran out, or somebody has interrupted it, who
    /// must have been told of the sleeper before.
    pub(crate) fn sleep_until(&self, is_over: impl Fn() -> bool, patience: &Patience<'_>) -> bool {
        let mut guard = self.sleepers.lock();
        while !is_over() {
            guard = match patience.wait {
                _ if patience.is_interrupted() => return false,
                Wait::Never => return false,
                Wait::Until(deadline) if Instant::now() >= deadline => return false,
                Wait::Until(deadline) => self.woken.wait_until(guard, deadline).0,
                Wait::Forever => self.woken.wait(guard),
            };
        }
        true
    }

    /// Wakes everybody. Without the lock a sleeper between its look and its sleep would miss it.
    pub(crate) fn wake(&self) {
        drop(self.sleepers.lock());
        self.woken.notify_all();
    }
}

impl Sleeper {
    /// Has everybody in the queue look again.
    pub(crate) fn wake(&self) {
        match self {
            Sleeper::Unpin { queues, queue } => queues.0[*queue].wake(),
            Sleeper::Unused(count) => count.wake(),
        }
    }
}

/// Sleepers of one queue are alike.
impl PartialEq for Sleeper {
    fn eq(&self, other: &Sleeper) -> bool {
        match (self, other) {
            (Sleeper::Unpin { queues, queue }, Sleeper::Unpin { queues: others, queue: other }) => {
                Arc::ptr_eq(&queues.0, &others.0) && queue == other
            }
            (Sleeper::Unused(count), Sleeper::Unused(other)) => count.is_same(other),
            _ => false,
        }
    }
}

/// Which queue is that of a folio.
fn number_of(block: Block) -> usize {
    // Fibonacci hashing, because heads of large folios differ only in high bits.
    let hash = block.head().0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
    usize::try_from(hash).expect("four bits")
}
