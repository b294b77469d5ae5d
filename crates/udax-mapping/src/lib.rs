//! The address space of one file: what is mapped where, who pins what, and how a file gets its
//! pages back.
//!
//! A [`Mapping`] owns index entries and their locks, user mappings and their translations, and the
//! list of pins. It does not know extents, inodes or names: the owner of the file answers for them
//! through [`IomapOps`].
//!
//! Who wants to fault takes the layout lock shared ([`FaultGuard`]) and then the entry
//! ([`EntryGuard`]); only the latter can ask for the extent, insert, map or pin. Who wants to take
//! pages away from the file gets a [`LayoutBroken`]: the layout lock held exclusively, and the
//! claims on the pages. See `docs/protocol.md`, rules 6 to 16.

#![forbid(unsafe_code)]

mod entry;
mod events;
mod fault;
mod floor;
mod holders;
mod index;
mod iomap;
mod layout;
mod mapping;
mod pinned;
mod pins;
mod poison;
mod run;
mod shared;
mod stats;
mod stream;
mod table;
mod user;
mod verify;
mod writeback;

pub use entry::EntryGuard;
pub use fault::{FaultError, FaultGuard};
pub use holders::Deferred;
pub use iomap::{Iomap, IomapError, IomapOps, New};
pub use layout::{BreakError, LayoutBroken};
pub use mapping::Mapping;
pub use pinned::PinnedFolios;
pub use pins::FilePin;
pub use stats::{Fallback, Stats};
pub use table::Sharing;
pub use user::{MapMode, Populate, UserMapping, WritableMapping};
