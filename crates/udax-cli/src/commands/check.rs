//! `udax check`: everything in a pool, compared with what it should be.

mod lost;

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use udax::{CheckReport, ErrorKind, PAGE_SIZE, Pool};

use self::lost::Lost;
use super::pins::PinFacts;
use crate::interrupt::Interrupt;
use crate::opening::{InPool, Opener};
use crate::output::{Human, Output};
use crate::size::human;

/// Check a pool: read every structure in it and mend nothing.
///
/// Exits with 1 if it finds a problem, or bytes that are lost. If the last session died in the middle of
/// a change, that is completed first, as by every command that opens the pool.
///
/// The bytes of files are not looked at, unless --data is given: then all are read, and those whose
/// memory failed are listed. Write their whole pages of 4 KiB anew to heal them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax check data.udax
  udax check --data data.udax
  udax check --json data.udax | jq .problems")]
pub(crate) struct CheckArgs {
    /// Read the bytes of all files as well.
    #[arg(long)]
    data: bool,

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
    /// Who died with pins; no problem, and no file gets their pages.
    quarantine: Vec<PinFacts>,
    problems: Vec<Found>,
    /// Bytes of files that cannot be read; none if nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<Vec<Lost>>,
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
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        let report = match Pool::check(&self.pool).of(&self.pool) {
            Err(error) if error.kind() == ErrorKind::NeedsRecovery => self.recover(pools)?,
            report => report?,
        };
        let mut checked = Checked::new(&report);
        if self.data {
            checked.lost = Some(self.lost(pools)?);
        }
        out.facts(&checked)?;
        let pool = self.pool.display();
        match &report.problems[..] {
            [] if checked.lost.is_some_and(|lost| !lost.is_empty()) => bail!(
                "{pool}: bytes of files are lost; write their whole pages of 4 KiB anew, or remove \
                 the files"
            ),
            [] => Ok(()),
            [only] if only.object == "superblock" => bail!(
                "{pool}: one of its two superblocks is damaged; any other command, as `udax df \
                 {pool}`, writes it again from the good one"
            ),
            problems => bail!(
                "{pool}: {}; copy out what is readable: udax cp -r {pool}:/ DIR",
                match problems.len() {
                    1 => "one problem".to_owned(),
                    count => format!("{count} problems"),
                }
            ),
        }
    }

    /// Reads all files of a pool that is sound enough to be opened.
    fn lost(&self, pools: Opener) -> anyhow::Result<Vec<Lost>> {
        let interrupt = Interrupt::install()?;
        let pool = pools.to_read(&self.pool)?;
        lost::find(&pool, &interrupt)
    }

    /// Completes the change that the last session died in, and checks what is there then.
    fn recover(&self, pools: Opener) -> anyhow::Result<CheckReport> {
        match pools.to_write(&self.pool) {
            Ok(pool) => super::close(pool)?,
            // It is complete, and the check says what is corrupt.
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Pool::check(&self.pool).of(&self.pool)?)
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
            quarantine: report.quarantine.iter().map(PinFacts::of).collect(),
            problems: found.collect(),
            lost: None,
        }
    }
}

impl Human for Checked {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for Found { object, found } in &self.problems {
            writeln!(out, "{object}: {found}")?;
        }
        for Lost { path, offset, len } in self.lost.iter().flatten() {
            path.write(out)?;
            writeln!(out, ": bytes {offset}..{} are lost", offset + len)?;
        }
        for pin in &self.quarantine {
            write!(out, "quarantine")?;
            pin.line(out)?;
            writeln!(out)?;
        }
        let state = if self.clean { "clean" } else { "not clean" };
        write!(out, "{state}: {} files, {} directories, ", self.files, self.dirs)?;
        let (used, free) = (human(self.used), human(self.free));
        writeln!(out, "{} symbolic links; {used} used, {free} free", self.symlinks)
    }
}
