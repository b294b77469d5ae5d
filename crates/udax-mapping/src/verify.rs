//! The walk that checks a mapping against its invariants, for tests and tools.

use crate::index::{Block, Entry};
use crate::iomap::IomapOps;
use crate::mapping::Mapping;
use crate::table::{Leaf, Target};
use crate::user::User;
use std::ops::Range;
use udax_dev::DaxSpan;
use udax_mm::{Access, FileIndex, Pages, PgmapOff};

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
        for block in &blocks {
            check_block(block, &spans)?;
        }
        for user in self.users() {
            for leaf in user.table().leaves() {
                check_leaf(&user, &leaf, &blocks, &spans)?;
            }
        }
        self.check_pins(&spans)
    }

    fn check_pins(&self, spans: &Spans) -> Result<(), String> {
        for pin in self.pins() {
            for index in crate::index::indices(&pin.range) {
                let Some((span, page)) = locate(spans, index) else {
                    return Err(format!("I-50: page {index} is pinned and has no block"));
                };
                let is_pinned = span.pgmap().first_pinned(page.span(Pages(1))).is_some();
                ensure(is_pinned, || format!("I-58: page {index} is listed but not pinned"))?;
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

/// Every page of the entry lies where the owner says.
fn check_block(block: &Block, spans: &Spans) -> Result<(), String> {
    let entry = real(block);
    for index in [block.head, FileIndex(block.range().end.0 - 1)] {
        let expected = entry.first + index.since(block.head);
        let is_there = locate(spans, index)
            .is_some_and(|(span, page)| page == expected && *span.pgmap().pgmap() == entry.pgmap);
        ensure(is_there, || format!("I-20: the entry of page {index} is not where its data is"))?;
    }
    Ok(())
}

fn check_leaf(user: &User, leaf: &Leaf, blocks: &[Block], spans: &Spans) -> Result<(), String> {
    let index = user.index(leaf.at);
    let range = index.span(leaf.pages);
    match &leaf.target {
        Target::Folio { folio, first, access } => {
            let block = blocks.iter().find(|block| block.range().contains(&index));
            let Some(block) = block else {
                return Err(format!("I-33: page {index} is mapped and has no entry"));
            };
            let entry = real(block);
            let is_same = entry.first + index.since(block.head) == *first;
            ensure(is_same, || format!("I-33: page {index} shows another page than its entry"))?;
            let is_marked = entry.is_dirty || *access == Access::Read;
            ensure(is_marked, || format!("I-34: page {index} is writable and clean"))?;
            let counted = folio.pgmap().get_folio(*first).map(|folio| folio.head());
            ensure(counted == Some(folio.head()), || {
                format!("I-12: page {index} is mapped and not counted")
            })
        }
        Target::Hole => ensure(!has_data(spans, &range), || {
            format!("I-44: pages from {index} on show a hole where there is data")
        }),
        Target::PastEnd => ensure(!has_data(spans, &range), || {
            format!("I-32: pages from {index} on show the end where there is data")
        }),
        Target::Failed => Ok(()),
    }
}

fn shows_folio(user: &User) -> bool {
    let is_folio = |leaf: &Leaf| matches!(leaf.target, Target::Folio { .. });
    user.table().leaves().iter().any(is_folio)
}

fn real(block: &Block) -> &Entry {
    block.entry.as_ref().expect("the shape was checked")
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
