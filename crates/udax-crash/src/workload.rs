//! Operations of a filesystem as values, and workloads made of them.

use std::fmt;
use udax_fs::RenameMode;

/// One operation. Paths are relative to the root (`A/foo`); a path that starts with `@` names the
/// file that was opened under the rest of the path, even if that name is gone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Op {
    /// Makes an empty file.
    Create(String),
    /// Makes an empty directory.
    Mkdir(String),
    /// Makes a symbolic link.
    Symlink {
        /// What it points to.
        target: String,
        /// Its name.
        path: String,
    },
    /// Writes `len` bytes of the pattern `fill` at `at`.
    Write {
        /// The file.
        path: String,
        /// The first byte.
        at: u64,
        /// The number of bytes.
        len: u64,
        /// Which bytes.
        fill: u8,
    },
    /// Writes these bytes at `at`: a step of [`Op::Write`], of the model only.
    Bytes {
        /// The file.
        path: String,
        /// The first byte.
        at: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Makes bytes of one file those of another, without a copy.
    Clone {
        /// The file whose bytes they are.
        source: String,
        /// The first byte of them.
        from: u64,
        /// The byte after the last.
        to: u64,
        /// The file that gets them.
        path: String,
        /// Where.
        at: u64,
    },
    /// Lets a file have the pages of another one with the same bytes.
    Dedupe {
        /// The file that keeps its pages.
        source: String,
        /// The file that gets them.
        path: String,
    },
    /// Gives a file pages of its own.
    Unshare(String),
    /// Writes `len` bytes of the pattern `fill` at the end.
    Append {
        /// The file.
        path: String,
        /// The number of bytes.
        len: u64,
        /// Which bytes.
        fill: u8,
    },
    /// Sets the size.
    Truncate {
        /// The file.
        path: String,
        /// Its size in bytes.
        size: u64,
    },
    /// Makes a range read as zeros and frees its whole pages.
    Punch {
        /// The file.
        path: String,
        /// The first byte.
        from: u64,
        /// The byte after the last.
        to: u64,
    },
    /// Allocates a range, growing the file if need be.
    Allocate {
        /// The file.
        path: String,
        /// The first byte.
        from: u64,
        /// The byte after the last.
        to: u64,
    },
    /// Gives a file another name.
    Link {
        /// A name it has.
        from: String,
        /// The name it gets.
        to: String,
    },
    /// Moves a name.
    Rename {
        /// The name.
        from: String,
        /// What it becomes.
        to: String,
        /// What happens to a name that is there.
        mode: RenameMode,
    },
    /// Takes a name of a file or symbolic link away.
    Unlink(String),
    /// Removes an empty directory.
    Rmdir(String),
    /// Sets permission bits, owner and modification time.
    SetAttr {
        /// The file or directory.
        path: String,
        /// The permission bits.
        mode: u32,
        /// The owner.
        uid: u32,
        /// The modification time, nanoseconds since 1970.
        mtime: i64,
    },
    /// Stores `len` bytes of the pattern `fill` at `at` through a pin, as a device or a mapping
    /// does: they are durable only after the next [`Op::Sync`] or [`Op::Freeze`], and until then
    /// the workload has only operations that change nothing. What lies past the end of the file,
    /// in its last page, is lost.
    Store {
        /// The file.
        path: String,
        /// The first byte.
        at: u64,
        /// The number of bytes.
        len: u64,
        /// Which bytes.
        fill: u8,
    },
    /// Stores `len` bytes of the pattern `fill` at `at` as a program does through a synchronous mapping
    /// (`MAP_SYNC`): it flushes what it stored by itself, and calls nobody. They are durable then,
    /// where the file had a hole or data that it shares, too.
    SyncStore {
        /// The file.
        path: String,
        /// The first byte.
        at: u64,
        /// The number of bytes.
        len: u64,
        /// Which bytes.
        fill: u8,
    },
    /// Pins pages of a file for a device, for long. A pin that the setup leaves dies with its
    /// process, and what is recorded begins with the session after that.
    Pin {
        /// The file.
        path: String,
        /// The first page.
        from: u64,
        /// The page after the last.
        to: u64,
        /// What [`Op::Unpin`] calls it.
        name: String,
    },
    /// Drops a pin.
    Unpin(String),
    /// Ends the quarantine of all pins of earlier sessions.
    Release,
    /// Makes a file immutable.
    Freeze(String),
    /// Opens a file: it survives the loss of its last name.
    Open(String),
    /// Closes what was opened under this path.
    Close(String),
    /// Makes everything written to a file durable.
    Sync(String),
    /// Closes the pool and opens it again, or opens it after [`Op::Format`].
    Remount,
    /// Closes the pool and makes another one on its medium. [`Op::Remount`] must follow.
    Format,
    /// An operation for which the pool has no space: it is refused, and changes nothing.
    Full(Box<Op>),
}

/// A sequence of operations whose crash images are enumerated.
#[derive(Clone, Debug)]
pub struct Workload {
    /// A name to find it by.
    pub name: String,
    /// The pages of the pool.
    pub pages: u64,
    /// Operations that come before; they are not recorded.
    pub setup: Vec<Op>,
    /// Operations that are recorded.
    pub ops: Vec<Op>,
    /// The first operation whose images are enumerated.
    pub from: usize,
}

impl Workload {
    /// A workload on a small pool, all of whose recorded operations are enumerated.
    pub fn new(name: impl Into<String>, setup: &[Op], ops: &[Op]) -> Workload {
        Workload {
            name: name.into(),
            pages: 1024,
            setup: setup.to_vec(),
            ops: ops.to_vec(),
            from: 0,
        }
    }
}

impl Op {
    /// Whether its bytes are durable only after a later operation.
    fn is_lazy(&self) -> bool {
        matches!(self, Op::Store { .. })
    }

    /// Whether bytes that were stored lazily are durable after it.
    fn settles(&self) -> bool {
        matches!(self, Op::Sync(_) | Op::Freeze(_))
    }
}

/// The first operation of `ops` of which bytes may be in flux when all of them returned; none if
/// everything is durable.
pub fn first_in_flux(ops: &[Op]) -> Option<usize> {
    let settled = ops.iter().rposition(Op::settles).map_or(0, |last| last + 1);
    ops[settled..].iter().position(Op::is_lazy).map(|first| settled + first)
}

/// The bytes that an operation with `fill` writes: no two neighbouring units are equal, so a unit
/// at the wrong place shows.
pub fn pattern(fill: u8, len: u64) -> Vec<u8> {
    let byte = |index: u64| {
        let [unit, ..] = (index / 8 % 127 * 2).to_le_bytes();
        fill.wrapping_add(unit) | 1
    };
    (0..len).map(byte).collect()
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Create(path) => write!(f, "create {path}"),
            Op::Mkdir(path) => write!(f, "mkdir {path}"),
            Op::Symlink { target, path } => write!(f, "symlink {path} -> {target}"),
            Op::Write { path, at, len, .. } => write!(f, "write {path} {at}+{len}"),
            Op::Bytes { path, at, bytes } => write!(f, "write {path} {at}+{}", bytes.len()),
            Op::Clone { source, from, to, path, at } => {
                write!(f, "clone {source} {from}..{to} to {path} {at}")
            }
            Op::Dedupe { source, path } => write!(f, "dedupe {source} {path}"),
            Op::Unshare(path) => write!(f, "unshare {path}"),
            Op::Store { path, at, len, .. } => write!(f, "store {path} {at}+{len}"),
            Op::SyncStore { path, at, len, .. } => write!(f, "sync store {path} {at}+{len}"),
            Op::Append { path, len, .. } => write!(f, "append {path} +{len}"),
            Op::Truncate { path, size } => write!(f, "truncate {path} {size}"),
            Op::Punch { path, from, to } => write!(f, "punch {path} {from}..{to}"),
            Op::Allocate { path, from, to } => write!(f, "allocate {path} {from}..{to}"),
            Op::Link { from, to } => write!(f, "link {from} {to}"),
            Op::Rename { from, to, mode } => write!(f, "rename {from} {to} ({mode:?})"),
            Op::Unlink(path) => write!(f, "unlink {path}"),
            Op::Rmdir(path) => write!(f, "rmdir {path}"),
            Op::SetAttr { path, mode, .. } => write!(f, "set_attr {path} {mode:o}"),
            Op::Pin { path, from, to, .. } => write!(f, "pin {path} {from}..{to}"),
            Op::Unpin(name) => write!(f, "unpin {name}"),
            Op::Release => write!(f, "release"),
            Op::Freeze(path) => write!(f, "freeze {path}"),
            Op::Open(path) => write!(f, "open {path}"),
            Op::Close(path) => write!(f, "close {path}"),
            Op::Sync(path) => write!(f, "sync {path}"),
            Op::Remount => write!(f, "remount"),
            Op::Format => write!(f, "format"),
            Op::Full(op) => write!(f, "{op} in a full pool"),
        }
    }
}
