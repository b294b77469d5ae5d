//! The index of a file: which entries it has, which are locked, and who waits for them.
//!
//! An entry says which folio belongs to a block of the file; it holds no reference of it (I-15).
//! Its lock bit serialises faults, pins and writeback of the block. The index knows nothing of
//! folios and translations.
//!
//! Every unlock wakes every waiter, and a waiter looks again from scratch. The kernel wakes one and
//! lost wakeups that way four times (I-25); waiters of one entry are few.

use std::collections::BTreeMap;
use std::ops::Range;
use udax_mm::sync::{Condvar, Mutex, MutexGuard};
use udax_mm::{FileIndex, Order, Pgmap, PgmapOff};

/// The association of a block of the file with a folio.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Keeps the media mapped, and nothing else: no folio reference and no live reference.
    pub(crate) pgmap: Pgmap,
    /// Where the first page of the block lies.
    pub(crate) first: PgmapOff,
    /// Whether there may be stores that no writeback has flushed.
    pub(crate) is_dirty: bool,
}

/// A block of the file, with its entry if it has one.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) head: FileIndex,
    pub(crate) order: Order,
    pub(crate) entry: Option<Entry>,
}

/// An order-9 block was asked for where smaller entries exist.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Conflict;

/// The entries of one file.
#[derive(Debug, Default)]
pub(crate) struct Index {
    state: Mutex<State>,
    unlocked: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By first index. Aligned, and none inside another (I-22). A slot without an entry is locked.
    slots: BTreeMap<FileIndex, Slot>,
    waiters: usize,
}

#[derive(Debug)]
struct Slot {
    order: Order,
    is_locked: bool,
    entry: Option<Entry>,
}

impl Block {
    /// The indices it covers.
    pub(crate) fn range(&self) -> Range<FileIndex> {
        self.head.span(self.order.pages())
    }
}

impl Index {
    /// Locks the block of `order` around `index`, or a larger entry that covers it, waiting for
    /// its owner. Where there is none, an empty locked block is made.
    ///
    /// # Errors
    ///
    /// [`Conflict`] if there are smaller entries, locked or not. They are not waited for.
    pub(crate) fn lock(&self, index: FileIndex, order: Order) -> Result<Block, Conflict> {
        let head = index.align_down(order);
        let mut state = self.state.lock();
        loop {
            let found = state.covering(index);
            if found.is_none() && state.has_slot_in(head.span(order.pages())) {
                return Err(Conflict);
            }
            let Some(found) = found else {
                state.slots.insert(head, Slot { order, is_locked: true, entry: None });
                return Ok(Block { head, order, entry: None });
            };
            let slot = state.slots.get_mut(&found).expect("the slot was just found");
            if slot.order < order {
                return Err(Conflict);
            }
            if !slot.is_locked {
                slot.is_locked = true;
                return Ok(slot.to_block(found));
            }
            state = self.wait(state);
        }
    }

    /// Locks the entry that covers `index`, or makes an empty one of order 0.
    pub(crate) fn lock_page(&self, index: FileIndex) -> Block {
        let locked = self.lock(index, Order::Base);
        locked.expect("I-31: no entry is smaller than order 0")
    }

    /// Locks the first entry at or after `from` for which `wanted` holds, and that starts before
    /// `end`. A locked entry is waited for, and looked at again after (I-27).
    pub(crate) fn lock_next(
        &self,
        from: FileIndex,
        end: FileIndex,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Option<Block> {
        let mut state = self.state.lock();
        loop {
            let from = state.covering(from).unwrap_or(from);
            if from >= end {
                return None;
            }
            let is_wanted =
                |slot: &Slot| slot.is_locked || slot.entry.as_ref().is_some_and(&wanted);
            let (&head, slot) =
                state.slots.range_mut(from..end).find(|(_, slot)| is_wanted(slot))?;
            if !slot.is_locked {
                slot.is_locked = true;
                return Some(slot.to_block(head));
            }
            state = self.wait(state);
        }
    }

    /// Unlocks a block, and forgets it if nothing was inserted.
    pub(crate) fn unlock(&self, head: FileIndex) {
        let mut state = self.state.lock();
        let slot = state.locked_mut(head);
        slot.is_locked = false;
        if slot.entry.is_none() {
            state.slots.remove(&head);
        }
        self.wake(&state);
    }

    /// Exchanges a locked, empty block for the locked, empty page `index` in it.
    pub(crate) fn shrink(&self, head: FileIndex, index: FileIndex) -> Block {
        let mut state = self.state.lock();
        let slot = state.locked_mut(head);
        assert!(slot.entry.is_none(), "I-31: only an empty block is replaced by a smaller one");
        state.slots.remove(&head);
        let order = Order::Base;
        state.slots.insert(index, Slot { order, is_locked: true, entry: None });
        self.wake(&state);
        Block { head: index, order, entry: None }
    }

    /// Changes the entry of a locked block.
    pub(crate) fn update(&self, head: FileIndex, change: impl FnOnce(&mut Option<Entry>)) {
        change(&mut self.state.lock().locked_mut(head).entry);
    }

    /// Marks entries dirty again, locked or not, if they are still there.
    pub(crate) fn redirty(&self, heads: &[FileIndex]) {
        let mut state = self.state.lock();
        for head in heads {
            if let Some(entry) = state.slots.get_mut(head).and_then(|slot| slot.entry.as_mut()) {
                entry.is_dirty = true;
            }
        }
    }

    /// Removes every entry that overlaps `range`. Of a dirty one that reaches outside, the pages
    /// outside stay behind as dirty entries of order 0, so that their stores are still flushed.
    ///
    /// The caller holds the layout lock exclusively, so none is locked.
    pub(crate) fn remove(&self, range: &Range<FileIndex>) {
        let mut state = self.state.lock();
        for head in state.overlapping(range) {
            let slot = state.slots.remove(&head).expect("the slot was just found");
            assert!(!slot.is_locked, "I-28: nobody locks an entry without the layout lock");
            let entry = slot.entry.expect("I-28: an unlocked slot has an entry");
            if entry.is_dirty {
                let outside = |index: &FileIndex| !range.contains(index);
                for index in indices(&head.span(slot.order.pages())).filter(outside) {
                    let first = entry.first + index.since(head);
                    let entry = Some(Entry { first, ..entry.clone() });
                    let (order, is_locked) = (Order::Base, false);
                    state.slots.insert(index, Slot { order, is_locked, entry });
                }
            }
        }
    }

    /// Forgets every entry, because the device is gone. The caller holds the layout lock
    /// exclusively.
    pub(crate) fn forget_all(&self) {
        self.state.lock().slots.clear();
    }

    /// A copy of every block, for checks.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        self.state.lock().slots.iter().map(|(&head, slot)| slot.to_block(head)).collect()
    }

    /// The first locked block, for checks.
    pub(crate) fn first_locked(&self) -> Option<FileIndex> {
        let state = self.state.lock();
        state.slots.iter().find_map(|(&head, slot)| slot.is_locked.then_some(head))
    }

    /// Sleeps until some block is unlocked. Testing the lock and going to sleep are one step,
    /// because both happen under the mutex (I-24).
    fn wait<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.waiters += 1;
        let mut state = self.unlocked.wait(state);
        state.waiters -= 1;
        state
    }

    fn wake(&self, state: &State) {
        if state.waiters > 0 {
            self.unlocked.notify_all();
        }
    }
}

impl State {
    /// The head of the slot that covers `index`.
    fn covering(&self, index: FileIndex) -> Option<FileIndex> {
        let (&head, slot) = self.slots.range(..=index).next_back()?;
        head.span(slot.order.pages()).contains(&index).then_some(head)
    }

    fn has_slot_in(&self, range: Range<FileIndex>) -> bool {
        self.slots.range(range).next().is_some()
    }

    fn overlapping(&self, range: &Range<FileIndex>) -> Vec<FileIndex> {
        if range.is_empty() {
            return Vec::new();
        }
        let start = self.covering(range.start).unwrap_or(range.start);
        self.slots.range(start..range.end).map(|(&head, _)| head).collect()
    }

    fn locked_mut(&mut self, head: FileIndex) -> &mut Slot {
        let slot = self.slots.get_mut(&head).expect("I-23: a locked slot is not removed");
        assert!(slot.is_locked, "I-23: only the owner of the lock changes a slot");
        slot
    }
}

impl Slot {
    fn to_block(&self, head: FileIndex) -> Block {
        Block { head, order: self.order, entry: self.entry.clone() }
    }
}

/// Every index of a range, in order.
pub(crate) fn indices(range: &Range<FileIndex>) -> impl Iterator<Item = FileIndex> + use<> {
    (range.start.0..range.end.0).map(FileIndex)
}

#[cfg(test)]
mod tests;
