//! `udax freeze`: files whose bytes cannot change any more.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use udax::Wait;

use crate::opening::{InPool, Opener};
use crate::output::{Human, Name, Output};
use crate::size::human;
use crate::target::PoolPath;

/// Freeze files of a pool: their bytes cannot change any more.
///
/// Programs can then borrow the bytes as a plain slice. A frozen file can be renamed and removed,
/// and stays frozen until it is removed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax freeze data.udax:/model.bin
  udax ls -l data.udax                        shows [frozen]")]
pub(crate) struct FreezeArgs {
    /// The files.
    #[arg(required = true, value_name = "POOL:/PATH", value_parser = PoolPath::parser())]
    paths: Vec<PoolPath>,
}

/// What `freeze` prints.
#[derive(Debug, Serialize)]
struct Frozen {
    files: Vec<FrozenFile>,
}

#[derive(Debug, Serialize)]
struct FrozenFile {
    #[serde(flatten)]
    path: Name,
    size: u64,
}

impl FreezeArgs {
    /// Freezes.
    ///
    /// # Errors
    ///
    /// Returns the first that could not be frozen, and leaves the later ones.
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        let mut frozen = Frozen { files: Vec::new() };
        for path in &self.paths {
            frozen.files.push(super::writing(pools, path.pool(), |pool| {
                let file = pool.open_file(path.path()).of(pool.path())?;
                // Nobody else has the pool open, so nobody can hold a pin.
                file.freeze(Wait::Never).of(pool.path())?;
                let path = Name::new(path.path().as_os_str());
                Ok(FrozenFile { path, size: file.metadata().len() })
            })?);
        }
        Ok(out.facts(&frozen)?)
    }
}

impl Human for Frozen {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for FrozenFile { path, size } in &self.files {
            path.write(out)?;
            writeln!(out, ": frozen, {}", human(*size))?;
        }
        Ok(())
    }
}
