//! Copies between the host and pools, in every direction, by one walk over two trees.

mod host;
mod pool;
mod report;
mod tree;
mod trees;
mod walk;

use anyhow::bail;
use clap::ValueEnum;
use udax::ErrorKind;

pub(crate) use report::CopyReport;

use crate::interrupt::Interrupt;
use crate::opening::{Opener, PoolError};
use crate::target::Target;
use tree::FileKind;
use trees::Trees;
use walk::{Copier, Place, Stop};

/// How directories and symbolic links are taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Depth {
    /// One file; a symbolic link is followed.
    File,
    /// Everything below; symbolic links are copied as such.
    Tree,
}

/// Whether a copy within one pool shares the pages of its source until one of them is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Reflink {
    /// Where that is possible.
    Auto,
    /// Or it fails.
    Always,
    /// Every byte is copied.
    Never,
}

/// How things are copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) depth: Depth,
    pub(crate) reflink: Reflink,
}

/// Copies `sources` to `destination`: into it if it is a directory, else under its name.
///
/// # Errors
///
/// Returns what kept the copy from starting, or the failure that ended it. A file that could not
/// be copied while others were is counted in the report and named on stderr.
pub(crate) fn copy(
    pools: Opener,
    sources: &[Target],
    destination: &Target,
    manner: Manner,
    interrupt: &Interrupt,
) -> anyhow::Result<CopyReport> {
    let trees = Trees::open(pools, destination, sources)?;
    let report = copy_all(&trees, sources, destination, manner, interrupt)?;
    trees.close()?;
    Ok(report)
}

/// Whether the destination takes no more, whatever is copied to it.
pub(crate) fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let pool = cause.downcast_ref::<PoolError>().map(PoolError::kind);
        let host = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(pool, Some(ErrorKind::Full | ErrorKind::DeviceGone))
            || host == Some(std::io::ErrorKind::StorageFull)
    })
}

/// Whether only directories are copied.
fn all_are_dirs(trees: &Trees, sources: &[Target], depth: Depth) -> anyhow::Result<bool> {
    for source in sources {
        let stat = trees.place(source).stat()?;
        if depth == Depth::File || stat.is_none_or(|stat| stat.kind != FileKind::Dir) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn copy_all(
    trees: &Trees,
    sources: &[Target],
    destination: &Target,
    manner: Manner,
    interrupt: &Interrupt,
) -> anyhow::Result<CopyReport> {
    let Manner { depth, reflink } = manner;
    let to = trees.place(destination);
    let is_dir = to.stat_through()?.is_some_and(|stat| stat.kind == FileKind::Dir);
    if sources.len() > 1 && !is_dir {
        bail!("{destination}: several files can only be copied into a directory; make it first");
    }
    if !is_dir && destination.ends_in_slash() && !all_are_dirs(trees, sources, depth)? {
        bail!("{destination}: no such directory; make it first, or leave out the slash at the end");
    }
    let pairs: Vec<(Place<'_>, Place<'_>)> = sources
        .iter()
        .map(|source| {
            let into = source.copy_name().filter(|_| is_dir).map(|name| to.join(name));
            (trees.place(source), into.unwrap_or_else(|| to.clone()))
        })
        .collect();
    let mut copier = Copier::new(interrupt, reflink, trees.pool_files());
    copier.expect(pairs.iter().map(|(from, _)| from));
    for (from, to) in &pairs {
        let copied = match depth {
            Depth::File => copier.copy_through(from, to),
            Depth::Tree => copier.copy(from, to),
        };
        match copied {
            Ok(()) => {}
            Err(Stop::Interrupted) => return Ok(copier.finish(true)),
            Err(Stop::Failed(error)) => return Err(error),
        }
    }
    Ok(copier.finish(false))
}
