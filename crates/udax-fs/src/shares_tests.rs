//! Counts of ranges against counts of single pages.

use super::*;
use proptest::prelude::*;

const PAGES: u64 = 40;

/// What is true of one page.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    count: u64,
    is_pinned: bool,
    is_held: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Add,
    GiveUp,
    Pin,
    Unpin,
    LetGo,
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64, u64)>> {
    let step = prop_oneof![
        3 => Just(Step::Add),
        3 => Just(Step::GiveUp),
        1 => Just(Step::Pin),
        1 => Just(Step::Unpin),
        1 => Just(Step::LetGo),
    ];
    prop::collection::vec((step, 0..PAGES, 1..12_u64), 1..80)
}

fn runs(pages: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(run) if run.end == page => run.end += 1,
            _ => runs.push(page..page + 1),
        }
    }
    runs
}

struct Model {
    shares: Shares,
    pages: Vec<Page>,
}

impl Model {
    fn apply(&mut self, step: &Step, range: Range<u64>) -> Result<(), TestCaseError> {
        let before = self.pages.clone();
        let pinned = |part: Range<u64>| {
            runs(part.filter(|page| before[usize::try_from(*page).unwrap()].is_pinned))
        };
        let indices = range.clone().map(|page| usize::try_from(page).unwrap());
        match step {
            Step::Add => {
                self.shares.add(range);
                indices.for_each(|at| {
                    self.pages[at].count += 1;
                    self.pages[at].is_held = false;
                });
            }
            Step::GiveUp => {
                let mut last: Vec<u64> =
                    self.shares.give_up(range.clone(), pinned).into_iter().flatten().collect();
                last.sort_unstable();
                let expected: Vec<u64> =
                    range.filter(|at| before[usize::try_from(*at).unwrap()].count == 1).collect();
                prop_assert_eq!(last, expected);
                for at in indices {
                    let page = &mut self.pages[at];
                    // The last place is given to another file at once.
                    page.is_held = page.count == 2 && page.is_pinned;
                    page.count = page.count.max(2) - 1;
                }
            }
            Step::Pin => indices.for_each(|at| self.pages[at].is_pinned = true),
            Step::Unpin => indices.for_each(|at| self.pages[at].is_pinned = false),
            Step::LetGo => {
                self.shares.let_go(range, pinned);
                indices.for_each(|at| self.pages[at].is_held &= self.pages[at].is_pinned);
            }
        }
        Ok(())
    }

    fn verify(&self) -> Result<(), TestCaseError> {
        for (at, page) in (0..).zip(&self.pages) {
            let (is_shared, around) = self.shares.around(at, &(0..PAGES));
            prop_assert_eq!(is_shared, page.count > 1 || page.is_held, "page {}", at);
            prop_assert!(around.contains(&at));
        }
        let counted = crate::num::to_u64(self.pages.iter().filter(|page| page.count > 1).count());
        prop_assert_eq!(self.shares.pages(), counted);
        let runs: Vec<_> = self.shares.runs.iter().collect();
        let is_merged = |pair: &[(&u64, &Run)]| {
            pair[0].1.end < *pair[1].0
                || (pair[0].1.end == *pair[1].0 && pair[0].1.count != pair[1].1.count)
        };
        prop_assert!(runs.windows(2).all(is_merged), "{:?}", runs);
        Ok(())
    }
}

proptest! {
    #[test]
    fn ranges_of_counts_are_counts_of_pages(steps in steps()) {
        let pages = vec![Page { count: 1, ..Page::default() }; usize::try_from(PAGES).unwrap()];
        let mut model = Model { shares: Shares::default(), pages };
        for (step, start, len) in steps {
            model.apply(&step, start..(start + len).min(PAGES))?;
            model.verify()?;
        }
    }
}

#[test]
fn a_page_that_is_pinned_stays_marked_until_the_pin_is_gone() {
    let mut shares = Shares::default();
    shares.add(10..20);
    let all = |part: Range<u64>| vec![part];
    assert_eq!(shares.give_up(10..20, all), vec![]);
    assert_eq!(shares.around(15, &(0..100)), (true, 10..20));
    assert_eq!(shares.pages(), 0, "one place alone is not counted");
    shares.let_go(0..15, |_| Vec::new());
    assert_eq!(shares.around(12, &(0..100)), (false, 0..15));
    assert_eq!(shares.around(17, &(0..100)), (true, 15..20));
    assert_eq!(shares.give_up(10..20, all), vec![10..15, 15..20]);
    assert_eq!(shares, Shares::default());
}
