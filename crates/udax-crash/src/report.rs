//! What a run found, for people and for programs.

use crate::enumerate::Tally;
use crate::trace::Rules;
use crate::workload::Workload;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use udax_mm::recorder::LeftOut;

/// Everything a run found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The seed of everything random.
    pub seed: u64,
    /// How many workloads ran.
    pub workloads: usize,
    /// Crash images of the workloads.
    pub images: Totals,
    /// Crash images of recoveries.
    pub recoveries: Totals,
    /// Lines that were not durable when the pool was closed.
    pub lost: Vec<String>,
    /// Lines never flushed at the end of an operation.
    pub unflushed: usize,
    /// Lines flushed and not fenced at the end of an operation.
    pub unfenced: usize,
    /// Flushes of clean lines, by source line.
    pub wasted: BTreeMap<String, usize>,
    /// Bad images.
    pub failures: Vec<Failure>,
    /// Planted faults, if they were tried.
    pub faults: Option<Vec<Fault>>,
    /// How long it took.
    pub seconds: f64,
    /// The workloads that took longest, with their seconds.
    pub slowest: Vec<(String, f64)>,
}

/// What was found of one workload.
#[derive(Clone, Debug, Default)]
pub struct WorkloadReport {
    /// The name of the workload.
    pub name: String,
    /// Crash images of the workload.
    pub images: Totals,
    /// Crash images of recoveries.
    pub recoveries: Totals,
    /// Lines that were not durable when the pool was closed.
    pub lost: Vec<String>,
    /// Lines never flushed at the end of an operation.
    pub unflushed: usize,
    /// Lines flushed and not fenced at the end of an operation.
    pub unfenced: usize,
    /// Flushes of clean lines, by source line.
    pub wasted: BTreeMap<String, usize>,
    /// The first bad image.
    pub failures: Vec<Failure>,
    /// The flushes and fences that were carried out.
    pub sites: BTreeSet<LeftOut>,
    /// How long it took.
    pub seconds: f64,
}

/// How many images there were.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    /// Moments at which a crash was tried.
    pub epochs: u64,
    /// Moments all of whose images were tried.
    pub exhaustive: u64,
    /// Images that were judged.
    pub tried: u64,
    /// Those of them after which the filesystem was used, and emptied.
    pub used: u64,
    /// Images that were equal to one judged before.
    pub repeated: u64,
    /// Legal images, over the lines that recovery reads.
    pub possible: f64,
}

/// A bad image, with what is needed to see it again.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Failure {
    /// The workload.
    pub workload: String,
    /// The seed.
    pub seed: u64,
    /// The moment, as the number of events before it. None: it failed without a crash.
    pub event: Option<usize>,
    /// Before, during or after the operation.
    pub moment: String,
    /// The operation.
    pub op: Option<String>,
    /// Why a crash was tried there.
    pub cause: String,
    /// The lines, and how many of their stores persisted.
    pub lines: String,
    /// What is wrong.
    pub problem: String,
}

/// A flush or fence that was left out.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// `flush` or `fence`.
    pub kind: &'static str,
    /// Where in the source.
    pub site: String,
    /// How it was noticed.
    pub noticed: Option<Noticed>,
}

/// How a fault was noticed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Noticed {
    /// A bad image in this workload.
    Image(String),
    /// This workload left a line in flight when it closed the pool.
    Rule(String),
}

/// How many workloads are named for the time they take.
const SLOWEST: usize = 5;

impl Report {
    /// Adds what was found of one workload.
    pub fn add(&mut self, workload: WorkloadReport) {
        self.workloads += 1;
        self.images.merge(&workload.images);
        self.recoveries.merge(&workload.recoveries);
        self.lost.extend(workload.lost);
        self.unflushed += workload.unflushed;
        self.unfenced += workload.unfenced;
        for (site, count) in workload.wasted {
            *self.wasted.entry(site).or_default() += count;
        }
        self.failures.extend(workload.failures);
        self.slowest.push((workload.name, workload.seconds));
        self.slowest.sort_by(|one, other| other.1.total_cmp(&one.1));
        self.slowest.truncate(SLOWEST);
    }

    /// Whether nothing is wrong, and every planted fault was noticed.
    pub fn is_good(&self) -> bool {
        let mut faults = self.faults.iter().flatten();
        let are_noticed = faults.all(|fault| fault.noticed.is_some());
        self.failures.is_empty() && self.lost.is_empty() && are_noticed
    }
}

impl WorkloadReport {
    /// Notes what the rules say.
    pub fn note_rules(&mut self, rules: &Rules, workload: &Workload) {
        let lost = rules.lost.iter().map(|line| format!("{}: {:#x}", workload.name, line * 64));
        self.lost = lost.collect();
        self.unflushed = rules.unflushed;
        self.unfenced = rules.unfenced;
        self.wasted = rules.wasted.iter().map(|(site, count)| (site.to_string(), *count)).collect();
    }
}

impl Totals {
    /// Adds one epoch.
    pub fn add(&mut self, tally: &Tally) {
        self.merge(&Totals {
            epochs: 1,
            exhaustive: u64::from(tally.is_exhaustive),
            tried: tally.tried,
            used: tally.used,
            repeated: tally.repeated,
            possible: tally.possible,
        });
    }

    fn merge(&mut self, other: &Totals) {
        self.epochs += other.epochs;
        self.exhaustive += other.exhaustive;
        self.tried += other.tried;
        self.used += other.used;
        self.repeated += other.repeated;
        self.possible += other.possible;
    }
}

impl Fault {
    /// The fault of leaving out `left_out`.
    pub fn new(left_out: LeftOut, noticed: Option<Noticed>) -> Fault {
        let (kind, site) = match left_out {
            LeftOut::Flush(site) => ("flush", site),
            LeftOut::Fence(site) => ("fence", site),
        };
        Fault { kind, site: site.to_string(), noticed }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "workloads  {}   seed {}   {:.1} s", self.workloads, self.seed, self.seconds)?;
        writeln!(f, "images     {}", self.images)?;
        writeln!(f, "recovery   {}", self.recoveries)?;
        let wasted: usize = self.wasted.values().sum();
        writeln!(
            f,
            "rules      {} lines lost at close; {} unflushed and {} unfenced at the end of an \
             operation, {wasted} flushes of clean lines",
            self.lost.len(),
            self.unflushed,
            self.unfenced
        )?;
        let slowest = self.slowest.iter().map(|(name, seconds)| format!("{name} {seconds:.1} s"));
        writeln!(f, "slowest    {}", slowest.collect::<Vec<_>>().join(", "))?;
        if let Some(faults) = &self.faults {
            let noticed = faults.iter().filter(|fault| fault.noticed.is_some()).count();
            writeln!(f, "faults     noticed {noticed} of {} sites", faults.len())?;
            for fault in faults.iter().filter(|fault| fault.noticed.is_none()) {
                writeln!(f, "  never noticed: {} at {}", fault.kind, fault.site)?;
            }
        }
        for line in self.lost.iter().take(10) {
            writeln!(f, "  lost at close: {line}")?;
        }
        writeln!(f, "failures   {}", self.failures.len())?;
        self.failures.iter().take(20).try_for_each(|failure| write!(f, "{failure}"))
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { epochs, exhaustive, tried, used, repeated, possible } = self;
        let is_short = *possible < 1e9;
        let possible = if is_short { format!("{possible}") } else { format!("{possible:.1e}") };
        write!(f, "{tried} tried and {repeated} repeated of {possible} possible, {used} used ")?;
        write!(f, "(exhaustive for {exhaustive} of {epochs} epochs)")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { workload, seed, event, moment, op, cause, lines, problem } = self;
        writeln!(f, "  {workload}: {problem}")?;
        let (Some(op), Some(event)) = (op, event) else { return Ok(()) };
        writeln!(f, "    {moment} {op}, {cause}; persisted {lines}")?;
        writeln!(f, "    rerun: udax-crash --only '{workload}' --at {event} --seed {seed}")
    }
}
