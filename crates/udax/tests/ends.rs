//! Every call that takes all of a file away, while a device still has pages of it: the call does not
//! wait, the holder is told, and its bytes are nobody else's until it lets go (B-03).

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::ops::Range;

use common::{close_clean, on_file, open};
use udax::{File, OpenOptions, Pin, PinKind, PinOptions, Pool, RecallReason, Recalled};
use udax_mm::sync::{Arc, Mutex};

const PAGE: u64 = 4096;

/// What the device has of the file.
const PINNED: Range<u64> = 2 * PAGE..6 * PAGE;

/// Ten pages, none like another.
fn bytes() -> Vec<u8> {
    (0..10 * PAGE).map(|at| u8::try_from((at / PAGE * 7 + at) % 251).unwrap()).collect()
}

/// Pins pages of "/folder/file". What its holder is told comes to the list.
fn device(pool: &Pool) -> (Pin, Arc<Mutex<Vec<Recalled>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let options = PinOptions::new("the device").kind(PinKind::Write).on_recall({
        let told = Arc::clone(&told);
        move |recalled| told.lock().push(recalled.clone())
    });
    (open(pool, "/folder/file").pin(PINNED, &options).unwrap(), told)
}

/// Gives out all that is free, to a file of other bytes.
fn fill(pool: &Pool) -> File {
    let filler = open(pool, "/filler");
    for len in [1 << 16, 4096] {
        while filler.append(&vec![0xee; len]).is_ok() {}
    }
    assert!(pool.usage().free.0 < 16, "{:?}", pool.usage());
    filler
}

/// Runs `end`, which takes all from "/folder/file", or the file itself, or the folder.
fn check(how: &str, end: impl FnOnce(&Pool)) {
    let (_dir, path, pool) = on_file();
    pool.write("/first", b"so that the root has a page").unwrap();
    let before = pool.usage().used;
    pool.create_dir("/folder").unwrap();
    pool.write("/folder/file", bytes()).unwrap();
    let (pin, told) = device(&pool);

    end(&pool);

    let recalled = Recalled { range: PINNED, deadline: None, why: RecallReason::Deferred };
    assert_eq!(*told.lock(), [recalled], "{how}");
    assert!(pin.is_recalled(), "{how}");
    assert_eq!(pool.usage().limbo.0, 4, "{how}");
    let filler = fill(&pool);
    let mut seen = vec![0; 4 * 4096];
    pin.read(&mut seen, 0).unwrap();
    assert!(seen == bytes()[2 * 4096..6 * 4096], "{how}");
    pin.write(&[0xdd; 4 * 4096], 0).unwrap();
    let mut given = vec![0; usize::try_from(filler.metadata().len()).unwrap()];
    filler.read_exact_at(&mut given, 0).unwrap();
    assert!(given.iter().all(|&byte| byte == 0xee), "{how}: the device wrote to another file");
    assert_eq!(told.lock().len(), 1, "{how}: it is told once");

    drop((pin, filler));
    assert_eq!(pool.usage().limbo.0, 0, "{how}");
    pool.remove_file("/filler").unwrap();
    if pool.exists("/folder").unwrap() {
        pool.remove_dir_all("/folder").unwrap();
    }
    assert_eq!(pool.usage().used, before, "{how}");
    close_clean(&path, pool);
}

#[test]
fn a_file_that_is_emptied_as_it_is_opened_leaves_a_device_its_pages() {
    check("OpenOptions::truncate", |pool| {
        let mut options = OpenOptions::new();
        let file = options.write(true).truncate(true).open(pool, "/folder/file").unwrap();
        file.write_all_at(&[1; 4096], 3 * PAGE).unwrap();
    });
    check("OpenOptions::truncate, and a handle that was open", |pool| {
        let file = open(pool, "/folder/file");
        OpenOptions::new().write(true).truncate(true).open(pool, "/folder/file").unwrap();
        assert_eq!(file.metadata().len(), 0);
        file.set_len(10 * PAGE).unwrap();
        assert!(pool.read("/folder/file").unwrap().iter().all(|&byte| byte == 0));
    });
    check("Pool::create_file", |pool| {
        pool.create_file("/folder/file").unwrap();
        assert_eq!(pool.metadata("/folder/file").unwrap().len(), 0);
    });
    check("Pool::write", |pool| {
        pool.write("/folder/file", vec![1; 40 << 10]).unwrap();
        assert_eq!(pool.read("/folder/file").unwrap(), vec![1; 40 << 10]);
    });
    check("Pool::write through a symbolic link", |pool| {
        pool.symlink("file", "/folder/link").unwrap();
        pool.write("/folder/link", b"short").unwrap();
        assert_eq!(pool.read("/folder/file").unwrap(), b"short");
    });
}

#[test]
fn a_file_that_is_removed_leaves_a_device_its_pages() {
    check("Pool::remove_file", |pool| pool.remove_file("/folder/file").unwrap());
    check("Pool::remove_dir_all", |pool| pool.remove_dir_all("/folder").unwrap());
    check("Pool::remove_dir_all of what is above", |pool| {
        pool.create_dir("/above").unwrap();
        pool.rename("/folder", "/above/folder").unwrap();
        pool.remove_dir_all("/above").unwrap();
        assert!(!pool.exists("/above").unwrap());
    });
    check("Pool::rename over it", |pool| {
        pool.write("/folder/other", b"other").unwrap();
        pool.rename("/folder/other", "/folder/file").unwrap();
        assert_eq!(pool.read("/folder/file").unwrap(), b"other");
    });
    check("the last handle of a file without a name", |pool| {
        let file = open(pool, "/folder/file");
        pool.remove_dir_all("/folder").unwrap();
        assert_eq!(pool.usage().limbo.0, 0, "it is open");
        drop(file);
    });
}
