//! Step: create a pool.

use std::time::Instant;

use anyhow::ensure;
use udax::{CreateOptions, Persistence, Pool};

use super::scan::Scan;
use super::stage::Stage;
use super::story::size;

/// Room for what the later steps write themselves.
const SPARE: u64 = 512 << 20;

pub(crate) fn run(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.story().step(
        "create a pool",
        "A pool is a filesystem in one file of the host; its pages are what programs map.",
    )?;
    let bytes = Scan::of(stage.dir(), stage.limit())?.bytes() / 4 * 5 + SPARE;
    let started = Instant::now();
    let pool = Pool::create(stage.path(), bytes, &CreateOptions::new().label("tour"))?;
    let time = started.elapsed();
    stage.story().once("create a pool", time);

    let usage = pool.usage();
    ensure!(usage.total.bytes() >= bytes, "the pool has {} pages, fewer than asked", usage.total);
    ensure!(usage.limbo.is_empty(), "a pool nobody used has pages in limbo");
    let total = size(usage.total.bytes());
    stage.saw(format!("{}: {total} in {time:.1?}", stage.path().display()))?;
    let blocks = usage.huge_free;
    stage.saw(format!("{} free, {blocks} whole blocks of 2 MiB", size(usage.free.bytes())))?;
    let facts = pool.facts();
    stage.saw(match facts.persistence {
        Persistence::Process => "completed calls survive kill -9 of this process, not a power loss",
        Persistence::CacheLines | Persistence::Msync => "completed calls survive a power loss",
        Persistence::Volatile => "nothing survives the last handle",
    })?;
    stage.enter(pool);
    Ok(())
}
