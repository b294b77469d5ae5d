//! What a recorded workload did to its medium, replayed.
//!
//! This file owns the model of the hardware: which stores are in flight at each moment, and what a
//! fence makes durable. It does not choose among the images that follow from it.

use crate::epoch::{Cause, Epoch, Line, PendingLine, Phase, line_hash};
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use udax_mm::image::{Image, UNIT_SIZE};
use udax_mm::media::Site;
use udax_mm::recorder::{Event, LeftOut, Mark};

/// A medium as it was, and everything that happened to it since.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The bytes at the beginning, all of them durable.
    pub start: Image,
    /// What happened, in order.
    pub events: Vec<Event>,
}

/// What the rules of persistence say about a trace, whatever the images show.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Lines that are not certainly durable at the very end, when the pool was closed. There must
    /// be none.
    pub lost: Vec<u64>,
    /// Lines never flushed when an operation returned, over all operations. Legal where recovery
    /// does not need them, which the images show.
    pub unflushed: usize,
    /// Lines flushed and not fenced when an operation returned, likewise.
    pub unfenced: usize,
    /// Flushes of lines that held nothing to flush.
    pub wasted: BTreeMap<Site, usize>,
}

/// The moments of a trace at which a crash is tried. Made by [`Trace::epochs`].
#[derive(Debug)]
pub struct Epochs<'t> {
    trace: &'t Trace,
    replay: Replay,
    phase: Phase,
    event: usize,
    between: BTreeSet<usize>,
    /// Whether something was stored since the last flush.
    has_stored: bool,
}

/// The medium while a trace is replayed.
#[derive(Clone, Debug)]
struct Replay {
    durable: Image,
    hash: u64,
    pending: BTreeMap<u64, Stores>,
}

/// The stores to one line that are not durable.
#[derive(Clone, Debug, Default)]
struct Stores {
    /// The unit inside the line and its value, in program order.
    units: Vec<(usize, u64)>,
    /// How many of them were flushed.
    flushed: usize,
}

impl Trace {
    /// The moments to try: every fence, the first flush after stores, every end of an operation,
    /// and two random moments of each operation.
    pub fn epochs(&self, seed: u64) -> Epochs<'_> {
        Epochs {
            trace: self,
            replay: Replay::new(self.start.clone()),
            phase: Phase::Start,
            event: 0,
            between: self.moments_between(seed),
            has_stored: false,
        }
    }

    /// What can be said without looking at any image.
    pub fn rules(&self) -> Rules {
        let mut replay = Replay::new(self.start.clone());
        let mut rules = Rules::default();
        for event in &self.events {
            match event {
                Event::Flush { line, site } if !replay.is_dirty(*line) => {
                    *rules.wasted.entry(*site).or_default() += 1;
                }
                Event::Mark(Mark::End(_)) => {
                    let unflushed = replay.pending.values().filter(|stores| stores.is_dirty());
                    let unflushed = unflushed.count();
                    rules.unflushed += unflushed;
                    rules.unfenced += replay.pending.len() - unflushed;
                }
                _ => {}
            }
            replay.apply(event);
        }
        rules.lost = replay.pending.into_keys().collect();
        rules
    }

    /// Every flush and fence that was carried out inside the operations `ops`, as the fault of
    /// leaving it out.
    pub fn sites(&self, ops: Range<usize>) -> BTreeSet<LeftOut> {
        let mut is_inside = false;
        let mut sites = BTreeSet::new();
        for event in &self.events {
            match event {
                Event::Mark(Mark::Begin(op)) => is_inside = ops.contains(op),
                Event::Mark(Mark::End(_)) => is_inside = false,
                Event::Flush { site, .. } if is_inside => {
                    sites.insert(LeftOut::Flush(site));
                }
                Event::Fence { site } if is_inside => {
                    sites.insert(LeftOut::Fence(site));
                }
                Event::Store { .. } | Event::Flush { .. } | Event::Fence { .. } => {}
            }
        }
        sites
    }

    fn moments_between(&self, seed: u64) -> BTreeSet<usize> {
        let mut rng = Rng::new(seed);
        let mut moments = BTreeSet::new();
        let mut begun = 0;
        for (index, event) in self.events.iter().enumerate() {
            match event {
                Event::Mark(Mark::Begin(_)) => begun = index,
                Event::Mark(Mark::End(_)) => {
                    moments.extend([0; 2].map(|_| begun + 1 + rng.below(index - begun)));
                }
                _ => {}
            }
        }
        moments
    }
}

impl Iterator for Epochs<'_> {
    type Item = Epoch;

    fn next(&mut self) -> Option<Epoch> {
        loop {
            let event = self.trace.events.get(self.event)?;
            let cause = self.cause(event);
            match event {
                Event::Mark(Mark::Begin(op)) => self.phase = Phase::Running(*op),
                Event::Mark(Mark::End(op)) => self.phase = Phase::Ended(*op),
                Event::Store { .. } => self.has_stored = true,
                Event::Flush { .. } => self.has_stored = false,
                Event::Fence { .. } => {}
            }
            let epoch = cause.map(|cause| self.replay.epoch(self.event, cause, self.phase));
            self.replay.apply(event);
            self.event += 1;
            if epoch.is_some() {
                return epoch;
            }
        }
    }
}

impl Epochs<'_> {
    /// Why a crash is tried before `event`, if it is.
    fn cause(&self, event: &Event) -> Option<Cause> {
        match event {
            Event::Fence { site } => Some(Cause::Fence(site)),
            Event::Flush { site, .. } if self.has_stored => Some(Cause::Flush(site)),
            Event::Mark(Mark::End(_)) => Some(Cause::End),
            _ if self.between.contains(&self.event) => Some(Cause::Between),
            _ => None,
        }
    }
}

impl Replay {
    fn new(durable: Image) -> Replay {
        Replay { durable, hash: 0, pending: BTreeMap::new() }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Store { at, value } => {
                let unit = usize::try_from(at % 64 / 8).expect("a line has 8 units");
                self.pending.entry(at / 64).or_default().units.push((unit, *value));
            }
            Event::Flush { line, .. } => {
                if let Some(stores) = self.pending.get_mut(line) {
                    stores.flushed = stores.units.len();
                }
            }
            Event::Fence { .. } => self.fence(),
            Event::Mark(_) => {}
        }
    }

    fn fence(&mut self) {
        let (durable, hash) = (&mut self.durable, &mut self.hash);
        self.pending.retain(|number, stores| {
            let old = durable.line(*number);
            let mut line = old;
            for (unit, value) in stores.units.drain(..stores.flushed) {
                store(&mut line, unit, value);
            }
            stores.flushed = 0;
            if line != old {
                durable.write(number * 64, &line);
                *hash ^= line_hash(*number, &old) ^ line_hash(*number, &line);
            }
            !stores.units.is_empty()
        });
    }

    fn is_dirty(&self, line: u64) -> bool {
        self.pending.get(&line).is_some_and(Stores::is_dirty)
    }

    fn epoch(&self, event: usize, cause: Cause, phase: Phase) -> Epoch {
        let lines = self.pending.iter().map(|(number, stores)| PendingLine {
            number: *number,
            states: stores.states(self.durable.line(*number)),
        });
        Epoch {
            event,
            cause,
            phase,
            durable: self.durable.clone(),
            hash: self.hash,
            lines: lines.filter(|line| line.states.len() > 1).collect(),
        }
    }
}

impl Stores {
    fn is_dirty(&self) -> bool {
        self.flushed < self.units.len()
    }

    /// What the line may hold if it holds `durable` before the first store.
    fn states(&self, durable: Line) -> Vec<Line> {
        let mut states = vec![durable];
        let mut line = durable;
        for (unit, value) in &self.units {
            store(&mut line, *unit, *value);
            if states.last() != Some(&line) {
                states.push(line);
            }
        }
        states
    }
}

fn store(line: &mut Line, unit: usize, value: u64) {
    line[unit * UNIT_SIZE..][..UNIT_SIZE].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::Location;

    fn epochs(events: Vec<Event>) -> Vec<Epoch> {
        let trace = Trace { start: Image::zeroed(4096), events };
        trace
            .epochs(0)
            .filter(|epoch| matches!(epoch.cause, Cause::Fence(_) | Cause::End))
            .collect()
    }

    fn stored(at: u64, value: u64) -> Event {
        Event::Store { at, value }
    }

    fn flush(line: u64) -> Event {
        Event::Flush { line, site: Location::caller() }
    }

    fn fence() -> Event {
        Event::Fence { site: Location::caller() }
    }

    /// The first byte of each state of each line in flight.
    fn states(epoch: &Epoch) -> Vec<(u64, Vec<u8>)> {
        let first = |line: &PendingLine| line.states.iter().map(|state| state[0]).collect();
        epoch.lines.iter().map(|line| (line.number, first(line))).collect()
    }

    #[test]
    fn a_line_may_hold_any_prefix_of_its_stores() {
        let epochs = epochs(vec![stored(0, 1), stored(0, 2), stored(64, 3), fence()]);
        assert_eq!(states(&epochs[0]), [(0, vec![0, 1, 2]), (1, vec![0, 3])]);
    }

    #[test]
    fn a_fence_makes_exactly_what_was_flushed_before_it_durable() {
        let events =
            vec![stored(0, 1), flush(0), stored(0, 2), stored(64, 3), fence(), flush(0), fence()];
        let epochs = epochs(events);
        assert_eq!(states(&epochs[0]), [(0, vec![0, 1, 2]), (1, vec![0, 3])]);
        assert_eq!(states(&epochs[1]), [(0, vec![1, 2]), (1, vec![0, 3])]);
    }

    #[test]
    fn a_store_that_changes_nothing_is_no_state_of_its_own() {
        let epochs = epochs(vec![stored(0, 0), stored(8, 0), fence()]);
        assert_eq!(states(&epochs[0]), []);
    }

    #[test]
    fn an_image_and_its_hash_do_not_depend_on_when_its_bytes_became_durable() {
        use crate::epoch::{Choice, Rest};
        let events = vec![stored(0, 1), flush(0), fence(), fence()];
        let epochs = epochs(events);
        let everything = Choice { rest: Rest::Everything, except: vec![] };
        let nothing = Choice { rest: Rest::Nothing, except: vec![] };
        let (before, hash) = epochs[0].image(&everything);
        let (after, same) = epochs[1].image(&nothing);
        assert_eq!(before.line(0), after.line(0));
        assert_eq!(hash, same);
        assert_ne!(hash, epochs[0].image(&nothing).1);
    }

    #[test]
    fn the_rules_count_what_is_in_flight_and_what_was_flushed_for_nothing() {
        let events = vec![
            Event::Mark(Mark::Begin(0)),
            stored(0, 1),
            stored(64, 1),
            flush(0),
            flush(0),
            Event::Mark(Mark::End(0)),
            fence(),
        ];
        let rules = Trace { start: Image::zeroed(4096), events }.rules();
        assert_eq!((rules.unflushed, rules.unfenced), (1, 1));
        assert_eq!(rules.lost, [1], "the fence drained the other line");
        assert_eq!(rules.wasted.values().copied().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn the_phase_follows_the_marks() {
        let events =
            vec![fence(), Event::Mark(Mark::Begin(4)), fence(), Event::Mark(Mark::End(4)), fence()];
        let phases: Vec<Phase> = epochs(events).iter().map(|epoch| epoch.phase).collect();
        let ended = Phase::Ended(4);
        assert_eq!(phases, [Phase::Start, Phase::Running(4), ended, ended]);
    }
}
