//! Pins, beside the model.

use std::ops::Range;
use std::rc::Rc;

use udax::{ErrorKind, Pin, PinKind, PinOptions};

use super::{MANY, NEAR, World, compare, learn_moves};
use crate::model::{PAGE, Page, Pinned, parts, us};
use crate::told::{Blocks, Told};

/// A pin and the pages it holds.
pub(super) struct Held {
    pin: Pin,
    pages: Vec<Pinned>,
    /// Where they lie.
    blocks: Blocks,
}

impl World {
    /// Whether somebody pins a page.
    pub(super) fn is_pinned(&self, page: &Page) -> bool {
        let is_it = |pinned: &Pinned| Rc::ptr_eq(pinned.page(), page);
        self.pins.iter().any(|held| held.pages.iter().any(is_it))
    }

    /// Where somebody pins pages.
    pub(super) fn pinned_blocks(&self) -> Blocks {
        self.pins.iter().flat_map(|held| held.blocks.iter().copied()).collect()
    }

    /// Compares everything that is pinned.
    pub(super) fn compare_pins(&self) {
        for held in 0..self.pins.len() {
            let range = self.pins[held].pin.range();
            let start = range.start % PAGE;
            self.compare_pin(held, start..start + (range.end - range.start));
        }
    }

    pub(super) fn pin(&mut self) -> String {
        if self.pins.len() >= MANY {
            return self.unpin();
        }
        let (name, file, model) = self.open();
        let (at, len) = (self.rng.below(NEAR), 1 + self.rng.below(4 * PAGE));
        let kind = if self.rng.once_in(2) { PinKind::Read } else { PinKind::Write };
        let before = self.pinned_blocks();
        let done = file.pin(at..at + len, &PinOptions::new("random").kind(kind));
        let line = format!("{name} {at}+{len} {kind:?}: {:?}", done.as_ref().map(drop));
        let is_inside = at + len <= model.borrow().end_of_pages();
        match done {
            Ok(pin) => {
                assert!(is_inside, "a pin past the end succeeded");
                let (mut model, told) = (model.borrow_mut(), Told::by(&file));
                let pages = match kind {
                    PinKind::Read => model.pin_to_read(at..at + len, &told, &before),
                    PinKind::Write => model.pin_to_write(at..at + len, &told),
                };
                let blocks = told.blocks(at / PAGE..(at + len).div_ceil(PAGE));
                self.pins.push(Held { pin, pages, blocks });
            }
            Err(error) => {
                learn_moves(&file, &model);
                if is_inside {
                    self.may_be_full(&error);
                } else {
                    assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
                }
            }
        }
        line
    }

    pub(super) fn pin_store(&mut self) -> String {
        let Some((held, in_pages, len)) = self.pick_pin() else { return "no pins".to_owned() };
        let bytes = self.rng.bytes(len);
        let Held { pin, pages, .. } = &self.pins[held];
        let at = in_pages - pin.range().start % PAGE;
        match pin.write(&bytes, at) {
            Ok(()) => {
                let mut known = bytes.iter().copied().map(Some);
                for (index, part) in parts(in_pages..in_pages + len) {
                    pages[index].page().set(part.start, known.by_ref().take(part.len()));
                }
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::BadHandle),
        }
        format!("pin {held} {at}+{len}")
    }

    pub(super) fn pin_load(&mut self) -> String {
        let Some((held, in_pages, len)) = self.pick_pin() else { return "no pins".to_owned() };
        self.compare_pin(held, in_pages..in_pages + len);
        format!("pin {held} {in_pages}+{len}")
    }

    pub(super) fn unpin(&mut self) -> String {
        if self.pins.is_empty() {
            return "no pins".to_owned();
        }
        let held = self.rng.index(self.pins.len());
        drop(self.pins.swap_remove(held));
        if self.pins.is_empty() {
            assert_eq!(self.pool().usage().limbo.0, 0);
        }
        format!("pin {held}")
    }

    /// A place in a pin: which, where in its pages, and how long.
    fn pick_pin(&mut self) -> Option<(usize, u64, u64)> {
        if self.pins.is_empty() {
            return None;
        }
        let held = self.rng.index(self.pins.len());
        let range = self.pins[held].pin.range();
        let at = self.rng.below(range.end - range.start);
        let len = 1 + self.rng.below(range.end - range.start - at);
        Some((held, range.start % PAGE + at, len))
    }

    fn compare_pin(&self, held: usize, in_pages: Range<u64>) {
        let Held { pin, pages, .. } = &self.pins[held];
        let mut bytes = vec![0; us(in_pages.end - in_pages.start)];
        pin.read(&mut bytes, in_pages.start - pin.range().start % PAGE).unwrap();
        let part = |(index, part): (usize, Range<usize>)| pages[index].page().bytes(part);
        let expected: Vec<_> = parts(in_pages.clone()).flat_map(part).collect();
        compare(&bytes, &expected, in_pages.start);
    }
}
