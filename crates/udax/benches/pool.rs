//! Copies, creation and mapped faults of a pool, beside the host's tmpfs and memmap2.
//!
//! The pool lies on `/dev/shm`, so that both sides work on the same memory.

use std::fs;
use std::os::unix::fs::FileExt;

use divan::Bencher;
use divan::counter::BytesCount;
use tempfile::TempDir;
use udax::{Access, CreateOptions, File, MapOptions, Pool, Populate};

const SHM: &str = "/dev/shm";
const BLOCK: usize = 4096;
const FILE: u64 = 64 << 20;

fn main() {
    divan::main();
}

fn pool() -> (TempDir, Pool) {
    let dir = tempfile::tempdir_in(SHM).expect("tmpfs");
    let pool = Pool::create(dir.path().join("pool"), 256 << 20, &CreateOptions::new());
    (dir, pool.expect("a pool"))
}

fn pool_file(pool: &Pool) -> File {
    let file = pool.create_file("/file").expect("a file");
    for at in (0..FILE).step_by(1 << 20) {
        file.write_all_at(&vec![1; 1 << 20], at).expect("space");
    }
    file
}

fn host_file() -> (TempDir, fs::File) {
    let dir = tempfile::tempdir_in(SHM).expect("tmpfs");
    let path = dir.path().join("file");
    let file = fs::File::options().read(true).write(true).create_new(true).open(path);
    let file = file.expect("a file");
    for at in (0..FILE).step_by(1 << 20) {
        file.write_all_at(&vec![1; 1 << 20], at).expect("space");
    }
    (dir, file)
}

/// Offsets of blocks all over a file.
fn offsets() -> impl FnMut() -> u64 {
    let mut at: u64 = 0;
    move || {
        at = (at + 7919 * 4096) % FILE;
        at
    }
}

#[divan::bench]
fn read_4k_pool(bencher: Bencher) {
    let (_dir, pool) = pool();
    let (file, mut next, mut block) = (pool_file(&pool), offsets(), [0; BLOCK]);
    bencher.counter(BytesCount::new(BLOCK)).bench_local(|| file.read_at(&mut block, next()));
}

#[divan::bench]
fn read_4k_tmpfs(bencher: Bencher) {
    let (_dir, file) = host_file();
    let (mut next, mut block) = (offsets(), [0; BLOCK]);
    bencher.counter(BytesCount::new(BLOCK)).bench_local(|| file.read_at(&mut block, next()));
}

#[divan::bench]
fn write_4k_pool(bencher: Bencher) {
    let (_dir, pool) = pool();
    let (file, mut next, block) = (pool_file(&pool), offsets(), [2; BLOCK]);
    bencher.counter(BytesCount::new(BLOCK)).bench_local(|| file.write_at(&block, next()));
}

#[divan::bench]
fn write_4k_tmpfs(bencher: Bencher) {
    let (_dir, file) = host_file();
    let (mut next, block) = (offsets(), [2; BLOCK]);
    bencher.counter(BytesCount::new(BLOCK)).bench_local(|| file.write_at(&block, next()));
}

#[divan::bench]
fn create_write_remove_pool(bencher: Bencher) {
    let (_dir, pool) = pool();
    bencher.bench_local(|| {
        pool.write("/new", [3; BLOCK]).expect("space");
        pool.remove_file("/new").expect("the file");
    });
}

#[divan::bench]
fn create_write_remove_tmpfs(bencher: Bencher) {
    let dir = tempfile::tempdir_in(SHM).expect("tmpfs");
    let path = dir.path().join("new");
    bencher.bench_local(|| {
        fs::write(&path, [3; BLOCK]).expect("space");
        fs::remove_file(&path).expect("the file");
    });
}

#[divan::bench]
fn map_and_touch_64_mib_pool(bencher: Bencher) {
    let (_dir, pool) = pool();
    let file = pool_file(&pool);
    let options = MapOptions::new().access(Access::Write);
    bencher.counter(BytesCount::new(FILE)).bench_local(|| {
        let map = file.map(0..FILE, &options).expect("a mapping");
        (0..FILE).step_by(BLOCK).map(|at| map.load(at).expect("a page")).sum::<u64>()
    });
}

#[divan::bench]
fn map_eagerly_64_mib_pool(bencher: Bencher) {
    let (_dir, pool) = pool();
    let file = pool_file(&pool);
    let options = MapOptions::new().access(Access::Write).populate(Populate::Eager);
    bencher.counter(BytesCount::new(FILE)).bench_local(|| {
        let map = file.map(0..FILE, &options).expect("a mapping");
        (0..FILE).step_by(BLOCK).map(|at| map.load(at).expect("a page")).sum::<u64>()
    });
}

/// All faults in one call of the host, because this crate has no unsafe code to touch pages with.
#[divan::bench]
fn map_and_populate_64_mib_memmap2(bencher: Bencher) {
    let (_dir, file) = host_file();
    bencher.counter(BytesCount::new(FILE)).bench_local(|| {
        let map = memmap2::MmapRaw::map_raw(&file).expect("a mapping");
        map.advise(memmap2::Advice::PopulateWrite).expect("populated");
        map.len()
    });
}
