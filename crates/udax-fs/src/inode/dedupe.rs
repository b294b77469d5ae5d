//! Deduplication: two ranges that hold the same bytes come to share one of their copies.
//!
//! This file owns the comparison, which is made with both layouts held, so that nobody changes a
//! byte between it and the moment from which both files refer to the same pages.

use std::ops::Range;

use udax_mm::units::PAGE_BYTES;
use udax_mm::{DeviceOff, FileIndex, Pages, Patience};

use super::clone::{Move, Why};
use super::pair::{Pair, Role};
use super::{Inode, State, pages_holding};
use crate::FsError;
use crate::num::{to_u64, to_usize};
use crate::store::Store;
use crate::tree::Lookup;

/// Bytes that are compared at a time.
const PIECE: u64 = 64 << 10;

/// What came of a deduplication.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deduped {
    /// So many bytes from the start of the ranges on lie in pages that both share.
    Shared(u64),
    /// The ranges differ, first at this byte counted from their start. Nothing has changed.
    Differs(u64),
}

impl Inode {
    /// Compares `range` with as many bytes of `target` from byte `at` on, and if they are the same,
    /// lets `target` refer to the pages of this file instead of its own. Its bytes, size and times
    /// do not change.
    ///
    /// Of ranges of different length the shorter counts: what lies past the end of either file is
    /// not looked at. The rest of a page is shared only where both files end in it. Data that is
    /// zeros differs from a hole.
    ///
    /// # Blocking
    ///
    /// As [`Inode::clone_range`].
    ///
    /// # Errors
    ///
    /// As [`Inode::clone_range`], but for ranges past the end. Returns [`FsError::Device`] if the
    /// bytes cannot be read; nothing has changed then.
    pub fn dedupe_range<'i>(
        &self,
        range: Range<u64>,
        target: &Inode,
        at: u64,
        wait: impl Into<Patience<'i>>,
    ) -> Result<Deduped, FsError> {
        target.check_can_write(0)?;
        let range = range.start..range.end.min(self.node.read().size());
        self.check_move(&range, target, at)?;
        let from = self.side(Role::Source, range.start, length(&range));
        let to = target.side(Role::Target, at, length(&range));
        if range.is_empty() {
            return Ok(Deduped::Shared(0));
        }
        let mut pair = Pair::hold(&from, &to, wait.into())?;
        // One after the other: nobody has the states of two inodes.
        let source = self.node.read().clone();
        let copy = target.node.read().clone();
        let len = common(&source, &copy, &range, at);
        let store = &self.node.core.store;
        let found = Compare { store, source: &source, copy: &copy }.run(range.start, at, len)?;
        match found {
            Some(differs) => Ok(Deduped::Differs(differs)),
            None if len == 0 => Ok(Deduped::Shared(0)),
            None => self.share_same(range.start, target, at, len, &mut pair),
        }
    }

    /// Shares bytes that were found to be the same.
    fn share_same(
        &self,
        from: u64,
        target: &Inode,
        at: u64,
        len: u64,
        pair: &mut Pair<'_>,
    ) -> Result<Deduped, FsError> {
        let pages = Pages::holding(len);
        let (from, to) = (FileIndex::of_byte(from), FileIndex::of_byte(at));
        let plan = Move { from, to, pages, len, why: Why::Dedupe };
        let done = self.share(target, &plan, pair)?;
        Ok(Deduped::Shared(done.expect("bytes past the end are not shared")))
    }
}

/// How many bytes of two files can be shared: as many as both have, in whole pages, unless both end
/// there.
fn common(source: &State, copy: &State, range: &Range<u64>, at: u64) -> u64 {
    let left = |state: &State, from: u64| state.size().saturating_sub(from);
    let len = length(range).min(left(source, range.start)).min(left(copy, at));
    let ends_both = range.start + len == source.size() && at + len == copy.size();
    if ends_both { len } else { len / PAGE_BYTES * PAGE_BYTES }
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// Two files whose bytes are compared.
struct Compare<'s> {
    store: &'s Store,
    source: &'s State,
    copy: &'s State,
}

impl Compare<'_> {
    /// The first byte, counted from the start, that differs in the `len` bytes at `from` and `at`.
    fn run(&self, from: u64, at: u64, len: u64) -> Result<Option<u64>, FsError> {
        let mut done = 0;
        while done < len {
            let (one, pages) = self.place(self.source, from + done, len - done)?;
            let (other, more) = self.place(self.copy, at + done, len - done)?;
            // Never past what either side was granted (I-48).
            let piece = pages.bytes().min(more.bytes()).min(len - done);
            let differs = match (one, other) {
                (Some(one), Some(other)) => self.compare(one, other, piece)?,
                (None, None) => None,
                _ => Some(0),
            };
            if let Some(byte) = differs {
                return Ok(Some(done + byte));
            }
            done += piece;
        }
        Ok(None)
    }

    /// Where byte `at` of a file lies, `None` for a hole, and for how many pages that goes on.
    fn place(
        &self,
        state: &State,
        at: u64,
        len: u64,
    ) -> Result<(Option<DeviceOff>, Pages), FsError> {
        let index = FileIndex::of_byte(at);
        Ok(match state.tree.lookup(self.store, index, pages_holding(at, at + len))? {
            Lookup::Hole(pages) => (None, pages),
            Lookup::Run(run) => {
                let before = index.since(run.index);
                (Some(run.device + before), run.pages - before)
            }
        })
    }

    /// The first of `len` bytes that differs between two places of the device.
    fn compare(&self, one: DeviceOff, other: DeviceOff, len: u64) -> Result<Option<u64>, FsError> {
        if one == other {
            return Ok(None);
        }
        let (mut left, mut right) = (Vec::new(), Vec::new());
        let mut done = 0;
        while done < len {
            let piece = to_usize(PIECE.min(len - done));
            left.resize(piece, 0);
            right.resize(piece, 0);
            self.store.read(one.byte() + done, &mut left)?;
            self.store.read(other.byte() + done, &mut right)?;
            if let Some(byte) = left.iter().zip(&right).position(|(one, other)| one != other) {
                return Ok(Some(done + to_u64(byte)));
            }
            done += to_u64(piece);
        }
        Ok(None)
    }
}
