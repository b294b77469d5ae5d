//! What the mapping asks an inode: where pages lie, and to fill a hole, or to copy what is shared,
//! before a store.
//!
//! Called under the lock of an entry, so this file takes only the state lock and what is inside it.

use std::ops::Range;

use udax_dev::DaxSpan;
use udax_mapping::{Iomap, IomapError, IomapOps, New};
use udax_mm::{Access, FileIndex, Order, Pages};

use super::copy::Overlay;
use super::{END, Node, State};
use crate::alloc::Extent;
use crate::store::{Store, Vacant};
use crate::tree::{Lookup, Run};
use crate::{FsError, MountMode};

impl IomapOps for Node {
    fn iomap(&self, index: FileIndex, access: Access) -> Result<Iomap, IomapError> {
        Ok(self.find_or_fill(index, access).map_err(boxed)?)
    }

    fn end(&self) -> FileIndex {
        self.read().end()
    }

    fn permits_stores(&self) -> bool {
        !self.read().record.is_frozen()
    }

    fn note_stores(&self) {
        self.write().touch_lazily();
    }

    fn spans(&self, range: Range<FileIndex>) -> Result<Vec<(FileIndex, DaxSpan)>, IomapError> {
        let found = self.look(|state| self.own_runs(state, range));
        Ok(found.and_then(|own| spans(&self.core.store, own)).map_err(boxed)?)
    }
}

impl Node {
    /// The data in `range` that no other place of a tree refers to: what others have is theirs too,
    /// nobody waits for it, nobody claims it (rule 26). Where nothing is written, nobody loses
    /// anything.
    fn own_runs(&self, state: &State, range: Range<FileIndex>) -> Result<Vec<Run>, FsError> {
        let store = &self.core.store;
        let runs = state.tree.runs(store, range)?;
        if state.tree.may_share && self.core.mode() == MountMode::ReadWrite {
            return Ok(runs.into_iter().flat_map(|run| store.own_parts(run)).collect());
        }
        Ok(runs)
    }

    fn find_or_fill(&self, index: FileIndex, access: Access) -> Result<Iomap, FsError> {
        self.core.check_open()?;
        {
            let state = self.read();
            if access == Access::Write {
                state.check_not_frozen()?;
            }
            match find(&self.core.store, &state, index)? {
                found if access == Access::Write && !is_ready(&found) => (),
                found => return Ok(found),
            }
        }
        self.core.check_writable()?;
        let mut state = self.write();
        state.check_not_frozen()?;
        let found = find(&self.core.store, &state, index)?;
        let new = self.make_ready(&mut state, index, &found)?;
        let found = find(&self.core.store, &state, index)?;
        Ok(match found {
            Iomap::Data { span, start, is_shared, .. } => {
                Iomap::Data { span, start, is_shared, new }
            }
            other => other,
        })
    }

    /// Makes what was found at `index` fit for a store. Returns what is new.
    fn make_ready(
        &self,
        state: &mut State,
        index: FileIndex,
        found: &Iomap,
    ) -> Result<New, FsError> {
        match found {
            Iomap::Hole { .. } => Ok(New::Allocated(self.fill_around(state, index)?)),
            // One page: the lock of its entry holds off who uses it, and covers no more for sure.
            Iomap::Data { is_shared: true, .. } => {
                let page = index..index + Pages(1);
                let is_copied =
                    self.copy(state, &page, Overlay::NONE, Vacant::none(&self.core.store))?;
                assert!(is_copied, "what was found is there while the state is locked");
                Ok(New::Copied(index))
            }
            Iomap::Data { .. } | Iomap::PastEnd => Ok(New::Nothing),
        }
    }

    /// Fills the 2 MiB around `index` if the file has a hole in all of it and there is a block for
    /// it, so that one fault maps it; else the page. Returns what was filled.
    fn fill_around(
        &self,
        state: &mut State,
        index: FileIndex,
    ) -> Result<Range<FileIndex>, FsError> {
        let head = index.align_down(Order::Pmd);
        let block = head.span(Order::Pmd.pages());
        let store = &self.core.store;
        let is_hole = block.end <= state.end()
            && matches!(
                state.tree.lookup(store, head, block.clone())?,
                Lookup::Hole(pages) if pages >= Order::Pmd.pages()
            );
        if is_hole && store.huge_free() > 0 {
            self.fill(state, block.clone())?;
            return Ok(block);
        }
        let page = index..index + Pages(1);
        self.fill(state, page.clone())?;
        Ok(page)
    }
}

/// Whether what was found can be stored to.
fn is_ready(found: &Iomap) -> bool {
    !matches!(found, Iomap::Hole { .. } | Iomap::Data { is_shared: true, .. })
}

/// What lies at `index`.
fn find(store: &Store, state: &State, index: FileIndex) -> Result<Iomap, FsError> {
    if index >= state.end() {
        return Ok(Iomap::PastEnd);
    }
    let run = match state.tree.lookup(store, index, FileIndex(0)..END)? {
        Lookup::Hole(pages) => {
            return Ok(Iomap::Hole { pages: Pages(pages.0.min(state.end().since(index).0)) });
        }
        Lookup::Run(run) => run,
    };
    let page = run.device + index.since(run.index);
    let whole = Extent { start: run.device, pages: run.pages };
    let (is_shared, part) =
        if state.tree.may_share { store.share_around(page, whole) } else { (false, whole) };
    let start = run.index + part.start.since(run.device);
    let before = page.since(part.start);
    let span = store.span(part)?;
    if before < span.pages() {
        return Ok(Iomap::Data { span, start, is_shared, new: New::Nothing });
    }
    // The run crosses from one medium to the next before the page that was asked for.
    let rest = Extent { start: page, pages: part.pages - before };
    let (span, start) = (store.span(rest)?, index);
    Ok(Iomap::Data { span, start, is_shared, new: New::Nothing })
}

/// The addresses of `runs`; a run that crosses media becomes several spans.
pub(crate) fn spans(store: &Store, runs: Vec<Run>) -> Result<Vec<(FileIndex, DaxSpan)>, FsError> {
    let mut found = Vec::with_capacity(runs.len());
    for run in runs {
        let mut done = Pages(0);
        while done < run.pages {
            let rest = Extent { start: run.device + done, pages: run.pages - done };
            let span = store.span(rest)?;
            let pages = span.pages();
            found.push((run.index + done, span));
            done = done + pages;
        }
    }
    Ok(found)
}

fn boxed(error: FsError) -> Box<dyn std::error::Error + Send + Sync> {
    Box::new(error)
}
