//! `udax mv`: other names for files of a pool.

use anyhow::bail;
use clap::Args;

use crate::opening::{InPool, Opener};
use crate::target::PoolPath;

/// Give files and directories of a pool other names.
///
/// Replaces what has the name, atomically; into a directory if the destination is one.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax mv data.udax:/draft data.udax:/final
  udax mv data.udax:/a data.udax:/b data.udax:/dir")]
pub(crate) struct MvArgs {
    /// One or more sources, then the destination, all in one pool.
    #[arg(num_args = 2.., required = true, value_names = ["SOURCE", "DESTINATION"])]
    #[arg(value_parser = PoolPath::parser())]
    paths: Vec<PoolPath>,
}

impl MvArgs {
    /// Renames.
    ///
    /// # Errors
    ///
    /// Returns the first that could not be renamed, and leaves the later ones.
    pub(crate) fn run(&self, pools: Opener) -> anyhow::Result<()> {
        let (to, sources) = self.paths.split_last().expect("two paths at least");
        if let Some(other) = sources.iter().find(|source| source.pool() != to.pool()) {
            bail!("{other} and {to} are in two pools; copy it with `udax cp -r`, then remove it");
        }
        super::writing(pools, to.pool(), |pool| {
            let is_dir = pool.metadata(to.path()).is_ok_and(|metadata| metadata.is_dir());
            if sources.len() > 1 && !is_dir {
                bail!("{to}: several files can only be moved into a directory; make it first");
            }
            for source in sources {
                let name = source.path().file_name().filter(|_| is_dir);
                let to = name.map_or_else(|| to.path().to_owned(), |name| to.path().join(name));
                pool.rename(source.path(), to).of(pool.path())?;
            }
            Ok(())
        })
    }
}
