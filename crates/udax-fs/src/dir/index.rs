//! The index of a directory in memory: names, in the order of their cells, and the free cells.

use std::collections::{BTreeMap, HashMap};

use udax_mm::sync::Arc;

use super::cell::{CELLS_PER_PAGE, Cell, cells_for};
use crate::{Ino, Kind, Name};

/// Where a name lies and what it names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) cell: u64,
    pub(crate) ino: Ino,
    pub(crate) kind: Kind,
}

/// Every name of one directory.
///
/// # Invariants
///
/// 1. `by_name` and `by_cell` hold the same entries.
/// 2. A bit of `used` is set exactly if an entry covers that cell.
/// 3. No page before `first_room` has a free cell.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_name: HashMap<Arc<Name>, Entry>,
    by_cell: BTreeMap<u64, Arc<Name>>,
    used: Vec<u64>,
    first_room: usize,
}

impl Index {
    /// Whether there are no names.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The pages of the directory.
    pub(crate) fn pages(&self) -> usize {
        self.used.len()
    }

    /// Whether both know the same names in the same cells.
    pub(crate) fn agrees_with(&self, other: &Index) -> bool {
        self.by_name == other.by_name && self.by_cell == other.by_cell && self.used == other.used
    }

    /// The entry of `name`.
    pub(crate) fn find(&self, name: &Name) -> Option<Entry> {
        self.by_name.get(name).copied()
    }

    /// The entries whose cells are `from` or later.
    pub(crate) fn entries_from(&self, from: u64) -> impl Iterator<Item = (&Name, Entry)> {
        self.by_cell.range(from..).map(|(_, name)| (&**name, self.by_name[name]))
    }

    /// The first cell of a free run that holds an entry of `name`. `None`: add a page.
    pub(crate) fn room_for(&self, name: &Name) -> Option<u64> {
        let count = cells_for(name);
        (self.first_room..self.used.len())
            .find_map(|page| free_run(self.used[page], count).map(|at| cell_number(page, at)))
    }

    /// Adds an empty page and returns its first cell.
    pub(crate) fn add_page(&mut self) -> u64 {
        self.used.push(0);
        cell_number(self.used.len() - 1, 0)
    }

    /// Adds an entry; false if its name is there already.
    pub(crate) fn insert(&mut self, number: u64, cell: Cell) -> bool {
        let Cell { name, ino, kind } = cell;
        if self.by_name.contains_key(&name) {
            return false;
        }
        let (page, mask) = cells_mask(number, &name);
        assert!(self.used[page] & mask == 0, "index: an entry takes free cells");
        self.used[page] |= mask;
        while self.used.get(self.first_room) == Some(&u64::MAX) {
            self.first_room += 1;
        }
        let name = Arc::new(name);
        self.by_name.insert(Arc::clone(&name), Entry { cell: number, ino, kind });
        self.by_cell.insert(number, name);
        true
    }

    /// Removes the entry of `name`.
    pub(crate) fn remove(&mut self, name: &Name) {
        let Some(entry) = self.by_name.remove(name) else { return };
        self.by_cell.remove(&entry.cell);
        let (page, mask) = cells_mask(entry.cell, name);
        assert!(self.used[page] & mask == mask, "index: an entry has used cells");
        self.used[page] &= !mask;
        self.first_room = self.first_room.min(page);
    }

    /// Points `name` to another inode, in the cells it has.
    pub(crate) fn retarget(&mut self, name: &Name, ino: Ino, kind: Kind) {
        if let Some(entry) = self.by_name.get_mut(name) {
            entry.ino = ino;
            entry.kind = kind;
        }
    }
}

/// Where `count` adjacent clear bits start.
fn free_run(used: u64, count: usize) -> Option<usize> {
    let run = (1_u64 << count) - 1;
    (0..=CELLS_PER_PAGE - count).find(|at| used & (run << at) == 0)
}

/// The page and the bits of the cells from `number` on.
fn cells_mask(number: u64, name: &Name) -> (usize, u64) {
    let number = usize::try_from(number).expect("a directory has far fewer cells than addresses");
    let run = (1_u64 << cells_for(name)) - 1;
    (number / CELLS_PER_PAGE, run << (number % CELLS_PER_PAGE))
}

fn cell_number(page: usize, at: usize) -> u64 {
    u64::try_from(page * CELLS_PER_PAGE + at).expect("usize has at most 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str, ino: u64) -> Cell {
        let name = Name::from_bytes(name.as_bytes()).expect("valid");
        Cell { name, ino: Ino(ino), kind: Kind::File }
    }

    fn add(index: &mut Index, cell: Cell) -> u64 {
        let number = index.room_for(&cell.name).unwrap_or_else(|| index.add_page());
        assert!(index.insert(number, cell));
        number
    }

    #[test]
    fn a_removed_entry_leaves_room_for_the_next() {
        let mut index = Index::default();
        for ino in 0..64 {
            add(&mut index, cell(&format!("{ino}"), ino));
        }
        assert_eq!(index.pages(), 1);
        index.remove(&cell("17", 17).name);
        assert_eq!(add(&mut index, cell("new", 100)), 17);
        assert_eq!(index.pages(), 1);
    }

    #[test]
    fn an_entry_never_crosses_pages() {
        let mut index = Index::default();
        for ino in 0..30 {
            let number = add(&mut index, cell(&format!("{ino:0>200}"), ino));
            assert!(number % 64 + 4 <= 64, "cell {number}");
        }
        assert_eq!(index.pages(), 2);
    }

    #[test]
    fn reading_continues_after_an_entry_that_was_removed_meanwhile() {
        let mut index = Index::default();
        for ino in 0..5 {
            add(&mut index, cell(&format!("{ino}"), ino));
        }
        index.remove(&cell("2", 2).name);
        let rest: Vec<u64> = index.entries_from(2).map(|(_, entry)| entry.ino.0).collect();
        assert_eq!(rest, [3, 4]);
    }

    #[test]
    fn a_name_is_there_once() {
        let mut index = Index::default();
        add(&mut index, cell("a", 1));
        assert!(!index.insert(1, cell("a", 2)));
        assert_eq!(index.find(&cell("a", 0).name).map(|entry| entry.ino), Some(Ino(1)));
    }
}
