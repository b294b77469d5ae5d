//! What code and documents cite: invariants (I-nn), rules of docs/protocol.md, files and tests.

use super::Finding;
use crate::source::{self, Source};
use anyhow::Result;
use std::collections::BTreeSet;
use std::path::Path;

/// The invariants of the specification run from I-01 to this one.
const LAST_INVARIANT: u32 = 68;

/// The documents that compare Linux with udax, and name tests in the last column of their tables.
const WITH_TESTS: [&str; 3] = ["docs/page-maps.md", "docs/mappings.md", "docs/devices.md"];

/// Looks for invariants without a line, and for citations of what does not exist.
pub(super) fn check(sources: &[Source]) -> Result<Vec<Finding>> {
    let table = source::document("docs/invariants.md")?;
    let invariants = listed(&table, "| I-");
    let rules = listed(&source::document("docs/protocol.md")?, "**Rule ");
    let mut findings: Vec<Finding> = (1..=LAST_INVARIANT)
        .filter(|number| !invariants.contains(number))
        .map(|number| Finding::new("docs/invariants.md", 0, format!("I-{number:02} has no line")))
        .collect();
    findings.extend(missing(&table, sources));
    for path in WITH_TESTS {
        findings.extend(missing_tests(path, &source::document(path)?, sources));
    }
    for source in sources {
        findings.extend(unknown(source, "I-", &invariants, "docs/invariants.md"));
        findings.extend(unknown(source, "rule ", &rules, "docs/protocol.md"));
    }
    Ok(findings)
}

/// Files and tests that the table of invariants names, and that do not exist.
fn missing<'a>(table: &'a str, sources: &'a [Source]) -> impl Iterator<Item = Finding> + 'a {
    table.lines().enumerate().flat_map(move |(n, line)| {
        line.split('`').skip(1).step_by(2).filter(|name| !exists(name, sources)).map(move |name| {
            Finding::new("docs/invariants.md", n + 1, format!("`{name}` does not exist"))
        })
    })
}

/// Tests that the last column of a table of a document names, and that do not exist.
fn missing_tests<'a>(
    path: &'static str,
    document: &'a str,
    sources: &'a [Source],
) -> impl Iterator<Item = Finding> + 'a {
    let last_cell = |line: &'a str| line.strip_suffix(" |")?.rsplit("| ").next();
    let cells =
        document.lines().enumerate().filter_map(move |(n, line)| Some((n, last_cell(line)?)));
    cells.flat_map(move |(n, cell)| {
        let names = cell.split('`').skip(1).step_by(2);
        let tests = names.filter(|name| name.matches('_').count() > 3);
        tests
            .filter(|name| !defined(name, sources))
            .map(move |name| Finding::new(path, n + 1, format!("`{name}` does not exist")))
    })
}

/// Whether a name is a file that exists, a function that exists, or neither a file nor a function.
fn exists(name: &str, sources: &[Source]) -> bool {
    if Path::new(name).extension().is_some_and(|extension| extension == "rs") {
        return source::root().join("crates").join(name).exists();
    }
    let is_test = name.matches('_').count() > 2;
    !is_test || defined(name, sources)
}

fn defined(name: &str, sources: &[Source]) -> bool {
    sources.iter().any(|source| source.text.contains(&format!("fn {name}(")))
}

/// The numbers that follow `mark` at the start of the lines of a document.
fn listed(document: &str, mark: &str) -> BTreeSet<u32> {
    document.lines().filter_map(|line| line.strip_prefix(mark)).filter_map(leading_number).collect()
}

/// Citations, in comments, of numbers that are not in `known`.
fn unknown<'a>(
    source: &'a Source,
    mark: &'a str,
    known: &'a BTreeSet<u32>,
    document: &'a str,
) -> impl Iterator<Item = Finding> + 'a {
    source.text.lines().enumerate().flat_map(move |(n, line)| {
        let comment = line.split_once("//").map_or("", |(_, comment)| comment);
        cited(comment, mark).filter(|number| !known.contains(number)).map(move |number| {
            Finding::new(&source.path, n + 1, format!("{document} has no {mark}{number}"))
        })
    })
}

fn cited<'a>(comment: &'a str, mark: &'a str) -> impl Iterator<Item = u32> + 'a {
    comment.match_indices(mark).filter_map(move |(at, _)| {
        let starts_a_word =
            comment[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric());
        starts_a_word.then(|| leading_number(&comment[at + mark.len()..])).flatten()
    })
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}
