//! The bytes behind the end of a file that shares the page in which it ends.
//!
//! No call reads them, and growing zeros them. But a mapping shows the whole page: what one file had
//! behind its end must not show behind that of another.

use crate::oracle::{Content, Tree, byte_count};
use crate::pages::PAGE;
use crate::session::info;
use std::ops::Range;
use udax_fs::{Filesystem, FsError, Ino, Inode};
use udax_mm::sync::Arc;
use udax_mm::units::PAGE_BYTES;
use udax_mm::{FileIndex, PinKind, PinTerm};

/// Checks that every file of `tree` (the dump of `fs`) that shares the page in which it ends has
/// only zeros behind its end.
///
/// # Errors
///
/// The first file that has not, or that cannot be read.
pub fn check_tails(fs: &Filesystem, tree: &Tree) -> Result<(), String> {
    for (path, id) in tree.paths() {
        let Content::File { data, .. } = &tree.node(id).content else { continue };
        let size = byte_count(data);
        if size.is_multiple_of(PAGE) {
            continue;
        }
        let shown = fs.inode(Ino(id.0)).and_then(|file| shared_tail(&file, size));
        let shown = shown.map_err(|error| format!("the tail of /{path}: {error}"))?;
        if let Some(byte) = shown.iter().position(|byte| *byte != 0) {
            return Err(format!("/{path} shares its last page: byte {byte} past its end is not 0"));
        }
    }
    Ok(())
}

/// What a mapping shows of the last page behind byte `size`, where the file ends; nothing if the
/// page is the file's own, or a hole.
fn shared_tail(file: &Arc<Inode>, size: u64) -> Result<Vec<u8>, FsError> {
    let page = FileIndex::of_byte(size);
    let pages: Range<FileIndex> = page..FileIndex(page.0 + 1);
    let extents = file.extents()?;
    let holds = |start: FileIndex, end: FileIndex| start <= page && page < end;
    let is_shared = extents
        .iter()
        .any(|extent| extent.is_shared && holds(extent.index, extent.index + extent.pages));
    if !is_shared {
        return Ok(Vec::new());
    }
    let inside = size - page.byte();
    let pin = file.pin(pages, info(PinKind::Read, PinTerm::Short))?;
    let mut tail = vec![0; crate::oracle::index(PAGE_BYTES - inside)];
    pin.read(inside, &mut tail).map_err(udax_dev::IoError::from)?;
    Ok(tail)
}
