//! `udax create`: a file with an empty pool in it.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use udax::{CreateOptions, Pool};

use super::df::PoolFacts;
use crate::opening::{InPool, Opener};
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
  udax create data.udax --size 64G --durability power   for this command")]
pub(crate) struct CreateArgs {
    /// The file to create.
    pool: PathBuf,

    /// How large it may become.
    #[arg(short, long, default_value = "1G", allow_hyphen_values = true)]
    size: Size,

    /// A text of at most 64 bytes that `udax df` shows.
    #[arg(long, default_value = "")]
    label: String,
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
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        let options = CreateOptions::new().label(&self.label).durability(pools.durability());
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
