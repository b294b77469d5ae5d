//! The direction of the layers: a crate depends only on those below it.

use super::Finding;
use crate::source;
use anyhow::Result;
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// From the bottom up. A crate may depend on those before it.
const LAYERS: &[&str] =
    &["udax-mm", "udax-dev", "udax-mapping", "udax-fs", "udax", "udax-fuse", "udax-cli"];

/// Crates that stand beside the layers and that one layer alone uses: the crate, the highest layer
/// that it may depend on, and its one user.
const BESIDE: &[(&str, &str, &str)] = &[("udax-uring", "udax", "udax-cli")];

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
    let Some(place) = place(name) else {
        return vec![Finding::new(manifest(), 0, format!("{name} has no place in the layers"))];
    };
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != DependencyKind::Development)
        .map(|dependency| dependency.name.as_str())
        .filter(|below| !may_depend(name, place, below))
        .map(|below| Finding::new(manifest(), 0, format!("{name} must not depend on {below}")))
        .collect()
}

/// How many layers a crate has below itself.
fn place(name: &str) -> Option<usize> {
    let layer = |wanted| LAYERS.iter().position(|&layer| layer == wanted);
    match BESIDE.iter().find(|(beside, ..)| *beside == name) {
        Some((_, below, _)) => layer(*below).map(|below| below + 1),
        None => layer(name),
    }
}

/// Whether the crate `name`, which has `place` layers below itself, may depend on `below`.
fn may_depend(name: &str, place: usize, below: &str) -> bool {
    if let Some((.., user)) = BESIDE.iter().find(|(beside, ..)| *beside == below) {
        return name == *user;
    }
    let is_above = LAYERS.iter().skip(place).any(|&layer| layer == below);
    !is_above && !TOOLS.contains(&below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_depends_on_those_below_it() {
        let cases = [
            ("udax-fs", "udax-mapping", true),
            ("udax-fs", "udax", false),
            ("udax-fs", "udax-fs", false),
            ("udax-uring", "udax", true),
            ("udax-uring", "udax-fuse", false),
            ("udax-cli", "udax-uring", true),
            ("udax-fuse", "udax-uring", false),
            ("udax-cli", "udax-crash", false),
            ("udax-cli", "serde", true),
        ];
        for (name, below, expected) in cases {
            let found = may_depend(name, place(name).unwrap(), below);
            assert_eq!(found, expected, "{name} on {below}");
        }
    }
}
