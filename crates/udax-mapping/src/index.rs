//! The index of a file: which entries it has, which are locked, and who waits for them.
//!
//! An entry says which folio belongs to a block of the file, or that a hole is shown there; it
//! holds no reference (I-15). Its lock serialises faults, pins and writeback of the block, and is
//! handed from one to the next. The index knows nothing of folios and translations.

mod failed;
#[cfg(all(test, loom))]
mod races;
mod slots;
#[cfg(test)]
mod tests;
mod waiters;
mod word;

use self::slots::Slots;
use self::waiters::{Turn, Waiters, Woken};
use self::word::{Kind, Word};
use std::ops::Range;
use udax_dev::DaxSpan;
use udax_mm::sync::{Mutex, MutexGuard};
use udax_mm::{FileIndex, Order, Pages, Pgmap, PgmapOff};

/// What an entry associates a block of the file with.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// A hole, shown as zeros.
    Zero,
    /// A folio.
    Real(Place),
}

/// Where the folio of an entry lies.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Keeps the media mapped, and nothing else: no folio reference and no live reference.
    pub(crate) pgmap: Pgmap,
    /// The first page of the block.
    pub(crate) first: PgmapOff,
    /// Whether there may be stores that no writeback has flushed.
    pub(crate) is_dirty: bool,
    /// Whether another file may have the folio too, so that nobody stores to it.
    pub(crate) is_shared: bool,
}

/// A block of the file, with its entry if it has one.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) head: FileIndex,
    pub(crate) order: Order,
    pub(crate) entry: Option<Entry>,
}

/// A block was asked for where smaller entries exist.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Conflict;

/// The entries of one file.
#[derive(Debug, Default)]
pub(crate) struct Index {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    slots: Slots,
    /// By their number in the entries. Few, and kept until all entries are forgotten.
    pgmaps: Vec<Pgmap>,
    waiters: Waiters,
    /// Entries that somebody has locked.
    locked: usize,
    /// Whether there may be stores that the owner was not told of.
    has_stores: bool,
}

type Guard<'a> = MutexGuard<'a, State>;

impl Block {
    /// The indices it covers.
    pub(crate) fn range(&self) -> Range<FileIndex> {
        self.head.span(self.order.pages())
    }

    /// Where its folio lies, if it has one.
    pub(crate) fn place(&self) -> Option<&Place> {
        match &self.entry {
            Some(Entry::Real(place)) => Some(place),
            _ => None,
        }
    }
}

impl Index {
    /// Locks the block of `order` around `index`, or a larger entry that covers it, waiting for its
    /// turn. Where there is none, an empty locked block is made.
    ///
    /// # Errors
    ///
    /// [`Conflict`] if there are smaller entries, locked or not. They are not waited for, and never
    /// make room (I-31).
    pub(crate) fn lock(&self, index: FileIndex, order: Order) -> Result<Block, Conflict> {
        let head = index.align_down(order);
        let mut state = self.state.lock();
        loop {
            let Some((found, word)) = state.slots.covering(index) else {
                if state.slots.first(&head.span(order.pages())).is_some() {
                    return Err(Conflict);
                }
                let word = Word::locked(order);
                state.slots.set(head, word);
                state.locked += 1;
                return Ok(state.block(head, word));
            };
            if word.order() < order {
                return Err(Conflict);
            }
            match Index::lock_found(state, found, word) {
                Ok(block) => return Ok(block),
                Err(again) => state = again,
            }
        }
    }

    /// Like [`lock`](Index::lock), but does not wait: `None` if that is what it would take, or if
    /// there is a larger or smaller entry.
    pub(crate) fn try_lock(&self, index: FileIndex, order: Order) -> Option<Block> {
        let head = index.align_down(order);
        let mut state = self.state.lock();
        let word = match state.slots.first(&head.span(order.pages())) {
            None => Word::locked(order),
            Some((_, word)) if word.order() == order && !word.is_locked() => word.with_lock(true),
            Some(_) => return None,
        };
        state.slots.set(head, word);
        state.locked += 1;
        Some(state.block(head, word))
    }

    /// Locks the entry that covers `index`, or makes an empty one of order 0.
    pub(crate) fn lock_page(&self, index: FileIndex) -> Block {
        let locked = self.lock(index, Order::Base);
        locked.expect("I-31: no entry is smaller than order 0")
    }

    /// Locks the first entry of `range` that a writeback has tagged.
    pub(crate) fn lock_tagged(&self, range: &Range<FileIndex>) -> Option<Block> {
        self.lock_first(range, Word::is_to_write)
    }

    /// Locks the first dirty entry of `range`.
    pub(crate) fn lock_dirty(&self, range: &Range<FileIndex>) -> Option<Block> {
        self.lock_first(range, Word::is_dirty)
    }

    /// Locks the first entry of `range` that has the mark. A locked one is waited for, and looked
    /// at again after (I-27). What gets the mark meanwhile is not meant.
    fn lock_first(&self, range: &Range<FileIndex>, has_mark: fn(Word) -> bool) -> Option<Block> {
        let mut state = self.state.lock();
        let mut at = range.start;
        while at < range.end {
            let (head, word) = state.slots.first(&(at..range.end))?;
            if !has_mark(word) {
                at = head + word.order().pages();
                continue;
            }
            match Index::lock_found(state, head, word) {
                Ok(block) if self.has_mark(&block, has_mark) => return Some(block),
                Ok(block) => {
                    self.unlock(block.head);
                    state = self.state.lock();
                }
                Err(again) => state = again,
            }
        }
        None
    }

    /// Unlocks a block: the next in the queue owns it, or it is free. An empty one is forgotten.
    pub(crate) fn unlock(&self, head: FileIndex) {
        let mut state = self.state.lock();
        let word = state.locked(head);
        if word.kind() == Kind::Empty {
            state.slots.remove(head, word.order());
            state.waiters.dismiss(head);
        } else if state.waiters.hand_on(head) {
            return;
        } else {
            state.slots.set(head, word.with_lock(false));
        }
        state.locked -= 1;
    }

    /// Exchanges a locked block for the locked, empty, smaller block of `order` around `index` in
    /// it. Nothing shows the block any more.
    pub(crate) fn shrink(&self, head: FileIndex, index: FileIndex, order: Order) -> Block {
        let mut state = self.state.lock();
        let word = state.locked(head);
        state.slots.remove(head, word.order());
        state.waiters.dismiss(head);
        let (head, word) = (index.align_down(order), Word::locked(order));
        state.slots.set(head, word);
        state.block(head, word)
    }

    /// Gives a locked block the folio at `place`, instead of whatever it had.
    pub(crate) fn insert(&self, head: FileIndex, place: &Place) -> Block {
        let mut state = self.state.lock();
        let order = state.locked(head).order();
        let number = state.number(&place.pgmap);
        let word = Word::real(order, number, place.first).with_lock(true);
        let word = word.with_shared(place.is_shared).with_dirty(place.is_dirty);
        state.slots.set(head, word);
        state.block(head, word)
    }

    /// Gives each page of `span`, which has no entry and lies in the file from `start` on, a dirty
    /// one. Nobody else is there: the layout is broken.
    pub(crate) fn insert_dirty(&self, start: FileIndex, span: &DaxSpan) {
        for (index, first) in
            (start.0..).map(FileIndex).zip(span.range().start.0..span.range().end.0)
        {
            let block = self.lock_page(index);
            let pgmap = span.pgmap().pgmap().clone();
            let place = Place { pgmap, first: PgmapOff(first), is_dirty: true, is_shared: false };
            self.insert(block.head, &place);
            self.unlock(block.head);
        }
    }

    /// Notes that a locked block without a folio shows a hole.
    pub(crate) fn insert_zero(&self, head: FileIndex) -> Block {
        let mut state = self.state.lock();
        let was = state.locked(head);
        assert!(was.kind() != Kind::Real, "I-33: a folio does not turn into a hole");
        let word = Word::zero(was.order()).with_lock(true);
        state.slots.set(head, word);
        state.block(head, word)
    }

    /// Marks a locked entry dirty, or takes the mark off.
    pub(crate) fn set_dirty(&self, head: FileIndex, is_dirty: bool) {
        let mut state = self.state.lock();
        let word = state.locked(head);
        state.slots.set(head, word.with_dirty(is_dirty));
        state.has_stores |= is_dirty;
    }

    /// Notes that there may be stores, though no entry became dirty.
    pub(crate) fn note_stores(&self) {
        self.state.lock().has_stores = true;
    }

    /// Whether there may be stores that the owner was not told of.
    pub(crate) fn has_stores(&self) -> bool {
        self.state.lock().has_stores
    }

    /// The same, for who tells the owner of those in `range`. None are known from then on, unless an
    /// entry lies outside, which may have them.
    pub(crate) fn take_stores(&self, range: &Range<FileIndex>) -> bool {
        let mut state = self.state.lock();
        let outside = [FileIndex(0)..range.start, range.end..FileIndex(u64::MAX)];
        let has_more = outside.iter().any(|part| state.slots.first(part).is_some());
        let has_stores = state.has_stores;
        state.has_stores &= has_more;
        has_stores
    }

    /// Tags every dirty entry of `range` for a writeback: what becomes dirty later is the next
    /// one's, so that this one ends.
    pub(crate) fn tag(&self, range: &Range<FileIndex>) {
        self.state.lock().slots.update_range(range, |_, word| word.with_to_write(word.is_dirty()));
    }

    /// Takes the tag off a locked entry.
    pub(crate) fn untag(&self, head: FileIndex) {
        let mut state = self.state.lock();
        let word = state.locked(head);
        state.slots.set(head, word.with_to_write(false));
    }

    /// Marks entries dirty again, locked or not, if they are still there. One that is shared is
    /// another than was cleaned: who shares the data made it durable first.
    pub(crate) fn redirty(&self, heads: &[FileIndex]) {
        let mut state = self.state.lock();
        for &head in heads {
            if let Some((found, word)) = state.slots.covering(head)
                && word.kind() == Kind::Real
                && !word.is_shared()
            {
                state.slots.set(found, word.with_dirty(true));
            }
        }
    }

    /// Whether the block of `order` around `index` has entries that are smaller.
    pub(crate) fn has_smaller(&self, index: FileIndex, order: Order) -> bool {
        let block = index.align_down(order).span(order.pages());
        let first = self.state.lock().slots.first(&block);
        first.is_some_and(|(_, word)| word.order() < order)
    }

    /// Waits until each entry of `range` that is locked at this moment was unlocked once. Does not
    /// lock any.
    pub(crate) fn settle(&self, range: &Range<FileIndex>) {
        let mut state = self.state.lock();
        let mut locked = Vec::new();
        state.slots.update_range(range, |head, word| {
            if word.is_locked() {
                locked.push(head);
            }
            word
        });
        for head in locked {
            let is_locked = |(found, word): (FileIndex, Word)| found == head && word.is_locked();
            if state.slots.covering(head).is_some_and(is_locked) {
                state = Index::wait(state, head, Turn::Look).0;
            }
        }
    }

    /// The range with all of the blocks of holes that reach into it.
    pub(crate) fn with_zeros(&self, range: &Range<FileIndex>) -> Range<FileIndex> {
        let mut all = range.clone();
        self.state.lock().slots.update_range(range, |head, word| {
            if word.kind() == Kind::Zero {
                all = all.start.min(head)..all.end.max(head + word.order().pages());
            }
            word
        });
        all
    }

    /// Forgets the holes shown in `range`, but for those that somebody has locked: they asked the
    /// owner, or will. Returns the range with all of the blocks that went.
    pub(crate) fn remove_zeros(&self, range: &Range<FileIndex>) -> Range<FileIndex> {
        let mut state = self.state.lock();
        let mut zeros = Vec::new();
        state.slots.update_range(range, |head, word| {
            if word.kind() == Kind::Zero && !word.is_locked() {
                zeros.push((head, word.order()));
            }
            word
        });
        let mut all = range.clone();
        for (head, order) in zeros {
            state.slots.remove(head, order);
            all = all.start.min(head)..all.end.max(head + order.pages());
        }
        all
    }

    /// Removes every entry that overlaps `range`. Of a dirty one that reaches outside, the pages
    /// outside stay behind as smaller dirty entries, so that their stores are still flushed; of a
    /// hole as smaller holes, which are still shown.
    ///
    /// The caller holds the layout lock exclusively, so none is locked.
    pub(crate) fn remove(&self, range: &Range<FileIndex>) {
        let mut state = self.state.lock();
        let mut cut = Vec::new();
        state.slots.remove_range(range, |head, word| {
            if word.is_dirty() || word.kind() == Kind::Zero {
                cut.push((head.span(word.order().pages()), word));
            }
        });
        for (block, word) in cut {
            let outside = [block.start..range.start, range.end..block.end];
            for part in &outside {
                state.keep(part, &block, word);
            }
        }
    }

    /// Forgets every entry, because the device is gone. The caller holds the layout lock
    /// exclusively.
    pub(crate) fn forget_all(&self) {
        let mut state = self.state.lock();
        state.slots.clear();
        state.pgmaps.clear();
    }

    /// The pages that entries cover (`nrpages`, I-29).
    pub(crate) fn pages(&self) -> Pages {
        let mut pages = 0;
        let all = FileIndex(0)..FileIndex(u64::MAX);
        self.state.lock().slots.update_range(&all, |_, word| {
            pages += word.order().pages().0;
            word
        });
        Pages(pages)
    }

    /// The bytes of memory that the entries take.
    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().slots.bytes()
    }

    /// A copy of every block in the order of the file, for checks.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let state = self.state.lock();
        let (mut at, mut blocks) = (FileIndex(0), Vec::new());
        while let Some((head, word)) = state.slots.first(&(at..FileIndex(u64::MAX))) {
            at = head + word.order().pages();
            blocks.push(state.block(head, word));
        }
        blocks
    }

    /// Whether anybody has an entry locked.
    pub(crate) fn is_locked(&self) -> bool {
        self.state.lock().locked > 0
    }

    /// Locks the entry at `head` if it is free; else waits, and gives it to the caller if it was
    /// handed over, or the guard to look again.
    fn lock_found(mut state: Guard<'_>, head: FileIndex, word: Word) -> Result<Block, Guard<'_>> {
        if !word.is_locked() {
            let word = word.with_lock(true);
            state.slots.set(head, word);
            state.locked += 1;
            return Ok(state.block(head, word));
        }
        match Index::wait(state, head, Turn::Own) {
            (state, Woken::Owner) => {
                let word = state.locked(head);
                Ok(state.block(head, word))
            }
            (state, Woken::Again) => Err(state),
        }
    }

    /// Sleeps until the wait for the locked entry at `head` is over.
    fn wait(mut state: Guard<'_>, head: FileIndex, turn: Turn) -> (Guard<'_>, Woken) {
        let ticket = state.waiters.enqueue(head, turn);
        loop {
            state = ticket.bell.wait(state);
            if let Some(woken) = state.waiters.outcome(&ticket) {
                return (state, woken);
            }
        }
    }

    fn has_mark(&self, block: &Block, has_mark: fn(Word) -> bool) -> bool {
        has_mark(self.state.lock().locked(block.head))
    }
}

impl State {
    /// The locked entry at `head`.
    fn locked(&self, head: FileIndex) -> Word {
        let (found, word) = self.slots.covering(head).expect("I-23: a locked entry is not removed");
        let is_owned = found == head && word.is_locked();
        assert!(is_owned, "I-23: only the owner of the lock changes an entry");
        word
    }

    fn block(&self, head: FileIndex, word: Word) -> Block {
        let place = |(number, first)| Place {
            pgmap: self.pgmap(number).clone(),
            first,
            is_dirty: word.is_dirty(),
            is_shared: word.is_shared(),
        };
        let entry = match word.kind() {
            Kind::Empty => None,
            Kind::Zero => Some(Entry::Zero),
            Kind::Real => word.place().map(place).map(Entry::Real),
        };
        Block { head, order: word.order(), entry }
    }

    fn pgmap(&self, number: u64) -> &Pgmap {
        let at = usize::try_from(number).expect("few page maps");
        &self.pgmaps[at]
    }

    fn number(&mut self, pgmap: &Pgmap) -> u64 {
        let known = self.pgmaps.iter().position(|other| other == pgmap);
        let at = known.unwrap_or_else(|| {
            self.pgmaps.push(pgmap.clone());
            self.pgmaps.len() - 1
        });
        u64::try_from(at).expect("few page maps")
    }

    /// Keeps `part` of a block that was removed, in blocks as large as its alignment gives.
    fn keep(&mut self, part: &Range<FileIndex>, block: &Range<FileIndex>, word: Word) {
        let mut at = part.start;
        while at < part.end {
            let fits = |order: &Order| at.is_aligned(*order) && at + order.pages() <= part.end;
            let smaller = [Order::Pmd, Order::Base].into_iter();
            let order = smaller.filter(|&order| order < word.order()).find(fits);
            let order = order.expect("a page fits everywhere");
            let kept = match word.place() {
                Some((pgmap, first)) => Word::real(order, pgmap, first + at.since(block.start)),
                None => Word::zero(order),
            };
            self.slots.set(at, word.like(kept));
            at = at + order.pages();
        }
    }
}
