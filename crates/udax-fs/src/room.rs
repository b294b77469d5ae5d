//! What filling holes takes, known before anything is allocated.
//!
//! This file owns the count of the nodes that a tree will need. It counts the places that new data
//! touches and that have no node yet; whole 2 MiB of data need none where a 2 MiB block is sure to
//! be left for them, so the count is at most a few nodes too large, and never too small.

use std::ops::Range;

use udax_mm::{FileIndex, Pages};

use crate::FsError;
use crate::block::BLOCK_PAGES;
use crate::entry::{Entry, Place};
use crate::graft::depth_for;
use crate::num::{to_u64, to_usize};
use crate::store::Store;
use crate::tree::{Tree, load_node};

impl Tree {
    /// The pages that filling `holes` takes at most, with those of new nodes. The holes are in
    /// order, and no data lies in them.
    ///
    /// # Errors
    ///
    /// [`FsError::TooLarge`] past the largest file, [`FsError::Corrupt`] for a bad entry.
    pub(crate) fn pages_to_fill(
        &self,
        store: &Store,
        holes: &[Range<FileIndex>],
    ) -> Result<Pages, FsError> {
        let holes: Vec<Range<u64>> = holes
            .iter()
            .map(|hole| hole.start.0..hole.end.0)
            .filter(|hole| !hole.is_empty())
            .collect();
        let Some(last) = holes.last() else { return Ok(Pages(0)) };
        let depth = depth_for(last.end)?;
        let data: u64 = holes.iter().map(|hole| hole.end - hole.start).sum();
        let nodes = self.nodes_to_fill(store, &holes, depth)?;
        let blocks: u64 = holes.iter().map(blocks_in).sum();
        let beside = Pages(data + nodes - blocks * BLOCK_PAGES);
        let spared = blocks.min(nodes).min(store.sure_blocks(beside, to_u64(holes.len())));
        Ok(Pages(data + nodes - spared))
    }

    fn nodes_to_fill(
        &self,
        store: &Store,
        holes: &[Range<u64>],
        depth: u32,
    ) -> Result<u64, FsError> {
        if self.is_empty() {
            let root = Place { level: depth, ..self.root_place() };
            return Ok(nodes_in_hole(&root, holes));
        }
        let mut nodes = nodes_below(store, self.root(store)?, &self.root_place(), holes)?;
        for level in self.depth + 1..=depth {
            // The tree so far goes on as the first child.
            let place = Place { level, ..self.root_place() };
            let beside = touched(&place, holes).into_iter().filter(|&number| number > 0);
            nodes +=
                1 + beside.map(|number| nodes_in_hole(&place.child(number), holes)).sum::<u64>();
        }
        Ok(nodes)
    }
}

impl Store {
    /// How many 2 MiB blocks are sure to be left when `beside` other pages were allocated, for as
    /// many holes.
    fn sure_blocks(&self, beside: Pages, holes: u64) -> u64 {
        let (free, blocks) = (self.free_pages().0, self.huge_free());
        let scattered = free.saturating_sub(blocks * BLOCK_PAGES);
        // Both ends of a hole may go next to what lies there, and cut a block for it.
        let cut = beside.0.saturating_sub(scattered).div_ceil(BLOCK_PAGES) + 2 * holes;
        blocks.saturating_sub(cut)
    }
}

/// New nodes at `place`, where `entry` stands, and below it.
fn nodes_below(
    store: &Store,
    entry: Entry,
    place: &Place,
    holes: &[Range<u64>],
) -> Result<u64, FsError> {
    let node = match entry {
        Entry::Hole => return Ok(nodes_in_hole(place, holes)),
        Entry::Data(_) => return Ok(0),
        Entry::Node(node) => node,
    };
    let entries = load_node(store, node)?;
    let mut nodes = 0;
    for number in touched(place, holes) {
        let child = place.child(number);
        let entry = Entry::decode(entries[to_usize(number)], &child, store.geometry())?;
        nodes += nodes_below(store, entry, &child, holes)?;
    }
    Ok(nodes)
}

/// New nodes at `place`, where nothing is, and below it.
fn nodes_in_hole(place: &Place, holes: &[Range<u64>]) -> u64 {
    let holes = meeting(place, holes);
    if place.level == 0 || holes.is_empty() {
        return 0;
    }
    if place.level == 1 {
        return 1;
    }
    let children = touched(place, holes).into_iter().map(|number| place.child(number));
    1 + children.map(|child| nodes_in_hole(&child, holes)).sum::<u64>()
}

/// The children of `place` that `holes` touch, each once, in order.
fn touched(place: &Place, holes: &[Range<u64>]) -> Vec<u64> {
    let holes = meeting(place, holes).iter();
    let mut numbers: Vec<u64> = holes.flat_map(|hole| place.children(hole)).collect();
    numbers.dedup();
    numbers
}

/// The holes that `place` meets.
fn meeting<'h>(place: &Place, holes: &'h [Range<u64>]) -> &'h [Range<u64>] {
    let own = place.range();
    let start = holes.partition_point(|hole| hole.end <= own.start);
    let end = holes.partition_point(|hole| hole.start < own.end);
    &holes[start..end.max(start)]
}

/// The whole aligned 2 MiB in a hole.
fn blocks_in(hole: &Range<u64>) -> u64 {
    (hole.end / BLOCK_PAGES).saturating_sub(hole.start.div_ceil(BLOCK_PAGES))
}
