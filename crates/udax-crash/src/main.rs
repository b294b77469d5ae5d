//! The tool: runs the workloads on all cores, plants the faults, and prints what was found.

#![forbid(unsafe_code)]

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;
use udax_crash::enumerate::Bound;
use udax_crash::plant::{plant, sites};
use udax_crash::random::random;
use udax_crash::report::{Report, WorkloadReport};
use udax_crash::run::{Options, run};
use udax_crash::workload::Workload;
use udax_crash::workloads;
use udax_mm::sync::Mutex;
use udax_mm::sync::atomic::{AtomicUsize, Ordering};

/// Enumerates the crash images of udax-fs, and checks that missing flushes and fences are noticed.
#[derive(Parser)]
#[command(name = "udax-crash", version)]
struct Arguments {
    /// Leave out the pairs of operations, and try fewer images of each epoch.
    #[arg(long)]
    quick: bool,

    /// How many random workloads run as well; they follow from the seed.
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    random: u64,

    /// Only workloads with this text in their name.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,

    /// Only the moment after this many events, as a failure names it.
    #[arg(long, value_name = "EVENT")]
    at: Option<usize>,

    /// The seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Try all images of an epoch up to this many.
    #[arg(long, value_name = "IMAGES")]
    bound: Option<u32>,

    /// Whether to plant persistence faults.
    #[arg(long, value_enum, default_value_t = Faults::After)]
    faults: Faults,

    /// How many workloads run at once; one for each core if left out.
    #[arg(long)]
    jobs: Option<usize>,

    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// When faults are planted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Faults {
    /// After the enumeration, if it found nothing.
    After,
    /// Not at all.
    None,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    // A panic of the filesystem is a finding, and reported as one.
    std::panic::set_hook(Box::new(|_| {}));
    let report = enumerate(&arguments)?;
    let _ = std::panic::take_hook();
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn enumerate(arguments: &Arguments) -> Result<Report> {
    let begun = Instant::now();
    let workloads = workloads(arguments);
    ensure!(!workloads.is_empty(), "no workload has that name");
    let jobs = arguments.jobs.unwrap_or_else(cores);
    let reports = in_parallel("workloads", jobs, &workloads, |workload| {
        run(workload, options(arguments, workload), None)
    });
    let mut report = Report { seed: arguments.seed, ..Report::default() };
    reports.iter().cloned().for_each(|workload| report.add(workload));
    if arguments.faults == Faults::After && report.failures.is_empty() {
        let options = Options::smoke(arguments.seed);
        report.faults = Some(plant_all(jobs, &workloads, &reports, options));
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

fn plant_all(
    jobs: usize,
    workloads: &[Workload],
    reports: &[WorkloadReport],
    options: Options,
) -> Vec<udax_crash::report::Fault> {
    // Pairs come last, and reach no site that the others do not.
    let first = workloads.iter().position(|workload| workload.from > 0);
    let count = first.unwrap_or(workloads.len());
    let (workloads, reports) = (&workloads[..count], &reports[..count]);
    let sites: Vec<_> = sites(reports).into_iter().collect();
    in_parallel("faults", jobs, &sites, |site| plant(*site, workloads, reports, options))
}

fn workloads(arguments: &Arguments) -> Vec<Workload> {
    let mut all = if arguments.quick { workloads::quick() } else { workloads::full() };
    let first = arguments.seed.saturating_mul(1000);
    all.extend((0..arguments.random).map(|number| random(first + number)));
    let is_wanted = |workload: &Workload| {
        arguments.only.as_ref().is_none_or(|text| workload.name.contains(text))
    };
    all.into_iter().filter(is_wanted).collect()
}

/// Workloads that come in numbers, pairs and random ones, are looked at less closely each.
fn options(arguments: &Arguments, workload: &Workload) -> Options {
    let seed = arguments.seed;
    let is_one_of_many = workload.from > 0 || workload.name.starts_with("random");
    let options =
        if arguments.quick || is_one_of_many { Options::quick(seed) } else { Options::full(seed) };
    let product = arguments.bound.map_or(options.bound.product, u128::from);
    Options { at: arguments.at, bound: Bound { product, ..options.bound }, ..options }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` on every item, on `jobs` threads; the results are in the order of the items.
fn in_parallel<T: Sync, R: Send>(
    what: &str,
    jobs: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let is_shown = std::io::stderr().is_terminal();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = work(item);
                    let mut done = done.lock();
                    done.push((index, result));
                    if is_shown {
                        eprint!("\r{what} {} of {} ", done.len(), items.len());
                    }
                }
            });
        }
    });
    if is_shown {
        eprintln!();
    }
    let mut done = std::mem::take(&mut *done.lock());
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
