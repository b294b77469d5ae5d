//! The direction of the layers: a crate depends only on those below it.

use super::Finding;
use crate::source;
use anyhow::Result;
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// From the bottom up. A crate may depend on those before it.
const LAYERS: &[&str] =
    &["udax-mm", "udax-dev", "udax-mapping", "udax-fs", "udax", "udax-fuse", "udax-cli"];

/// Crates that stand beside the layers: no layer may depend on them.
const TOOLS: &[&str] = &["udax-crash", "xtask"];

/// Compares the dependencies in `cargo metadata` with the layers.
pub(super) fn check() -> Result<Vec<Finding>> {
    let metadata = MetadataCommand::new().no_deps().current_dir(source::root()).exec()?;
    Ok(metadata.workspace_packages().into_iter().flat_map(upward).collect())
}

fn upward(package: &Package) -> Vec<Finding> {
    let name = package.name.as_str();
    let manifest =
        || package.manifest_path.strip_prefix(source::root()).unwrap_or(&package.manifest_path);
    if TOOLS.contains(&name) {
        return Vec::new();
    }
    let Some(layer) = LAYERS.iter().position(|&layer| layer == name) else {
        return vec![Finding::new(manifest(), 0, format!("{name} has no place in the layers"))];
    };
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != DependencyKind::Development)
        .map(|dependency| dependency.name.as_str())
        .filter(|below| {
            TOOLS.contains(below)
                || LAYERS
                    .iter()
                    .position(|layer| layer == below)
                    .is_some_and(|place| place >= layer)
        })
        .map(|below| Finding::new(manifest(), 0, format!("{name} must not depend on {below}")))
        .collect()
}
