//! Which trees a crash may leave, and how one differs from them.

use crate::oracle::{Content, InPlace, Node, NodeId, ROOT, Tree, byte_count, index};
use std::collections::{BTreeMap, BTreeSet};
use udax_mm::sync::Arc;

/// The trees that may be found after a crash at one moment.
#[derive(Clone, Debug)]
pub enum Allowed {
    /// Nothing was running: exactly this one.
    Exactly(Arc<Tree>),
    /// An operation was running: the tree before it or after it, and where it changes bytes in
    /// place, any mixture of their units.
    Either {
        /// Before the operation.
        before: Arc<Tree>,
        /// After it.
        after: Arc<Tree>,
        /// The trees between its steps, if it is several.
        between: Vec<Arc<Tree>>,
        /// The bytes it changes in place.
        in_place: Option<InPlace>,
    },
}

impl Allowed {
    /// Says what is wrong with `found`, if it is none of the allowed trees.
    ///
    /// # Errors
    ///
    /// The first difference to each allowed tree.
    pub fn check(&self, found: &Tree) -> Result<(), String> {
        let (before, after, between, in_place) = match self {
            Allowed::Exactly(tree) => return difference(tree, found),
            Allowed::Either { before, after, between, in_place } => {
                (before, after, between, in_place)
            }
        };
        let Err(new) = difference(after, found) else { return Ok(()) };
        let Err(old) = difference(before, found) else { return Ok(()) };
        if between.iter().any(|tree| difference(tree, found).is_ok()) {
            return Ok(());
        }
        if let Some(in_place) = in_place {
            let is_frozen = |tree: &Tree| tree.node(in_place.node).is_frozen;
            // What is frozen has all its bytes.
            let trees = [before, after].into_iter().chain(between);
            for published in trees.filter(|tree| !is_frozen(tree)) {
                let mixed = mixture(in_place, before, after, published, found);
                if mixed.is_some_and(|mixed| difference(&mixed, found).is_ok()) {
                    return Ok(());
                }
            }
        }
        Err(format!("neither before ({old}) nor after ({new}) the operation"))
    }
}

/// Says where two trees differ. Numbers of nodes do not matter, which names share a node does.
///
/// # Errors
///
/// The first difference in the order of paths.
pub fn difference(expected: &Tree, found: &Tree) -> Result<(), String> {
    let mut partner = BTreeMap::new();
    let mut open = vec![(String::new(), ROOT, ROOT)];
    while let Some((path, left, right)) = open.pop() {
        let shown = if path.is_empty() { "/" } else { path.as_str() };
        match partner.insert(left, right) {
            Some(known) if known == right => continue,
            Some(_) => return Err(format!("{shown} shares its node with other names")),
            None => {}
        }
        let (old, new) = (expected.node(left), found.node(right));
        node_difference(old, new).map_err(|what| format!("{shown}: {what}"))?;
        let (
            Content::Dir { names, parent },
            Content::Dir { names: found_names, parent: found_parent },
        ) = (&old.content, &new.content)
        else {
            continue;
        };
        if left != ROOT && partner.get(parent) != Some(found_parent) {
            return Err(format!("{shown} points to another parent directory"));
        }
        for (name, id) in names {
            let join = format!("{path}{}{name}", if path.is_empty() { "" } else { "/" });
            let Some(found) = found_names.get(name) else {
                return Err(format!("{join} is missing"));
            };
            open.push((join, *id, *found));
        }
        if let Some(name) = found_names.keys().find(|name| !names.contains_key(*name)) {
            return Err(format!("{shown} holds {name}, which nobody made"));
        }
    }
    let distinct: BTreeSet<&NodeId> = partner.values().collect();
    if distinct.len() < partner.len() {
        return Err("two nodes became one".to_owned());
    }
    Ok(())
}

fn node_difference(expected: &Node, found: &Node) -> Result<(), String> {
    let differ = |what: &str, old: &dyn std::fmt::Debug, new: &dyn std::fmt::Debug| {
        Err(format!("{what} is {new:?}, expected {old:?}"))
    };
    if expected.mode != found.mode {
        return differ("mode", &expected.mode, &found.mode);
    }
    if expected.uid != found.uid {
        return differ("uid", &expected.uid, &found.uid);
    }
    if expected.is_frozen != found.is_frozen {
        return differ("frozen", &expected.is_frozen, &found.is_frozen);
    }
    if expected.mtime.is_some() && expected.mtime != found.mtime {
        return differ("mtime", &expected.mtime, &found.mtime);
    }
    if expected.links.is_some() && expected.links != found.links {
        return differ("links", &expected.links, &found.links);
    }
    match (&expected.content, &found.content) {
        (Content::File { data: old, .. }, Content::File { data: new, .. }) => {
            data_difference(old, new)
        }
        (Content::Symlink(old), Content::Symlink(new)) if old != new => differ("target", old, new),
        (Content::Dir { .. }, Content::Dir { .. }) | (Content::Symlink(_), Content::Symlink(_)) => {
            Ok(())
        }
        _ => Err("it is of another kind".to_owned()),
    }
}

fn data_difference(expected: &[u8], found: &[u8]) -> Result<(), String> {
    if expected.len() != found.len() {
        return Err(format!("size is {}, expected {}", found.len(), expected.len()));
    }
    if expected == found {
        return Ok(());
    }
    let pairs = expected.iter().zip(found);
    let at = pairs.take_while(|(old, new)| old == new).count();
    Err(format!("byte {at} is {:#x}, expected {:#x}", found[at], expected[at]))
}

/// The tree `published` with the units of the bytes changed in place as they were found, where they
/// are old or new. None if `found` has no such file of the right size.
fn mixture(
    in_place: &InPlace,
    before: &Tree,
    after: &Tree,
    published: &Tree,
    found: &Tree,
) -> Option<Tree> {
    let (path, id) = published.paths().into_iter().find(|(_, id)| *id == in_place.node)?;
    let found = file_bytes(found, found.resolve(&path).ok()?)?;
    let (old, new) = (file_bytes(before, id)?, file_bytes(after, id)?);
    let mut mixed = file_bytes(published, id)?.clone();
    if found.len() != mixed.len() {
        return None;
    }
    for range in &in_place.ranges {
        for unit in range.start / 8..range.end.div_ceil(8) {
            let end = index(range.end.min(unit * 8 + 8)).min(old.len()).min(new.len());
            let unit = index(range.start.max(unit * 8)).min(end)..end;
            let bytes = [&old[unit.clone()], &new[unit.clone()]];
            if bytes.contains(&&found[unit.clone()]) {
                mixed[unit.clone()].copy_from_slice(&found[unit]);
            }
        }
    }
    debug_assert_eq!(byte_count(&mixed), byte_count(found), "compare: sizes were equal");
    Some(published.with_data(id, mixed))
}

fn file_bytes(tree: &Tree, id: NodeId) -> Option<&Vec<u8>> {
    match &tree.node(id).content {
        Content::File { data, .. } => Some(data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Op;

    fn tree(ops: &[Op]) -> Tree {
        let mut tree = Tree::empty();
        for op in ops {
            tree.apply(op).unwrap();
        }
        tree
    }

    fn create(path: &str) -> Op {
        Op::Create(path.to_owned())
    }

    fn write(at: u64, len: u64, fill: u8) -> Op {
        Op::Write { path: "f".to_owned(), at, len, fill }
    }

    /// What is said of a file with `found` in it after a crash inside `op`, which met 16 bytes.
    fn after_crash(op: &Op, found: impl Fn(&mut Vec<u8>)) -> Result<(), String> {
        let before = tree(&[create("f"), write(0, 16, 1)]);
        let mut after = before.clone();
        after.apply(op).unwrap();
        let id = before.resolve("f").unwrap();
        let mut bytes = file_bytes(&before, id).unwrap().clone();
        found(&mut bytes);
        let crashed = before.with_data(id, bytes);
        let in_place = before.in_place(op);
        let between = before.between(op);
        Allowed::Either { before: Arc::new(before), after: Arc::new(after), between, in_place }
            .check(&crashed)
    }

    #[test]
    fn an_overwrite_may_leave_any_of_its_units_and_no_torn_one() {
        let op = write(0, 16, 9);
        let new = crate::workload::pattern(9, 16);
        let second = |bytes: &mut Vec<u8>| bytes[8..].copy_from_slice(&new[8..]);
        let torn = |bytes: &mut Vec<u8>| bytes[8..12].copy_from_slice(&new[8..12]);
        assert_eq!(after_crash(&op, second), Ok(()));
        assert!(after_crash(&op, torn).is_err());
    }

    #[test]
    fn an_append_is_there_with_its_size_or_not_at_all() {
        let op = write(16, 16, 9);
        let whole = |bytes: &mut Vec<u8>| bytes.extend(crate::workload::pattern(9, 16));
        let half = |bytes: &mut Vec<u8>| bytes.extend(crate::workload::pattern(9, 8));
        let zeros = |bytes: &mut Vec<u8>| bytes.extend([0; 16]);
        assert_eq!(after_crash(&op, whole), Ok(()));
        assert!(after_crash(&op, half).is_err());
        assert!(after_crash(&op, zeros).is_err());
    }

    #[test]
    fn names_of_one_node_differ_from_names_of_two() {
        let one = [create("a"), Op::Link { from: "a".to_owned(), to: "b".to_owned() }];
        let (one, two) = (tree(&one), tree(&[create("a"), create("b")]));
        assert!(difference(&one, &two).is_err());
        assert!(difference(&two, &one).is_err());
    }

    #[test]
    fn a_moved_directory_must_know_its_parent() {
        let ops = [Op::Mkdir("a".to_owned()), Op::Mkdir("a/b".to_owned())];
        let expected = tree(&ops);
        let mut nodes: BTreeMap<NodeId, Node> =
            expected.paths().iter().map(|(_, id)| (*id, expected.node(*id).clone())).collect();
        let id = expected.resolve("a/b").unwrap();
        let Content::Dir { parent, .. } = &mut nodes.get_mut(&id).unwrap().content else {
            panic!("it is a directory");
        };
        *parent = ROOT;
        assert!(difference(&expected, &Tree::from_nodes(nodes)).is_err());
    }

    #[test]
    fn a_name_too_many_is_a_difference() {
        let (small, large) = (tree(&[create("a")]), tree(&[create("a"), create("b")]));
        assert!(difference(&small, &large).is_err());
        assert!(difference(&large, &small).is_err());
    }
}
