//! A device on a stack of tables under load: readers, faulters, pinners and users of raw spans, while
//! tables of both layers change, memory fails, and in the end the whole is killed.
//!
//! Every page has one word for each actor, which only that actor stores to, by whatever way; so it
//! knows what it has to read. Pages come to fail (`error`) and are back, lines are cut, delayed and
//! recorded, but a page stays in its memory, so that no store may be lost. The last pages are another
//! matter: their memory is exchanged for other memory, and fails, and is overwritten.
//!
//! After `kill` has returned no access succeeds, and no byte of the memory changes any more: it is
//! copied then, and compared when every actor has ended. A pin of memory that was exchanged is left
//! out of that: it holds another device.
//!
//! `UDAX_SEED` and `UDAX_SECONDS` say what is drawn and how long it goes on.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod actor;
#[path = "../stress/locks.rs"]
mod locks;
#[allow(dead_code, reason = "not all of it is drawn here")]
#[path = "../random/rng.rs"]
mod rng;
mod tables;

use actor::{ACTORS, Actor, Moment, PAGES};
use rng::Rng;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tables::Stack;
use udax::{DevDax, Wait};
use udax_mm::sync::Arc;

/// Rounds in an ordinary test run; `cargo xtask stress devices` goes on for a minute.
const ROUNDS: u64 = 6;

#[test]
fn nothing_is_lost_on_a_stack_that_changes_and_nothing_is_reached_once_it_was_killed() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = variable("UDAX_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    let seconds = variable("UDAX_SECONDS");
    println!("seed {seed}: run again with UDAX_SEED={seed}");
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut rng = Rng::new(seed);
    let (mut rounds, mut swaps, mut operations) = (0_u64, 0, 0);
    while end.map_or(rounds < ROUNDS, |end| Instant::now() < end) {
        let (swapped, done) = round(&mut rng);
        (rounds, swaps, operations) = (rounds + 1, swaps + swapped, operations + done);
    }
    println!("{rounds} rounds, {swaps} tables, {operations} operations");
    println!("{}", locks::check(&[["layout", "entry"], ["load of a table", "holder"]]));
}

/// One life of a stack. Returns how many tables it followed, and what its actors did.
fn round(rng: &mut Rng) -> (u64, u64) {
    let stack = Stack::new();
    let device = DevDax::on_device("stack", stack.top.clone()).unwrap();
    let moment = Arc::new(Moment::default());
    let actors: Vec<_> = (0..ACTORS)
        .map(|number| {
            let actor = Actor::new(number, device.clone(), Rng::new(rng.next()), moment.clone());
            thread::spawn(move || actor.run())
        })
        .collect();
    let swaps = 20 + rng.below(60);
    for _ in 0..swaps {
        stack.change(rng);
        if rng.once_in(4) {
            stack.fail(rng);
        }
        if rng.once_in(8) {
            heal(&device, rng);
        }
        if rng.once_in(8) {
            thread::yield_now();
        }
    }
    // All of it is there again, so that what each actor stored last can be compared.
    stack.restore();
    moment.killing();
    while let Err(busy) = device.kill(Wait::Until(Instant::now() + Duration::from_millis(50))) {
        let named = busy.to_string();
        assert!(named.contains("use") || named.contains("held"), "{named}");
    }
    let memory = stack.memory();
    moment.killed();
    let ended: Vec<_> = actors.into_iter().map(|actor| actor.join().unwrap()).collect();
    assert!(stack.memory() == memory, "a byte changed after the device was killed");
    for known in &ended {
        known.check(|page, number| Stack::word(&memory, page, number));
    }
    device.verify().unwrap();
    stack.verify();
    (swaps, ended.iter().map(|known| known.operations).sum())
}

/// Overwrites some of what failed. That succeeds, because only this thread loads tables and lets memory
/// fail.
fn heal(device: &DevDax, rng: &mut Rng) {
    for range in device.bad_ranges().unwrap() {
        assert!(range.start >= PAGES * 4096, "nothing else failed: {range:?}");
        let pages = range.step_by(4096);
        for at in pages.filter(|_| rng.once_in(2)).collect::<Vec<_>>() {
            if let Err(error) = device.write_at(&[0; 4096], at) {
                panic!("only this thread loads tables and lets memory fail: {error}");
            }
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
