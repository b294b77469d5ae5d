//! Punching holes.

use std::ops::Range;

use udax_mapping::FilePin;
use udax_mm::FileIndex;
use udax_mm::units::PAGE_BYTES;

use super::{Inode, Node, State, end_of, pages_holding};
use crate::FsError;
use crate::format::MAX_FILE_BYTES;
use crate::inode::FreePolicy;
use crate::proof::{Txn, Vacant};
use crate::tree::Lookup;

impl Inode {
    /// Makes the bytes of `range` read as zeros, and frees the pages that lie wholly in it. The
    /// size does not change; what lies past the end is ignored.
    ///
    /// Freed pages disappear at once. A page at either end of the range, which keeps other bytes,
    /// is zeroed in place. Returns the pins that were deferred.
    ///
    /// # Blocking
    ///
    /// Waits for pins as `policy` says, like [`Inode::truncate`].
    ///
    /// # Errors
    ///
    /// As [`Inode::truncate`], and [`FsError::PartlyLost`] if a part of a page would be zeroed whose
    /// memory failed.
    pub fn punch(
        &self,
        range: Range<u64>,
        policy: FreePolicy<'_>,
    ) -> Result<Vec<FilePin>, FsError> {
        self.check_can_write(0)?;
        let range = range.start..range.end.min(MAX_FILE_BYTES);
        let size = self.node.read().size();
        if range.start >= range.end.min(size) {
            return Ok(Vec::new());
        }
        loop {
            self.own_page_of(range.start)?;
            let size = self.node.read().size();
            if range.end < size {
                self.own_page_of(range.end)?;
            }
            let pages = pages_to_break(&range, size);
            let mut broken = self.break_layout(pages.start, pages.end, policy)?;
            let vacant = Vacant::take(&self.node.core.store, &mut broken);
            let mut state = self.node.write();
            state.check_not_frozen()?;
            let given_up = self.node.maybe_shared(&state, broken.range())?;
            let done = self.node.punch(&mut state, &range, broken.range(), vacant);
            if !matches!(done, Ok(true)) {
                // With the entries, the break removed the knowledge of what was stored to pages
                // that stay.
                self.node.flush_runs(&state, broken.range())?;
            }
            if done? {
                let may_be_copied = state.tree.may_share;
                drop(state);
                broken.give_up();
                // Not before: what fails leaves the holders with the proof, which drops them when the
                // layout is not locked any more.
                let mut deferred = broken.take_deferred();
                self.node.core.store.add_pins_of(given_up, &mut deferred);
                drop(broken);
                if may_be_copied {
                    self.show_zeroed(range.start)?;
                    self.show_zeroed(range.end - 1)?;
                }
                return Ok(deferred.tell());
            }
        }
    }
}

impl Node {
    /// Punches the part of `range` that lies in the file, whose size may have changed since the
    /// layout of the `broken` pages was. False, and nothing, if the file shares a page of which a
    /// part has to be zeroed, or keeps a page that was broken: who pins it goes on doing so.
    #[track_caller]
    fn punch(
        &self,
        state: &mut State,
        range: &Range<u64>,
        broken: Range<FileIndex>,
        vacant: Vacant,
    ) -> Result<bool, FsError> {
        let size = state.size();
        let range = range.start..range.end.min(size);
        if range.is_empty() {
            return Ok(true);
        }
        let whole = whole_pages(&range, size);
        // The page in which the file ends only since then is zeroed and stays.
        let whole = whole.start..whole.end.min(broken.end);
        if whole.end < broken.end.min(state.end()) {
            return Ok(false);
        }
        let edges = edges(&range, &whole);
        for edge in edges.iter().filter(|edge| !edge.is_empty()) {
            if self.shares(state, pages_holding(edge.start, edge.end))? {
                return Ok(false);
            }
        }
        let store = &self.core.store;
        let mut txn = Txn::new(store);
        let mut next = state.clone();
        if !whole.is_empty() {
            let cut = state.tree.clear(store, whole.clone())?.flush(store)?.fence(store)?;
            next.tree = txn.cut(cut, vacant)?;
        }
        // Last, because the pool may have had no page for a node: what fails changes no byte.
        // Durable with the commit, whose last fence comes from this thread.
        for edge in edges {
            self.zero_in_page(state, edge)?;
        }
        next.touch();
        self.commit(state, next, txn)?;
        Ok(true)
    }

    /// Makes durable what was stored to `pages`.
    #[track_caller]
    pub(super) fn flush_runs(&self, state: &State, pages: Range<FileIndex>) -> Result<(), FsError> {
        let store = &self.core.store;
        for run in state.tree.runs(store, pages)? {
            store.flush(run.device.byte(), run.pages.bytes())?;
        }
        store.fence()
    }

    /// Zeros bytes of one page, if it is there. They and all else in the page are durable with the
    /// next fence: the break may have removed its entry.
    #[track_caller]
    fn zero_in_page(&self, state: &State, bytes: Range<u64>) -> Result<(), FsError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let index = FileIndex::of_byte(bytes.start);
        let page = index..end_of(index.byte() + 1);
        match state.tree.lookup(&self.core.store, index, page)? {
            Lookup::Hole(_) => Ok(()),
            Lookup::Run(run) => {
                let page = (run.device + index.since(run.index)).byte();
                let store = &self.core.store;
                let zeroed = store.zero(page + bytes.start % PAGE_BYTES, bytes.end - bytes.start);
                zeroed.map_err(|error| error.in_file(index.byte()..index.byte() + PAGE_BYTES))?;
                store.flush(page, PAGE_BYTES)
            }
        }
    }
}

/// The bytes of `range` outside the `whole` pages, each part of them in one page.
fn edges(range: &Range<u64>, whole: &Range<FileIndex>) -> [Range<u64>; 2] {
    if whole.is_empty() {
        let cut = range.start.next_multiple_of(PAGE_BYTES).min(range.end);
        return [range.start..cut, cut..range.end];
    }
    [range.start..whole.start.byte(), whole.end.byte().min(range.end)..range.end]
}

/// The pages that punching `range` may free, of a file that has `size` bytes and may grow or shrink
/// until its layout is broken.
fn pages_to_break(range: &Range<u64>, size: u64) -> Range<FileIndex> {
    let start = end_of(range.start);
    let end = if range.end < size { FileIndex::of_byte(range.end) } else { end_of(range.end) };
    start..end.max(start)
}

/// The pages of which no byte but those of `range` matters, of a file of `size` bytes; its last
/// page ends with it.
fn whole_pages(range: &Range<u64>, size: u64) -> Range<FileIndex> {
    let start = end_of(range.start);
    let end = if range.end == size { end_of(size) } else { FileIndex::of_byte(range.end) };
    start..end.max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_without_other_bytes_are_whole() {
        let cases = [
            ((0, 4096, 9000), 0..1),
            ((1, 8192, 9000), 1..2),
            ((1, 4095, 9000), 1..1),
            ((5000, 8192, 9000), 2..2),
            ((4096, 9000, 9000), 1..3),
            ((8193, 9000, 9000), 3..3),
        ];
        for ((from, to, size), expected) in cases {
            let pages = whole_pages(&(from..to), size);
            assert_eq!(pages.start.0..pages.end.0, expected, "{from}..{to} of {size}");
        }
    }
}
