//! The process that the tour kills while it writes: a hidden command.
//!
//! It replaces files again and again the way careful programs do: write a temporary file, rename
//! it. Each number it prints is a promise that the file of that number is there, complete.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use udax::Pool;

use super::pattern;

/// The directory it writes in.
pub(crate) const DIR: &str = "/crash";
/// The name of a file that is not finished.
pub(crate) const UNFINISHED: &str = "unfinished";
/// The end, should nobody kill it.
const LAST: u64 = 100_000;

/// Write to a pool until killed.
#[derive(Args, Debug)]
pub(crate) struct TourWriterArgs {
    /// The pool.
    pool: PathBuf,
}

impl TourWriterArgs {
    /// Writes until it is killed, or nobody listens.
    ///
    /// # Errors
    ///
    /// Returns the first failure of the pool.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let pool = Pool::open(&self.pool)?;
        let mut out = io::stdout().lock();
        for number in 0..LAST {
            write_one(&pool, number)?;
            writeln!(out, "{number}")?;
            out.flush()?;
        }
        Ok(())
    }
}

/// The bytes of file `number`: from one page to sixteen.
pub(crate) fn content(number: u64) -> Vec<u8> {
    let pages = usize::try_from(number % 16 + 1).expect("at most sixteen");
    pattern::bytes(1000 + number, pages * 4096 - 17)
}

fn write_one(pool: &Pool, number: u64) -> udax::Result<()> {
    let unfinished = Path::new(DIR).join(UNFINISHED);
    pool.write(&unfinished, content(number))?;
    pool.rename(&unfinished, Path::new(DIR).join(number.to_string()))
}
