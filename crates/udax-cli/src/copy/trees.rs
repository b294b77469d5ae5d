//! The trees that take part in a copy: the host's, and each pool opened once.

use anyhow::Context;

use super::host::HostTree;
use super::pool::PoolTree;
use super::tree::{FileId, Tree, Volume};
use super::walk::Place;
use crate::opening::Opener;
use crate::target::Target;

/// The host's files and those of the pools named on the command line.
pub(crate) struct Trees {
    host: HostTree,
    pools: Vec<PoolTree>,
}

impl Trees {
    /// Opens the pool of `written` for writing, and those of `read` for reading.
    ///
    /// # Errors
    ///
    /// Returns why a pool cannot be opened.
    pub(crate) fn open(pools: Opener, written: &Target, read: &[Target]) -> anyhow::Result<Trees> {
        let mut trees = Trees { host: HostTree, pools: Vec::new() };
        if let Target::Pool(path) = written {
            let pool = pools.to_write(path.pool())?;
            let id = host_id(pool.path())?;
            trees.pools.push(PoolTree::new(pool, id));
        }
        for target in read {
            if let Target::Pool(path) = target
                && trees.find(target).is_none()
            {
                let pool = pools.to_read(path.pool())?;
                let id = host_id(pool.path())?;
                trees.pools.push(PoolTree::new(pool, id));
            }
        }
        Ok(trees)
    }

    /// Where `target` lies.
    ///
    /// # Panics
    ///
    /// Panics if `target` was not among those opened.
    pub(crate) fn place(&self, target: &Target) -> Place<'_> {
        match target {
            Target::Host(path) => Place::new(&self.host, path),
            Target::Pool(path) => {
                let tree = self.find(target).expect("every pool of the copy was opened");
                Place::new(tree, path.path())
            }
        }
    }

    /// The files of the host that the pools lie in.
    pub(crate) fn pool_files(&self) -> Vec<FileId> {
        self.pools.iter().filter_map(|tree| tree.volume().host_file()).collect()
    }

    /// Closes the pools in good order.
    ///
    /// # Errors
    ///
    /// Returns the first failure; the other pools are closed when they are dropped.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        self.pools.into_iter().try_for_each(PoolTree::close)
    }

    fn find(&self, target: &Target) -> Option<&PoolTree> {
        let Target::Pool(path) = target else { return None };
        let volume = Volume::of_pool(host_id(path.pool()).ok()?);
        self.pools.iter().find(|tree| tree.volume() == volume)
    }
}

/// The identity of a file of the host.
fn host_id(path: &std::path::Path) -> anyhow::Result<FileId> {
    let stat = HostTree.stat_through(path)?;
    Ok(stat.with_context(|| format!("{}: vanished while it was opened", path.display()))?.id)
}
