//! Page lifetimes for memory that is its own backing store.
//!
//! This crate owns media (what memory is made of), page maps, page words, folios, claims, pins,
//! byte copies, persistence and reserved addresses. It knows nothing of devices and files.
//!
//! Whoever names a page for use holds one of two proofs: a [`Folio`] (somebody counts it), or an
//! [`IdleSpan`] (nobody does, and nobody can start).

#![warn(clippy::undocumented_unsafe_blocks)]

#[doc(hidden)]
pub mod floor;
pub mod folio;
pub mod folio_span;
pub mod frozen;
pub mod idle;
pub mod image;
pub mod interrupt;
pub mod iovec;
pub mod limbo;
pub mod media;
pub mod memory;
pub mod pgmap;
pub mod pin;
pub mod pinned_span;
pub mod recorder;
pub mod sync;
pub mod units;
pub mod use_count;
pub mod vma;
pub mod wait;

mod access;
mod active;
mod areas;
mod block;
mod bytes;
mod copies;
mod end;
mod faults;
mod file_media;
mod handle;
mod hands;
mod host;
mod live;
mod pagemap;
mod persist;
mod poisoned;
mod range_media;
mod ranges;
mod recall;
mod recover;
mod reserve;
mod show;
mod signals;
#[cfg(test)]
mod skipped;
mod space;
mod sysfs;
mod table;
mod tap;
mod threads;
mod uffd;
mod value;
mod verify;
mod word;

pub use active::Active;
pub use end::{Dead, StillBusy};
pub use folio::{Folio, FolioRef};
pub use folio_span::FolioSpan;
pub use frozen::FrozenFolio;
pub use idle::IdleSpan;
pub use interrupt::Interrupt;
pub use iovec::Iovec;
pub use limbo::LimboSink;
pub use media::{Media, MediaError, MediaFacts, MediaRange};
pub use memory::{DeviceMemory, MemoryFailure, MemoryType, MigrateError, PrivateMemory};
pub use pgmap::{Pgmap, PgmapError, PgmapRef, RequestError};
pub use pin::{PinInfo, PinKind, PinOwner, PinRecord, PinTerm, PinnedFolio};
pub use pinned_span::{PinError, PinnedSpan};
pub use recall::{Lease, Recall, RecallEvent, RecallReason};
pub use show::Failure;
pub use tap::StoreTap;
pub use units::{DeviceOff, FileIndex, Order, PAGE_SIZE, Pages, PgmapOff, VmaOff};
pub use use_count::{CountedUse, UseCount};
pub use vma::{Access, FaultService, FaultSink, FrozenBytes, Prefault, Vma};
pub use wait::{Patience, Wait};
