//! Direct access (DAX) in userspace: files whose pages *are* the memory of a device.
//!
//! This crate is what programs use. A [`Pool`] is a filesystem on a plain file or in memory, shaped
//! like [`std::fs`]; a [`File`] of it is read and written by copies, mapped into the address space
//! ([`Mapping`]), pinned for a device ([`Pin`]), or frozen and borrowed as a plain slice
//! ([`Frozen`]). A [`DevDax`] is a device without a filesystem, mapped and pinned as it is. It owns paths, handles and the lock of the pool file; everything else is the
//! business of [`fs`] and of the layers below it.
//!
//! Calls that are shaped like those of `std::fs` never wait for a pin: bytes that are pinned while
//! their file is truncated, punched or removed leave the file at once and go to limbo, and their
//! blocks come back with the last unpin. Calls that wait say so by a [`Wait`] or a [`FreePolicy`].
//!
//! ```
//! use udax::{Pool, Wait};
//!
//! let pool = Pool::create_in_memory("example", 8 << 20)?;
//! pool.create_dir_all("/a/b")?;
//! pool.write("/a/b/greeting", b"hello")?;
//!
//! let file = pool.open_file("/a/b/greeting")?;
//! file.freeze(Wait::Forever)?;
//! let frozen = file.frozen()?;
//! assert_eq!(&frozen[..], b"hello");
//! # Ok::<(), udax::Error>(())
//! ```
#![forbid(unsafe_code)]

mod clone;
mod devdax;
mod dir;
mod error;
mod faulting;
mod file;
mod floor;
mod frozen;
mod kind;
mod lock;
mod mapping;
mod metadata;
mod open;
mod options;
mod path;
mod paths;
mod pin;
mod pool;
mod position;
mod range;
mod stack;
mod synchronous;

pub use udax_dev as dev;
pub use udax_fs as fs;
pub use udax_fs::{
    CheckReport, Deduped, FileExtent, FreePolicy, Ino, Kind, LivingOwner, Problem, RecordedPin,
    Recovered, Release, RenameMode, Usage,
};
pub use udax_mapping::{Fallback, Populate, Stats};
pub use udax_mm::media::{Durability, Persistence};
pub use udax_mm::{
    Access, FileIndex, Interrupt, Iovec, MediaFacts, Order, PAGE_SIZE, Pages, Patience, PinKind,
    PinOwner, PinTerm, RecallReason, Wait,
};

pub use devdax::{DevDax, DevDaxError, OpenDevDax};
pub use dir::{DirEntry, ReadDir};
pub use error::{Error, Result};
pub use faulting::WhyEager;
pub use file::File;
pub use frozen::Frozen;
pub use kind::ErrorKind;
pub use mapping::{MapOptions, Mapping};
pub use metadata::{Metadata, Times};
pub use open::{CreateOptions, OpenPool};
pub use options::OpenOptions;
pub use pin::{Deferred, Pin, PinOptions, PinnedFile, PoolPin, Recalled};
pub use pool::Pool;
pub use stack::{TableTree, TreeLine, TreeMember, TreeSegment};
pub use udax_dev::{Advice, Cure};

/// The example of the README runs with the others.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
