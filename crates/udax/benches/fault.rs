//! What the fault of a lazily mapped file costs, beside the least that the host asks for one: an
//! event of userfaultfd, an `mmap`, a wake.
//!
//! `cargo bench -p udax --bench fault`. Every other page of the file is a hole, so that a fault maps
//! one page, as the bare handler does, which is asked for every other page, too: the host joins
//! neighbours. Where data goes on a fault maps more.

#[path = "../../udax-mm/benches/turns/mod.rs"]
mod turns;

use std::fs::File;
use std::hint::black_box;
use turns::{compare, timed};
use udax::{Access, MapOptions, Pool, Populate};
use udax_mm::floor::BareFaults;

const PAGE: u64 = 4096;
/// Pages that are touched one after the other.
const FAULTS: u64 = 512;
const TURNS: usize = 40;

fn main() {
    let pool = Pool::create_in_memory("bench", 64 << 20).expect("memory");
    let bytes = 2 * FAULTS * PAGE;
    let file = pool.create_file("/file").expect("a file");
    file.write_all_at(&vec![1; usize::try_from(bytes).expect("it fits")], 0).expect("space");
    for page in 0..FAULTS {
        let hole = (2 * page + 1) * PAGE;
        file.punch_hole(hole..hole + PAGE).expect("nobody pins it");
    }
    let writable = MapOptions::new().access(Access::Write);
    if file.map(0..bytes, &writable).expect("a mapping").faulting() == Populate::Eager {
        println!("SKIPPED: lazy mappings, which need userfaultfd");
        return;
    }
    let bare = BareFaults::new(memfd()).expect("a userfaultfd");
    for (what, access) in [("load", Access::Read), ("store", Access::Write)] {
        let touch_bare = || {
            bare.make_missing().expect("the host unmaps it");
            (0..FAULTS).map(|page| timed(|| bare.touch(2 * page, access))).collect()
        };
        let touch = || {
            let map = file.map(0..bytes, &writable).expect("a mapping");
            let touch = |page| match access {
                Access::Read => assert!(black_box(map.load(2 * page * PAGE)).is_ok()),
                Access::Write => map.store(2 * page * PAGE, 1).expect("a page"),
            };
            (0..FAULTS).map(|page| timed(|| touch(page))).collect()
        };
        compare(&format!("fault of a file by a {what}"), TURNS, touch_bare, touch);
    }
}

/// What the bare handler maps.
fn memfd() -> File {
    let file = rustix::fs::memfd_create("floor", rustix::fs::MemfdFlags::CLOEXEC);
    let file = File::from(file.expect("a memfd"));
    file.set_len(2 * FAULTS * PAGE).expect("memory");
    let map = memmap2::MmapRaw::map_raw(&file).expect("a mapping");
    map.advise(memmap2::Advice::PopulateWrite).expect("memory");
    file
}
