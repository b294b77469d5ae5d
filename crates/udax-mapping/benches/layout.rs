//! Breaking the layout of a mapped, unpinned file of 1 GiB, beside a bare munmap of the same pages.
//!
//! `cargo bench -p udax-mapping --bench layout`.

mod owner {
    #![allow(unreachable_pub, dead_code, reason = "examples use it as a crate of their own")]
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/owner.inc"));
}

use owner::WholeDevice;
use std::hint::black_box;
use std::time::{Duration, Instant};
use udax_mapping::{MapMode, Populate, UserMapping};
use udax_mm::{Access, FileIndex, Pages, Wait};

/// One more than 1 GiB, so that a mapping that begins at page 1 has no 2 MiB page.
const PAGES: u64 = (1 << 18) + 1;
const ROUNDS: usize = 9;

fn main() {
    let file = WholeDevice::new(Pages(PAGES)).expect("memory");
    let theirs = munmap();
    for (what, start) in [("by 2 MiB", 0), ("by 4 KiB", 1)] {
        let ours = break_layout(&file, FileIndex(start));
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        println!(
            "break 1 GiB mapped {what}: {ours:>9.1?}   munmap: {theirs:>9.1?}   ratio {ratio:.2}"
        );
    }
}

fn best(times: impl Iterator<Item = Duration>) -> Duration {
    times.min().expect("there are rounds")
}

fn break_layout(file: &WholeDevice, start: FileIndex) -> Duration {
    let (access, populate) = (Access::Write, Populate::Eager);
    let mode = MapMode { access, populate, ..MapMode::default() };
    let round = |_| {
        let mapped: UserMapping = file.mapping.map(start, Pages(1 << 18), mode).expect("a mapping");
        let begin = Instant::now();
        let broken = file.mapping.break_layout(FileIndex(0)..FileIndex(u64::MAX), Wait::Never);
        let taken = begin.elapsed();
        // First the mapping, or the end of the proof would fill it again.
        drop(black_box(mapped));
        drop(broken.expect("nobody pins it"));
        taken
    };
    best((0..ROUNDS).map(round))
}

/// The yardstick: all pages of a memfd, mapped and populated, go at once.
fn munmap() -> Duration {
    let file = rustix::fs::memfd_create("yardstick", rustix::fs::MemfdFlags::CLOEXEC);
    let file = std::fs::File::from(file.expect("a memfd"));
    file.set_len(1 << 30).expect("memory");
    let mut populate = memmap2::MmapOptions::new();
    populate.populate();
    let round = |_| {
        let map = populate.map_raw(&file).expect("a mapping");
        let begin = Instant::now();
        drop(black_box(map));
        begin.elapsed()
    };
    best((0..ROUNDS).map(round))
}
