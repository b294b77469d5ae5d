//! What folios the layout of a file permits, and why not larger ones.
//!
//! Says what a fault would find that has room for the whole block: its own bounds, and what else is
//! mapped, may keep it smaller.

use std::ops::Range;

use udax::dev::DaxDevice;
use udax::{Fallback, FileExtent, FileIndex, Order, Pages};

/// Where all of a file lies.
pub(super) struct Layout<'l> {
    device: &'l dyn DaxDevice,
    /// The first page behind the file.
    end: FileIndex,
    /// What one fault may be served from: extents that are adjacent on the device, too.
    runs: Vec<FileExtent>,
    /// Bytes whose memory failed.
    bad: &'l [Range<u64>],
}

/// How an extent can be mapped.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Permitted {
    /// The largest folio that a part of it can lie in.
    pub(super) order: Order,
    /// The pages that can lie in a folio of 2 MiB or above.
    pub(super) huge: Pages,
    /// Why other parts can not, or none in a larger one, and how many blocks each reason concerns.
    pub(super) not_larger: Vec<(Fallback, u64)>,
}

impl<'l> Layout<'l> {
    pub(super) fn new(
        device: &'l dyn DaxDevice,
        size: u64,
        extents: &[FileExtent],
        bad: &'l [Range<u64>],
    ) -> Layout<'l> {
        let mut runs: Vec<FileExtent> = Vec::new();
        for extent in extents {
            match runs.last_mut() {
                Some(run) if is_continued(run, extent) => run.pages = run.pages + extent.pages,
                _ => runs.push(*extent),
            }
        }
        Layout { device, end: FileIndex(0) + Pages::holding(size), runs, bad }
    }

    /// How an extent can be mapped.
    pub(super) fn of(&self, extent: &FileExtent) -> Permitted {
        let is_good = |order: &Order| self.blocks(extent, *order).any(|(_, found)| found.is_ok());
        let mut larger = Order::ALL.into_iter().filter(|order| *order > Order::Base);
        let order = larger.rfind(is_good).unwrap_or(Order::Base);
        let mut not_larger: Vec<(Fallback, u64)> = Vec::new();
        let wanted = [(order > Order::Base).then_some(order), order.larger()];
        for reason in wanted.into_iter().flatten().flat_map(|order| self.refusals(extent, order)) {
            match not_larger.iter_mut().find(|(other, _)| *other == reason) {
                Some((_, count)) => *count += 1,
                None => not_larger.push((reason, 1)),
            }
        }
        let huge = self.blocks(extent, Order::Pmd).filter(|(_, found)| found.is_ok());
        let huge = huge.fold(Pages(0), |sum, (part, _)| sum + part.end.since(part.start));
        Permitted { order, huge, not_larger }
    }

    fn refusals(&self, extent: &FileExtent, order: Order) -> impl Iterator<Item = Fallback> {
        self.blocks(extent, order).filter_map(|(_, found)| found.err())
    }

    /// The parts of an extent that lie in one block of `order` each, and whether that can be a folio.
    fn blocks(
        &self,
        extent: &FileExtent,
        order: Order,
    ) -> impl Iterator<Item = (Range<FileIndex>, Result<(), Fallback>)> {
        let (start, end) = (extent.index, extent.index + extent.pages);
        let heads = std::iter::successors(Some(start.align_down(order)), move |head| {
            Some(*head + order.pages())
        });
        heads.take_while(move |head| *head < end).map(move |head| {
            let part = start.max(head)..end.min(head + order.pages());
            // A page stops being shared on its own.
            let is_shared = extent.is_shared;
            let found = if is_shared { Err(Fallback::Shared) } else { self.block(head, order) };
            (part, found)
        })
    }

    /// Whether the block of `order` at `head` can be one folio.
    fn block(&self, head: FileIndex, order: Order) -> Result<(), Fallback> {
        let behind = head + order.pages();
        let before = self.runs.partition_point(|run| run.index <= head);
        let covers = |run: &&FileExtent| behind <= run.index + run.pages;
        let Some(run) = self.runs.get(..before).and_then(<[_]>::last).filter(covers) else {
            let is_cut = behind > self.end;
            return Err(if is_cut { Fallback::Eof } else { Fallback::ExtentTooShort });
        };
        let at = run.device + head.since(run.index);
        // What cannot be looked at is for the fault to say.
        let Ok(span) = self.device.recovery_access(at, order.pages()) else { return Ok(()) };
        if span.pages() < order.pages() {
            return Err(Fallback::ExtentTooShort);
        }
        if !span.at().is_aligned(order) {
            return Err(Fallback::Misaligned);
        }
        let bytes = head.byte()..behind.byte();
        let is_bad = |bad: &Range<u64>| bad.start < bytes.end && bytes.start < bad.end;
        if self.bad.iter().any(is_bad) { Err(Fallback::Media) } else { Ok(()) }
    }
}

/// Whether `next` goes on where `run` ends, in the file and on the device.
fn is_continued(run: &FileExtent, next: &FileExtent) -> bool {
    run.index + run.pages == next.index
        && run.device + run.pages == next.device
        && run.is_shared == next.is_shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use udax::Pool;

    /// Of a file of two blocks of 2 MiB.
    fn of_two_blocks(bad: &[Range<u64>]) -> Permitted {
        let pool = Pool::create_in_memory("layout", 16 << 20).unwrap();
        pool.write("/file", vec![7; 4 << 20]).unwrap();
        let extents = pool.open_file("/file").unwrap().extents().unwrap();
        assert_eq!(extents.len(), 1, "{extents:?}");
        Layout::new(&**pool.filesystem().device(), 4 << 20, &extents, bad).of(&extents[0])
    }

    #[test]
    fn memory_that_failed_is_a_reason_in_its_block() {
        let bad = (3 << 20)..(3 << 20) + 4096;
        let (eof, media) = (Fallback::Eof, Fallback::Media);
        let permitted =
            |order, huge, not_larger| Permitted { order, huge: Pages(huge), not_larger };
        let (both, one) = (of_two_blocks(&[]), of_two_blocks(std::slice::from_ref(&bad)));
        assert_eq!(both, permitted(Order::Pmd, 1024, vec![(eof, 1)]));
        assert_eq!(one, permitted(Order::Pmd, 512, vec![(media, 1), (eof, 1)]));
        let none = of_two_blocks(&[0..4096, bad]);
        assert_eq!(none, permitted(Order::Base, 0, vec![(media, 2)]));
    }

    #[test]
    fn what_is_behind_the_data_says_why_it_ends() {
        let pool = Pool::create_in_memory("layout", 16 << 20).unwrap();
        pool.write("/file", vec![7; 5 << 19]).unwrap();
        let file = pool.open_file("/file").unwrap();
        let extents = file.extents().unwrap();
        let last = extents.last().unwrap();
        for (size, reason) in [(5 << 19, Fallback::Eof), (8 << 20, Fallback::ExtentTooShort)] {
            let layout = Layout::new(&**pool.filesystem().device(), size, &extents, &[]);
            assert_eq!(layout.of(last).not_larger, [(reason, 1)]);
        }
    }
}
