//! Random operations on several files against a byte-array model, with `verify` after every step.
//!
//! The seed is printed; `UDAX_SEED` sets it and `UDAX_STEPS` sets how many operations. A run that
//! fails prints the last of them.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

#[path = "../stress/locks.rs"]
mod locks;
mod model;
mod rng;
mod told;
mod world;

use std::time::{SystemTime, UNIX_EPOCH};

use rng::Rng;
use world::World;

/// Operations in an ordinary test run; `cargo xtask random` does 100,000.
const STEPS: u64 = 3_000;

#[test]
fn random_operations_agree_with_the_model() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = variable("UDAX_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    let steps = variable("UDAX_STEPS").unwrap_or(STEPS);
    println!("seed {seed}: run again with UDAX_SEED={seed} UDAX_STEPS={steps}");
    let mut world = World::new(Rng::new(seed));
    for step in 0..steps {
        world.step(step);
    }
    println!("{steps} steps: {}", world.finish());
    println!("{}", locks::check(&[["layout", "entry"], ["entry", "tree"], ["tree", "journal"]]));
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
