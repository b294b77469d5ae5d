//! Which order a block of the file can have, and why not a larger one.

use crate::entry::EntryGuard;
use crate::events;
use crate::fault::FaultError;
use crate::iomap::Iomap;
use crate::stats::Fallback;
use std::ops::Range;
use udax_dev::DaxSpan;
use udax_mm::{FileIndex, Order, Pages, RequestError};

/// What limits a folio from the side of its user: a user mapping or a pinned range.
pub(crate) trait Bounds {
    /// The first index of the block of `order` around `index`, if one translation or pin can have
    /// all of it (I-37).
    fn block_around(&self, index: FileIndex, order: Order) -> Result<FileIndex, Fallback>;
}

/// Data around an index, as the owner told it.
pub(crate) struct Run {
    span: DaxSpan,
    start: FileIndex,
    is_shared: bool,
}

impl Run {
    pub(crate) fn new(span: DaxSpan, start: FileIndex, is_shared: bool) -> Run {
        Run { span, start, is_shared }
    }

    /// The pages of the file that it covers.
    pub(crate) fn range(&self) -> Range<FileIndex> {
        self.start.span(self.span.pages())
    }

    /// Whether another file may have the data too.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// The only order of the folios of the device, if there is only one.
    pub(crate) fn fixed_order(&self) -> Option<Order> {
        fixed_order(&self.span)
    }

    /// Where one page lies.
    pub(crate) fn page(&self, index: FileIndex) -> DaxSpan {
        self.span.slice(index.since(self.start), Pages(1))
    }

    /// Whether it covers the block of `order` around `index`, aligned as that is.
    fn fills(&self, index: FileIndex, order: Order) -> bool {
        self.block(index, order, || index).is_ok()
    }

    /// Where the block of `order` around `index` lies, if the run covers it and is aligned as it is
    /// (I-37). `end` is that of the file, and asked for where the run is too short.
    pub(crate) fn block(
        &self,
        index: FileIndex,
        order: Order,
        end: impl FnOnce() -> FileIndex,
    ) -> Result<DaxSpan, Fallback> {
        let head = index.align_down(order);
        let pages = order.pages();
        if head < self.start || head + pages > self.range().end {
            let is_cut = head + pages > end();
            return Err(if is_cut { Fallback::Eof } else { Fallback::ExtentTooShort });
        }
        let block = self.span.slice(head.since(self.start), pages);
        if !block.at().is_aligned(order) {
            return Err(Fallback::Misaligned);
        }
        Ok(block)
    }
}

impl Iomap {
    /// Whether all of the block of `order` around `index` may be of one kind.
    pub(crate) fn may_fill(&self, index: FileIndex, order: Order) -> bool {
        let head = index.align_down(order);
        let end = head + order.pages();
        match self {
            Iomap::Data { is_shared: true, .. } => order == Order::Base,
            Iomap::Data { span, start, .. } => {
                let is_covered = *start <= head && end <= *start + span.pages();
                let is_given = fixed_order(span).is_none_or(|fixed| fixed >= order);
                is_covered && is_given && (span.at() + head.since(*start)).is_aligned(order)
            }
            Iomap::Hole { pages } => index + *pages >= end,
            Iomap::PastEnd => false,
        }
    }
}

impl EntryGuard<'_, '_> {
    /// Brings in the folio of the index out of a run of data around it, in the largest order that
    /// the locked block and the run allow. `reason` says why no larger block was locked.
    ///
    /// # Errors
    ///
    /// [`FaultError::BelowFloor`] if that is smaller than `floor`; nothing was brought in then.
    pub(crate) fn fault_run(
        &mut self,
        run: &Run,
        mut reason: Option<Fallback>,
        floor: Order,
    ) -> Result<(), FaultError> {
        if let Some(fixed) = run.fixed_order() {
            return self.fault_fixed(run, fixed, reason, floor);
        }
        if run.is_shared() {
            return self.fault_shared(run, floor);
        }
        let mut order = self.order();
        if self.block().place().is_some() {
            if order < floor {
                let reason = self.fell_back(run, reason)?.or(Some(Fallback::Conflict));
                return self.check_floor(order, floor, reason);
            }
            self.bring_in(&run.page(self.asked()), Order::Base, false)?;
            self.count(self.fell_back(run, reason)?);
            return Ok(());
        }
        self.check_floor(order, floor, reason)?;
        while let Some(smaller) = order.smaller() {
            match self.fault_block(run, order)? {
                Ok(()) => {
                    self.count(self.fell_back(run, reason)?);
                    return Ok(());
                }
                Err(why) => reason = Some(why),
            }
            order = smaller;
            self.check_floor(order, floor, reason)?;
        }
        self.bring_in(&run.page(self.asked()), Order::Base, false)?;
        self.count(self.fell_back(run, reason)?);
        Ok(())
    }

    /// Brings in a page that other files may have, too. It stops being shared on its own, so it is
    /// not counted with others.
    fn fault_shared(&mut self, run: &Run, floor: Order) -> Result<(), FaultError> {
        self.check_floor(Order::Base, floor, Some(Fallback::Shared))?;
        self.bring_in(&run.page(self.asked()), Order::Base, true)?;
        self.count(Some(Fallback::Shared));
        Ok(())
    }

    /// Why the folio of the entry is smaller than it could be: less than 2 MiB, or less than the data
    /// fills. `reason` says what stood in the way before the data was looked at. What the data itself
    /// does not allow counts before entries that lie in it: they are small for the same reason.
    fn fell_back(
        &self,
        run: &Run,
        reason: Option<Fallback>,
    ) -> Result<Option<Fallback>, FaultError> {
        let owner = self.faults().owner()?;
        Ok(match (self.order(), reason) {
            (Order::Pud, _) => None,
            (Order::Pmd, reason) => reason.filter(|_| run.fills(self.asked(), Order::Pud)),
            (Order::Base, None | Some(Fallback::Conflict)) => {
                let limit = run.block(self.asked(), Order::Pmd, || owner.end()).err();
                limit.or(Some(Fallback::Conflict))
            }
            (Order::Base, reason) => reason,
        })
    }

    /// Brings in the folio of the index out of a device that has folios of one order only. A larger
    /// one is not tried, and a smaller one is never right (I-68).
    fn fault_fixed(
        &mut self,
        run: &Run,
        fixed: Order,
        reason: Option<Fallback>,
        floor: Order,
    ) -> Result<(), FaultError> {
        self.check_floor(fixed, floor, Some(Fallback::DeviceOrder))?;
        let (index, owner) = (self.asked(), self.faults().owner()?);
        let below = |reason| FaultError::BelowFloor { index, floor: fixed, reason };
        let block = run.block(index, fixed, || owner.end()).map_err(below)?;
        self.check_floor(self.order(), fixed, reason)?;
        self.bring_in(&block, fixed, run.is_shared())?;
        self.count((fixed < Order::Pmd).then_some(Fallback::DeviceOrder));
        Ok(())
    }

    /// Tries one order of data that is not shared. On a fallback the block is locked as before.
    fn fault_block(&mut self, run: &Run, order: Order) -> Result<Result<(), Fallback>, FaultError> {
        let owner = self.faults().owner()?;
        let block = match run.block(self.asked(), order, || owner.end()) {
            Ok(block) => block,
            Err(reason) => return Ok(Err(reason)),
        };
        match self.bring_in(&block, order, false) {
            Ok(()) => Ok(Ok(())),
            Err(FaultError::Request(RequestError::Busy(_))) => Ok(Err(Fallback::Busy)),
            Err(FaultError::Request(RequestError::Poisoned(_))) => Ok(Err(Fallback::Media)),
            Err(other) => Err(other),
        }
    }

    fn check_floor(
        &self,
        order: Order,
        floor: Order,
        reason: Option<Fallback>,
    ) -> Result<(), FaultError> {
        if order >= floor {
            return Ok(());
        }
        let reason = reason.unwrap_or(Fallback::Bounds);
        Err(FaultError::BelowFloor { index: self.asked(), floor, reason })
    }

    fn count(&self, reason: Option<Fallback>) {
        let counters = self.faults().mapping().counters();
        counters.fault(self.order());
        if let Some(reason) = reason {
            counters.fallback(reason);
            events::fallback(self.asked(), self.order(), reason);
        }
    }
}

/// The only order of the folios of the page map behind `span`, if there is only one.
fn fixed_order(span: &DaxSpan) -> Option<Order> {
    span.pgmap().pgmap().kind().fixed_order()
}
