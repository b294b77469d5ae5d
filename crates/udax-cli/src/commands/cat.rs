//! `udax cat`: the bytes of files, on stdout.

use std::io::Write;
use std::path::Path;

use clap::Args;
use udax::Pool;

use crate::opening::{InPool, Opener};
use crate::output::Output;
use crate::target::PoolPath;

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// Write the bytes of files of a pool to stdout.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax cat data.udax:/notes.txt
  udax cat data.udax:/part.1 data.udax:/part.2 > whole")]
pub(crate) struct CatArgs {
    /// The files.
    #[arg(required = true, value_name = "POOL:/PATH", value_parser = PoolPath::parser())]
    files: Vec<PoolPath>,
}

impl CatArgs {
    /// Writes the bytes.
    ///
    /// # Errors
    ///
    /// Returns why a file cannot be read, or stdout not be written.
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        for file in &self.files {
            let pool = pools.to_read(file.pool())?;
            pour(&pool, file.path(), out.stream())?;
        }
        Ok(out.stream().flush()?)
    }
}

/// Writes the bytes of the file `path`.
fn pour(pool: &Pool, path: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let file = pool.open_file(path).of(pool.path())?;
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut chunk, at).of(pool.path())?;
        let bytes = chunk.get(..read).expect("no more is read than asked for");
        if bytes.is_empty() {
            return Ok(());
        }
        out.write_all(bytes)?;
        at += u64::try_from(read).expect("a length in memory fits 64 bits");
    }
}
