//! What the mapping asks an inode: where pages lie, and to fill a hole before a store.
//!
//! Called under the lock of an entry, so this file takes only the state lock and what is inside it.

use std::ops::Range;

use udax_dev::DaxSpan;
use udax_mapping::{Iomap, IomapError, IomapOps};
use udax_mm::{Access, FileIndex, Order, Pages};

use super::{END, Node, State};
use crate::FsError;
use crate::alloc::Extent;
use crate::store::Store;
use crate::tree::{Lookup, Run};

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

    fn spans(&self, range: Range<FileIndex>) -> Result<Vec<(FileIndex, DaxSpan)>, IomapError> {
        let tree = self.read().tree;
        Ok(spans(&self.core.store, tree.runs(&self.core.store, range).map_err(boxed)?)
            .map_err(boxed)?)
    }
}

impl Node {
    fn find_or_fill(&self, index: FileIndex, access: Access) -> Result<Iomap, FsError> {
        self.core.check_open()?;
        {
            let state = self.read();
            if access == Access::Write {
                state.check_not_frozen()?;
            }
            match find(&self.core.store, &state, index)? {
                Iomap::Hole { .. } if access == Access::Write => (),
                found => return Ok(found),
            }
        }
        self.core.check_writable()?;
        let mut state = self.write();
        state.check_not_frozen()?;
        match find(&self.core.store, &state, index)? {
            Iomap::Hole { .. } => (),
            found => return Ok(found),
        }
        let filled = self.fill_around(&mut state, index)?;
        let found = find(&self.core.store, &state, index)?;
        Ok(match found {
            Iomap::Data { span, start, is_shared, .. } => {
                Iomap::Data { span, start, is_shared, new: filled }
            }
            other => other,
        })
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

fn data(span: DaxSpan, start: FileIndex) -> Iomap {
    Iomap::Data { span, start, is_shared: false, new: start..start }
}

/// What lies at `index`.
fn find(store: &Store, state: &State, index: FileIndex) -> Result<Iomap, FsError> {
    if index >= state.end() {
        return Ok(Iomap::PastEnd);
    }
    match state.tree.lookup(store, index, FileIndex(0)..END)? {
        Lookup::Hole(pages) => {
            Ok(Iomap::Hole { pages: Pages(pages.0.min(state.end().since(index).0)) })
        }
        Lookup::Run(run) => {
            let before = index.since(run.index);
            let span = store.span(Extent { start: run.device, pages: run.pages })?;
            if before < span.pages() {
                return Ok(data(span, run.index));
            }
            // The run crosses from one medium to the next before the page that was asked for.
            let rest = Extent { start: run.device + before, pages: run.pages - before };
            Ok(data(store.span(rest)?, index))
        }
    }
}

/// The addresses of `runs`; a run that crosses media becomes several spans.
pub(super) fn spans(store: &Store, runs: Vec<Run>) -> Result<Vec<(FileIndex, DaxSpan)>, FsError> {
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
