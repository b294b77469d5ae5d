//! Where the files of the matrix lie: a disk, /dev/shm, or no place at all.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::TempDir;

use super::facts::Backing;

/// The directory of tmpfs that every distribution has.
const SHM: &str = "/dev/shm";

/// Directories of this run, removed with it.
pub(crate) struct Places {
    disk: TempDir,
    shm: Option<TempDir>,
    /// The type of the filesystem of `disk`.
    filesystem: String,
}

impl Places {
    /// Makes directories: one below `dir`, or below the first usual place that is not in memory.
    ///
    /// # Errors
    ///
    /// Returns the host's error if there is no place for a file on a disk.
    pub(crate) fn new(dir: Option<&Path>) -> anyhow::Result<Places> {
        let disk = match dir {
            Some(dir) => scratch(dir).with_context(|| dir.display().to_string())?,
            None => on_a_disk()?,
        };
        let filesystem = filesystem(disk.path()).unwrap_or_else(|| "local filesystem".to_owned());
        Ok(Places { disk, shm: scratch(Path::new(SHM)).ok(), filesystem })
    }

    /// Where a file on a disk goes.
    pub(crate) fn disk(&self) -> &Path {
        self.disk.path()
    }

    /// Where a file in memory with a name goes.
    pub(crate) fn shm(&self) -> Option<&Path> {
        self.shm.as_ref().map(TempDir::path)
    }

    /// The type of the filesystem on the disk.
    pub(crate) fn filesystem(&self) -> &str {
        &self.filesystem
    }

    /// How the row of `backing` is called.
    pub(crate) fn title(&self, backing: Backing) -> String {
        match backing {
            Backing::Disk => format!("file on {}", self.filesystem),
            Backing::Tmpfs => "file on tmpfs".to_owned(),
            Backing::Memfd => "memfd".to_owned(),
            Backing::Sealed => "memfd, F_SEAL_SHRINK".to_owned(),
            Backing::Huge => "memfd of huge pages".to_owned(),
            Backing::Udax => "udax pool in memory".to_owned(),
        }
    }
}

fn scratch(dir: &Path) -> std::io::Result<TempDir> {
    tempfile::Builder::new().prefix("udax-matrix.").tempdir_in(dir)
}

/// A directory of a filesystem that is not in memory, if one of the usual places has one.
fn on_a_disk() -> anyhow::Result<TempDir> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let usual = [Some(std::env::temp_dir()), std::env::current_dir().ok(), home];
    let mut in_memory = None;
    for dir in usual.into_iter().flatten() {
        let Ok(made) = scratch(&dir) else { continue };
        if filesystem(made.path()).as_deref() != Some("tmpfs") {
            return Ok(made);
        }
        in_memory.get_or_insert(made);
    }
    match in_memory {
        Some(made) => Ok(made),
        None => bail!("no directory can be written to; name one with --dir"),
    }
}

/// The type of the filesystem that holds `path`.
fn filesystem(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    type_of(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &path)
}

/// The type of the filesystem that holds `path`, by the text of a mountinfo. Of mounts over each
/// other the last is seen.
fn type_of(mountinfo: &str, path: &Path) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?.replace("\\040", " ");
        let is_above = path.starts_with(&point);
        is_above.then(|| (point.len(), filesystem.split(' ').next().unwrap_or_default()))
    });
    mounts.max_by_key(|(len, _)| *len).map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_and_last_mount_holds_a_path() {
        let mountinfo = "\
            22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n\
            23 22 0:5 / /tmp rw - tmpfs tmpfs rw\n\
            24 23 0:6 / /tmp/a\\040b rw - xfs /dev/vdb rw\n\
            25 22 0:7 / /tmp rw - btrfs /dev/vdc rw\n";
        let cases =
            [("/home", "ext4"), ("/tmpfile", "ext4"), ("/tmp/x", "btrfs"), ("/tmp/a b/x", "xfs")];
        for (path, expected) in cases {
            assert_eq!(type_of(mountinfo, Path::new(path)).as_deref(), Some(expected), "{path}");
        }
    }
}
