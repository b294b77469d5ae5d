//! The commands: each file holds the arguments of one, the facts it prints, and what it does.

pub(crate) mod cat;
pub(crate) mod check;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod dev;
pub(crate) mod df;
pub(crate) mod entry;
pub(crate) mod freeze;
pub(crate) mod ln;
pub(crate) mod ls;
pub(crate) mod map;
pub(crate) mod mkdir;
pub(crate) mod mount;
pub(crate) mod mv;
pub(crate) mod pins;
pub(crate) mod release;
pub(crate) mod rm;
pub(crate) mod stat;
pub(crate) mod table;
pub(crate) mod tree;

use std::path::Path;

use udax::Pool;

use crate::opening::{InPool, Opener, PoolError};

/// Runs `work` on a pool opened for writing, and closes it in good order.
fn writing<T>(
    pools: Opener,
    path: &Path,
    work: impl FnOnce(&Pool) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let pool = pools.to_write(path)?;
    let done = work(&pool)?;
    close(pool)?;
    Ok(done)
}

/// Closes `pool`; a failure would otherwise only be noticed by the next open.
fn close(pool: Pool) -> Result<(), PoolError> {
    let path = pool.path().to_owned();
    pool.close().of(&path)
}
