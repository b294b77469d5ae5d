//! The model of sharing: which files have which pages, and what clones and deduplication do.

use std::collections::BTreeSet;
use std::ops::Range;

use udax_mm::sync::Arc;

use crate::oracle::{Content, Node, NodeId, Refused, Tree, byte_count, index};
use crate::pages::{Change, PAGE, PageId, PageMap};

/// A file of the oracle: which it is, its bytes and its pages.
type Found = (NodeId, Arc<Vec<u8>>, Arc<PageMap>);

impl Tree {
    /// The pages that more than one place of a file has.
    pub(crate) fn shared_pages(&self) -> BTreeSet<PageId> {
        let is_alive = |id: &NodeId, node: &Node| {
            node.links != Some(0) || self.open.values().any(|open| open == id)
        };
        let (mut once, mut shared) = (BTreeSet::new(), BTreeSet::new());
        for (id, node) in &self.nodes {
            if let Content::File { pages, .. } = &node.content
                && is_alive(id, node)
            {
                shared.extend(pages.ids().filter(|page| !once.insert(*page)));
            }
        }
        shared
    }

    /// Changes the pages of a file that may be written.
    pub(crate) fn change_pages(
        &mut self,
        id: NodeId,
        change: impl FnOnce(&mut Change<'_>),
    ) -> Result<(), Refused> {
        let shared = self.shared_pages();
        let mut new = self.new_pages.clone();
        let Content::File { pages, .. } = &mut self.node_mut(id).content else {
            return Err(Refused);
        };
        change(&mut Change { pages: Arc::make_mut(pages), new: &mut new, shared: &shared });
        self.new_pages = new;
        Ok(())
    }

    /// The bytes and the pages of a file.
    fn file(&self, path: &str) -> Result<Found, Refused> {
        let id = self.resolve(path)?;
        match &self.node(id).content {
            Content::File { data, pages } => Ok((id, Arc::clone(data), Arc::clone(pages))),
            _ => Err(Refused),
        }
    }

    /// Makes bytes of one file those of another.
    pub(crate) fn clone_bytes(
        &mut self,
        source: &str,
        range: Range<u64>,
        path: &str,
        at: u64,
    ) -> Result<(), Refused> {
        let (from, bytes, of_source) = self.file(source)?;
        let (to, data, _) = self.file(path)?;
        let (end, size) = (at + (range.end - range.start), byte_count(&data));
        let is_aligned = |byte: u64| byte.is_multiple_of(PAGE);
        let ends_both = range.end == byte_count(&bytes) && end >= size;
        let is_apart = from != to || range.end <= at || end <= range.start;
        let is_possible = is_aligned(range.start)
            && is_aligned(at)
            && (is_aligned(range.end) || ends_both)
            && range.end <= byte_count(&bytes)
            && is_apart
            && !self.node(to).is_frozen;
        if !is_possible {
            return Err(Refused);
        }
        self.change_pages(to, |change| {
            if size < at {
                change.own_page_of(size);
            }
            let count = (range.end - range.start).div_ceil(PAGE);
            change.pages.take_over(&of_source, range.start / PAGE, at / PAGE, count);
        })?;
        let node = self.node_mut(to);
        node.mtime = None;
        if let Content::File { data, .. } = &mut node.content {
            let data = Arc::make_mut(data);
            data.resize(data.len().max(index(end)), 0);
            data[index(at)..index(end)]
                .copy_from_slice(&bytes[index(range.start)..index(range.end)]);
        }
        Ok(())
    }

    /// Shares the bytes that two files have, if they are the same.
    pub(crate) fn dedupe(&mut self, source: &str, path: &str) -> Result<(), Refused> {
        let (from, bytes, of_source) = self.file(source)?;
        let (to, data, pages) = self.file(path)?;
        if self.node(to).is_frozen || from == to {
            return Err(Refused);
        }
        let len = bytes.len().min(data.len());
        let len = if bytes.len() == data.len() { len } else { len / 4096 * 4096 };
        let count = byte_count(&bytes[..len]).div_ceil(PAGE);
        let has_same_holes =
            (0..count).all(|page| of_source.id(page).is_some() == pages.id(page).is_some());
        if bytes[..len] != data[..len] || !has_same_holes {
            return Ok(());
        }
        self.change_pages(to, |change| change.pages.take_over(&of_source, 0, 0, count))
    }
}
