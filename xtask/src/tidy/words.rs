//! Words that have a place: `unsafe` in eight files, `std::sync` in sync.rs, and some nowhere.

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
    "crates/udax-mm/src/uffd.rs",
    "crates/udax-mm/src/vma.rs",
    "crates/udax-mm/src/vma/frozen_bytes.rs",
    "crates/udax-uring/src/table.rs",
    "crates/udax/tests/syscalls/raw.rs",
];

/// The crates that have the module `sync`.
const STANDARD: &[&str] = &["std", "core", "alloc"];

/// The roots of the crates that cannot forbid unsafe code as a whole. One that has it in a single
/// file denies it, which that file alone takes back.
const UNSAFE_CRATES: &[&str] = &["crates/udax-mm/src/lib.rs", "crates/udax-uring/src/lib.rs"];

/// Looks for words outside their place.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    sources.iter().flat_map(|source| in_file(source).into_iter().chain(forbids(source))).collect()
}

fn in_file(source: &Source) -> Vec<Finding> {
    let tokens = TokenStream::from_str(&source.text).expect("the file was parsed before");
    let mut words = Vec::new();
    flatten(tokens.clone(), &mut words);
    let mut findings = Vec::new();
    if !is_one_of(&source.path, UNSAFE_FILES) {
        let lines = words.iter().filter(|(word, _)| word == "unsafe").map(|(_, line)| *line);
        findings.extend(lines.map(|line| {
            Finding::new(
                &source.path,
                line,
                "`unsafe` has its place in the files that docs/why.md lists",
            )
        }));
    }
    if source.path.file_name().is_none_or(|name| name != "sync.rs") {
        findings.extend(
            std_sync(tokens).into_iter().map(|line| {
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

/// The lines that name the module `sync` of a standard crate: by a path, in the braces of one, or
/// by taking all that the crate has.
fn std_sync(tokens: TokenStream) -> Vec<usize> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut lines = Vec::new();
    for (n, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            lines.extend(std_sync(group.stream()));
        }
        let rest = &tokens[n + 1..];
        if STANDARD.iter().any(|name| is(token, name))
            && (leads_to_sync(rest) || (n > 0 && is_renamed(&tokens[n - 1], rest)))
        {
            lines.push(token.span().start().line);
        }
    }
    lines
}

/// Whether `rest`, which follows the name of a standard crate, goes on to its `sync`.
fn leads_to_sync(rest: &[TokenTree]) -> bool {
    let [a, b, next, ..] = rest else { return false };
    if !is(a, ":") || !is(b, ":") {
        return false;
    }
    let TokenTree::Group(group) = next else { return is(next, "sync") || is(next, "*") };
    let inside: Vec<TokenTree> = group.stream().into_iter().collect();
    inside.split(|token| is(token, ",")).any(|item| match item {
        [first, then, ..] if is(first, "self") => is(then, "as"),
        [first, ..] => is(first, "sync") || is(first, "*"),
        [] => false,
    })
}

/// Whether a standard crate between `before` and `rest` gets another name there.
fn is_renamed(before: &TokenTree, rest: &[TokenTree]) -> bool {
    (is(before, "use") || is(before, "crate")) && rest.first().is_some_and(|next| is(next, "as"))
}

fn is(token: &TokenTree, text: &str) -> bool {
    match token {
        TokenTree::Ident(ident) => ident == text,
        TokenTree::Punct(punct) => text.len() == 1 && text.starts_with(punct.as_char()),
        TokenTree::Group(_) | TokenTree::Literal(_) => false,
    }
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

/// Every crate root forbids unsafe code, but those of the crates that have some.
fn forbids(source: &Source) -> Option<Finding> {
    let is_root = source.path.ends_with("src/lib.rs") || source.path.ends_with("src/main.rs");
    let exempt = is_one_of(&source.path, UNSAFE_CRATES);
    let forbids = source.text.contains("#![forbid(unsafe_code)]");
    (is_root && !exempt && !forbids)
        .then(|| Finding::new(&source.path, 0, "`#![forbid(unsafe_code)]` is missing"))
}

fn is_one_of(path: &Path, files: &[&str]) -> bool {
    files.iter().any(|file| path == Path::new(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_std_sync_is_seen() {
        let seen = [
            "use std::sync::Arc;",
            "use ::std::sync::{Arc, Mutex};",
            "use std::{sync::Arc};",
            "use std::{fmt, sync::{Arc, atomic::AtomicU64}};",
            "use std::{fmt::{self, Write}, sync};",
            "use core::sync::atomic::AtomicU64;",
            "use alloc::{sync::Arc, vec::Vec};",
            "fn f() { let _ = { std::sync::Once::new() }; }",
            "macro_rules! m { () => { use std::{sync::Arc}; } }",
            "use std as other;",
            "extern crate std as other;",
            "use std::{self as other};",
            "use std::*;",
        ];
        for text in seen {
            assert_eq!(std_sync(TokenStream::from_str(text).unwrap()), [1], "{text}");
        }
    }

    #[test]
    fn what_is_not_std_sync_is_left_alone() {
        let fine = [
            "use udax_mm::sync::Arc;",
            "use std::{fmt, io::{self, Write}};",
            "use std::fs::{self as host};",
            "use std::collections::*;",
            "// use std::sync::Arc;",
            "const TEXT: &str = \"std::sync\";",
            "fn sync(std: u8) -> u32 { std as u32 }",
        ];
        for text in fine {
            assert!(std_sync(TokenStream::from_str(text).unwrap()).is_empty(), "{text}");
        }
    }
}
