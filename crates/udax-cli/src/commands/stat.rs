//! `udax stat`: the attributes of files.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use serde::Serialize;
use udax::{FileExtent, Kind, Metadata, Pool};

use super::entry::{self, permissions};
use crate::moment::Moment;
use crate::opening::{InPool, Opener};
use crate::output::{Human, Name, Output};
use crate::size::human;
use crate::target::PoolPath;

/// Show the attributes of files of a pool.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax stat data.udax:/notes.txt
  udax stat --json data.udax:/notes.txt | jq .files[0].size")]
pub(crate) struct StatArgs {
    /// The files; a symbolic link is shown itself.
    #[arg(required = true, value_name = "POOL:/PATH", value_parser = PoolPath::parser())]
    paths: Vec<PoolPath>,
}

/// What `stat` prints.
#[derive(Debug, Serialize)]
struct Stats {
    files: Vec<FileStat>,
}

/// The attributes of one file; sizes in bytes.
#[derive(Debug, Serialize)]
struct FileStat {
    #[serde(flatten)]
    path: Name,
    kind: &'static str,
    size: u64,
    allocated: u64,
    /// How much of that other files, or other places of this one, have too.
    shared: u64,
    mode: String,
    #[serde(skip)]
    permissions: String,
    uid: u32,
    gid: u32,
    links: u32,
    inode: u64,
    frozen: bool,
    accessed: Moment,
    modified: Moment,
    changed: Moment,
    created: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Name>,
}

impl StatArgs {
    /// Prints the attributes.
    ///
    /// # Errors
    ///
    /// Returns the first file that cannot be read.
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        let mut stats = Stats { files: Vec::new() };
        for path in &self.paths {
            let pool = pools.to_read(path.pool())?;
            stats.files.push(FileStat::of(&pool, path.path())?);
        }
        Ok(out.facts(&stats)?)
    }
}

impl FileStat {
    fn of(pool: &Pool, path: &Path) -> anyhow::Result<FileStat> {
        let metadata = pool.symlink_metadata(path).of(pool.path())?;
        let target = match metadata.kind() {
            Kind::Symlink => Some(Name::new(pool.read_link(path).of(pool.path())?.as_os_str())),
            Kind::File | Kind::Dir => None,
        };
        let shared = match metadata.kind() {
            // Where the tree of a file is damaged, its attributes are shown all the same.
            Kind::File => pool.open_file(path).and_then(|file| file.extents()).map_or(0, shared),
            Kind::Dir | Kind::Symlink => 0,
        };
        Ok(FileStat { shared, ..FileStat::new(path, &metadata, target) })
    }

    fn new(path: &Path, metadata: &Metadata, target: Option<Name>) -> FileStat {
        FileStat {
            path: Name::new(path.as_os_str()),
            kind: entry::kind(metadata.kind()),
            size: metadata.len(),
            allocated: metadata.allocated(),
            shared: 0,
            mode: format!("{:04o}", metadata.mode()),
            permissions: permissions(metadata),
            uid: metadata.uid(),
            gid: metadata.gid(),
            links: metadata.links(),
            inode: metadata.ino().0,
            frozen: metadata.is_frozen(),
            accessed: Moment(metadata.accessed()),
            modified: Moment(metadata.modified()),
            changed: Moment(metadata.changed()),
            created: Moment(metadata.created()),
            target,
        }
    }
}

impl Human for Stats {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.files.iter().try_for_each(|file| file.human(out))
    }
}

impl Human for FileStat {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.path.write(out)?;
        if let Some(target) = &self.target {
            write!(out, " -> ")?;
            target.write(out)?;
        }
        let frozen = if self.frozen { ", frozen: its bytes cannot change" } else { "" };
        writeln!(out, "\n  {}{frozen}", self.kind)?;
        let allocated = human(self.allocated);
        write!(out, "  size      {} bytes, {allocated} allocated", self.size)?;
        if self.shared > 0 {
            write!(out, ", {} of it shared", human(self.shared))?;
        }
        writeln!(out)?;
        writeln!(out, "  mode      {} ({})", self.mode, self.permissions)?;
        writeln!(out, "  owner     user {}, group {}", self.uid, self.gid)?;
        writeln!(out, "  inode     {} with {} names", self.inode, self.links)?;
        writeln!(out, "  accessed  {}", self.accessed)?;
        writeln!(out, "  modified  {}", self.modified)?;
        writeln!(out, "  changed   {}", self.changed)?;
        writeln!(out, "  created   {} (times are UTC)", self.created)
    }
}

/// The bytes of a file that others have too.
fn shared(extents: Vec<FileExtent>) -> u64 {
    extents.into_iter().filter(|extent| extent.is_shared).map(|extent| extent.pages.bytes()).sum()
}
