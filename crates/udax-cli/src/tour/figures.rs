//! Step: small things, many times, for the table of figures.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::ensure;
use udax::{Access, MapOptions, PAGE_SIZE, PinOptions, Pool};

use super::pattern;
use super::stage::Stage;

const DIR: &str = "/figures";
const FILES: u64 = 1000;
const PINS: u64 = 10_000;
const LEN: usize = 8 << 20;
/// Bytes before a block of 2 MiB, so that pages are touched one by one.
const TOUCHED: usize = 1 << 20;

pub(crate) fn run(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.story().step("measure small things", "How long one of many takes, on this machine.")?;
    let pool = stage.pool()?;
    pool.create_dir(DIR)?;
    files(stage, &pool)?;
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

/// Pins and unpins.
fn pins(stage: &mut Stage<'_>, pool: &Pool) -> anyhow::Result<()> {
    let file = pool.create_file(format!("{DIR}/pinned"))?;
    file.write_all_at(&pattern::bytes(8, LEN), 0)?;
    let options = PinOptions::new("tour: figures");
    for (name, len) in [("pin and unpin 4 KiB", PAGE_SIZE), ("pin and unpin 8 MiB", LEN)] {
        let len = u64::try_from(len)?;
        let started = Instant::now();
        for _ in 0..PINS {
            drop(file.pin(0..len, &options)?);
        }
        stage.story().each(name, PINS, started.elapsed());
    }
    ensure!(file.pins().is_empty(), "a dropped pin is still listed");
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
