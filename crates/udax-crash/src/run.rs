//! Enumerates and judges the crash images of one workload.

use crate::compare::Allowed;
use crate::enumerate::{Bound, Seen, Tally, explore};
use crate::epoch::{Cause, Epoch, Phase};
use crate::judge::{Expectation, Judge, Quarantine, guard, usage_when_emptied};
use crate::oracle::Tree;
use crate::record::{Recording, record};
use crate::recovery::{after_death, after_power_failure};
use crate::report::{Failure, Totals, WorkloadReport};
use crate::rng::Rng;
use crate::trace::Trace;
use crate::workload::{Op, Workload, first_in_flux};
use std::collections::HashMap;
use std::time::Instant;
use udax_fs::Usage;
use udax_mm::image::Image;
use udax_mm::recorder::LeftOut;
use udax_mm::sync::Arc;

/// How thorough a run is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The seed of everything random.
    pub seed: u64,
    /// Images of one epoch.
    pub bound: Bound,
    /// Images of one epoch inside a recovery.
    pub recovery_bound: Bound,
    /// Images of each epoch and kind of recovery after which the filesystem is used.
    pub uses: usize,
    /// Images of each phase whose recovery is itself crashed.
    pub recoveries: usize,
    /// Only the moment after this many events.
    pub at: Option<usize>,
}

impl Options {
    /// Everything that the time of a coffee allows.
    pub fn full(seed: u64) -> Options {
        let (bound, recovery_bound) = (Bound::FULL, Bound::QUICK);
        Options { seed, bound, recovery_bound, uses: 8, recoveries: 4, at: None }
    }

    /// Enough for one of many workloads.
    pub fn quick(seed: u64) -> Options {
        let (bound, recovery_bound) = (Bound::QUICK, Bound::SMOKE);
        Options { seed, bound, recovery_bound, uses: 2, recoveries: 1, at: None }
    }

    /// Enough for a test that runs with every build, and to notice a planted fault.
    pub fn smoke(seed: u64) -> Options {
        let bound = Bound::SMOKE;
        Options { seed, bound, recovery_bound: bound, uses: 1, recoveries: 1, at: None }
    }
}

/// A workload while its images are judged.
struct Run<'w> {
    workload: &'w Workload,
    options: Options,
    recording: Recording,
    judge: Judge,
    rng: Rng,
    /// Images of the running phase that were judged, of recoveries by another process, too.
    seen: Seen,
    /// Those that were judged at the end of such a recovery, by the tree that it found.
    ended: Vec<(Arc<Tree>, Seen)>,
    /// Images of the epoch whose recovery is to be crashed.
    recoveries: Vec<Image>,
    /// How many more of the running phase may be.
    recoveries_left: usize,
    left_out: Option<LeftOut>,
    /// What the pool uses when emptied, by the number of the tree.
    empty: HashMap<usize, Usage>,
    report: WorkloadReport,
}

/// Enumerates the crash images of `workload`, with one flush or fence left out if told so.
pub fn run(workload: &Workload, options: Options, left_out: Option<LeftOut>) -> WorkloadReport {
    let begun = Instant::now();
    let mut report = WorkloadReport { name: workload.name.clone(), ..WorkloadReport::default() };
    let recording = match record(workload, left_out) {
        Ok(recording) => recording,
        Err(problem) => {
            report.failures.push(Failure {
                workload: workload.name.clone(),
                problem,
                ..Failure::default()
            });
            return report;
        }
    };
    report.note_rules(&recording.trace.rules(), workload);
    report.sites = recording.trace.sites(workload.from..workload.ops.len());
    let trace = recording.trace.clone();
    let mut run = Run {
        workload,
        options,
        recording,
        judge: Judge::new(options.uses),
        rng: Rng::new(options.seed),
        seen: Seen::default(),
        ended: Vec::new(),
        recoveries: Vec::new(),
        recoveries_left: 0,
        left_out,
        empty: HashMap::new(),
        report,
    };
    let outcome = run.judge_trace(&trace);
    if let Err(problem) = outcome {
        let workload = workload.name.clone();
        run.report.failures.push(Failure { workload, problem, ..Failure::default() });
    }
    run.report.seconds = begun.elapsed().as_secs_f64();
    run.report
}

impl Run<'_> {
    /// Judges every epoch, stopping at the first bad image.
    fn judge_trace(&mut self, trace: &Trace) -> Result<(), String> {
        let mut phase = Phase::Start;
        for epoch in trace.epochs(self.options.seed) {
            if !self.is_wanted(&epoch) {
                continue;
            }
            if epoch.phase != phase {
                phase = epoch.phase;
                self.seen = Seen::default();
                self.ended.clear();
                self.recoveries_left = self.options.recoveries;
            }
            let expected = self.expectation(phase)?;
            self.judge_epoch(&epoch, &expected);
            self.crash_recoveries(&epoch, &expected);
            self.crash_after_death(trace, &epoch, &expected);
            if !self.report.failures.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn is_wanted(&self, epoch: &Epoch) -> bool {
        let is_in_range = match epoch.phase {
            Phase::Start => false,
            // After the last operation the pool is closed.
            Phase::Running(op) | Phase::Ended(op) => {
                (self.workload.from..self.workload.ops.len()).contains(&op)
            }
        };
        is_in_range && self.options.at.is_none_or(|at| at == epoch.event)
    }

    fn expectation(&mut self, phase: Phase) -> Result<Expectation, String> {
        let ops = &self.workload.ops;
        let (first, last) = match phase {
            Phase::Start => (0, 0),
            Phase::Running(op) => (first_in_flux(&ops[..op]).unwrap_or(op), op + 1),
            Phase::Ended(op) => (first_in_flux(&ops[..=op]).unwrap_or(op + 1), op + 1),
        };
        let trees = &self.recording.trees;
        let (before, after) = (Arc::clone(&trees[first]), Arc::clone(&trees[last]));
        let allowed = if first == last {
            Allowed::Exactly(after)
        } else {
            let between = self.recording.between[first].clone();
            let in_place = self.recording.in_place[first].clone();
            Allowed::Either { before, after, between, in_place }
        };
        let is_open = match phase {
            Phase::Start => true,
            Phase::Running(op) => !matches!(ops[op], Op::Remount | Op::Format),
            Phase::Ended(op) => ops[op] != Op::Format,
        };
        let may_be_none = matches!(phase, Phase::Running(op) if ops[op] == Op::Format);
        let empty = (first..=last).map(|number| self.usage(number)).collect::<Result<_, _>>()?;
        let quarantine = Quarantine::between(&self.recording.pinned[first..=last]);
        Ok(Expectation { allowed, is_open, may_be_none, empty, quarantine })
    }

    fn usage(&mut self, number: usize) -> Result<Usage, String> {
        if let Some(usage) = self.empty.get(&number) {
            return Ok(*usage);
        }
        let usage = usage_when_emptied(&self.recording.images[number])
            .map_err(|what| format!("without any crash: {what}"))?;
        self.empty.insert(number, usage);
        Ok(usage)
    }

    fn judge_epoch(&mut self, epoch: &Epoch, expected: &Expectation) {
        self.judge.start_epoch();
        let Run { judge, recoveries, recoveries_left, seen, rng, options, .. } = self;
        let tally = explore(epoch, &options.bound, rng, seen, |image| {
            let judged = judge.judge(image, expected);
            if judged.has_recovered && *recoveries_left > 0 {
                *recoveries_left -= 1;
                recoveries.push(image.clone());
            }
            judged.outcome
        });
        self.note(epoch, &tally, |report| &mut report.images, "");
    }

    /// Crashes again inside the recovery of some images, one level deep.
    fn crash_recoveries(&mut self, epoch: &Epoch, expected: &Expectation) {
        for image in std::mem::take(&mut self.recoveries) {
            let Ok(trace) = guard(|| after_power_failure(image, self.left_out)) else { continue };
            let mut seen = Seen::default();
            self.crash_recovery(epoch, trace.epochs(self.options.seed), expected, &mut seen);
        }
    }

    /// Lets another process recover while the stores of the first are in flight, and then crashes.
    fn crash_after_death(&mut self, trace: &Trace, epoch: &Epoch, expected: &Expectation) {
        let is_step = matches!(epoch.cause, Cause::Fence(_) | Cause::Flush(_));
        if !is_step || !matches!(epoch.phase, Phase::Running(_)) {
            return;
        }
        let Ok((trace, found)) = guard(|| after_death(trace, epoch, self.left_out)) else { return };
        let after = |inner: &Epoch| inner.event >= epoch.event;
        let inside = |inner: &Epoch| after(inner) && inner.cause != Cause::End;
        let mut seen = std::mem::take(&mut self.seen);
        let moments = trace.epochs(self.options.seed).filter(inside);
        self.crash_recovery(epoch, moments, expected, &mut seen);
        self.seen = seen;
        // What the second process has found must stay, except bytes the first changed in place.
        if !matches!(expected.allowed, Allowed::Either { in_place: Some(_), .. }) {
            let ended = |inner: &Epoch| after(inner) && inner.cause == Cause::End;
            let (found, mut seen) = self.take_ended(found);
            let allowed = Allowed::Exactly(Arc::clone(&found));
            let expected = Expectation { allowed, ..expected.clone() };
            let moments = trace.epochs(self.options.seed).filter(ended);
            self.crash_recovery(epoch, moments, &expected, &mut seen);
            self.ended.push((found, seen));
        }
    }

    /// The images that were judged at the end of recoveries which found this tree.
    fn take_ended(&mut self, found: Tree) -> (Arc<Tree>, Seen) {
        match self.ended.iter().position(|(tree, _)| tree.nodes == found.nodes) {
            Some(known) => self.ended.swap_remove(known),
            None => (Arc::new(found), Seen::default()),
        }
    }

    fn crash_recovery(
        &mut self,
        epoch: &Epoch,
        inside: impl Iterator<Item = Epoch>,
        expected: &Expectation,
        seen: &mut Seen,
    ) {
        for inner in inside {
            self.judge.start_epoch();
            let Run { judge, rng, options, .. } = self;
            let tally = explore(&inner, &options.recovery_bound, rng, seen, |image| {
                judge.judge(image, expected).outcome
            });
            let place = format!("recovery, {} of it; ", describe(inner.cause));
            self.note(epoch, &tally, |report| &mut report.recoveries, &place);
        }
    }

    fn note(
        &mut self,
        epoch: &Epoch,
        tally: &Tally,
        totals: fn(&mut WorkloadReport) -> &mut Totals,
        place: &str,
    ) {
        totals(&mut self.report).add(tally);
        let Some((lines, problem)) = &tally.failure else { return };
        let (op, moment) = match epoch.phase {
            Phase::Start => (None, "before"),
            Phase::Running(op) => (Some(op), "during"),
            Phase::Ended(op) => (Some(op), "after"),
        };
        self.report.failures.push(Failure {
            workload: self.workload.name.clone(),
            seed: self.options.seed,
            event: Some(epoch.event),
            moment: moment.to_owned(),
            op: op.map(|op| format!("{op}: {}", self.workload.ops[op])),
            cause: format!("{place}{}", describe(epoch.cause)),
            lines: lines.clone(),
            problem: problem.clone(),
        });
    }
}

fn describe(cause: Cause) -> String {
    match cause {
        Cause::Fence(site) => format!("fence at {site}"),
        Cause::Flush(site) => format!("flush at {site}"),
        Cause::End => "end of the operation".to_owned(),
        Cause::Between => "random store".to_owned(),
    }
}
