//! From a path to an inode: follows symbolic links, `.` and `..`.
//!
//! Owns no state and takes no lock: each step is one lookup, so a path that is renamed meanwhile
//! gives the old place or the new one, as with any filesystem.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use udax_fs::{Filesystem, FsError, Inode, Kind, Name};
use udax_mm::sync::Arc;

use crate::error::Cause;

/// The symbolic links one path may lead through, as on Linux.
const MAX_SYMLINKS: usize = 40;

/// What to do if the last component of a path is a symbolic link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LastSymlink {
    /// Go on to what it points to.
    Follow,
    /// Stop at the link itself.
    Keep,
}

/// Where a path leads.
#[derive(Debug)]
pub(crate) enum Walked {
    /// To something that exists.
    Found(Arc<Inode>),
    /// To a free name in a directory.
    Missing {
        /// The directory.
        dir: Arc<Inode>,
        /// The name.
        name: Name,
    },
}

/// Walks along `path` from the root.
pub(crate) fn walk(fs: &Filesystem, path: &Path, last: LastSymlink) -> Result<Walked, Cause> {
    Walk::new(fs)?.run(path, last)
}

/// Finds the inode at `path`.
pub(crate) fn resolve(
    fs: &Filesystem,
    path: &Path,
    last: LastSymlink,
) -> Result<Arc<Inode>, Cause> {
    match walk(fs, path, last)? {
        Walked::Found(inode) => Ok(inode),
        Walked::Missing { .. } => Err(FsError::NotFound.into()),
    }
}

/// Finds the directory that holds, or would hold, the last component of `path`.
pub(crate) fn parent(fs: &Filesystem, path: &Path) -> Result<(Arc<Inode>, Name), Cause> {
    let Some(name) = path.file_name() else {
        return Err(Cause::InvalidInput("the path does not end in a name"));
    };
    let name = Name::new(name)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let dir = resolve(fs, parent, LastSymlink::Follow)?;
    if dir.attr().kind != Kind::Dir {
        return Err(FsError::NotADirectory.into());
    }
    Ok((dir, name))
}

/// Finds the path without symbolic links, `.` and `..` that leads where `path` leads.
pub(crate) fn canonicalize(fs: &Filesystem, path: &Path) -> Result<PathBuf, Cause> {
    let mut walk = Walk::new(fs)?;
    match walk.run(path, LastSymlink::Follow)? {
        Walked::Found(_) => Ok(walk.names.iter().fold(PathBuf::from("/"), |path, n| path.join(n))),
        Walked::Missing { .. } => Err(FsError::NotFound.into()),
    }
}

/// A walk in progress.
struct Walk<'f> {
    fs: &'f Filesystem,
    at: Arc<Inode>,
    /// The names from the root to `at`.
    names: Vec<OsString>,
    /// What is left to do, the next step last.
    pending: Vec<Step>,
    links: usize,
}

enum Step {
    Root,
    Up,
    Down(OsString),
}

impl<'f> Walk<'f> {
    fn new(fs: &'f Filesystem) -> Result<Walk<'f>, Cause> {
        Ok(Walk { fs, at: fs.root()?, names: Vec::new(), pending: Vec::new(), links: 0 })
    }

    fn run(&mut self, path: &Path, last: LastSymlink) -> Result<Walked, Cause> {
        self.push(path);
        while let Some(step) = self.pending.pop() {
            match step {
                Step::Root => self.restart()?,
                Step::Up => self.up()?,
                Step::Down(name) => {
                    if let Some(missing) = self.down(&name, last)? {
                        return Ok(missing);
                    }
                }
            }
        }
        Ok(Walked::Found(Arc::clone(&self.at)))
    }

    fn restart(&mut self) -> Result<(), Cause> {
        self.at = self.fs.root()?;
        self.names.clear();
        Ok(())
    }

    fn up(&mut self) -> Result<(), Cause> {
        self.require_dir()?;
        self.at = self.fs.parent(&self.at)?;
        self.names.pop();
        Ok(())
    }

    /// Goes to the entry `name`, or says that it is missing if it is the last one.
    fn down(&mut self, name: &OsStr, last: LastSymlink) -> Result<Option<Walked>, Cause> {
        self.require_dir()?;
        let is_last = self.pending.is_empty();
        let entry = Name::new(name)?;
        let next = match self.fs.lookup(&self.at, &entry) {
            Err(FsError::NotFound) if is_last => {
                return Ok(Some(Walked::Missing { dir: Arc::clone(&self.at), name: entry }));
            }
            next => next?,
        };
        let is_symlink = next.attr().kind == Kind::Symlink;
        if is_symlink && (!is_last || last == LastSymlink::Follow) {
            self.follow(&next)?;
        } else {
            self.at = next;
            self.names.push(name.to_owned());
        }
        Ok(None)
    }

    fn follow(&mut self, link: &Inode) -> Result<(), Cause> {
        self.links += 1;
        if self.links > MAX_SYMLINKS {
            return Err(Cause::SymlinkLoop(MAX_SYMLINKS));
        }
        let target = link.read_link()?;
        self.push(Path::new(OsStr::from_bytes(&target)));
        Ok(())
    }

    fn push(&mut self, path: &Path) {
        let steps = path.components().rev().filter_map(|component| match component {
            Component::RootDir => Some(Step::Root),
            Component::ParentDir => Some(Step::Up),
            Component::Normal(name) => Some(Step::Down(name.to_owned())),
            Component::CurDir | Component::Prefix(_) => None,
        });
        self.pending.extend(steps);
    }

    fn require_dir(&self) -> Result<(), Cause> {
        if self.at.attr().kind == Kind::Dir { Ok(()) } else { Err(FsError::NotADirectory.into()) }
    }
}
