//! A crash-consistent filesystem whose pages are the memory of a DAX device.
//!
//! This crate owns the on-media format, transactions, allocation, inodes, directories, recovery
//! and check. It knows nothing of FUSE, of errno and of other people's threads.
//!
//! From below: the [`proof`] types put stores in order (`alloc`, `store`, `stored`, `journal`,
//! `txn`, `tree`). On them stand inodes ([`Inode`]), the names that lead to them
//! ([`Filesystem`]), what repairs an unclean end (`recovery`) and what finds damage (`check`,
//! `verify`).

#![forbid(unsafe_code)]

mod ahead;
mod alloc;
mod batch;
mod block;
mod cache;
mod check;
#[cfg(test)]
mod check_tests;
mod core;
mod cut;
#[cfg(test)]
mod damage_tests;
mod deferral;
mod dir;
mod entry;
mod error;
mod failure;
mod filesystem;
mod format;
mod fresh;
mod graft;
mod held_pin;
mod inode;
mod itable;
mod journal;
mod limbo;
mod name;
mod namespace;
mod node;
mod num;
mod pin_record;
mod pin_table;
mod pins;
mod quarantine;
mod ranges;
mod recovery;
mod replace;
mod room;
mod scan;
mod shares;
mod sharing;
mod store;
mod stored;
mod superblock;
#[cfg(test)]
mod testing;
mod tree;
mod txn;
mod vacant;
mod verify;
mod withheld;

/// The types that put stores in order. Nobody outside this crate can make one; they are public so
/// that a reader finds their rules, and so that tests can show what does not compile.
pub mod proof {
    pub use crate::alloc::Extent;
    pub use crate::cut::Cut;
    pub use crate::graft::Graft;
    pub use crate::store::{Fresh, Store, Vacant};
    pub use crate::stored::{Data, Dirty, Durable, Flushed, Object, Stored};
    pub use crate::tree::Tree;
    pub use crate::txn::Txn;
}

pub use check::{CheckReport, Problem};
pub use error::FsError;
pub use filesystem::{Filesystem, FormatOptions, MountMode, Recovered, Usage};
pub use format::{FORMAT_VERSION, Ino, Kind};
pub use held_pin::HeldPin;
pub use inode::{Attr, Deduped, FileExtent, FileMapping, FreePolicy, Inode, SetAttr, WriteAccess};
pub use name::Name;
pub use namespace::{DirEntry, RenameMode};
pub use quarantine::{LivingOwner, Owners, RecordedPin, Release};
