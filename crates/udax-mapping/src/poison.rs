//! Memory of a file that failed: who maps it loses it, and what is good around it goes on.
//!
//! Owns the way from failed pages to the entries and translations that show them, and back once
//! they have new bytes. Which pages failed is known to the page map alone: it marks them before
//! anybody is told, so what faults meanwhile either sees the mark or is found here (I-64). Finding
//! the files that have a page is up to their filesystem.

use crate::entry::EntryGuard;
use crate::fault::{FaultError, FaultGuard};
use crate::iomap::Iomap;
use crate::mapping::Mapping;
use crate::run::Run;
use std::ops::Range;
use udax_dev::DaxSpan;
use udax_mm::{Access, FileIndex, Order, Pages, Pgmap, PgmapOff, RequestError};

impl<'m> FaultGuard<'m> {
    /// Locks the entry of `index` if it shows page `page` of `pgmap`: the lock by folio, for who
    /// knows the page and was told where the file has it (`dax_lock_folio`).
    ///
    /// `None` if the file has something else there meanwhile, or no entry. An empty one is never
    /// made.
    ///
    /// # Blocking
    ///
    /// Waits for whoever has locked the entry, and looks again after that (I-26, B-17).
    ///
    /// # Examples
    ///
    /// ```
    /// # mod owner { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/owner.inc")); }
    /// # use owner::WholeDevice;
    /// # use udax_mapping::MapMode;
    /// # use udax_mm::{FileIndex, Pages, PgmapOff};
    /// let file = WholeDevice::new(Pages(8))?;
    /// let pgmap = file.device.pgmaps().remove(0);
    /// let mapped = file.mapping.map(FileIndex(0), Pages(8), MapMode::default())?;
    /// mapped.vma().load_u64(0x3000)?;
    ///
    /// let faults = file.mapping.faults();
    /// assert!(faults.lock_folio(FileIndex(3), &pgmap, PgmapOff(3)).is_some());
    /// assert!(faults.lock_folio(FileIndex(3), &pgmap, PgmapOff(4)).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_folio<'g>(
        &'g self,
        index: FileIndex,
        pgmap: &Pgmap,
        page: PgmapOff,
    ) -> Option<EntryGuard<'g, 'm>> {
        let block = self.mapping().index().lock_existing(index)?;
        let entry = EntryGuard::new(self, index, block);
        let is_there = entry.block().place().is_some_and(|place| place.pgmap == *pgmap);
        (is_there && entry.page() == Some(page)).then_some(entry)
    }

    /// Takes the pages of `failed`, which the file has from `start` on, from everybody who maps
    /// them: the next touch is SIGBUS that says so. They are marked in their page map already.
    ///
    /// Of a folio that is larger, everything is taken back once, and its good pages come in again
    /// one by one; what was stored to them is kept. So are the copies of private mappings. A device
    /// that has folios of one order only loses all of the folio until its page has new bytes (I-68).
    /// Who pins a page keeps it.
    ///
    /// # Blocking
    ///
    /// Waits for entries that are locked.
    pub fn poison(&self, start: FileIndex, failed: &DaxSpan) {
        let pgmap = failed.pgmap().pgmap();
        for page in 0..failed.pages().0 {
            let (index, page) = (start + Pages(page), failed.at() + Pages(page));
            if let Some(mut entry) = self.lock_folio(index, pgmap, page) {
                let _undivided = entry.expel_failed();
            }
        }
    }

    /// Whether a fault at `index` that met failed memory met that of another page of its block. It
    /// is then served in a smaller order.
    pub(crate) fn is_good(&self, index: FileIndex, why: &FaultError) -> bool {
        let FaultError::Request(RequestError::Poisoned(_)) = why else { return false };
        let found = self.owner().map(|owner| owner.iomap(index, Access::Read));
        let Ok(Ok(Iomap::Data { span, start, is_shared, .. })) = found else { return false };
        let run = Run::new(span, start, is_shared);
        // There is no smaller order to serve it in where the device has only one.
        run.fixed_order().is_none_or(|fixed| fixed == Order::Base)
            && check_good(&run.page(index), Pages(1)).is_ok()
    }

    /// How many pages from `index` on are lost with a page that could not be faulted in because of
    /// `why`: the rest of the folio, if the device has no smaller one.
    pub(crate) fn lost_with(&self, index: FileIndex, why: &FaultError) -> Pages {
        let FaultError::Request(RequestError::Poisoned(_)) = why else { return Pages(1) };
        let found = self.owner().map(|owner| owner.iomap(index, Access::Read));
        let Ok(Ok(Iomap::Data { span, start, is_shared, .. })) = found else { return Pages(1) };
        let order = Run::new(span, start, is_shared).fixed_order().unwrap_or(Order::Base);
        (index.align_down(order) + order.pages()).since(index)
    }
}

impl Mapping {
    /// As [`FaultGuard::poison`], for who does not hold the layout lock.
    pub fn poison(&self, start: FileIndex, failed: &DaxSpan) {
        self.faults().poison(start, failed);
    }

    /// Lets the next touch of `range` find what is there, where mappings show that memory failed:
    /// the pages were given new bytes, and their marks are gone.
    ///
    /// # Blocking
    ///
    /// Takes the layout lock exclusively, for a moment: a fault that saw the mark has shown its
    /// SIGBUS by then. Not to be called with a [`FaultGuard`] or a
    /// [`LayoutBroken`](crate::LayoutBroken) of this file.
    pub fn heal(&self, range: Range<FileIndex>) {
        let layout = self.layout().write();
        for user in self.users() {
            user.table().zap_failed(&user.part(&range));
        }
        drop(layout);
        self.faults().refill(&range);
    }
}

impl EntryGuard<'_, '_> {
    /// Takes back what the entry shows if memory of its folio failed, and leaves the entry of the
    /// page that was asked for: empty if that page is lost, or if nothing was stored to the folio.
    ///
    /// A folio that cannot be divided, because its device has folios of one order only, keeps its
    /// entry, which shows nothing, and the page of it that failed is returned.
    pub(crate) fn expel_failed(&mut self) -> Option<PgmapOff> {
        let range = self.range();
        let first_failed = self.first_failed(&range)?;
        let place = self.block().place()?;
        if place.pgmap.kind().fixed_order().is_some_and(|fixed| fixed > Order::Base) {
            let page = place.first + first_failed.since(range.start);
            self.faults().outdate(&range);
            return Some(page);
        }
        let (mut at, mut failed) = (range.start, Vec::new());
        while let Some(index) = self.first_failed(&(at..range.end)) {
            failed.push(index);
            at = index + Pages(1);
        }
        self.faults().outdate(&range);
        self.divide(&failed);
        None
    }

    /// Whether memory of the folio failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.first_failed(&self.range()).is_some()
    }

    /// The first page of `range`, which lies in the block, of which the folio's memory failed.
    fn first_failed(&self, range: &Range<FileIndex>) -> Option<FileIndex> {
        let place = self.block().place()?;
        let head = self.range().start;
        let first = place.first + range.start.since(head);
        // A page map that dies has nobody to tell any more.
        let live = place.pgmap.try_get_live()?;
        let page = live.first_poisoned(first.span(range.end.since(range.start)))?;
        Some(head + page.since(place.first))
    }

    /// Why the host refused to map what these entries have: memory of one failed meanwhile, or
    /// `error`.
    pub(crate) fn refusal_of(locked: &[Self], error: std::io::Error) -> FaultError {
        let failed = locked.iter().find(|entry| entry.has_failed());
        match failed.and_then(|entry| entry.block().place()) {
            Some(place) => RequestError::Poisoned(place.first).into(),
            None => error.into(),
        }
    }
}

/// Refuses pages whose memory failed (I-65), whoever counts them.
pub(crate) fn check_good(span: &DaxSpan, pages: Pages) -> Result<(), FaultError> {
    match span.pgmap().first_poisoned(span.at().span(pages)) {
        Some(page) => Err(RequestError::Poisoned(page).into()),
        None => Ok(()),
    }
}

/// The pages of a span that failed and that nobody holds, and what is between them, as
/// `(between, failed)`. A failed page that is held is between: it is waited for, or goes to limbo.
pub(crate) fn around_failed(span: &DaxSpan) -> (Vec<Range<PgmapOff>>, Vec<Range<PgmapOff>>) {
    let (pgmap, end) = (span.pgmap(), span.range().end);
    let (mut between, mut failed) = (Vec::new(), Vec::new());
    let (mut from, mut at) = (span.at(), span.at());
    while let Some(page) = pgmap.first_poisoned(at..end) {
        at = page + Pages(1);
        if let Err(RequestError::Poisoned(_)) = pgmap.claim(page..at) {
            between.push(from..page);
            failed.push(page..at);
            from = at;
        }
    }
    between.push(from..end);
    between.retain(|part| part.start < part.end);
    (between, failed)
}
