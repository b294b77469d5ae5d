//! Step: take the device away while something is pinned.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use udax::{ErrorKind, MapOptions, PAGE_SIZE, Pin, PinOptions, Pool, Wait};
use udax_mm::sync::mpsc;

use super::pattern;
use super::stage::{Stage, refused};

const PATH: &str = "/unplugged";
const LEN: usize = 8 * PAGE_SIZE;
const LABEL: &str = "tour: a GPU";
const PATIENCE: Duration = Duration::from_millis(50);

pub(crate) fn run(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.story().step(
        "take the device away",
        "No page may be reached after its device is gone, and none may go while it is pinned.",
    )?;
    remove(stage)?;
    stage.abandon();

    let report = Pool::check(stage.path())?;
    ensure!(report.problems.is_empty(), "check after the removal: {:?}", report.problems);
    stage.reopen()?;
    let bytes = stage.pool()?.read(PATH)?;
    ensure!(bytes == pattern::bytes(6, LEN), "the file is not what was written");
    stage.saw("plugged in again: check is clean, and the file is what it was")
}

/// Takes the device away from under the pool.
fn remove(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let pool = stage.pool()?;
    let file = pool.create_file(PATH)?;
    file.write_all_at(&pattern::bytes(6, LEN), 0)?;
    let len = u64::try_from(LEN)?;
    let map = file.map(0..len, &MapOptions::new())?;
    map.load(0)?;
    let pin = file.pin(0..len, &PinOptions::new(LABEL))?;

    let busy = pool.remove_device(Wait::Never);
    let message = refused("a removal that may not wait", busy, ErrorKind::Pinned)?;
    ensure!(message.contains(LABEL), "the error does not name the holder: {message}");
    stage.saw(format!("it is held: {message}"))?;
    refused("a new pin", file.pin(0..len, &PinOptions::new("late")), ErrorKind::DeviceGone)?;
    refused("a read", file.read_at(&mut [0; 8], 0), ErrorKind::DeviceGone)?;
    refused("a write", file.write_at(b"late", 0), ErrorKind::DeviceGone)?;
    stage.saw("pin, read and write are refused at once: the device is gone")?;
    ensure!(map.load(0).is_err(), "a load through the old mapping still works");
    stage.saw("a load through the old mapping is an error, not the death of this process")?;
    let mut bytes = vec![0; LEN];
    pin.read(&mut bytes, 0)?;
    ensure!(bytes == pattern::bytes(6, LEN), "the pinned bytes changed");
    stage.saw("the pin still reads its bytes: its pages are not taken by force")?;
    drop((map, file));
    drain(stage, &pool, pin)
}

/// Waits for the pin in another thread, and drops it.
fn drain(stage: &mut Stage<'_>, pool: &Pool, pin: Pin) -> anyhow::Result<()> {
    let (sender, drained) = mpsc::channel();
    let remover = thread::spawn({
        let pool = pool.clone();
        move || {
            // The receiver is gone only if the tour failed already.
            let _ = sender.send(pool.remove_device(Wait::Forever));
        }
    });
    if drained.recv_timeout(PATIENCE).is_ok() {
        bail!("the removal did not wait for the pin");
    }
    stage.saw(format!("a removal that waits still waits after {PATIENCE:?}"))?;
    let started = Instant::now();
    drop(pin);
    drained.recv().context("the removal never ended")??;
    let time = started.elapsed();
    remover.join().map_err(|_| anyhow::anyhow!("the thread that removes panicked"))?;
    stage.story().once("drain after the last unpin", time);
    stage.saw(format!("it completed {time:.1?} after the last unpin"))
}
