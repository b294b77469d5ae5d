//! The process that holds a buffer and is killed: a hidden command.
//!
//! It registers its memory with the ring that is its stdin, says where the memory lies, and waits
//! for the end. The ring is that of the process that started it, as a queue of a device is the
//! device's: it goes on.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use udax::Pool;
use udax_mm::media::{Durability, FileMedia};
use udax_uring::{Foreign, Refused, lend};

use super::pooled;

/// Hold a buffer until killed.
#[derive(Args, Debug)]
pub(crate) struct MatrixHolderArgs {
    /// A file of the host.
    #[arg(long, conflicts_with = "pool", required_unless_present = "pool")]
    file: Option<PathBuf>,
    /// A pool.
    #[arg(long)]
    pool: Option<PathBuf>,
    /// The bytes of the buffer.
    #[arg(long)]
    len: usize,
}

/// What the holder says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Said {
    /// The buffer is registered: addresses and lengths in the holder, pages of the device.
    Registered { runs: Vec<(usize, usize)>, extents: Vec<(u64, u64)> },
    /// The kernel did not register it.
    Refused(String),
}

impl MatrixHolderArgs {
    /// Registers, says so, and waits to be killed.
    ///
    /// # Errors
    ///
    /// Returns why the memory could not be mapped or pinned.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        // Should the other process hang and be killed, nobody else would end this one.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let said = match (&self.pool, &self.file) {
            (Some(path), _) => {
                let pool = Pool::open(path)?;
                let pin = pooled::pin(&pool, self.len)?;
                let extents = pool.open_file(pooled::HELD)?.extents()?;
                let extents = extents.iter().map(|e| (e.device.0, e.pages.0)).collect();
                // The pin keeps the pool open.
                said(lend(io::stdin().as_fd(), vec![pin]), extents)
            }
            (None, Some(path)) => {
                let media = FileMedia::open(path, Durability::Process)?;
                said(lend(io::stdin().as_fd(), vec![media]), Vec::new())
            }
            (None, None) => anyhow::bail!("no file is named"),
        };
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &said)?;
        writeln!(out)?;
        out.flush()?;
        loop {
            std::thread::park();
        }
    }
}

fn said<B>(lent: Result<Foreign, Refused<B>>, extents: Vec<(u64, u64)>) -> Said {
    match lent {
        Ok(foreign) => Said::Registered { runs: foreign.runs().to_vec(), extents },
        Err(refused) => Said::Refused(refused.to_string()),
    }
}
