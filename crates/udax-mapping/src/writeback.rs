//! Writeback: mapped stores reach the persistence domain.
//!
//! Owns when an entry stops being dirty. Where the media are, and what a flush costs, is below.

use crate::index::{Block, Entry};
use crate::mapping::Mapping;
use std::ops::Range;
use std::panic::Location;
use udax_dev::{AccessError, IoError};
use udax_mm::media::Site;
use udax_mm::{FileIndex, Order, Pgmap};

impl Mapping {
    /// Flushes and fences every store that user mappings and devices made to `range` before the
    /// call (I-41). The caller's source line is the site.
    ///
    /// An entry that is still mapped or pinned for writing stays dirty: no fault tells of the next
    /// store. A dirty entry that overlaps the range is flushed as a whole.
    ///
    /// # Blocking
    ///
    /// Waits for entries that are locked, for another writeback, and for the media.
    ///
    /// # Errors
    ///
    /// [`IoError`] if the device is gone or a medium fails. What was not flushed stays dirty.
    #[track_caller]
    pub fn writeback(&self, range: Range<FileIndex>) -> Result<(), IoError> {
        let site = Location::caller();
        // One at a time: the second must not find clean what the first has not fenced (I-43).
        let _turn = self.writeback_lock().lock();
        let mut cleaned = Vec::new();
        let flushed = self.flush_all(&range, site, &mut cleaned);
        if flushed.is_err() {
            self.index().redirty(&cleaned);
        }
        flushed
    }

    fn flush_all(
        &self,
        range: &Range<FileIndex>,
        site: Site,
        cleaned: &mut Vec<FileIndex>,
    ) -> Result<(), IoError> {
        let mut pgmaps: Vec<Pgmap> = Vec::new();
        let mut at = range.start;
        while let Some((block, entry)) = self.flush_next(at..range.end, site, cleaned)? {
            at = block.range().end;
            if !pgmaps.contains(&entry.pgmap) {
                pgmaps.push(entry.pgmap);
            }
        }
        for pgmap in pgmaps {
            pgmap.try_get_live().ok_or(AccessError::Dead)?.fence(site)?;
        }
        Ok(())
    }

    /// Flushes the first dirty entry in `range`, under its lock.
    fn flush_next(
        &self,
        range: Range<FileIndex>,
        site: Site,
        cleaned: &mut Vec<FileIndex>,
    ) -> Result<Option<(Block, Entry)>, IoError> {
        let faults = self.faults();
        let Some(locked) = faults.lock_dirty(range) else { return Ok(None) };
        let block = locked.block();
        let entry = block.entry.clone().expect("a dirty block has an entry");
        let pgmap = entry.pgmap.try_get_live().ok_or(AccessError::Dead)?;
        // Asked before the flush: a mapping or a pin may go at any moment without the entry lock,
        // and what it stored last before that has to be flushed.
        let is_stored_to = self.is_stored_to(&block.range());
        // The whole entry: its stores were not told apart (B-10).
        pgmap.flush(entry.first.byte(), block.order.pages().bytes(), site)?;
        if !is_stored_to {
            locked.mark_clean();
            cleaned.push(block.head);
        }
        Ok(Some((block, entry)))
    }

    /// Whether stores to `range` may still come without a fault.
    fn is_stored_to(&self, range: &Range<FileIndex>) -> bool {
        // A folio of a translation or pin covers at most the 2 MiB around.
        let start = range.start.align_down(Order::Pmd);
        let around = start..range.end.max(start + Order::Pmd.pages());
        self.is_mapped_writable(range) || self.pin_list().has_writer(&around)
    }
}
