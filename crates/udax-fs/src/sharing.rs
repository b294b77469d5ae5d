//! Shared data as the store sees it: counts of references joined with pins.
//!
//! This file owns the questions that a file asks before it changes data in place, and what a
//! transaction does to the counts when it has committed. The numbers are in shares.rs.

use std::ops::Range;

use udax_mm::{DeviceOff, Pages};

use crate::FileExtent;
use crate::alloc::Extent;
use crate::ranges::Ranges;
use crate::store::Store;
use crate::tree::{Run, Tree};

impl Store {
    /// The part of a run around `page`, one of its pages, that is shared throughout or nowhere, and
    /// which of the two.
    ///
    /// What is not shared stays so while the layout of the file is locked, shared or exclusively;
    /// what is may stop being shared at any time.
    pub(crate) fn share_around(&self, page: DeviceOff, run: Extent) -> (bool, Extent) {
        let mut shares = self.shares.lock();
        let (is_shared, part) = shares.around(page.0, &run.range());
        if !is_shared {
            return (false, Extent::of(part));
        }
        shares.let_go(part.clone(), |pages| self.held(pages));
        let (is_shared, part) = shares.around(page.0, &part);
        (is_shared, Extent::of(part))
    }

    /// The first shared part of `extent`.
    pub(crate) fn first_shared(&self, extent: Extent) -> Option<Extent> {
        let mut shares = self.shares.lock();
        let first = shares.shared(extent.range()).next()?;
        shares.let_go(first.start..extent.end().0, |pages| self.held(pages));
        let first = shares.shared(extent.range()).next()?;
        Some(Extent::of(first))
    }

    /// The parts of `run` that no other place of a tree refers to.
    pub(crate) fn own_parts(&self, run: Run) -> Vec<Run> {
        let parts = self.parts(run).into_iter();
        parts.filter(|(is_shared, _)| !is_shared).map(|(_, part)| part).collect()
    }

    /// The extents that a run of `tree` is made of: shared throughout, or nowhere.
    pub(crate) fn extents_in(&self, tree: &Tree, run: Run) -> Vec<FileExtent> {
        let parts = if tree.may_share { self.parts(run) } else { vec![(false, run)] };
        let extent = |(is_shared, part): (bool, Run)| FileExtent {
            index: part.index,
            device: part.device,
            pages: part.pages,
            order: part.order,
            is_shared,
        };
        parts.into_iter().map(extent).collect()
    }

    /// The parts of `run` that are shared throughout (true), or nowhere.
    fn parts(&self, run: Run) -> Vec<(bool, Run)> {
        let mut parts = Vec::new();
        let mut rest = Extent { start: run.device, pages: run.pages };
        while !rest.pages.is_empty() {
            let (is_shared, part) = self.share_around(rest.start, rest);
            let index = run.index + part.start.since(run.device);
            parts.push((is_shared, Run { index, device: part.start, pages: part.pages, ..run }));
            rest = Extent::of(part.end().0..rest.end().0);
        }
        parts
    }

    /// Changes the counts as a transaction that committed says, all at once: one more place refers
    /// to `more`, and one less to each of `less`, of which that is left to which none does.
    pub(crate) fn settle_references<'l>(
        &self,
        more: &[Extent],
        less: impl Iterator<Item = &'l mut Vec<Extent>>,
    ) {
        let mut less = less.peekable();
        if more.is_empty() && less.peek().is_none() {
            return;
        }
        let mut shares = self.shares.lock();
        // First, so that data which moves from place to place is not without one.
        for extent in more {
            shares.add(extent.range());
        }
        for given_up in less {
            let give_up =
                |extent: &Extent| shares.give_up(extent.range(), |pages| self.held(pages));
            *given_up = given_up.iter().flat_map(give_up).map(Extent::of).collect();
        }
    }

    /// Pages to which more than one place of a tree refers.
    pub(crate) fn shared_pages(&self) -> Pages {
        Pages(self.shares.lock().pages())
    }

    /// Marks those of `alone`, which one place of a tree is left to refer to, that a device may read
    /// for a holder that died: it may have had them by another file, as they were (rule 27).
    pub(crate) fn hold_late_reads(&self, alone: &[Extent]) {
        let mut shares = self.shares.lock();
        let late = alone.iter().flat_map(|extent| self.quarantine.read_in(&extent.range()));
        late.for_each(|pages| shares.hold(pages));
    }

    /// The pages of the range that are pinned or frozen, or that a device may read for a holder that
    /// died. A device that is gone has none that matter.
    fn held(&self, pages: Range<u64>) -> Vec<Range<u64>> {
        let mut held: Ranges = self.quarantine.read_in(&pages).into_iter().collect();
        let mut at = pages.start;
        while at < pages.end {
            let Ok(span) = self.span(Extent::of(at..pages.end)) else { break };
            let mut rest = span.range();
            while !rest.is_empty()
                && let Some(page) = span.pgmap().first_held(rest.clone())
            {
                rest.start = page + Pages(1);
                let found = at + page.since(span.at()).0;
                held.insert(found..found + 1);
            }
            at += span.pages().0;
        }
        held.iter().collect()
    }
}
