//! What happened in a file: faults by size, fallbacks by reason, waits, pins, failed memory.

use crate::fault::FaultError;
use std::fmt;
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::{Order, RequestError};

/// Why a fault or a pin was served by a smaller folio than there could be (rule 14): by less than
/// 2 MiB, or by 2 MiB where the data of the file would fill 1 GiB.
///
/// The reason is what was in the way of the next larger size when the fault was served: first the
/// user (colour, bounds), then the data (end of the file, extent, alignment; shared before all), then what is there
/// already. It is counted once for a touch, whatever that brings along, and for each folio of a pin.
/// A page of a large folio that serves a small mapping is none, nor are zeros of a hole or the
/// protected copy of a shared page: they have no folio.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Fallback {
    /// Addresses and file indices do not agree modulo the size: the colour of the mapping differs.
    Colour,
    /// The block of the file does not lie inside the user mapping, or inside the pinned range.
    Bounds,
    /// The file ends in the block.
    Eof,
    /// The extent does not cover the block: it has a hole, or is fragmented there.
    ExtentTooShort,
    /// The extent covers the block, but does not start at a multiple of the size of its page map.
    Misaligned,
    /// Smaller entries exist in the block, where a larger one could be. They are never evicted to
    /// make room (I-31).
    Conflict,
    /// Some of its pages are counted as folios of another size.
    Busy,
    /// Some of its memory failed.
    Media,
    /// Other files may have the data too: what is shared is counted page by page, because each page
    /// can be copied, or become the file's own, on its own.
    Shared,
    /// The device has folios of one size only, and it is another one (I-68).
    DeviceOrder,
}

impl Fallback {
    /// Every reason.
    pub const ALL: [Fallback; 10] = [
        Fallback::Colour,
        Fallback::Bounds,
        Fallback::Eof,
        Fallback::ExtentTooShort,
        Fallback::Misaligned,
        Fallback::Conflict,
        Fallback::Busy,
        Fallback::Media,
        Fallback::Shared,
        Fallback::DeviceOrder,
    ];

    /// A word for it, as tools print it: `colour`, `bounds`, `eof`, `extent`, `alignment`,
    /// `conflict`, `busy`, `media`, `shared` or `device`.
    pub fn code(self) -> &'static str {
        match self {
            Fallback::Colour => "colour",
            Fallback::Bounds => "bounds",
            Fallback::Eof => "eof",
            Fallback::ExtentTooShort => "extent",
            Fallback::Misaligned => "alignment",
            Fallback::Conflict => "conflict",
            Fallback::Busy => "busy",
            Fallback::Media => "media",
            Fallback::Shared => "shared",
            Fallback::DeviceOrder => "device",
        }
    }

    fn slot(self) -> usize {
        Fallback::ALL.iter().position(|&other| other == self).expect("every reason is listed")
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fallback::Colour => "the addresses are not congruent to the file",
            Fallback::Bounds => "the range does not contain the block",
            Fallback::Eof => "the file ends in the block",
            Fallback::ExtentTooShort => "the extent does not cover the block",
            Fallback::Misaligned => "the extent is not aligned on the device",
            Fallback::Conflict => "smaller entries exist in the block",
            Fallback::Busy => "pages of the block are in use on their own",
            Fallback::Media => "memory of the block failed",
            Fallback::Shared => "other files may have the data, too",
            Fallback::DeviceOrder => "the device has folios of one size only, and not of this one",
        })
    }
}

/// What happened in a file since it was opened.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    faults: [u64; Order::ALL.len()],
    fallbacks: [u64; Fallback::ALL.len()],
    /// Faults that showed a hole as zeros.
    pub holes: u64,
    /// Faults that became SIGBUS: past the end, or for a reason that
    /// [`last_fault_error`](crate::UserMapping::last_fault_error) names.
    pub failures: u64,
    /// Pages that a store through a mapping, or a pin for stores, gave a copy of their own, because
    /// they were shared. What a write copies is not among them.
    pub copies: u64,
    /// Layouts that were broken, also by a break that deferred what was pinned; not those that a pin
    /// or an error kept as they were.
    pub breaks: u64,
    /// How often breaking one began to sleep for a pin.
    pub waits: u64,
    /// How often such a sleep ended because the pin was gone, and not with the time or an interrupt.
    pub wakeups: u64,
    /// Pins that were granted.
    pub pins: u64,
    /// Faults and pins that met memory that failed.
    pub poison: u64,
}

impl Stats {
    /// Faults and pins served by folios of `order`.
    pub fn faults(&self, order: Order) -> u64 {
        self.faults[level(order)]
    }

    /// How often a fault or a pin fell back for `reason`.
    pub fn fallbacks(&self, reason: Fallback) -> u64 {
        self.fallbacks[reason.slot()]
    }

    /// Every reason that was met, with how often.
    pub fn reasons(&self) -> impl Iterator<Item = (Fallback, u64)> + '_ {
        Fallback::ALL.into_iter().zip(self.fallbacks).filter(|&(_, count)| count > 0)
    }
}

/// What is counted apart from faults and fallbacks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Hole,
    Failure,
    Copy,
    Break,
    Wait,
    Wakeup,
    Pin,
    Poison,
}

/// The counters behind [`Stats`]. Independent facts, so relaxed atomics do.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    faults: [AtomicU64; Order::ALL.len()],
    fallbacks: [AtomicU64; Fallback::ALL.len()],
    events: [AtomicU64; 8],
}

impl Counters {
    pub(crate) fn fault(&self, order: Order) {
        self.faults[level(order)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fallback(&self, reason: Fallback) {
        self.fallbacks[reason.slot()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn event(&self, event: Event) {
        self.events[event.slot()].fetch_add(1, Ordering::Relaxed);
    }

    /// A fault or a pin failed: notes whether its memory has.
    pub(crate) fn lost(&self, why: &FaultError) {
        if matches!(why, FaultError::Request(RequestError::Poisoned(_))) {
            self.event(Event::Poison);
        }
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let event = |event: Event| load(&self.events[event.slot()]);
        Stats {
            faults: self.faults.each_ref().map(load),
            fallbacks: self.fallbacks.each_ref().map(load),
            holes: event(Event::Hole),
            failures: event(Event::Failure),
            copies: event(Event::Copy),
            breaks: event(Event::Break),
            waits: event(Event::Wait),
            wakeups: event(Event::Wakeup),
            pins: event(Event::Pin),
            poison: event(Event::Poison),
        }
    }
}

impl Event {
    fn slot(self) -> usize {
        match self {
            Event::Hole => 0,
            Event::Failure => 1,
            Event::Copy => 2,
            Event::Break => 3,
            Event::Wait => 4,
            Event::Wakeup => 5,
            Event::Pin => 6,
            Event::Poison => 7,
        }
    }
}

fn level(order: Order) -> usize {
    match order {
        Order::Base => 0,
        Order::Pmd => 1,
        Order::Pud => 2,
    }
}
