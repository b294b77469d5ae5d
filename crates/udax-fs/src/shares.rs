//! Which pages of data trees refer to more than once, and how often.
//!
//! This file owns the numbers in memory. Nothing of them is stored: mounting counts, as it derives
//! free space. Every number of a pool changes under the one lock around this, never under that of a
//! file, so that it is right for all files at any time (I-21). What a page loses with its last
//! reference is decided here (rule 25); how it is freed is in vacant.rs.

use std::collections::BTreeMap;
use std::ops::Range;

/// The pages to which more than one place of a tree refers. Memory grows with the number of ranges
/// that differ, not with that of pages.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Shares {
    /// Ranges of pages by their first one. No two overlap; two that touch have different counts.
    runs: BTreeMap<u64, Run>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Run {
    end: u64,
    /// How many places of trees refer to each page. [`HELD`] is one place.
    count: u64,
}

/// The count of a page that one place has left of several, while a pin from before goes on, or the
/// page is frozen, or a device may read it for a holder that died: who holds that may belong to
/// another file, so the page is not stored to (rule 27).
const HELD: u64 = 1;

impl Shares {
    /// One more place of a tree refers to each of `pages`, to which one refers already.
    pub(crate) fn add(&mut self, pages: Range<u64>) {
        self.change(pages, |_, count| count.max(1) + 1);
    }

    /// One place is left of each of `pages`, none of which is counted, and somebody holds it from
    /// when there were more.
    pub(crate) fn hold(&mut self, pages: Range<u64>) {
        self.change(pages, |_, old| {
            assert!(old == 0, "shares: what has several places needs no mark");
            HELD
        });
    }

    /// One place less refers to each of `pages`. Returns those to which none does any more. Where
    /// one place is left, `held_in` says which of the pages are held all the same.
    #[must_use]
    pub(crate) fn give_up(
        &mut self,
        pages: Range<u64>,
        mut held_in: impl FnMut(Range<u64>) -> Vec<Range<u64>>,
    ) -> Vec<Range<u64>> {
        let (mut last, mut held) = (Vec::new(), Vec::new());
        self.change(pages, |part, count| match count {
            0 | HELD => {
                last.push(part);
                0
            }
            2 => {
                held.extend(held_in(part));
                0
            }
            more => more - 1,
        });
        for part in held {
            self.change(part, |_, _| HELD);
        }
        last
    }

    /// Takes the marks off those of `pages` that nobody holds any more.
    pub(crate) fn let_go(
        &mut self,
        pages: Range<u64>,
        mut held_in: impl FnMut(Range<u64>) -> Vec<Range<u64>>,
    ) {
        let marked: Vec<Range<u64>> =
            self.parts(pages).filter(|(_, count)| *count == HELD).map(|(part, _)| part).collect();
        for part in marked {
            self.change(part.clone(), |_, _| 0);
            for held in held_in(part) {
                self.change(held, |_, _| HELD);
            }
        }
    }

    /// The part of `within` around `page` that is shared throughout (true), or nowhere.
    pub(crate) fn around(&self, page: u64, within: &Range<u64>) -> (bool, Range<u64>) {
        assert!(within.contains(&page), "shares: the page lies in the range around it");
        let before = self.runs.range(..=page).next_back();
        if let Some((&start, run)) = before
            && page < run.end
        {
            return (true, start.max(within.start)..run.end.min(within.end));
        }
        let start = before.map_or(0, |(_, run)| run.end);
        let after = self.runs.range(page..).next();
        let end = after.map_or(u64::MAX, |(&start, _)| start);
        (false, start.max(within.start)..end.min(within.end))
    }

    /// The part of `within` that is shared, in order.
    pub(crate) fn shared(&self, within: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        self.parts(within).map(|(part, _)| part)
    }

    /// How many pages have more than one place.
    pub(crate) fn pages(&self) -> u64 {
        self.counted().map(|(part, _)| part.end - part.start).sum()
    }

    /// The pages with more than one place, with how many.
    pub(crate) fn counted(&self) -> impl Iterator<Item = (Range<u64>, u64)> {
        self.parts(0..u64::MAX).filter(|(_, count)| *count > HELD)
    }

    /// Sets the count of pages that have none.
    pub(crate) fn set(&mut self, pages: Range<u64>, count: u64) {
        assert!(count > HELD, "shares: one place alone is not shared");
        self.change(pages, |_, old| {
            assert!(old == 0, "shares: the count is set once");
            count
        });
    }

    /// The runs that meet `within`, clipped to it.
    fn parts(&self, within: Range<u64>) -> impl Iterator<Item = (Range<u64>, u64)> {
        let first = self.runs.range(..=within.start).next_back().map_or(0, |(&start, _)| start);
        self.runs.range(first..within.end.max(first)).filter_map(move |(&start, run)| {
            let part = start.max(within.start)..run.end.min(within.end);
            (part.start < part.end).then_some((part, run.count))
        })
    }

    /// Gives each part of `pages` that has one count the one that `change` says.
    fn change(&mut self, pages: Range<u64>, mut change: impl FnMut(Range<u64>, u64) -> u64) {
        if pages.is_empty() {
            return;
        }
        self.split(pages.start);
        self.split(pages.end);
        let old: Vec<(Range<u64>, u64)> = self.parts(pages.clone()).collect();
        for (part, _) in &old {
            self.runs.remove(&part.start);
        }
        let mut at = pages.start;
        for (part, count) in old {
            if at < part.start {
                self.put(at..part.start, change(at..part.start, 0));
            }
            at = part.end;
            self.put(part.clone(), change(part, count));
        }
        if at < pages.end {
            self.put(at..pages.end, change(at..pages.end, 0));
        }
        self.join(pages.end);
    }

    /// Lets no run reach over `at`.
    fn split(&mut self, at: u64) {
        if let Some((_, run)) = self.runs.range_mut(..at).next_back()
            && run.end > at
        {
            let rest = *run;
            run.end = at;
            self.runs.insert(at, rest);
        }
    }

    /// Adds a run where there is none.
    fn put(&mut self, pages: Range<u64>, count: u64) {
        if count > 0 {
            self.runs.insert(pages.start, Run { end: pages.end, count });
            self.join(pages.start);
        }
    }

    /// Joins the run that starts at `at` to the one that ends there, if they count the same.
    fn join(&mut self, at: u64) {
        let Some(&after) = self.runs.get(&at) else { return };
        if let Some((_, before)) = self.runs.range_mut(..at).next_back()
            && before.end == at
            && before.count == after.count
        {
            before.end = after.end;
            self.runs.remove(&at);
        }
    }
}

#[cfg(test)]
#[path = "shares_tests.rs"]
mod tests;
