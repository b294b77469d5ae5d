//! What the steps of the tour share: the pool, and the files imported into it.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use udax::{ErrorKind, Pool};

use super::story::Story;

/// The stage of the tour.
pub(crate) struct Stage<'a> {
    story: Story<'a>,
    pool: Option<Pool>,
    path: PathBuf,
    dir: PathBuf,
    limit: u64,
    imported: Vec<Imported>,
}

/// A file of the pool whose bytes are known.
#[derive(Clone, Debug)]
pub(crate) struct Imported {
    /// Its path in the pool.
    pub(crate) path: PathBuf,
    /// Its length.
    pub(crate) len: u64,
    /// The xxh3 of its bytes, taken while they were read from the host.
    pub(crate) digest: u64,
}

impl<'a> Stage<'a> {
    /// A stage whose pool will be at `path`, for the files of `dir` up to `limit` bytes.
    pub(crate) fn new(story: Story<'a>, path: PathBuf, dir: &Path, limit: u64) -> Stage<'a> {
        let dir = dir.to_owned();
        Stage { story, pool: None, path, dir, limit, imported: Vec::new() }
    }

    /// What is told.
    pub(crate) fn story(&mut self) -> &mut Story<'a> {
        &mut self.story
    }

    /// Tells one thing that the step saw.
    pub(crate) fn saw(&mut self, text: impl Into<String>) -> anyhow::Result<()> {
        self.story.saw(text)
    }

    /// The file of the pool.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory to import.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many bytes of it at most.
    pub(crate) const fn limit(&self) -> u64 {
        self.limit
    }

    /// Another handle of the open pool.
    pub(crate) fn pool(&self) -> anyhow::Result<Pool> {
        self.pool.clone().context("the pool is closed at this point of the tour")
    }

    /// Goes on with `pool`.
    pub(crate) fn enter(&mut self, pool: Pool) {
        self.pool = Some(pool);
    }

    /// Closes the pool, which every other handle must have left.
    pub(crate) fn close(&mut self) -> anyhow::Result<()> {
        match self.pool.take() {
            Some(pool) => Ok(pool.close()?),
            None => Ok(()),
        }
    }

    /// Lets go of the pool without closing it in good order, as one whose device is gone.
    pub(crate) fn abandon(&mut self) {
        self.pool = None;
    }

    /// Opens the pool; returns how long it took.
    pub(crate) fn reopen(&mut self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.pool = Some(Pool::open(&self.path)?);
        Ok(started.elapsed())
    }

    /// The files whose bytes are known.
    pub(crate) fn imported(&self) -> &[Imported] {
        &self.imported
    }

    /// Remembers the files whose bytes are known.
    pub(crate) fn remember(&mut self, imported: Vec<Imported>) {
        self.imported = imported;
    }

    /// Ends the tour.
    pub(crate) fn end(mut self, time: Duration) -> anyhow::Result<()> {
        self.close()?;
        self.story.end(time)
    }
}

/// Asserts that `result` is an error of `kind`, and returns its message.
pub(crate) fn refused<T>(
    what: impl Display,
    result: udax::Result<T>,
    kind: ErrorKind,
) -> anyhow::Result<String> {
    match result {
        Err(error) if error.kind() == kind => Ok(error.to_string()),
        Err(error) => {
            let found = error.kind();
            Err(error).with_context(|| format!("{what} failed as {found:?}, not as {kind:?}"))
        }
        Ok(_) => bail!("{what} succeeded and should have been refused as {kind:?}"),
    }
}
