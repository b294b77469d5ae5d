//! What a page word held at one moment.
//!
//! This file owns the meaning of the bits, and what follows from a value. The transitions are in
//! [`word`](crate::word), with the table of all states.

use crate::word::Unpin;
use std::fmt;

pub(crate) const REF: u64 = 1;
const REFS: u64 = (1 << 24) - 1;
/// The references that are permitted: half of what the field holds.
pub(crate) const MOST_REFS: u64 = 1 << 23;
pub(crate) const PIN: u64 = 1 << 24;
const PINS: u64 = REFS << 24;
pub(crate) const CLAIMED: u64 = 1 << 56;
pub(crate) const SPLIT: u64 = 1 << 57;
pub(crate) const WAITERS: u64 = 1 << 58;
pub(crate) const POISONED: u64 = 1 << 59;
pub(crate) const LIMBO: u64 = 1 << 60;
pub(crate) const FROZEN: u64 = 1 << 61;
pub(crate) const DRIVER: u64 = 1 << 62;

/// What a word held at one moment.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct Value(pub(crate) u64);

impl Value {
    #[inline]
    pub(crate) const fn refs(self) -> u64 {
        if self.is_split() { 0 } else { self.0 & REFS }
    }

    #[inline]
    pub(crate) const fn pins(self) -> u64 {
        (self.0 & PINS) / PIN
    }

    /// The words below that are not idle.
    pub(crate) const fn children(self) -> u64 {
        if self.is_split() { self.0 & REFS } else { 0 }
    }

    pub(crate) const fn is_idle(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) const fn is_split(self) -> bool {
        self.0 & SPLIT != 0
    }

    #[inline]
    pub(crate) const fn is_counted(self) -> bool {
        self.refs() > 0
    }

    #[inline]
    pub(crate) const fn is_claimed(self) -> bool {
        self.0 & CLAIMED != 0
    }

    pub(crate) const fn is_poisoned(self) -> bool {
        self.0 & POISONED != 0
    }

    pub(crate) const fn is_in_limbo(self) -> bool {
        self.0 & LIMBO != 0
    }

    /// Whether the driver of the memory gets it back with the last put.
    pub(crate) const fn is_drivers(self) -> bool {
        self.0 & DRIVER != 0
    }

    pub(crate) const fn is_frozen(self) -> bool {
        self.0 & FROZEN != 0
    }

    /// Whether nobody holds the page and only poison keeps it from being idle.
    pub(crate) const fn is_only_poisoned(self) -> bool {
        self.0 & !LIMBO == POISONED
    }

    /// Which rule of the table on [`PageWord`] the value breaks, if any.
    pub(crate) fn broken_rule(self) -> Option<&'static str> {
        let held = self.is_claimed() || self.is_counted();
        if self.is_split() {
            let alone = self.0 & !(SPLIT | REFS) == 0;
            return (!alone || self.children() == 0).then_some("a split word holds only its count");
        }
        if self.is_claimed() && self.0 & !(CLAIMED | POISONED) != 0 {
            return Some("I-10: a claimed page is not counted");
        }
        if self.pins() > self.refs() {
            return Some("I-11: a pin is a reference");
        }
        if self.0 & WAITERS != 0 && self.pins() == 0 {
            return Some("I-14: nobody sleeps on a page without pins");
        }
        if self.is_frozen() && !self.is_counted() {
            return Some("a frozen page is counted");
        }
        (self.0 != 0 && !held && !self.is_only_poisoned()).then_some("I-10: refcount 0 is idle")
    }

    #[inline]
    pub(crate) fn plus(self, how: u64) -> u64 {
        assert!(self.refs() < MOST_REFS, "a folio has fewer than 2^23 references");
        self.0 + how
    }

    /// One pin and its reference fewer. Nobody sleeps on a page without pins.
    pub(crate) fn without_pin(self) -> Value {
        assert!(self.pins() > 0, "I-58: unpin returns what pin took");
        assert!(self.refs() >= self.pins(), "I-11: a pin is a reference");
        let rest = self.0 - REF - PIN;
        Value(if self.pins() == 1 { rest & !WAITERS } else { rest })
    }

    /// What the unpin that met this value has to do.
    pub(crate) const fn unpin(self) -> Unpin {
        if self.pins() == 1 && self.0 & WAITERS != 0 { Unpin::Wake } else { Unpin::Done }
    }

    pub(crate) const fn left_or_counted(self) -> u64 {
        if self.is_left() { self.leave() } else { self.0 }
    }

    /// Whether nobody holds it any more, and only flags are left.
    pub(crate) const fn is_left(self) -> bool {
        let flags = LIMBO | POISONED | FROZEN | DRIVER;
        self.0 != 0 && self.0 & !flags == 0
    }

    /// What a left word becomes: a claim that somebody has to hand on, or idle.
    pub(crate) const fn leave(self) -> u64 {
        let is_awaited = self.0 & (LIMBO | POISONED | DRIVER) != 0;
        if is_awaited { CLAIMED | (self.0 & POISONED) } else { 0 }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (CLAIMED, "claimed"),
            (SPLIT, "split"),
            (WAITERS, "waiters"),
            (POISONED, "poisoned"),
            (LIMBO, "limbo"),
            (FROZEN, "frozen"),
            (DRIVER, "the driver's"),
        ];
        write!(f, "{} refs, {} pins", self.0 & REFS, self.pins())?;
        names.iter().filter(|(bit, _)| self.0 & bit != 0).try_for_each(|(_, n)| write!(f, ", {n}"))
    }
}
