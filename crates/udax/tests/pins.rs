//! Pins, limbo, frozen files, and a device that goes away.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use common::{close_clean, error, in_memory, on_file};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use udax::{
    Access, Error, ErrorKind, FreePolicy, Interrupt, MapOptions, OpenOptions, PinKind, PinOptions,
    PinnedFile, Pool, RecallReason, Recalled, Wait,
};
use udax_mm::sync::{Arc, Mutex};

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

/// Every call of the face that changes bytes of a file, on one that is frozen.
#[test]
fn no_call_changes_a_frozen_file() {
    let (_dir, path, pool) = on_file();
    let text = b"frozen ".repeat(2000);
    pool.write("/file", &text).unwrap();
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).open(&pool, "/file").unwrap();
    let mut append = OpenOptions::new().append(true).open(&pool, "/file").unwrap();
    file.freeze(Wait::Never).unwrap();

    let refused = |found: Error| assert_eq!(found.kind(), ErrorKind::Frozen, "{found}");
    let denied = |found: std::io::Error| {
        assert_eq!(found.kind(), std::io::ErrorKind::PermissionDenied, "{found}");
    };
    refused(error(file.write_at(b"x", 0)));
    refused(error(file.write_at(b"x", 1 << 20)));
    refused(error(file.write_all_at(b"x", 0)));
    refused(error(file.append(b"x")));
    refused(error(append.write_at(b"x", 0)));
    denied(file.write_all(b"x").unwrap_err());
    denied(append.write_all(b"x").unwrap_err());
    refused(error(file.set_len(0)));
    refused(error(file.set_len(1 << 20)));
    for policy in [FreePolicy::Defer, FreePolicy::Fail, FreePolicy::Wait(Wait::Forever)] {
        refused(error(file.set_len_with(5, policy)));
        refused(error(file.punch_hole_with(0..4096, policy)));
    }
    refused(error(file.punch_hole(0..4096)));
    refused(error(file.allocate(0..1 << 20)));
    refused(error(file.map(0..10, &MapOptions::new().access(Access::Write))));
    refused(error(file.pin(0..10, &PinOptions::new("dma").kind(PinKind::Write))));
    refused(error(pool.write("/file", b"x")));
    refused(error(pool.create_file("/file")));
    refused(error(OpenOptions::new().write(true).truncate(true).open(&pool, "/file")));

    // What leaves the bytes as they are is permitted.
    let private = MapOptions::new().access(Access::Write).private();
    file.map(0..10, &private).unwrap().write(b"my own", 0).unwrap();
    drop(file.pin(0..10, &PinOptions::new("dma")).unwrap());
    file.set_permissions(0o400).unwrap();
    pool.rename("/file", "/moved").unwrap();
    file.sync_all().unwrap();
    assert_eq!(pool.read("/moved").unwrap(), text);
    assert_eq!(&file.frozen().unwrap()[..], text);
    drop((file, append));
    close_clean(&path, pool);
}

#[test]
fn a_file_that_is_mapped_for_writing_does_not_freeze() {
    let pool = in_memory();
    let file = pool.create_file("/file").unwrap();
    file.set_len(8192).unwrap();
    let map = file.map(4096..8192, &MapOptions::new().access(Access::Write)).unwrap();

    let found = error(file.freeze(Wait::Forever));

    assert_eq!(found.kind(), ErrorKind::MappedForWriting);
    assert!(found.to_string().contains(&format!("{:#x}", map.addr())), "{found}");
    map.write(b"still", 0).unwrap();
    drop(map);
    file.freeze(Wait::Never).unwrap();
}

fn is_readable(pin: &udax::Pin) -> bool {
    let fd = pin.recall_fd().unwrap();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

#[test]
fn a_holder_that_polls_lets_a_truncate_go_on() {
    let pool = in_memory();
    let file = pool.create_file("/file").unwrap();
    file.write_all_at(&[3; 8192], 0).unwrap();
    let pin = file.pin(4096..8192, &PinOptions::new("nic")).unwrap();
    assert!(!is_readable(&pin) && !pin.is_recalled());
    std::thread::scope(|scope| {
        let truncate = scope.spawn(|| file.set_len_with(0, FreePolicy::Wait(Wait::Forever)));
        let fd = pin.recall_fd().unwrap();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap();
        assert!(pin.is_recalled());
        drop(pin);
        assert!(truncate.join().unwrap().unwrap().is_empty());
    });
    assert_eq!(file.metadata().len(), 0);
}

#[test]
fn whoever_truncates_chooses_to_wait_to_defer_or_to_fail() {
    let pool = in_memory();
    let file = pool.create_file("/file").unwrap();
    file.write_all_at(&[3; 16384], 0).unwrap();
    let pin = file.pin(4096..16384, &PinOptions::new("nic ring")).unwrap();

    let found = error(file.set_len_with(0, FreePolicy::Fail));
    assert_eq!(found.kind(), ErrorKind::Pinned);
    assert!(found.to_string().contains("nic ring"), "{found}");
    assert!(!pin.is_recalled(), "nobody waits");
    assert_eq!(error(file.punch_hole_with(0..8192, FreePolicy::Fail)).kind(), ErrorKind::Pinned);
    let found = error(pool.remove_file_with("/file", FreePolicy::Wait(soon())));
    assert_eq!(found.kind(), ErrorKind::Pinned);
    assert!(pin.is_recalled() && pool.exists("/file").unwrap());

    let punched = file.punch_hole_with(0..8192, FreePolicy::Defer).unwrap();
    assert_eq!((punched.pins().len(), punched.pins()[0].range()), (1, 4096..8192));
    assert_eq!(punched.pins()[0].file(), &PinnedFile::Path("/file".into()));
    let cut = file.set_len_with(12288, FreePolicy::Defer).unwrap();
    assert_eq!(cut.pins()[0].range(), 12288..16384);
    let removed = pool.remove_file_with("/file", FreePolicy::Defer).unwrap();
    assert_eq!(removed.pins()[0].range(), 8192..12288);
    assert!(pool.usage().limbo.0 == 2, "the handle keeps the rest");
    drop(file);
    assert_eq!(pool.usage().limbo.0, 3);
    drop(pin);
    assert_eq!(pool.usage().limbo.0, 0);
}

/// What a holder is told is what whoever wants its pages has said.
#[test]
fn a_holder_is_told_until_when_it_is_waited_for_and_what_becomes_of_its_bytes() {
    let pool = in_memory();
    let file = pool.create_file("/file").unwrap();
    file.write_all_at(&[3; 16384], 0).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let options = PinOptions::new("nic").kind(PinKind::Write).on_recall({
        let told = Arc::clone(&told);
        move |recalled| told.lock().push(recalled.clone())
    });
    let pin = file.pin(4096..16384, &options).unwrap();
    let asked_to = |range, deadline, why| {
        assert_eq!(std::mem::take(&mut *told.lock()), [Recalled { range, deadline, why }]);
    };
    let over = |found: Error| assert_eq!(found.kind(), ErrorKind::Pinned, "{found}");
    let in_a_moment = || Instant::now() + Duration::from_millis(20);

    let end = in_a_moment();
    over(error(file.set_len_with(0, FreePolicy::Wait(Wait::Until(end)))));
    asked_to(4096..16384, Some(end), RecallReason::Wait);
    let end = in_a_moment();
    let interrupt = Interrupt::new();
    let unless = FreePolicy::WaitUnless(Wait::Until(end), &interrupt);
    over(error(file.punch_hole_with(0..8192, unless)));
    asked_to(4096..8192, Some(end), RecallReason::Wait);
    let end = in_a_moment();
    over(error(pool.remove_file_with("/file", FreePolicy::Wait(Wait::Until(end)))));
    asked_to(4096..16384, Some(end), RecallReason::Wait);
    let end = in_a_moment();
    over(error(file.freeze(Wait::Until(end))));
    asked_to(4096..16384, Some(end), RecallReason::Wait);

    interrupt.raise();
    let unless = FreePolicy::WaitUnless(Wait::Forever, &interrupt);
    assert_eq!(error(file.set_len_with(0, unless)).kind(), ErrorKind::Interrupted);
    asked_to(4096..16384, None, RecallReason::Wait);
    file.set_len(8192).unwrap();
    asked_to(8192..16384, None, RecallReason::Deferred);
    pool.remove_file("/file").unwrap();
    drop(file);
    asked_to(4096..8192, None, RecallReason::Deferred);
    drop(pin);
    assert_eq!(pool.verify(), Ok(()));
}

/// Every call that may wait for pins without end can be ended by another thread, and has changed nothing.
#[test]
fn whoever_waits_for_pins_can_be_interrupted() {
    /// Longer than it takes to be interrupted.
    fn long() -> Wait {
        Wait::Until(Instant::now() + Duration::from_secs(5))
    }
    fn patient(interrupt: &Interrupt) -> FreePolicy<'_> {
        FreePolicy::WaitUnless(long(), interrupt)
    }
    let pool = in_memory();
    let file = pool.create_file("/file").unwrap();
    file.write_all_at(&[7; 3 * 4096], 0).unwrap();
    let other = pool.create_file("/other").unwrap();
    let pin = file.pin(4096..8192, &PinOptions::new("nic").kind(PinKind::Write)).unwrap();
    let interrupted = |call: &(dyn Fn(&Interrupt) -> Result<(), Error> + Sync)| {
        let interrupt = Interrupt::new();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| call(&interrupt));
            // The holder is told before the wait begins, and whoever raises later is noticed, too.
            interrupt.raise();
            assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Interrupted);
        });
        assert_eq!(file.metadata().len(), 3 * 4096);
        assert!(pool.metadata("/file").is_ok());
    };

    interrupted(&|interrupt| file.set_len_with(0, patient(interrupt)).map(drop));
    interrupted(&|interrupt| file.punch_hole_with(0..8192, patient(interrupt)).map(drop));
    interrupted(&|interrupt| pool.remove_file_with("/file", patient(interrupt)).map(drop));
    interrupted(&|interrupt| file.freeze(long().unless(interrupt)));
    interrupted(&|interrupt| {
        file.clone_range(0..8192, &other, 0, long().unless(interrupt)).map(drop)
    });
    interrupted(&|interrupt| {
        file.dedupe_range(0..8192, &file, 8192, long().unless(interrupt)).map(drop)
    });
    drop(pin);
    assert_eq!(pool.read("/file").unwrap(), [7; 3 * 4096]);
    file.set_len_with(0, FreePolicy::WaitUnless(Wait::Forever, &Interrupt::new())).unwrap();
}

#[test]
fn closing_a_pool_recalls_its_pins() {
    let (_dir, path, pool) = on_file();
    pool.write("/file", [1; 8192]).unwrap();
    let held = Arc::new(Mutex::new(None));
    let options = PinOptions::new("cache").on_recall({
        let held = Arc::clone(&held);
        move |event| {
            assert_eq!(event.range, 0..8192);
            drop(held.lock().take());
        }
    });
    *held.lock() = Some(pool.open_file("/file").unwrap().pin(0..8192, &options).unwrap());
    pool.close().unwrap();
    assert_eq!(Pool::check(&path).unwrap().problems, []);

    let pool = Pool::open(&path).unwrap();
    let pin = pool.open_file("/file").unwrap().pin(0..10, &PinOptions::new("nic")).unwrap();
    assert_eq!(error(pool.close()).kind(), ErrorKind::StillOpen);
    assert!(pin.is_recalled());
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
