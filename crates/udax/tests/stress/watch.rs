//! What the process has of the host: memory of its own, mappings and open files.
//!
//! What the heap has given out is known to the byte, so that little of it is a leak. What the host
//! has given to the heap scatters: what threads give back stays where they had it.
//!
//! Sampled when nobody runs. After a while nothing of it may grow any more.

use cap::Cap;
use std::alloc::System;
use std::fs;

/// Counts what is given out.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Fewer samples say nothing.
const ENOUGH: usize = 200;

/// Room for the samples of an hour, so that they are no growth themselves.
const MANY: usize = 16_384;

/// The samples of one run, in order.
#[derive(Debug)]
pub(crate) struct Watch {
    samples: Vec<[f64; 4]>,
}

/// What is counted, and how much of it a whole run may add: less than one of it per round.
const COUNTED: [(&str, f64); 4] =
    [("KiB of the heap", 512.0), ("KiB of memory", 16_384.0), ("mappings", 150.0), ("files", 4.0)];

impl Watch {
    pub(crate) fn new() -> Watch {
        Watch { samples: Vec::with_capacity(MANY) }
    }

    pub(crate) fn sample(&mut self) {
        let count = |number: usize| f64::from(u32::try_from(number).unwrap());
        let heap = count(HEAP.allocated()) / 1024.0;
        let maps = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        let files = fs::read_dir("/proc/self/fd").unwrap().count();
        self.samples.push([heap, count(memory()), count(maps), count(files)]);
    }

    /// Fits a line to what came after the first quarter.
    ///
    /// # Errors
    ///
    /// Says what grows: by more than is allowed, and than the scatter explains.
    pub(crate) fn check(&self) -> Result<String, String> {
        let settled = &self.samples[self.samples.len() / 4..];
        let mut told = Vec::new();
        for (at, (name, allowed)) in COUNTED.into_iter().enumerate() {
            let values: Vec<f64> = settled.iter().map(|sample| sample[at]).collect();
            let (growth, error) = growth(&values);
            let last = values.last().copied().unwrap_or_default();
            let is_judged = self.samples.len() >= ENOUGH;
            if is_judged && growth > allowed && growth > 4.0 * error {
                return Err(format!("{name} grew by {growth:.0} (+-{error:.0}) to {last:.0}"));
            }
            told.push(format!("{last:.0} {name} ({growth:+.0} +-{error:.0})"));
        }
        Ok(told.join(", "))
    }
}

/// How much a line through `values` rises from the first to the last, and the standard error.
fn growth(values: &[f64]) -> (f64, f64) {
    let places: Vec<f64> = (0u32..).take(values.len()).map(f64::from).collect();
    let len = places.last().copied().unwrap_or_default() + 1.0;
    let mean = |of: &[f64]| of.iter().sum::<f64>() / len;
    let (x, y) = (mean(&places), mean(values));
    let pairs = || places.iter().zip(values);
    let spread: f64 = places.iter().map(|place| (place - x).powi(2)).sum();
    if spread == 0.0 {
        return (0.0, 0.0);
    }
    let slope = pairs().map(|(place, value)| (place - x) * (value - y)).sum::<f64>() / spread;
    let rest: f64 = pairs().map(|(place, value)| (value - y - slope * (place - x)).powi(2)).sum();
    let error = (rest / (len - 2.0).max(1.0) / spread).sqrt();
    (slope * len, error * len)
}

/// KiB of memory that no file is behind. What lies in the pool cannot grow.
fn memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn growth_is_told_from_scatter() {
    let scattered: Vec<f64> = (0u32..400).map(|n| f64::from(n * 7919 % 101)).collect();
    let (rise, error) = growth(&scattered);
    assert!(rise.abs() < 4.0 * error, "{rise} +-{error}");
    let leaking: Vec<f64> = scattered.iter().zip(0u32..).map(|(v, n)| v + f64::from(n)).collect();
    let (rise, error) = growth(&leaking);
    assert!(rise > 300.0 && rise > 4.0 * error, "{rise} +-{error}");
}

/// Says what this host does not show.
pub(crate) fn skipped(what: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED, nothing is shown of {what}");
}
