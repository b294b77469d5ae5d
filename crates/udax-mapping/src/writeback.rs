//! Writeback: mapped stores reach the persistence domain.
//!
//! Owns when an entry stops being dirty. Where the media are, and what a flush costs, is below.
//!
//! The kernel write-protects every translation of an entry, flushes, and takes the mark off, so
//! that the next store faults and sets it again (I-42). Here an entry that may be stored to without
//! a fault keeps its mark, and every writeback flushes it. That is at least as strong, because an
//! unmarked entry is one that nobody can store to; and cheaper, because the program does not fault
//! again, and a flush of what did not change costs little on the media that need one.
//!
//! The owner is told of stores here, as the kernel tells a filesystem in the fault: of those behind
//! an entry that became dirty, once, and of those to one that keeps its mark, each time.

use crate::entry::EntryGuard;
use crate::events;
use crate::index::{Block, Place};
use crate::iomap::IomapOps;
use crate::mapping::Mapping;
use std::ops::Range;
use std::panic::Location;
use udax_dev::{AccessError, IoError};
use udax_mm::media::Site;
use udax_mm::units::PAGE_BYTES;
use udax_mm::{FileIndex, Order, Pages, Pgmap};

impl Mapping {
    /// Flushes and fences every store that user mappings and devices made to `range` before the
    /// call (I-41). The caller's source line is the site.
    ///
    /// An entry that is still mapped or pinned for writing stays dirty: no fault tells of the next
    /// store. A dirty entry that overlaps the range is flushed as a whole. What becomes dirty while
    /// this runs is left to the next.
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
        // Put after the lock is released: the last reference of an owner may write back.
        let owner = self.owner();
        // One at a time: the second must not find clean what the first has not fenced (I-43).
        let _turn = self.writeback_lock().lock();
        let had_stores = self.index().take_stores(&range);
        let mut cleaned = Vec::new();
        let done = events::writeback_range(&range).run("durable", || {
            self.index().tag(&range);
            let flushed = self.flush_tagged(&range, site, &mut cleaned);
            if flushed.is_err() {
                self.index().redirty(&cleaned);
            }
            flushed
        });
        // Before the next has its turn, which does not find them any more.
        if had_stores || self.index().has_stores() {
            note_stores(owner.as_deref());
        }
        done
    }

    /// Flushes and fences the stores to these bytes of the file that user mappings and devices made
    /// before the call, and nothing else: no entry changes.
    ///
    /// # Blocking
    ///
    /// As [`writeback`](Mapping::writeback).
    ///
    /// # Errors
    ///
    /// As [`writeback`](Mapping::writeback).
    #[track_caller]
    pub fn flush(&self, bytes: Range<u64>) -> Result<(), IoError> {
        let site = Location::caller();
        if bytes.is_empty() {
            return Ok(());
        }
        let pages = FileIndex::of_byte(bytes.start)..FileIndex(Pages::holding(bytes.end).0);
        let owner = self.owner();
        // As in a writeback, which may have cleaned what it has not fenced (I-43).
        let _turn = self.writeback_lock().lock();
        let mut pgmaps = Vec::new();
        let mut at = pages.start;
        while at < pages.end {
            let faults = self.faults();
            let Some(block) = self.index().lock_dirty(&(at..pages.end)) else { break };
            let entry = EntryGuard::new(&faults, block.head, block);
            let (block, place) = dirty(&entry);
            let from = bytes.start.max(block.start.byte());
            let to = bytes.end.min(block.end.byte());
            let pgmap = place.pgmap.try_get_live().ok_or(AccessError::Dead)?;
            let byte = place.first.byte() + (from - block.start.byte());
            pgmap.flush(byte, to - from, site)?;
            note(&mut pgmaps, &place.pgmap);
            at = block.end;
        }
        if !pgmaps.is_empty() {
            // What is stored from here on is for the next one to tell.
            self.index().note_stores();
            note_stores(owner.as_deref());
        }
        fence(&pgmaps, site)
    }

    /// Flushes and fences every dirty entry, before all of them are forgotten. The caller holds the
    /// layout lock exclusively, and nothing is mapped.
    ///
    /// # Errors
    ///
    /// The first [`IoError`]; the other entries are flushed all the same.
    pub(crate) fn flush_before_forgetting(&self, site: Site) -> Result<(), IoError> {
        let (mut pgmaps, mut first) = (Vec::new(), Ok(()));
        for block in self.index().blocks() {
            let Some(place) = block.place().filter(|place| place.is_dirty) else { continue };
            let len = block.range().end.since(block.range().start).bytes();
            let flushed = match place.pgmap.try_get_live() {
                Some(pgmap) => pgmap.flush(place.first.byte(), len, site).map_err(IoError::from),
                None => Err(AccessError::Dead.into()),
            };
            first = first.and(flushed);
            note(&mut pgmaps, &place.pgmap);
        }
        first.and(fence(&pgmaps, site))
    }

    fn flush_tagged(
        &self,
        range: &Range<FileIndex>,
        site: Site,
        cleaned: &mut Vec<FileIndex>,
    ) -> Result<(), IoError> {
        let mut pgmaps = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let faults = self.faults();
            let Some(block) = self.index().lock_tagged(&(at..range.end)) else { break };
            let entry = EntryGuard::new(&faults, block.head, block);
            at = entry.range().end;
            entry.untag();
            note(&mut pgmaps, &dirty(&entry).1.pgmap);
            if self.flush_entry(&entry, site)? {
                cleaned.push(entry.range().start);
            }
        }
        fence(&pgmaps, site)
    }

    /// Flushes all of a locked entry. Returns whether it is clean then.
    fn flush_entry(&self, entry: &EntryGuard<'_, '_>, site: Site) -> Result<bool, IoError> {
        let (block, place) = dirty(entry);
        let pgmap = place.pgmap.try_get_live().ok_or(AccessError::Dead)?;
        // Asked before the flush: a mapping or a pin may go at any moment without the entry lock,
        // and what it stored last before that has to be flushed.
        let is_stored_to = self.is_stored_to(&block);
        // The whole entry: its stores were not told apart (B-10).
        pgmap.flush(place.first.byte(), block.end.since(block.start).0 * PAGE_BYTES, site)?;
        if is_stored_to {
            self.index().note_stores();
        } else {
            entry.mark_clean();
        }
        events::writeback_one(&block, !is_stored_to);
        Ok(!is_stored_to)
    }

    /// Whether stores to `range` may still come without a fault.
    fn is_stored_to(&self, range: &Range<FileIndex>) -> bool {
        // A folio of a translation or pin may be larger than what is left of its entry.
        let start = range.start.align_down(Order::Pud);
        let around = start..range.end.max(start + Order::Pud.pages());
        self.is_mapped_writable(range) || self.pin_list().has_writer(&around)
    }
}

/// The pages of a locked dirty entry, and where they lie.
fn dirty<'e>(entry: &'e EntryGuard<'_, '_>) -> (Range<FileIndex>, &'e Place) {
    let block: &Block = entry.block();
    (block.range(), block.place().expect("I-30: only a folio is dirty"))
}

fn note_stores(owner: Option<&dyn IomapOps>) {
    if let Some(owner) = owner {
        owner.note_stores();
    }
}

fn note(pgmaps: &mut Vec<Pgmap>, pgmap: &Pgmap) {
    if !pgmaps.contains(pgmap) {
        pgmaps.push(pgmap.clone());
    }
}

fn fence(pgmaps: &[Pgmap], site: Site) -> Result<(), IoError> {
    for pgmap in pgmaps {
        pgmap.try_get_live().ok_or(AccessError::Dead)?.fence(site)?;
    }
    Ok(())
}
