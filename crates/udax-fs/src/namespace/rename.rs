//! Renaming: moving a name, over another one or not, and exchanging two.

use udax_mm::sync::Arc;

use super::remove::check_empty;
use super::{check_linked, find, find_existing};
use crate::batch::Batch;
use crate::dir::{Cell, Entry};
use crate::format::ROOT_INO;
use crate::{Filesystem, FsError, Ino, Inode, Kind, Name};

/// What happens to a target that exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RenameMode {
    /// It is replaced, atomically.
    Replace,
    /// It is an error.
    NoReplace,
    /// Both names change places; the target must exist.
    Exchange,
}

/// A name in a directory.
#[derive(Clone, Copy)]
struct Place<'a> {
    dir: &'a Arc<Inode>,
    name: &'a Name,
}

/// A name, and what it names.
struct Named<'a> {
    place: Place<'a>,
    entry: Entry,
    inode: Arc<Inode>,
}

impl Filesystem {
    /// Moves the name `from` of `from_dir` to `to` of `to_dir`.
    ///
    /// With [`RenameMode::Replace`], a file replaces a file and a directory an empty directory;
    /// two names of one file stay as they are.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::NotFound`], [`FsError::Exists`], [`FsError::NotEmpty`],
    /// [`FsError::IsADirectory`] and [`FsError::NotADirectory`] where one kind cannot replace the
    /// other, [`FsError::Loop`] if a directory would become its own ancestor,
    /// [`FsError::NoSpace`] and [`FsError::ReadOnly`]. Nothing has changed then.
    pub fn rename(
        &self,
        from_dir: &Arc<Inode>,
        from: &Name,
        to_dir: &Arc<Inode>,
        to: &Name,
        mode: RenameMode,
    ) -> Result<(), FsError> {
        self.core().check_writable()?;
        let names = self.core().namespace.write();
        let from = Place { dir: from_dir, name: from };
        let to = Place { dir: to_dir, name: to };
        check_linked(to.dir)?;
        let source = self.named(from)?;
        let target = match find(to.dir, to.name)? {
            Some(_) => Some(self.named(to)?),
            None => None,
        };
        match (mode, &target) {
            (RenameMode::NoReplace, Some(_)) => return Err(FsError::Exists),
            (RenameMode::Exchange, None) => return Err(FsError::NotFound),
            (RenameMode::Exchange, Some(target)) => self.exchange(&source, target)?,
            (RenameMode::Replace, Some(target)) => self.replace(&source, target)?,
            (RenameMode::Replace | RenameMode::NoReplace, None) => self.relocate(&source, to)?,
        }
        drop(names);
        if let Some(target) = target {
            self.forget_dir(&target.inode);
        }
        Ok(())
    }

    fn named<'a>(&self, place: Place<'a>) -> Result<Named<'a>, FsError> {
        check_linked(place.dir)?;
        let entry = find_existing(place.dir, place.name)?;
        Ok(Named { place, entry, inode: self.core().inode(entry.ino)? })
    }

    /// Moves a name to where none is.
    fn relocate(&self, source: &Named<'_>, to: Place<'_>) -> Result<(), FsError> {
        self.check_no_loop(source, to.dir)?;
        let mut batch = Batch::new(self.core());
        batch.remove(source.place.dir.node(), source.place.name, source.entry)?;
        batch.insert(to.dir.node(), source.cell(to.name))?;
        reparent(&mut batch, source, to.dir)?;
        batch.commit()
    }

    /// Moves a name over another one.
    fn replace(&self, source: &Named<'_>, target: &Named<'_>) -> Result<(), FsError> {
        if source.entry.ino == target.entry.ino {
            return Ok(());
        }
        match (source.entry.kind, target.entry.kind) {
            (Kind::Dir, Kind::Dir) => check_empty(&target.inode)?,
            (Kind::Dir, _) => return Err(FsError::NotADirectory),
            (_, Kind::Dir) => return Err(FsError::IsADirectory),
            _ => (),
        }
        self.check_no_loop(source, target.place.dir)?;
        let mut batch = Batch::new(self.core());
        batch.remove(source.place.dir.node(), source.place.name, source.entry)?;
        let cell = source.cell(target.place.name);
        batch.retarget(target.place.dir.node(), target.entry, cell)?;
        reparent(&mut batch, source, target.place.dir)?;
        if target.entry.kind == Kind::Dir {
            batch.state(target.place.dir.node()).add_links(-1)?;
            batch.state(target.inode.node()).record.links.set(0);
        } else {
            batch.state(target.inode.node()).add_links(-1)?;
        }
        batch.state(target.inode.node()).touch_attributes();
        batch.commit()?;
        target.inode.let_go_unnamed();
        Ok(())
    }

    /// Lets two names change places.
    fn exchange(&self, source: &Named<'_>, target: &Named<'_>) -> Result<(), FsError> {
        if source.entry.ino == target.entry.ino {
            return Ok(());
        }
        self.check_no_loop(source, target.place.dir)?;
        self.check_no_loop(target, source.place.dir)?;
        let mut batch = Batch::new(self.core());
        let (from, to) = (source.place, target.place);
        batch.retarget(from.dir.node(), source.entry, target.cell(from.name))?;
        batch.retarget(to.dir.node(), target.entry, source.cell(to.name))?;
        reparent(&mut batch, source, to.dir)?;
        reparent(&mut batch, target, from.dir)?;
        batch.commit()
    }

    /// Refuses to move a directory into itself.
    fn check_no_loop(&self, moved: &Named<'_>, to: &Arc<Inode>) -> Result<(), FsError> {
        if moved.entry.kind != Kind::Dir {
            return Ok(());
        }
        let mut above = Arc::clone(to);
        // Bounded, because the parents on a damaged medium may go round in a circle.
        for _ in 0..=self.core().itable.used() {
            if above.ino() == moved.entry.ino {
                return Err(FsError::Loop);
            }
            if above.ino() == ROOT_INO {
                return Ok(());
            }
            let parent = Ino(above.node().read().record.parent.get());
            above = self.core().inode(parent)?;
        }
        let object = format!("directory {}", to.ino().0);
        Err(FsError::corrupt(object, "its parents go round in a circle"))
    }
}

impl Named<'_> {
    /// The same inode under another name.
    fn cell(&self, name: &Name) -> Cell {
        Cell { name: name.clone(), ino: self.entry.ino, kind: self.entry.kind }
    }
}

/// Counts a name that moved to directory `to`: the `..` of a directory counts as a link.
fn reparent<'i>(
    batch: &mut Batch<'i>,
    moved: &'i Named<'i>,
    to: &'i Arc<Inode>,
) -> Result<(), FsError> {
    let from = moved.place.dir;
    batch.state(moved.inode.node()).touch_attributes();
    if moved.entry.kind == Kind::Dir && from.ino() != to.ino() {
        batch.state(moved.inode.node()).record.parent.set(to.ino().0);
        batch.state(from.node()).add_links(-1)?;
        batch.state(to.node()).add_links(1)?;
    }
    Ok(())
}
