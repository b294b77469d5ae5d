//! The workspace's source files, read and parsed once for every check.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// A Rust file of the workspace.
pub(crate) struct Source {
    /// Relative to the workspace's root.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
}

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Reads every Rust file of the workspace but those that must not compile.
pub(crate) fn all() -> Result<Vec<Source>> {
    rust_files().map(|path| read(&path)).collect()
}

/// Reads a document of the workspace.
pub(crate) fn document(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("cannot read {path}"))
}

fn rust_files() -> impl Iterator<Item = PathBuf> {
    ["crates", "xtask"]
        .into_iter()
        .flat_map(|folder| WalkDir::new(root().join(folder)).sort_by_file_name())
        .filter_map(Result::ok)
        .map(walkdir::DirEntry::into_path)
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter(|path| !path.components().any(|part| part.as_os_str() == "ui"))
        .filter(|path| !path.components().any(|part| part.as_os_str() == "target"))
}

fn read(path: &Path) -> Result<Source> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let syntax =
        syn::parse_file(&text).with_context(|| format!("cannot parse {}", path.display()))?;
    let path = path.strip_prefix(root()).expect("the walk starts at the root").to_path_buf();
    Ok(Source { path, text, syntax })
}
