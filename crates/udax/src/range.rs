//! Ranges of bytes: which pages they lie in, and whether they are inside.

use std::ops::Range;

use udax_mm::units::PAGE_BYTES;
use udax_mm::{FileIndex, Pages};

use crate::error::Cause;

/// The pages that hold the bytes of `range`, and where in the first page it starts.
pub(crate) fn to_pages(range: &Range<u64>) -> Result<(Range<FileIndex>, u64), Cause> {
    if range.start >= range.end {
        return Err(Cause::InvalidInput("the range is empty"));
    }
    let end = FileIndex(Pages::holding(range.end).0);
    Ok((FileIndex::of_byte(range.start)..end, range.start % PAGE_BYTES))
}

/// Refuses `wanted` bytes at `at` if they are not inside the `len` bytes of a `what`.
pub(crate) fn check(what: &'static str, at: u64, wanted: u64, len: u64) -> Result<(), Cause> {
    if at.checked_add(wanted).is_none_or(|end| end > len) {
        return Err(Cause::OutOfRange { what, at, wanted, len });
    }
    Ok(())
}

/// The length of a buffer as a count of bytes of a file.
pub(crate) fn byte_count(len: usize) -> u64 {
    u64::try_from(len).expect("a buffer has fewer than 2^64 bytes")
}
