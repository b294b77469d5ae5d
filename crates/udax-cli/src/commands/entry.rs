//! What listings say of one file.

use std::ffi::OsStr;
use std::io::{self, Write};

use serde::Serialize;
use udax::{Kind, Metadata};

use crate::moment::Moment;
use crate::output::Name;

/// One file of a listing.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    name: Name,
    kind: &'static str,
    size: u64,
    mode: String,
    links: u32,
    uid: u32,
    gid: u32,
    inode: u64,
    modified: Moment,
    frozen: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    #[serde(skip)]
    permissions: String,
}

/// Where a symbolic link points.
#[derive(Debug, Serialize)]
struct Target {
    #[serde(flatten)]
    name: Name,
}

impl Entry {
    /// The file `name` with `metadata`; `target` is where it points if it is a symbolic link.
    pub(crate) fn new(name: &OsStr, metadata: &Metadata, target: Option<&OsStr>) -> Entry {
        Entry {
            name: Name::new(name),
            kind: kind(metadata.kind()),
            size: metadata.len(),
            mode: format!("{:04o}", metadata.mode()),
            links: metadata.links(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            inode: metadata.ino().0,
            modified: Moment(metadata.modified()),
            frozen: metadata.is_frozen(),
            target: target.map(|target| Target { name: Name::new(target) }),
            permissions: permissions(metadata),
        }
    }

    /// Whether it is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        self.kind == kind(Kind::Dir)
    }

    /// The size in bytes.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// The name as the host writes it.
    pub(crate) fn os_name(&self) -> &OsStr {
        self.name.as_os_str()
    }

    /// Writes the name, and where a symbolic link points.
    pub(crate) fn write_name(&self, out: &mut dyn Write) -> io::Result<()> {
        self.name.write(out)?;
        if let Some(target) = &self.target {
            write!(out, " -> ")?;
            target.name.write(out)?;
        }
        Ok(())
    }

    /// Writes the line of a long listing.
    pub(crate) fn write_long(&self, out: &mut dyn Write) -> io::Result<()> {
        let Entry { permissions, links, uid, gid, size, modified, .. } = self;
        write!(out, "{permissions} {links:>3} {uid:>5} {gid:>5} {size:>12} {modified} ")?;
        self.write_name(out)?;
        if self.frozen {
            write!(out, " [frozen]")?;
        }
        writeln!(out)
    }
}

/// What a file is, in one word.
pub(crate) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "symlink",
    }
}

/// The kind and mode as `ls -l` writes them.
pub(crate) fn permissions(metadata: &Metadata) -> String {
    let mut text = String::with_capacity(10);
    text.push(match metadata.kind() {
        Kind::File => '-',
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
    });
    let mode = metadata.mode();
    // The special bits take the place of the execute bits: setuid, setgid, sticky.
    for (shift, special, marks) in [(6, 0o4000, "sS"), (3, 0o2000, "sS"), (0, 0o1000, "tT")] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => marks.chars().next().expect("two marks"),
            (false, true) => marks.chars().nth(1).expect("two marks"),
        });
    }
    text
}
