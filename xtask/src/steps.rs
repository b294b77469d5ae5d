//! The steps that call cargo.

use anyhow::{Result, ensure};
use std::process::{Command, Stdio};

/// The test targets that hold models of loom.
const LOOM_TARGETS: &[&str] = &["loom", "loom_orderings"];

/// Checks the formatting.
pub(crate) fn format() -> Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])
}

/// Lints every target; a warning is a failure.
pub(crate) fn clippy() -> Result<()> {
    cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"], &[])
}

/// Runs every test.
pub(crate) fn test() -> Result<()> {
    cargo(&["test", "--workspace", "--quiet"], &[])
}

/// Checks licences, sources and duplicates of the dependencies, where cargo-deny is installed.
pub(crate) fn deny() -> Result<()> {
    let found = Command::new("cargo")
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if !found.success() {
        println!("xtask: SKIPPED: cargo-deny is not installed; `cargo install cargo-deny` adds it");
        return Ok(());
    }
    cargo(&["deny", "--log-level", "error", "check", "bans", "licenses", "sources"], &[])
}

/// Explores interleavings with at most `bound` preemptions: of page maps, of the count of live
/// references by itself, and of entry locks.
pub(crate) fn loom(bound: u32) -> Result<()> {
    let bound = bound.to_string();
    let environment = [("RUSTFLAGS", "--cfg loom"), ("LOOM_MAX_PREEMPTIONS", bound.as_str())];
    let test = |package: &str, which: &[&str]| {
        let mut arguments = vec!["test", "--release", "-p", package, "--target-dir", "target/loom"];
        arguments.extend(which);
        cargo(&arguments, &environment)
    };
    test("udax-mm", &["--lib", "races::"])?;
    LOOM_TARGETS.iter().try_for_each(|target| test("udax-mm", &["--test", target]))?;
    test("udax-mapping", &["--lib", "races::"])
}

/// Runs `count` random schedules of each of these, and as many with few preemptions: a page map,
/// a device, and a mapping.
pub(crate) fn schedules(count: u64, seed: Option<u64>) -> Result<()> {
    let count = count.to_string();
    let seed = seed.map(|seed| seed.to_string());
    let mut environment = vec![("RUSTFLAGS", "--cfg shuttle"), ("UDAX_SCHEDULES", count.as_str())];
    if let Some(seed) = &seed {
        environment.push(("UDAX_SEED", seed));
    }
    let build = ["test", "--release", "--target-dir", "target/shuttle"];
    let packages = ["-p", "udax-mm", "-p", "udax-dev", "-p", "udax-mapping"];
    let test = ["--test", "schedules", "--", "--nocapture"];
    cargo(&[&build[..], &packages[..], &test[..]].concat(), &environment)
}

/// Runs the crash enumerator.
pub(crate) fn crash(arguments: &[String]) -> Result<()> {
    let mut command = vec!["run", "--release", "--quiet", "-p", "udax-crash", "--"];
    command.extend(arguments.iter().map(String::as_str));
    cargo(&command, &[])
}

/// Runs `steps` random operations of a filesystem against the model.
pub(crate) fn random(steps: u64, seed: Option<u64>) -> Result<()> {
    operations(&["-p", "udax", "--test", "random", "--", "--nocapture"], steps, seed, None)
}

/// Parts of the workspace that have a stress run.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Stressed {
    /// Files that are mapped, pinned and changed by four threads.
    Mapping,
    /// Pages that threads touch at once through mappings that want them in other sizes; each step
    /// is a round of each test.
    Faults,
    /// A device on a stack of tables that change, until it is killed; for a minute.
    Devices,
}

/// Runs threads against the model, for `steps` operations or some minutes, with the order of locks
/// recorded.
pub(crate) fn stress(
    what: Stressed,
    steps: u64,
    minutes: Option<u64>,
    seed: Option<u64>,
) -> Result<()> {
    let test =
        |name| ["-p", "udax", "--features", "lock-order", "--test", name, "--", "--nocapture"];
    match what {
        Stressed::Mapping => {
            let minutes = minutes.map(|minutes| minutes.to_string());
            let minutes = minutes.as_ref().map(|minutes| ("UDAX_MINUTES", minutes.as_str()));
            operations(&test("stress"), steps, seed, minutes)
        }
        Stressed::Faults => {
            ensure!(minutes.is_none(), "faults race for a number of rounds: give `--steps`");
            ensure!(seed.is_none(), "nothing is drawn at random when faults race");
            let test = ["-p", "udax-mapping", "--test", "races", "--", "--nocapture"];
            operations(&test, steps, None, None)
        }
        Stressed::Devices => {
            let seconds = (60 * minutes.unwrap_or(1)).to_string();
            let seconds = Some(("UDAX_SECONDS", seconds.as_str()));
            operations(&test("stress_devices"), steps, seed, seconds)
        }
    }
}

/// Runs `steps` random operations of page maps against the model, each with a check of all
/// invariants after it.
pub(crate) fn model(steps: u64, seed: Option<u64>) -> Result<()> {
    operations(
        &["-p", "udax-mm", "--test", "pages", "model::", "--", "--nocapture"],
        steps,
        seed,
        None,
    )
}

fn operations(
    test: &[&str],
    steps: u64,
    seed: Option<u64>,
    more: Option<(&str, &str)>,
) -> Result<()> {
    let steps = steps.to_string();
    let seed = seed.map(|seed| seed.to_string());
    // What a thread gives back stays in its part of the heap: with one part, growth is told from scatter.
    let mut environment = vec![("UDAX_STEPS", steps.as_str()), ("MALLOC_ARENA_MAX", "1")];
    environment.extend(more);
    if let Some(seed) = &seed {
        environment.push(("UDAX_SEED", seed));
    }
    let arguments: Vec<_> = ["test", "--release"].iter().chain(test).copied().collect();
    cargo(&arguments, &environment)
}

/// Runs cargo with `environment` added, and fails if it does.
fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let status = Command::new("cargo")
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(crate::source::root())
        .status()?;
    ensure!(status.success(), "`cargo {}` ended with {status}", arguments.join(" "));
    Ok(())
}
