//! What one thread does to share pages of files, while others use them.

use crate::actor::{Actor, Done, ensure, may_be_lost};
use crate::flow::Flow;
use crate::model::{COLD, NEAR, PAGE, PAGES};
use crate::world::Shared;
use std::ops::Range;
use std::time::{Duration, Instant};
use udax::fs::Deduped;
use udax::{Error, ErrorKind, Wait};

/// How much of what was found to be the same a thread keeps in mind: each byte takes room.
const LEARNT: u64 = 16 * PAGE;

impl Actor {
    /// Clones what a flow says, or a part of it.
    pub(crate) fn clone_some(&mut self, shared: &Shared) -> (&'static str, Done) {
        let flows = &shared.rules.flows;
        let Some(flow) = flows.any(&mut self.rng) else { return ("nothing", Ok(())) };
        let (part, wait) = (flow.part(&mut self.rng), self.patience());
        let from = flow.from.1 * PAGE;
        let range = from + part.start..from + part.end;
        let at = flow.to.1 * PAGE + part.start;
        let (source, target) = (&shared.files[flow.from.0], &shared.files[flow.to.0]);
        match flow.note(flows, &part, || source.clone_range(range, target, at, wait)) {
            Ok(done) => {
                let is_all = done == part.end - part.start;
                ("clone", ensure(is_all, || format!("{done} of {part:?}")))
            }
            Err(error) => ("clone-refused", may_not_share(shared, flow, &part, &error)),
        }
    }

    /// Compares what a flow says, and shares it if it is the same. No byte changes.
    pub(crate) fn dedupe(&mut self, shared: &Shared) -> (&'static str, Done) {
        let flows = &shared.rules.flows;
        let Some(flow) = flows.any(&mut self.rng) else { return ("nothing", Ok(())) };
        let (part, wait) = (flow.part(&mut self.rng), self.patience());
        let (from, to) = (flow.from.1 * PAGE + part.start, flow.to.1 * PAGE + part.start);
        let range = from..from + part.end - part.start;
        let (source, target) = (&shared.files[flow.from.0], &shared.files[flow.to.0]);
        let start = shared.now();
        match source.dedupe_range(range, target, to, wait) {
            Ok(Deduped::Shared(len)) => {
                ("dedupe", self.are_same(shared, flow, from..from + len, to, start))
            }
            Ok(Deduped::Differs(_)) => ("dedupe-differs", Ok(())),
            Err(error) => ("dedupe-refused", may_not_share(shared, flow, &part, &error)),
        }
    }

    /// Gives a file pages of its own. No byte changes, also of a frozen file.
    pub(crate) fn unshare(&mut self, shared: &Shared) -> Done {
        let file = self.rng.index(COLD + 1);
        let page = self.rng.below(NEAR);
        let pages = if self.rng.once_in(8) { PAGES } else { 1 + self.rng.below(8) };
        let range = page * PAGE..(page + pages) * PAGE;
        match shared.files[file].unshare(range.clone()) {
            Ok(()) => Ok(()),
            Err(error) => may_be_lost(&shared.rules.zones[file], &range, &error),
        }
    }

    pub(crate) fn patience(&mut self) -> Wait {
        match self.rng.below(3) {
            0 => Wait::Never,
            _ => Wait::Until(Instant::now() + Duration::from_millis(1)),
        }
    }

    /// A call that began at `start` has found that `range` of one file was in another at `at`, too.
    /// This thread knows its bytes of the first, unless they may be gone.
    fn are_same(
        &mut self,
        shared: &Shared,
        flow: &Flow,
        range: Range<u64>,
        at: u64,
        start: u64,
    ) -> Done {
        let (rules, from) = (&shared.rules, flow.from.0);
        let zone = &rules.zones[from];
        for byte in self.known.file(from).own(range.clone()) {
            let is_certain = !zone.contains(byte) && !zone.failing.contains(&(byte / PAGE));
            if is_certain && let Some(value) = self.known.get(from, byte) {
                let place = at + byte - range.start;
                if byte < range.start + LEARNT {
                    self.known.check(rules, flow.to.0, place, &[value], start)?;
                } else {
                    self.known.judge(rules, flow.to.0, place, value, start)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a part of a flow may be refused.
fn may_not_share(shared: &Shared, flow: &Flow, part: &Range<u64>, error: &Error) -> Done {
    let side = |(file, page): (usize, u64)| {
        (&shared.rules.zones[file], page * PAGE + part.start..page * PAGE + part.end)
    };
    let sides = [side(flow.from), side(flow.to)];
    match error.kind() {
        ErrorKind::Pinned => Ok(()),
        // One of the files ends in the middle of it.
        ErrorKind::OutOfRange | ErrorKind::InvalidInput => {
            let may_end = sides.iter().any(|(zone, range)| zone.may_end_before(range));
            ensure(may_end, || format!("{error} at {sides:?}"))
        }
        _ => {
            let [(from, range), (to, target)] = &sides;
            may_be_lost(from, range, error).or_else(|_| may_be_lost(to, target, error))
        }
    }
}
