//! Punching holes.

use std::ops::Range;

use udax_mm::FileIndex;
use udax_mm::units::PAGE_BYTES;

use super::{Inode, Node, State, end_of};
use crate::FsError;
use crate::inode::FreePolicy;
use crate::proof::{Txn, Vacant};
use crate::tree::Lookup;

impl Inode {
    /// Makes the bytes of `range` read as zeros, and frees the pages that lie wholly in it. The
    /// size does not change; what lies past the end is ignored.
    ///
    /// Freed pages disappear at once. A page at either end of the range, which keeps other bytes,
    /// is zeroed in place.
    ///
    /// # Blocking
    ///
    /// Waits for pins as `policy` says, like [`Inode::truncate`].
    ///
    /// # Errors
    ///
    /// As [`Inode::truncate`].
    pub fn punch(&self, range: Range<u64>, policy: FreePolicy) -> Result<(), FsError> {
        self.check_can_write(0)?;
        loop {
            let size = self.node.read().size();
            if range.start >= range.end.min(size) || self.punch_of(size, &range, policy)? {
                return Ok(());
            }
            // The size has changed meanwhile, and with it what the last page of the file is.
        }
    }

    /// Punches a file of `size` bytes. False if it has another size.
    fn punch_of(&self, size: u64, range: &Range<u64>, policy: FreePolicy) -> Result<bool, FsError> {
        let end = range.end.min(size);
        let whole = whole_pages(range.start, end, size);
        let mut broken = self.break_layout(whole.start, whole.end, policy)?;
        let store = &self.node.core.store;
        let vacant = Vacant::take(store, &mut broken);
        let mut state = self.node.write();
        state.check_not_frozen()?;
        if state.size() != size {
            self.node.flush_runs(&state, whole)?;
            return Ok(false);
        }
        self.node.zero_edges(&state, range.start..end, &whole)?;
        self.node.cut(&mut state, Txn::new(store), whole, vacant, size)?;
        drop(state);
        drop(broken);
        Ok(true)
    }
}

impl Node {
    /// Takes `pages` out of the file and sets its size, in one transaction. The layout of `pages`
    /// is broken; if they stay, what was stored through mappings is durable all the same.
    #[track_caller]
    pub(super) fn cut(
        &self,
        state: &mut State,
        txn: Txn<'_>,
        pages: Range<FileIndex>,
        vacant: Vacant,
        size: u64,
    ) -> Result<(), FsError> {
        let result = self.try_cut(state, txn, pages.clone(), vacant, size);
        if result.is_err() {
            self.flush_runs(state, pages)?;
        }
        result
    }

    #[track_caller]
    fn try_cut(
        &self,
        state: &mut State,
        mut txn: Txn<'_>,
        pages: Range<FileIndex>,
        vacant: Vacant,
        size: u64,
    ) -> Result<(), FsError> {
        let store = &self.core.store;
        let mut next = state.clone();
        if pages.is_empty() {
            store.fence()?;
        } else {
            let cut = state.tree.clear(store, pages)?.flush(store)?.fence(store)?;
            next.tree = txn.cut(cut, vacant)?;
        }
        next.record.size.set(size);
        next.touch();
        self.commit(state, next, txn)
    }

    /// Makes durable what was stored to `pages`: stores through mappings, of whose entries a break
    /// that came to nothing removed the marks.
    #[track_caller]
    pub(super) fn flush_runs(&self, state: &State, pages: Range<FileIndex>) -> Result<(), FsError> {
        let store = &self.core.store;
        for run in state.tree.runs(store, pages)? {
            store.flush(run.device.byte(), run.pages.bytes())?;
        }
        store.fence()
    }

    /// Zeros the bytes of `range` that lie outside the `whole` pages. Durable with the next fence.
    #[track_caller]
    fn zero_edges(
        &self,
        state: &State,
        range: Range<u64>,
        whole: &Range<FileIndex>,
    ) -> Result<(), FsError> {
        if whole.is_empty() {
            let cut = range.start.next_multiple_of(PAGE_BYTES).min(range.end);
            self.zero_in_page(state, range.start..cut)?;
            return self.zero_in_page(state, cut..range.end);
        }
        self.zero_in_page(state, range.start..whole.start.byte())?;
        self.zero_in_page(state, whole.end.byte().min(range.end)..range.end)
    }

    /// Zeros bytes of one page, if it is there.
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
                let at = run.device + index.since(run.index);
                let at = at.byte() + bytes.start % PAGE_BYTES;
                self.core.store.zero_in_place(at, bytes.end - bytes.start)
            }
        }
    }
}

/// The pages of which no byte but those of `from..to` matters; the last page of the file ends with
/// the file.
fn whole_pages(from: u64, to: u64, size: u64) -> Range<FileIndex> {
    let start = end_of(from);
    let end = if to == size { end_of(to) } else { FileIndex::of_byte(to) };
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
            let pages = whole_pages(from, to, size);
            assert_eq!(pages.start.0..pages.end.0, expected, "{from}..{to} of {size}");
        }
    }
}
