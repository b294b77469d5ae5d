//! What can be wrong with a table: where, what, and what would be right.

use super::SECTORS;
use crate::{Delay, HolderError};
use std::error::Error;
use std::ops::Range;
use std::time::Duration;
use udax_mm::{DeviceOff, Order, Pages};

/// Why a table was refused. No device is claimed then.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the table: {problem}")]
pub struct TableError {
    /// The line, counted from 1; comments do not count.
    pub line: usize,
    /// The word of the line that is wrong.
    pub field: Field,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// A word of a line of a table: `START LENGTH TARGET ARGUMENT...`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Field {
    /// Where the line starts.
    Start,
    /// How long it is.
    Length,
    /// What it does.
    Target,
    /// With what, counted from 1.
    Argument(usize),
}

/// What is wrong with a line of a table. The message says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The table has no line.
    #[error("a table needs at least one line: `START LENGTH TARGET ARGUMENT...`")]
    Empty,

    /// The text is not UTF-8.
    #[error("byte {byte:#04x} is no text; a table is a text file")]
    NotText {
        /// The first byte that is not.
        byte: u8,
    },

    /// A word is missing.
    #[error("the {what} is missing; the line would be `START LENGTH {form}`")]
    Missing {
        /// What should be there.
        what: &'static str,
        /// What the line should be.
        form: &'static str,
    },

    /// There is a word too many.
    #[error("{word:?} is one word too many; the line would be `START LENGTH {form}`")]
    TooMany {
        /// The first that is.
        word: String,
        /// What the line should be.
        form: &'static str,
    },

    /// No such target.
    #[error(
        "there is no target {found:?}; there are linear, striped, error, zero, delay and log-writes"
    )]
    UnknownTarget {
        /// The word.
        found: String,
    },

    /// A word is no number.
    #[error("{found:?} is no {what}; it would be a number of sectors such as 2048, or 1MiB")]
    NotASize {
        /// What it should be.
        what: &'static str,
        /// The word.
        found: String,
    },

    /// A word is no count.
    #[error("{found:?} is no {what}; it would be a number from 0 on")]
    NotANumber {
        /// What it should be.
        what: &'static str,
        /// The word.
        found: String,
    },

    /// A delay is too long.
    #[error("a delay of {} ms would look like a hang; {} is the most", .delay.as_millis(), Delay::MOST.as_millis())]
    TooLate {
        /// How long it is.
        delay: Duration,
    },

    /// A size is no whole number of pages.
    #[error("{what} of {bytes} bytes is no multiple of 4 KiB (8 sectors); {} would be", either(*.bytes))]
    Unaligned {
        /// What it is.
        what: &'static str,
        /// Its bytes.
        bytes: u64,
    },

    /// No device is so large.
    #[error("{what} reaches beyond 2^63 bytes, and no device is that large")]
    TooLarge {
        /// What it is.
        what: &'static str,
    },

    /// The line takes no page.
    #[error("the line has length 0; leave it out, or give it 8 sectors (4 KiB) at least")]
    ZeroLength,

    /// Pages before the line are in no line.
    #[error("sectors {} are in no line; start this one at {}", sectors(.missing), in_sectors(to(.missing.start)))]
    Gap {
        /// The pages that are missing.
        missing: Range<DeviceOff>,
    },

    /// The line starts before the one before it ends.
    #[error("sectors {} are in the line before already; start this one at {}", sectors(.shared), in_sectors(to(.shared.end)))]
    Overlap {
        /// The pages that both have.
        shared: Range<DeviceOff>,
    },

    /// The line takes pages that its device does not have.
    #[error(
        "the line takes sectors {} of a device that has {}; {}", sectors(.pages), in_sectors(*.size), cure(.pages, *.size)
    )]
    OutOfRange {
        /// The pages of the device.
        pages: Range<DeviceOff>,
        /// The size of the device.
        size: Pages,
    },

    /// Another line takes the same page of one device, which would have two addresses then.
    #[error("line {first} takes sectors {} of this device already; take others", sectors(.pages))]
    Aliased {
        /// The other line.
        first: usize,
        /// The pages of the device that both take.
        pages: Range<DeviceOff>,
    },

    /// A folio of a device that gives out no smaller ones would lie in two pieces.
    #[error(
        "{} sectors are no multiple of {}, the folio of the device, which has none smaller; {} would be",
        in_sectors(*.pages), in_sectors(.order.pages()), around(*.pages, .order.pages())
    )]
    Divides {
        /// The pages of the word.
        pages: Pages,
        /// The size of the folios.
        order: Order,
    },

    /// The device stands on the one that is to follow the table.
    #[error("the device stands on the one that would follow this table; a stack has an end")]
    Loop,

    /// The device cannot be claimed.
    #[error("the device cannot be used: {0}")]
    Claim(HolderError),

    /// The device cannot be opened.
    #[error("{name}: {source}")]
    Open {
        /// Its name.
        name: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },

    /// A striped line has too many devices, or none.
    #[error("a striped line has 1 to 16 devices, and this one has {count}")]
    StripeCount {
        /// How many it has.
        count: usize,
    },

    /// A chunk has no page.
    #[error("a chunk has 8 sectors (4 KiB) at least; with 2 MiB huge folios fit")]
    EmptyChunk,

    /// A striped line ends within a row of chunks.
    #[error(
        "a length of {} sectors is no multiple of {} ({count} chunks of {} sectors); {} would be",
        in_sectors(*.pages), in_sectors(*.row), in_sectors(*.chunk), rows(*.pages, *.row)
    )]
    PartialRow {
        /// The length of the line.
        pages: Pages,
        /// One chunk of every device.
        row: Pages,
        /// One chunk.
        chunk: Pages,
        /// How many devices there are.
        count: usize,
    },
}

/// Pages as they are written in a table; what is more than a number can be is the largest there is.
pub(super) fn in_sectors(pages: Pages) -> u64 {
    pages.0.saturating_mul(SECTORS)
}

/// The pages before a page.
pub(super) fn to(page: DeviceOff) -> Pages {
    Pages(page.0)
}

fn sectors(pages: &Range<DeviceOff>) -> String {
    format!("{}..{}", in_sectors(to(pages.start)), in_sectors(to(pages.end)))
}

/// The multiples of a page around `bytes`, in sectors.
fn either(bytes: u64) -> String {
    format!("{} sectors", around(Pages(bytes / Pages(1).bytes()), Pages(1)))
}

/// The multiples of `unit` around `pages`, in sectors.
fn around(pages: Pages, unit: Pages) -> String {
    let above = |below: u64| in_sectors(Pages(below.saturating_add(unit.0)));
    match pages.0 - pages.0 % unit.0.max(1) {
        0 => format!("{}", above(0)),
        below => format!("{} or {}", in_sectors(Pages(below)), above(below)),
    }
}

fn rows(pages: Pages, row: Pages) -> String {
    let below = pages.0 - pages.0 % row.0.max(1);
    format!("{}", in_sectors(if below == 0 { row } else { Pages(below) }))
}

fn cure(pages: &Range<DeviceOff>, size: Pages) -> String {
    match in_sectors(Pages(size.0.saturating_sub(pages.start.0))) {
        0 => "it ends before that, so take it from an earlier sector on".to_owned(),
        left => format!("from there on it has {left}"),
    }
}
