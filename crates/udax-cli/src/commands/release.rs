//! `udax release`: ends the quarantine of pages whose pinning process died.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use udax::{ErrorKind, LivingOwner, Pool, Release};

use super::pins::PinFacts;
use crate::opening::{InPool, Opener};
use crate::output::{Human, Name, Output};
use crate::size::human;

/// Release pages that processes had pinned for devices when they died.
///
/// Only you can know that no device works for them any more: a network card or a GPU may store for
/// a process long after it is gone, and its bytes would land in whatever file gets the pages. The
/// next start of the host releases them by itself.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax pins data.udax                  see what is in quarantine
  udax release data.udax --process 4711
  udax release data.udax --all")]
pub(crate) struct ReleaseArgs {
    /// The pool.
    pool: PathBuf,

    #[command(flatten)]
    which: Which,

    /// Release also what belongs to a process that is alive.
    #[arg(long)]
    force: bool,
}

/// Which pins; exactly one of them.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
struct Which {
    /// Those that this process took.
    #[arg(long, value_name = "PID")]
    process: Option<u32>,

    /// Those with this label.
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,

    /// All of them.
    #[arg(long)]
    all: bool,
}

/// What `release` prints.
#[derive(Debug, Serialize)]
struct Released {
    #[serde(flatten)]
    path: Name,
    pins: Vec<PinFacts>,
    /// Bytes that became free; the others belong to files.
    freed: u64,
}

impl ReleaseArgs {
    /// Releases, and prints what.
    ///
    /// # Errors
    ///
    /// Returns why the pool cannot be opened for writing, or that an owner is alive.
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        let released = super::writing(pools, &self.pool, |pool| self.release(pool))?;
        Ok(out.facts(&released)?)
    }

    fn release(&self, pool: &Pool) -> anyhow::Result<Released> {
        let living = if self.force { LivingOwner::Ignore } else { LivingOwner::Refuse };
        let before = pool.usage().quarantined;
        let released = pool.release_quarantine(&self.which.release(), living).of(&self.pool);
        let released = match released {
            Err(error) if error.kind() == ErrorKind::Pinned => {
                anyhow::bail!("{error}; --force releases its pages all the same")
            }
            released => released?,
        };
        Ok(Released {
            path: Name::new(self.pool.as_os_str()),
            pins: released.iter().map(PinFacts::of).collect(),
            freed: (before - pool.usage().quarantined).bytes(),
        })
    }
}

impl Which {
    fn release(&self) -> Release {
        match (self.process, &self.label) {
            (Some(process), _) => Release::Process(process),
            (None, Some(label)) => Release::Label(label.clone()),
            (None, None) => Release::All,
        }
    }
}

impl Human for Released {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for pin in &self.pins {
            write!(out, "released  ")?;
            pin.line(out)?;
            writeln!(out)?;
        }
        let count = self.pins.len();
        writeln!(out, "{count} released, {} became free", human(self.freed))
    }
}
