//! Sets of numbers kept as disjoint ranges, merged where they touch.
//!
//! Free blocks and pages in limbo are such sets: few ranges, however many numbers.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of `u64`. Every operation that touches one range takes logarithmic time.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ranges {
    /// From the start of each range to its end. No two overlap or touch; none is empty.
    ends: BTreeMap<u64, u64>,
    count: u64,
}

impl Ranges {
    /// How many numbers are in the set.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The ranges, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ends.iter().map(|(&start, &end)| start..end)
    }

    /// The first range.
    pub(crate) fn first(&self) -> Option<Range<u64>> {
        self.iter().next()
    }

    /// Whether `number` is in the set.
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.covers(&(number..number + 1))
    }

    /// Whether all of `range` is in the set.
    pub(crate) fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty()
            || self.ends.range(..=range.start).next_back().is_some_and(|(_, &end)| end >= range.end)
    }

    /// The parts of `range` that are in the set, in order.
    pub(crate) fn overlapping(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let reaches_in = self.ends.range(..range.start).next_back();
        let first = reaches_in.map_or(range.start, |(&start, _)| start);
        let met = self.ends.range(first..range.end.max(first));
        let parts = met.map(|(&start, &end)| start.max(range.start)..end.min(range.end));
        parts.filter(|part| !part.is_empty()).collect()
    }

    /// Adds `range`; what is in the set already stays.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.take(&range);
        self.count += range.end - range.start;
        let end = self.ends.remove(&range.end).unwrap_or(range.end);
        match self.ends.range_mut(..range.start).next_back() {
            Some((_, before)) if *before == range.start => *before = end,
            _ => {
                self.ends.insert(range.start, end);
            }
        }
    }

    /// Removes the parts of `range` that are in the set, and returns them in order.
    pub(crate) fn take(&mut self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut taken = Vec::new();
        while let Some(met) = self.last_meeting(range) {
            let part = met.start.max(range.start)..met.end.min(range.end);
            self.ends.remove(&met.start);
            if met.start < part.start {
                self.ends.insert(met.start, part.start);
            }
            if part.end < met.end {
                self.ends.insert(part.end, met.end);
            }
            self.count -= part.end - part.start;
            taken.push(part);
        }
        taken.reverse();
        taken
    }

    /// The last range of the set that overlaps `range`.
    fn last_meeting(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let (&start, &end) = self.ends.range(..range.end).next_back()?;
        (end > range.start && !range.is_empty()).then_some(start..end)
    }
}

impl FromIterator<Range<u64>> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Ranges {
        let mut set = Ranges::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set_of_numbers(
            steps in prop::collection::vec((any::<bool>(), 0..60_u64, 0..12_u64), 1..60)
        ) {
            let (mut set, mut model) = (Ranges::default(), BTreeSet::new());
            for (is_insert, start, len) in steps {
                let range = start..start + len;
                let covered = range.clone().all(|number| model.contains(&number));
                prop_assert_eq!(set.covers(&range), covered);
                let met: Vec<u64> = set.overlapping(&range).into_iter().flatten().collect();
                let both = range.clone().filter(|number| model.contains(number));
                prop_assert_eq!(met, both.collect::<Vec<u64>>());
                if is_insert {
                    set.insert(range.clone());
                    model.extend(range);
                } else {
                    let taken: Vec<u64> = set.take(&range).into_iter().flatten().collect();
                    let expected: Vec<u64> = range.filter(|number| model.remove(number)).collect();
                    prop_assert_eq!(taken, expected);
                }
                let numbers: Vec<u64> = set.iter().flatten().collect();
                prop_assert_eq!(&numbers, &model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(set.count(), u64::try_from(model.len()).unwrap());
                let merged: Vec<_> = set.iter().collect();
                prop_assert!(merged.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }
    }
}
