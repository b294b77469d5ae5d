//! `udax mkdir`: makes directories.

use clap::Args;

use crate::opening::{InPool, Opener};
use crate::target::PoolPath;

/// Make directories in a pool.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax mkdir data.udax:/doc
  udax mkdir -p data.udax:/a/b/c")]
pub(crate) struct MkdirArgs {
    /// Make missing parents too; what exists is no error.
    #[arg(short, long)]
    parents: bool,

    /// The directories.
    #[arg(required = true, value_name = "POOL:/PATH", value_parser = PoolPath::parser())]
    paths: Vec<PoolPath>,
}

impl MkdirArgs {
    /// Makes the directories.
    ///
    /// # Errors
    ///
    /// Returns the first that could not be made, and leaves the later ones.
    pub(crate) fn run(&self, pools: Opener) -> anyhow::Result<()> {
        for path in &self.paths {
            super::writing(pools, path.pool(), |pool| {
                let made = if self.parents {
                    pool.create_dir_all(path.path())
                } else {
                    pool.create_dir(path.path())
                };
                Ok(made.of(pool.path())?)
            })?;
        }
        Ok(())
    }
}
