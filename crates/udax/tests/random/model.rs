//! What a file is, in the simplest words: pages that may be shared with the pins on them.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

/// Bytes in a page.
pub(crate) const PAGE: u64 = 4096;

/// Bytes in a large page.
pub(crate) const HUGE: u64 = 2 << 20;

/// A page; `None` is a byte whose value nobody promises (past the end of the file).
pub(crate) type Page = Rc<RefCell<Vec<Option<u8>>>>;

/// A file. A page that is `None` is a hole.
#[derive(Debug, Default)]
pub(crate) struct Model {
    len: u64,
    pages: Vec<Option<Page>>,
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
                Some(page) => bytes.extend_from_slice(&page.borrow()[part]),
                None => bytes.extend(part.map(|_| Some(0))),
            }
        }
        bytes
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        let old = self.len;
        if len > old {
            self.len = len;
            self.pages.resize(us(len.div_ceil(PAGE)), None);
            self.fill(old..len.min(old.next_multiple_of(PAGE)), Some(0));
        } else {
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
            let page = self.page(index);
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
            } else if let Some(page) = &self.pages[index] {
                page.borrow_mut()[part].fill(Some(0));
            }
        }
        self.blur_tail();
    }

    /// The pages of a range, holes filled.
    pub(crate) fn pin(&mut self, range: Range<u64>) -> Vec<Page> {
        (range.start / PAGE..range.end.div_ceil(PAGE)).map(|index| self.page(us(index))).collect()
    }

    /// The pages that are wholly inside of a range.
    pub(crate) fn whole_pages(&self, range: Range<u64>) -> Vec<Page> {
        let indexes = us(range.start.div_ceil(PAGE))..us(range.end / PAGE).min(self.pages.len());
        self.pages.get(indexes).unwrap_or_default().iter().flatten().cloned().collect()
    }

    fn page(&mut self, index: usize) -> Page {
        let new = || Rc::new(RefCell::new(vec![Some(0); us(PAGE)]));
        Rc::clone(self.pages[index].get_or_insert_with(new))
    }

    fn fill(&mut self, range: Range<u64>, with: Option<u8>) {
        for (index, part) in parts(range) {
            if let Some(page) = &self.pages[index] {
                page.borrow_mut()[part].fill(with);
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
