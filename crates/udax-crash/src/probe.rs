//! The mutation probe: uses everything that was recovered, then deletes it.
//!
//! Damage may hide where a reader does not look: a directory that cannot grow, bytes past the end
//! of a file, pages that belong to two files or to none. The probe writes everywhere.

use crate::oracle::{Content, NodeId, Tree};
use crate::session::{DevicePages, name, quarantine};
use udax_fs::{
    Filesystem, FreePolicy, FsError, Ino, Inode, Kind, LivingOwner, Release, RenameMode, Usage,
};
use udax_mm::sync::Arc;

/// The file that fills a pool, in the root directory. The probe removes it before it needs space.
pub const FILLER: &str = "filler";

/// Changes every directory and file of `tree` (the dump of `fs`), deletes all, and returns what the
/// pool uses then.
///
/// # Errors
///
/// What did not work.
pub fn probe(fs: &Filesystem, tree: &Tree) -> Result<Usage, String> {
    if tree.resolve(FILLER).is_ok() {
        let removed = name(FILLER).and_then(|name| fs.unlink(&fs.root()?, &name));
        removed.map_err(|error| format!("removing {FILLER}: {error}"))?;
    }
    for (path, id) in paths(tree) {
        let inode = fs.inode(Ino(id.0)).map_err(|error| format!("opening {path}: {error}"))?;
        let node = tree.node(id);
        let tried = match &node.content {
            Content::Dir { .. } => try_directory(fs, &inode),
            Content::File { .. } if !node.is_frozen => try_file(&inode),
            Content::File { .. } | Content::Symlink(_) => Ok(()),
        };
        tried.map_err(|error| format!("changing /{path}: {error}"))?;
    }
    fs.verify().map_err(|what| format!("after changing everything: {what}"))?;
    delete_all(fs, tree).map_err(|error| format!("deleting everything: {error}"))?;
    fs.verify().map_err(|what| format!("after deleting everything: {what}"))?;
    try_quarantine(fs)?;
    Ok(fs.usage())
}

/// Every path but that of the filler.
fn paths(tree: &Tree) -> Vec<(String, NodeId)> {
    tree.paths().into_iter().filter(|(path, _)| path != FILLER).collect()
}

fn try_directory(fs: &Filesystem, dir: &Arc<Inode>) -> Result<(), String> {
    let bytes = [0xa5; 5000];
    let mut read = [0; 5001];
    let file = create_probe(fs, dir, &bytes, &mut read).map_err(|error| error.to_string())?;
    if file != bytes.len() || !read.starts_with(&bytes) {
        return Err("a file reads other bytes than were written".to_owned());
    }
    Ok(())
}

/// Makes a file, writes and reads it, and gives it another name. Returns how much could be read.
fn create_probe(
    fs: &Filesystem,
    dir: &Arc<Inode>,
    bytes: &[u8],
    read: &mut [u8],
) -> Result<usize, FsError> {
    let (first, second) = (name("probe")?, name("probed")?);
    let file = fs.create(dir, &first, Kind::File, 0o600, 0, 0)?;
    file.write_at(bytes, 0)?;
    fs.rename(dir, &first, dir, &second, RenameMode::NoReplace)?;
    fs.lookup(dir, &second)?.read_at(read, 0)
}

/// Grows a file: what appears must be zeros, whatever the bytes past its end were.
fn try_file(file: &Inode) -> Result<(), String> {
    let size = file.attr().size;
    let mut tail = vec![1; 4096 + 13];
    let grown = size + u64::try_from(tail.len()).expect("a length fits 64 bits");
    let read = file
        .truncate(grown, FreePolicy::Defer)
        .and_then(|_| file.read_at(&mut tail, size))
        .map_err(|error| error.to_string())?;
    if read != tail.len() || tail.iter().any(|byte| *byte != 0) {
        return Err(format!("bytes past its end (at {size}) show when it grows"));
    }
    Ok(())
}

/// Fills the pool: no page in quarantine may be taken for it. Then ends the quarantine.
fn try_quarantine(fs: &Filesystem) -> Result<(), String> {
    let pages = quarantine(fs);
    if pages.is_empty() {
        return Ok(());
    }
    let taken = fill(fs).map_err(|error| format!("filling the pool: {error}"))?;
    if let Some(page) = taken.intersection(&pages).next() {
        return Err(format!("page {page} was allocated, and is in quarantine"));
    }
    fs.release_quarantine(&Release::All, LivingOwner::Ignore)
        .map_err(|error| format!("releasing: {error}"))?;
    fs.verify().map_err(|what| format!("after the quarantine: {what}"))
}

/// Takes every page that a file can have, and gives them back. Returns which they were.
fn fill(fs: &Filesystem) -> Result<DevicePages, FsError> {
    let (root, filler) = (fs.root()?, name(FILLER)?);
    let file = fs.create(&root, &filler, Kind::File, 0o600, 0, 0)?;
    let mut end = 0;
    for step in [1 << 19, 1 << 12] {
        while file.allocate(end..end + step).is_ok() {
            end += step;
        }
    }
    let extents = file.extents()?.into_iter();
    let pages = extents.flat_map(|extent| extent.device.0..(extent.device + extent.pages).0);
    let pages = pages.collect();
    drop(file);
    fs.unlink(&root, &filler)?;
    Ok(pages)
}

fn delete_all(fs: &Filesystem, tree: &Tree) -> Result<(), FsError> {
    let directory = |id: NodeId| fs.inode(Ino(id.0));
    let probed = name("probed")?;
    // Paths come with a directory before what is in it; deleting goes the other way.
    for (path, id) in paths(tree).into_iter().rev() {
        let is_dir = matches!(tree.node(id).content, Content::Dir { .. });
        if is_dir {
            fs.unlink(&directory(id)?, &probed)?;
        }
        let (above, last) = path.rsplit_once('/').unwrap_or(("", &path));
        if last.is_empty() {
            continue;
        }
        let above = directory(tree.resolve(above).expect("the path was listed"))?;
        let last = name(last)?;
        if is_dir { fs.rmdir(&above, &last)? } else { fs.unlink(&above, &last)? }
    }
    Ok(())
}
