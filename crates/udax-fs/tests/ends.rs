//! Leases and ends: every way in which a file can lose its pages, with a device that still has some
//! of them. What the holder was told, and that its bytes are nobody else's until it lets go.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::ops::Range;
use std::thread;
use std::time::Instant;

use common::{KIB, MIB, Pool, contents, create, file_of, lookup, name, pattern, pin_info, unlink};
use udax_fs::{Filesystem, FreePolicy, FsError, HeldPin, Inode, RenameMode};
use udax_mapping::{BreakError, MapMode, Populate};
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{Access, FileIndex, Pages, PinKind, Recall, RecallEvent, RecallReason, Wait};

/// What holders were told: the range, and why.
type Told = Vec<(Range<FileIndex>, RecallReason)>;

/// A device that has pinned pages, and what it was told.
struct Device {
    pin: Arc<Mutex<Option<HeldPin>>>,
    told: Arc<Mutex<Told>>,
}

fn pages(from: u64, to: u64) -> Range<FileIndex> {
    FileIndex(from)..FileIndex(to)
}

impl Device {
    fn of(file: &Arc<Inode>, range: Range<FileIndex>, lets_go: bool) -> Device {
        let (pin, told) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
        let recall = Recall::call({
            let (pin, told) = (Arc::clone(&pin), Arc::clone(&told));
            move |event: &RecallEvent| {
                told.lock().push((event.range.clone(), event.why));
                if lets_go {
                    let pin = pin.lock().take();
                    drop::<Option<HeldPin>>(pin);
                }
            }
        });
        let info = pin_info("the device", PinKind::Write);
        *pin.lock() = Some(file.pin_leased(range, info, recall).unwrap());
        Device { pin, told }
    }

    fn told(&self) -> Vec<(Range<FileIndex>, RecallReason)> {
        self.told.lock().clone()
    }

    /// What its memory holds.
    fn bytes(&self) -> Vec<u8> {
        let pin = self.pin.lock();
        let pin = pin.as_ref().expect("it has not let go");
        let len = pin.range().end.since(pin.range().start).bytes();
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        pin.read(0, &mut bytes).unwrap();
        bytes
    }

    fn let_go(&self) {
        let pin = self.pin.lock().take();
        drop(pin.expect("it has not let go"));
    }
}

/// A filesystem whose root directory has its page already.
fn mount(pool: &Pool) -> Arc<Filesystem> {
    let fs = pool.mount();
    create(&fs, "first");
    fs
}

/// B-03: the ways in which a file ends, each of them with a pin, a mapping and no waiting. `end`
/// gets the filesystem and the last handle of the file "a".
fn check_end(how: &str, end: impl FnOnce(&Arc<Filesystem>, Arc<Inode>)) {
    let pool = Pool::new(8 * MIB);
    let fs = mount(&pool);
    let bytes = pattern(1, 40 * KIB);
    let before = fs.usage().used;
    let file = file_of(&fs, "a", &bytes);
    let device = Device::of(&file, pages(2, 6), false);
    let mode = MapMode { access: Access::Write, populate: Populate::Eager, ..MapMode::default() };
    drop(file.map(FileIndex(0), Pages(10), mode).unwrap());

    end(&fs, file);

    assert_eq!(device.told(), [(pages(2, 6), RecallReason::Deferred)], "{how}");
    assert_eq!(fs.usage().limbo, Pages(4), "{how}");
    // All that is free is given out, and is not what the device has.
    let filler = create(&fs, "filler");
    let _ = filler.append(&vec![0xee; usize::try_from(fs.usage().free.bytes()).unwrap() / 2]);
    assert!(device.bytes() == bytes[8 << 10..24 << 10], "{how}");
    drop(filler);
    unlink(&fs, "filler");
    device.let_go();
    assert_eq!(fs.usage().limbo, Pages(0), "{how}");
    if fs.lookup(&fs.root().unwrap(), &name("a")).is_ok() {
        unlink(&fs, "a");
    }
    assert_eq!(fs.usage().used, before, "{how}");
    fs.verify().unwrap();
}

#[test]
fn no_way_in_which_a_file_ends_reuses_what_a_device_has() {
    let root = |fs: &Filesystem| fs.root().unwrap();
    check_end("the name goes, then the handle", |fs, file| {
        unlink(fs, "a");
        assert_eq!(fs.usage().limbo, Pages(0), "the file is still open");
        drop(file);
    });
    check_end("the handle goes, then the name", |fs, file| {
        drop(file);
        unlink(fs, "a");
    });
    check_end("another file takes the name", |fs, file| {
        drop(file);
        create(fs, "b");
        let root = root(fs);
        fs.rename(&root, &name("b"), &root, &name("a"), RenameMode::Replace).unwrap();
    });
    check_end("a truncate to nothing", |_, file| {
        assert_eq!(file.truncate(0, FreePolicy::Defer).unwrap().len(), 1);
    });
    check_end("a punch of all", |_, file| {
        let deferred = file.punch(0..1 << 20, FreePolicy::Defer).unwrap();
        assert_eq!((deferred.len(), deferred[0].range.clone()), (1, pages(2, 6)));
    });
    check_end("the last of two names", |fs, file| {
        fs.link(&file, &root(fs), &name("b")).unwrap();
        drop(file);
        assert_eq!(fs.unlink_with(&root(fs), &name("a"), FreePolicy::Fail).unwrap().len(), 0);
        assert_eq!(fs.unlink_with(&root(fs), &name("b"), FreePolicy::Defer).unwrap().len(), 1);
    });
}

/// B-02: the file was closed and removed, and opened, while a device still has pages of it.
#[test]
fn a_pin_is_known_when_its_file_was_closed_and_opened_again() {
    let pool = Pool::new(8 * MIB);
    let fs = mount(&pool);
    let file = file_of(&fs, "a", &pattern(1, 40 * KIB));
    let device = Device::of(&file, pages(2, 6), false);
    drop(file);

    let file = lookup(&fs, "a");
    let refused = file.truncate(0, FreePolicy::Fail).unwrap_err();
    assert!(matches!(refused, FsError::Layout(BreakError::Pinned { .. })), "{refused}");
    assert!(refused.to_string().contains("the device"), "{refused}");
    let over = FreePolicy::Wait(Wait::Until(Instant::now()));
    assert!(file.truncate(0, over).is_err());
    assert_eq!(device.told(), [(pages(2, 6), RecallReason::Wait)]);
    device.let_go();
    file.truncate(0, FreePolicy::Fail).unwrap();
    fs.verify().unwrap();
}

/// B-02: an unmount does not go on under a device, and asks it first.
#[test]
fn an_unmount_recalls_every_pin_and_refuses_while_one_is_left() {
    for lets_go in [true, false] {
        let pool = Pool::new(8 * MIB);
        let fs = mount(&pool);
        let file = file_of(&fs, "a", &pattern(1, 40 * KIB));
        let of_file = Device::of(&file, pages(2, 6), lets_go);
        // In limbo: no file has it any more.
        let gone = file_of(&fs, "gone", &pattern(2, 8 * KIB));
        let of_none = Device::of(&gone, pages(0, 1), true);
        let of_none_again = Device::of(&gone, pages(1, 2), lets_go);
        drop((file, gone));
        unlink(&fs, "gone");
        assert!(of_none.pin.lock().is_none(), "it was told when the file went");

        let unmounted = fs.unmount();

        assert_eq!(of_file.told(), [(pages(2, 6), RecallReason::Wait)]);
        if lets_go {
            unmounted.unwrap();
            continue;
        }
        assert!(matches!(unmounted, Err(FsError::Pinned { pins: 2, .. })), "{unmounted:?}");
        let told = of_none_again.told();
        assert_eq!(told.last(), Some(&(pages(1, 2), RecallReason::Wait)));
        of_file.let_go();
        of_none_again.let_go();
        fs.unmount().unwrap();
    }
}

#[test]
fn a_removal_that_waits_removes_the_name_when_the_pin_is_gone() {
    let pool = Pool::new(8 * MIB);
    let fs = mount(&pool);
    let root = fs.root().unwrap();
    let file = file_of(&fs, "a", &pattern(1, 40 * KIB));
    let stubborn = Device::of(&file, pages(2, 6), false);
    let obliging = Device::of(&file, pages(4, 8), true);
    drop(file);

    let refused = fs.unlink_with(&root, &name("a"), FreePolicy::Fail).unwrap_err();
    assert!(matches!(refused, FsError::Layout(BreakError::Pinned { .. })), "{refused}");
    assert!(stubborn.told().is_empty() && obliging.told().is_empty());
    lookup(&fs, "a");

    thread::scope(|scope| {
        let unlink =
            scope.spawn(|| fs.unlink_with(&root, &name("a"), FreePolicy::Wait(Wait::Forever)));
        while stubborn.told().is_empty() {
            thread::yield_now();
        }
        // The file can be found and used meanwhile.
        assert!(contents(&lookup(&fs, "a")) == pattern(1, 40 * KIB));
        stubborn.let_go();
        assert_eq!(unlink.join().unwrap().unwrap().len(), 0);
    });
    assert_eq!(obliging.told(), [(pages(4, 8), RecallReason::Wait)]);
    assert_eq!(fs.usage().limbo, Pages(0));
    fs.verify().unwrap();
}

/// The pin keeps its bytes, and the file reads zeros where it has grown again.
#[test]
fn a_pin_across_a_truncate_and_an_extension_keeps_its_bytes() {
    let pool = Pool::new(8 * MIB);
    let fs = mount(&pool);
    let bytes = pattern(1, 40 * KIB);
    let file = file_of(&fs, "a", &bytes);
    let device = Device::of(&file, pages(2, 6), false);

    file.truncate(12 * KIB, FreePolicy::Defer).unwrap();
    file.truncate(40 * KIB, FreePolicy::Defer).unwrap();

    assert_eq!(device.told(), [(pages(3, 6), RecallReason::Deferred)]);
    let grown = contents(&file);
    assert!(grown[..12 << 10] == bytes[..12 << 10]);
    assert!(grown[12 << 10..].iter().all(|&byte| byte == 0));
    file.write_at(&[9; 16 << 10], 12 * KIB).unwrap();
    assert!(device.bytes() == bytes[8 << 10..24 << 10]);
    // The page that the file still has is the one that is pinned.
    device.pin.lock().as_ref().unwrap().write(0, b"dma").unwrap();
    assert_eq!(contents(&file)[8 << 10..][..3], *b"dma");
    assert_eq!(file.pins()[0].range, pages(2, 3));
    device.let_go();
    fs.verify().unwrap();
}

#[test]
fn a_pin_of_a_file_that_was_made_anew_under_its_name_is_not_of_the_new_one() {
    let pool = Pool::new(8 * MIB);
    let fs = mount(&pool);
    let file = file_of(&fs, "a", &pattern(1, 40 * KIB));
    let device = Device::of(&file, pages(2, 6), false);
    drop(file);
    unlink(&fs, "a");
    let again = file_of(&fs, "a", &pattern(2, 40 * KIB));

    device.pin.lock().as_ref().unwrap().write(0, &[7; 4096]).unwrap();

    assert!(contents(&again) == pattern(2, 40 * KIB));
    assert!(again.pins().is_empty());
    again.truncate(0, FreePolicy::Fail).unwrap();
    again.freeze(Wait::Never).unwrap();
    device.let_go();
    fs.verify().unwrap();
}

#[test]
fn a_file_that_is_mapped_for_writing_is_not_frozen_and_the_mapping_is_named() {
    let pool = Pool::new(8 * MIB);
    let fs = mount(&pool);
    let file = file_of(&fs, "a", &pattern(1, 40 * KIB));
    let mode = |access| MapMode { access, populate: Populate::Eager, ..MapMode::default() };
    let reader = file.map(FileIndex(0), Pages(10), mode(Access::Read)).unwrap();
    let private = MapMode { sharing: udax_mapping::Sharing::Private, ..mode(Access::Write) };
    let private = file.map(FileIndex(0), Pages(10), private).unwrap();
    let writer = file.map(FileIndex(2), Pages(3), mode(Access::Write)).unwrap();

    let refused = file.freeze(Wait::Forever).unwrap_err();

    let FsError::MappedForWriting { mappings } = &refused else { panic!("{refused}") };
    assert_eq!((mappings.len(), mappings[0].addr), (1, writer.vma().addr()));
    assert_eq!(mappings[0].pages, pages(2, 5));
    assert!(refused.to_string().contains(&format!("{:#x}", writer.vma().addr())), "{refused}");
    assert!(!file.attr().is_frozen);
    writer.vma().write(0, b"still").unwrap();
    drop(writer);
    file.freeze(Wait::Never).unwrap();
    private.vma().write(0, b"my own").unwrap();
    let mut seen = [0; 5];
    reader.vma().read(8 * KIB, &mut seen).unwrap();
    assert_eq!(&seen, b"still");
    fs.verify().unwrap();
}

/// Whoever wins, nobody has a mapping for stores of a frozen file.
#[test]
fn a_mapping_for_stores_and_a_freeze_that_race_exclude_each_other() {
    for _ in 0..20 {
        let pool = Pool::new(8 * MIB);
        let fs = mount(&pool);
        let file = file_of(&fs, "a", &pattern(1, 8 * KIB));
        let mode =
            MapMode { access: Access::Write, populate: Populate::Eager, ..MapMode::default() };
        let (frozen, mapped) = thread::scope(|scope| {
            let freeze = scope.spawn(|| file.freeze(Wait::Never));
            let mapped = file.map(FileIndex(0), Pages(2), mode);
            (freeze.join().unwrap(), mapped)
        });
        assert!(frozen.is_err() || mapped.is_err(), "both went through");
        assert!(frozen.is_ok() || mapped.is_ok(), "{frozen:?}, {mapped:?}");
        assert_eq!(file.attr().is_frozen, frozen.is_ok());
    }
}

/// Whoever is second finds the file frozen, or the slices of the first in the way of nothing.
#[test]
fn two_threads_that_freeze_a_file_and_borrow_its_bytes_both_can() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    for round in 0..200 {
        let file = create(&fs, &format!("{round}"));
        file.write_at(&pattern(1, 40 * KIB), 0).unwrap();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    file.freeze(Wait::Never).unwrap();
                    file.frozen_bytes(&pin_info("frozen", PinKind::Read)).unwrap();
                });
            }
        });
        fs.unlink(&fs.root().unwrap(), &name(&format!("{round}"))).unwrap();
    }
    fs.verify().unwrap();
}
