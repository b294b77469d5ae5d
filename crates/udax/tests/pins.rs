//! Pins, limbo, frozen files, and a device that goes away.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::time::{Duration, Instant};

use common::{close_clean, error, in_memory, on_file};
use udax::{
    Access, ErrorKind, FreePolicy, MapOptions, OpenOptions, PinKind, PinOptions, PinnedFile, Pool,
    Wait,
};

mod common;

/// A moment that is over when the call looks at the clock.
fn soon() -> Wait {
    Wait::Until(Instant::now() + Duration::from_millis(20))
}

#[test]
fn a_pinned_file_that_is_removed_goes_to_limbo_and_comes_back_with_the_pin() {
    let (_dir, path, pool) = on_file();
    pool.write("/first", b"so that the directory has a page").unwrap();
    let free = pool.usage().free;
    pool.write("/file", vec![9; 20_000]).unwrap();
    let pin = pool.open_file("/file").unwrap().pin(4096..12_288, &PinOptions::new("me")).unwrap();

    pool.remove_file("/file").unwrap();

    assert!(!pool.exists("/file").unwrap());
    assert_eq!(pool.usage().limbo.0, 2);
    assert_eq!(pool.pins().unwrap()[0].file(), &PinnedFile::Limbo);
    pool.write("/other", vec![1; 30_000]).unwrap();
    let mut bytes = [0; 8192];
    pin.read(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [9; 8192]);
    pool.remove_file("/other").unwrap();
    drop(pin);
    assert_eq!(pool.usage().limbo.0, 0);
    assert_eq!(pool.usage().free, free);
    close_clean(&path, pool);
}

#[test]
fn a_truncate_with_a_deadline_names_the_holder_and_changes_nothing() {
    let pool = in_memory();
    let file = pool.create_file("/file").unwrap();
    file.write_all_at(&[3; 8192], 0).unwrap();
    let pin = file.pin(4096..8192, &PinOptions::new("nic ring")).unwrap();

    let found = error(file.set_len_with(100, FreePolicy::Wait(soon())));

    assert_eq!(found.kind(), ErrorKind::Pinned);
    let text = found.to_string();
    let pid = std::process::id().to_string();
    for word in ["/file", "nic ring", pid.as_str()] {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
    assert_eq!(file.metadata().len(), 8192);
    drop(pin);
    file.set_len_with(100, FreePolicy::Wait(Wait::Never)).unwrap();
    assert_eq!(file.metadata().len(), 100);
    assert_eq!(pool.verify(), Ok(()));
}

#[test]
fn a_truncate_that_waits_returns_with_the_unpin() {
    let pool = in_memory();
    let file = pool.create_file("/file").unwrap();
    file.write_all_at(&[3; 4096], 0).unwrap();
    let pin = file.pin(0..4096, &PinOptions::new("short")).unwrap();
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| file.set_len_with(0, FreePolicy::Wait(Wait::Forever)));
        // Whichever comes first: the wait has to end with the unpin.
        drop(pin);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(pool.usage().limbo.0, 0);
    assert_eq!(file.metadata().len(), 0);
}

#[test]
fn a_truncate_that_defers_does_not_wait_and_the_file_gets_other_pages() {
    let pool = in_memory();
    let file = pool.create_file("/file").unwrap();
    file.write_all_at(&[3; 4096], 0).unwrap();
    let pin = file.pin(0..4096, &PinOptions::new("dma").kind(PinKind::Write)).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(&[4; 4096], 0).unwrap();
    pin.write(&[5; 4096], 0).unwrap();
    let mut bytes = [0; 4096];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [4; 4096]);
    drop(pin);
    assert_eq!(pool.verify(), Ok(()));
}

#[test]
fn pins_are_listed_with_path_range_owner_age_and_kind() {
    let pool = in_memory();
    pool.create_dir_all("/a/b").unwrap();
    pool.write("/a/b/file", [0; 9000]).unwrap();
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).open(&pool, "/a/b/file").unwrap();
    assert!(pool.pins().unwrap().is_empty());
    let pin = file.pin(5000..5001, &PinOptions::new("gpu").kind(PinKind::Write)).unwrap();
    let pins = pool.pins().unwrap();
    assert_eq!(pins.len(), 1);
    assert_eq!(pins[0].file(), &PinnedFile::Path("/a/b/file".into()));
    assert_eq!(pins[0].range(), 4096..8192);
    assert_eq!((&*pins[0].owner().label, pins[0].owner().process), ("gpu", std::process::id()));
    assert_eq!((pins[0].kind(), pin.kind()), (PinKind::Write, PinKind::Write));
    assert!(pins[0].age() <= pin.age());
    assert_eq!(pin.range(), 5000..5001);
    drop(pin);
    assert!(pool.pins().unwrap().is_empty());
}

#[test]
fn a_pin_for_reading_does_not_write_and_none_reaches_past_the_file() {
    let pool = in_memory();
    let file = pool.create_file("/file").unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    let pin = file.pin(0..4096, &PinOptions::new("r")).unwrap();
    assert_eq!(error(pin.write(b"x", 0)).kind(), ErrorKind::BadHandle);
    assert_eq!(error(pin.read(&mut [0; 2], 4095)).kind(), ErrorKind::OutOfRange);
    let part = file.pin(10..100, &PinOptions::new("r")).unwrap();
    assert_eq!(error(part.read(&mut [0; 2], 89)).kind(), ErrorKind::OutOfRange);
    let past = error(file.pin(4096..8192, &PinOptions::new("r")));
    assert_eq!(past.kind(), ErrorKind::OutOfRange, "{past}");
    let empty = error(file.pin(5..5, &PinOptions::new("r")));
    assert_eq!(empty.kind(), ErrorKind::InvalidInput);
}

#[test]
fn memory_can_be_registered_and_a_file_on_a_disk_cannot() {
    let pool = in_memory();
    assert!(pool.facts().is_registrable);
    pool.write("/file", [1; 10]).unwrap();
    let file = pool.open_file("/file").unwrap();
    file.pin(0..10, &PinOptions::new("io_uring").registrable()).unwrap();
}

#[test]
fn a_mapping_is_the_file() {
    let pool = in_memory();
    let file = pool.create_file("/file").unwrap();
    file.set_len(3 << 20).unwrap();
    let map = file.map(1000..(3 << 20), &MapOptions::new().access(Access::Write)).unwrap();
    assert_eq!(map.len(), (3 << 20) - 1000);
    map.write(b"through the mapping", 100).unwrap();
    let mut bytes = [0; 19];
    file.read_exact_at(&mut bytes, 1100).unwrap();
    assert_eq!(&bytes, b"through the mapping");
    file.write_all_at(b"the other way", 2 << 20).unwrap();
    let mut bytes = [0; 13];
    map.read(&mut bytes, (2 << 20) - 1000).unwrap();
    assert_eq!(&bytes, b"the other way");
    assert_eq!(error(map.read(&mut bytes, map.len() - 12)).kind(), ErrorKind::OutOfRange);
    assert_eq!(error(map.load(4)).kind(), ErrorKind::InvalidInput);
    let reader = file.map(0..4000, &MapOptions::new()).unwrap();
    assert_eq!(error(reader.read(&mut [0], 4000)).kind(), ErrorKind::OutOfRange);
    assert_eq!(error(reader.store(0, 1)).kind(), ErrorKind::BadHandle);
    assert_eq!(error(reader.write(b"x", 0)).kind(), ErrorKind::BadHandle);
    assert_eq!(error(reader.compare_exchange(0, 0, 1)).kind(), ErrorKind::BadHandle);
    assert_eq!(pool.verify(), Ok(()));
}

#[test]
fn what_was_cut_off_under_a_mapping_is_an_error_and_not_old_bytes() {
    let pool = in_memory();
    let file = pool.create_file("/file").unwrap();
    file.write_all_at(&[6; 8192], 0).unwrap();
    let map = file.map(0..8192, &MapOptions::new()).unwrap();
    let mut byte = [0];
    map.read(&mut byte, 8191).unwrap();
    file.set_len(4096).unwrap();
    assert_eq!(error(map.read(&mut byte, 4096)).kind(), ErrorKind::Media);
    map.read(&mut byte, 4095).unwrap();
    assert_eq!(byte, [6]);
    file.set_len(8192).unwrap();
    map.read(&mut byte, 8191).unwrap();
    assert_eq!(byte, [0]);
}

#[test]
fn a_frozen_file_is_a_slice_that_nobody_can_change() {
    let (_dir, path, pool) = on_file();
    let text = b"frozen ".repeat(1000);
    pool.write("/file", &text).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&pool, "/file").unwrap();
    assert_eq!(error(file.frozen()).kind(), ErrorKind::NotFrozen);
    file.freeze(Wait::Never).unwrap();
    let frozen = file.frozen().unwrap();
    assert_eq!(&frozen[..], text);
    let bytes = frozen.clone().into_bytes();
    assert_eq!(bytes.as_ptr(), frozen.as_ptr());

    assert_eq!(error(file.write_at(b"x", 0)).kind(), ErrorKind::Frozen);
    assert_eq!(error(file.set_len(0)).kind(), ErrorKind::Frozen);
    assert_eq!(error(file.punch_hole(0..4096)).kind(), ErrorKind::Frozen);
    let write = MapOptions::new().access(Access::Write);
    assert_eq!(error(file.map(0..10, &write)).kind(), ErrorKind::Frozen);
    let pin = PinOptions::new("dma").kind(PinKind::Write);
    assert_eq!(error(file.pin(0..10, &pin)).kind(), ErrorKind::Frozen);

    // The slice outlives the name, the handle, and the pool's other handles.
    drop((file, frozen));
    pool.remove_file("/file").unwrap();
    pool.write("/other", vec![1; 1 << 20]).unwrap();
    assert_eq!(&bytes[..], text);
    drop(bytes);
    close_clean(&path, pool);
}

#[test]
fn a_file_stays_frozen_across_an_open() {
    let (_dir, path, pool) = on_file();
    pool.write("/file", b"for ever").unwrap();
    pool.open_file("/file").unwrap().freeze(Wait::Never).unwrap();
    pool.close().unwrap();
    let pool = Pool::open(&path).unwrap();
    assert!(pool.metadata("/file").unwrap().is_frozen());
    assert_eq!(&pool.open_file("/file").unwrap().frozen().unwrap()[..], b"for ever");
}

#[test]
fn a_pinned_file_freezes_when_the_pin_is_gone() {
    let pool = in_memory();
    pool.write("/file", [1; 4096]).unwrap();
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).open(&pool, "/file").unwrap();
    let pin = file.pin(0..4096, &PinOptions::new("writer").kind(PinKind::Write)).unwrap();
    assert_eq!(error(file.freeze(Wait::Never)).kind(), ErrorKind::Pinned);
    drop(pin);
    file.freeze(Wait::Never).unwrap();
}

#[test]
fn a_device_that_goes_away_waits_for_pins_and_refuses_everything_else() {
    let pool = in_memory();
    pool.write("/file", [2; 8192]).unwrap();
    let file = pool.open_file("/file").unwrap();
    let map = file.map(0..8192, &MapOptions::new()).unwrap();
    let mut byte = [0];
    map.read(&mut byte, 0).unwrap();
    let pin = file.pin(0..4096, &PinOptions::new("holder")).unwrap();

    let found = error(pool.remove_device(Wait::Never));
    assert_eq!(found.kind(), ErrorKind::Pinned, "{found}");
    assert!(found.to_string().contains("holder"), "{found}");
    assert_eq!(error(pool.read("/file")).kind(), ErrorKind::DeviceGone);
    assert_eq!(error(map.read(&mut byte, 0)).kind(), ErrorKind::Media);
    pin.read(&mut byte, 0).unwrap();
    assert_eq!(byte, [2]);
    drop(pin);
    pool.remove_device(Wait::Forever).unwrap();
}
