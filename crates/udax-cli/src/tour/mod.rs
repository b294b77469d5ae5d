//! `udax tour`: what udax does, done for real on a pool of its own, and asserted step by step.
//!
//! Each step is a file of this folder. It tells what it saw; what is not as it should be ends the
//! tour with an error that names the step. No rights, no FUSE and no special hardware are needed.

mod crash;
mod create;
mod device;
mod figures;
mod freeze;
mod import;
pub(crate) mod pattern;
mod remove;
mod scan;
mod stage;
mod store;
mod story;
mod truncate;
mod verify;
mod writer;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;

use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::size::Size;
use stage::Stage;
use story::Story;

pub(crate) use writer::TourWriterArgs;

/// The steps, in order.
const STEPS: [fn(&mut Stage<'_>) -> anyhow::Result<()>; 10] = [
    create::run,
    import::run,
    verify::run,
    store::run,
    remove::run,
    truncate::run,
    freeze::run,
    crash::run,
    device::run,
    figures::run,
];

/// See what udax does: every promise, kept before your eyes on your own files.
///
/// Makes a pool in a file, imports a directory, and then maps, pins, removes, truncates, freezes,
/// crashes and unplugs. Each step says what it saw and checks it; what does not hold ends the tour
/// with an error. Needs no root and no FUSE, and leaves nothing behind.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax tour                                   on the directory you are in
  udax tour /usr/share/doc --limit 200M
  udax tour --pool /dev/shm/tour.udax         on that file, which is kept
  udax tour --json | jq .figures")]
pub(crate) struct TourArgs {
    /// The directory to import, without build output (what holds a CACHEDIR.TAG); if none is given,
    /// the checkout that the current directory is in.
    dir: Option<PathBuf>,

    /// Import no more than this.
    #[arg(long, default_value = "512M")]
    limit: Size,

    /// Make the pool at this path, and keep it.
    #[arg(long)]
    pool: Option<PathBuf>,

    /// Keep the pool that is made in the temporary directory.
    #[arg(long)]
    keep: bool,
}

impl TourArgs {
    /// Walks through the steps.
    ///
    /// # Errors
    ///
    /// Returns the step that did not hold, and why.
    pub(crate) fn run(&self, out: &mut Output) -> anyhow::Result<()> {
        let interrupt = Interrupt::install()?;
        let mut builder = tempfile::Builder::new();
        builder.prefix("udax-tour-").disable_cleanup(self.keep);
        // Removed when it is dropped, unless it is to be kept.
        let scratch = builder.tempdir().context("no directory for the pool; set TMPDIR")?;
        let path = self.pool.clone().unwrap_or_else(|| scratch.path().join("tour.udax"));
        let started = Instant::now();
        let mut stage = Stage::new(Story::new(out), path.clone(), &self.dir()?, self.limit.bytes());
        for step in STEPS {
            if interrupt.is_set() {
                bail!("the tour was interrupted");
            }
            step(&mut stage).with_context(|| stage.story().here())?;
        }
        stage.end(started.elapsed())?;
        if self.keep || self.pool.is_some() {
            crate::output::note(format_args!("the pool is kept at {}", path.display()));
        }
        Ok(())
    }

    /// What to import.
    fn dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let here = std::env::current_dir().context("the current directory; name one")?;
        let checkout = here.ancestors().find(|dir| dir.join(".git").exists());
        Ok(checkout.unwrap_or(&here).to_owned())
    }
}
