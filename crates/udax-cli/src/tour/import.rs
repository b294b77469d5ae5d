//! Step: import a directory.

use std::fs::{self, File as HostFile};
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use udax::Pool;
use xxhash_rust::xxh3::Xxh3;

use super::scan::{Found, Scan, What};
use super::stage::{Imported, Stage};
use super::story::size;

/// The directory of the pool that holds the import.
pub(crate) const ROOT: &str = "/imported";

/// Bytes moved at once.
const CHUNK: usize = 4 << 20;

/// What was imported.
#[derive(Default)]
struct Tally {
    files: Vec<Imported>,
    dirs: u64,
    symlinks: u64,
    unreadable: u64,
}

pub(crate) fn run(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage
        .story()
        .step("import a directory", "Real files go in, with a digest of each taken on the way.")?;
    let (pool, dir) = (stage.pool()?, stage.dir().to_owned());
    let scan = Scan::of(&dir, stage.limit())?;
    let before = pool.usage();
    pool.create_dir(ROOT)?;
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut chunk = vec![0; CHUNK];
    for found in scan.entries() {
        tally.import(&pool, &dir, found, &mut chunk)?;
    }
    let time = started.elapsed();

    let bytes = tally.files.iter().map(|file| file.len).sum();
    let shown = fs::canonicalize(&dir).unwrap_or(dir);
    let (files, total) = (tally.files.len(), size(bytes));
    stage.saw(format!("{}: {files} files, {total}, in {time:.1?}", shown.display()))?;
    stage.saw(format!("{} directories and {} symbolic links", tally.dirs, tally.symlinks))?;
    for notice in scan.notices() {
        stage.saw(notice)?;
    }
    if tally.unreadable > 0 {
        stage.saw(format!("{} files left out: they cannot be read", tally.unreadable))?;
    }
    let used = pool.usage().used - before.used;
    ensure!(used.bytes() >= bytes / 2, "{used} pages cannot hold {bytes} bytes");
    stage.saw(format!("the pool uses {} more", size(used.bytes())))?;
    stage.story().throughput("import", bytes, time);
    stage.story().frequency("import, files", u64::try_from(files)?, time);
    stage.remember(tally.files);
    Ok(())
}

impl Tally {
    fn import(
        &mut self,
        pool: &Pool,
        dir: &Path,
        found: &Found,
        chunk: &mut [u8],
    ) -> anyhow::Result<()> {
        let from = dir.join(&found.path);
        let to = Path::new(ROOT).join(&found.path);
        match found.what {
            What::Dir => {
                pool.create_dir(&to)?;
                self.dirs += 1;
            }
            What::Symlink => match fs::read_link(&from) {
                Ok(target) => {
                    pool.symlink(target, &to)?;
                    self.symlinks += 1;
                }
                Err(_) => self.unreadable += 1,
            },
            What::File => match HostFile::open(&from) {
                Ok(host) => match import_file(pool, &host, &to, chunk)? {
                    Some(imported) => self.files.push(imported),
                    None => self.unreadable += 1,
                },
                Err(_) => self.unreadable += 1,
            },
        }
        Ok(())
    }
}

/// Copies one file, and digests what it read; none if the host does not read it out.
fn import_file(
    pool: &Pool,
    mut host: &HostFile,
    to: &Path,
    chunk: &mut [u8],
) -> anyhow::Result<Option<Imported>> {
    let file = pool.create_file(to)?;
    let mut digest = Xxh3::new();
    let mut len = 0;
    loop {
        let Ok(read) = host.read(chunk) else {
            drop(file);
            pool.remove_file(to)?;
            return Ok(None);
        };
        let bytes = chunk.get(..read).expect("no more is read than asked for");
        if bytes.is_empty() {
            let digest = digest.digest();
            return Ok(Some(Imported { path: to.to_owned(), len, digest }));
        }
        file.write_all_at(bytes, len)?;
        digest.update(bytes);
        len += u64::try_from(read)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_host_does_not_read_out_is_left_out() {
        let pool = Pool::create_in_memory("pool", 8 << 20).expect("a pool");
        let dir = tempfile::tempdir().expect("a directory");
        let unreadable = HostFile::open(dir.path()).expect("a directory can be opened");
        let imported = import_file(&pool, &unreadable, Path::new("/a"), &mut [0; 16]);
        assert!(imported.expect("no error of the pool").is_none());
        assert!(pool.metadata("/a").is_err());
    }
}
