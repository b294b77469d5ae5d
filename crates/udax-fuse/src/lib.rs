//! A FUSE mount of a pool, for programs that know nothing of udax.
//!
//! This crate translates: requests of the kernel into calls of [`udax::fs`], and errors into errno.
//! It has no logic of its own. The kernel caches what it reads and maps its own copies, so a
//! program over the mount has ordinary files with ordinary mappings; only programs that use the
//! crate `udax` touch the memory itself.
//!
//! A file that a program has open for writing, or mapped, is not frozen: see
//! [`FsError::OpenForWriting`](udax::fs::FsError::OpenForWriting).
//!
//! Nothing here waits for a pin: what is pinned while a file is truncated or removed goes to limbo.
#![forbid(unsafe_code)]

mod attr;
mod errno;
mod handles;
mod listing;
mod mount;
mod opened;
mod ops;
mod server;

pub use mount::{MountError, MountOptions, Session, Unmounted, Unmounter, mount};
