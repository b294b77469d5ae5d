//! The copy of the workspace that mutants are applied to, and what cargo builds of it.
//!
//! A file whose text is the same is not written again, so cargo builds only what changed since the
//! last run. What an interrupted run left in the copy is overwritten by the next one.

use crate::source;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use walkdir::WalkDir;

/// The copy. One run at a time has it.
pub(super) struct Scratch {
    folder: PathBuf,
    root: PathBuf,
    /// Locked until it is closed.
    _lock: File,
}

impl Scratch {
    /// Copies the files of the workspace that git does not ignore.
    pub(super) fn open() -> Result<Scratch> {
        let folder = source::root().join("target/mutants");
        fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.try_lock().context("another run of the mutants is under way")?;
        let root = folder.join("copy");
        mirror(source::root(), &files(source::root())?, &root)?;
        Ok(Scratch { folder, root, _lock: lock })
    }

    /// The root of the copied workspace.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo builds; code under `--cfg loom` has a place of its own.
    pub(super) fn target(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the output of a test goes.
    pub(super) fn output(&self) -> PathBuf {
        self.folder.join("output")
    }
}

/// What git tracks or would track, and exists.
fn files(from: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(from)
        .output()
        .context("cannot run git")?;
    ensure!(listed.status.success(), "git lists no files here; mutants need a checkout");
    let names = String::from_utf8(listed.stdout).context("a file name is no UTF-8")?;
    let files = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
    Ok(files.filter(|name| from.join(name).is_file()).collect())
}

/// Makes `to` hold exactly `files` of `from`, and touches no file that is the same already.
fn mirror(from: &Path, files: &[PathBuf], to: &Path) -> Result<()> {
    let wanted: BTreeSet<&Path> = files.iter().map(PathBuf::as_path).collect();
    for entry in WalkDir::new(to).into_iter().filter_map(Result::ok) {
        let name = entry.path().strip_prefix(to).expect("the walk starts there");
        if entry.file_type().is_file() && !wanted.contains(name) {
            fs::remove_file(entry.path())?;
        }
    }
    for name in files {
        let text = fs::read(from.join(name))?;
        let copied = to.join(name);
        if fs::read(&copied).is_ok_and(|old| old == text) {
            continue;
        }
        fs::create_dir_all(copied.parent().expect("a file lies in a folder"))?;
        fs::write(&copied, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_mirror_holds_what_is_listed_and_nothing_else() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(from.path(), "src/a.rs", "a");
        write(from.path(), "b.rs", "b");
        write(from.path(), "ignored", "i");
        write(to.path(), "src/a.rs", "a mutant that an interrupted run left");
        write(to.path(), "old/c.rs", "c");

        mirror(from.path(), &["src/a.rs".into(), "b.rs".into()], to.path()).unwrap();

        let read = |name| fs::read_to_string(to.path().join(name)).ok();
        assert_eq!(read("src/a.rs").as_deref(), Some("a"));
        assert_eq!(read("b.rs").as_deref(), Some("b"));
        assert_eq!((read("ignored"), read("old/c.rs")), (None, None));
    }

    #[test]
    fn a_mirror_leaves_the_time_of_a_file_that_is_the_same() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(from.path(), "a.rs", "a");
        write(to.path(), "a.rs", "a");
        let old = std::time::SystemTime::UNIX_EPOCH;
        File::options()
            .write(true)
            .open(to.path().join("a.rs"))
            .unwrap()
            .set_modified(old)
            .unwrap();

        mirror(from.path(), &["a.rs".into()], to.path()).unwrap();

        assert_eq!(fs::metadata(to.path().join("a.rs")).unwrap().modified().unwrap(), old);
    }
}
