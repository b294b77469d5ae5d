//! Spans and events: what the kernel tells through the tracepoints of `fs_dax.h`, by the same names.
//!
//! Owns the names and fields of everything that a subscriber of `tracing` sees of this crate: target
//! `udax_mapping`, level TRACE. Without a subscriber each costs one load. What takes time (a fault,
//! a writeback, a break) is a span, with what came of it in `result`; what happens in it is an event.
//! The kernel has a tracepoint and its `_done` for that. What Linux has no tracepoint for is named
//! `dax_` and the noun of the protocol. [`crate::stats`] counts what has to
//! be known without a subscriber.

use crate::stats::Fallback;
use std::ops::Range;
use tracing::field::Empty;
use tracing::{Level, Span, event, span};
use udax_mm::{Access, FileIndex, Order, Pages, PinInfo, PinKind, PinTerm};

/// A span or an event whose name tells the order, as the kernel's do.
macro_rules! by_order {
    (span, $order:expr, $pte:literal, $pmd:literal, $pud:literal, $($field:tt)*) => {
        match $order {
            Order::Base => span!(target: "udax_mapping", Level::TRACE, $pte, $($field)*),
            Order::Pmd => span!(target: "udax_mapping", Level::TRACE, $pmd, $($field)*),
            Order::Pud => span!(target: "udax_mapping", Level::TRACE, $pud, $($field)*),
        }
    };
    ($order:expr, $pte:literal, $pmd:literal, $pud:literal, $($field:tt)*) => {
        match $order {
            Order::Base => event!(name: $pte, target: "udax_mapping", Level::TRACE, $($field)*),
            Order::Pmd => event!(name: $pmd, target: "udax_mapping", Level::TRACE, $($field)*),
            Order::Pud => event!(name: $pud, target: "udax_mapping", Level::TRACE, $($field)*),
        }
    };
}

macro_rules! trace {
    ($name:literal, $($field:tt)*) => {
        event!(name: $name, target: "udax_mapping", Level::TRACE, $($field)*)
    };
}

macro_rules! spanned {
    ($name:literal, $($field:tt)*) => {
        Spanned(span!(target: "udax_mapping", Level::TRACE, $name, $($field)*))
    };
}

/// What takes time, and ends with a result.
pub(crate) struct Spanned(Span);

impl Spanned {
    /// Does the work, and tells `done` or why it failed.
    pub(crate) fn run<T, E: std::error::Error>(
        &self,
        done: &str,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let result = self.0.in_scope(work);
        if !self.0.is_disabled() {
            self.0.record("result", result_of(result.as_ref().err(), done));
        }
        result
    }

    /// Tells for how many pages.
    pub(crate) fn pages(&self, pages: Pages) {
        self.0.record("pages", pages.0);
    }
}

/// A touch of a user mapping, from the lock of its block on. `order` is that of the block.
pub(crate) fn fault(index: FileIndex, order: Order, access: Access) -> Spanned {
    Spanned(by_order!(
        span,
        order,
        "dax_pte_fault",
        "dax_pmd_fault",
        "dax_pud_fault",
        index = index.0,
        order = order.get(),
        access = of_access(access),
        pages = Empty,
        result = Empty
    ))
}

/// Folios of one order are shown.
pub(crate) fn insert_mapping(range: Range<FileIndex>, order: Order, access: Access) {
    by_order!(
        order,
        "dax_insert_mapping",
        "dax_pmd_insert_mapping",
        "dax_pud_insert_mapping",
        index = range.start.0,
        order = order.get(),
        access = of_access(access),
        pages = range.end.0 - range.start.0
    );
}

/// A folio that is shown already may be stored to, or a page of zeros became a program's own.
pub(crate) fn make_writable(index: FileIndex, order: Order) {
    trace!("dax_insert_pfn_mkwrite", index = index.0, order = order.get());
}

/// A hole is shown as zeros.
pub(crate) fn load_hole(index: FileIndex, order: Order, pages: Pages) {
    by_order!(
        order,
        "dax_load_hole",
        "dax_pmd_load_hole",
        "dax_pud_load_hole",
        index = index.0,
        order = order.get(),
        pages = pages.0
    );
}

/// A fault or a pin is served by a smaller folio, of `order`, than there could be.
pub(crate) fn fallback(index: FileIndex, order: Order, reason: Fallback) {
    trace!("dax_fallback", index = index.0, order = order.get(), reason = reason.code());
}

/// A touch met memory that failed.
pub(crate) fn poison(index: FileIndex) {
    trace!("dax_poison", index = index.0);
}

/// Writeback of a range.
pub(crate) fn writeback_range(range: &Range<FileIndex>) -> Spanned {
    spanned!("dax_writeback_range", start = range.start.0, end = range.end.0, result = Empty)
}

/// One entry was flushed, and is clean or still stored to.
pub(crate) fn writeback_one(range: &Range<FileIndex>, is_clean: bool) {
    let pages = range.end.0 - range.start.0;
    trace!("dax_writeback_one", index = range.start.0, pages, is_clean);
}

/// A range is taken away from its file: translations are taken back and pages claimed, and pins are
/// waited for in between.
pub(crate) fn break_layout(range: &Range<FileIndex>) -> Spanned {
    spanned!("dax_break_layout", start = range.start.0, end = range.end.0, result = Empty)
}

/// A break found a page in its way, and waits for it or gives up.
pub(crate) fn break_layout_blocked(index: FileIndex, is_pinned: bool) {
    trace!("dax_break_layout_blocked", index = index.0, is_pinned);
}

/// A range was pinned.
pub(crate) fn pin(range: &Range<FileIndex>, info: &PinInfo) {
    trace!(
        "dax_pin",
        start = range.start.0,
        end = range.end.0,
        owner = &*info.owner.label,
        kind = of_kind(info.kind),
        term = of_term(info.term)
    );
}

/// A pin is dropped.
pub(crate) fn unpin(range: &Range<FileIndex>, info: &PinInfo) {
    trace!("dax_unpin", start = range.start.0, end = range.end.0, owner = &*info.owner.label);
}

/// A holder is told that somebody wants these pages.
pub(crate) fn recall(range: &Range<FileIndex>, why: udax_mm::RecallReason) {
    let why = match why {
        udax_mm::RecallReason::Wait => "wait",
        udax_mm::RecallReason::Deferred => "deferred",
    };
    trace!("dax_recall", start = range.start.0, end = range.end.0, why);
}

/// What failed, and why, or a word. Called only for a subscriber.
fn result_of<E: std::error::Error>(failed: Option<&E>, otherwise: &str) -> String {
    let Some(failed) = failed else { return otherwise.to_owned() };
    let causes = std::iter::successors(failed.source(), |cause| (*cause).source());
    causes.fold(failed.to_string(), |told, cause| format!("{told}: {cause}"))
}

fn of_access(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
    }
}

fn of_kind(kind: PinKind) -> &'static str {
    match kind {
        PinKind::Read => "read",
        PinKind::Write => "write",
    }
}

fn of_term(term: PinTerm) -> &'static str {
    match term {
        PinTerm::Short => "short",
        PinTerm::Long => "long",
    }
}
