//! Frozen pages as one slice.
//!
//! Owns the promise behind it: while the slice is borrowed its addresses show pages that nobody can
//! store to.

use crate::frozen::FrozenFolio;
use crate::reserve::{Reservation, Sharing};
use crate::show::Shown;
use crate::units::PgmapOff;
use crate::vma::Access;
use std::io;
use std::ops::{Deref, Range};

/// Bytes that cannot change: frozen pages, mapped for reading.
///
/// They are one slice, whatever their order on the medium. As long as this lives the pages stay
/// frozen and pinned.
///
/// A program that changes the medium behind udax's back (another process, or this one through the
/// file or the [`Media`](crate::Media) itself instead of a page map) changes these bytes, too; the
/// pool's file is to be kept from those. If the host loses the memory under them (somebody
/// truncates the file), a load is SIGBUS.
///
/// # Invariants
///
/// 1. The first `len` bytes of `mapping` map pages of `frozen`, for reading, until drop; without a
///    mapping `len` is zero.
/// 2. `frozen` keeps everybody who goes through a page map from storing to those pages.
#[derive(Debug)]
pub struct FrozenBytes {
    // Unmapped first: a field is dropped before those that follow it.
    mapping: Option<Reservation>,
    len: usize,
    frozen: Vec<FrozenFolio>,
}

impl FrozenBytes {
    /// Maps folios one after the other; `len` bytes of them count.
    ///
    /// # Errors
    ///
    /// Returns an error of kind [`io::ErrorKind::InvalidInput`] if the folios have fewer than `len`
    /// bytes, [`io::ErrorKind::Unsupported`] if a medium has no file, or the host's error.
    pub fn map(folios: Vec<FrozenFolio>, len: usize) -> io::Result<FrozenBytes> {
        let whole = |folio: FrozenFolio| {
            let pages = folio.pages();
            (folio, pages)
        };
        FrozenBytes::map_parts(folios.into_iter().map(whole).collect(), len)
    }

    /// Maps the given pages of each folio, one after the other; `len` bytes of them count. A file
    /// that shares a part of a folio has no other use for the rest of it.
    ///
    /// # Panics
    ///
    /// Panics if a folio has not all of the pages that it is given with.
    ///
    /// # Errors
    ///
    /// As [`map`](FrozenBytes::map).
    pub fn map_parts(
        parts: Vec<(FrozenFolio, Range<PgmapOff>)>,
        len: usize,
    ) -> io::Result<FrozenBytes> {
        for (folio, pages) in &parts {
            let whole = folio.pages();
            let has = whole.start <= pages.start && pages.end <= whole.end;
            assert!(has, "a folio shows pages of its own");
        }
        let (frozen, pages): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let sizes: Option<Vec<usize>> = pages.iter().map(bytes_of).collect();
        let total =
            sizes.iter().flatten().try_fold(0, |total: usize, &size| total.checked_add(size));
        let (Some(sizes), Some(total)) = (sizes, total) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        if len > total {
            let message = format!("{len} bytes do not fit into {total} bytes of frozen pages");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        if len == 0 {
            return Ok(FrozenBytes { mapping: None, len, frozen });
        }
        let mapping = Reservation::new(total)?;
        let mut at = 0;
        for ((folio, pages), size) in frozen.iter().zip(pages).zip(sizes) {
            let bytes = at..at + size;
            let shown = Shown {
                pgmap: folio.pgmap(),
                pages,
                access: Access::Read,
                sharing: Sharing::Shared,
            };
            shown.map(&mapping, bytes)?;
            at += size;
        }
        // INVARIANT: 1 by the loop, 2 by the type of `frozen`.
        Ok(FrozenBytes { mapping: Some(mapping), len, frozen })
    }

    /// The folios, in the order of the bytes. One of which the bytes show a part reaches further, and
    /// one that they show in two places stands here twice.
    pub fn folios(&self) -> &[FrozenFolio] {
        &self.frozen
    }
}

impl Deref for FrozenBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some(mapping) = &self.mapping else { return &[] };
        let start = mapping.window().start().as_ptr();
        // SAFETY: the bytes are mapped for as long as `self` is borrowed (invariant 1) and nobody
        // changes them (invariant 2); the length is at most that of a mapping.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

impl AsRef<[u8]> for FrozenBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// The bytes of pages, if they fit into memory.
fn bytes_of(pages: &Range<PgmapOff>) -> Option<usize> {
    usize::try_from(pages.end.since(pages.start).bytes()).ok()
}
