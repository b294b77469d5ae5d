//! `udax matrix`: what becomes of a device's transfer into a mapped file while somebody else acts on
//! that file, for each kind of file, done for real.
//!
//! Each cell is a process of its own ([`cell`]), started and watched by [`trial`]. What is done to
//! files of the host is in [`host`], to those of udax in [`pooled`], and the death of the holder in
//! [`death`].

mod cell;
mod death;
mod device;
mod facts;
mod holder;
mod host;
mod places;
mod plain;
mod pooled;
mod trial;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use rustix::process::{Resource, getrlimit};
use udax_uring::Ring;

use crate::output::{Output, note};
use cell::CellArgs;
use facts::{Action, Backing, Matrix, Outcome, Row};
use places::Places;

pub(crate) use cell::MatrixCellArgs;
pub(crate) use holder::MatrixHolderArgs;

/// The bytes of the buffer, where the user may lock as much.
const BUFFER: usize = 1 << 20;
/// The bytes of a huge page.
const HUGE: usize = 2 << 20;

/// See what becomes of a device's transfer into a mapped file when somebody else acts on the file.
///
/// For each kind of file and each action: maps a file, registers its pages as a buffer of io-uring,
/// acts on the file, has the kernel read another file into the buffer, and looks for the bytes. Each
/// cell is performed in a process of its own, so that a hang or a SIGBUS is an observation. Needs no
/// root; leaves nothing behind. Exits with 1 unless every cell of udax is safe.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax matrix
  udax matrix --backing tmpfs --backing udax --action truncate
  udax matrix --json | jq '.rows[] | {backing, cells: [.cells[] | {action, verdict}]}'")]
#[command(after_long_help = "\
What each action is, and what is looked at after the transfer:

  truncate     the file is truncated to nothing, extended and written anew. Safe if the holder finds
               the device's bytes in its memory. For udax also: the file has what was written
               anew, every file that fills the pool meanwhile is unchanged, and the blocks come back
               with the unpin.
  punch        a hole is punched over all of the file. The same is looked at.
  unlink       the name is removed (a memfd has none). The same is looked at.
  shrink       the memory itself is made shorter: the file is truncated to nothing and stays so, and
               the holder loads a byte of its buffer. For udax the device is removed: it must wait
               for the holder and name it, refuse everybody else, and end with the unpin.
  holder dies  a process registers the buffer in a ring of another one, which is the device; a
               transfer is under way; the process is killed with SIGKILL, its file given back or
               removed and the space used again (for udax: the pool is opened again and filled to
               the last block); then the bytes come. Safe if every other file is unchanged and, for
               udax, no file was given the pages that were pinned.

A transfer of which the kernel reports less than success is refused, and never lost.

Examples:
  udax matrix
  udax matrix --backing tmpfs --backing udax --action truncate
  udax matrix --json | jq '.rows[] | {backing, cells: [.cells[] | {action, verdict}]}'")]
pub(crate) struct MatrixArgs {
    /// Where the file on a disk goes [default: the first of the temporary, the current and the home
    /// directory that is not in memory]
    #[arg(long)]
    dir: Option<PathBuf>,

    /// Only this kind of file; may be given more than once.
    #[arg(long, value_enum)]
    backing: Vec<Backing>,

    /// Only this action; may be given more than once.
    #[arg(long, value_enum)]
    action: Vec<Action>,

    /// Seconds after which a cell counts as hung.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    deadline: u32,
}

impl MatrixArgs {
    /// Performs every cell, and prints the matrix.
    ///
    /// # Errors
    ///
    /// Returns that the host permits no `io_uring`, or that udax is not safe.
    pub(crate) fn run(&self, out: &mut Output) -> anyhow::Result<()> {
        drop(Ring::new(8).context("nothing can be shown")?);
        let places = Places::new(self.dir.as_deref())?;
        let direct = if device::is_direct(places.disk()) { "O_DIRECT" } else { "page cache" };
        let source = format!("{direct}, {}", places.filesystem());
        let mut rows = Vec::new();
        for &backing in chosen(&self.backing, Backing::value_variants()) {
            rows.push(self.row(backing, &places)?);
        }
        let matrix = Matrix::new(source, rows);
        out.facts(&matrix)?;
        match matrix.unsafe_of_udax().as_slice() {
            [] => Ok(()),
            found => bail!("udax is not safe: {}", found.join("; ")),
        }
    }

    fn row(&self, backing: Backing, places: &Places) -> anyhow::Result<Row> {
        let title = places.title(backing);
        let len = if backing == Backing::Huge { HUGE } else { buffer() };
        let mut cells: Vec<(Action, Outcome)> = Vec::new();
        for &action in chosen(&self.action, Action::value_variants()) {
            note(format_args!("{title}: {}", action.name()));
            let cell = CellArgs {
                backing,
                action,
                disk: places.disk().to_owned(),
                shm: places.shm().map(PathBuf::from),
                len,
            };
            let deadline = Duration::from_secs(u64::from(self.deadline));
            cells.push((action, trial::run(&cell, places, deadline)?));
        }
        Ok(Row::new(backing, title, len, cells))
    }
}

/// What was asked for, or else everything.
fn chosen<'a, T>(asked: &'a [T], all: &'a [T]) -> &'a [T] {
    if asked.is_empty() { all } else { asked }
}

/// The bytes of the buffer: a quarter of what the user may lock, if that is less than usual.
fn buffer() -> usize {
    let limit = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
    let quarter = usize::try_from(limit / 4).unwrap_or(usize::MAX);
    let pages = (quarter / udax::PAGE_SIZE).max(1);
    BUFFER.min(pages.saturating_mul(udax::PAGE_SIZE))
}
