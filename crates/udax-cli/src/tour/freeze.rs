//! Step: freeze a file and read it as a slice.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::ensure;
use udax::{Access, ErrorKind, File, MapOptions, OpenOptions, Pool, Wait};
use xxhash_rust::xxh3::xxh3_64;

use super::pattern;
use super::stage::{Imported, Stage, refused};
use super::story::size;

pub(crate) fn run(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.story().step(
        "freeze a file and borrow it",
        "A &[u8] on a file is unsound while the file can change. A frozen one cannot.",
    )?;
    let pool = stage.pool()?;
    let known = largest(stage, &pool)?;
    let path = known.path.display();
    let file = OpenOptions::new().read(true).write(true).open(&pool, &known.path)?;
    let started = Instant::now();
    file.freeze(Wait::Never)?;
    stage.saw(format!("froze {path} of {} in {:.1?}", size(known.len), started.elapsed()))?;

    let frozen = file.frozen()?;
    let bytes: &[u8] = &frozen;
    ensure!(xxh3_64(bytes) == known.digest, "the slice has other bytes than the file had");
    stage.saw(format!("its digest, taken over the &[u8] at {:p}, is right", bytes.as_ptr()))?;

    check_refusals(&file)?;
    stage.saw("write, truncate and a writable mapping are refused: the file is frozen")?;
    drop(file);
    pool.remove_file(&known.path)?;
    ensure!(xxh3_64(&frozen) == known.digest, "removing the file changed the slice");
    stage.saw("removed while borrowed: the slice still holds every byte")
}

/// Checks that nothing can change the bytes.
fn check_refusals(file: &File) -> anyhow::Result<()> {
    refused("a write", file.write_at(b"x", 0), ErrorKind::Frozen)?;
    refused("a truncate", file.set_len(0), ErrorKind::Frozen)?;
    refused("a punch", file.punch_hole(0..1), ErrorKind::Frozen)?;
    let options = MapOptions::new().access(Access::Write);
    refused("a writable mapping", file.map(0..1, &options), ErrorKind::Frozen)?;
    Ok(())
}

/// The largest imported file, or one made for the purpose if none has bytes.
fn largest(stage: &Stage<'_>, pool: &Pool) -> anyhow::Result<Imported> {
    let largest = stage.imported().iter().max_by_key(|file| file.len);
    if let Some(file) = largest.filter(|file| file.len > 0) {
        return Ok(file.clone());
    }
    let (path, bytes) = (PathBuf::from("/to-freeze"), pattern::bytes(5, 1 << 20));
    pool.write(&path, &bytes)?;
    let len = u64::try_from(bytes.len())?;
    Ok(Imported { path, len, digest: xxh3_64(&bytes) })
}
