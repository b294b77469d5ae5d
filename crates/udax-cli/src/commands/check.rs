//! `udax check`: everything in a pool, compared with what it should be.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use udax::{CheckReport, PAGE_SIZE, Pool};

use crate::opening::InPool;
use crate::output::{Human, Output};
use crate::size::human;

/// Check a pool: read every structure in it and change nothing.
///
/// Exits with 1 if it finds a problem. A pool whose last session died is checked as it will be
/// after its recovery.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax check data.udax
  udax check --json data.udax | jq .problems")]
pub(crate) struct CheckArgs {
    /// The pool.
    pool: PathBuf,
}

/// What `check` prints.
#[derive(Debug, Serialize)]
struct Checked {
    clean: bool,
    files: u64,
    dirs: u64,
    symlinks: u64,
    used: u64,
    free: u64,
    problems: Vec<Found>,
}

/// One problem.
#[derive(Debug, Serialize)]
struct Found {
    object: String,
    found: String,
}

impl CheckArgs {
    /// Checks, and prints what was found.
    ///
    /// # Errors
    ///
    /// Returns why the pool cannot be checked, or that it has problems.
    pub(crate) fn run(&self, out: &mut Output) -> anyhow::Result<()> {
        let report = Pool::check(&self.pool).of(&self.pool)?;
        out.facts(&Checked::new(&report))?;
        let pool = self.pool.display();
        match report.problems.len() {
            0 => Ok(()),
            count => bail!(
                "{pool}: {count} problems; copy out what is readable: udax cp -r {pool}:/ DIR"
            ),
        }
    }
}

impl Checked {
    fn new(report: &CheckReport) -> Checked {
        let page = u64::try_from(PAGE_SIZE).expect("a page is small");
        let found = report
            .problems
            .iter()
            .map(|problem| Found { object: problem.object.clone(), found: problem.found.clone() });
        Checked {
            clean: report.problems.is_empty(),
            files: report.files,
            dirs: report.dirs,
            symlinks: report.symlinks,
            used: report.used * page,
            free: report.free * page,
            problems: found.collect(),
        }
    }
}

impl Human for Checked {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for Found { object, found } in &self.problems {
            writeln!(out, "{object}: {found}")?;
        }
        let state = if self.clean { "clean" } else { "not clean" };
        write!(out, "{state}: {} files, {} directories, ", self.files, self.dirs)?;
        let (used, free) = (human(self.used), human(self.free));
        writeln!(out, "{} symbolic links; {used} used, {free} free", self.symlinks)
    }
}
