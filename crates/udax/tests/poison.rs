//! Memory that fails under a file of a pool: what a program is told, and how it heals.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use common::{error, in_memory};
use udax::{ErrorKind, OpenOptions, Pool};

mod common;

const PAGE: usize = 4096;

/// The memory under page `page` of a file fails, and its device says so.
fn fail(pool: &Pool, path: &str, page: u64) {
    let file = pool.open_file(path).unwrap();
    let extents = file.extents().unwrap();
    let extent = extents.iter().rfind(|extent| extent.index.0 <= page).unwrap();
    let at = udax_mm::PgmapOff(extent.device.0 + page - extent.index.0);
    let pgmap = pool.filesystem().device().pgmaps().remove(0).try_get_live().unwrap();
    pgmap.memory_failure(at..udax_mm::PgmapOff(at.0 + 1));
}

#[test]
fn lost_bytes_are_listed_refused_with_the_cure_and_healed() {
    let pool = in_memory();
    pool.write("/a", vec![7; 5 * PAGE]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&pool, "/a").unwrap();
    fail(&pool, "/a", 2);

    assert_eq!(file.bad_ranges().unwrap(), std::iter::once(8192..12288).collect::<Vec<_>>());
    let whole = error(pool.read("/a"));
    assert_eq!(whole.kind(), ErrorKind::Media, "never a shorter file");
    assert!(whole.to_string().contains("overwrite bytes 8192..12288"), "{whole}");
    assert_eq!(error(file.read_exact_at(&mut [0; 8], 8190)).kind(), ErrorKind::Media);
    let part = error(file.write_at(&[1], 9000));
    assert_eq!(part.kind(), ErrorKind::Media);
    assert!(part.to_string().contains("8192..12288"), "{part}");

    file.write_at(&vec![9; PAGE], 8192).unwrap();

    assert_eq!(file.bad_ranges().unwrap(), []);
    let bytes = pool.read("/a").unwrap();
    assert_eq!((bytes[8191], bytes[8192], bytes[12288]), (7, 9, 7));
    assert_eq!(pool.verify(), Ok(()));
}
