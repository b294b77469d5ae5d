//! Chooses what of a host directory the tour imports.

use std::path::{Path, PathBuf};

use anyhow::Context;
use walkdir::{DirEntry, WalkDir};

/// What the tour takes from a directory, in an order in which it can be made.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    entries: Vec<Found>,
    bytes: u64,
    /// Directories left out because they say that they can be made again.
    caches: u64,
    /// Files left out because of the limit.
    over_limit: u64,
    /// Files that are neither regular nor symbolic links.
    special: u64,
}

/// One thing to import, by its path below the directory.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Relative to the directory scanned.
    pub(crate) path: PathBuf,
    pub(crate) what: What,
}

/// What was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum What {
    Dir,
    File,
    Symlink,
}

impl Scan {
    /// Walks `dir`, and takes files until `limit` bytes are reached.
    ///
    /// Directories tagged with `CACHEDIR.TAG` (cargo's `target` among them) are left out, and so is
    /// what is mounted below: a walk of `/` must not read `/proc`.
    ///
    /// # Errors
    ///
    /// Returns the error of the host if `dir` itself cannot be read; what cannot be read below it
    /// is left out.
    pub(crate) fn of(dir: &Path, limit: u64) -> anyhow::Result<Scan> {
        std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
        let mut scan = Scan::default();
        let mut walk =
            WalkDir::new(dir).min_depth(1).same_file_system(true).sort_by_file_name().into_iter();
        while let Some(entry) = walk.next() {
            let Ok(entry) = entry else { continue };
            if entry.file_type().is_dir() && entry.path().join("CACHEDIR.TAG").exists() {
                scan.caches += 1;
                walk.skip_current_dir();
                continue;
            }
            scan.take(dir, &entry, limit);
        }
        Ok(scan)
    }

    /// What was found, directories before what they contain.
    pub(crate) fn entries(&self) -> &[Found] {
        &self.entries
    }

    /// The lengths of the files taken.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sentences about what was left out.
    pub(crate) fn notices(&self) -> Vec<String> {
        let all = [
            (self.caches, "directories with a CACHEDIR.TAG (build output) left out"),
            (self.over_limit, "files left out: --limit is reached"),
            (self.special, "sockets, devices and fifos left out"),
        ];
        let some = all.iter().filter(|(count, _)| *count > 0);
        some.map(|(count, text)| format!("{count} {text}")).collect()
    }

    fn take(&mut self, dir: &Path, entry: &DirEntry, limit: u64) {
        let kind = entry.file_type();
        let what = if kind.is_dir() {
            What::Dir
        } else if kind.is_symlink() {
            What::Symlink
        } else if kind.is_file() {
            let len = entry.metadata().map_or(0, |metadata| metadata.len());
            if self.bytes + len > limit {
                self.over_limit += 1;
                return;
            }
            self.bytes += len;
            What::File
        } else {
            self.special += 1;
            return;
        };
        let path = entry.path().strip_prefix(dir).expect("the walk stays below its root");
        self.entries.push(Found { path: path.to_owned(), what });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_is_mounted_below_is_left_out() {
        let root = Path::new("/dev");
        let device = |path: &Path| path.symlink_metadata().expect("it was found").dev();
        let scan = Scan::of(root, 1 << 20).expect("it can be read");
        for found in scan.entries() {
            let above = root.join(&found.path);
            let above = above.parent().expect("it lies below the root");
            assert_eq!(device(above), device(root), "{}", above.display());
        }
    }
}
