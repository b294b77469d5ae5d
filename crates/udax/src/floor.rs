//! A mapping that cannot be made of folios as large as was asked: why, and what would help.

use udax_fs::FsError;
use udax_mapping::{Fallback, FaultError};
use udax_mm::{FileIndex, Order};

use crate::error::Cause;

/// The first block that cannot be a folio of the floor.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "byte {} cannot be mapped by a folio of {}: {reason}; {}",
    .index.byte(), size(*.floor), cure(*.reason)
)]
pub(crate) struct BelowFloor {
    index: FileIndex,
    floor: Order,
    reason: Fallback,
}

/// What a filesystem says of a mapping that it does not make.
pub(crate) fn of_file(error: FsError) -> Cause {
    match error {
        FsError::Fault(error) => of_device(error),
        error => error.into(),
    }
}

/// The same of a device.
pub(crate) fn of_device(error: FaultError) -> Cause {
    match error {
        FaultError::BelowFloor { index, floor, reason } => {
            BelowFloor { index, floor, reason }.into()
        }
        error => error.into(),
    }
}

/// What a user can do about it.
fn cure(reason: Fallback) -> &'static str {
    match reason {
        Fallback::Colour | Fallback::Bounds => "map from a multiple of that size to another one",
        Fallback::Eof => "let the file end at a multiple of that size, or map less of it",
        Fallback::ExtentTooShort | Fallback::Misaligned => {
            "write the file anew, while the pool has free blocks of that size (`udax df`)"
        }
        Fallback::Conflict | Fallback::Busy => {
            "what was mapped or pinned in pages stays so until all handles and mappings of the file \
             are dropped; map blocks of that size first"
        }
        Fallback::Shared => "give the file data of its own (`File::unshare`)",
        Fallback::Media => "write the pages that are lost anew (`File::bad_ranges`)",
        Fallback::DeviceOrder => "open the device with an alignment of that size",
    }
}

fn size(order: Order) -> &'static str {
    match order {
        Order::Base => "4 KiB",
        Order::Pmd => "2 MiB",
        Order::Pud => "1 GiB",
    }
}
