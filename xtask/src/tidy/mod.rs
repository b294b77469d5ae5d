//! Checks that no compiler makes. Each looks at one thing and returns what it found.

mod format;
mod layers;
mod lengths;
mod lints;
mod mutants;
mod numbers;
mod words;

use crate::source;
use anyhow::{Result, bail};
use std::fmt;
use std::path::PathBuf;

/// Something that has to be mended, and where.
pub(crate) struct Finding {
    path: PathBuf,
    /// From one; zero speaks of the whole file.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: impl Into<PathBuf>, line: usize, message: impl Into<String>) -> Finding {
        Finding { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

/// Runs every check and prints what it found.
pub(crate) fn run() -> Result<()> {
    let sources = source::all()?;
    let mut findings = layers::check()?;
    findings.extend(lints::check()?);
    findings.extend(words::check(&sources));
    findings.extend(lengths::check(&sources));
    findings.extend(numbers::check(&sources)?);
    findings.extend(format::check(&sources)?);
    findings.extend(mutants::check(&sources)?);
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("tidy: {} files, nothing found", sources.len());
    Ok(())
}
