//! Step: truncate with a deadline, against a pin.

use std::time::{Duration, Instant};

use anyhow::ensure;
use udax::{ErrorKind, FreePolicy, PAGE_SIZE, PinOptions, Wait};

use super::pattern;
use super::stage::{Stage, refused};

const PATH: &str = "/leased";
const LEN: usize = 16 * PAGE_SIZE;
const LABEL: &str = "tour: a network card";
const PATIENCE: Duration = Duration::from_millis(50);

pub(crate) fn run(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.story().step(
        "truncate against a pin",
        "Who wants to wait for a pin says how long; the error says who holds it, and since when.",
    )?;
    let pool = stage.pool()?;
    let file = pool.create_file(PATH)?;
    file.write_all_at(&pattern::bytes(4, LEN), 0)?;
    let len = u64::try_from(LEN)?;
    let pin = file.pin(0..len, &PinOptions::new(LABEL))?;

    let started = Instant::now();
    let policy = FreePolicy::Wait(Wait::Until(started + PATIENCE));
    let message = refused("the truncate", file.set_len_with(0, policy), ErrorKind::Pinned)?;
    let waited = started.elapsed();
    ensure!(waited >= PATIENCE, "it gave up after {waited:.1?}, before its deadline");
    ensure!(message.contains(LABEL), "the error does not name the holder: {message}");
    stage.saw(format!("gave up after {waited:.1?}: {message}"))?;
    let age = pin.age();
    ensure!(age >= PATIENCE, "the pin is {age:.1?} old, younger than the wait for it");
    ensure!(file.metadata().len() == len, "a truncate that failed changed the size");
    stage.saw(format!("the file still has its {len} bytes; the pin is {age:.1?} old"))?;

    drop(pin);
    file.set_len_with(0, FreePolicy::Wait(Wait::Never))?;
    ensure!(file.metadata().len() == 0, "the truncate did not truncate");
    stage.saw("after the unpin it does not have to wait")
}
