//! One walk over the pin table, the inode table and all trees, shared by mounting, checking and verifying.
//!
//! It reserves every page it meets in a store whose pages are all free, and so finds pages that are
//! used twice. Data of files that may share it is counted at the end, when all of it is known. It
//! reports what is wrong and goes on; it writes nothing and never panics on what it
//! reads.

use std::ops::Range;

use udax_mm::{DeviceOff, FileIndex, Pages};

use crate::alloc::Extent;
use crate::format::{ITABLE_INO, InodeRecord};
use crate::inode::end_of;
use crate::itable::{Table, read_record};
use crate::pin_table::Loaded;
use crate::store::Store;
use crate::tree::{Run, Tree, Visit};
use crate::txn::Slot;
use crate::{FsError, Ino, Kind};

/// What the walk found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) table: Table,
    /// Every inode in use, by number, as far as its record can be read.
    pub(crate) inodes: Vec<Scanned>,
    /// Data to which one place of a tree refers, of files that may share it.
    pub(crate) alone: Vec<Extent>,
    /// Numbers whose record or tree contradicts itself, with what was found. Their pages are not
    /// known, so nothing may be allocated while there is one.
    pub(crate) corrupt: Vec<(Ino, String)>,
}

/// An inode in use.
#[derive(Clone, Debug)]
pub(crate) struct Scanned {
    pub(crate) ino: Ino,
    pub(crate) kind: Kind,
    pub(crate) record: InodeRecord,
}

impl Scanned {
    /// Whether the inode has no name and only waits to be freed.
    pub(crate) fn is_orphan(&self) -> bool {
        self.record.links.get() == 0
    }
}

impl Scan {
    /// Walks the whole of `store`, the pin table first.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Corrupt`] if the inode table itself cannot be read, and
    /// [`FsError::Device`] if the medium fails.
    pub(crate) fn of(store: &Store) -> Result<(Scan, Loaded), FsError> {
        let pins = Loaded::of(store)?;
        let table = scan_table(store)?;
        let (inodes, alone, corrupt) = (Vec::new(), Vec::new(), Vec::new());
        let mut scan = Scan { table, inodes, alone, corrupt };
        let mut shared = SharedData::default();
        for ino in scan.table.inos() {
            scan.add(store, ino, &mut shared)?;
        }
        scan.corrupt.extend(shared.count(store, &mut scan.alone));
        scan.corrupt.sort_by_key(|(ino, _)| *ino);
        Ok((scan, pins))
    }

    /// Walks one inode.
    fn add(&mut self, store: &Store, ino: Ino, shared: &mut SharedData) -> Result<(), FsError> {
        let slot = self.table.slot(ino).expect("the number is one of the table's");
        let record = read_record(store, slot)?;
        let kind = match record.examine(ino) {
            Ok(Some(kind)) => kind,
            Ok(None) => {
                self.table.free.insert(ino.0);
                return Ok(());
            }
            Err(found) => {
                self.corrupt.push((ino, found));
                return Ok(());
            }
        };
        let found = scan_tree(store, &record, shared)?;
        self.corrupt.extend(found.into_iter().map(|found| (ino, found)));
        self.inodes.push(Scanned { ino, kind, record });
        Ok(())
    }
}

/// Reads the record and the tree of the inode table.
fn scan_table(store: &Store) -> Result<Table, FsError> {
    let corrupt = |found: String| FsError::corrupt("the inode table", found);
    let record = read_record(store, Slot::record(store.geometry().itable.byte()))?;
    match record.examine(ITABLE_INO) {
        Ok(Some(Kind::File)) => (),
        Ok(_) => return Err(corrupt("its record is that of something else".into())),
        Err(found) => return Err(corrupt(found)),
    }
    let found = scan_tree(store, &record, &mut SharedData::default())?;
    if let Some(found) = found.into_iter().next() {
        return Err(corrupt(found));
    }
    let mut pages: Vec<DeviceOff> = Vec::new();
    for run in Tree::of(&record)?.runs(store, FileIndex(0)..end_of(record.size.get()))? {
        if run.index != FileIndex(crate::num::to_u64(pages.len())) {
            return Err(corrupt(format!("page {} is missing", pages.len())));
        }
        pages.extend((0..run.pages.0).map(|page| run.device + Pages(page)));
    }
    Ok(Table { record, pages, free: std::collections::BTreeSet::new() })
}

/// Walks the tree of one inode and reserves its pages; data that it may share goes to `shared`.
/// Returns what is wrong with it.
fn scan_tree(
    store: &Store,
    record: &InodeRecord,
    shared: &mut SharedData,
) -> Result<Vec<String>, FsError> {
    let tree = match Tree::of(record) {
        Ok(tree) => tree,
        Err(FsError::Corrupt { found, .. }) => return Ok(vec![found]),
        Err(error) => return Err(error),
    };
    let end = end_of(record.size.get());
    let mut walk = TreeWalk { store, tree, end, pages: 0, found: Vec::new(), shared };
    tree.walk(store, &mut |visit| walk.visit(visit))?;
    let TreeWalk { pages, mut found, .. } = walk;
    if found.is_empty() && pages != record.pages.get() {
        found.push(format!("it has {pages} pages and counts {}", record.pages.get()));
    }
    Ok(found)
}

/// The walk of one tree.
struct TreeWalk<'s> {
    store: &'s Store,
    tree: Tree,
    /// No data lies here or later.
    end: FileIndex,
    pages: u64,
    found: Vec<String>,
    shared: &'s mut SharedData,
}

/// The data of files that may share it.
#[derive(Debug, Default)]
struct SharedData {
    extents: Vec<(Extent, Ino)>,
}

impl TreeWalk<'_> {
    fn visit(&mut self, visit: Visit) -> Result<(), FsError> {
        match visit {
            Visit::Node(page) => self.reserve(Extent { start: page, pages: Pages(1) }),
            Visit::Data(run) => self.data(&run),
            Visit::Bad(FsError::Corrupt { found, .. }) => self.found.push(found),
            Visit::Bad(error) => return Err(error),
        }
        Ok(())
    }

    fn data(&mut self, run: &Run) {
        if run.index + run.pages > self.end {
            self.found.push(format!("data at index {}, past the end", run.index));
        }
        let extent = Extent { start: run.device, pages: run.pages };
        if self.tree.may_share {
            self.pages += extent.pages.0;
            self.shared.add(extent, self.tree.ino);
        } else {
            self.reserve(extent);
        }
    }

    fn reserve(&mut self, extent: Extent) {
        self.pages += extent.pages.0;
        if let Err(double) = self.store.reserve(extent) {
            self.found.push(format!("page {} is used twice", double.0));
        }
    }
}

impl SharedData {
    fn add(&mut self, extent: Extent, ino: Ino) {
        match self.extents.last_mut() {
            Some((last, of)) if *of == ino && last.end() == extent.start => {
                last.pages = last.pages + extent.pages;
            }
            _ => self.extents.push((extent, ino)),
        }
    }

    /// Reserves each page once, and tells the store how often the trees refer to it; those that only
    /// one place refers to go to `alone`. Returns what is wrong with which inode.
    fn count(mut self, store: &Store, alone: &mut Vec<Extent>) -> Vec<(Ino, String)> {
        self.extents.sort_unstable_by_key(|(extent, _)| extent.start);
        let mut corrupt = Vec::new();
        for (pages, count) in counted(&self.extents) {
            if let Err(double) = store.reserve(Extent::of(pages.clone())) {
                corrupt.extend(self.users(double.0));
            }
            match count {
                1 => alone.push(Extent::of(pages)),
                _ => store.shares.lock().set(pages, count),
            }
        }
        corrupt
    }

    /// The inodes that refer to a page which something else uses.
    fn users(&self, page: DeviceOff) -> impl Iterator<Item = (Ino, String)> {
        let is_user = move |(extent, _): &&(Extent, Ino)| extent.range().contains(&page.0);
        let found = move |&(_, ino): &(Extent, Ino)| (ino, format!("page {page} is used twice"));
        self.extents.iter().filter(is_user).map(found)
    }
}

/// The pages of `extents`, which are sorted, in order: ranges of which each page lies in equally
/// many of them, with that number.
fn counted(extents: &[(Extent, Ino)]) -> Vec<(Range<u64>, u64)> {
    let mut ends: Vec<u64> = extents.iter().map(|(extent, _)| extent.end().0).collect();
    ends.sort_unstable();
    let mut starts = extents.iter().map(|(extent, _)| extent.start.0).peekable();
    let (mut ranges, mut at, mut count) = (Vec::new(), 0, 0);
    for end in ends {
        while let Some(start) = starts.next_if(|&start| start < end) {
            push(&mut ranges, at..start, count);
            (at, count) = (start, count + 1);
        }
        push(&mut ranges, at..end, count);
        (at, count) = (end, count - 1);
    }
    ranges
}

fn push(ranges: &mut Vec<(Range<u64>, u64)>, range: Range<u64>, count: u64) {
    if !range.is_empty() && count > 0 {
        ranges.push((range, count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_counts_once_for_each_extent_it_lies_in() {
        let extents = [0..10, 0..4, 4..6, 6..20, 30..31].map(|range| (Extent::of(range), Ino(7)));
        let expected = vec![(0..4, 2), (4..6, 2), (6..10, 2), (10..20, 1), (30..31, 1)];
        assert_eq!(counted(&extents), expected);
    }
}
