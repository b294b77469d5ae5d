//! `udax ln`: more names for a file, or symbolic links.

use std::ffi::{OsStr, OsString};

use anyhow::{Context, bail};
use clap::Args;

use crate::opening::{InPool, Opener};
use crate::target::{PoolPath, Target};

/// Give a file of a pool another name, or make a symbolic link.
///
/// A symbolic link holds any text, as `ln -s` of the host does; `POOL:` before it is left out.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax ln data.udax:/file data.udax:/same-file
  udax ln -s ../file data.udax:/dir/link
  udax ln -s /dir/file data.udax:/link")]
pub(crate) struct LnArgs {
    /// Make a symbolic link.
    #[arg(short, long)]
    symbolic: bool,

    /// The file, or with -s the text of the link.
    target: OsString,

    /// The name to make.
    #[arg(value_name = "POOL:/PATH", value_parser = PoolPath::parser())]
    link: PoolPath,
}

impl LnArgs {
    /// Makes the link.
    ///
    /// # Errors
    ///
    /// Returns why it could not be made.
    pub(crate) fn run(&self, pools: Opener) -> anyhow::Result<()> {
        super::writing(pools, self.link.pool(), |pool| {
            let made = if self.symbolic {
                pool.symlink(self.text()?, self.link.path())
            } else {
                pool.hard_link(self.file()?.path(), self.link.path())
            };
            Ok(made.of(pool.path())?)
        })
    }

    /// The file that gets another name.
    fn file(&self) -> anyhow::Result<PoolPath> {
        match self.parsed()? {
            Target::Pool(path) if path.pool() == self.link.pool() => Ok(path),
            Target::Pool(path) => {
                bail!("{path} and {} are in two pools; only a copy can be in both", self.link)
            }
            Target::Host(path) => bail!(
                "{} is a path on the host; write POOL:/path, or -s for a symbolic link",
                path.display()
            ),
        }
    }

    /// What a symbolic link holds.
    fn text(&self) -> anyhow::Result<OsString> {
        match self.parsed()? {
            Target::Pool(path) if path.pool() == self.link.pool() => Ok(path.path().into()),
            Target::Pool(path) => {
                bail!("{path} and {} are in two pools; a link cannot lead there", self.link)
            }
            Target::Host(path) => Ok(path.into()),
        }
    }

    fn parsed(&self) -> anyhow::Result<Target> {
        let text: &OsStr = &self.target;
        Target::parse(text).with_context(|| text.display().to_string())
    }
}
