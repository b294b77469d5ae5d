//! Runs the tool in a directory of its own, and compares trees of files.

// Each test binary uses a part of this; what fails here fails the test.
#![allow(dead_code, clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;

/// A directory to run the tool in.
pub(crate) struct Bench {
    dir: TempDir,
}

/// What a run of the tool gave.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Bench {
    /// An empty directory.
    pub(crate) fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap() }
    }

    /// A directory with a pool `p.udax` of `size`.
    pub(crate) fn with_pool(size: &str) -> Bench {
        let bench = Bench::new();
        bench.ok(&["create", "p.udax", "--size", size]);
        bench
    }

    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.dir.path().join(name.as_ref())
    }

    /// The names in the directory, sorted.
    pub(crate) fn list(&self) -> Vec<std::ffi::OsString> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    /// The tool, to be run in the directory.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_udax"));
        command.args(args).current_dir(self.dir.path());
        command
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Run {
        Run::new(self.command(args).output().unwrap())
    }

    /// Runs the tool, which must succeed; returns its stdout.
    pub(crate) fn ok<S: AsRef<OsStr> + std::fmt::Debug>(&self, args: &[S]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        run.stdout
    }

    /// Runs the tool with `--json`, and parses what it prints.
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// Asserts that the pool checks clean.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.json(&["check", "p.udax"])["clean"], true);
    }
}

impl Run {
    pub(crate) fn new(output: Output) -> Run {
        Run {
            code: output.status.code().expect("the tool was not killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Makes a tree with everything that a copy has to keep.
pub(crate) fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::create_dir(root.join("nothing in it")).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("deep/small"), b"small").unwrap();
    fs::write(root.join("deep/er/large"), pattern(5 << 20)).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"not utf-8 \xff\xfe")), b"named by bytes").unwrap();
    fs::write(root.join("x".repeat(255)), b"a long name").unwrap();
    fs::hard_link(root.join("deep/small"), root.join("the same")).unwrap();
    std::os::unix::fs::symlink("deep/small", root.join("link")).unwrap();
    std::os::unix::fs::symlink("leads nowhere", root.join("deep/dangling")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"island", 8 << 20).unwrap();
    sparse.set_len(64 << 20).unwrap();
    fs::set_permissions(root.join("deep/small"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o4751)).unwrap();
    for name in ["deep/small", "deep/er/large", "deep/er"] {
        let time = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
        fs::File::open(root.join(name)).unwrap().set_modified(time).unwrap();
    }
    fs::set_permissions(root.join("deep/er"), fs::Permissions::from_mode(0o550)).unwrap();
}

/// Bytes that tell by their place.
pub(crate) fn pattern(len: u32) -> Vec<u8> {
    (0..len / 4).flat_map(u32::to_le_bytes).collect()
}

/// Asserts that two trees have the same names, kinds, bytes, modes, times and link targets.
pub(crate) fn assert_same(a: &Path, b: &Path) {
    let (of_a, of_b) = (fs::symlink_metadata(a).unwrap(), fs::symlink_metadata(b).unwrap());
    let shown = format!("{} and {}", a.display(), b.display());
    assert_eq!(of_a.file_type(), of_b.file_type(), "the kinds of {shown}");
    assert_eq!(of_a.modified().unwrap(), of_b.modified().unwrap(), "the times of {shown}");
    if of_a.is_symlink() {
        assert_eq!(fs::read_link(a).unwrap(), fs::read_link(b).unwrap(), "{shown}");
        return;
    }
    assert_eq!(of_a.mode(), of_b.mode(), "the modes of {shown}");
    if of_a.is_dir() {
        let names = names(a);
        assert_eq!(names, self::names(b), "the names in {shown}");
        for name in names {
            assert_same(&a.join(&name), &b.join(&name));
        }
    } else {
        assert!(fs::read(a).unwrap() == fs::read(b).unwrap(), "the bytes of {shown}");
    }
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}
