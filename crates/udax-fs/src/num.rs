//! Conversions between lengths in memory and on the medium, in one place.

/// A length in memory, as the medium counts.
pub(crate) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("usize has at most 64 bits")
}

/// A length on the medium that is known to fit into memory.
pub(crate) fn to_usize(length: u64) -> usize {
    usize::try_from(length).expect("a length that was taken from a buffer or a page fits")
}
