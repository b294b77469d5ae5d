//! What a file shares with others, taken in more than a page at a time.
//!
//! Owns the order of things: what is shared moves with a store, under the lock of its entry. So the
//! entries are locked first, and then the owner is asked.

use crate::entry::EntryGuard;
use crate::fault::FaultGuard;
use crate::iomap::Iomap;
use crate::run::Run;
use udax_mm::{Access, FileIndex, Order, Pages};

/// How many pages are locked at once: 2 MiB.
const BATCH: Pages = Pages(512);

impl<'m> FaultGuard<'m> {
    /// Locks and brings in the pages behind that of `entry` which the file shares as well, up to
    /// `limit` or the first for which `is_end` is true, as far as nobody is in the way.
    pub(crate) fn lock_shared<'g>(
        &'g self,
        entry: &EntryGuard<'g, 'm>,
        limit: FileIndex,
        is_end: impl Fn(FileIndex) -> bool,
    ) -> Vec<EntryGuard<'g, 'm>> {
        let limit = limit.min(entry.asked() + BATCH);
        let mut locked = Vec::new();
        let mut at = entry.asked() + Pages(1);
        while at < limit && !is_end(at) {
            let Some(block) = self.mapping().index().try_lock(at, Order::Base) else { break };
            locked.push(EntryGuard::tried(self, at, block));
            at = at + Pages(1);
        }
        if locked.is_empty() {
            return locked;
        }
        let Ok(Iomap::Data { span, start, is_shared: true, .. }) = entry.iomap(Access::Read) else {
            return Vec::new();
        };
        let run = Run::new(span, start, true);
        let mut brought_in = 0;
        for next in locked.iter_mut().take_while(|next| next.asked() < run.range().end) {
            if next.bring_in(&run.page(next.asked()), Order::Base, true).is_err() {
                break;
            }
            self.mapping().counters().fault(Order::Base);
            brought_in += 1;
        }
        locked.truncate(brought_in);
        locked
    }
}
