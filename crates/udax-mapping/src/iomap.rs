//! The seam to the owner of a file: where its pages lie.

use std::ops::Range;
use udax_dev::DaxSpan;
use udax_mm::{Access, FileIndex, Pages};

/// What lies behind an index of a file (`struct iomap`).
#[derive(Clone, Debug)]
pub enum Iomap {
    /// Data: a contiguous run of the file that holds the index asked for.
    Data {
        /// Where the run lies.
        span: DaxSpan,
        /// The file index of the first page of `span`; the index asked for, or an earlier one.
        start: FileIndex,
        /// Another file, or another place of this one, has these pages too (`IOMAP_F_SHARED`).
        /// They are shown for reading only (I-36).
        is_shared: bool,
        /// What this call made of it (`IOMAP_F_NEW`); mostly nothing.
        new: New,
    },

    /// A hole, which reads as zeros.
    Hole {
        /// How many pages from the index asked for on are known to be a hole; at least one.
        pages: Pages,
    },

    /// The index lies at or past the end of the file, rounded up to a page.
    PastEnd,
}

impl Iomap {
    /// What the call has made of it.
    pub(crate) fn into_new(self) -> New {
        match self {
            Iomap::Data { new, .. } => new,
            Iomap::Hole { .. } | Iomap::PastEnd => New::Nothing,
        }
    }
}

/// What an answer is besides an answer: data that was not there before it was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum New {
    /// The data was there.
    Nothing,
    /// These pages were a hole, and were allocated.
    Allocated(Range<FileIndex>),
    /// This page was shared, and the file has a copy of its own.
    Copied(FileIndex),
}

/// The owner of a file, who says where its pages lie.
///
/// # What a [`Mapping`](crate::Mapping) relies on
///
/// - Data stays where it is until the owner has a [`LayoutBroken`](crate::LayoutBroken) for it.
/// - Shared data becomes the file's own at any time, because the others give it up. The file moves
///   away from it only in `iomap`, or under a [`LayoutBroken`](crate::LayoutBroken). Data becomes
///   shared only under one, or in a file that does not permit stores.
/// - A hole may become data, and a file may grow, at any time. Who did that outside of `iomap`
///   calls [`Mapping::invalidate_holes`](crate::Mapping::invalidate_holes) before it reports
///   success.
///
/// # Examples
///
/// ```
#[doc = include_str!("../doc/owner.inc")]
///
/// let file = WholeDevice::new(Pages(4))?;
/// assert!(matches!(file.iomap(FileIndex(3), Access::Read)?, Iomap::Data { .. }));
/// assert!(matches!(file.iomap(FileIndex(4), Access::Read)?, Iomap::PastEnd));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait IomapOps: Send + Sync {
    /// Says what lies behind `index`.
    ///
    /// [`Access::Write`] allocates a hole, durably and zeroed, before it returns: the page, or what
    /// is a hole of the 2 MiB around it. Of what is shared it gives the file a copy of its own,
    /// durably: of this one page, because the folios around it may be shown. Then the answer is
    /// [`Iomap::Data`], new and not shared. If the copy fails, nothing has changed. Data of a file that is mapped for
    /// writing may be stored to whatever access was asked for, if the file
    /// [permits stores](IomapOps::permits_stores).
    ///
    /// Called with the layout lock shared and the entry locked (rule 12), so it must not fault in
    /// this file, break its layout or call `invalidate_holes`.
    ///
    /// # Errors
    ///
    /// [`IomapError`] with the owner's own reason. A user mapping turns it into SIGBUS.
    fn iomap(&self, index: FileIndex, access: Access) -> Result<Iomap, IomapError>;

    /// The first page past the end of the file. Called like `iomap`; a fault names it as the reason
    /// why a folio could not be larger.
    fn end(&self) -> FileIndex;

    /// Whether data may be stored to by way of a mapping for writing that is older than the answer.
    ///
    /// Called like `iomap`. It becomes false only while the owner has a
    /// [`LayoutBroken`](crate::LayoutBroken) for all of the file.
    fn permits_stores(&self) -> bool {
        true
    }

    /// Notes that there may have been stores by user mappings and devices: the time of the last
    /// change moves.
    ///
    /// Called by a writeback, and by a flush, that finds what may have been stored to since the one
    /// before. Such stores are not told of one by one, so it is called as well where an entry can be
    /// stored to and was not. No entry is locked, but another writeback waits, so this must not write
    /// back or flush the file.
    fn note_stores(&self) {}

    /// Lists the data in `range` that no other file has, clipped to it, in file order: breaking a
    /// layout claims it, and waits for its pins. What is shared stays in use.
    ///
    /// Called with the layout lock held exclusively. The end may lie far past the end of the file.
    ///
    /// # Errors
    ///
    /// [`IomapError`] with the owner's own reason.
    fn spans(&self, range: Range<FileIndex>) -> Result<Vec<(FileIndex, DaxSpan)>, IomapError>;
}

/// Why the owner of a file could not say where a page lies: no space, a dead device, corruption.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct IomapError(#[from] pub Box<dyn std::error::Error + Send + Sync>);
