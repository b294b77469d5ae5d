//! `udax df`: how full pools are, and what they survive.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use udax::{Order, Persistence, Pool};

use super::map::Why;
use super::pins::PinFacts;
use crate::opening::Opener;
use crate::output::{Human, Name, Output, hex};
use crate::size::human;

/// Show how full a pool is, and what it survives.
///
/// Limbo counts pages that were freed while somebody had them pinned; they come back with the last
/// unpin. Quarantine counts pages that were freed and that a process had pinned for a device when it
/// died; `udax release` gives them back, or the next start of the host. "2 MiB blocks" counts the free blocks that can be mapped as huge pages.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax df data.udax
  udax df --json data.udax | jq .pools[0].free")]
pub(crate) struct DfArgs {
    /// The pools.
    #[arg(required = true)]
    pools: Vec<PathBuf>,
}

/// What `df` prints.
#[derive(Debug, Serialize)]
struct Df {
    pools: Vec<PoolFacts>,
}

/// Figures of one pool; sizes in bytes.
#[derive(Debug, Serialize)]
pub(crate) struct PoolFacts {
    #[serde(flatten)]
    path: Name,
    label: String,
    uuid: String,
    total: u64,
    used: u64,
    free: u64,
    limbo: u64,
    /// Of no file, and not free: a device may still reach them.
    quarantined: u64,
    /// Who died with pins, on pages of files too.
    quarantine: Vec<PinFacts>,
    /// Of what is used: pages that several files have, each counted once.
    shared: u64,
    inodes: u64,
    /// Free bytes in whole blocks of 2 MiB.
    huge_free: u64,
    host_page: usize,
    survives: &'static str,
    registrable: bool,
    /// Why no mapping of the pool is lazy here, if none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    why_eager: Option<Why>,
}

impl DfArgs {
    /// Prints the figures of each pool.
    ///
    /// # Errors
    ///
    /// Returns the first pool's error that cannot be opened.
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        let mut df = Df { pools: Vec::new() };
        for path in &self.pools {
            df.pools.push(PoolFacts::of(&pools.to_read(path)?));
        }
        Ok(out.facts(&df)?)
    }
}

impl PoolFacts {
    /// The figures of `pool` at this moment.
    pub(crate) fn of(pool: &Pool) -> PoolFacts {
        let usage = pool.usage();
        let facts = pool.facts();
        PoolFacts {
            path: Name::new(pool.path().as_os_str()),
            label: pool.label(),
            uuid: hex(&pool.uuid()),
            total: usage.total.bytes(),
            used: usage.used.bytes(),
            free: usage.free.bytes(),
            limbo: usage.limbo.bytes(),
            quarantined: usage.quarantined.bytes(),
            quarantine: pool.quarantine().iter().map(PinFacts::of).collect(),
            shared: usage.shared.bytes(),
            inodes: usage.inodes,
            huge_free: usage.huge_free * Order::Pmd.pages().bytes(),
            host_page: facts.host_page,
            survives: survives(facts.persistence),
            registrable: facts.is_registrable,
            why_eager: pool.why_eager().map(Why::new),
        }
    }

    fn quarantine(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.quarantine.is_empty() {
            return Ok(());
        }
        writeln!(out, "  quarantine{:>12}  withheld from new files", human(self.quarantined))?;
        for pin in &self.quarantine {
            write!(out, "            ")?;
            pin.line(out)?;
            writeln!(out)?;
        }
        Ok(())
    }

    /// The size of the pool in bytes.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Name {
        &self.path
    }

    /// What it survives, in one sentence.
    pub(crate) const fn survives(&self) -> &'static str {
        self.survives
    }
}

impl Human for Df {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for pool in &self.pools {
            pool.human(out)?;
        }
        Ok(())
    }
}

impl Human for PoolFacts {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.path.write(out)?;
        if !self.label.is_empty() {
            write!(out, " ({})", self.label)?;
        }
        writeln!(out, "\n  uuid      {}", self.uuid)?;
        writeln!(out, "  size      {:>12}", human(self.total))?;
        writeln!(out, "  used      {:>12}  in {} inodes", human(self.used), self.inodes)?;
        let huge = human(self.huge_free);
        writeln!(out, "  free      {:>12}  {huge} of it in 2 MiB blocks", human(self.free))?;
        writeln!(out, "  limbo     {:>12}", human(self.limbo))?;
        writeln!(out, "  shared    {:>12}  of what is used", human(self.shared))?;
        self.quarantine(out)?;
        writeln!(out, "  {}; host pages of {} bytes", self.survives, self.host_page)?;
        match &self.why_eager {
            None => Ok(()),
            Some(why) => writeln!(out, "  mappings are eager: {}", why.meaning()),
        }
    }
}

/// What bytes on such a medium survive.
pub(crate) const fn survives(persistence: Persistence) -> &'static str {
    match persistence {
        Persistence::Process => "survives the death of a process, not of the host",
        Persistence::Msync | Persistence::CacheLines => "survives the loss of power",
        Persistence::Volatile => "is gone with its last handle",
    }
}
