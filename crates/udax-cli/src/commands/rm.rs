//! `udax rm`: removes names.

use anyhow::bail;
use clap::Args;
use udax::{ErrorKind, Pool};

use crate::opening::{InPool, Opener};
use crate::target::PoolPath;

/// Remove files of a pool, and directories with -r.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax rm data.udax:/notes.txt
  udax rm -r data.udax:/doc
  udax rm -rf data.udax:/may-not-exist")]
pub(crate) struct RmArgs {
    /// Remove directories and everything below them.
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,

    /// What does not exist is no error.
    #[arg(short, long)]
    force: bool,

    /// What to remove.
    #[arg(required = true, value_name = "POOL:/PATH", value_parser = PoolPath::parser())]
    paths: Vec<PoolPath>,
}

impl RmArgs {
    /// Removes.
    ///
    /// # Errors
    ///
    /// Returns the first that could not be removed, and leaves the later ones.
    pub(crate) fn run(&self, pools: Opener) -> anyhow::Result<()> {
        for path in &self.paths {
            super::writing(pools, path.pool(), |pool| self.remove(pool, path))?;
        }
        Ok(())
    }

    fn remove(&self, pool: &Pool, path: &PoolPath) -> anyhow::Result<()> {
        if path.path().file_name().is_none() {
            bail!("{path}: the root directory stays; name what is in it");
        }
        let metadata = match pool.symlink_metadata(path.path()) {
            Err(error) if self.force && error.kind() == ErrorKind::NotFound => return Ok(()),
            found => found.of(pool.path())?,
        };
        if !metadata.is_dir() && path.ends_in_slash() {
            bail!("{path}: not a directory; leave out the slash at the end");
        }
        if !metadata.is_dir() {
            pool.remove_file(path.path()).of(pool.path())?;
        } else if self.recursive {
            pool.remove_dir_all(path.path()).of(pool.path())?;
        } else {
            bail!("{path}: is a directory; remove it and what is in it with -r");
        }
        Ok(())
    }
}
