//! Step: read every imported file through a mapping, and compare digests.

use std::time::Instant;

use anyhow::ensure;
use udax::{File, MapOptions, Order, Pages, Populate};
use xxhash_rust::xxh3::Xxh3;

use super::stage::Stage;
use super::story::size;

/// Bytes copied out of a mapping at once.
const CHUNK: usize = 1 << 20;

pub(crate) fn run(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.story().step(
        "verify every file through a mapping",
        "Each file is mapped: its pages in the pool become memory of this process, uncopied.",
    )?;
    let pool = stage.pool()?;
    let imported = stage.imported().to_vec();
    let (mut bytes, mut huge, mut is_lazy) = (0, Pages(0), true);
    let mut chunk = vec![0; CHUNK];
    let started = Instant::now();
    for known in &imported {
        let file = pool.open_file(&known.path)?;
        let path = known.path.display();
        let len = file.metadata().len();
        ensure!(len == known.len, "{path} has {len} bytes, {} were imported", known.len);
        let (digest, lazy) = digest(&file, len, &mut chunk)?;
        ensure!(digest == known.digest, "{path}: the digest {digest:016x} is a wrong one");
        is_lazy &= lazy;
        bytes += len;
        huge = huge + huge_pages(&file)?;
    }
    let time = started.elapsed();

    let count = imported.len();
    stage.saw(format!("{count} of {count} digests are right: {} in {time:.1?}", size(bytes)))?;
    stage.saw(if is_lazy {
        "pages were mapped at their first touch, by userfaultfd"
    } else {
        "pages were mapped in advance: userfaultfd is not permitted here"
    })?;
    stage.saw(format!("{} lie in blocks that map as 2 MiB pages", size(huge.bytes())))?;
    stage.story().throughput("map, read and digest", bytes, time);
    Ok(())
}

/// The digest of a file, read through a mapping, and whether the mapping is lazy.
fn digest(file: &File, len: u64, chunk: &mut [u8]) -> anyhow::Result<(u64, bool)> {
    let mut digest = Xxh3::new();
    if len == 0 {
        return Ok((digest.digest(), true));
    }
    let map = file.map(0..len, &MapOptions::new())?;
    let mut at = 0;
    while at < len {
        let want = usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK);
        let bytes = chunk.get_mut(..want).expect("a chunk holds what is wanted");
        map.read(bytes, at)?;
        digest.update(bytes);
        at += u64::try_from(want)?;
    }
    Ok((digest.digest(), map.faulting() == Populate::Lazy))
}

/// The pages of a file that lie in entries of order 9 and above.
pub(crate) fn huge_pages(file: &File) -> anyhow::Result<Pages> {
    let extents = file.extents()?;
    let huge = extents.iter().filter(|extent| extent.order > Order::Base);
    Ok(huge.fold(Pages(0), |sum, extent| sum + extent.pages))
}
