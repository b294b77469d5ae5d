//! One moment of a trace, and every set of bytes that a crash there may leave.

use std::fmt::Write;
use udax_mm::image::{Image, LINE_SIZE};
use udax_mm::media::Site;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The bytes of a line.
pub type Line = [u8; LINE_SIZE];

/// Why images are enumerated at a moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// A fence is about to take effect: nothing later has more lines in flight.
    Fence(Site),
    /// The first flush after some stores is about to begin. A power failure here leaves nothing
    /// that one at the next fence does not, but a process may die with its stores unflushed.
    Flush(Site),
    /// An operation has returned.
    End,
    /// A random store.
    Between,
}

/// How far the workload is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Phase {
    /// Before the first operation.
    Start,
    /// Inside this operation.
    Running(usize),
    /// After this operation and before the next.
    Ended(usize),
}

/// A moment at which a crash may happen.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// The number of events of the trace that came before.
    pub event: usize,
    /// Why this moment was chosen.
    pub cause: Cause,
    /// Where the workload is.
    pub phase: Phase,
    /// What is certainly on the medium.
    pub durable: Image,
    /// A hash of `durable`, over the lines that changed since the trace began.
    pub hash: u64,
    /// The lines that may differ from `durable`, in ascending order.
    pub lines: Vec<PendingLine>,
}

/// A line with stores in flight.
#[derive(Clone, Debug)]
pub struct PendingLine {
    /// The number of the line.
    pub number: u64,
    /// What it may hold: the durable bytes, and the bytes after each further store. Stores that
    /// change nothing are left out, so neighbours differ.
    pub states: Vec<Line>,
}

/// Where the lines that a [`Choice`] does not name stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rest {
    /// None of their stores persisted.
    Nothing,
    /// All of them did.
    Everything,
}

/// One legal image of an epoch: how far each line got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Choice {
    /// Where the other lines stand.
    pub rest: Rest,
    /// Indices into the lines of the epoch, and into their states.
    pub except: Vec<(usize, usize)>,
}

impl Epoch {
    /// The image that `choice` describes, with a hash that tells it from others of this trace.
    pub fn image(&self, choice: &Choice) -> (Image, u64) {
        let (mut image, mut hash) = (self.durable.clone(), self.hash);
        let mut named = choice.except.iter().peekable();
        for (index, line) in self.lines.iter().enumerate() {
            let state = match named.next_if(|(named, _)| *named == index) {
                Some((_, state)) => *state,
                None if choice.rest == Rest::Everything => line.states.len() - 1,
                None => 0,
            };
            if state != 0 {
                image.write(line.number * 64, &line.states[state]);
                hash ^= line_hash(line.number, &line.states[0]);
                hash ^= line_hash(line.number, &line.states[state]);
            }
        }
        (image, hash)
    }

    /// The line numbers of `choice` and how many of their stores persisted, to show to people.
    pub fn describe(&self, choice: &Choice) -> String {
        let rest = match choice.rest {
            Rest::Nothing => "no other line",
            Rest::Everything => "every other line",
        };
        let mut text = String::new();
        for (index, state) in &choice.except {
            let line = &self.lines[*index];
            let all = line.states.len() - 1;
            write!(text, "{:#x}:{state}/{all} ", line.number * 64).expect("a string takes it");
        }
        text + rest
    }
}

/// A hash of one line at its place. The hash of a medium is the exclusive or over its lines, so
/// that it follows a change of one line in constant time.
pub fn line_hash(number: u64, bytes: &Line) -> u64 {
    xxh3_64_with_seed(bytes, number)
}
