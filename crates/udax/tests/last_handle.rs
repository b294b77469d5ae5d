//! A pool is closed in good order with its last handle, whichever that is.
//!
//! Handles of files let go of the pool before they let go of the file. The pool was closed then, and
//! a file without a name was not freed: the next session found an orphan.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use common::on_file;
use std::path::Path;
use udax::Pool;

mod common;

#[test]
fn the_last_handle_of_a_file_without_a_name_frees_it_and_then_closes_the_pool() {
    let (_dir, path, pool) = on_file();
    let file = pool.create_file("/a").unwrap();
    file.write_at(&[7; 10_000], 0).unwrap();
    pool.remove_file("/a").unwrap();
    drop(pool);
    drop(file);
    nothing_to_recover(&path);
}

#[test]
fn the_last_listing_of_a_directory_without_a_name_frees_it_and_then_closes_the_pool() {
    let (_dir, path, pool) = on_file();
    pool.create_dir("/a").unwrap();
    let listing = pool.read_dir("/a").unwrap();
    pool.remove_dir("/a").unwrap();
    drop(pool);
    drop(listing);
    nothing_to_recover(&path);
}

fn nothing_to_recover(path: &Path) {
    let pool = Pool::open(path).unwrap();
    let recovered = pool.recovered();
    assert_eq!(recovered.orphans, 0, "{recovered:?}");
    assert!(!recovered.replayed, "{recovered:?}");
}
