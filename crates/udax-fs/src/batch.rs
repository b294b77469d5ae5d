//! One transaction over several inodes: what a change of the namespace is made of.
//!
//! A [`Batch`] collects the next states of inodes and the edits of directories, and shows them in
//! memory only after the transaction has committed. The caller holds the namespace lock
//! exclusively; nobody else holds the states of two inodes at once, so their order does not matter.

use udax_mm::sync::RwLockWriteGuard;
use udax_mm::{DeviceOff, FileIndex, Pages};

use crate::alloc::Goal;
use crate::core::Core;
use crate::dir::{CELL_BYTES, CELLS_PER_PAGE, Cell, Entry, Index, cells_for};
use crate::inode::record::NewInode;
use crate::inode::{Node, State};
use crate::itable::NewIno;
use crate::num::to_u64;
use crate::store::Fresh;
use crate::stored::Stored;
use crate::superblock::now;
use crate::tree::{Lookup, Tree};
use crate::txn::{self, Slot, Txn};
use crate::{FsError, Ino, Name};

/// A change of the namespace in the making. Dropping it changes nothing.
#[must_use]
pub(crate) struct Batch<'i> {
    core: &'i Core,
    txn: Txn<'i>,
    members: Vec<Member<'i>>,
    edits: Vec<(&'i Node, Edit)>,
    created: Option<NewIno>,
}

/// An inode that the batch changes.
struct Member<'i> {
    node: &'i Node,
    state: RwLockWriteGuard<'i, State>,
    next: State,
}

/// What changes in the index of a directory.
enum Edit {
    AddPage,
    Insert(u64, Cell),
    Remove(Name),
    Retarget(Cell),
}

impl<'i> Batch<'i> {
    /// A batch that changes nothing yet.
    pub(crate) fn new(core: &'i Core) -> Batch<'i> {
        Batch {
            core,
            txn: Txn::new(&core.store),
            members: Vec::new(),
            edits: Vec::new(),
            created: None,
        }
    }

    /// The next state of an inode, to be changed.
    pub(crate) fn state(&mut self, node: &'i Node) -> &mut State {
        let known = self.members.iter().position(|member| member.node.ino == node.ino);
        let at = known.unwrap_or_else(|| {
            let state = node.write();
            let next = state.clone();
            self.members.push(Member { node, state, next });
            self.members.len() - 1
        });
        &mut self.members[at].next
    }

    /// Makes a new inode in directory `dir`, holding `data` (the target of a symbolic link).
    pub(crate) fn create(
        &mut self,
        new: &NewInode,
        dir: &Node,
        data: &[u8],
    ) -> Result<Ino, FsError> {
        let store = &self.core.store;
        let number = self.core.itable.new_ino(store, &mut self.txn)?;
        let generation = number.generation.wrapping_add(1);
        let mut record = new.record(number.ino, dir.ino, generation, now());
        if !data.is_empty() {
            let fresh = single(store.allocate(Pages(1), Goal::Packed)?);
            let page = Stored::data(store, fresh, 0, data)?;
            let tree = Tree::of(&record)?;
            let graft = tree.insert(store, vec![(FileIndex(0), page)])?;
            self.txn.publish(graft.flush(store)?.fence(store)?).store_in(&mut record);
            record.size.set(to_u64(data.len()));
        }
        self.txn.write(number.slot, &record);
        let ino = number.ino;
        self.created = Some(number);
        Ok(ino)
    }

    /// Adds an entry to a directory; its name is not there. At most one for each directory.
    pub(crate) fn insert(&mut self, dir: &'i Node, cell: Cell) -> Result<(), FsError> {
        let room = dir.with_index(|index| (index.room_for(&cell.name), index.pages()))?;
        let (number, page) = match room {
            (Some(number), _) => (number, self.page_of(dir, number)?),
            (None, pages) => (to_u64(pages * CELLS_PER_PAGE), self.add_page(dir, pages)?),
        };
        self.txn.write_cells(cell_slot(page, number), &cell.encode(dir.ino, number));
        self.state(dir).touch();
        self.edits.push((dir, Edit::Insert(number, cell)));
        Ok(())
    }

    /// Removes an entry from a directory.
    pub(crate) fn remove(
        &mut self,
        dir: &'i Node,
        name: &Name,
        entry: Entry,
    ) -> Result<(), FsError> {
        let page = self.page_of(dir, entry.cell)?;
        self.txn.clear_cells(cell_slot(page, entry.cell), to_u64(cells_for(name)));
        self.state(dir).touch();
        self.edits.push((dir, Edit::Remove(name.clone())));
        Ok(())
    }

    /// Lets an entry of a directory name another inode.
    pub(crate) fn retarget(
        &mut self,
        dir: &'i Node,
        entry: Entry,
        cell: Cell,
    ) -> Result<(), FsError> {
        let page = self.page_of(dir, entry.cell)?;
        self.txn.write_cells(cell_slot(page, entry.cell), &cell.encode(dir.ino, entry.cell));
        self.state(dir).touch();
        self.edits.push((dir, Edit::Retarget(cell)));
        Ok(())
    }

    /// Makes all of it happen, durably, and then shows it.
    #[track_caller]
    pub(crate) fn commit(mut self) -> Result<(), FsError> {
        for member in &mut self.members {
            member.next = member.next.clone().settled();
            self.txn.write(member.node.slot()?, &member.next.record);
        }
        self.txn.commit()?;
        for mut member in self.members {
            *member.state = member.next;
        }
        if let Some(number) = self.created {
            self.core.itable.take(number);
        }
        for (dir, edit) in self.edits {
            dir.edit_index(|index| edit.apply(index));
        }
        Ok(())
    }

    /// The page of the device that holds cell `number` of a directory.
    fn page_of(&mut self, dir: &'i Node, number: u64) -> Result<DeviceOff, FsError> {
        let index = FileIndex(number / to_u64(CELLS_PER_PAGE));
        let tree = self.state(dir).tree;
        match tree.lookup(&self.core.store, index, index..index + Pages(1))? {
            Lookup::Run(run) => Ok(run.device + index.since(run.index)),
            Lookup::Hole(_) => {
                let object = format!("directory {}", dir.ino.0);
                Err(FsError::corrupt(object, format!("page {index} is missing")))
            }
        }
    }

    /// Adds an empty page to a directory of `pages` pages.
    fn add_page(&mut self, dir: &'i Node, pages: usize) -> Result<DeviceOff, FsError> {
        let store = &self.core.store;
        let index = FileIndex(to_u64(pages));
        let fresh = single(store.allocate(Pages(1), Goal::Packed)?);
        let page = fresh.extent().start;
        let zeros = Stored::zeros(store, fresh)?;
        let graft = self.state(dir).tree.insert(store, vec![(index, zeros)])?;
        let tree = self.txn.publish(graft.flush(store)?.fence(store)?);
        let state = self.state(dir);
        state.tree = tree;
        state.record.size.set((index + Pages(1)).byte());
        self.edits.push((dir, Edit::AddPage));
        Ok(page)
    }
}

impl Edit {
    fn apply(self, index: &mut Index) {
        match self {
            Edit::AddPage => {
                index.add_page();
            }
            Edit::Insert(number, cell) => {
                assert!(index.insert(number, cell), "an entry is added where its name was not");
            }
            Edit::Remove(name) => index.remove(&name),
            Edit::Retarget(cell) => index.retarget(&cell.name, cell.ino, cell.kind),
        }
    }
}

/// Where cell `number` lies, in a page of the device.
fn cell_slot(page: DeviceOff, number: u64) -> Slot<txn::Cell> {
    Slot::cell(page.byte() + number % to_u64(CELLS_PER_PAGE) * to_u64(CELL_BYTES))
}

/// The only piece of an allocation of one page.
fn single(mut pieces: Vec<Fresh>) -> Fresh {
    let fresh = pieces.pop().expect("an allocation has a piece");
    assert!(fresh.extent().pages == Pages(1), "one page was asked for");
    fresh
}
