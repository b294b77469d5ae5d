//! All of CI: the steps in order, each named before it runs. The first failure ends the run.

use crate::{steps, tidy};
use anyhow::{Context, Result};

type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("format", steps::format),
    ("clippy", steps::clippy),
    ("tidy", tidy::run),
    ("dependencies", steps::deny),
    ("tests (documentation examples and must-not-compile tests included)", steps::test),
    ("loom at bound 2", || steps::loom(2)),
    ("1,000 random schedules", || steps::schedules(1000, None)),
];

/// Runs every step of CI.
pub(crate) fn run() -> Result<()> {
    for (name, step) in STEPS {
        println!("xtask: {name}");
        step().with_context(|| format!("{name} failed"))?;
    }
    println!("xtask: all {} steps passed", STEPS.len());
    Ok(())
}
