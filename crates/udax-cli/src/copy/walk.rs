//! Copies files, directories and symbolic links from one tree to another.
//!
//! One file that cannot be copied is reported and counted, and the rest goes on; a destination
//! that is full ends the copy. A new file is copied whole or removed again;
//! one that was there is overwritten in place, so that copying the same bytes again is harmless.
//! Hard links become files of their own; sockets, devices and fifos have no bytes and are skipped.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::bail;

use super::Reflink;
use super::report::CopyReport;
use super::tree::{FileId, FileKind, Sink, Source, Stat, Tree};
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// Bytes moved at once: two huge pages, so that the pool can place large files in whole blocks.
const CHUNK: usize = 4 << 20;

/// A path in a tree.
#[derive(Clone)]
pub(crate) struct Place<'t> {
    tree: &'t dyn Tree,
    path: PathBuf,
}

/// Copies, and counts what it did.
pub(crate) struct Copier<'a> {
    interrupt: &'a Interrupt,
    reflink: Reflink,
    /// Files of the host that hold the pools of this copy: copying one into itself never ends.
    avoid: Vec<FileId>,
    /// The destination of the directory given on the command line, which must not be copied.
    root: Option<FileId>,
    progress: Progress,
    report: CopyReport,
    buffer: Vec<u8>,
}

/// Ctrl-C came in the middle of a file.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

/// Why a copy ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Ctrl-C.
    Interrupted,
    /// The destination takes no more.
    Failed(anyhow::Error),
}

impl<'t> Place<'t> {
    /// The file `path` of `tree`.
    pub(crate) fn new(tree: &'t dyn Tree, path: &Path) -> Place<'t> {
        Place { tree, path: path.to_owned() }
    }

    /// The entry `name` of this directory.
    pub(crate) fn join(&self, name: &OsStr) -> Place<'t> {
        Place { tree: self.tree, path: self.path.join(name) }
    }

    /// How people call it.
    pub(crate) fn show(&self) -> String {
        self.tree.show(&self.path)
    }

    /// What lies there itself.
    pub(crate) fn stat(&self) -> anyhow::Result<Option<Stat>> {
        self.tree.stat(&self.path)
    }

    /// What lies there, or where a symbolic link there leads.
    pub(crate) fn stat_through(&self) -> anyhow::Result<Option<Stat>> {
        self.tree.stat_through(&self.path)
    }
}

impl<'a> Copier<'a> {
    /// Starts; `avoid` names the files of the host that must not be read.
    pub(crate) fn new(
        interrupt: &'a Interrupt,
        reflink: Reflink,
        avoid: Vec<FileId>,
    ) -> Copier<'a> {
        Copier {
            interrupt,
            reflink,
            avoid,
            root: None,
            progress: Progress::start(),
            report: CopyReport::start(),
            buffer: vec![0; CHUNK],
        }
    }

    /// Counts the bytes to copy, if somebody watches.
    pub(crate) fn expect<'p>(&self, sources: impl Iterator<Item = &'p Place<'p>>) {
        if self.progress.is_visible() {
            self.progress.expect(sources.map(weigh).sum());
        }
    }

    /// Copies what is at `from`, and everything below it, to `to`.
    pub(crate) fn copy(&mut self, from: &Place<'_>, to: &Place<'_>) -> Result<(), Stop> {
        self.root = None;
        self.entry(from, to)
    }

    /// Copies the one file at `from`, or where a symbolic link there leads, to `to`.
    pub(crate) fn copy_through(&mut self, from: &Place<'_>, to: &Place<'_>) -> Result<(), Stop> {
        let copied = match from.stat_through() {
            Ok(Some(stat)) => self.file(from, &stat, to),
            Ok(None) => Err(missing(from)),
            Err(error) => Err(error),
        };
        self.settle(copied)
    }

    /// What was done.
    pub(crate) fn finish(mut self, is_interrupted: bool) -> CopyReport {
        self.report.finish(is_interrupted);
        self.report
    }

    fn entry(&mut self, from: &Place<'_>, to: &Place<'_>) -> Result<(), Stop> {
        if self.interrupt.is_set() {
            return Err(Stop::Interrupted);
        }
        let stat = match from.stat() {
            Ok(Some(stat)) => stat,
            Ok(None) => return self.settle(Err(missing(from))),
            Err(error) => return self.settle(Err(error)),
        };
        match stat.kind {
            FileKind::Dir => return self.dir(from, &stat, to),
            FileKind::Special(what) => self.skip(from, &format!("is a {what}")),
            FileKind::File if self.avoid.contains(&stat.id) => {
                self.skip(from, "is the pool itself");
            }
            FileKind::File => {
                let copied = self.file(from, &stat, to);
                return self.settle(copied);
            }
            FileKind::Symlink => {
                let copied = self.link(from, &stat, to);
                return self.settle(copied);
            }
        }
        Ok(())
    }

    fn dir(&mut self, from: &Place<'_>, stat: &Stat, to: &Place<'_>) -> Result<(), Stop> {
        if let Err(error) = self.enter(stat, to) {
            return self.settle(Err(error));
        }
        self.report.dirs += 1;
        let mut names = match from.tree.list(&from.path) {
            Ok(names) => names,
            Err(error) => return self.settle(Err(error)),
        };
        // By name, so that who reads where a copy stopped knows what is there.
        names.sort_unstable();
        for name in names {
            self.entry(&from.join(&name), &to.join(&name))?;
        }
        // Last, because filling a directory changes its time, and its mode may forbid filling it.
        let dressed = to.tree.dress(&to.path, stat);
        self.settle(dressed)
    }

    /// Makes the directory `to` unless it is there.
    fn enter(&mut self, from: &Stat, to: &Place<'_>) -> anyhow::Result<()> {
        match to.stat_through()? {
            None => to.tree.make_dir(&to.path)?,
            Some(stat) if stat.kind == FileKind::Dir => {}
            Some(_) => bail!("{}: a file is in the way of a directory; remove it first", to.show()),
        }
        let made = to.stat_through()?.map(|stat| stat.id);
        let root = self.root.get_or_insert(made.unwrap_or(from.id));
        if from.id == *root {
            bail!("{}: a directory cannot be copied into itself", to.show());
        }
        Ok(())
    }

    fn file(&mut self, from: &Place<'_>, stat: &Stat, to: &Place<'_>) -> anyhow::Result<()> {
        match stat.kind {
            FileKind::File | FileKind::Symlink => {}
            FileKind::Dir => bail!("{}: is a directory; copy it with -r", from.show()),
            FileKind::Special(what) => bail!("{}: is a {what}, it has no bytes", from.show()),
        }
        if self.avoid.contains(&stat.id) {
            bail!("{}: is the pool itself, which changes while it is copied", from.show());
        }
        let source = from.tree.open(&from.path)?;
        let is_new = to.stat()?.is_none();
        self.clear_way(to, Some(stat))?;
        let sink = to.tree.create(&to.path, stat)?;
        match self.bytes(source.as_ref(), sink.as_ref(), stat) {
            Ok(bytes) => {
                self.report.files += 1;
                self.report.bytes += bytes;
                Ok(())
            }
            Err(error) => {
                drop(sink);
                // What stood there before is not this copy's to remove.
                if is_new {
                    to.tree.remove(&to.path)?;
                }
                Err(error)
            }
        }
    }

    /// Makes one file a clone of the other, if that was asked for and is possible.
    fn clone(&mut self, from: &dyn Source, to: &dyn Sink, stat: &Stat) -> anyhow::Result<bool> {
        if self.reflink == Reflink::Never {
            return Ok(false);
        }
        match to.clone_from(from, stat.size) {
            Err(error) if self.reflink == Reflink::Always => return Err(error),
            Err(_) => return Ok(false),
            Ok(()) => {}
        }
        to.finish(stat.size, stat)?;
        self.report.shared += stat.size;
        self.progress.add(stat.size);
        Ok(true)
    }

    /// Copies the data of a file, leaves its holes, and returns its length.
    fn bytes(&mut self, from: &dyn Source, to: &dyn Sink, stat: &Stat) -> anyhow::Result<u64> {
        if self.clone(from, to, stat)? {
            return Ok(stat.size);
        }
        let mut at = 0;
        let mut len = stat.size;
        while let Some(data) = from.data(at)? {
            at = data.start;
            while at < data.end {
                if self.interrupt.is_set() {
                    return Err(Interrupted.into());
                }
                let want = usize::try_from(data.end - at).unwrap_or(CHUNK).min(CHUNK);
                let chunk = self.buffer.get_mut(..want).expect("the buffer holds a chunk");
                let read = from.read_at(chunk, at)?;
                to.write_at(chunk.get(..read).expect("no more is read than asked for"), at)?;
                let read = u64::try_from(read).expect("a length in memory fits 64 bits");
                at += read;
                self.progress.add(read);
                if read == 0 {
                    break;
                }
            }
            if at < data.end {
                // The file shrank while it was read.
                len = at;
                break;
            }
        }
        to.finish(len.max(at), stat)?;
        Ok(len.max(at))
    }

    fn link(&mut self, from: &Place<'_>, stat: &Stat, to: &Place<'_>) -> anyhow::Result<()> {
        let target = from.tree.read_link(&from.path)?;
        self.clear_way(to, None)?;
        to.tree.make_link(&to.path, &target)?;
        to.tree.dress(&to.path, stat)?;
        self.report.symlinks += 1;
        Ok(())
    }

    /// Makes sure that a file or symbolic link can come to `to`: a file stays and is overwritten in
    /// place, a symbolic link is removed. A directory, a device and the pool itself are errors.
    fn clear_way(&self, to: &Place<'_>, file: Option<&Stat>) -> anyhow::Result<()> {
        let leads_to = to.stat_through()?;
        if leads_to.is_some_and(|stat| self.avoid.contains(&stat.id)) {
            bail!("{}: is the pool itself; write {0}:/ to copy into it", to.show());
        }
        let Some(there) = to.stat()? else { return Ok(()) };
        match (there.kind, file) {
            (FileKind::Dir, _) => {
                bail!("{}: a directory is in the way of a file; remove it first", to.show())
            }
            (FileKind::Special(what), _) => {
                bail!("{}: a {what} is in the way; it is not replaced", to.show())
            }
            (FileKind::File, Some(file)) if file.id == there.id => {
                bail!("{}: a file cannot be copied onto itself", to.show())
            }
            (FileKind::File, Some(_)) => Ok(()),
            _ => to.tree.remove(&to.path),
        }
    }

    fn skip(&mut self, from: &Place<'_>, why: &str) {
        self.report.skipped += 1;
        self.progress.note(&format!("{}: skipped: it {why}", from.show()));
    }

    /// Reports a failure and goes on, unless nothing more can succeed.
    fn settle(&mut self, result: anyhow::Result<()>) -> Result<(), Stop> {
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.is::<Interrupted>() => Err(Stop::Interrupted),
            Err(error) if super::is_full(&error) => Err(Stop::Failed(error)),
            Err(error) => {
                self.report.failed += 1;
                self.progress.note(&crate::output::chain(&error));
                Ok(())
            }
        }
    }
}

/// The bytes of all files at and below `place`, as far as they can be read.
fn weigh(place: &Place<'_>) -> u64 {
    match place.stat() {
        Ok(Some(stat)) if stat.kind == FileKind::Dir => {
            let names = place.tree.list(&place.path).unwrap_or_default();
            names.iter().map(|name| weigh(&place.join(name))).sum()
        }
        Ok(Some(stat)) if stat.kind == FileKind::File => stat.size,
        _ => 0,
    }
}

fn missing(place: &Place<'_>) -> anyhow::Error {
    anyhow::anyhow!("{}: no such file or directory", place.show())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::host::HostTree;

    #[test]
    fn an_interrupt_ends_the_copy_in_the_middle_of_a_file_and_leaves_no_part_of_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, b"bytes").expect("a file");
        let interrupt = Interrupt::raised();
        let mut copier = Copier::new(&interrupt, Reflink::Auto, Vec::new());
        let copied =
            copier.copy_through(&Place::new(&HostTree, &from), &Place::new(&HostTree, &to));
        assert!(matches!(copied, Err(Stop::Interrupted)), "{copied:?}");
        assert_eq!(copier.finish(true).files, 0);
        assert!(!to.exists());
    }
}
