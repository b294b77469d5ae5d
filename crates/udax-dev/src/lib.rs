//! DAX devices over page maps, and tables that make one of several.
//!
//! A device says where its pages are: it gives out [`DaxSpan`]s of live page maps. It owns who is
//! told of its removal ([`Holder`]), how devices stack ([`Mapped`], [`Table`]) and how one medium is carved
//! into several ([`Region`]). It knows nothing of the
//! users of folios and nothing of files.

#![forbid(unsafe_code)]

mod bytes;
mod change;
mod device;
mod facts;
mod failure;
mod holder;
mod mapped;
mod pgmap_device;
mod plan;
mod region;
mod span;
mod swap;
mod table;
mod targets;

pub use bytes::DaxBytes;
pub use device::{AccessError, DaxDevice, IoError, NoDax, Route};
pub use holder::{Hold, Holder, HolderError, HolderSlot};
pub use mapped::Mapped;
pub use pgmap_device::PgmapDevice;
pub use region::{Mode, Region, RegionDevice, RegionError};
pub use span::DaxSpan;
pub use swap::{Left, SwapError, Swapped};
pub use table::{
    Advice, Cure, Field, Line, Opener, Problem, Run, Table, TableError, TableText, TextError,
};
pub use targets::{Delay, EventSink, Linear, LogWrites, Member, Striped, Target};
