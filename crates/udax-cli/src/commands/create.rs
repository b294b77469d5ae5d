//! `udax create`: a file with an empty pool in it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use udax::{CreateOptions, Pool, TableTree};

use super::df::PoolFacts;
use crate::opening::{InPool, Opener};
use crate::output::{Human, Output, note};
use crate::size::{Size, human};

/// Create a pool: a sparse file with an empty filesystem in it, or one on the devices of a table.
///
/// The file takes room on the host as it is filled. A pool is never created over an existing file.
/// With `--table` nothing is created but the filesystem: the devices exist, and keep their size. See
/// `udax table --help`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax create data.udax --size 4G
  udax create data.udax --size 512M --label weights
  udax create data.udax --size 64G --durability power   for this command
  udax create --table pool.table      on several devices; then: udax ls pool.table:/")]
pub(crate) struct CreateArgs {
    /// The file to create.
    #[arg(required_unless_present = "table")]
    pool: Option<PathBuf>,

    /// A table that names the devices; its name ends in `.table`, and names the pool from then on.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pool", "size"])]
    table: Option<PathBuf>,

    /// Lose a pool that is on the devices of the table.
    #[arg(long, requires = "table")]
    force: bool,

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
        let pool = match (&self.table, &self.pool) {
            (Some(table), _) => self.create_on(table, &options)?,
            (None, Some(path)) => Pool::create(path, self.size.bytes(), &options).of(path)?,
            (None, None) => anyhow::bail!("name the file to create, or a table"),
        };
        let created = Created { pool: PoolFacts::of(&pool) };
        super::close(pool)?;
        Ok(out.facts(&created)?)
    }

    /// Creates the pool on the devices of a table, and says what it could do better.
    fn create_on(&self, table: &Path, options: &CreateOptions) -> anyhow::Result<Pool> {
        super::table::check_name(table)?;
        let tree = TableTree::open(table).of(table)?;
        let pool = Pool::create_on_table(table, &options.clone().force(self.force)).of(table)?;
        advise(&tree);
        Ok(pool)
    }
}

/// Says what keeps huge folios out, in every table of a stack.
fn advise(tree: &TableTree) {
    for line in &tree.lines {
        if let Some(advice) = &line.advice {
            note(format!("{}: {advice}", tree.path.display()));
        }
        line.members.iter().filter_map(|member| member.below.as_deref()).for_each(advise);
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
