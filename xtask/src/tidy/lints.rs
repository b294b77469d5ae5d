//! Every crate takes the workspace's lints, and these deny undocumented public items.

use super::Finding;
use crate::source;
use anyhow::Result;
use walkdir::WalkDir;

/// What the workspace has to deny.
const DENIED: &[&str] = &[
    "missing_docs = \"deny\"",
    "as_conversions = \"deny\"",
    "unwrap_used = \"deny\"",
    "undocumented_unsafe_blocks = \"deny\"",
    "multiple_unsafe_ops_per_block = \"deny\"",
];

/// Looks for crates that opted out, and for lints that went missing.
pub(super) fn check() -> Result<Vec<Finding>> {
    let workspace = source::document("Cargo.toml")?;
    let mut findings: Vec<Finding> = DENIED
        .iter()
        .filter(|lint| !workspace.contains(*lint))
        .map(|lint| Finding::new("Cargo.toml", 0, format!("`{lint}` is missing")))
        .collect();
    for manifest in manifests() {
        if !source::document(&manifest)?.contains("[lints]\nworkspace = true") {
            findings.push(Finding::new(manifest, 0, "the workspace's lints are not taken"));
        }
    }
    Ok(findings)
}

fn manifests() -> impl Iterator<Item = String> {
    WalkDir::new(source::root().join("crates"))
        .max_depth(2)
        .into_iter()
        .chain(WalkDir::new(source::root().join("xtask")).max_depth(1))
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name() == "Cargo.toml")
        .map(|entry| {
            let path = entry.path().strip_prefix(source::root()).expect("below the root");
            path.display().to_string()
        })
}
