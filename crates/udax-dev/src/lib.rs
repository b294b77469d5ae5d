//! DAX devices over page maps, and tables that join several devices into one.
//!
//! A device says where its pages are: it gives out [`DaxSpan`]s of live page maps. It owns who is
//! told of its removal ([`Holder`]) and how devices stack ([`Linear`]). It knows nothing of the
//! users of folios and nothing of files.

#![forbid(unsafe_code)]

mod bytes;
mod device;
mod failure;
mod holder;
mod linear;
mod pgmap_device;
mod span;

pub use bytes::DaxBytes;
pub use device::{AccessError, DaxDevice, IoError};
pub use holder::{Hold, Holder, HolderError, HolderSlot};
pub use linear::{Linear, LinearTarget, TableError};
pub use pgmap_device::PgmapDevice;
pub use span::DaxSpan;
