//! Putting data in the place of other data: the copy of what was shared, or a share of something.
//!
//! This file owns the one step in which a tree refers to other pages than before. Each entry goes
//! from the old value to the new one: who looks things up meanwhile never meets a hole between.

use crate::FsError;
use crate::alloc::Extent;
use crate::cut::Cut;
use crate::graft::{Builder, Piece, depth_for};
use crate::store::Store;
use crate::stored::{Data, Dirty, Stored};
use crate::tree::Tree;
use std::ops::Range;
use udax_mm::{FileIndex, Pages};

/// What comes to lie at a place of a file.
#[derive(Debug)]
pub(crate) enum Content {
    /// Pages of its own, written.
    Fresh(Vec<(FileIndex, Stored<Data, Dirty>)>),
    /// Pages that another place of a tree refers to, and goes on to.
    Shared(Vec<Piece>),
}

impl Tree {
    /// Builds what puts `content` in the place of all that is in `range`, in which it lies, in
    /// order. Where there is no content there will be a hole.
    ///
    /// # Errors
    ///
    /// As [`Tree::clear`] and [`Tree::insert`]; nothing has changed then.
    pub(crate) fn replace(
        &self,
        store: &Store,
        range: Range<FileIndex>,
        content: Content,
    ) -> Result<Stored<Cut, Dirty>, FsError> {
        let Cut { mut tree, grown, data, nodes, .. } = self.cut_out(store, range.clone())?;
        let mut builder = Builder::after(store, self.ino, grown);
        let cut_nodes = builder.fresh_pages();
        let (pieces, shared) = builder.take_in(content);
        let is_inside = |piece: &Piece| range.start.0 <= piece.index && piece.end() <= range.end.0;
        assert!(pieces.iter().all(is_inside), "tree: content lies in the range that it replaces");
        if let Some(last) = pieces.last() {
            tree.grow(&mut builder, &pieces, depth_for(last.end())?)?;
        }
        let of_others: u64 = shared.iter().map(|extent| extent.pages.0).sum();
        tree.pages = tree.pages + (builder.fresh_pages() - cut_nodes) + Pages(of_others);
        let mut grown = builder.grown;
        grown.settle();
        Ok(Stored::dirty(Cut { tree, grown, data, nodes, shared }))
    }
}

impl Builder<'_> {
    /// The pieces of `content`, and the extents of those that are shared.
    fn take_in(&mut self, content: Content) -> (Vec<Piece>, Vec<Extent>) {
        match content {
            Content::Fresh(data) => {
                (data.into_iter().map(|piece| self.own(piece)).collect(), Vec::new())
            }
            Content::Shared(pieces) => {
                let shared = pieces.iter().map(|piece| piece.extent).collect();
                (pieces, shared)
            }
        }
    }

    fn fresh_pages(&self) -> Pages {
        Pages(self.grown.fresh.iter().map(|fresh| fresh.extent().pages.0).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Ino;
    use crate::testing;

    #[test]
    fn an_entry_goes_from_the_old_page_to_the_new_one() {
        let store = testing::store(Pages(1024));
        let tree = testing::insert(&store, &testing::tree(Ino(12)), 0..8);
        let fresh = Content::Fresh(testing::zeros(&store, 2..5));
        let swap = tree.replace(&store, FileIndex(2)..FileIndex(5), fresh).unwrap();
        let published = &swap.object().grown.publish;
        let entries: Vec<u64> = published.iter().flat_map(|(_, run)| run.clone()).collect();
        assert_eq!(entries.len(), 3, "each entry once");
        assert!(entries.iter().all(|raw| *raw != 0), "and never as a hole");
        assert_eq!(swap.object().tree.pages, tree.pages);
    }
}
