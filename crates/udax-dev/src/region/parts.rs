//! Parts of a medium: what one device has of it, or what none has.

use std::ops::Range;
use udax_mm::sync::Arc;
use udax_mm::{Media, MediaRange, Order, Pages, PgmapOff};

/// Bytes of a medium, in whole pages.
///
/// # Invariants
///
/// 1. No part is empty, none overlaps another, and none begins where the one before it ends.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Parts(Vec<Range<u64>>);

impl Parts {
    /// What none of `taken` has of a medium of `len` bytes, in whole folios of `align`, in the order
    /// of the medium.
    pub(crate) fn between<'p>(
        taken: impl Iterator<Item = &'p Parts>,
        align: Order,
        len: u64,
    ) -> Parts {
        let mut taken: Vec<_> = taken.flat_map(|parts| parts.0.iter().cloned()).collect();
        taken.push(len..len);
        taken.sort_unstable_by_key(|part| part.start);
        let folio = align.pages().bytes();
        let (mut at, mut free) = (0, Vec::new());
        for part in taken {
            let gap = up(at, folio)..part.start - part.start % folio;
            if gap.start < gap.end {
                free.push(gap);
            }
            at = part.end;
        }
        Parts(free)
    }

    pub(crate) fn pages(&self) -> Pages {
        Pages::holding(self.0.iter().map(|part| part.end - part.start).sum())
    }

    pub(crate) fn ranges(&self, media: &Arc<dyn Media>) -> Vec<MediaRange> {
        let range = |part: &Range<u64>| MediaRange {
            media: Arc::clone(media),
            start: part.start,
            pages: Pages::holding(part.end - part.start),
        };
        self.0.iter().map(range).collect()
    }

    /// Takes `pages` out of `free`, which has as many: first what follows the last part, then one part
    /// that has all of the rest if there is one, and else from the start.
    pub(crate) fn take(&mut self, pages: Pages, free: Parts) {
        let (mut left, mut free) = (pages.bytes(), free.0);
        let end = self.0.last().map_or(u64::MAX, |part| part.end);
        let next = free.iter().position(|part| part.start == end);
        let mut first = next.map(|next| free.remove(next));
        while left > 0 {
            let part = first.take().unwrap_or_else(|| {
                let fits = |part: &Range<u64>| part.end - part.start >= left;
                free.remove(free.iter().position(fits).unwrap_or(0))
            });
            let taken = part.start..part.end.min(part.start + left);
            left -= taken.end - taken.start;
            self.push(taken);
        }
    }

    /// Gives `pages` back from the end, of which there are more.
    pub(crate) fn cut(&mut self, pages: Pages) {
        let mut left = pages.bytes();
        while let Some(last) = self.0.last_mut()
            && left > 0
        {
            let taken = left.min(last.end - last.start);
            last.end -= taken;
            left -= taken;
            if last.is_empty() {
                self.0.pop();
            }
        }
    }

    /// The page of the parts, laid out one behind the other, that begins at `byte` of the medium.
    pub(crate) fn page_of(&self, byte: u64) -> Option<PgmapOff> {
        let mut before = 0;
        for part in &self.0 {
            if part.contains(&byte) {
                return Some(PgmapOff::of_byte(before + (byte - part.start)));
            }
            before += part.end - part.start;
        }
        None
    }

    /// Where in the medium a page of the parts begins.
    ///
    /// # Panics
    ///
    /// Panics if they do not have it.
    pub(crate) fn byte_of(&self, page: PgmapOff) -> u64 {
        let mut left = page.byte();
        for part in &self.0 {
            let len = part.end - part.start;
            if left < len {
                return part.start + left;
            }
            left -= len;
        }
        panic!("page {page} lies outside the device");
    }

    fn push(&mut self, part: Range<u64>) {
        match self.0.last_mut() {
            Some(last) if last.end == part.start => last.end = part.end,
            _ => self.0.push(part),
        }
    }
}

/// The first multiple of `step` from `at` on.
fn up(at: u64, step: u64) -> u64 {
    at.div_ceil(step).saturating_mul(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    /// Parts from the first page of each to the second.
    fn parts(parts: &[(u64, u64)]) -> Parts {
        Parts(parts.iter().map(|(start, end)| start * PAGE..end * PAGE).collect())
    }

    #[test]
    fn what_is_free_is_what_nobody_has_in_whole_folios() {
        let taken = [parts(&[(100, 200), (1024, 1025)]), parts(&[(300, 301)])];
        let free = |align| Parts::between(taken.iter(), align, 2048 * PAGE + 7);
        assert_eq!(free(Order::Base), parts(&[(0, 100), (200, 300), (301, 1024), (1025, 2048)]));
        assert_eq!(free(Order::Pmd), parts(&[(512, 1024), (1536, 2048)]));
        assert_eq!(free(Order::Pud), parts(&[]));
    }

    #[test]
    fn parts_are_taken_behind_the_last_then_whole_then_from_the_start() {
        let free = parts(&[(0, 10), (20, 30), (40, 80)]);
        let cases = [
            (parts(&[(10, 20)]), 5, parts(&[(10, 25)])),
            (parts(&[(10, 20)]), 30, parts(&[(10, 30), (40, 60)])),
            (parts(&[(30, 35)]), 30, parts(&[(30, 35), (40, 70)])),
            (parts(&[(30, 35)]), 45, parts(&[(30, 35), (0, 10), (40, 75)])),
            (parts(&[]), 11, parts(&[(40, 51)])),
        ];
        for (mut has, pages, expected) in cases {
            let before = has.clone();
            has.take(Pages(pages), free.clone());
            assert_eq!(has, expected, "{before:?} and {pages} more");
        }
    }

    #[test]
    fn parts_are_given_back_from_the_end() {
        let mut has = parts(&[(30, 35), (0, 10)]);
        has.cut(Pages(4));
        assert_eq!(has, parts(&[(30, 35), (0, 6)]));
        has.cut(Pages(6));
        assert_eq!(has, parts(&[(30, 35)]));
        has.cut(Pages(1));
        assert_eq!(has, parts(&[(30, 34)]));
    }

    #[test]
    fn a_byte_of_the_medium_is_a_page_of_the_device_and_back() {
        let has = parts(&[(30, 35), (0, 10)]);
        for (page, at) in [(0, 30), (4, 34), (5, 0), (14, 9)] {
            assert_eq!(has.byte_of(PgmapOff(page)), at * PAGE);
            assert_eq!(has.page_of(at * PAGE), Some(PgmapOff(page)));
        }
        assert_eq!(has.page_of(20 * PAGE), None);
    }
}
