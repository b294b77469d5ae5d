//! Step: remove a file while a range of it is pinned.

use std::time::Instant;

use anyhow::ensure;
use udax::{ErrorKind, PAGE_SIZE, PinOptions, PinnedFile, Pool};

use super::pattern;
use super::stage::{Stage, refused};

const PATH: &str = "/pinned";
const LEN: usize = 64 * PAGE_SIZE;
const LABEL: &str = "tour: a device that reads";

pub(crate) fn run(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.story().step(
        "remove a file that is pinned",
        "A device holds a pin. Here the file goes at once, and its blocks wait in limbo for the pin.",
    )?;
    let pool = stage.pool()?;
    // The directory page and the inode that the file takes are there from here on.
    pool.write(PATH, b"")?;
    pool.remove_file(PATH)?;
    let before = pool.usage();
    pool.write(PATH, pattern::bytes(2, LEN))?;
    let len = u64::try_from(LEN)?;
    let pin = pool.open_file(PATH)?.pin(0..len, &PinOptions::new(LABEL))?;
    stage.saw(format!("pinned {} bytes of {PATH} for {LABEL:?}", pin.range().end))?;

    let started = Instant::now();
    pool.remove_file(PATH)?;
    stage.saw(format!("remove_file returned after {:.1?}", started.elapsed()))?;
    let gone = refused("opening the removed file", pool.open_file(PATH), ErrorKind::NotFound)?;
    stage.saw(format!("the name is gone: {gone}"))?;
    let limbo = pool.usage().limbo;
    ensure!(limbo.bytes() == len, "{limbo} pages are in limbo, the pin covers {len} bytes");
    let pins = pool.pins()?;
    let listed = pins
        .iter()
        .any(|pin| *pin.file() == PinnedFile::Limbo && pin.owner().label.as_ref() == LABEL);
    ensure!(listed, "pool.pins() does not list the pin in limbo: {pins:?}");
    stage.saw(format!("{limbo} pages are in limbo, and pool.pins() names the holder"))?;

    // Written to the same place, these bytes would be read through the pin.
    pool.write("/neighbour", pattern::bytes(3, 4 * LEN))?;
    let mut bytes = vec![0; LEN];
    pin.read(&mut bytes, 0)?;
    ensure!(bytes == pattern::bytes(2, LEN), "the pinned bytes changed");
    stage.saw("other files were written since; the pinned bytes are intact")?;
    pool.remove_file("/neighbour")?;

    drop(pin);
    check_returned(&pool, before)?;
    stage.saw(format!("the last put gave the blocks back: {} pages free", pool.usage().free))
}

/// Checks that the pool is as full as `before`.
fn check_returned(pool: &Pool, before: udax::Usage) -> anyhow::Result<()> {
    let after = pool.usage();
    ensure!(after.limbo.is_empty(), "{} pages are still in limbo", after.limbo);
    ensure!(after.free == before.free, "{} pages are free, {} were", after.free, before.free);
    Ok(())
}
