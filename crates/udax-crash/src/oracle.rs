//! The model: what a filesystem is, with nothing of how udax-fs does it.
//!
//! A [`Tree`] is a set of nodes and the names between them, in memory. Operations are applied to it
//! with the rules of POSIX; the filesystem under test must agree on which are refused, and after a
//! crash its tree must equal one of the model's.

use crate::pages::{Change, NewPages, PAGE, PageMap};
use crate::workload::{Op, pattern};
use std::collections::BTreeMap;
use std::ops::Range;
use udax_fs::RenameMode;
use udax_mm::sync::Arc;

/// A node of a tree: a file, a directory or a symbolic link.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct NodeId(pub u64);

/// The root directory of every tree.
pub const ROOT: NodeId = NodeId(1);

/// The permission bits of the files and directories that the workloads make.
pub const MODE: u32 = 0o644;

/// The permission bits of every symbolic link.
const SYMLINK_MODE: u32 = 0o777;

/// The permission bits of the root directory.
const ROOT_MODE: u32 = 0o755;

/// A tree of names and nodes.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// Nodes that are kept by an open handle, by the path they were opened under.
    pub(crate) open: BTreeMap<String, NodeId>,
    next: u64,
    pub(crate) new_pages: NewPages,
}

/// A file, directory or symbolic link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// Permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The modification time, where the model knows it.
    pub mtime: Option<i64>,
    /// Whether its bytes cannot change.
    pub is_frozen: bool,
    /// How many names it has, where the model counts them (not for directories).
    pub links: Option<u32>,
    /// What it is and holds.
    pub content: Content,
}

/// What a node is and holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// The bytes of a file, and the pages that are not holes.
    File {
        /// The bytes.
        data: Arc<Vec<u8>>,
        /// The pages that hold data. Empty in a tree that was read from a filesystem.
        pages: Arc<PageMap>,
    },
    /// The names in a directory, and the directory it lies in.
    Dir {
        /// The names.
        names: BTreeMap<String, NodeId>,
        /// The directory above; the root's is itself.
        parent: NodeId,
    },
    /// The target of a symbolic link.
    Symlink(String),
}

/// The model refuses an operation, as the filesystem must.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refused;

/// The bytes of a file that an operation changes in place: after a crash inside it, each unit of 8
/// bytes may be old or new.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InPlace {
    /// The file.
    pub node: NodeId,
    /// The bytes.
    pub ranges: Vec<Range<u64>>,
}

impl Tree {
    /// A tree with an empty root directory.
    pub fn empty() -> Tree {
        let mut tree = Tree { next: ROOT.0 + 1, ..Tree::from_nodes(BTreeMap::new()) };
        let content = Content::Dir { names: BTreeMap::new(), parent: ROOT };
        tree.nodes.insert(ROOT, Node { mode: ROOT_MODE, ..Node::new(content) });
        tree
    }

    /// A tree of nodes that were read from a filesystem.
    pub fn from_nodes(nodes: BTreeMap<NodeId, Node>) -> Tree {
        Tree { nodes, open: BTreeMap::new(), next: 0, new_pages: NewPages::default() }
    }

    /// The node with this number.
    ///
    /// # Panics
    ///
    /// Panics if there is none.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    /// The node at `path`.
    ///
    /// # Errors
    ///
    /// Refused if the path does not lead anywhere.
    pub fn resolve(&self, path: &str) -> Result<NodeId, Refused> {
        if let Some(open) = path.strip_prefix('@') {
            return self.open.get(open).copied().ok_or(Refused);
        }
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(ROOT, |dir, name| self.names(dir)?.get(name).copied().ok_or(Refused))
    }

    /// Carries out `op`.
    ///
    /// # Errors
    ///
    /// A refused operation changes nothing.
    pub fn apply(&mut self, op: &Op) -> Result<(), Refused> {
        match op {
            Op::Create(path) => {
                let content = Content::File { data: Arc::default(), pages: Arc::default() };
                self.make(path, Node { links: Some(1), ..Node::new(content) }).map(drop)
            }
            Op::Mkdir(path) => {
                let (parent, _) = self.split(path)?;
                let content = Content::Dir { names: BTreeMap::new(), parent };
                self.make(path, Node::new(content)).map(drop)
            }
            Op::Symlink { target, path } => {
                let content = Content::Symlink(target.clone());
                let node = Node { mode: SYMLINK_MODE, links: Some(1), ..Node::new(content) };
                self.make(path, node).map(drop)
            }
            Op::Link { from, to } => self.link(from, to),
            Op::Rename { from, to, mode: RenameMode::Exchange } => self.exchange(from, to),
            Op::Rename { from, to, mode } => self.rename(from, to, *mode),
            Op::Unlink(path) => self.unlink(path),
            Op::Rmdir(path) => self.rmdir(path),
            Op::SetAttr { path, mode, uid, mtime } => {
                let id = self.resolve(path)?;
                let node = self.node_mut(id);
                (node.mode, node.uid, node.mtime) = (*mode, *uid, Some(*mtime));
                Ok(())
            }
            Op::Open(path) => {
                let id = self.resolve(path)?;
                self.open.insert(path.clone(), id);
                Ok(())
            }
            Op::Close(path) => self.open.remove(path).map(drop).ok_or(Refused),
            Op::Sync(path) => self.resolve(path).map(drop),
            Op::Pin { path, from, to, .. } => self.pin(path, *from..*to),
            Op::Remount | Op::Unpin(_) | Op::Release => Ok(()),
            Op::Format => {
                *self = Tree::empty();
                Ok(())
            }
            Op::Full(_) => Err(Refused),
            Op::Clone { source, from, to, path, at } => {
                self.clone_bytes(source, *from..*to, path, *at)
            }
            Op::Dedupe { source, path } => self.dedupe(source, path),
            Op::Unshare(path) => {
                let id = self.resolve(path)?;
                self.change_pages(id, |change| change.own(&(0..u64::MAX / 2)))
            }
            Op::Write { .. }
            | Op::Bytes { .. }
            | Op::Store { .. }
            | Op::SyncStore { .. }
            | Op::Append { .. }
            | Op::Truncate { .. }
            | Op::Punch { .. }
            | Op::Allocate { .. }
            | Op::Freeze(_) => self.change_bytes(op),
        }
    }

    /// The bytes that `op`, applied to this tree, changes in place. All else it does is atomic.
    pub fn in_place(&self, op: &Op) -> Option<InPlace> {
        let (path, range) = match op {
            Op::Write { path, at, len, .. }
            | Op::Store { path, at, len, .. }
            | Op::SyncStore { path, at, len, .. } => (path, *at..at + len),
            Op::Punch { path, from, to } => (path, *from..*to),
            _ => return None,
        };
        let node = self.resolve(path).ok()?;
        let Content::File { data, pages } = &self.node(node).content else { return None };
        let size = byte_count(data);
        let is_punch = matches!(op, Op::Punch { .. });
        if matches!(op, Op::Store { .. } | Op::SyncStore { .. }) {
            // A hole gets a page of zeros first, which read like the hole.
            let below = range.start..range.end.min(size);
            return Some(InPlace { node, ranges: vec![below] });
        }
        let is_copied =
            |page: &u64| !is_punch && self.copied_by_write(path, &range, *page).is_some();
        let clipped = pages.numbers().filter(|page| !is_copied(page)).map(|page| {
            let (start, end) = (page * PAGE, (page + 1) * PAGE);
            range.start.max(start)..range.end.min(end).min(size)
        });
        // A page that is punched whole is taken out of the tree instead.
        let is_whole = |part: &Range<u64>| part.end - part.start == PAGE;
        let ranges =
            clipped.filter(|part| part.start < part.end && !(is_punch && is_whole(part))).collect();
        Some(InPlace { node, ranges })
    }

    /// Every path, with its node.
    pub fn paths(&self) -> Vec<(String, NodeId)> {
        let mut paths = vec![(String::new(), ROOT)];
        let mut next = 0;
        while let Some((path, id)) = paths.get(next).cloned() {
            if let Content::Dir { names, .. } = &self.node(id).content {
                let join = |name| if path.is_empty() { name } else { format!("{path}/{name}") };
                paths.extend(names.iter().map(|(name, id)| (join(name.clone()), *id)));
            }
            next += 1;
        }
        paths
    }

    /// The same tree with other bytes in one file.
    #[must_use]
    pub fn with_data(&self, id: NodeId, bytes: Vec<u8>) -> Tree {
        let mut tree = self.clone();
        if let Content::File { data, .. } = &mut tree.node_mut(id).content {
            *data = Arc::new(bytes);
        }
        tree
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("the tree holds every node that it names")
    }

    fn names(&self, dir: NodeId) -> Result<&BTreeMap<String, NodeId>, Refused> {
        match &self.node(dir).content {
            Content::Dir { names, .. } => Ok(names),
            _ => Err(Refused),
        }
    }

    fn names_mut(&mut self, dir: NodeId) -> &mut BTreeMap<String, NodeId> {
        match &mut self.node_mut(dir).content {
            Content::Dir { names, .. } => names,
            _ => unreachable!("split returns directories"),
        }
    }

    /// The directory that `path` lies in, and the name in it.
    fn split<'p>(&self, path: &'p str) -> Result<(NodeId, &'p str), Refused> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.resolve(dir)?;
        self.names(dir)?;
        Ok((dir, name))
    }

    fn make(&mut self, path: &str, node: Node) -> Result<NodeId, Refused> {
        let (dir, name) = self.split(path)?;
        if self.names(dir)?.contains_key(name) {
            return Err(Refused);
        }
        let id = NodeId(self.next);
        self.next += 1;
        self.nodes.insert(id, node);
        self.insert(dir, name, id);
        Ok(id)
    }

    /// Enters a name; the directory's own modification time is no longer known.
    fn insert(&mut self, dir: NodeId, name: &str, id: NodeId) {
        self.names_mut(dir).insert(name.to_owned(), id);
        self.node_mut(dir).mtime = None;
        if let Content::Dir { parent, .. } = &mut self.node_mut(id).content {
            *parent = dir;
        }
    }

    fn remove(&mut self, dir: NodeId, name: &str) {
        self.names_mut(dir).remove(name);
        self.node_mut(dir).mtime = None;
    }

    fn link(&mut self, from: &str, to: &str) -> Result<(), Refused> {
        let id = self.resolve(from)?;
        let (dir, name) = self.split(to)?;
        if self.names(id).is_ok() || self.names(dir)?.contains_key(name) {
            return Err(Refused);
        }
        self.insert(dir, name, id);
        self.add_links(id, 1);
        Ok(())
    }

    fn unlink(&mut self, path: &str) -> Result<(), Refused> {
        let (dir, name) = self.split(path)?;
        let id = self.resolve(path)?;
        if self.names(id).is_ok() {
            return Err(Refused);
        }
        self.remove(dir, name);
        self.add_links(id, -1);
        Ok(())
    }

    fn rmdir(&mut self, path: &str) -> Result<(), Refused> {
        let (dir, name) = self.split(path)?;
        let id = self.resolve(path)?;
        if !self.names(id)?.is_empty() {
            return Err(Refused);
        }
        self.remove(dir, name);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str, mode: RenameMode) -> Result<(), Refused> {
        let id = self.resolve(from)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (self.split(from)?, self.split(to)?);
        if self.is_inside(to_dir, id) {
            return Err(Refused);
        }
        if let Ok(old) = self.resolve(to) {
            if mode == RenameMode::NoReplace {
                return Err(Refused);
            }
            if old == id {
                return Ok(());
            }
            match (self.names(id).is_ok(), self.names(old)) {
                (true, Ok(names)) if names.is_empty() => {}
                (false, Err(Refused)) => self.add_links(old, -1),
                _ => return Err(Refused),
            }
        }
        self.remove(from_dir, from_name);
        self.insert(to_dir, to_name, id);
        Ok(())
    }

    fn exchange(&mut self, first: &str, second: &str) -> Result<(), Refused> {
        let (one, other) = (self.resolve(first)?, self.resolve(second)?);
        let ((dir, name), (other_dir, other_name)) = (self.split(first)?, self.split(second)?);
        if self.is_inside(other_dir, one) || self.is_inside(dir, other) {
            return Err(Refused);
        }
        self.insert(dir, name, other);
        self.insert(other_dir, other_name, one);
        Ok(())
    }

    /// Whether `dir` is `above` or lies below it.
    fn is_inside(&self, dir: NodeId, above: NodeId) -> bool {
        let mut at = dir;
        loop {
            if at == above {
                return true;
            }
            match &self.node(at).content {
                Content::Dir { parent, .. } if at != ROOT => at = *parent,
                _ => return false,
            }
        }
    }

    fn add_links(&mut self, id: NodeId, change: i32) {
        let links = &mut self.node_mut(id).links;
        *links = links.map(|links| links.checked_add_signed(change).expect("names are counted"));
    }

    /// A pin to write gives a file pages of its own, and of zeros where it has holes.
    fn pin(&mut self, path: &str, range: Range<u64>) -> Result<(), Refused> {
        let id = self.resolve(path)?;
        let bytes = range.start * PAGE..range.end * PAGE;
        self.change_pages(id, |change| {
            change.own(&bytes);
            change.fill(&bytes);
        })
    }

    fn change_bytes(&mut self, op: &Op) -> Result<(), Refused> {
        let (Op::Write { path, .. }
        | Op::Bytes { path, .. }
        | Op::Store { path, .. }
        | Op::SyncStore { path, .. }
        | Op::Append { path, .. }
        | Op::Truncate { path, .. }
        | Op::Punch { path, .. }
        | Op::Allocate { path, .. }
        | Op::Freeze(path)) = op
        else {
            unreachable!("apply passes only operations on bytes");
        };
        let id = self.resolve(path)?;
        let shared = self.shared_pages();
        let mut new = self.new_pages.clone();
        let node = self.node_mut(id);
        let Content::File { data, pages } = &mut node.content else { return Err(Refused) };
        if node.is_frozen {
            return if matches!(op, Op::Freeze(_)) { Ok(()) } else { Err(Refused) };
        }
        node.mtime = if matches!(op, Op::Freeze(_)) { node.mtime } else { None };
        node.is_frozen = matches!(op, Op::Freeze(_));
        let pages = Arc::make_mut(pages);
        let change = Change { pages, new: &mut new, shared: &shared };
        change_file(Arc::make_mut(data), change, op);
        self.new_pages = new;
        Ok(())
    }
}

impl Node {
    /// A node as the workloads make it.
    pub fn new(content: Content) -> Node {
        Node { mode: MODE, uid: 0, mtime: None, is_frozen: false, links: None, content }
    }
}

/// Does to the bytes and pages of a file what `op` says.
fn change_file(data: &mut Vec<u8>, mut change: Change<'_>, op: &Op) {
    let size = byte_count(data);
    match op {
        Op::Write { at, len, fill, .. } => write(data, &mut change, *at, &pattern(*fill, *len)),
        Op::Bytes { at, bytes, .. } => write(data, &mut change, *at, bytes),
        Op::Store { at, len, fill, .. } | Op::SyncStore { at, len, fill, .. } => {
            // Past the end there are bytes to store to, but none of the file.
            let len = size.saturating_sub(*at).min(*len);
            write(data, &mut change, *at, &pattern(*fill, len));
        }
        Op::Append { len, fill, .. } => write(data, &mut change, size, &pattern(*fill, *len)),
        Op::Truncate { size: to, .. } => {
            change.own_page_of((*to).min(size));
            data.resize(index(*to), 0);
            change.pages.truncate(*to);
        }
        Op::Punch { from, to, .. } => punch(data, &mut change, *from..*to),
        Op::Allocate { from, to, .. } => {
            if *to > size {
                change.own_page_of(size);
            }
            data.resize(data.len().max(index(*to)), 0);
            change.fill(&(*from..*to));
        }
        _ => {
            change.own_page_of(size);
            change.fill(&(0..size));
        }
    }
}

fn write(data: &mut Vec<u8>, change: &mut Change<'_>, at: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = at + byte_count(bytes);
    if end > byte_count(data) {
        change.own_page_of(byte_count(data));
    }
    data.resize(data.len().max(index(end)), 0);
    data[index(at)..index(end)].copy_from_slice(bytes);
    change.own(&(at..end));
    change.fill(&(at..end));
}

fn punch(data: &mut [u8], change: &mut Change<'_>, range: Range<u64>) {
    let size = byte_count(data);
    let end = index(range.end.min(size));
    if range.start >= range.end.min(size) {
        return;
    }
    data[index(range.start)..end].fill(0);
    change.own_page_of(range.start);
    if range.end < size {
        change.own_page_of(range.end);
    }
    // Of the page in which the file ends, the end of the file is the end.
    let end = if range.end >= size { range.end.next_multiple_of(PAGE) } else { range.end };
    change.pages.punch(&(range.start..end));
}

/// A byte count of a model file, as an index into its bytes.
pub(crate) fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a model file fits the address space")
}

/// The length of some bytes as a file size.
pub(crate) fn byte_count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length fits 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::empty();
        for path in ["d", "d/e", "empty"] {
            tree.apply(&Op::Mkdir(path.to_owned())).unwrap();
        }
        for path in ["f", "d/g"] {
            tree.apply(&Op::Create(path.to_owned())).unwrap();
        }
        tree
    }

    fn rename(from: &str, to: &str, mode: RenameMode) -> Result<(), Refused> {
        let op = Op::Rename { from: from.to_owned(), to: to.to_owned(), mode };
        tree().apply(&op)
    }

    #[test]
    fn rename_is_refused_where_posix_says_so() {
        let refused = [
            ("d", "d/e/x", RenameMode::Replace),
            ("empty", "d", RenameMode::Replace),
            ("f", "empty", RenameMode::Replace),
            ("empty", "f", RenameMode::Replace),
            ("f", "d/g", RenameMode::NoReplace),
            ("f", "none", RenameMode::Exchange),
            ("d", "d/e", RenameMode::Exchange),
            ("none", "x", RenameMode::Replace),
        ];
        for (from, to, mode) in refused {
            assert_eq!(rename(from, to, mode), Err(Refused), "{from} {to} {mode:?}");
        }
    }

    #[test]
    fn rename_is_done_where_posix_says_so() {
        let done = [
            ("d", "empty", RenameMode::Replace),
            ("f", "d/g", RenameMode::Replace),
            ("f", "f", RenameMode::Replace),
            ("d", "empty/x", RenameMode::NoReplace),
            ("f", "empty", RenameMode::Exchange),
        ];
        for (from, to, mode) in done {
            assert_eq!(rename(from, to, mode), Ok(()), "{from} {to} {mode:?}");
        }
    }

    #[test]
    fn only_bytes_in_existing_pages_below_the_old_end_change_in_place() {
        let mut tree = tree();
        let write = |at, len| Op::Write { path: "f".to_owned(), at, len, fill: 1 };
        tree.apply(&write(8192, 1000)).unwrap();
        let only = |range: Range<u64>| Vec::from([range]);
        let ranges = |at, len| tree.in_place(&write(at, len)).unwrap().ranges;
        assert_eq!(ranges(0, 100), vec![], "a hole");
        assert_eq!(ranges(8000, 500), only(8192..8500), "a hole and a page");
        assert_eq!(ranges(9000, 5000), only(9000..9192), "past the end");
    }

    #[test]
    fn an_open_file_outlives_its_name() {
        let mut tree = tree();
        tree.apply(&Op::Open("f".to_owned())).unwrap();
        tree.apply(&Op::Unlink("f".to_owned())).unwrap();
        assert_eq!(tree.resolve("f"), Err(Refused));
        assert!(tree.apply(&Op::Truncate { path: "@f".to_owned(), size: 9 }).is_ok());
        tree.apply(&Op::Close("f".to_owned())).unwrap();
        assert_eq!(tree.resolve("@f"), Err(Refused));
    }
}
