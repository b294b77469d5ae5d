//! Step: small things, many times, for the table of figures.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::ensure;
use udax::{Access, MapOptions, PAGE_SIZE, PinOptions, Pool, Wait};
use xxhash_rust::xxh3::xxh3_64;

use super::stage::Stage;
use super::story::size;
use super::{pattern, verify};

const DIR: &str = "/figures";
const FILES: u64 = 1000;
const PINS: u64 = 10_000;
/// The file whose bytes are moved in bulk.
const LEN: usize = 32 << 20;
/// Bytes copied at once.
const CHUNK: usize = 4 << 20;
/// Bytes before a block of 2 MiB, so that pages are touched one by one.
const TOUCHED: usize = 1 << 20;

pub(crate) fn run(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.story().step("measure small things", "How long one of many takes, on this machine.")?;
    let pool = stage.pool()?;
    pool.create_dir(DIR)?;
    files(stage, &pool)?;
    bulk(stage, &pool)?;
    pins(stage, &pool)?;
    faults(stage, &pool)?;
    pool.remove_dir_all(DIR)?;
    pool.verify().map_err(anyhow::Error::msg)?;
    let usage = pool.usage();
    ensure!(usage.limbo.is_empty(), "{} pages are left in limbo", usage.limbo);
    stage.saw("the pool agrees with itself after all of this; nothing is left in limbo")
}

/// Creates, and removes.
fn files(stage: &mut Stage<'_>, pool: &Pool) -> anyhow::Result<()> {
    let path = |number: u64| PathBuf::from(format!("{DIR}/{number}"));
    let started = Instant::now();
    for number in 0..FILES {
        pool.create_file(path(number))?;
    }
    stage.story().frequency("create", FILES, started.elapsed());
    let page = pattern::bytes(7, PAGE_SIZE);
    let started = Instant::now();
    for number in 0..FILES {
        pool.write(path(number), &page)?;
    }
    stage.story().frequency("write a file of one page", FILES, started.elapsed());
    let started = Instant::now();
    for number in 0..FILES {
        pool.remove_file(path(number))?;
    }
    stage.story().frequency("remove", FILES, started.elapsed());
    stage.saw(format!("created, wrote and removed {FILES} files"))
}

/// Writes a large file, and reads it through a mapping and as a slice.
fn bulk(stage: &mut Stage<'_>, pool: &Pool) -> anyhow::Result<()> {
    let (bytes, len) = (pattern::bytes(10, LEN), u64::try_from(LEN)?);
    let file = pool.create_file(format!("{DIR}/bulk"))?;
    let started = Instant::now();
    file.write_all_at(&bytes, 0)?;
    stage.story().throughput("write", len, started.elapsed());
    let huge = verify::huge_pages(&file)?.bytes();
    stage.saw(format!("wrote {}, {} of it in blocks of 2 MiB", size(len), size(huge)))?;

    let map = file.map(0..len, &MapOptions::new())?;
    let mut chunk = vec![0; CHUNK];
    let started = Instant::now();
    for at in (0..len).step_by(CHUNK) {
        map.read(&mut chunk, at)?;
    }
    stage.story().throughput("copy out of a fresh mapping", len, started.elapsed());
    drop(map);
    file.freeze(Wait::Never)?;
    let frozen = file.frozen()?;
    let started = Instant::now();
    let digest = xxh3_64(&frozen);
    stage.story().throughput("digest of a frozen slice", len, started.elapsed());
    ensure!(digest == xxh3_64(&bytes), "the slice has other bytes than were written");
    stage.saw("read it through a mapping, and as a slice: the digest is right")
}

/// Pins and unpins; each size in a file of its own, because a block whose pages were once used one
/// by one stays divided.
fn pins(stage: &mut Stage<'_>, pool: &Pool) -> anyhow::Result<()> {
    let options = PinOptions::new("tour: figures");
    for (name, len) in [("pin and unpin 4 KiB", PAGE_SIZE), ("pin and unpin 8 MiB", 8 << 20)] {
        let file = pool.create_file(format!("{DIR}/{name}"))?;
        file.write_all_at(&pattern::bytes(8, len), 0)?;
        let len = u64::try_from(len)?;
        let started = Instant::now();
        for _ in 0..PINS {
            drop(file.pin(0..len, &options)?);
        }
        stage.story().each(name, PINS, started.elapsed());
        ensure!(file.pins().is_empty(), "a dropped pin is still listed");
    }
    stage.saw(format!("pinned and unpinned {} ranges", 2 * PINS))
}

/// Touches pages of a fresh mapping.
fn faults(stage: &mut Stage<'_>, pool: &Pool) -> anyhow::Result<()> {
    let file = pool.create_file(format!("{DIR}/touched"))?;
    file.write_all_at(&pattern::bytes(9, TOUCHED), 0)?;
    let len = u64::try_from(TOUCHED)?;
    let map = file.map(0..len, &MapOptions::new().access(Access::Write))?;
    let pages = len / u64::try_from(PAGE_SIZE)?;
    let started = Instant::now();
    for page in 0..pages {
        map.store(page * 4096, page)?;
    }
    let time = started.elapsed();
    stage.story().each("first store to a mapped 4 KiB page", pages, time);
    stage.saw(format!("touched {pages} pages of a fresh mapping"))
}
