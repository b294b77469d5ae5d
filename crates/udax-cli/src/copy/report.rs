//! What a copy did: counts, bytes, and how fast.

use std::io::{self, Write};
use std::time::Instant;

use serde::Serialize;

use crate::output::Human;
use crate::rate::{self, Elapsed};
use crate::size::human;

/// The outcome of a copy.
#[derive(Debug, Serialize)]
pub(crate) struct CopyReport {
    /// Regular files copied.
    pub(crate) files: u64,
    /// Directories made or entered.
    pub(crate) dirs: u64,
    /// Symbolic links copied.
    pub(crate) symlinks: u64,
    /// The lengths of the files copied, holes included.
    pub(crate) bytes: u64,
    /// How much of that took no room, because the copies share the pages of their sources.
    pub(crate) shared: u64,
    /// Sockets, devices, fifos and the pool itself.
    pub(crate) skipped: u64,
    /// Files that could not be copied; each was named on stderr.
    pub(crate) failed: u64,
    /// Whether Ctrl-C ended it.
    pub(crate) interrupted: bool,
    /// How long it took.
    pub(crate) seconds: Elapsed,
    #[serde(skip)]
    started: Instant,
}

impl CopyReport {
    /// Nothing copied yet.
    pub(crate) fn start() -> CopyReport {
        CopyReport {
            files: 0,
            dirs: 0,
            symlinks: 0,
            bytes: 0,
            shared: 0,
            skipped: 0,
            failed: 0,
            interrupted: false,
            seconds: Elapsed::default(),
            started: Instant::now(),
        }
    }

    /// Stops the clock.
    pub(crate) fn finish(&mut self, is_interrupted: bool) {
        self.interrupted = is_interrupted;
        self.seconds = Elapsed(self.started.elapsed());
    }
}

impl Human for CopyReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let time = self.seconds.0;
        write!(out, "{} files, {} directories, ", self.files, self.dirs)?;
        write!(out, "{} symbolic links: {} ", self.symlinks, human(self.bytes))?;
        let speed = human(rate::per_second(self.bytes, time));
        let files = rate::per_second(self.files, time);
        writeln!(out, "in {} ({speed}/s, {files} files/s)", self.seconds)?;
        if self.shared > 0 {
            writeln!(out, "{} of it shared, not copied", human(self.shared))?;
        }
        if self.skipped > 0 {
            writeln!(out, "{} skipped (not regular files)", self.skipped)?;
        }
        if self.failed > 0 {
            writeln!(out, "{} not copied", self.failed)?;
        }
        if self.interrupted {
            writeln!(out, "interrupted: what is counted here is complete, the rest is not there")?;
        }
        Ok(())
    }
}
