//! Words that have a place: `unsafe` in five files, `std::sync` in sync.rs, and some nowhere.

use super::Finding;
use crate::source::Source;
use proc_macro2::{TokenStream, TokenTree};
use std::path::Path;
use std::str::FromStr;

const UNSAFE_FILES: &[&str] = &[
    "crates/udax-mm/src/bytes.rs",
    "crates/udax-mm/src/handle.rs",
    "crates/udax-mm/src/persist.rs",
    "crates/udax-mm/src/reserve.rs",
    "crates/udax-mm/src/vma.rs",
];

/// The one library crate that cannot forbid unsafe code as a whole.
const UNSAFE_CRATE: &str = "crates/udax-mm/src/lib.rs";

/// Looks for words outside their place.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    sources.iter().flat_map(|source| in_file(source).into_iter().chain(forbids(source))).collect()
}

fn in_file(source: &Source) -> Vec<Finding> {
    let tokens = TokenStream::from_str(&source.text).expect("the file was parsed before");
    let mut words = Vec::new();
    flatten(tokens, &mut words);
    let mut findings = Vec::new();
    if !is_one_of(&source.path, UNSAFE_FILES) {
        let lines = words.iter().filter(|(word, _)| word == "unsafe").map(|(_, line)| *line);
        findings.extend(lines.map(|line| {
            Finding::new(&source.path, line, "`unsafe` has its place in five files of udax-mm")
        }));
    }
    if source.path.file_name().is_none_or(|name| name != "sync.rs") {
        findings.extend(
            std_sync(&words).map(|line| {
                Finding::new(&source.path, line, "`std::sync` is named in sync.rs only")
            }),
        );
    }
    findings.extend(unfinished(source));
    findings
}

/// Lists the identifiers and punctuation of `tokens` with their lines.
fn flatten(tokens: TokenStream, words: &mut Vec<(String, usize)>) {
    for token in tokens {
        let line = token.span().start().line;
        match token {
            TokenTree::Group(group) => flatten(group.stream(), words),
            TokenTree::Literal(_) => {}
            other => words.push((other.to_string(), line)),
        }
    }
}

fn std_sync(words: &[(String, usize)]) -> impl Iterator<Item = usize> {
    words.windows(4).filter_map(|window| match window {
        [(a, line), (b, _), (c, _), (d, _)]
            if a == "std" && b == ":" && c == ":" && d == "sync" =>
        {
            Some(*line)
        }
        _ => None,
    })
}

/// Work that was left for later, which belongs into an issue.
fn unfinished(source: &Source) -> impl Iterator<Item = Finding> {
    source.text.lines().enumerate().filter_map(|(n, line)| {
        let comment = line.split_once("//").map_or("", |(_, comment)| comment);
        let word =
            ["TODO", "FIXME", "XXX", "HACK"].into_iter().find(|word| comment.contains(word))?;
        Some(Finding::new(&source.path, n + 1, format!("a comment says {word}")))
    })
}

/// Every crate root but one forbids unsafe code.
fn forbids(source: &Source) -> Option<Finding> {
    let is_root = source.path.ends_with("src/lib.rs") || source.path.ends_with("src/main.rs");
    let exempt = source.path == Path::new(UNSAFE_CRATE);
    let forbids = source.text.contains("#![forbid(unsafe_code)]");
    (is_root && !exempt && !forbids)
        .then(|| Finding::new(&source.path, 0, "`#![forbid(unsafe_code)]` is missing"))
}

fn is_one_of(path: &Path, files: &[&str]) -> bool {
    files.iter().any(|file| path == Path::new(file))
}
