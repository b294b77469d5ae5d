//! A full pool: what does not fit is undone.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{KIB, MIB, Pool, create, name, pattern};
use udax_fs::{Filesystem, FreePolicy, FsError, Inode, Kind, Usage};
use udax_mm::sync::Arc;
use udax_mm::{Pages, Wait};

/// A pool in which `left` pages are free.
fn nearly_full(left: u64) -> (Pool, Arc<Filesystem>, Arc<Inode>) {
    let pool = Pool::new(4 * MIB);
    let fs = pool.mount();
    let file = create(&fs, "filler");
    loop {
        let free = fs.usage().free.0;
        if free <= left {
            break;
        }
        let len = ((free - left) * 4 * KIB).min(256 * KIB);
        if file.append(&pattern(1, len)).is_err() {
            file.append(&[1; 4096]).unwrap();
        }
    }
    assert_eq!(fs.usage().free, Pages(left));
    (pool, fs, file)
}

/// Runs `call`, which must find the pool full and leave everything as it was.
fn refused<T>(pool: &Pool, fs: &Filesystem, call: impl FnOnce() -> Result<T, FsError>) {
    let before = fs.usage();
    match call() {
        Err(FsError::NoSpace { .. }) => (),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it fitted"),
    }
    // A 2 MiB block that was missed was missed, also in vain.
    let huge_misses = fs.usage().huge_misses;
    assert_eq!(fs.usage(), Usage { huge_misses, ..before });
    fs.verify().unwrap();
    pool.check();
}

#[test]
fn a_write_that_does_not_fit_changes_nothing() {
    let (pool, fs, file) = nearly_full(5);
    let other = create(&fs, "other");
    refused(&pool, &fs, || other.write_at(&pattern(2, 64 * KIB), 0));
    refused(&pool, &fs, || other.append(&pattern(2, 64 * KIB)));
    refused(&pool, &fs, || file.append(&pattern(2, 64 * KIB)));
    refused(&pool, &fs, || other.allocate(0..64 * KIB));
    assert_eq!(other.attr().size, 0);
    assert_eq!(other.write_at(&[1; 4096], 0).unwrap(), 4096);
}

#[test]
fn a_write_for_which_a_node_does_not_fit_overwrites_nothing() {
    let pool = Pool::new(4 * MIB);
    let fs = pool.mount();
    let (file, filler) = (create(&fs, "a"), create(&fs, "filler"));
    file.append(&[1; 4096]).unwrap();
    while fs.usage().free > Pages(1) {
        let len = ((fs.usage().free.0 - 1) * 4 * KIB).min(256 * KIB);
        if filler.append(&pattern(1, len)).is_err() {
            filler.append(&[1; 4096]).unwrap();
        }
    }
    refused(&pool, &fs, || file.write_at(&[2; 8192], 0));
    assert_eq!(common::contents(&file), [1; 4096]);
}

#[test]
fn an_allocation_for_which_the_nodes_do_not_fit_allocates_nothing() {
    let pool = Pool::new(16 * MIB);
    let fs = pool.mount();
    let file = create(&fs, "a");
    let end = |left: u64| (fs.usage().free.0 - left) * 4 * KIB;
    refused(&pool, &fs, || file.allocate(0..end(0)));
    refused(&pool, &fs, || file.allocate(4096..end(1)));
    file.write_at(&[1; 4096], 20 * MIB).unwrap();
    refused(&pool, &fs, || file.allocate(MIB..MIB + end(2)));
    file.allocate(0..end(10)).unwrap();
    fs.verify().unwrap();
    pool.check();
}

#[test]
fn a_punch_for_which_a_node_does_not_fit_zeroes_nothing() {
    let pool = Pool::new(6 * MIB);
    let fs = pool.mount();
    let (file, filler) = (create(&fs, "a"), create(&fs, "filler"));
    let bytes = pattern(2, 2 * MIB);
    file.append(&bytes).unwrap();
    while fs.usage().free > Pages(0) {
        let len = (fs.usage().free.0 * 4 * KIB).min(256 * KIB);
        if filler.append(&pattern(1, len)).is_err() {
            filler.append(&[1; 4096]).unwrap();
        }
    }
    for policy in [FreePolicy::Wait(Wait::Never), FreePolicy::Defer] {
        refused(&pool, &fs, || file.punch(100..20_000, policy));
        refused(&pool, &fs, || file.truncate(MIB + 100, policy));
        assert!(common::contents(&file) == bytes, "{policy:?}");
    }
}

#[test]
fn a_long_write_keeps_the_steps_that_fitted() {
    let pool = Pool::new(12 * MIB);
    let fs = pool.mount();
    let file = create(&fs, "a");
    let bytes = pattern(3, 20 * MIB);
    let done = u64::try_from(file.write_at(&bytes, 0).unwrap()).unwrap();
    assert_eq!(done, 8 * MIB);
    assert_eq!(file.attr().size, done);
    refused(&pool, &fs, || file.append(&bytes));
}

#[test]
fn names_that_do_not_fit_change_nothing() {
    let (pool, fs, file) = nearly_full(0);
    let root = fs.root().unwrap();
    let before = fs.usage().inodes;
    let mut made = 0;
    let refusal = loop {
        let called = name(&format!("{made:0>200}"));
        match fs.create(&root, &called, Kind::File, 0, 0, 0) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, FsError::NoSpace { .. }), "{refusal}");
    assert_eq!(fs.usage().inodes, before + made);
    let long = name(&"l".repeat(255));
    refused(&pool, &fs, || fs.create(&root, &long, Kind::Dir, 0, 0, 0));
    refused(&pool, &fs, || fs.symlink(&root, &name("s"), b"t", 0, 0));
    refused(&pool, &fs, || fs.link(&file, &root, &long));
    fs.unlink(&root, &name(&format!("{:0>200}", 0))).unwrap();
    fs.verify().unwrap();
}

#[test]
fn a_full_pool_can_be_emptied() {
    let (pool, fs, file) = nearly_full(0);
    file.punch(100 * KIB..200 * KIB, FreePolicy::Wait(Wait::Never)).unwrap();
    fs.verify().unwrap();
    drop(file);
    fs.unlink(&fs.root().unwrap(), &name("filler")).unwrap();
    fs.verify().unwrap();
    fs.unmount().unwrap();
    pool.check();
    let fs = pool.mount();
    create(&fs, "again").append(&pattern(1, MIB)).unwrap();
}

#[test]
fn an_append_that_does_not_fit_says_what_did_not() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = create(&fs, "a");
    // The first 4 MiB fit.
    match file.append(&pattern(1, 8 * MIB)) {
        Err(FsError::NoSpace { wanted, free }) => assert!(wanted > free, "{wanted:?} of {free:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(file.attr().size, 0);
    fs.verify().unwrap();
}
