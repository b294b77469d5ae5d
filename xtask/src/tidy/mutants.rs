//! Recorded mutants still apply, and the tests they name still exist.
//!
//! Whether the tests die is for `cargo xtask mutants`; this keeps the record from rotting
//! meanwhile.

use super::Finding;
use crate::mutants::recorded::{self, Applied, FOLDER, Mutant, TestName};
use crate::source::Source;
use anyhow::Result;
use std::path::Path;

/// Looks for each mutant's place and test.
pub(super) fn check(sources: &[Source]) -> Result<Vec<Finding>> {
    let mutants = recorded::all()?;
    Ok(mutants.iter().flat_map(|mutant| in_mutant(mutant, sources)).collect())
}

fn in_mutant(mutant: &Mutant, sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |message: String| {
        findings.push(Finding::new(FOLDER, 0, format!("`{}`: {message}", mutant.name)));
    };
    let file = sources.iter().find(|source| source.path == Path::new(&mutant.file));
    match file.map(|file| mutant.apply(&file.text)) {
        None => find(format!("{} does not exist", mutant.file)),
        Some(Applied::Found(times)) => {
            find(format!("its text is found {times} times in {}", mutant.file));
        }
        Some(Applied::Once(_)) => {}
    }
    if !sources.iter().any(|source| defines(source, &mutant.test)) {
        find(format!("{} does not exist", mutant.test));
    }
    findings
}

fn defines(source: &Source, test: &TestName) -> bool {
    let place = test.place();
    let is_there = source.path.starts_with(&place) || source.path == Path::new(&(place + ".rs"));
    is_there && source.text.contains(&format!("fn {}(", test.function()))
}
