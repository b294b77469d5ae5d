//! Clones, deduplication and unsharing through the face.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use common::{close_clean, error, in_memory, on_file};
use udax::{
    Access, Deduped, ErrorKind, FreePolicy, MapOptions, OpenOptions, PinKind, PinOptions, Pool,
    Populate, Wait,
};

mod common;

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at / 4096 % 251).unwrap() ^ seed).collect()
}

#[test]
fn a_clone_is_a_file_of_its_own_after_the_pool_is_opened_again() {
    let (_dir, path, pool) = on_file();
    pool.write("/a", bytes(1, 300_000)).unwrap();
    pool.set_permissions("/a", 0o640).unwrap();
    assert_eq!(pool.clone_file("/a", "/b", Wait::Never).unwrap(), 300_000);
    assert_eq!(pool.metadata("/b").unwrap().mode(), 0o640);
    let clone = OpenOptions::new().write(true).open(&pool, "/b").unwrap();
    clone.write_at(b"other", 5000).unwrap();
    drop(clone);
    close_clean(&path, pool);

    let pool = Pool::open(&path).unwrap();
    assert!(pool.read("/a").unwrap() == bytes(1, 300_000));
    let mut expected = bytes(1, 300_000);
    expected[5000..5005].copy_from_slice(b"other");
    assert!(pool.read("/b").unwrap() == expected);
    pool.remove_file("/a").unwrap();
    assert!(pool.read("/b").unwrap() == expected);
    close_clean(&path, pool);
}

#[test]
fn errors_of_clones_have_kinds() {
    let (pool, other) = (in_memory(), in_memory());
    pool.write("/a", bytes(1, 10_000)).unwrap();
    let a = pool.open_file("/a").unwrap();
    let (b, c) = (pool.create_file("/b").unwrap(), other.create_file("/c").unwrap());
    let kind = |range, target, at| error(a.clone_range(range, target, at, Wait::Never)).kind();
    assert_eq!(kind(0..4096, &c, 0), ErrorKind::OtherPool);
    assert_eq!(kind(5..4096, &b, 0), ErrorKind::InvalidInput);
    assert_eq!(kind(0..40_960, &b, 0), ErrorKind::OutOfRange);
    assert_eq!(kind(0..4096, &a, 0), ErrorKind::BadHandle);
    assert_eq!(error(pool.clone_file("/a", "/b", Wait::Never)).kind(), ErrorKind::AlreadyExists);
    assert_eq!(error(pool.clone_file("/x", "/y", Wait::Never)).kind(), ErrorKind::NotFound);

    let writable = OpenOptions::new().read(true).write(true).open(&pool, "/a").unwrap();
    assert_eq!(
        error(writable.clone_range(0..8192, &writable, 4096, Wait::Never)).kind(),
        ErrorKind::InvalidInput
    );
    let pin = writable.pin(0..4096, &PinOptions::new("nic").kind(PinKind::Write)).unwrap();
    let found = error(pool.clone_file("/a", "/y", Wait::Never));
    assert_eq!(found.kind(), ErrorKind::Pinned);
    assert!(found.to_string().contains("nic"), "{found}");
    assert!(!pool.exists("/y").unwrap(), "no file is left");
    drop(pin);
    pool.clone_file("/a", "/y", Wait::Never).unwrap();
}

/// Whoever reads it looks for the holder of a pin of the file that it names.
#[test]
fn a_clone_that_is_refused_names_the_file_that_is_in_the_way() {
    let pool = in_memory();
    for path in ["/source", "/target"] {
        pool.write(path, bytes(1, 8192)).unwrap();
    }
    let open = |path| OpenOptions::new().read(true).write(true).open(&pool, path).unwrap();
    let files = ["/source", "/target"].map(open);
    let [source, target] = &files;
    for file in &files {
        let pin = file.pin(0..4096, &PinOptions::new("nic").kind(PinKind::Write)).unwrap();
        for refused in [
            error(source.clone_range(0..8192, target, 0, Wait::Never)),
            error(source.dedupe_range(0..8192, target, 0, Wait::Never)),
        ] {
            assert_eq!(refused.kind(), ErrorKind::Pinned);
            assert_eq!(refused.path(), Some(file.path()), "{refused}");
        }
        drop(pin);
    }
    let past = error(source.clone_range(0..16_384, target, 0, Wait::Never));
    assert_eq!(past.path(), Some(source.path()), "{past}");
}

#[test]
fn copies_are_deduplicated_and_unshared() {
    let pool = in_memory();
    pool.write("/a", bytes(1, 100_000)).unwrap();
    pool.write("/b", bytes(1, 100_000)).unwrap();
    let a = pool.open_file("/a").unwrap();
    let b = OpenOptions::new().read(true).write(true).open(&pool, "/b").unwrap();
    let free = pool.usage().free;
    let found = a.dedupe_range(0..100_000, &b, 0, Wait::Never).unwrap();
    assert_eq!(found, Deduped::Shared(100_000));
    assert_eq!(pool.usage().free.0, free.0 + 25);
    assert_eq!(pool.usage().shared.0, 25);
    b.unshare(0..100_000).unwrap();
    assert_eq!((pool.usage().free, pool.usage().shared.0), (free, 0));
    b.write_at(b"x", 70_000).unwrap();
    let found = a.dedupe_range(0..100_000, &b, 0, Wait::Never).unwrap();
    assert_eq!(found, Deduped::Differs(70_000));
    pool.verify().unwrap();
}

#[test]
fn a_pin_of_zeros_that_others_share_stays_with_them_and_one_of_a_hole_sees_every_store() {
    let pool = in_memory();
    let open = |name| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).open(&pool, name).unwrap()
    };
    let (a, b) = (open("/a"), open("/b"));
    let is_data = |file: &udax::File, page| {
        let has = |extent: &udax::FileExtent| {
            (extent.index.0..extent.index.0 + extent.pages.0).contains(&page)
        };
        file.extents().unwrap().iter().any(has)
    };
    // What is around the page is filled with it, and nothing but this tells the zeros from a hole.
    let (first, len) = (2 << 20, 20 * 4096);
    a.set_len(2 * first).unwrap();
    drop(a.pin(first..first + 4096, &PinOptions::new("nic").kind(PinKind::Write)).unwrap());
    a.clone_range(first..first + len, &b, 0, Wait::Never).unwrap();
    b.set_len(2 * len).unwrap();
    assert!(is_data(&b, 5) && !is_data(&b, 25));

    let pin = |page: u64| {
        let pages = page * 4096..(page + 1) * 4096;
        b.pin(pages, &PinOptions::new("gpu").kind(PinKind::Read)).unwrap()
    };
    let (zeros, hole) = (pin(5), pin(25));
    b.write_at(b"stored", 5 * 4096).unwrap();
    b.write_at(b"stored", 25 * 4096).unwrap();
    let seen = |pin: &udax::Pin| {
        let mut bytes = [0xee; 6];
        pin.read(&mut bytes, 0).unwrap();
        bytes
    };
    assert_eq!((&seen(&zeros), &seen(&hole)), (&[0; 6], b"stored"));
    let punch = |page: u64| b.punch_hole_with(page * 4096..(page + 1) * 4096, FreePolicy::Fail);
    assert!(punch(5).unwrap().is_empty());
    assert_eq!(error(punch(25)).kind(), ErrorKind::Pinned);
}

/// A page stays frozen for as long as anybody counts it, and that may be who maps a clone. When the
/// frozen file and its slices were gone, the clone had the page alone, took it for its own, and
/// every store to it was refused: by a write, a pin and a mapping. Found by the stress test.
#[test]
fn what_a_clone_keeps_of_a_frozen_file_can_be_stored_to() {
    let pool = in_memory();
    pool.write("/frozen", bytes(1, 3 * 4096)).unwrap();
    let frozen = pool.open_file("/frozen").unwrap();
    frozen.freeze(Wait::Never).unwrap();
    let slice = frozen.frozen().unwrap();
    let mut options = OpenOptions::new();
    let clone = options.read(true).write(true).create(true).open(&pool, "/clone").unwrap();
    frozen.clone_range(0..3 * 4096, &clone, 0, Wait::Never).unwrap();
    let shown = clone.map(0..3 * 4096, &MapOptions::new()).unwrap();
    let mut found = vec![0; 3 * 4096];
    shown.read(&mut found, 0).unwrap();
    pool.remove_file("/frozen").unwrap();
    drop((slice, frozen));

    clone.write_at(b"written", 0).unwrap();
    let pin = clone.pin(4096..8192, &PinOptions::new("nic").kind(PinKind::Write)).unwrap();
    pin.write(b"pinned", 0).unwrap();
    let stored = clone.map(0..3 * 4096, &MapOptions::new().access(Access::Write)).unwrap();
    stored.write(b"stored", 8192).unwrap();

    let mut expected = bytes(1, 3 * 4096);
    expected[..7].copy_from_slice(b"written");
    expected[4096..4102].copy_from_slice(b"pinned");
    expected[8192..8198].copy_from_slice(b"stored");
    shown.read(&mut found, 0).unwrap();
    assert!(found == expected, "what is mapped");
    assert!(pool.read("/clone").unwrap() == expected, "what is read");
    drop((shown, stored, pin, clone));
    assert_eq!(pool.verify(), Ok(()));
}

/// Each attempt to move away from a shared page takes back what shows it: it must not lead to another
/// one, for ever.
#[test]
fn an_eager_mapping_for_stores_of_shared_data_is_refused_by_a_full_pool() {
    let pool = in_memory();
    pool.write("/a", bytes(1, 5 * 4096)).unwrap();
    pool.clone_file("/a", "/b", Wait::Never).unwrap();
    let rest = OpenOptions::new().write(true).create(true).open(&pool, "/rest").unwrap();
    let full = (0..).find_map(|page: u64| rest.write_all_at(&[1; 4096], page * 4096).err());
    assert_eq!(full.unwrap().kind(), ErrorKind::Full);
    let file = OpenOptions::new().read(true).write(true).open(&pool, "/a").unwrap();
    let _pin = file.pin(0..5 * 4096, &PinOptions::new("reader")).unwrap();

    let for_stores = MapOptions::new().access(Access::Write).populate(Populate::Eager);
    let refused = file.map(0..5 * 4096, &for_stores).unwrap_err();

    assert_eq!(refused.kind(), ErrorKind::Full, "{refused}");
    assert!(pool.read("/a").unwrap() == bytes(1, 5 * 4096));
}

#[test]
fn a_clone_that_does_not_fit_as_a_whole_leaves_no_file() {
    let pool = in_memory();
    // More pieces than one step clones, so that steps are made before the pool is full.
    let source = pool.create_file("/a").unwrap();
    for page in 0..1100 {
        source.write_at(&[7; 4096], page * 2 * 4096).unwrap();
    }
    let filler = pool.create_file("/filler").unwrap();
    let mut room = pool.usage().free.bytes();
    while room > 0 {
        if filler.append(&vec![1; usize::try_from(room).unwrap()]).is_err() {
            room = room / 2 / 4096 * 4096;
        }
    }
    // With each page that comes free, one more step may fit.
    let mut refusals = 0;
    let cloned = loop {
        let before = pool.usage().free;
        match pool.clone_file("/a", "/b", Wait::Never) {
            Ok(cloned) => break cloned,
            Err(found) => assert_eq!(found.kind(), ErrorKind::Full),
        }
        assert!(!pool.exists("/b").unwrap(), "no file is left");
        assert_eq!(pool.usage().free, before);
        refusals += 1;
        filler.set_len(filler.metadata().len() - 4096).unwrap();
    };
    assert_eq!(cloned, source.metadata().len());
    assert!(pool.read("/b").unwrap() == pool.read("/a").unwrap());
    assert!(refusals > 5, "the clone needs five leaf nodes and a root");
}
