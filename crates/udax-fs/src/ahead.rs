//! Pages allocated ahead: the rest of the 2 MiB block that a growing file has begun.
//!
//! A file that is written in small steps would otherwise be made of whatever pages were free at
//! each step, and never be mapped in 2 MiB. The rest of a block waits here, in memory only, until
//! the file comes for it or grows elsewhere, until the file is closed, or until the pool has
//! nothing else left. It counts as free.

use std::collections::HashMap;
use std::ops::Range;

use udax_mm::sync::Mutex;
use udax_mm::{FileIndex, Order, Pages};

use crate::FsError;
use crate::Ino;
use crate::alloc::{Extent, Goal};
use crate::store::{Fresh, Store};

/// What is allocated ahead, at most one piece for each file.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    rest: Mutex<HashMap<Ino, (FileIndex, Fresh)>>,
}

impl Ahead {
    /// All pages that wait.
    pub(crate) fn pages(&self) -> Pages {
        Pages(self.rest.lock().values().map(|(_, fresh)| fresh.extent().pages.0).sum())
    }

    /// Where they lie.
    pub(crate) fn extents(&self) -> Vec<Extent> {
        self.rest.lock().values().map(|(_, fresh)| fresh.extent()).collect()
    }

    /// Gives back what waits for one file.
    pub(crate) fn forget(&self, ino: Ino) {
        // Dropped after the lock.
        let _rest = self.rest.lock().remove(&ino);
    }

    /// Gives everything back. Returns whether that was anything.
    pub(crate) fn forget_all(&self) -> bool {
        let rest = std::mem::take(&mut *self.rest.lock());
        !rest.is_empty()
    }

    /// The first pages of `hole`, if they wait for this file. What waits elsewhere is given back.
    fn take(&self, ino: Ino, hole: &Range<FileIndex>) -> Option<Fresh> {
        let (index, fresh) = self.rest.lock().remove(&ino)?;
        if index != hole.start {
            return None;
        }
        Some(self.keep_rest(ino, hole, fresh))
    }

    /// Cuts `fresh`, which starts where `hole` does, to the hole; the rest waits.
    fn keep_rest(&self, ino: Ino, hole: &Range<FileIndex>, fresh: Fresh) -> Fresh {
        let wanted = hole.end.since(hole.start);
        if fresh.extent().pages <= wanted {
            return fresh;
        }
        let (first, rest) = fresh.split(wanted);
        self.rest.lock().insert(ino, (hole.end, rest));
        first
    }
}

impl Store {
    /// Allocates for a hole at the end of a file that is written step by step: a step that begins a
    /// 2 MiB block gets a whole one, and the next steps get the rest of it.
    ///
    /// # Errors
    ///
    /// As [`Store::allocate_range`].
    pub(crate) fn allocate_growing(
        &self,
        ino: Ino,
        hole: Range<FileIndex>,
        goal: Goal,
    ) -> Result<Vec<(FileIndex, Fresh)>, FsError> {
        let last_block = hole.end.align_down(Order::Pmd).max(hole.start);
        let mut next = hole.start;
        let mut pieces = Vec::new();
        if let Some(fresh) = self.ahead.take(ino, &hole) {
            next = next + fresh.extent().pages;
            pieces.push((hole.start, fresh));
        }
        if next < last_block {
            pieces.extend(self.allocate_range(next..last_block, goal)?);
            next = last_block;
        }
        if next < hole.end {
            pieces.extend(match self.begin_block(ino, next..hole.end)? {
                Some(fresh) => vec![(next, fresh)],
                None => self.allocate_range(next..hole.end, goal)?,
            });
        }
        Ok(pieces)
    }

    /// A whole block for a hole that is the first part of one, unless the file is still smaller
    /// than a block or there is none.
    fn begin_block(&self, ino: Ino, hole: Range<FileIndex>) -> Result<Option<Fresh>, FsError> {
        let block = hole.start.span(Order::Pmd.pages());
        let is_begun =
            hole.start.0 > 0 && hole.start.is_aligned(Order::Pmd) && hole.end < block.end;
        if !is_begun || self.huge_free() == 0 {
            return Ok(None);
        }
        let mut pieces = self.allocate_range(block, Goal::Packed)?;
        match pieces.pop() {
            Some((_, fresh)) if pieces.is_empty() => {
                Ok(Some(self.ahead.keep_rest(ino, &hole, fresh)))
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const INO: Ino = Ino(7);

    fn grow(store: &Store, start: u64, end: u64) -> Vec<Fresh> {
        let hole = FileIndex(start)..FileIndex(end);
        let pieces = store.allocate_growing(INO, hole, Goal::Packed).unwrap();
        pieces.into_iter().map(|(_, fresh)| fresh).collect()
    }

    #[test]
    fn small_steps_fill_one_block() {
        let store = testing::store(Pages(4096));
        let before = store.free_pages();
        let mut held: Vec<Fresh> =
            (0..16).flat_map(|n| grow(&store, 512 + n * 32, 544 + n * 32)).collect();
        let start = held[0].extent().start;
        assert!(start.is_aligned(Order::Pmd));
        for (n, fresh) in (0..).zip(&held) {
            assert_eq!(fresh.extent(), Extent { start: start + Pages(n * 32), pages: Pages(32) });
        }
        assert_eq!(store.free_pages(), before - Pages(512));
        held.clear();
        assert_eq!(store.free_pages(), before);
    }

    #[test]
    fn what_waits_is_free_and_is_given_back_when_nothing_else_is_left() {
        let store = testing::store(Pages(2048));
        let before = store.free_pages();
        let _step = grow(&store, 512, 513);
        assert_eq!(store.free_pages(), before - Pages(1));
        let _all = store.allocate(before - Pages(1), Goal::Packed).unwrap();
        assert_eq!(store.free_pages(), Pages(0));
    }

    #[test]
    fn a_step_elsewhere_gives_the_rest_back() {
        let store = testing::store(Pages(4096));
        let _step = grow(&store, 512, 513);
        assert_eq!(store.ahead.pages(), Pages(511));
        let _other = grow(&store, 100, 101);
        assert_eq!(store.ahead.pages(), Pages(0));
    }
}
