//! How long a caller is ready to wait, and the queues it waits in.
//!
//! Only pins are waited for (protocol, rule 6).

use crate::block::Block;
use crate::sync::{Condvar, Mutex};
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

/// Where threads sleep for the last unpin of a folio, hashed by its first page.
#[derive(Debug, Default)]
pub(crate) struct WaitQueues([WaitQueue; QUEUES]);

#[derive(Debug, Default)]
struct WaitQueue {
    /// Held from asking the word to wake until asleep, and taken by whoever wakes.
    sleepers: Mutex<()>,
    woken: Condvar,
}

impl WaitQueues {
    /// Sleeps until the folio of `word` has no pin. Returns false if the time ran out.
    pub(crate) fn wait_unpinned(&self, block: Block, word: &PageWord, wait: Wait) -> bool {
        let queue = self.of(block);
        let mut guard = queue.sleepers.lock();
        while let Watch::Pinned = word.watch() {
            guard = match wait {
                Wait::Never => return false,
                Wait::Until(deadline) if Instant::now() >= deadline => return false,
                Wait::Until(deadline) => queue.woken.wait_until(guard, deadline).0,
                Wait::Forever => queue.woken.wait(guard),
            };
        }
        true
    }

    /// Wakes whoever sleeps for the folio. Without the lock a sleeper between its look at the
    /// word and its sleep would miss it.
    pub(crate) fn wake(&self, block: Block) {
        let queue = self.of(block);
        drop(queue.sleepers.lock());
        queue.woken.notify_all();
    }

    fn of(&self, block: Block) -> &WaitQueue {
        // Fibonacci hashing, because heads of large folios differ only in high bits.
        let hash = block.head().0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
        &self.0[usize::try_from(hash).expect("four bits")]
    }
}
