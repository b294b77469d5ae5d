//! Random operations of four threads on three files, with real mappings, against a model of bytes.
//!
//! **What is exact.** Bytes are dealt out in cells of 64: thread `t` stores to the cells whose
//! number is `t` modulo 4, and to no other, through whatever way; so every page is shared by all
//! threads, and each knows what its own cells hold. Where nothing but stores happens they hold
//! exactly what was stored last.
//!
//! **What may be one of two.** For each round every file has a zone in which its layout may change:
//! pages are punched there, or the file ends and grows there, by any thread at any moment. A byte
//! of the zone is what its owner stored last, or zero; zero once it was seen to be, or once the
//! file was seen to end before it, until the next store; never what was there before. A store that
//! fails leaves its bytes open.
//!
//! **Eager mappings** show SIGBUS for a moment while pages come into what they show or leave it,
//! which is an error of the access and nothing else. Pages of a private mapping are used by one thread each; a page
//! is a copy from its first store on, which lasts until its zone changes.
//!
//! **Pins** in a zone may have been left behind by the file. At the end of a round the file says
//! which pages of a pin it still has: those must read as the file does, and the others as they did
//! before, but for what was stored through the pin.
//!
//! **Clones** run against everything else: each round draws flows, from a place of any file to one
//! of the two, and any thread may clone a flow or a part of it at any moment. A cell that is cloned
//! lands in a cell of the same thread, so its owner knows what it may find there: what was there,
//! unless a clone was done since; what the source holds; or what the source held, unless a clone
//! began and was done after that ([`known`]). Dedupe and unshare change no byte, and what dedupe
//! calls equal has to be. Flows lie in zones, too, and there what is cloned may be zeros.
//!
//! **A third file** is stored to, pinned, mapped and cloned until a thread freezes it. From then on
//! whatever would change it is refused, and its slice is what each thread stored last ([`cold`]).
//!
//! **Memory that fails.** Pages fail while threads run, also those that are shared, cloned, cut or
//! given back at that moment, and between rounds with all their bytes. Until such a page is written
//! as a whole, which any thread may do, each way to it is an error, in every file that has it; from
//! then on a byte of it may be what the page was filled with. Where it may be found is known when
//! the round begins ([`failing`]). What is listed as bad is exactly what failed and was not healed.
//!
//! **A floor** may be refused, with its reason, and a mapping that has one may show SIGBUS where it
//! cannot be kept; never other bytes.
//!
//! Between two rounds nobody runs: everything is compared and verified, data is shared between the
//! files, and memory, mappings and open files are counted. They must not grow.
//!
//! The seed gives each thread its operations; which of them meet is up to the host. `UDAX_SEED`
//! sets it, and `UDAX_STEPS` or `UDAX_MINUTES` how long it takes.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod actor;
mod cold;
mod failing;
mod flow;
mod held;
mod known;
mod locks;
mod model;
mod private;
#[path = "../random/rng.rs"]
mod rng;
mod sharing;
mod watch;
mod world;

use rng::Rng;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use world::World;

/// Operations in an ordinary test run; `cargo xtask stress mapping` does a million.
const STEPS: u64 = 4_000;

#[test]
fn threads_that_map_pin_and_change_files_agree_with_the_model() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = variable("UDAX_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    let minutes = variable("UDAX_MINUTES");
    let steps = variable("UDAX_STEPS").unwrap_or(STEPS);
    let long = minutes.map_or(format!("UDAX_STEPS={steps}"), |n| format!("UDAX_MINUTES={n}"));
    println!("seed {seed}: run again with UDAX_SEED={seed} {long}");
    let end = minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let mut world = World::new(Rng::new(seed));
    let is_done = |done| end.map_or(done >= steps, |end| Instant::now() >= end);
    while !is_done(world.steps()) {
        world.round();
    }
    println!("{}", world.finish());
    println!("{}", locks::check(&[["layout", "entry"], ["entry", "tree"], ["tree", "journal"]]));
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
