//! `udax create`: a file with an empty pool in it.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use udax::{CreateOptions, Durability, Pool};

use super::df::PoolFacts;
use crate::opening::InPool;
use crate::output::{Human, Output};
use crate::size::{Size, human};

/// Create a pool: a sparse file with an empty filesystem in it.
///
/// The file takes room on the host as it is filled. A pool is never created over an existing file.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax create data.udax --size 4G
  udax create data.udax --size 512M --label weights
  udax create data.udax --size 64G --durability power")]
pub(crate) struct CreateArgs {
    /// The file to create.
    pool: PathBuf,

    /// How large it may become.
    #[arg(short, long, default_value = "1G")]
    size: Size,

    /// A text that `udax df` shows.
    #[arg(long, default_value = "")]
    label: String,

    /// What a completed operation survives, while this command has the pool open.
    #[arg(long, value_enum, default_value_t = Survives::Process)]
    durability: Survives,
}

/// What a completed operation survives.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Survives {
    /// The death of the process at any instruction.
    Process,
    /// The loss of power too.
    Power,
}

/// What was created.
#[derive(Debug, Serialize)]
struct Created {
    #[serde(flatten)]
    pool: PoolFacts,
}

impl CreateArgs {
    /// Creates the pool.
    ///
    /// # Errors
    ///
    /// Returns why it could not be created; nothing is left behind then.
    pub(crate) fn run(&self, out: &mut Output) -> anyhow::Result<()> {
        let durability = match self.durability {
            Survives::Process => Durability::Process,
            Survives::Power => Durability::Power,
        };
        let options = CreateOptions::new().label(&self.label).durability(durability);
        let pool = Pool::create(&self.pool, self.size.bytes(), &options).of(&self.pool)?;
        let created = Created { pool: PoolFacts::of(&pool) };
        super::close(pool)?;
        Ok(out.facts(&created)?)
    }
}

impl Human for Created {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let size = human(self.pool.total());
        write!(out, "created ")?;
        self.pool.path().write(out)?;
        writeln!(out, " of {size}; it {}", self.pool.survives())
    }
}
