//! Which images of an epoch are tried, and in which order.
//!
//! Only lines that the judge reads are varied: what recovery does not read cannot change what it
//! finds. Which lines those are is learnt from the images tried, until no image reads a new one.

use crate::epoch::{Choice, Epoch, Rest};
use crate::rng::Rng;
use std::collections::{BTreeSet, HashMap, HashSet};
use udax_mm::image::{Image, ImageMedia, LinesRead};
use udax_mm::sync::Arc;

/// How many images are tried at most.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Up to this many, all are tried; above, the ones of [`sample`].
    pub product: u128,
    /// Lines whose prefixes are tried one by one when sampling.
    pub lines: usize,
    /// Pairs of lines when sampling.
    pub pairs: usize,
    /// Random images when sampling.
    pub random: usize,
}

/// The images that were judged since the expectations last changed, by their hashes.
///
/// Hashes are comparable among the traces that began with the same bytes.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    images: HashMap<u64, Known>,
    /// Most images are read alike.
    reads: HashSet<Arc<LinesRead>>,
}

/// An image that was judged.
#[derive(Clone, Debug)]
struct Known {
    lines: Arc<LinesRead>,
    /// Whether it was also changed.
    is_used: bool,
}

/// What a judge says about one image.
#[derive(Debug)]
pub struct Outcome {
    /// The medium that was judged: it knows which lines were read.
    pub media: Arc<ImageMedia>,
    /// Whether the judge also changed what it found.
    pub is_used: bool,
    /// What is wrong, if anything is.
    pub problem: Option<String>,
}

/// What came of one epoch.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Images judged.
    pub tried: u64,
    /// Those of them that were also changed afterwards.
    pub used: u64,
    /// Images that were equal to one judged before.
    pub repeated: u64,
    /// Legal images over the lines that were read.
    pub possible: f64,
    /// Whether all of these were tried.
    pub is_exhaustive: bool,
    /// The first image with a problem: its lines and what is wrong. Nothing after it is tried.
    pub failure: Option<(String, String)>,
}

/// The search through the images of one epoch.
struct Search<'a, J> {
    epoch: &'a Epoch,
    seen: &'a mut Seen,
    judge: J,
    /// Indices of the lines that some image tried so far read.
    varied: BTreeSet<usize>,
    tally: Tally,
}

impl Bound {
    /// The bound of a full run.
    pub const FULL: Bound = Bound { product: 4096, lines: 256, pairs: 2048, random: 64 };

    /// A bound for a look while working.
    pub const QUICK: Bound = Bound { product: 256, lines: 24, pairs: 64, random: 16 };

    /// A bound for a test that runs with every build.
    pub const SMOKE: Bound = Bound { product: 64, lines: 8, pairs: 8, random: 4 };
}

/// Tries the images of `epoch` until one has a problem.
///
/// Images in `seen` are skipped, and those tried are added to it. Which lines are read is known of
/// the two extremes first; they are tried again if they were not used, so that each epoch is.
pub fn explore(
    epoch: &Epoch,
    bound: &Bound,
    rng: &mut Rng,
    seen: &mut Seen,
    judge: impl FnMut(&Image) -> Outcome,
) -> Tally {
    let mut search =
        Search { epoch, seen, judge, varied: BTreeSet::new(), tally: Tally::default() };
    for rest in [Rest::Everything, Rest::Nothing] {
        search.try_extreme(&Choice { rest, except: vec![] });
    }
    loop {
        let varied: Vec<usize> = search.varied.iter().copied().collect();
        let states: Vec<usize> = varied.iter().map(|i| epoch.lines[*i].states.len()).collect();
        let possible = possible(&states);
        search.tally.possible = possible;
        let is_small = possible <= approximate(bound.product);
        let choices = if is_small { product(&states) } else { sample(&states, bound, rng) };
        search.tally.is_exhaustive = is_small;
        search.try_all(&varied, choices);
        if search.tally.failure.is_some() || search.varied.len() == varied.len() {
            return search.tally;
        }
    }
}

impl<J: FnMut(&Image) -> Outcome> Search<'_, J> {
    fn try_all(&mut self, varied: &[usize], choices: Vec<Choice>) {
        for choice in choices {
            if self.tally.failure.is_some() {
                return;
            }
            let choice = on_lines(&choice, varied, self.epoch);
            let (image, hash) = self.epoch.image(&choice);
            if self.seen.images.contains_key(&hash) {
                self.tally.repeated += 1;
            } else {
                self.judge(&choice, &image, hash);
            }
        }
    }

    fn try_extreme(&mut self, choice: &Choice) {
        let (image, hash) = self.epoch.image(choice);
        match self.seen.images.get(&hash) {
            Some(known) if known.is_used => {
                self.tally.repeated += 1;
                let lines = Arc::clone(&known.lines);
                self.vary(&lines);
            }
            _ => self.judge(choice, &image, hash),
        }
    }

    fn judge(&mut self, choice: &Choice, image: &Image, hash: u64) {
        self.tally.tried += 1;
        let outcome = (self.judge)(image);
        self.tally.used += u64::from(outcome.is_used);
        let lines = self.seen.add(hash, &outcome);
        self.vary(&lines);
        if let Some(problem) = outcome.problem {
            let failure = (self.epoch.describe(choice), problem);
            self.tally.failure.get_or_insert(failure);
        }
    }

    /// Varies the lines of the epoch that are among `read`.
    fn vary(&mut self, read: &LinesRead) {
        let lines = self.epoch.lines.iter().enumerate();
        let read = lines.filter(|(_, line)| read.contains(line.number));
        self.varied.extend(read.map(|(index, _)| index));
    }
}

impl Seen {
    /// Adds an image that was judged, and returns the lines that were read of it.
    fn add(&mut self, hash: u64, outcome: &Outcome) -> Arc<LinesRead> {
        let read = Arc::new(outcome.media.lines_read());
        let known = self.reads.get(&read).map(Arc::clone);
        let lines = known.unwrap_or_else(|| {
            self.reads.insert(Arc::clone(&read));
            read
        });
        let known = Known { lines: Arc::clone(&lines), is_used: outcome.is_used };
        self.images.insert(hash, known);
        lines
    }
}

/// Every combination of states.
fn product(states: &[usize]) -> Vec<Choice> {
    let mut counter = vec![0; states.len()];
    let mut choices = Vec::new();
    loop {
        let except = counter.iter().copied().enumerate().collect();
        choices.push(Choice { rest: Rest::Nothing, except });
        let Some(digit) = (0..states.len()).find(|digit| counter[*digit] + 1 < states[*digit])
        else {
            return choices;
        };
        counter[..digit].fill(0);
        counter[digit] += 1;
    }
}

/// Each prefix of each line with the other lines at both extremes (so each line alone and all but
/// one are among them), pairs of lines, and random images.
fn sample(states: &[usize], bound: &Bound, rng: &mut Rng) -> Vec<Choice> {
    let mut choices = Vec::new();
    for line in some(states.len(), bound.lines, rng) {
        for state in 0..states[line] {
            for rest in [Rest::Nothing, Rest::Everything] {
                choices.push(Choice { rest, except: vec![(line, state)] });
            }
        }
    }
    for (first, second) in pairs(states.len(), bound.pairs, rng) {
        let except = vec![(first, states[first] - 1), (second, states[second] - 1)];
        choices.push(Choice { rest: Rest::Nothing, except });
        choices.push(Choice { rest: Rest::Everything, except: vec![(first, 0), (second, 0)] });
    }
    for _ in 0..bound.random {
        let except = states.iter().map(|states| rng.below(*states)).enumerate().collect();
        choices.push(Choice { rest: Rest::Nothing, except });
    }
    choices
}

/// All numbers below `count`, or `max` random ones of them.
fn some(count: usize, max: usize, rng: &mut Rng) -> BTreeSet<usize> {
    if count <= max { (0..count).collect() } else { (0..max).map(|_| rng.below(count)).collect() }
}

/// All pairs of numbers below `count`, or `max` random ones of them.
fn pairs(count: usize, max: usize, rng: &mut Rng) -> BTreeSet<(usize, usize)> {
    if count * count.saturating_sub(1) / 2 <= max {
        return (0..count).flat_map(|high| (0..high).map(move |low| (low, high))).collect();
    }
    let pair = |_| {
        let high = 1 + rng.below(count - 1);
        (rng.below(high), high)
    };
    (0..max).map(pair).collect()
}

/// Turns a choice among the varied lines into one among all lines of the epoch. The lines that
/// nobody reads stand at their last state.
fn on_lines(choice: &Choice, varied: &[usize], epoch: &Epoch) -> Choice {
    let named = choice.except.iter().map(|(line, state)| (varied[*line], *state));
    if choice.rest == Rest::Everything {
        return Choice { rest: Rest::Everything, except: named.collect() };
    }
    let mut states: Vec<Option<usize>> = vec![None; epoch.lines.len()];
    for line in varied {
        states[*line] = Some(0);
    }
    for (line, state) in named {
        states[line] = Some(state);
    }
    let except = states.iter().enumerate().filter_map(|(line, state)| Some((line, (*state)?)));
    Choice { rest: Rest::Everything, except: except.collect() }
}

/// The number of combinations.
fn possible(states: &[usize]) -> f64 {
    states.iter().map(|states| approximate(u128::try_from(*states).expect("it fits"))).product()
}

/// A count as a float: exact up to 2^53, which is far above every bound.
fn approximate(count: u128) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::{Cause, PendingLine, Phase};
    use udax_mm::Media;

    /// Tries an epoch with one line in flight twice, and returns how often an image was judged, and
    /// how many images are possible, the second time.
    fn again(is_used: bool) -> (u64, f64) {
        let durable = Image::zeroed(4096);
        let line = PendingLine { number: 3, states: vec![[0; 64], [1; 64]] };
        let (cause, phase) = (Cause::End, Phase::Ended(0));
        let epoch = Epoch { event: 0, cause, phase, durable, hash: 0, lines: vec![line] };
        let judge = |image: &Image| {
            let media = Arc::new(ImageMedia::new(image.clone()));
            media.load_u64(3 * 64).unwrap();
            Outcome { media, is_used, problem: None }
        };
        let (mut seen, mut rng) = (Seen::default(), Rng::new(1));
        assert_eq!(explore(&epoch, &Bound::SMOKE, &mut rng, &mut seen, judge).tried, 2);
        let tally = explore(&epoch, &Bound::SMOKE, &mut rng, &mut seen, judge);
        (tally.tried, tally.possible)
    }

    #[test]
    fn an_image_that_was_used_is_not_judged_again_and_what_it_read_is_known() {
        assert_eq!(again(true), (0, 2.0));
    }

    #[test]
    fn the_extremes_are_judged_again_until_they_were_used() {
        assert_eq!(again(false), (2, 2.0));
    }

    #[test]
    fn the_product_holds_every_combination_once() {
        let choices = product(&[2, 3, 2]);
        let distinct: HashSet<String> = choices.iter().map(|c| format!("{c:?}")).collect();
        assert_eq!((choices.len(), distinct.len()), (12, 12));
    }

    #[test]
    fn a_sample_holds_each_line_alone_and_all_but_each() {
        let choices = sample(&[2; 20], &Bound::FULL, &mut Rng::new(1));
        for line in 0..20 {
            let alone = Choice { rest: Rest::Nothing, except: vec![(line, 1)] };
            let missing = Choice { rest: Rest::Everything, except: vec![(line, 0)] };
            assert!(choices.contains(&alone), "line {line} alone");
            assert!(choices.contains(&missing), "all but line {line}");
        }
    }

    #[test]
    fn a_sample_holds_all_pairs_when_they_fit() {
        let both = |choice: &&Choice| choice.rest == Rest::Nothing && choice.except.len() == 2;
        let choices = sample(&[2; 20], &Bound::FULL, &mut Rng::new(1));
        assert_eq!(choices.iter().filter(both).count(), 190);
    }
}
