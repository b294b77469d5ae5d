//! `udax cp`: copies in, out, between pools and within one.

use anyhow::bail;
use clap::Args;

use crate::copy::{self, Depth, Manner, Reflink};
use crate::interrupt::Interrupt;
use crate::opening::Opener;
use crate::output::{Format, Output};
use crate::target::Target;

/// Copy files and directories: into a pool, out of it, between pools, or within one.
///
/// Keeps modes, modification times, symbolic links (they are not followed) and holes; names need
/// not be UTF-8. What exists is overwritten, as with cp -r; a file that cannot be copied whole is
/// removed again. Files with several names (hard links) become files of their own. Sockets,
/// devices and fifos are skipped and counted.
///
/// Within one pool a copy shares the pages of its source, and takes no room until one of the two is
/// written (--reflink).
///
/// Ctrl-C stops after the file at hand and says what was done; a second one stops at once, which a
/// pool survives.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax cp notes.txt data.udax:/               into the root directory
  udax cp -r /usr/share/doc data.udax:/doc    a tree, into the pool
  udax cp -r data.udax:/doc /tmp/doc          and out again
  udax cp -r data.udax:/doc other.udax:/      between pools
  udax cp data.udax:/model data.udax:/tuned   a clone, which takes no room
  udax cp -r src/. data.udax:/src             what src contains")]
pub(crate) struct CpArgs {
    /// Copy directories and what is below them.
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,

    /// Say what was copied; -r says it too.
    #[arg(short, long)]
    verbose: bool,

    /// Whether copies within a pool share pages with their source.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Reflink::Auto)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    reflink: Reflink,

    /// One or more sources, then the destination: `POOL:/path` or a path of the host.
    #[arg(num_args = 2.., required = true, value_names = ["SOURCE", "DESTINATION"])]
    #[arg(value_parser = Target::parser())]
    paths: Vec<Target>,
}

impl CpArgs {
    /// Copies.
    ///
    /// # Errors
    ///
    /// Returns why nothing could be copied, or that something could not.
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        let (destination, sources) = self.paths.split_last().expect("two paths at least");
        if self.paths.iter().all(|path| matches!(path, Target::Host(_))) {
            bail!("neither {destination} nor a source is in a pool; write POOL:/path, or use cp");
        }
        let interrupt = Interrupt::install()?;
        let depth = if self.recursive { Depth::Tree } else { Depth::File };
        let manner = Manner { depth, reflink: self.reflink };
        let report = copy::copy(pools, sources, destination, manner, &interrupt)?;
        if self.recursive || self.verbose || report.interrupted || out.format() == Format::Json {
            out.facts(&report)?;
        }
        if report.interrupted {
            bail!("interrupted; the same command again overwrites what is there and completes it");
        }
        match report.failed {
            0 => Ok(()),
            1 => bail!("one file was not copied"),
            failed => bail!("{failed} files were not copied"),
        }
    }
}
