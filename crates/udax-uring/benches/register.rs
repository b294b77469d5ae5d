//! Pinning and unpinning 1 GiB of a file, beside registering the same memory with `io_uring`.
//!
//! `cargo bench -p udax-uring`.

use std::time::{Duration, Instant};

use udax::{PinKind, PinOptions, PinTerm, Pool};
use udax_uring::Ring;

const GIB: u64 = 1 << 30;
const ROUNDS: usize = 9;

fn main() {
    let pool = Pool::create_in_memory("bench", GIB + (GIB >> 2)).expect("memory");
    let file = pool.create_file("/file").expect("a file");
    file.allocate(0..GIB).expect("space");
    let options = PinOptions::new("bench").kind(PinKind::Write).registrable();
    let pin = |term| {
        let begin = Instant::now();
        drop(file.pin(0..GIB, &options.clone().term(term)).expect("a pin"));
        begin.elapsed()
    };
    let best = |times: Vec<Duration>| times.into_iter().min().expect("there are rounds");
    let short = best((0..ROUNDS).map(|_| pin(PinTerm::Short)).collect());
    let long = best((0..ROUNDS).map(|_| pin(PinTerm::Long)).collect());
    let register = |_| {
        let buffers = vec![file.pin(0..GIB, &options).expect("a pin")];
        let ring = Ring::new(8).expect("io_uring");
        let begin = Instant::now();
        drop(ring.register(buffers).expect("the host registers it"));
        begin.elapsed()
    };
    if let Err(why) = Ring::new(8) {
        println!("SKIPPED: io_uring: {why}");
        return;
    }
    let theirs = best((0..ROUNDS).map(register).collect());
    for (what, ours) in [("short", short), ("long, recorded", long)] {
        let times = theirs.as_secs_f64() / ours.as_secs_f64();
        println!(
            "pin and unpin 1 GiB ({what}): {ours:.1?}; io_uring: {theirs:.1?}; {times:.0} times"
        );
    }
}
