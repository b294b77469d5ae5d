//! Spans: where pages of a device are, with the proof that they are still there.
//!
//! A span owns one live reference to its page map, and one of the table that led there: no bytes, no
//! page state. Who wants to use the pages claims them or asks for folios.

use crate::AccessError;
use crate::mapped::Section;
use std::ops::Range;
use udax_mm::{DeviceOff, Pages, PgmapOff, PgmapRef};

/// Pages that lie side by side in one medium of one live page map.
///
/// The page map cannot die while the span exists, so an address taken from a span stays good for
/// as long as the span is kept (I-60). If a table led to it, whoever changes the table waits for the
/// span: it is the read section of Linux (`dax_read_lock`), and covers translation and use.
///
/// # Invariants
///
/// 1. There is at least one page, and all of them are contiguous in one medium (I-62).
///
/// # Examples
///
/// ```
/// # use udax_mm::{DeviceOff, MediaRange, MemoryType, Pages, Pgmap, media::FileMedia, sync::Arc};
/// # use udax_dev::{DaxDevice, PgmapDevice};
/// let media = Arc::new(FileMedia::memfd("span", Pages(8).bytes())?);
/// let ranges = vec![MediaRange { media, start: 0, pages: Pages(8) }];
/// let device = PgmapDevice::new(Pgmap::new(ranges, MemoryType::FsDax)?);
///
/// let span = device.direct_access(DeviceOff(2), Pages(100))?;
/// assert_eq!(span.pages(), Pages(6));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DaxSpan {
    pgmap: PgmapRef,
    at: PgmapOff,
    pages: Pages,
    /// Of the table through which it was found.
    section: Option<Section>,
}

impl DaxSpan {
    /// Takes the longest span of at most `max` pages from `at` on.
    ///
    /// # Errors
    ///
    /// Returns [`AccessError::OutOfRange`] if `at` lies outside the page map.
    ///
    /// # Panics
    ///
    /// Panics if `max` is zero.
    pub fn new(pgmap: PgmapRef, at: PgmapOff, max: Pages) -> Result<DaxSpan, AccessError> {
        assert!(!max.is_empty(), "I-62: a span has at least one page");
        if at.0 >= pgmap.size().0 {
            return Err(AccessError::OutOfRange { at: DeviceOff(at.0), size: pgmap.size() });
        }
        let pages = max.min(pgmap.contiguous(at));
        assert!(!pages.is_empty(), "I-62: a page inside the pgmap is contiguous with itself");
        Ok(DaxSpan { pgmap, at, pages, section: None })
    }

    /// The live page map.
    pub fn pgmap(&self) -> &PgmapRef {
        &self.pgmap
    }

    /// The first page.
    pub fn at(&self) -> PgmapOff {
        self.at
    }

    /// The number of pages.
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// The pages, as the page map counts them.
    pub fn range(&self) -> Range<PgmapOff> {
        self.at.span(self.pages)
    }

    /// Takes the part of `pages` pages that starts `from` pages into this span.
    ///
    /// # Panics
    ///
    /// Panics if the part is empty or does not lie inside the span.
    #[must_use]
    pub fn slice(&self, from: Pages, pages: Pages) -> DaxSpan {
        assert!(!pages.is_empty(), "I-62: a span has at least one page");
        assert!(from <= self.pages, "I-62: a slice starts inside its span");
        assert!(pages <= self.pages - from, "I-62: a slice ends inside its span");
        let (pgmap, section) = (self.pgmap.clone(), self.section.clone());
        DaxSpan { pgmap, at: self.at + from, pages, section }
    }

    /// The same pages, found through the table of `section`.
    pub(crate) fn within(self, section: Section) -> DaxSpan {
        DaxSpan { section: Some(section), ..self }
    }

    /// Leaves off what lies behind the first change between good and failed memory.
    pub(crate) fn clipped_to_one_state(self) -> DaxSpan {
        let (range, pages) = (self.range(), self.pages);
        let Some(failed) = self.pgmap.first_poisoned(range.clone()) else { return self };
        let is_failed = |page: u64| {
            let page = PgmapOff(page);
            self.pgmap.first_poisoned(page.span(Pages(1))).is_some()
        };
        let pages = if failed > range.start {
            failed.since(range.start)
        } else {
            let end = (range.start.0..range.end.0).find(|page| !is_failed(*page));
            end.map_or(pages, |end| PgmapOff(end).since(range.start))
        };
        DaxSpan { pages, ..self }
    }
}
