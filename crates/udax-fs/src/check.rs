//! The check of a whole filesystem that nobody has mounted: a walk over everything, without writes.
//!
//! This file owns what a sound filesystem is above its trees: every name leads to an inode in use,
//! every inode is named as often as it counts, every directory hangs below the root. What is below
//! (records, trees, and pages used twice) is the scan's.

use std::collections::{HashMap, HashSet, VecDeque};

use udax_dev::{DaxBytes, DaxDevice};
use udax_mm::sync::Arc;
use udax_mm::{FileIndex, PAGE_SIZE};

use crate::dir::Cell;
use crate::dir::cell::{Numbered, decode_page};
use crate::format::ROOT_INO;
use crate::inode::end_of;
use crate::num::to_u64;
use crate::pin_table::Loaded;
use crate::scan::{Scan, Scanned};
use crate::store::Store;
use crate::superblock::{Source, Superblock};
use crate::tree::{Run, Tree};
use crate::{Filesystem, FsError, Ino, Kind, MountMode, Name, RecordedPin};

/// What the check of a filesystem found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Inodes without a name that the next mount frees. An unclean end leaves them; they are not a
    /// problem.
    pub orphans: u64,
    /// Pages in use.
    pub used: u64,
    /// Pages that are free.
    pub free: u64,
    /// Long-term pins that their owners left behind: their pages are not allocated until they are
    /// released. An unclean end leaves them; they are not a problem.
    pub quarantine: Vec<RecordedPin>,
    /// What is wrong; nothing in a sound filesystem.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// What is wrong: "inode 12", "superblock", "directory 3, cell 17".
    pub object: String,
    /// What was found.
    pub found: String,
}

/// The walk.
struct Check<'s> {
    store: &'s Store,
    inodes: HashMap<Ino, Scanned>,
    /// Inodes that scanning found corrupt; nothing that follows from that is reported again.
    corrupt: HashSet<Ino>,
    /// How often each inode is named.
    names: HashMap<Ino, u32>,
    /// How many directories each directory holds.
    subdirs: HashMap<Ino, u32>,
    report: CheckReport,
}

impl Filesystem {
    /// Checks the filesystem of a device that nobody has mounted. Writes nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the check cannot even start: what [`Filesystem::mount`] returns for the
    /// superblock, [`FsError::NeedsRecovery`] if a transaction waits to be completed,
    /// [`FsError::Corrupt`] for the inode table, and [`FsError::Device`] if the medium fails.
    /// Everything else is a [`Problem`] of the report.
    pub fn check(device: Arc<dyn DaxDevice>) -> Result<CheckReport, FsError> {
        let bytes = DaxBytes::new(Arc::clone(&device));
        let (superblock, copy) = Superblock::read(&bytes)?;
        let store = Store::new(device, superblock.geometry, superblock.uuid);
        if store.needs_recovery()? {
            return Err(FsError::NeedsRecovery);
        }
        let (mut report, pins) = check_store(&store)?;
        report.add_quarantine(&store, &pins)?;
        let found = match copy {
            Source::Mirror => "it is damaged, its mirror was used",
            Source::Primary if !superblock.is_mirrored(&bytes) => "its mirror is damaged",
            Source::Primary => return Ok(report),
        };
        let problem = Problem { object: "superblock".to_owned(), found: found.to_owned() };
        report.problems.insert(0, problem);
        Ok(report)
    }
}

/// Checks everything in `store`, whose pages are all free as far as it knows.
pub(crate) fn check_store(store: &Store) -> Result<(CheckReport, Loaded), FsError> {
    let (scan, pins) = Scan::of(store)?;
    let mut check = Check::new(store, scan);
    check.count();
    check.walk_directories()?;
    check.compare_links();
    check.report.free = store.free_pages().0;
    check.report.used = store.geometry().pages.0 - check.report.free;
    if let Some(found) = &pins.broken {
        check.problem("pin table", found);
    }
    Ok((check.report, pins))
}

impl CheckReport {
    fn add_quarantine(&mut self, store: &Store, pins: &Loaded) -> Result<(), FsError> {
        // As a mount that writes nothing does.
        let _ = store.adopt_pins(pins, MountMode::ReadOnly)?;
        self.quarantine = store.quarantine.list();
        self.free = store.free_pages().0;
        Ok(())
    }
}

impl<'s> Check<'s> {
    fn new(store: &'s Store, scan: Scan) -> Check<'s> {
        let mut report = CheckReport::default();
        let mut corrupt = HashSet::new();
        for (ino, found) in scan.corrupt {
            corrupt.insert(ino);
            report.problems.push(Problem { object: format!("inode {}", ino.0), found });
        }
        let inodes = scan.inodes.into_iter().map(|inode| (inode.ino, inode)).collect();
        let (names, subdirs) = (HashMap::new(), HashMap::new());
        Check { store, inodes, corrupt, names, subdirs, report }
    }

    fn problem(&mut self, object: impl Into<String>, found: impl Into<String>) {
        self.report.problems.push(Problem { object: object.into(), found: found.into() });
    }

    fn inode_problem(&mut self, ino: Ino, found: impl Into<String>) {
        self.problem(format!("inode {}", ino.0), found);
    }

    fn count(&mut self) {
        for inode in self.inodes.values() {
            match inode.kind {
                _ if inode.is_orphan() => self.report.orphans += 1,
                Kind::File => self.report.files += 1,
                Kind::Dir => self.report.dirs += 1,
                Kind::Symlink => self.report.symlinks += 1,
            }
        }
    }

    /// Walks the directories from the root down.
    fn walk_directories(&mut self) -> Result<(), FsError> {
        if self.inodes.get(&ROOT_INO).is_none_or(|root| root.kind != Kind::Dir) {
            self.problem("root directory", "inode 1 is not a directory");
            return Ok(());
        }
        self.check_parent(ROOT_INO, ROOT_INO);
        let mut seen = HashSet::from([ROOT_INO]);
        let mut next = VecDeque::from([ROOT_INO]);
        while let Some(dir) = next.pop_front() {
            for child in self.walk_directory(dir)? {
                if !seen.insert(child) {
                    self.inode_problem(child, "a directory with two names");
                    continue;
                }
                self.check_parent(child, dir);
                next.push_back(child);
            }
        }
        Ok(())
    }

    fn check_parent(&mut self, dir: Ino, parent: Ino) {
        let recorded = self.inodes[&dir].record.parent.get();
        if recorded != parent.0 {
            self.inode_problem(dir, format!("its parent is {}, recorded is {recorded}", parent.0));
        }
    }

    /// Checks the entries of one directory, and returns the directories in it.
    fn walk_directory(&mut self, dir: Ino) -> Result<Vec<Ino>, FsError> {
        let mut children = Vec::new();
        let mut names: HashSet<Name> = HashSet::new();
        for (number, cell) in self.read_cells(dir)? {
            let object = format!("directory {}, cell {number}", dir.0);
            let cell = match cell {
                Ok(cell) => cell,
                Err(found) => {
                    self.problem(object, found);
                    continue;
                }
            };
            self.check_entry(&object, &cell);
            if self.inodes.contains_key(&cell.ino) && cell.kind == Kind::Dir {
                *self.subdirs.entry(dir).or_default() += 1;
                if self.inodes[&cell.ino].kind == Kind::Dir {
                    children.push(cell.ino);
                }
            }
            let name = cell.name.clone();
            if !names.insert(cell.name) {
                self.problem(object, format!("a second entry named {name}"));
            }
        }
        Ok(children)
    }

    /// Checks what an entry names.
    fn check_entry(&mut self, object: &str, cell: &Cell) {
        *self.names.entry(cell.ino).or_default() += 1;
        let Some(inode) = self.inodes.get(&cell.ino) else {
            if !self.corrupt.contains(&cell.ino) {
                let found = format!("{} names inode {}, which is free", cell.name, cell.ino.0);
                self.problem(object, found);
            }
            return;
        };
        if inode.kind != cell.kind {
            let found = format!("{} is {:?}, its inode {:?}", cell.name, cell.kind, inode.kind);
            self.problem(object, found);
        }
    }

    /// Every cell of a directory, by number, read page by page.
    fn read_cells(&mut self, dir: Ino) -> Result<Vec<Numbered>, FsError> {
        let mut cells = Vec::new();
        let mut page = [0; PAGE_SIZE];
        let mut next = FileIndex(0);
        for run in self.runs(dir)? {
            if run.index != next {
                self.inode_problem(dir, format!("page {next} of the directory is missing"));
            }
            for at in 0..run.pages.0 {
                self.store.read(run.device.byte() + at * to_u64(PAGE_SIZE), &mut page)?;
                cells.extend(decode_page(dir, run.index.0 + at, &page));
            }
            next = run.index + run.pages;
        }
        let size = self.inodes[&dir].record.size.get();
        if size != next.byte() && !self.corrupt.contains(&dir) {
            self.inode_problem(dir, format!("{size} bytes, its pages hold {}", next.byte()));
        }
        Ok(cells)
    }

    /// The data of an inode, as far as its tree can be read.
    fn runs(&mut self, ino: Ino) -> Result<Vec<Run>, FsError> {
        let record = self.inodes[&ino].record;
        let found = Tree::of(&record)
            .and_then(|tree| tree.runs(self.store, FileIndex(0)..end_of(record.size.get())));
        match found {
            // Reported by the scan already.
            Err(FsError::Corrupt { .. }) => Ok(Vec::new()),
            other => other,
        }
    }

    /// Compares how often inodes are named with what they count.
    fn compare_links(&mut self) {
        let mut inos: Vec<Ino> = self.inodes.keys().copied().collect();
        inos.sort_unstable();
        for ino in inos {
            let inode = self.inodes[&ino].clone();
            let names = self.names.get(&ino).copied().unwrap_or(0);
            let links = inode.record.links.get();
            let expected = match inode.kind {
                _ if inode.is_orphan() => 0,
                Kind::Dir => 2 + self.subdirs.get(&ino).copied().unwrap_or(0),
                Kind::File | Kind::Symlink => names,
            };
            if names == 0 && links > 0 && ino != ROOT_INO {
                self.inode_problem(ino, format!("no name, and a link count of {links}"));
            } else if names > 0 && inode.is_orphan() {
                self.inode_problem(ino, format!("{names} names, and a link count of 0"));
            } else if links != expected {
                self.inode_problem(ino, format!("{expected} links, and a link count of {links}"));
            }
            self.check_symlink(&inode);
        }
    }

    /// A symbolic link has a target, in one page.
    fn check_symlink(&mut self, inode: &Scanned) {
        let size = inode.record.size.get();
        if inode.kind != Kind::Symlink || self.corrupt.contains(&inode.ino) {
            return;
        }
        if size == 0 || size >= to_u64(PAGE_SIZE) || inode.record.pages.get() != 1 {
            self.inode_problem(inode.ino, format!("a symbolic link to {size} bytes"));
        }
    }
}
