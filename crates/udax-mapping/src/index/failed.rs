//! Entries of folios of which memory failed: found by folio, and divided around what is lost.

use super::word::Word;
use super::{Block, Index};
use udax_mm::{FileIndex, Order};

impl Index {
    /// Locks the entry that covers `index`, waiting for its turn; `None` if there is none then.
    ///
    /// The entry may be another one than when the wait began, so the caller looks at what it got
    /// (I-26, B-17).
    pub(crate) fn lock_existing(&self, index: FileIndex) -> Option<Block> {
        let mut state = self.state.lock();
        loop {
            let (head, word) = state.slots.covering(index)?;
            match Index::lock_found(state, head, word) {
                Ok(block) => return Some(block),
                Err(again) => state = again,
            }
        }
    }

    /// Takes the pages of `failed`, which are in order, out of the locked block at `head`, and
    /// leaves the locked entry of `index` alone. Nothing shows the block any more.
    ///
    /// The other pages of a dirty block stay behind as smaller dirty entries, with the tag of a
    /// writeback that has found them, so that their stores are flushed. Those of a clean one come
    /// in again with their next fault.
    pub(crate) fn divide(&self, head: FileIndex, index: FileIndex, failed: &[FileIndex]) -> Block {
        let mut state = self.state.lock();
        let word = state.locked(head);
        let block = head.span(word.order().pages());
        assert!(block.contains(&index), "the block covers the index that was asked for");
        state.slots.remove(head, word.order());
        state.waiters.dismiss(head);
        let mut own = Word::locked(Order::Base);
        if word.is_dirty() {
            let (number, first) = word.place().expect("I-30: only a folio is dirty");
            if !failed.contains(&index) {
                let page = first + index.since(block.start);
                own = word.like(Word::real(Order::Base, number, page)).with_lock(true);
            }
            let mut at = block.start;
            let mut cuts = failed.to_vec();
            cuts.push(index);
            cuts.sort_unstable();
            for cut in cuts {
                state.keep(&(at..cut), &block, word);
                at = FileIndex(cut.0 + 1).max(at);
            }
            state.keep(&(at..block.end), &block, word);
        }
        state.slots.set(index, own);
        state.block(index, own)
    }
}
