//! Mapped files beside a memfd of the host: what a lazy touch, an eager mapping and a pin cost, and that the cost does not grow with the size of the file or the number of files.
//!
//! `cargo bench -p udax --bench mapping` prints each beside its yardstick, in one run. Both sides
//! are touched through the same SIGBUS-safe load. A single fault is in the bench `fault`, breaking a
//! layout in the bench of udax-mapping, pinning beside `io_uring` in that of udax-uring.

use std::hint::black_box;
use std::time::{Duration, Instant};

use udax::{Access, File, MapOptions, PinOptions, Pool, Populate};
use udax_mm::Media;
use udax_mm::media::FileMedia;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
const ROUNDS: usize = 7;

fn main() {
    eager();
    lazy();
    pins();
    flat_in_size();
    flat_in_files();
}

/// The best of several rounds; `prepare` is not measured, nor is what `run` returns dropped in time.
fn best<P, R>(mut prepare: impl FnMut() -> P, mut run: impl FnMut(P) -> R) -> Duration {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let prepared = prepare();
        let start = Instant::now();
        let result = run(prepared);
        times.push(start.elapsed());
        drop(black_box(result));
    }
    times.into_iter().min().expect("there are rounds")
}

fn report(what: &str, ours: Duration, yardstick: &str, theirs: Duration) {
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    println!("{what:<46} {ours:>12.1?}   {yardstick:<34} {theirs:>12.1?}   ratio {ratio:.2}");
}

/// A pool in memory with one file of `len` bytes that has all its pages, in blocks of 2 MiB.
fn pool_with_file(len: u64) -> (Pool, File) {
    let pool = Pool::create_in_memory("bench", len + len / 8 + 64 * MIB).expect("memory");
    let file = pool.create_file("/file").expect("a file");
    file.allocate(0..len).expect("space");
    (pool, file)
}

/// The file of the yardstick, to be mapped anew.
fn memfd_file(len: u64) -> std::fs::File {
    let file = rustix::fs::memfd_create("yardstick", rustix::fs::MemfdFlags::CLOEXEC);
    let file = std::fs::File::from(file.expect("a memfd"));
    file.set_len(len).expect("memory");
    let map = memmap2::MmapRaw::map_raw(&file).expect("a mapping");
    map.advise(memmap2::Advice::PopulateWrite).expect("memory");
    file
}

fn eager() {
    let (_pool, file) = pool_with_file(GIB);
    let options = MapOptions::new().access(Access::Write).populate(Populate::Eager);
    let ours = best(|| (), |()| file.map(0..GIB, &options).expect("a mapping"));
    let host = memfd_file(GIB);
    let mut populate = memmap2::MmapOptions::new();
    populate.populate();
    let theirs = best(|| (), |()| populate.map_raw(&host).expect("a mapping"));
    report("map 1 GiB eagerly", ours, "mmap MAP_POPULATE of a memfd", theirs);
}

fn lazy() {
    let (_pool, file) = pool_with_file(GIB);
    let options = MapOptions::new().access(Access::Write);
    let map = || file.map(0..GIB, &options).expect("a mapping");
    if map().faulting() == Populate::Eager {
        println!("SKIPPED: lazy mappings, which need userfaultfd");
        return;
    }
    let touch = |map: udax::Mapping| {
        for at in (0..GIB).step_by(4096) {
            black_box(map.load(at).expect("a page"));
        }
        map
    };
    let ours = best(map, touch);
    let host = memfd_file(GIB);
    let fresh = || {
        FileMedia::from_file(host.try_clone().expect("a descriptor"), udax::Durability::Process)
            .expect("a medium")
    };
    let theirs = best(fresh, |media| {
        for at in (0..GIB).step_by(4096) {
            black_box(media.load_u64(at).expect("a page"));
        }
        media
    });
    report("first touch of 1 GiB in order, lazily", ours, "of a populated memfd", theirs);
    let stats = file.map(0..PAGE, &options).expect("a mapping").stats();
    println!("{:>46} {stats:?}", "");
}

fn pins() {
    let (_pool, file) = pool_with_file(GIB);
    let options = PinOptions::new("bench");
    let ours = best(|| (), |()| drop(file.pin(0..GIB, &options).expect("a pin")));
    println!("{:<46} {ours:>12.1?}   (io_uring: bench of udax-uring)", "pin and unpin 1 GiB");
}

/// Pins, maps and breaks of one page in sparse files of 1 MiB to 64 GiB.
fn flat_in_size() {
    let pool = Pool::create_in_memory("bench", 256 * MIB).expect("memory");
    for len in [MIB, 64 * MIB, 4 * GIB, 64 * GIB] {
        let file = pool.create_file(format!("/{len}")).expect("a file");
        file.set_len(len).expect("sparse");
        let last = len - PAGE..len;
        file.write_all_at(&[1; 8], last.start).expect("space");
        costs(&format!("file of {:>6} MiB", len / MIB), &file, last);
    }
}

/// The same in one file among many.
fn flat_in_files() {
    let pool = Pool::create_in_memory("bench", 512 * MIB).expect("memory");
    let mut made = 0;
    for count in [1, 1_000, 100_000] {
        while made < count {
            pool.create_file(format!("/{made}")).expect("a file");
            made += 1;
        }
        let file = pool.create_file("/measured").expect("a file");
        file.write_all_at(&[1; 4096], 0).expect("space");
        costs(&format!("one of {count:>6} files"), &file, 0..PAGE);
        drop(file);
        pool.remove_file("/measured").expect("it is there");
    }
}

fn costs(what: &str, file: &File, page: std::ops::Range<u64>) {
    let lazy = MapOptions::new();
    let options = PinOptions::new("bench");
    let fault = best(
        || file.map(page.clone(), &lazy).expect("a mapping"),
        |map| {
            black_box(map.load(0).expect("a page"));
            map
        },
    );
    let pin = best(|| (), |()| drop(file.pin(page.clone(), &options).expect("a pin")));
    let punch = best(
        || file.write_all_at(&[1; 8], page.start).expect("space"),
        |()| file.punch_hole(page.clone()).expect("no pin"),
    );
    file.write_all_at(&[1; 8], page.start).expect("space");
    println!("{what:<24} fault {fault:>9.1?}  pin and unpin {pin:>9.1?}  punch {punch:>9.1?}");
}
