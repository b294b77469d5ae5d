//! Two ways to do one thing, measured in turns, so that both see the same machine.
//!
//! What counts is the ratio of their medians, or, where the machine has other things to do, of what
//! the fastest tenth took at most.

use std::time::{Duration, Instant};

/// How long one operation takes.
pub(crate) fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// Measures both in turns, and prints the medians and the first deciles with their ratios.
pub(crate) fn compare(
    name: &str,
    turns: usize,
    bare: impl Fn() -> Vec<Duration>,
    ours: impl Fn() -> Vec<Duration>,
) {
    let (mut bares, mut all) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        bares.extend(bare());
        all.extend(ours());
    }
    bares.sort();
    all.sort();
    for (what, part) in [("median", 2), ("fastest tenth", 10)] {
        let micros = |samples: &[Duration]| samples[samples.len() / part].as_secs_f64() * 1e6;
        let (bare, ours) = (micros(&bares), micros(&all));
        println!("{name}, {what}: {ours:.2} us, bare {bare:.2} us, ratio {:.2}", ours / bare);
    }
}
