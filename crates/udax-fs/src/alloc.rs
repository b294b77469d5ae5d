//! Free space: which pages no object uses, with 2 MiB blocks kept whole for as long as possible.
//!
//! This file owns the sets in memory and the choice of pages. Nothing of it is stored: mounting
//! walks the inode table and the trees and reserves what they use. It knows no claims; the store
//! joins each allocation with the claim on its pages.

use udax_mm::{DeviceOff, Pages};

/// Adjacent pages of the device.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Extent {
    /// The first page.
    pub(crate) start: DeviceOff,
    /// How many.
    pub(crate) pages: Pages,
}

/// Where the pages of an allocation should lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Goal {
    /// In blocks that are cut already, adjacent if possible.
    Packed,
    /// From this page on if it is free, so that a file that grows stays in one piece; else packed.
    At(DeviceOff),
}

/// A page is used by two objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DoubleUse(pub(crate) DeviceOff);

/// The free pages of a store.
#[derive(Debug)]
pub(crate) struct Allocator;
