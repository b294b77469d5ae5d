//! What the mapping asks an inode: where pages lie, and to fill a hole before a store.
//!
//! Called under the lock of an entry, so this file takes only the state lock and what is inside it.

use std::ops::Range;

use udax_dev::DaxSpan;
use udax_mapping::{Iomap, IomapError, IomapOps};
use udax_mm::{Access, FileIndex, Pages};

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
        self.fill(&mut state, index..index + Pages(1))?;
        find(&self.core.store, &state, index)
    }
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
                return Ok(Iomap::Data { span, start: run.index, is_shared: false });
            }
            // The run crosses from one medium to the next before the page that was asked for.
            let rest = Extent { start: run.device + before, pages: run.pages - before };
            Ok(Iomap::Data { span: store.span(rest)?, start: index, is_shared: false })
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
