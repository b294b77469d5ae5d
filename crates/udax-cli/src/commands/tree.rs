//! `udax tree`: a directory and all below it.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use serde::Serialize;
use udax::Pool;

use super::entry::Entry;
use super::ls;
use crate::opening::{InPool, Opener};
use crate::output::{Human, Output};
use crate::size::human;
use crate::target::PoolPath;

/// Show a directory of a pool and everything below it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax tree data.udax
  udax tree --depth 2 data.udax:/doc")]
pub(crate) struct TreeArgs {
    /// How many levels to show.
    #[arg(short = 'L', long, default_value_t = u32::MAX, hide_default_value = true)]
    depth: u32,

    /// The directory; a bare POOL is its root directory.
    #[arg(value_name = "POOL:/PATH", value_parser = PoolPath::or_root_parser())]
    path: PoolPath,
}

/// What `tree` prints.
#[derive(Debug, Serialize)]
struct Forest {
    path: String,
    files: u64,
    dirs: u64,
    bytes: u64,
    entries: Vec<Node>,
}

/// A file, and what is below it.
#[derive(Debug, Serialize)]
struct Node {
    #[serde(flatten)]
    entry: Entry,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<Node>>,
}

impl TreeArgs {
    /// Prints the tree.
    ///
    /// # Errors
    ///
    /// Returns why the pool or a directory cannot be read.
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        let pool = pools.to_read(self.path.pool())?;
        let path = self.path.to_string();
        let mut forest = Forest { path, files: 0, dirs: 0, bytes: 0, entries: Vec::new() };
        // Says that it is no directory, if it is none.
        pool.read_dir(self.path.path()).of(pool.path())?;
        forest.entries = forest.grow(&pool, self.path.path(), self.depth)?;
        Ok(out.facts(&forest)?)
    }
}

impl Forest {
    fn grow(&mut self, pool: &Pool, dir: &Path, depth: u32) -> anyhow::Result<Vec<Node>> {
        let mut nodes = Vec::new();
        for entry in ls::list(pool, dir)? {
            let below = if entry.is_dir() && depth > 1 {
                Some(self.grow(pool, &dir.join(entry.os_name()), depth - 1)?)
            } else {
                None
            };
            if entry.is_dir() {
                self.dirs += 1;
            } else {
                self.files += 1;
                self.bytes += entry.size();
            }
            nodes.push(Node { entry, entries: below });
        }
        Ok(nodes)
    }
}

impl Human for Forest {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.path)?;
        draw(&self.entries, "", out)?;
        let bytes = human(self.bytes);
        writeln!(out, "\n{} directories, {} files, {bytes}", self.dirs, self.files)
    }
}

/// Draws `nodes` behind `indent`.
fn draw(nodes: &[Node], indent: &str, out: &mut dyn Write) -> io::Result<()> {
    for (number, node) in nodes.iter().enumerate() {
        let is_last = number + 1 == nodes.len();
        write!(out, "{indent}{}", if is_last { "└── " } else { "├── " })?;
        node.entry.write_name(out)?;
        writeln!(out)?;
        if let Some(below) = &node.entries {
            let bar = if is_last { "    " } else { "│   " };
            draw(below, &format!("{indent}{bar}"), out)?;
        }
    }
    Ok(())
}
