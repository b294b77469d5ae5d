//! What a file is, in the simplest words: pages that may be shared with the pins on them, and with
//! other files.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

/// Bytes in a page.
pub(crate) const PAGE: u64 = 4096;

/// Bytes in a large page.
pub(crate) const HUGE: u64 = 2 << 20;

/// A page; `None` is a byte whose value nobody promises (past the end of the file).
pub(crate) type Page = Rc<RefCell<Vec<Option<u8>>>>;

/// A place where a file has a page. Files that share the page share the place; pins have only the
/// page.
#[derive(Debug)]
pub(crate) struct Place {
    page: Page,
    /// Whether more than one file had it once.
    was_shared: Cell<bool>,
}

/// A file. A page that is `None` is a hole.
#[derive(Debug, Default)]
pub(crate) struct Model {
    len: u64,
    pages: Vec<Option<Rc<Place>>>,
}

impl Place {
    fn new(bytes: Vec<Option<u8>>) -> Rc<Place> {
        Rc::new(Place { page: Rc::new(RefCell::new(bytes)), was_shared: Cell::new(false) })
    }

    /// Whether the file has the page alone, and always had: pins on it are waited for.
    fn is_own(self: &Rc<Place>) -> bool {
        Rc::strong_count(self) == 1 && !self.was_shared.get()
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
                Some(place) => bytes.extend_from_slice(&place.page.borrow()[part]),
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

    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) {
        let end = at + u64::try_from(bytes.len()).unwrap();
        if end > self.len {
            self.set_len(end);
        }
        self.store(at, bytes);
        self.blur_tail();
    }

    /// Stores into the pages of the file, also past its end, as a mapping does.
    pub(crate) fn store(&mut self, at: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (index, part) in parts(at..at + u64::try_from(bytes.len()).unwrap()) {
            let (these, after) = rest.split_at(part.len());
            let page = self.own(index);
            for (cell, &byte) in page.borrow_mut()[part].iter_mut().zip(these) {
                *cell = Some(byte);
            }
            rest = after;
        }
    }

    pub(crate) fn punch(&mut self, range: Range<u64>) {
        let range = range.start..range.end.min(self.end_of_pages());
        for (index, part) in parts(range) {
            if part.len() == us(PAGE) {
                self.pages[index] = None;
            } else if self.pages[index].is_some() {
                self.own(index).borrow_mut()[part].fill(Some(0));
            }
        }
        self.blur_tail();
    }

    /// The pages of a range, holes filled, that a device reads.
    pub(crate) fn pin_to_read(&mut self, range: Range<u64>) -> Vec<Page> {
        let new = || Place::new(vec![Some(0); us(PAGE)]);
        let place = |index| Rc::clone(&self.pages[us(index)].get_or_insert_with(new).page);
        (range.start / PAGE..range.end.div_ceil(PAGE)).map(place).collect()
    }

    /// The pages of a range, holes filled, that a device writes: the file's own.
    pub(crate) fn pin_to_write(&mut self, range: Range<u64>) -> Vec<Page> {
        (range.start / PAGE..range.end.div_ceil(PAGE)).map(|index| self.own(us(index))).collect()
    }

    /// The pages that are wholly inside of a range, and whether the file has each alone.
    pub(crate) fn whole_pages(&self, range: Range<u64>) -> Vec<(Page, bool)> {
        let indexes = us(range.start.div_ceil(PAGE))..us(range.end / PAGE).min(self.pages.len());
        let places = self.pages.get(indexes).unwrap_or_default().iter().flatten();
        places.map(|place| (Rc::clone(&place.page), place.is_own())).collect()
    }

    /// The places of a range of pages, which another file is going to have, too.
    pub(crate) fn shared(&self, pages: Range<u64>) -> Vec<Option<Rc<Place>>> {
        let places = self.pages[us(pages.start)..us(pages.end)].to_vec();
        places.iter().flatten().for_each(|place| place.was_shared.set(true));
        places
    }

    /// Puts places of a file in the place of what is there from page `to` on; the bytes end at
    /// `end`.
    pub(crate) fn take_over(&mut self, places: Vec<Option<Rc<Place>>>, to: u64, end: u64) {
        if self.len < to * PAGE {
            self.set_len(to * PAGE);
        }
        self.len = self.len.max(end);
        self.pages.resize(us(self.len.div_ceil(PAGE)), None);
        self.pages.splice(us(to)..us(to) + places.len(), places);
    }

    /// Gives the file pages of its own for a range of bytes.
    pub(crate) fn unshare(&mut self, range: Range<u64>) {
        for (index, _) in parts(range.start..range.end.min(self.len)) {
            if self.pages[index].is_some() {
                self.own(index);
            }
        }
    }

    /// The page at an index, which the file is going to store to: zeros for a hole, a copy of what
    /// others have.
    fn own(&mut self, index: usize) -> Page {
        let place = self.pages[index].get_or_insert_with(|| Place::new(vec![Some(0); us(PAGE)]));
        let is_shared = Rc::strong_count(place) > 1;
        let is_pinned = Rc::strong_count(&place.page) > 1;
        if is_shared || place.was_shared.get() && is_pinned {
            let bytes = place.page.borrow().clone();
            if !is_shared {
                // Whether the pin is from when others had the page, and the file leaves it, or from
                // later, and sees what is stored, nobody says.
                place.page.borrow_mut().fill(None);
            }
            *place = Place::new(bytes);
        }
        place.was_shared.set(false);
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
                place.page.borrow_mut()[part].fill(with);
            }
        }
    }

    /// Forgets what is past the end of the file: a call that changes the file may zero it or not.
    fn blur_tail(&mut self) {
        self.fill(self.len..self.end_of_pages(), None);
    }
}

/// Cuts a range of bytes into the parts of its pages.
fn parts(range: Range<u64>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let pages = range.start / PAGE..if range.is_empty() { 0 } else { range.end.div_ceil(PAGE) };
    pages.map(move |index| {
        let first = index * PAGE;
        let start = range.start.max(first) - first;
        let end = range.end.min(first + PAGE) - first;
        (us(index), us(start)..us(end))
    })
}
