//! What a file is, in the simplest words: pages that may be shared with the pins on them, and with
//! other files.
//!
//! **What a pin sees.** The page that the file had when it was pinned, for ever. Where the file
//! shared it then, no store of any file reaches it: whoever stores moves to a page of its own. Where
//! the file had it alone, every store of the file reaches it, until the file gives the page up. So
//! each byte under a pin is known at any time.
//!
//! **What only the file knows** is asked ([`Told`]) when it begins to matter, and may be one of two:
//! a hole may in truth be a page of zeros, because a store may fill what is around it; that matters
//! when others come to share it. And a page that others had may still count as shared, if somebody
//! pinned it or the folio around it meanwhile; that matters to who pins it. The answer binds the
//! file from then on.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use crate::told::{Blocks, Told};

/// Bytes in a page.
pub(crate) const PAGE: u64 = 4096;

/// Bytes in a large page.
pub(crate) const HUGE: u64 = 2 << 20;

/// A page of memory.
#[derive(Debug)]
pub(crate) struct Memory {
    /// `None` is a byte whose value nobody promises (past the end of the file).
    bytes: RefCell<Vec<Option<u8>>>,
    /// Each pin that was taken while the page was shared has one of these, too. As long as there
    /// is one, nobody stores to the page.
    kept: Rc<()>,
}

/// A page, which files and pins have.
pub(crate) type Page = Rc<Memory>;

/// A page that is pinned.
#[derive(Debug)]
pub(crate) struct Pinned {
    page: Page,
    /// Keeps the page from every store, if it was shared when it was pinned.
    _kept: Option<Rc<()>>,
}

/// A place where a file has a page. Files that share the page share the place; pins have only the
/// page.
#[derive(Debug)]
pub(crate) struct Place {
    page: Page,
    /// Whether more than one place of files had it once.
    was_shared: Cell<bool>,
}

/// A file. A page that is `None` is a hole.
#[derive(Debug, Default)]
pub(crate) struct Model {
    len: u64,
    pages: Vec<Option<Rc<Place>>>,
}

impl Memory {
    /// Stores what `known` says from byte `at` on.
    pub(crate) fn set(&self, at: usize, known: impl Iterator<Item = Option<u8>>) {
        self.bytes.borrow_mut()[at..].iter_mut().zip(known).for_each(|(to, byte)| *to = byte);
    }

    /// The bytes of a range of the page.
    pub(crate) fn bytes(&self, range: Range<usize>) -> Vec<Option<u8>> {
        self.bytes.borrow()[range].to_vec()
    }
}

impl Pinned {
    pub(crate) fn page(&self) -> &Page {
        &self.page
    }
}

impl Place {
    fn new(bytes: Vec<Option<u8>>) -> Rc<Place> {
        let memory = Memory { bytes: RefCell::new(bytes), kept: Rc::new(()) };
        Rc::new(Place { page: Rc::new(memory), was_shared: Cell::new(false) })
    }

    fn zeros() -> Rc<Place> {
        Place::new(vec![Some(0); us(PAGE)])
    }

    /// Whether nobody stores to the page: others have it, or pins of when others had it.
    fn is_shared(self: &Rc<Place>) -> bool {
        Rc::strong_count(self) > 1 || Rc::strong_count(&self.page.kept) > 1
    }

    /// The file had the page alone and does not any more, for which pins have to be waited.
    fn part_with(self: &Rc<Place>, how: &str) {
        let is_pinned = Rc::strong_count(&self.page) > 1;
        assert!(!self.is_own() || !is_pinned, "a file's own page was {how}, and is pinned");
    }

    /// Compares what the file has `told` of the page with what it has to be, when somebody pins
    /// pages of `blocks`.
    fn check(self: &Rc<Place>, index: u64, told: &Told, blocks: &Blocks) -> Result<(), String> {
        // Who pins it may do so since others had it.
        let may_be_shared = self.is_shared() || self.was_shared.get() && told.is_in(index, blocks);
        match told.is_shared(index) {
            true if !may_be_shared => Err(format!("page {index} is said to be shared, and is not")),
            false if self.is_shared() => Err(format!("page {index} is shared, and nobody says so")),
            _ => Ok(()),
        }
    }

    /// Whether the file has the page alone: pins on it are waited for.
    fn is_own(self: &Rc<Place>) -> bool {
        !self.is_shared() && !self.was_shared.get()
    }
}

/// An index for a slice.
pub(crate) fn us(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

impl Model {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The end of the last page of the file.
    pub(crate) fn end_of_pages(&self) -> u64 {
        self.len.next_multiple_of(PAGE)
    }

    /// Whether the page that holds byte `at` is a hole.
    pub(crate) fn is_hole(&self, at: u64) -> bool {
        self.pages.get(us(at / PAGE)).is_none_or(Option::is_none)
    }

    /// The bytes of a range that lies in the pages of the file.
    pub(crate) fn bytes(&self, range: Range<u64>) -> Vec<Option<u8>> {
        let mut bytes = Vec::new();
        for (index, part) in parts(range) {
            match &self.pages[index] {
                Some(place) => bytes.extend_from_slice(&place.page.bytes.borrow()[part]),
                None => bytes.extend(part.map(|_| Some(0))),
            }
        }
        bytes
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        let old = self.len;
        if len > old {
            self.own_part(old);
            self.len = len;
            self.pages.resize(us(len.div_ceil(PAGE)), None);
            self.fill(old..len.min(old.next_multiple_of(PAGE)), Some(0));
        } else {
            self.own_part(len);
            self.len = len;
            self.pages.truncate(us(len.div_ceil(PAGE)));
        }
        self.blur_tail();
    }

    /// Lets the file end at byte `len`, if it ends before it.
    pub(crate) fn grow(&mut self, len: u64) {
        if self.len < len {
            self.set_len(len);
        }
    }

    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) {
        let end = at + u64::try_from(bytes.len()).unwrap();
        self.grow(end);
        self.store(at, bytes);
        self.blur_tail();
    }

    /// Stores into the pages of the file, also past its end, as a mapping does.
    pub(crate) fn store(&mut self, at: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (index, part) in parts(at..at + u64::try_from(bytes.len()).unwrap()) {
            let (these, after) = rest.split_at(part.len());
            let page = self.own(index);
            for (cell, &byte) in page.bytes.borrow_mut()[part].iter_mut().zip(these) {
                *cell = Some(byte);
            }
            rest = after;
        }
    }

    pub(crate) fn punch(&mut self, range: Range<u64>) {
        if range.start >= self.len {
            return;
        }
        let range = range.start..range.end.min(self.end_of_pages());
        for (index, part) in parts(range) {
            if part.len() == us(PAGE) {
                self.pages[index] = None;
            } else if self.pages[index].is_some() {
                self.own(index).bytes.borrow_mut()[part].fill(Some(0));
            }
        }
        self.blur_tail();
    }

    /// The pages of a range, holes filled, that a device reads. The file has `told` what they are
    /// now; before, somebody pinned pages of `blocks`.
    pub(crate) fn pin_to_read(
        &mut self,
        range: Range<u64>,
        told: &Told,
        blocks: &Blocks,
    ) -> Vec<Pinned> {
        let pin = |index: u64| {
            let place = self.pages[us(index)].get_or_insert_with(Place::zeros);
            place.check(index, told, blocks).unwrap_or_else(|why| panic!("pinned: {why}"));
            let is_shared = told.is_shared(index);
            if !is_shared {
                place.was_shared.set(false);
            }
            let page = Rc::clone(&place.page);
            Pinned { _kept: is_shared.then(|| Rc::clone(&page.kept)), page }
        };
        (range.start / PAGE..range.end.div_ceil(PAGE)).map(pin).collect()
    }

    /// The pages of a range, holes filled, that a device writes: the file's own.
    pub(crate) fn pin_to_write(&mut self, range: Range<u64>, told: &Told) -> Vec<Pinned> {
        let pin = |index: u64| {
            assert!(!told.is_shared(index), "page {index} is shared, and pinned to be written");
            let page = self.own(us(index));
            self.pages[us(index)].iter().for_each(|place| place.was_shared.set(false));
            Pinned { page, _kept: None }
        };
        (range.start / PAGE..range.end.div_ceil(PAGE)).map(pin).collect()
    }

    /// Compares what the file has `told` of its pages with what they have to be, when somebody pins
    /// pages of `blocks`.
    pub(crate) fn check(&self, told: &Told, blocks: &Blocks) -> Result<(), String> {
        for (index, slot) in (0..).zip(&self.pages) {
            match slot {
                Some(place) if told.is_data(index) => place.check(index, told, blocks)?,
                Some(_) => return Err(format!("page {index} is data, and said to be a hole")),
                None if told.is_shared(index) => {
                    return Err(format!("page {index} is shared, and was a hole"));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Learns which holes of a file are pages of zeros, which others may come to share.
    pub(crate) fn learn_zeros(&mut self, told: &Told) {
        for (index, slot) in (0..).zip(&mut self.pages) {
            if told.is_data(index) {
                slot.get_or_insert_with(Place::zeros);
            }
        }
    }

    /// Learns which pages the file does not share any more.
    pub(crate) fn learn_moves(&mut self, told: &Told) {
        for index in 0..self.pages.len() {
            let is_shared = self.pages[index].as_ref().is_some_and(Place::is_shared);
            if is_shared && !told.is_shared(u64::try_from(index).unwrap()) {
                self.own(index);
            }
        }
    }

    /// The pages that are wholly inside of a range, and whether the file has each alone.
    pub(crate) fn whole_pages(&self, range: Range<u64>) -> Vec<(Page, bool)> {
        let indexes = us(range.start.div_ceil(PAGE))..us(range.end / PAGE).min(self.pages.len());
        let places = self.pages.get(indexes).unwrap_or_default().iter().flatten();
        places.map(|place| (Rc::clone(&place.page), place.is_own())).collect()
    }

    /// The places of a range of pages, which another file is going to have, too.
    pub(crate) fn shared(&self, pages: Range<u64>) -> Vec<Option<Rc<Place>>> {
        let places = &self.pages[us(pages.start)..us(pages.end)];
        for place in places.iter().flatten() {
            place.part_with("shared");
            place.was_shared.set(true);
        }
        places.to_vec()
    }

    /// Puts places of a file in the place of what is there from page `to` on; the bytes end at
    /// `end`.
    pub(crate) fn take_over(&mut self, places: Vec<Option<Rc<Place>>>, to: u64, end: u64) {
        self.len = self.len.max(end);
        self.pages.resize(us(self.len.div_ceil(PAGE)), None);
        let before: Vec<_> = self.pages.splice(us(to)..us(to) + places.len(), places).collect();
        before.iter().flatten().for_each(|place| place.part_with("replaced"));
    }

    /// Gives the file pages of its own for a range of bytes.
    pub(crate) fn unshare(&mut self, range: Range<u64>) {
        for (index, _) in parts(range.start..range.end.min(self.end_of_pages())) {
            if self.pages[index].is_some() {
                self.own(index);
            }
        }
    }

    /// The page at an index, which the file is going to store to: zeros for a hole, a copy of what
    /// is shared.
    fn own(&mut self, index: usize) -> Page {
        let place = self.pages[index].get_or_insert_with(Place::zeros);
        if place.is_shared() {
            let bytes = place.page.bytes.borrow().clone();
            *place = Place::new(bytes);
        }
        Rc::clone(&place.page)
    }

    /// As [`Model::own`], for the page of a byte that is not its first.
    fn own_part(&mut self, byte: u64) {
        let index = us(byte / PAGE);
        if !byte.is_multiple_of(PAGE) && self.pages.get(index).is_some_and(Option::is_some) {
            self.own(index);
        }
    }

    fn fill(&mut self, range: Range<u64>, with: Option<u8>) {
        for (index, part) in parts(range) {
            if let Some(place) = &self.pages[index] {
                place.page.bytes.borrow_mut()[part].fill(with);
            }
        }
    }

    /// Forgets what is past the end of the file: a call that changes the file may zero it or not.
    pub(crate) fn blur_tail(&mut self) {
        self.fill(self.len..self.end_of_pages(), None);
    }
}

/// Cuts a range of bytes into the parts of its pages.
pub(crate) fn parts(range: Range<u64>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let pages = range.start / PAGE..if range.is_empty() { 0 } else { range.end.div_ceil(PAGE) };
    pages.map(move |index| {
        let first = index * PAGE;
        let start = range.start.max(first) - first;
        let end = range.end.min(first + PAGE) - first;
        (us(index), us(start)..us(end))
    })
}
