//! Step: store through a mapping, and read it back after the pool was opened again.

use anyhow::ensure;
use udax::{Access, MapOptions, OpenOptions};

use super::pattern;
use super::stage::Stage;

const PATH: &str = "/stored";
const LEN: usize = 3 << 20;
/// Where the text goes: over the border of two pages.
const AT: u64 = 5 * 4096 - 9;
const TEXT: &[u8] = b"stored through a mapping";
/// Where a number goes, atomically.
const NUMBER_AT: u64 = 1 << 20;
const NUMBER: u64 = 0x7564_6178;

pub(crate) fn run(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.story().step(
        "store through a mapping",
        "A store to mapped memory is a write to the file: there is no page cache between.",
    )?;
    store(stage)?;
    stage.close()?;
    let time = stage.reopen()?;
    stage.story().once("open a pool that was closed", time);
    let recovered = stage.pool()?.recovered().clone();
    ensure!(recovered.unclean.is_none(), "a closed pool was recovered: {recovered:?}");
    stage.saw(format!("closed and opened again in {time:.1?}; nothing to recover"))?;

    let pool = stage.pool()?;
    let found = pool.read(PATH)?;
    let mut expected = pattern::bytes(1, LEN);
    place(&mut expected, AT, TEXT)?;
    place(&mut expected, NUMBER_AT, &NUMBER.to_le_bytes())?;
    ensure!(found == expected, "the file differs from what was stored");
    let text = String::from_utf8_lossy(TEXT);
    stage.saw(format!("read back: {text:?} and {NUMBER:#x}; the other bytes are as they were"))
}

/// Writes a file, then stores into it through a mapping.
fn store(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let pool = stage.pool()?;
    pool.write(PATH, pattern::bytes(1, LEN))?;
    let file = OpenOptions::new().read(true).write(true).open(&pool, PATH)?;
    let map = file.map(0..u64::try_from(LEN)?, &MapOptions::new().access(Access::Write))?;
    map.write(TEXT, AT)?;
    map.store(NUMBER_AT, NUMBER)?;
    let mut seen = vec![0; TEXT.len()];
    file.read_exact_at(&mut seen, AT)?;
    ensure!(seen == TEXT, "read_at does not see the store");
    stage.saw(format!("stored at {:#x}; read_at sees it at once", map.addr()))?;
    map.flush(0..u64::try_from(LEN)?)?;
    Ok(())
}

/// Puts `bytes` at `at` of `image`.
fn place(image: &mut [u8], at: u64, bytes: &[u8]) -> anyhow::Result<()> {
    let at = usize::try_from(at)?;
    let place = image.get_mut(at..at + bytes.len()).expect("the text lies inside the file");
    place.copy_from_slice(bytes);
    Ok(())
}
