//! Events: what the kernel tells through the tracepoints of `fs_dax.h`, by the same names.
//!
//! Owns the names and fields of everything that a subscriber of `tracing` sees of this crate: target
//! `udax_mapping`, level TRACE. Without a subscriber each costs one load. What Linux has no
//! tracepoint for is named `dax_` and the noun of the protocol. [`crate::stats`] counts what has to
//! be known without a subscriber.

use crate::fault::FaultError;
use crate::stats::Fallback;
use std::ops::Range;
use tracing::{Level, event};
use udax_mm::{Access, FileIndex, Order, Pages, PinInfo, PinKind, PinTerm};

/// An event whose name tells the order, as the kernel's do.
macro_rules! by_order {
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

/// A block was locked for a touch of a user mapping.
pub(crate) fn fault(index: FileIndex, order: Order, access: Access) {
    by_order!(
        order,
        "dax_pte_fault",
        "dax_pmd_fault",
        "dax_pud_fault",
        index = index.0,
        order = order.get(),
        access = of_access(access)
    );
}

/// The touch was served, by so many pages from the index on, or became SIGBUS. `order` is that of
/// the block which was tried.
pub(crate) fn fault_done(
    index: FileIndex,
    order: Order,
    access: Access,
    served: Result<&Pages, &FaultError>,
) {
    by_order!(
        order,
        "dax_pte_fault_done",
        "dax_pmd_fault_done",
        "dax_pud_fault_done",
        index = index.0,
        order = order.get(),
        access = of_access(access),
        pages = served.map_or(0, |pages| pages.0),
        result = %result_of(served.err(), "mapped")
    );
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

/// A fault or a pin is served by a smaller folio than the one that was tried first.
pub(crate) fn fallback(index: FileIndex, order: Order, reason: Fallback) {
    trace!("dax_fallback", index = index.0, order = order.get(), reason = reason.code());
}

/// A touch met memory that failed.
pub(crate) fn poison(index: FileIndex) {
    trace!("dax_poison", index = index.0);
}

/// Writeback begins.
pub(crate) fn writeback_range(range: &Range<FileIndex>) {
    trace!("dax_writeback_range", start = range.start.0, end = range.end.0);
}

/// One entry was flushed, and is clean or still stored to.
pub(crate) fn writeback_one(range: &Range<FileIndex>, is_clean: bool) {
    let pages = range.end.0 - range.start.0;
    trace!("dax_writeback_one", index = range.start.0, pages, is_clean);
}

/// Writeback ended.
pub(crate) fn writeback_range_done(range: &Range<FileIndex>, failed: Option<&udax_dev::IoError>) {
    trace!(
        "dax_writeback_range_done",
        start = range.start.0,
        end = range.end.0,
        result = %result_of(failed, "durable")
    );
}

/// Translations of a range were taken back, and its pages are about to be claimed.
pub(crate) fn break_layout(range: &Range<FileIndex>) {
    trace!("dax_break_layout", start = range.start.0, end = range.end.0);
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

/// What failed, or a word. Called only for a subscriber.
fn result_of<E: std::error::Error>(failed: Option<&E>, otherwise: &str) -> String {
    failed.map_or_else(|| otherwise.to_owned(), ToString::to_string)
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
