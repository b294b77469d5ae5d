//! The walk that checks a mapping against its invariants, for tests and tools.

use crate::index::{Block, Entry};
use crate::iomap::{Iomap, IomapOps};
use crate::mapping::Mapping;
use crate::table::{Leaf, Sharing, Shown, Target};
use crate::user::User;
use std::ops::Range;
use udax_dev::DaxSpan;
use udax_mm::{Access, FileIndex, Order, Pages, PgmapOff, PinKind};

type Spans = Vec<(FileIndex, DaxSpan)>;

impl Mapping {
    /// Checks entries, translations, pins and page words against one another and against what the
    /// owner says. Meant for tests, after every step.
    ///
    /// # Blocking
    ///
    /// Takes the layout lock exclusively.
    ///
    /// # Errors
    ///
    /// What contradicts what, beginning with the number of the invariant.
    pub fn verify(&self) -> Result<(), String> {
        let owner = self.owner();
        let layout = self.layout().write();
        let blocks = self.index().blocks();
        check_shape(&blocks)?;
        if layout.is_removed {
            let mapped = self.users().iter().any(|user| shows_folio(user));
            return ensure(blocks.is_empty() && !mapped, || "I-59: mapped after removal".into());
        }
        let Some(owner) = owner else { return Ok(()) };
        let spans = all_spans(&*owner)?;
        let permits_stores = owner.permits_stores();
        for block in &blocks {
            check_block(block, &spans, permits_stores)?;
            check_shared(block, &*owner)?;
        }
        let pages: u64 = blocks.iter().map(|block| block.order.pages().0).sum();
        ensure(pages == self.entry_pages().0, || "I-29: pages of entries miscounted".into())?;
        for user in self.users() {
            let mut checked = Ok(());
            user.table().for_each(|leaf| {
                if checked.is_ok() {
                    checked = check_leaf(&user, leaf, &blocks, &spans);
                }
            });
            checked?;
        }
        self.check_pins(&spans, &blocks)
    }

    fn check_pins(&self, spans: &Spans, blocks: &[Block]) -> Result<(), String> {
        let is_dirty = |index: FileIndex| {
            let after = blocks.partition_point(|block| block.head <= index);
            let block = after.checked_sub(1).map(|at| &blocks[at]);
            block.is_some_and(|block| {
                block.range().contains(&index) && block.place().is_some_and(|place| place.is_dirty)
            })
        };
        for pin in self.pin_list().holding() {
            for index in (pin.range.start.0..pin.range.end.0).map(FileIndex) {
                let Some((span, page)) = locate(spans, index) else {
                    return Err(format!("I-50: page {index} is pinned and has no block"));
                };
                let is_pinned = span.pgmap().first_pinned(page.span(Pages(1))).is_some();
                ensure(is_pinned, || format!("I-58: page {index} is listed but not pinned"))?;
                let has_failed = span.pgmap().first_poisoned(page.span(Pages(1))).is_some();
                let is_known = pin.info.kind == PinKind::Read || has_failed || is_dirty(index);
                ensure(is_known, || format!("I-41: a device stores to clean page {index}"))?;
            }
        }
        Ok(())
    }
}

fn all_spans(owner: &dyn IomapOps) -> Result<Spans, String> {
    owner.spans(FileIndex(0)..FileIndex(u64::MAX)).map_err(|error| error.to_string())
}

/// No block is locked, misaligned, empty or inside another.
fn check_shape(blocks: &[Block]) -> Result<(), String> {
    for block in blocks {
        let at = block.head;
        ensure(block.entry.is_some(), || format!("I-28: the entry of page {at} is locked"))?;
        ensure(at.is_aligned(block.order), || {
            format!("I-22: the entry of page {at} is misaligned")
        })?;
    }
    for pair in blocks.windows(2) {
        let at = pair[1].head;
        ensure(pair[0].range().end <= at, || format!("I-22: page {at} has two entries"))?;
    }
    Ok(())
}

/// Every page of a folio lies where the owner says, and a hole is one.
fn check_block(block: &Block, spans: &Spans, permits_stores: bool) -> Result<(), String> {
    let Some(place) = block.place() else {
        let at = block.head;
        return ensure(!has_data(spans, &block.range()), || {
            format!("I-33: the entry of page {at} is a hole where there is data")
        });
    };
    // What is shared is not listed by the owner: its pages are not this file's to take.
    // Nor is what a file without stores has come to share since the fault.
    if place.is_shared || !permits_stores {
        return Ok(());
    }
    for index in [block.head, FileIndex(block.range().end.0 - 1)] {
        let expected = place.first + index.since(block.head);
        let is_there = locate(spans, index)
            .is_some_and(|(span, page)| page == expected && *span.pgmap().pgmap() == place.pgmap);
        ensure(is_there, || format!("I-20: the entry of page {index} is not where its data is"))?;
    }
    Ok(())
}

/// What a file shows of data that it shares is what it has there, first page and last.
fn check_shared(block: &Block, owner: &dyn IomapOps) -> Result<(), String> {
    let Some(place) = block.place().filter(|place| place.is_shared) else { return Ok(()) };
    for index in [block.head, FileIndex(block.range().end.0 - 1)] {
        // The owner refuses what has failed.
        let Ok(found) = owner.iomap(index, Access::Read) else { continue };
        let expected = place.first + index.since(block.head);
        let is_there = matches!(found, Iomap::Data { span, start, .. }
            if span.at() + index.since(start) == expected && *span.pgmap().pgmap() == place.pgmap);
        ensure(is_there, || format!("I-20: page {index} shows shared data that the file has not"))?;
    }
    Ok(())
}

fn check_leaf(user: &User, leaf: &Leaf, blocks: &[Block], spans: &Spans) -> Result<(), String> {
    let index = user.index(leaf.at);
    let range = index.span(leaf.pages);
    match &leaf.target {
        Target::Folios(shown) => check_shown(&range, shown, blocks),
        Target::Hole => {
            ensure(!has_data(spans, &range), || {
                format!("I-44: pages from {index} on show a hole where there is data")
            })?;
            let is_zero = |block: &Block| matches!(block.entry, Some(Entry::Zero));
            let covered = covering(blocks, &range).filter(|block| is_zero(block));
            let pages: u64 = covered.map(|block| overlap(&block.range(), &range)).sum();
            ensure(pages == leaf.pages.0, || format!("I-33: no entry for the hole at {index}"))
        }
        Target::PastEnd => ensure(!has_data(spans, &range), || {
            format!("I-32: pages from {index} on show the end where there is data")
        }),
        Target::Snapshot => ensure(user.stores_to_file(), || {
            format!("I-36: page {index} is a copy for a mapping that does not store")
        }),
        Target::Own => ensure(user.sharing() == Sharing::Private, || {
            format!("I-39: page {index} is private in a shared mapping")
        }),
        Target::Poisoned => ensure(has_failed(spans, &range), || {
            format!("I-65: page {index} shows failed memory and has good memory")
        }),
        Target::Failed => Ok(()),
    }
}

/// Each page is the one of its entry, counted, and marked if it can be stored to.
fn check_shown(range: &Range<FileIndex>, shown: &Shown, blocks: &[Block]) -> Result<(), String> {
    let mut checked = 0;
    let can_store = (shown.access, shown.sharing) == (Access::Write, Sharing::Shared);
    for block in covering(blocks, range) {
        let index = block.head.max(range.start);
        checked += overlap(&block.range(), range);
        let Some(place) = block.place() else {
            return Err(format!("I-33: page {index} is mapped and its entry is a hole"));
        };
        let page = shown.first + index.since(range.start);
        let is_same = place.first + index.since(block.head) == page
            && place.pgmap == *shown.folios.pgmap().pgmap();
        ensure(is_same, || format!("I-33: page {index} shows another page than its entry"))?;
        ensure(place.is_dirty || !can_store, || {
            format!("I-34: page {index} is writable and clean")
        })?;
        ensure(!place.is_shared || !can_store, || {
            format!("I-36: page {index} is writable and shared")
        })?;
        let counted = shown.folios.pgmap().get_folio(page).map(|folio| folio.order());
        ensure(counted == Some(shown.order()), || {
            format!("I-12: page {index} is mapped and not counted in its order")
        })?;
    }
    let all = shown.first.span(range.end.since(range.start));
    ensure(shown.folios.pgmap().first_poisoned(all).is_none(), || {
        format!("I-64: of the pages from {} on, one is mapped and failed", range.start)
    })?;
    let pages = range.end.since(range.start).0;
    ensure(checked == pages, || {
        format!("I-33: pages from {} are mapped without entry", range.start)
    })
}

/// Whether memory of these pages, or of the one folio that a device has around each, failed, as far
/// as the owner lists them: not where they are shared.
fn has_failed(spans: &Spans, range: &Range<FileIndex>) -> bool {
    let mut pages = (range.start.0..range.end.0).map(FileIndex);
    pages.all(|index| {
        locate(spans, index).is_none_or(|(span, page)| {
            let order = span.pgmap().pgmap().kind().fixed_order().unwrap_or(Order::Base);
            let folio = page.align_down(order).span(order.pages());
            span.pgmap().first_poisoned(folio).is_some()
        })
    })
}

/// The blocks that overlap `range`.
fn covering<'b>(
    blocks: &'b [Block],
    range: &'b Range<FileIndex>,
) -> impl Iterator<Item = &'b Block> {
    let first = blocks.partition_point(|block| block.range().end <= range.start);
    blocks[first..].iter().take_while(|block| block.head < range.end)
}

fn overlap(one: &Range<FileIndex>, other: &Range<FileIndex>) -> u64 {
    let end = one.end.min(other.end).0;
    end.saturating_sub(one.start.max(other.start).0)
}

fn shows_folio(user: &User) -> bool {
    let mut shows = false;
    user.table().for_each(|leaf| shows |= leaf.shown().is_some());
    shows
}

fn locate(spans: &Spans, index: FileIndex) -> Option<(&DaxSpan, PgmapOff)> {
    let after = spans.partition_point(|(start, _)| *start <= index);
    let (start, span) = &spans[after.checked_sub(1)?];
    let within = index.since(*start);
    (within < span.pages()).then(|| (span, span.at() + within))
}

fn has_data(spans: &Spans, range: &Range<FileIndex>) -> bool {
    let overlaps = |(start, span): &(FileIndex, DaxSpan)| {
        *start < range.end && range.start < *start + span.pages()
    };
    spans.iter().any(overlaps)
}

fn ensure(is_true: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if is_true { Ok(()) } else { Err(otherwise()) }
}
