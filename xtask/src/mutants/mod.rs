//! Recorded mutants: lines that were broken on purpose, and the test that has to notice each.
//!
//! A test is accepted with the mutant that it kills; this keeps the record true. Mutants are data
//! (`xtask/mutants/*.toml`, read by [`recorded`]). They are applied to a copy of the workspace
//! ([`scratch`]), one at a time, and the test that each names is run there ([`trial`]). The working
//! tree is only read, so an interrupted run leaves nothing behind.

pub(crate) mod recorded;
mod scratch;
mod trial;

use anyhow::{Result, bail, ensure};
use recorded::{Applied, Mutant, TestName};
use scratch::Scratch;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};
use trial::Run;

/// A mutant that hangs is given up after the time its test takes, this many times over...
const SLOWER: u32 = 10;
/// ...but not before this.
const SHORTEST_LIMIT: Duration = Duration::from_secs(20);

/// Which mutants, and how to tell of them.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Takes only the mutants whose name, file, reason or test contains this text.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Prints the mutants and what they stand for, and applies none.
    #[arg(long)]
    list: bool,
    /// Prints one JSON array; progress goes to standard error.
    #[arg(long)]
    json: bool,
}

/// What became of a mutant. Only a death is good.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// The test failed.
    Killed,
    /// The test did not come back: a hang is a death as well.
    KilledByTimeout,
    Survived,
    DoesNotApply,
    DoesNotCompile,
}

/// One line of the result.
#[derive(Serialize)]
struct Verdict<'a> {
    #[serde(flatten)]
    mutant: &'a Mutant,
    outcome: Outcome,
    /// What the test, the compiler or the text said.
    said: String,
    seconds: f64,
}

/// How long each test may take; every one of them passes without a mutant.
type Limits = BTreeMap<TestName, Duration>;

/// Applies the recorded mutants that `options` names, and fails unless every one dies.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut mutants = recorded::all()?;
    if let Some(text) = &options.only {
        mutants.retain(|mutant| mutant.mentions(text));
    }
    ensure!(!mutants.is_empty(), "no mutant is recorded that mentions this text");
    if options.list {
        return list(&mutants, options.json);
    }
    // Mutants of one test target stand together, so that each target is built in one row.
    mutants.sort_by(|a, b| a.test.cmp(&b.test));
    let scratch = Scratch::open()?;
    let limits = check_tests(&scratch, &mutants)?;
    let verdicts = try_all(&scratch, &mutants, &limits)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&verdicts)?);
    }
    summary(&verdicts)
}

fn list(mutants: &[Mutant], json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(mutants)?);
        return Ok(());
    }
    for mutant in mutants {
        println!(
            "{}: {}\n    {}\n    dies in {}",
            mutant.file, mutant.name, mutant.why, mutant.test
        );
    }
    println!("{} mutants", mutants.len());
    Ok(())
}

/// Runs each test without a mutant. A test that fails anyway would prove nothing.
fn check_tests(scratch: &Scratch, mutants: &[Mutant]) -> Result<Limits> {
    let mut limits = Limits::new();
    let mut failed = Vec::new();
    for test in mutants.iter().map(|mutant| &mutant.test) {
        if limits.contains_key(test) {
            continue;
        }
        eprintln!("mutants: without a mutant: {test}");
        let program = match trial::build(scratch, test)? {
            Ok(program) => program,
            Err(said) => bail!("the tests do not compile without a mutant: {said}"),
        };
        let started = Instant::now();
        match trial::run(scratch, test, &program, Duration::MAX)? {
            Run::Passed => {
                let limit = SHORTEST_LIMIT.max(started.elapsed() * SLOWER);
                limits.insert(test.clone(), limit);
            }
            Run::Failed(said) => failed.push(format!("{test}: {said}")),
            Run::TimedOut => unreachable!("there is no limit"),
        }
    }
    ensure!(failed.is_empty(), "these tests fail without a mutant:\n{}", failed.join("\n"));
    Ok(limits)
}

fn try_all<'a>(
    scratch: &Scratch,
    mutants: &'a [Mutant],
    limits: &Limits,
) -> Result<Vec<Verdict<'a>>> {
    let mut verdicts = Vec::new();
    for (n, mutant) in mutants.iter().enumerate() {
        let started = Instant::now();
        let (outcome, said) = try_one(scratch, mutant, limits[&mutant.test])?;
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("[{}/{}] {outcome}: {} ({seconds:.1} s)", n + 1, mutants.len(), mutant.name);
        eprintln!("        {said}");
        verdicts.push(Verdict { mutant, outcome, said, seconds });
    }
    Ok(verdicts)
}

/// Applies one mutant to the copy, runs its test, and puts the file back.
fn try_one(scratch: &Scratch, mutant: &Mutant, limit: Duration) -> Result<(Outcome, String)> {
    let path = scratch.root().join(&mutant.file);
    let whole = fs::read_to_string(&path).unwrap_or_default();
    let mutated = match mutant.apply(&whole) {
        Applied::Once(text) => text,
        Applied::Found(times) => {
            let said = format!("its text is found {times} times in {}", mutant.file);
            return Ok((Outcome::DoesNotApply, said));
        }
    };
    fs::write(&path, mutated)?;
    let outcome = judge(scratch, &mutant.test, limit);
    fs::write(&path, whole)?;
    outcome
}

fn judge(scratch: &Scratch, test: &TestName, limit: Duration) -> Result<(Outcome, String)> {
    let program = match trial::build(scratch, test)? {
        Ok(program) => program,
        Err(said) => return Ok((Outcome::DoesNotCompile, said)),
    };
    Ok(match trial::run(scratch, test, &program, limit)? {
        Run::Passed => (Outcome::Survived, format!("{test} passes")),
        Run::Failed(said) => (Outcome::Killed, said),
        Run::TimedOut => (Outcome::KilledByTimeout, format!("no end after {limit:.0?}")),
    })
}

fn summary(verdicts: &[Verdict<'_>]) -> Result<()> {
    let count = |outcome| verdicts.iter().filter(|verdict| verdict.outcome == outcome).count();
    let (killed, hung) = (count(Outcome::Killed), count(Outcome::KilledByTimeout));
    eprintln!("mutants: {killed} killed, {hung} killed by the time limit, of {}", verdicts.len());
    let alive = verdicts.len() - killed - hung;
    if alive == 0 {
        return Ok(());
    }
    for verdict in verdicts.iter().filter(|verdict| !verdict.outcome.is_death()) {
        eprintln!("{}: {}: {}", verdict.outcome, verdict.mutant.name, verdict.said);
    }
    bail!("{alive} of {} mutants did not die", verdicts.len())
}

impl Outcome {
    fn is_death(self) -> bool {
        matches!(self, Outcome::Killed | Outcome::KilledByTimeout)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Killed => "killed",
            Outcome::KilledByTimeout => "killed (timed out)",
            Outcome::Survived => "SURVIVED",
            Outcome::DoesNotApply => "DOES NOT APPLY",
            Outcome::DoesNotCompile => "DOES NOT COMPILE",
        })
    }
}
