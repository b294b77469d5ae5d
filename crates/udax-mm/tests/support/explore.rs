//! Executions under shuttle: as many as the environment says, from seeds that repeat them.

use shuttle::scheduler::Scheduler;
use shuttle::{Config, Runner};
use std::str::FromStr;
use std::thread::panicking;
use std::time::SystemTime;

/// Schedules of one seed. So few that a failure is repeated at once.
const BATCH: usize = 100;

/// Runs as many executions as the environment says, each batch from a seed of its own.
pub(crate) fn explore<S: Scheduler + 'static>(
    scheduler: impl Fn(u64, usize) -> S,
    execution: fn(),
) {
    let count = variable("UDAX_SCHEDULES").unwrap_or(1000);
    let first = variable("UDAX_SEED").unwrap_or_else(clock);
    println!("seed {first}: again with UDAX_SEED={first} UDAX_SCHEDULES={count}");
    let mut config = Config::new();
    config.silence_warnings = true;
    config.stack_size = 1 << 17;
    for (seed, done) in (first..).zip((0..count).step_by(BATCH)) {
        let size = BATCH.min(count - done);
        let _told = Told { seed, size };
        Runner::new(scheduler(seed, size), config.clone()).run(execution);
    }
}

/// Says how to repeat a batch that failed.
struct Told {
    seed: u64,
    size: usize,
}

impl Drop for Told {
    fn drop(&mut self) {
        if panicking() {
            let Told { seed, size } = self;
            eprintln!("again with `cargo xtask schedules --seed {seed} --count {size}`");
        }
    }
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn clock() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is past 1970");
    u64::from(now.subsec_nanos())
}
