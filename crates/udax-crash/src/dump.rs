//! Reads a whole filesystem into a tree of the model.

use crate::oracle::{Content, Node, NodeId, ROOT, Tree, index};
use std::collections::BTreeMap;
use udax_fs::{Filesystem, FsError, Inode, Kind};
use udax_mm::sync::Arc;

/// Everything that can be seen of `fs` from its root.
///
/// # Errors
///
/// The first error of the filesystem.
pub fn dump(fs: &Filesystem) -> Result<Tree, FsError> {
    let root = fs.root()?;
    let mut nodes = BTreeMap::new();
    let mut open = vec![(root.ino().0, root)];
    while let Some((id, inode)) = open.pop() {
        let id = NodeId(id);
        if nodes.contains_key(&id) {
            continue;
        }
        let content = content(fs, &inode, &mut open)?;
        nodes.insert(id, node(&inode, content));
    }
    Ok(Tree::from_nodes(nodes))
}

fn node(inode: &Inode, content: Content) -> Node {
    let attr = inode.attr();
    let is_dir = matches!(content, Content::Dir { .. });
    Node {
        mode: attr.mode,
        uid: attr.uid,
        mtime: Some(attr.mtime),
        is_frozen: attr.is_frozen,
        links: (!is_dir).then_some(attr.links),
        content,
    }
}

fn content(
    fs: &Filesystem,
    inode: &Arc<Inode>,
    open: &mut Vec<(u64, Arc<Inode>)>,
) -> Result<Content, FsError> {
    match inode.attr().kind {
        Kind::File => Ok(Content::File { data: Arc::new(read_all(inode)?), pages: Arc::default() }),
        Kind::Symlink => Ok(Content::Symlink(text(&inode.read_link()?))),
        Kind::Dir => {
            let names = entries(fs, inode)?;
            for id in names.values() {
                open.push((id.0, fs.inode(udax_fs::Ino(id.0))?));
            }
            let parent = NodeId(fs.parent(inode)?.ino().0);
            assert!(fs.root()?.ino().0 == ROOT.0, "dump: the root directory is inode 1");
            Ok(Content::Dir { names, parent })
        }
    }
}

/// The names in a directory, read in small steps so that cookies are used.
fn entries(fs: &Filesystem, dir: &Arc<Inode>) -> Result<BTreeMap<String, NodeId>, FsError> {
    let mut names = BTreeMap::new();
    let mut cookie = 0;
    loop {
        let some = fs.read_dir(dir, cookie, 16)?;
        let Some(last) = some.last() else { return Ok(names) };
        cookie = last.next;
        for entry in some {
            let old = names.insert(text(entry.name.as_bytes()), NodeId(entry.ino.0));
            assert!(old.is_none(), "read_dir returned {:?} twice", entry.name);
        }
    }
}

fn read_all(inode: &Inode) -> Result<Vec<u8>, FsError> {
    let mut bytes = vec![0; index(inode.attr().size)];
    let mut done = 0;
    while done < bytes.len() {
        let at = u64::try_from(done).expect("a length fits 64 bits");
        let count = inode.read_at(&mut bytes[done..], at)?;
        assert!(count > 0, "read_at stopped before the size of the file");
        done += count;
    }
    Ok(bytes)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
