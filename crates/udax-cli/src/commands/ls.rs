//! `udax ls`: the entries of a directory.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use serde::Serialize;
use udax::{Kind, Pool};

use super::entry::Entry;
use crate::opening::{InPool, Opener};
use crate::output::{Human, Output};
use crate::target::PoolPath;

/// List a directory of a pool.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax ls data.udax
  udax ls -l data.udax:/doc
  udax ls --json data.udax:/doc | jq -r '.entries[] | select(.size > 1000000) | .name'")]
pub(crate) struct LsArgs {
    /// Show modes, owners, sizes and times.
    #[arg(short, long)]
    long: bool,

    /// The directory, or a file; a bare POOL is its root directory.
    #[arg(value_name = "POOL:/PATH", value_parser = PoolPath::or_root_parser())]
    path: PoolPath,
}

/// The entries, sorted by name.
#[derive(Debug, Serialize)]
struct Listing {
    entries: Vec<Entry>,
    #[serde(skip)]
    style: Style,
}

#[derive(Debug)]
enum Style {
    Names,
    Long,
}

impl LsArgs {
    /// Prints the listing.
    ///
    /// # Errors
    ///
    /// Returns why the pool or the directory cannot be read.
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        let pool = pools.to_read(self.path.pool())?;
        let path = self.path.path();
        let metadata = pool.symlink_metadata(path).of(pool.path())?;
        let entries = match metadata.kind() {
            Kind::Dir => list(&pool, path)?,
            Kind::File | Kind::Symlink => {
                vec![look(&pool, path, path.file_name().unwrap_or_default())?]
            }
        };
        let style = if self.long { Style::Long } else { Style::Names };
        Ok(out.facts(&Listing { entries, style })?)
    }
}

impl Human for Listing {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for entry in &self.entries {
            match self.style {
                Style::Long => entry.write_long(out)?,
                Style::Names => {
                    entry.write_name(out)?;
                    writeln!(out)?;
                }
            }
        }
        Ok(())
    }
}

/// The entries of the directory `dir`, sorted by name.
pub(crate) fn list(pool: &Pool, dir: &Path) -> anyhow::Result<Vec<Entry>> {
    let mut names: Vec<OsString> = Vec::new();
    for entry in pool.read_dir(dir).of(pool.path())? {
        names.push(entry.of(pool.path())?.file_name().to_owned());
    }
    names.sort_unstable();
    names.iter().map(|name| look(pool, &dir.join(name), name)).collect()
}

/// What is at `path`, under the name `name`.
fn look(pool: &Pool, path: &Path, name: &OsStr) -> anyhow::Result<Entry> {
    let metadata = pool.symlink_metadata(path).of(pool.path())?;
    let target = match metadata.kind() {
        Kind::Symlink => Some(pool.read_link(path).of(pool.path())?),
        Kind::File | Kind::Dir => None,
    };
    Ok(Entry::new(name, &metadata, target.as_deref().map(Path::as_os_str)))
}
