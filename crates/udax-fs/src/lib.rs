//! A crash-consistent filesystem whose pages are the memory of a DAX device.
//!
//! This crate owns the on-media format, transactions, allocation, inodes, directories, recovery and check.
//! It knows nothing of FUSE, of errno and of other people's threads.
#![forbid(unsafe_code)]
mod alloc;      // A: free space, 2 MiB blocks kept whole
mod block;      // A: the bitmap of one 2 MiB block
mod cut;        // A: taking pages out of a tree
mod entry;      // A: tree entries
mod fresh;      // A: allocated and claimed pages
mod graft;      // A: inserting into a tree
mod limbo;      // A: pages freed while in use
mod ranges;     // A: sets of numbers
mod vacant;     // A: the proof that pages may be freed
mod error;
mod format;     // A: every on-media structure and offset
mod journal;    // A: the redo log
mod store;      // A: Store = device bytes + geometry + journal + allocator; Fresh
mod stored;     // A: Stored<T, Dirty -> Flushed -> Durable>
mod superblock; // A: superblock, mirror, session record
mod tree;       // A: a file's tree: a page table of self-checking entries
mod txn;        // A: Txn: publish, write, free, commit
mod check;      // B: the offline walk
mod dir;        // B: directory pages and their in-memory index
mod filesystem; // B: mount, format, unmount, inode cache, limbo
mod inode;      // B: one inode: attributes, read, write, truncate, punch, map, pin
mod itable;     // B: the inode table file
mod name;       // B: Name
mod namespace;  // B: lookup, create, link, unlink, rename
mod recovery;   // B: rebuild free space and free inodes from the inode table; orphans
#[cfg(test)]
mod testing;

/// The types that put stores in order. Nobody outside this crate can make one; they are public so
/// that a reader finds their rules, and so that tests can show what does not compile.
pub mod proof {
    pub use crate::alloc::Extent;
    pub use crate::store::{Fresh, Store, Vacant};
    pub use crate::stored::{Data, Dirty, Durable, Flushed, Object, Stored};
    pub use crate::cut::Cut;
    pub use crate::graft::Graft;
    pub use crate::tree::Tree;
    pub use crate::txn::Txn;
}

pub use check::{CheckReport, Problem};
pub use error::FsError;
pub use filesystem::{Filesystem, FormatOptions, MountMode, Recovered, Usage};
pub use format::{FORMAT_VERSION, Ino, Kind};
pub use inode::{Attr, FileExtent, FileMapping, FreePolicy, Inode, SetAttr};
pub use name::Name;
pub use namespace::{DirEntry, RenameMode};
