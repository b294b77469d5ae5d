//! One test: built by cargo, then run by itself with a time limit.
//!
//! The program is run without cargo between, so that killing it kills the test.

use super::recorded::{Target, TestName};
use super::scratch::Scratch;
use anyhow::{Context, Result};
use cargo_metadata::Message;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

/// How often to look whether a test has ended.
const LOOK: Duration = Duration::from_millis(10);

/// A failed comparison has this many lines: what was compared, left, right.
const MESSAGE_LINES: usize = 3;
/// A line of a report is not longer than this; values can be.
const MESSAGE_LENGTH: usize = 160;

/// How a test ended.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Run {
    Passed,
    /// What it said, in one line.
    Failed(String),
    TimedOut,
}

/// Builds the program that holds `test`. The inner error is what the compiler said.
pub(super) fn build(scratch: &Scratch, test: &TestName) -> Result<Result<PathBuf, String>> {
    let mut cargo = Command::new("cargo");
    // A mutant may leave something unused; the lints are not what judges it.
    let mut flags = "--cap-lints=warn".to_owned();
    cargo.args(["test", "--no-run", "--message-format=json-render-diagnostics"]);
    cargo.args(["-p", &test.package]);
    match &test.target {
        Target::Lib | Target::LoomLib => cargo.arg("--lib"),
        Target::Bins => cargo.arg("--bins"),
        Target::Test(name) | Target::Loom(name) => cargo.args(["--test", name]),
        Target::Shuttle => cargo.args(["--test", "schedules"]),
    };
    let target = match &test.target {
        Target::Lib | Target::Bins | Target::Test(_) => "build",
        Target::LoomLib | Target::Loom(_) => {
            // Without --release: a model takes longer, its build much less.
            flags += " --cfg loom";
            "build-loom"
        }
        Target::Shuttle => {
            flags += " --cfg shuttle";
            "build-shuttle"
        }
    };
    cargo.arg("--target-dir").arg(scratch.target(target)).env("RUSTFLAGS", flags);
    let built = cargo.current_dir(scratch.root()).output().context("cannot run cargo")?;
    if !built.status.success() {
        return Ok(Err(first_error(&String::from_utf8_lossy(&built.stderr))));
    }
    let program = test_program(&built.stdout)?;
    Ok(Ok(program.with_context(|| format!("cargo built no program for {test}"))?))
}

/// Runs `test`, and kills it after `limit`.
pub(super) fn run(
    scratch: &Scratch,
    test: &TestName,
    program: &Path,
    limit: Duration,
) -> Result<Run> {
    let output = File::create(scratch.output())?;
    let package = scratch.root().join("crates").join(&test.package);
    let mut command = Command::new(program);
    if test.target == Target::Shuttle {
        command.env("UDAX_SEED", "1");
    }
    let mut child = command
        .args(["--exact", &test.path])
        .current_dir(&package)
        .env("CARGO_MANIFEST_DIR", &package)
        .env("LOOM_MAX_PREEMPTIONS", "2")
        .env("RUST_BACKTRACE", "0")
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let Some(succeeded) = wait(&mut child, limit)? else {
        return Ok(Run::TimedOut);
    };
    let said = fs::read(scratch.output())?;
    Ok(judged(succeeded, &String::from_utf8_lossy(&said)))
}

/// Whether the child succeeded; none if it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<bool>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if started.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        // The standard library has no wait with a limit.
        thread::sleep(LOOK);
    }
}

/// A run passes if exactly one test did: a name that matches none succeeds as well.
fn judged(succeeded: bool, said: &str) -> Run {
    if succeeded && said.contains("test result: ok. 1 passed") {
        return Run::Passed;
    }
    if succeeded {
        return Run::Failed("there is no test of this name".to_owned());
    }
    Run::Failed(last_words(said).chars().take(MESSAGE_LENGTH).collect())
}

/// The message of the first panic in one line, or the last line.
fn last_words(said: &str) -> String {
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    if lines.any(|line| line.contains("panicked at")) {
        let message = lines.take_while(|line| !line.starts_with("note: ")).take(MESSAGE_LINES);
        return message.collect::<Vec<_>>().join(" ");
    }
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    last.unwrap_or("it said nothing").to_owned()
}

fn first_error(said: &str) -> String {
    let error = said.lines().find(|line| line.starts_with("error"));
    error.unwrap_or("cargo failed").to_owned()
}

fn test_program(messages: &[u8]) -> Result<Option<PathBuf>> {
    for message in Message::parse_stream(messages) {
        if let Message::CompilerArtifact(artifact) = message?
            && artifact.profile.test
            && let Some(program) = artifact.executable
        {
            return Ok(Some(program.into()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(said: &str) -> Run {
        Run::Failed(said.to_owned())
    }

    #[test]
    fn a_run_passes_if_exactly_one_test_did() {
        let none = "test result: ok. 0 passed; 0 failed";
        assert_eq!(judged(true, "test result: ok. 1 passed; 0 failed"), Run::Passed);
        assert_eq!(judged(true, none), failed("there is no test of this name"));
    }

    #[test]
    fn a_failure_says_what_the_first_panic_said() {
        let panic = "running 1 test\nthread 'x' panicked at a.rs:1:2:\n";
        let said = |message: &str| judged(false, &format!("{panic}{message}\nnote: run with\n"));
        assert_eq!(said("I-11: a put"), failed("I-11: a put"));
        assert_eq!(said("not equal\n  left: 1\n right: 2"), failed("not equal left: 1 right: 2"));
        assert_eq!(judged(false, "a\nmemory ran out\n\n"), failed("memory ran out"));
        assert_eq!(judged(false, ""), failed("it said nothing"));
    }

    #[test]
    fn a_child_that_takes_too_long_is_killed() {
        let spawn = |program: &str, seconds| Command::new(program).arg(seconds).spawn().unwrap();
        assert_eq!(wait(&mut spawn("sleep", "1000"), Duration::ZERO).unwrap(), None);
        assert_eq!(wait(&mut spawn("sleep", "0"), Duration::MAX).unwrap(), Some(true));
        assert_eq!(wait(&mut spawn("false", "0"), Duration::MAX).unwrap(), Some(false));
    }

    #[test]
    fn the_first_error_of_a_compiler_is_told() {
        assert_eq!(first_error("warning: a\nerror[E0308]: b\nerror: c"), "error[E0308]: b");
    }
}
