//! Clones, deduplication and unsharing, beside the model.

use std::ops::Range;
use std::rc::Rc;

use udax::{Deduped, ErrorKind, Result, Wait};

use super::{NEAR, Shared, World, compare, learn_moves};
use crate::model::{HUGE, PAGE, Page, us};
use crate::told::Told;

impl World {
    pub(super) fn clone(&mut self) -> String {
        let (from_name, source, source_model) = self.open();
        let (to_name, target, target_model) = self.open();
        let (range, at) = self.clone_place(source_model.borrow().len());
        let told = format!("{from_name} {range:?} to {to_name} {at}");
        source_model.borrow_mut().learn_zeros(&Told::by(&source));
        source_model.borrow_mut().blur_tail();
        let done = source.clone_range(range.clone(), &target, at, Wait::Never);
        let end = at + (range.end - range.start);
        match &done {
            Ok(cloned) if *cloned == range.end - range.start => {
                share(&source_model, range.start, &target_model, at, *cloned, end);
            }
            // The pool became full in the middle.
            Ok(cloned) => {
                share(&source_model, range.start, &target_model, at, *cloned, at + cloned);
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                let size = target_model.borrow().len();
                let is_same = Rc::ptr_eq(&source_model, &target_model);
                let is_cut = !range.end.is_multiple_of(PAGE) && end < size;
                let meets = is_same && range.start < end && at < range.end;
                assert!(is_cut || meets, "{told}: {error}");
            }
            Err(error) => {
                // The page in which the target ends may be its own.
                learn_moves(&target, &target_model);
                self.check_held(error, &source_model, range, &target_model, at);
            }
        }
        format!("{told}: {done:?}")
    }

    pub(super) fn dedupe(&mut self) -> String {
        let (from_name, source, source_model) = self.open();
        let (to_name, target, target_model) = self.open();
        if Rc::ptr_eq(&source_model, &target_model) {
            return "one file".to_owned();
        }
        let (range, _) = self.clone_place(source_model.borrow().len());
        let at = range.start;
        source_model.borrow_mut().learn_zeros(&Told::by(&source));
        source_model.borrow_mut().blur_tail();
        let done = source.dedupe_range(range.clone(), &target, at, Wait::Never);
        let told = format!("{from_name} {range:?} and {to_name}: {done:?}");
        match done {
            Ok(Deduped::Shared(len)) if len > 0 => {
                let bytes = source_model.borrow().bytes(at..at + len);
                let known: Vec<u8> = bytes.iter().map(|byte| byte.unwrap_or(0)).collect();
                compare(&known, &target_model.borrow().bytes(at..at + len), at);
                share(&source_model, at, &target_model, at, len, at + len);
            }
            Ok(_) => {}
            Err(error) => self.check_held(&error, &source_model, range, &target_model, at),
        }
        told
    }

    pub(super) fn unshare(&mut self) -> String {
        let (name, file, model) = self.open();
        let (at, len) = self.place();
        let done: Result<()> = file.unshare(at..at + len);
        match &done {
            Ok(()) => model.borrow_mut().unshare(at..at + len),
            Err(error) => {
                self.may_be_full(error);
                learn_moves(&file, &model);
            }
        }
        format!("{name} {at}+{len}: {done:?}")
    }

    /// A range of a source of `len` bytes, and a place for it.
    fn clone_place(&mut self, len: u64) -> (Range<u64>, u64) {
        let start = if self.rng.once_in(3) { 0 } else { self.rng.below(NEAR / PAGE) * PAGE };
        let start = start.min(len / PAGE * PAGE);
        let most = if self.rng.once_in(20) { HUGE / PAGE } else { 20 };
        let end = (start + self.rng.below(most + 1) * PAGE).min(len);
        let at = if self.rng.once_in(3) { start } else { self.rng.below(NEAR / PAGE) * PAGE };
        (start..end, at)
    }

    /// A clone was refused: because of a pin, which there must be, or because the pool is full.
    #[track_caller]
    fn check_held(
        &self,
        error: &udax::Error,
        source: &Shared,
        range: Range<u64>,
        target: &Shared,
        at: u64,
    ) {
        if error.kind() != ErrorKind::Pinned {
            return self.may_be_full(error);
        }
        let is_pinned = |(page, _): &(Page, bool)| self.is_pinned(page);
        // Within one file also what lies between; and whole folios are pinned.
        let end = at + (range.end - range.start);
        let hull = range.start.min(at) / HUGE * HUGE..range.end.max(end).next_multiple_of(HUGE);
        let found = [source, target]
            .iter()
            .any(|model| model.borrow().whole_pages(hull.clone()).iter().any(is_pinned));
        assert!(found, "{error}, and nobody pins a page there");
    }
}

/// Lets a file have the pages of another one for `len` bytes; its bytes end at `end` at least.
fn share(source: &Shared, from: u64, target: &Shared, at: u64, len: u64, end: u64) {
    if len == 0 {
        return;
    }
    // First, because the page in which a file ends becomes its own when the file grows.
    target.borrow_mut().grow(at);
    let places = source.borrow().shared(from / PAGE..(from + len).div_ceil(PAGE));
    assert_eq!(places.len(), us(len.div_ceil(PAGE)));
    target.borrow_mut().take_over(places, at / PAGE, end);
}
