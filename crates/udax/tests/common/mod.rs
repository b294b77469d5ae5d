//! What the tests of the face share: pools in temporary directories, and child processes.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use tempfile::TempDir;
use udax::{CreateOptions, Error, File, OpenOptions, Pool};

/// 16 MiB.
pub(crate) const SIZE: u64 = 16 << 20;

/// Set in a child: the pool it works on.
const CHILD: &str = "UDAX_TEST_CHILD_POOL";

/// A pool in memory.
pub(crate) fn in_memory() -> Pool {
    Pool::create_in_memory("test", SIZE).expect("memory for a pool")
}

/// A file for reading and writing, made if it does not exist.
pub(crate) fn open(pool: &Pool, path: &str) -> File {
    OpenOptions::new().read(true).write(true).create(true).open(pool, path).expect("a file")
}

/// A file of `len` bytes that are not zero.
pub(crate) fn file(pool: &Pool, path: &str, len: u64) -> File {
    let file = open(pool, path);
    let bytes = vec![7; usize::try_from(len).expect("it fits in memory")];
    file.write_all_at(&bytes, 0).expect("space");
    file
}

/// A directory, and the path of a pool in it that does not exist.
pub(crate) fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("pool.udax");
    (dir, path)
}

/// A new pool in a file.
pub(crate) fn on_file() -> (TempDir, PathBuf, Pool) {
    let (dir, path) = place();
    let pool = Pool::create(&path, SIZE, &CreateOptions::new()).expect("a new pool");
    (dir, path, pool)
}

/// Asserts that a pool is whole: in memory, and on the medium when it is closed.
pub(crate) fn close_clean(path: &Path, pool: Pool) {
    assert_eq!(pool.verify(), Ok(()));
    pool.close().expect("no other handle");
    assert_eq!(Pool::check(path).expect("a pool").problems, []);
}

/// The error of a call that has to fail.
#[track_caller]
pub(crate) fn error<T>(result: Result<T, Error>) -> Error {
    match result {
        Ok(_) => panic!("the call should have failed"),
        Err(error) => error,
    }
}

/// Says that a test shows nothing on this host, past the capture of the test harness.
pub(crate) fn skipped(why: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "SKIPPED, nothing is shown: {why}");
}

/// A process that runs the test `name` of this binary as a child, on the pool at `path`.
pub(crate) struct Helper {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Helper {
    pub(crate) fn start(name: &str, path: &Path) -> Helper {
        Helper::spawn(Helper::command(name, path)).expect("a child")
    }

    /// Starts it as somebody without the rights of root; as ourselves if we have none.
    ///
    /// # Errors
    ///
    /// Fails if nobody else may run this binary.
    pub(crate) fn start_without_rights(name: &str, path: &Path) -> io::Result<Helper> {
        let mut command = Helper::command(name, path);
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        Helper::spawn(command)
    }

    fn command(name: &str, path: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
        command.env(CHILD, path).stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    fn spawn(mut command: Command) -> io::Result<Helper> {
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Ok(Helper { child, lines })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line `word REST` of the child, and returns the rest.
    pub(crate) fn wait_for(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).expect("a line");
            assert_ne!(read, 0, "the child ended before it said {word:?}");
            // The harness writes "test NAME ... " in front of the first line.
            if let Some((_, rest)) = line.split_once(&format!("{word} ")) {
                return rest.trim_end().to_owned();
            }
        }
    }

    /// Waits for the child's end by itself.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let mut said = String::new();
        self.lines.read_to_string(&mut said).expect("text");
        let ended = self.child.wait().expect("a child");
        eprintln!("{said}");
        ended
    }

    /// Kills the child with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a running child");
        self.child.wait().expect("a child");
    }
}

/// The pool a child works on; `None` in an ordinary run of the test.
pub(crate) fn child_pool() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Says a line to the parent.
pub(crate) fn say(word: &str, rest: impl std::fmt::Display) {
    println!("\n{word} {rest}");
}

/// Waits until the parent lets go of the child, or kills it.
pub(crate) fn wait_for_parent() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("stdin");
}
