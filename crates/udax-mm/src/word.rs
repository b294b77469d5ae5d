//! The word that says who holds a page, or a whole block of pages.
//!
//! This file owns every legal transition (protocol, rule 5); the bits are in
//! [`value`](crate::value). It does not know which pages a word speaks of, nor how words depend on
//! one another; that is [`table`](crate::table).

use crate::block::FANOUT;
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::value::{
    CLAIMED, DRIVER, FROZEN, LIMBO, MOST_REFS, PIN, POISONED, REF, SPLIT, Value, WAITERS,
};

/// The state of one page, or of one block as a whole.
///
/// | refs (bits 0..24) | pins (24..48) | flags | state |
/// |---|---|---|---|
/// | 0 | 0 | none | idle |
/// | 0 | 0 | CLAIMED (POISONED) | claimed: one `IdleSpan` covers it |
/// | n > 0 | p <= n | (WAITERS, POISONED, LIMBO, FROZEN, DRIVER) | counted as one folio |
/// | 0 | 0 | POISONED (LIMBO) | idle but for the poison; only in the word of a page |
/// | n in 1..=512 | 0 | SPLIT | n words below are not idle; only in the word of a block |
/// | 0 | 0 | LIMBO, FROZEN, DRIVER or POISONED | left: the last put is about to make it idle or claimed |
///
/// WAITERS stands only beside a pin. A pin is a reference too. Under a block that is not split,
/// every word is zero.
#[repr(transparent)]
#[cfg_attr(not(any(loom, shuttle)), derive(zerocopy::FromZeros))]
pub(crate) struct PageWord(AtomicU64);

/// What a word holds from the moment that it is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First(u64);

/// What the holder of a claim has to do after giving it up.
#[must_use]
pub(crate) enum Retire {
    /// The word is idle: lower the block above.
    Idle,
    /// The word stays as it was but for the claim: poison keeps the page from being idle.
    Poisoned,
    /// The words below hold the claim.
    Split,
}

/// What a put left to do.
#[must_use]
pub(crate) enum Put {
    /// Others still count the folio.
    Counted,
    /// That was the last reference, and the word is idle: lower the block above.
    Idle,
    /// That was the last reference: [`PageWord::leave`] says what follows.
    Last(Value),
}

/// How a reference was acquired of a word that was idle, or counted already.
#[must_use]
pub(crate) enum Acquired {
    /// It was idle, and the reference is the first.
    Requested,
    /// Somebody counts it, and the reference is one more.
    Got,
    /// It is neither idle nor counted.
    Refused,
}

/// What the last put left to do.
#[must_use]
#[derive(Clone, Copy)]
pub(crate) enum Left {
    /// The word is idle: lower the block above.
    Idle,
    /// The word is claimed for the caller, who has to hand the pages on.
    Claimed,
    /// Somebody else has done it.
    Done,
}

/// What an unpin left to do.
#[must_use]
pub(crate) enum Unpin {
    Done,
    /// The last pin went, and somebody sleeps: wake the queue of the folio.
    Wake,
}

/// Whether a sleep for the last unpin makes sense.
#[must_use]
pub(crate) enum Watch {
    /// Somebody pins it, and the last unpin will wake.
    Pinned,
    Unpinned,
}

/// What became of a split word when one more word below it is about to leave idle.
#[must_use]
pub(crate) enum Raise {
    /// The block was idle.
    First,
    /// The block was split already.
    Again,
    /// The block is held as a whole.
    Refused,
}

/// What became of a split word when one word below it returned to idle.
#[must_use]
pub(crate) enum Lower {
    Split,
    /// The block is idle: lower the block above.
    Idle,
}

/// The answer to leaving word on a page.
#[must_use]
pub(crate) enum Defer {
    /// The last put, or the clearing of the poison, will claim it.
    Deferred,
    /// Nobody holds it, or somebody claimed it, or it is split: look again.
    Changed,
}

/// The answer to marking a page as poisoned.
#[must_use]
pub(crate) enum Mark {
    Marked,
    /// Idle or split: look again.
    Changed,
}

/// What the end of the poison left to do.
#[must_use]
pub(crate) enum Cleared {
    /// Somebody holds the page.
    Held,
    /// The page is idle: lower the block above.
    Idle,
    /// The page, which somebody deferred, is claimed for the caller, who has to hand it on.
    Claimed,
    /// The page, which its last put is about to hand back to the driver of the memory, is claimed
    /// for the caller, who has to do that.
    Left,
}

impl First {
    /// One reference.
    pub(crate) const FOLIO: First = First(REF);

    /// And the last put claims the word for the driver of the memory.
    pub(crate) const fn to_be_handed_back(self) -> First {
        First(self.0 | DRIVER)
    }

    /// And it is pinned, and frozen from the first moment.
    pub(crate) const fn frozen(self) -> First {
        First(self.0 | PIN | FROZEN)
    }
}

impl PageWord {
    /// `count` idle words, untouched zero memory, if the host has it.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) fn idle(count: usize) -> Option<Vec<PageWord>> {
        zerocopy::FromZeros::new_vec_zeroed(count).ok()
    }

    /// `count` idle words.
    #[cfg(any(loom, shuttle))]
    pub(crate) fn idle(count: usize) -> Option<Vec<PageWord>> {
        Some((0..count).map(|_| PageWord(AtomicU64::new(0))).collect())
    }

    /// What the word holds.
    ///
    /// Acquire pairs with the Release in `split`, so that whoever sees a split block sees the
    /// words below it; and with that in `unpin`, for who finds no pin and does not wait.
    #[inline]
    pub(crate) fn load(&self) -> Value {
        Value(self.0.load(Ordering::Acquire))
    }

    /// idle -> claimed. Returns whether it was idle.
    ///
    /// Acquire pairs with the Release in `retire_page`, `retire_block`, `put`, `leave`,
    /// `unpin_and_put`, `lower` and `clear_poison`: the claimer sees all that was done to the pages
    /// before.
    #[inline]
    #[must_use]
    pub(crate) fn claim(&self) -> bool {
        self.0.compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// claimed -> idle, of the word of a page. Poison stays.
    ///
    /// Release pairs with the Acquire in `claim` and `raise`.
    pub(crate) fn retire_page(&self) -> Retire {
        let before = self.update(Ordering::Release, |v| v.is_claimed().then_some(v.0 & !CLAIMED));
        let before = before.expect("I-10: only a claim is retired");
        if before.is_poisoned() { Retire::Poisoned } else { Retire::Idle }
    }

    /// claimed -> idle, of the word of a block. One with a poisoned page stays claimed, and one that is
    /// split stays as it is.
    ///
    /// Release pairs with the Acquire in `claim` and `raise`.
    pub(crate) fn retire_block(&self) -> Retire {
        match self.0.compare_exchange(CLAIMED, 0, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => Retire::Idle,
            Err(found) if Value(found).is_split() => Retire::Split,
            Err(found) => {
                assert!(found == CLAIMED | POISONED, "I-10: only a claim is retired");
                Retire::Poisoned
            }
        }
    }

    /// idle -> counted, in one step: a claim that is activated at once. Returns whether it was
    /// idle.
    ///
    /// Acquire as in `claim`, Release as in `activate`.
    #[inline]
    #[must_use]
    pub(crate) fn request(&self, first: First) -> bool {
        self.0.compare_exchange(0, first.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// claimed -> counted.
    ///
    /// Release pairs with the Acquire in `try_count` and `try_pin_frozen`: who gets the folio sees
    /// what the claimer wrote into it.
    pub(crate) fn activate(&self, first: First) {
        let next = |v: Value| v.is_claimed().then_some(first.0 | (v.0 & POISONED));
        let before = self.update(Ordering::Release, next);
        before.expect("I-13: only a claim is activated");
    }

    /// One more reference, for somebody who holds one.
    #[inline]
    pub(crate) fn get(&self) {
        self.count_more(REF);
    }

    /// One more reference that is a pin, for somebody who holds a reference.
    #[inline]
    pub(crate) fn pin(&self) {
        self.count_more(REF | PIN);
    }

    /// One more reference if there is one already (rule 2). Returns whether it was taken. `seen` is
    /// what the word held a moment ago.
    ///
    /// Acquire pairs with the Release in `activate` and `request`.
    #[inline]
    #[must_use]
    pub(crate) fn try_get(&self, seen: Value) -> bool {
        self.try_count(seen, REF)
    }

    /// Like [`PageWord::try_get`], and the reference is a pin.
    #[inline]
    #[must_use]
    pub(crate) fn try_pin(&self, seen: Value) -> bool {
        self.try_count(seen, REF | PIN)
    }

    /// One reference, the first or one more.
    ///
    /// Orderings as in `request` and `try_get`.
    #[inline]
    pub(crate) fn acquire(&self, first: First) -> Acquired {
        let mut seen = Value(self.0.load(Ordering::Relaxed));
        loop {
            let (more, acquired) = match seen {
                seen if seen.is_idle() => (first.0, Acquired::Requested),
                seen if seen.is_counted() => (seen.plus(REF), Acquired::Got),
                _ => return Acquired::Refused,
            };
            match self.0.compare_exchange_weak(seen.0, more, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return acquired,
                Err(found) => seen = Value(found),
            }
        }
    }

    /// Makes a reference that the caller holds a pin.
    pub(crate) fn pin_reference(&self) {
        self.count_more(PIN);
    }

    #[inline]
    fn try_count(&self, mut seen: Value, how: u64) -> bool {
        while seen.is_counted() {
            let more = seen.plus(how);
            match self.0.compare_exchange_weak(seen.0, more, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => seen = Value(found),
            }
        }
        false
    }

    /// One more pin if the folio is frozen already. Returns whether it was taken.
    ///
    /// Acquire pairs with the Release in `activate`.
    #[must_use]
    pub(crate) fn try_pin_frozen(&self) -> bool {
        let is_held = |v: Value| v.is_frozen() && v.is_counted();
        self.update(Ordering::Acquire, |v| is_held(v).then(|| v.plus(REF | PIN))).is_ok()
    }

    /// One reference fewer.
    ///
    /// Subtracts at once, because a compare-exchange would fail where many threads count one folio.
    ///
    /// Release pairs with the Acquire in `claim`, and with the Acquire fences here and in `leave`:
    /// what is done after the last put comes after every use of the folio.
    #[inline]
    pub(crate) fn put(&self) -> Put {
        let before = Value(self.0.fetch_sub(REF, Ordering::Release));
        if before.0 == REF {
            fence(Ordering::Acquire);
            return Put::Idle;
        }
        if before.refs() <= 1 {
            return Put::Last(before);
        }
        assert!(before.pins() < before.refs(), "I-58: unpin comes before the last put");
        Put::Counted
    }

    /// left -> idle, or claimed if somebody deferred the pages or one of them is poisoned; after
    /// the last put, which met `before`, with flags.
    ///
    /// Nobody can count, claim or split what the last put leaves behind with a flag, hence the
    /// second step. Who meets another value in it was overtaken: the poison was cleared between the
    /// steps, and whoever cleared it, or was the last to put the folio since, has done the rest.
    /// The page may be poisoned again by then; without DRIVER, if it was to go to the driver, that
    /// is no left word but an idle page that failed.
    ///
    /// The Acquire fence as in `put`.
    pub(crate) fn leave(&self, before: Value) -> Left {
        assert!(before.is_counted(), "I-11: a put has a reference");
        assert!(before.pins() == 0, "I-12: a folio that nobody counts is not pinned");
        fence(Ordering::Acquire);
        let is_ours = |v: Value| v.is_left() && (v.is_drivers() || !before.is_drivers());
        let left = self.update(Ordering::AcqRel, |v| is_ours(v).then(|| v.leave()));
        match left.map(Value::leave) {
            Ok(0) => Left::Idle,
            Ok(_) => Left::Claimed,
            Err(_) => Left::Done,
        }
    }

    /// One pin and its reference fewer, in one step. `seen` is what the word held a moment ago.
    ///
    /// Release and Acquire as in [`PageWord::unpin`], [`PageWord::put`] and [`PageWord::leave`].
    #[inline]
    pub(crate) fn unpin_and_put(&self, seen: Value) -> (Unpin, Left) {
        // Others count it and nobody sleeps: nothing follows from it.
        let rest = seen.0.wrapping_sub(REF | PIN);
        let is_plain = seen.refs() > 1 && seen.pins() > 0 && seen.0 & WAITERS == 0;
        let exchange =
            || self.0.compare_exchange(seen.0, rest, Ordering::Release, Ordering::Relaxed).is_ok();
        if is_plain && exchange() {
            return (Unpin::Done, Left::Done);
        }
        self.unpin_and_leave()
    }

    fn unpin_and_leave(&self) -> (Unpin, Left) {
        let before = self.update(Ordering::AcqRel, |v| Some(v.without_pin().left_or_counted()));
        let before = before.expect("the closure never refuses");
        let rest = before.without_pin();
        let left = match rest.left_or_counted() {
            0 => Left::Idle,
            _ if rest.is_left() => Left::Claimed,
            _ => Left::Done,
        };
        (before.unpin(), left)
    }

    /// One pin fewer; the reference stays. The last one clears WAITERS and wakes.
    ///
    /// Release pairs with the Acquire in `watch`: who saw the last unpin sees what the holder of
    /// the pin did.
    pub(crate) fn unpin(&self) -> Unpin {
        let before = self.update(Ordering::Release, |v| Some(v.without_pin().0 + REF));
        before.expect("the closure never refuses").unpin()
    }

    /// Asks the last unpin to wake. The caller holds the lock of the wait queue.
    ///
    /// Acquire, also where nothing is pinned, pairs with the Release in `unpin`: who is told that
    /// the pins are gone sees what their holders did.
    pub(crate) fn watch(&self) -> Watch {
        let next = |value| (Value(value).pins() > 0).then_some(value | WAITERS);
        match self.0.fetch_update(Ordering::Acquire, Ordering::Acquire, next) {
            Ok(_) => Watch::Pinned,
            Err(_) => Watch::Unpinned,
        }
    }

    /// idle or split -> split with `children` more.
    ///
    /// Acquire pairs with the Release in `retire_block`, and in `put`, `leave` and `unpin_and_put`
    /// for the last reference: the words below are seen as the holder of the whole block left them.
    #[inline]
    pub(crate) fn raise(&self, children: u64) -> Raise {
        let first = SPLIT | (children * REF);
        if self.0.compare_exchange(0, first, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return Raise::First;
        }
        let next = |v: Value| (v.is_idle() || v.is_split()).then(|| (v.0 | SPLIT) + children * REF);
        match self.update(Ordering::Acquire, next) {
            Ok(before) if before.is_idle() => Raise::First,
            Ok(_) => Raise::Again,
            Err(_) => Raise::Refused,
        }
    }

    /// Like [`PageWord::raise`], but only of a block that is split already. Returns whether it is.
    #[inline]
    #[must_use]
    pub(crate) fn raise_split(&self, children: u64) -> bool {
        let next = |v: Value| v.is_split().then(|| v.0 + children * REF);
        self.update(Ordering::Acquire, next).is_ok()
    }

    /// `children` fewer: split -> split, or idle with the last one.
    ///
    /// Release pairs with the Acquire in `claim`, `request`, `raise` and `join`. Acquire pairs with
    /// the Release of the lowers before: who lowers the last child goes on to the block above, and
    /// gives on what was done under all children.
    #[inline]
    pub(crate) fn lower(&self, children: u64) -> Lower {
        let after = |v: Value| if v.children() == children { 0 } else { v.0 - children * REF };
        let counts = |v: Value| v.children() >= children;
        let before = self.update(Ordering::AcqRel, |v| counts(v).then(|| after(v)));
        let before = before.expect("rule 4: the block of a busy page is split");
        if before.children() == children { Lower::Idle } else { Lower::Split }
    }

    /// claimed as a whole -> split into claimed children. Returns false if a page is poisoned.
    ///
    /// Release pairs with the Acquire in `load` and `raise_split`.
    #[must_use]
    pub(crate) fn split(&self) -> bool {
        let split = SPLIT | FANOUT;
        self.0.compare_exchange(CLAIMED, split, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Like [`PageWord::split`], of a block with poisoned pages whose own words say so already.
    pub(crate) fn split_poisoned(&self) {
        let before = self.0.swap(SPLIT | FANOUT, Ordering::Release);
        assert!(before & CLAIMED != 0, "only a claimed block is split");
    }

    /// split into claimed children -> claimed as a whole. Returns false while somebody else's
    /// refused claim is still counted.
    ///
    /// Acquire pairs with the Release in `lower`.
    #[must_use]
    pub(crate) fn join(&self) -> bool {
        let split = SPLIT | FANOUT;
        self.0.compare_exchange(split, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Sets the word under a block that the caller holds as a whole. Nobody else looks at it.
    pub(crate) fn set_claimed(&self, claimed: bool) {
        self.0.store(if claimed { CLAIMED } else { 0 }, Ordering::Relaxed);
    }

    /// Has the last put, or the end of the poison, claim the pages.
    pub(crate) fn defer(&self) -> Defer {
        let next = |v: Value| (v.is_counted() || v.is_only_poisoned()).then_some(v.0 | LIMBO);
        match self.update(Ordering::Relaxed, next) {
            Ok(_) => Defer::Deferred,
            Err(_) => Defer::Changed,
        }
    }

    /// Marks pages that somebody holds, or that are poisoned already.
    pub(crate) fn poison_held(&self) -> Mark {
        let next = |v: Value| (!v.is_idle() && !v.is_split()).then_some(v.0 | POISONED);
        match self.update(Ordering::Relaxed, next) {
            Ok(_) => Mark::Marked,
            Err(_) => Mark::Changed,
        }
    }

    /// idle -> poisoned, of the word of a page whose block is raised.
    pub(crate) fn poison_idle(&self) -> Mark {
        match self.0.compare_exchange(0, POISONED, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Mark::Marked,
            Err(_) => Mark::Changed,
        }
    }

    /// Takes the mark off the word of a page. A page that nobody counts is idle without it, unless
    /// somebody deferred it or the last put has not handed it on yet.
    ///
    /// Release pairs with the Acquire in `claim`; Acquire pairs with the Release in `put` and
    /// `retire_page`: who hands the page on, or lowers the block, does so after its last use.
    pub(crate) fn clear_poison(&self) -> Cleared {
        let after = |v: Value| match v.0 {
            awaited if awaited & !(LIMBO | DRIVER) == POISONED && awaited != POISONED => CLAIMED,
            marked => marked & !POISONED,
        };
        let before = self.update(Ordering::AcqRel, |v| Some(after(v)));
        let before = before.expect("the closure never refuses");
        match after(before) {
            0 if before.is_poisoned() => Cleared::Idle,
            CLAIMED if before.is_claimed() => Cleared::Held,
            CLAIMED if before.is_drivers() => Cleared::Left,
            CLAIMED => Cleared::Claimed,
            _ => Cleared::Held,
        }
    }

    /// Relaxed: the caller holds a reference, so nothing is learned and nothing is given away.
    ///
    /// Looks after it has added, so the limit lies far below the end of the field.
    #[inline]
    fn count_more(&self, how: u64) {
        let before = Value(self.0.fetch_add(how, Ordering::Relaxed));
        assert!(before.is_counted(), "rule 2: a count starts with an activation");
        assert!(before.refs() < MOST_REFS, "a folio has fewer than 2^23 references");
    }

    /// One read-modify-write: `next` gives the value that follows, or refuses. Returns the value
    /// met.
    #[inline]
    fn update(
        &self,
        success: Ordering,
        mut next: impl FnMut(Value) -> Option<u64>,
    ) -> Result<Value, Value> {
        let next = |value| next(Value(value));
        self.0.fetch_update(success, Ordering::Relaxed, next).map(Value).map_err(Value)
    }
}

/// F-12: what only a bug can do is noticed at once.
#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// A folio with one reference.
    fn counted() -> PageWord {
        let word = PageWord::idle(1).expect("memory for a word").remove(0);
        assert!(word.request(First::FOLIO));
        word
    }

    fn is_noticed<T>(bug: impl FnOnce() -> T) -> bool {
        catch_unwind(AssertUnwindSafe(|| drop(bug()))).is_err()
    }

    #[test]
    fn a_second_unpin_is_noticed() {
        let word = counted();
        word.pin();
        assert!(matches!(word.unpin(), Unpin::Done));
        let before = word.load();

        assert!(is_noticed(|| word.unpin()));
        assert!(is_noticed(|| word.unpin_and_put(before)));

        assert!(word.load() == before, "nothing was changed");
    }

    #[test]
    fn an_unbalanced_put_is_noticed() {
        let word = counted();
        let put = || match word.put() {
            Put::Counted => Left::Done,
            Put::Idle => Left::Idle,
            Put::Last(before) => word.leave(before),
        };
        assert!(matches!(put(), Left::Idle));

        assert!(is_noticed(put));
    }

    #[test]
    fn a_put_of_a_pin_is_noticed() {
        let word = counted();
        word.pin_reference();
        word.pin();

        assert!(is_noticed(|| word.put()), "both references are pins");
    }
}
