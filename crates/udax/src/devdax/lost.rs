//! Copies of bytes of a device, and bytes that are lost because their memory failed.
//!
//! The page maps have the marks, and nothing else is kept. A write of whole pages heals them;
//! whatever would leave a part of a lost page is refused.

use std::ops::Range;

use udax_dev::{AccessError, DaxSpan, IoError};
use udax_mm::units::PAGE_BYTES;
use udax_mm::{DeviceOff, FileIndex, MediaError, PAGE_SIZE, Pages};

use super::core::Core;
use super::refused::DevDaxError;
use crate::error::Cause;
use crate::range::byte_count;

impl Core {
    pub(super) fn read(&self, into: &mut [u8], at: u64) -> Result<(), Cause> {
        let range = at..at + byte_count(into.len());
        self.bytes().read(at, into).map_err(|error| self.located(error, &range))
    }

    /// Writes, flushes and fences.
    pub(super) fn write(&self, bytes: &[u8], at: u64) -> Result<(), Cause> {
        let range = at..at + byte_count(bytes.len());
        let part = |page: u64| {
            let from = usize::try_from(page - at).expect("it lies in the buffer");
            bytes[from..from + PAGE_SIZE].to_vec()
        };
        self.store(range, part, || self.bytes().write(at, bytes))
    }

    /// Stores zeros, flushes and fences.
    pub(super) fn zero(&self, range: Range<u64>) -> Result<(), Cause> {
        let len = range.end - range.start;
        self.store(range.clone(), |_| vec![0; PAGE_SIZE], || self.bytes().zero(range.start, len))
    }

    /// The bytes of `range` that are known to be lost, in order.
    pub(super) fn bad_ranges(&self, range: &Range<u64>) -> Result<Vec<Range<u64>>, AccessError> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (at, _) in self.failed_pages(range)? {
            let bytes = at.byte()..at.byte() + PAGE_BYTES;
            match ranges.last_mut() {
                Some(last) if last.end == bytes.start => last.end = bytes.end,
                _ => ranges.push(bytes),
            }
        }
        Ok(ranges)
    }

    /// Heals the lost pages of `range` by what `page` says that they shall hold, and then stores.
    fn store(
        &self,
        range: Range<u64>,
        page: impl Fn(u64) -> Vec<u8>,
        store: impl FnOnce() -> Result<(), IoError>,
    ) -> Result<(), Cause> {
        let failed = self.failed_pages(&range)?;
        for (at, _) in &failed {
            let (start, end) = (at.byte(), at.byte() + PAGE_BYTES);
            if start < range.start || range.end < end {
                return Err(DevDaxError::PartlyLost { start, end }.into());
            }
        }
        let stored = renew(&failed, page)
            .and_then(|()| store().map_err(|error| self.located(error, &range)));
        // Also where one was refused: the marks of those before it are gone, and nobody comes again
        // for what mappings show of these.
        for (at, _) in &failed {
            let head = FileIndex(at.0).align_down(self.order());
            self.mapping().heal(head.span(self.order().pages()));
        }
        stored?;
        self.bytes().flush(range.start, range.end - range.start)?;
        Ok(self.bytes().fence()?)
    }

    /// The pages of `range` that are marked, in order.
    fn failed_pages(&self, range: &Range<u64>) -> Result<Vec<(DeviceOff, DaxSpan)>, AccessError> {
        let mut failed = Vec::new();
        for (start, span) in self.spans_of(pages(range))? {
            let mut from = span.at();
            while let Some(page) = span.pgmap().first_poisoned(from..span.range().end) {
                let before = page.since(span.at());
                from = page + Pages(1);
                failed.push((start + before, span.slice(before, Pages(1))));
            }
        }
        Ok(failed)
    }

    /// Says of an error that memory failed which bytes of the device are lost; marks what nobody had
    /// noticed before, and tells whoever has it.
    fn located(&self, error: IoError, range: &Range<u64>) -> Cause {
        match &error {
            IoError::Media(MediaError::Fault { .. }) => self.report_failures(range),
            IoError::Media(MediaError::Poisoned { .. }) => (),
            _ => return error.into(),
        }
        let lost = self.bad_ranges(range).unwrap_or_default();
        match lost.first() {
            Some(lost) => DevDaxError::Lost { start: lost.start, end: lost.end }.into(),
            None => error.into(),
        }
    }

    /// Marks the pages of `range` that fail when they are read.
    fn report_failures(&self, range: &Range<u64>) {
        let mut scratch = vec![0; PAGE_SIZE];
        // What cannot be looked at has failed in another way, and the caller says how.
        for (_, span) in self.spans_of(pages(range)).unwrap_or_default() {
            for page in (0..span.pages().0).map(|page| span.slice(Pages(page), Pages(1))) {
                let read = page.pgmap().read(page.at().byte(), &mut scratch);
                if let Err(MediaError::Fault { .. }) = read {
                    page.pgmap().memory_failure(page.range());
                }
            }
        }
    }
}

/// Gives lost pages the bytes that `page` says, up to the first that is refused.
fn renew(failed: &[(DeviceOff, DaxSpan)], page: impl Fn(u64) -> Vec<u8>) -> Result<(), Cause> {
    for (at, span) in failed {
        span.pgmap().recover(span.at().byte(), &page(at.byte()))?;
    }
    Ok(())
}

/// The pages that hold the bytes of `range`.
fn pages(range: &Range<u64>) -> Range<DeviceOff> {
    DeviceOff::of_byte(range.start)..DeviceOff(Pages::holding(range.end).0)
}
