//! The process of one cell: a hidden command. It says where it is, line by line, and at last what
//! became of the transfer, as JSON; how it ends otherwise is for who started it to see.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::facts::{Action, Backing, Outcome, Verdict};
use super::{death, host, pooled};

/// What begins a line that says where the process is.
pub(super) const STAGE: &str = "at: ";

/// Perform one cell of the matrix.
#[derive(Args, Clone, Debug)]
pub(crate) struct MatrixCellArgs {
    #[command(flatten)]
    cell: CellArgs,
}

/// Which cell.
#[derive(Args, Clone, Debug)]
pub(crate) struct CellArgs {
    /// What the file is made of.
    #[arg(long, value_enum)]
    pub(super) backing: Backing,
    /// What somebody else does.
    #[arg(long, value_enum)]
    pub(super) action: Action,
    /// A directory on a disk.
    #[arg(long)]
    pub(super) disk: PathBuf,
    /// A directory in memory, if there is one.
    #[arg(long)]
    pub(super) shm: Option<PathBuf>,
    /// The bytes of the buffer.
    #[arg(long)]
    pub(super) len: usize,
}

impl MatrixCellArgs {
    /// Performs it.
    ///
    /// # Errors
    ///
    /// Returns why it could not be performed.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        // A SIGBUS is expected, and its core file of no use.
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        let outcome = match (self.cell.backing, self.cell.action) {
            (_, Action::Dies) => death::run(&self.cell)?,
            (Backing::Udax, _) => pooled::run(&self.cell)?,
            _ => host::run(&self.cell)?,
        };
        serde_json::to_writer(io::stdout(), &outcome)?;
        Ok(())
    }
}

impl CellArgs {
    /// The command line of a process that performs it.
    pub(super) fn to_arguments(&self) -> Vec<std::ffi::OsString> {
        let mut arguments: Vec<std::ffi::OsString> = vec!["matrix-cell".into()];
        let mut add = |name: &str, value: std::ffi::OsString| {
            arguments.extend([name.into(), value]);
        };
        add("--backing", self.backing.name().into());
        add("--action", self.action.name().into());
        add("--disk", self.disk.clone().into());
        add("--len", self.len.to_string().into());
        if let Some(shm) = &self.shm {
            add("--shm", shm.clone().into());
        }
        arguments
    }

    /// The directory in memory.
    pub(super) fn shm(&self) -> anyhow::Result<&Path> {
        let shm = self.shm.as_deref();
        shm.ok_or_else(|| anyhow::anyhow!("/dev/shm cannot be written to"))
    }
}

/// Says where the process is, for who started it.
pub(super) fn at(stage: impl Display) {
    let mut out = io::stdout().lock();
    // Nobody but that process reads it, and it says so if there is no line.
    let _ = writeln!(out, "{STAGE}{stage}").and_then(|()| out.flush());
}

/// The buffer was not registered, or the action not done.
pub(super) fn refused(what: &str, why: impl Display) -> Outcome {
    Outcome::new(Verdict::Refused, format!("{what}: {why}"))
}
