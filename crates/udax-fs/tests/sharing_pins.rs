//! Pins of pages that several files have, or had: who waits for them, who is told, who lists them.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::ops::Range;
use std::time::{Duration, Instant};

use common::{KIB, MIB, Pool, contents, create, lookup, name, pattern, pin_info, unlink};
use udax_fs::{Filesystem, FreePolicy, HeldPin, Inode, LivingOwner, Release};
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{FileIndex, Media, Pages, PinKind, Recall, RecallReason, Wait};

const PAGE: u64 = 4 * KIB;

/// Of the file `a`, of which `b` is a clone.
const SIZE: u64 = 4 * PAGE;

fn pages(from: u64, to: u64) -> Range<FileIndex> {
    FileIndex(from)..FileIndex(to)
}

fn pinned(file: &Arc<Inode>, pages: Range<FileIndex>) -> HeldPin {
    file.pin(pages, pin_info("the device", PinKind::Read)).unwrap()
}

/// The file `a`, and a clone of it called `b`.
fn shared(fs: &Filesystem) -> [Arc<Inode>; 2] {
    let (a, b) = (create(fs, "a"), create(fs, "b"));
    a.write_at(&pattern(1, SIZE), 0).unwrap();
    assert_eq!(a.clone_range(0..SIZE, &b, 0, Wait::Never).unwrap(), SIZE);
    [a, b]
}

/// Whether the pin has bytes of `a` as they were when it was taken.
fn is_intact(pin: &HeldPin) -> bool {
    let bytes = |index: FileIndex| usize::try_from(index.byte()).unwrap();
    let range = bytes(pin.range().start)..bytes(pin.range().end);
    let mut seen = vec![0; range.len()];
    pin.read(0, &mut seen).unwrap();
    seen == pattern(1, SIZE)[range]
}

/// Rule 26: whoever takes pages away does not wait for those that others have, or had.
#[test]
fn a_removal_does_not_wait_for_a_pin_of_shared_pages() {
    let soon = || Wait::Until(Instant::now() + Duration::from_millis(20));
    for pinned_file in [0, 1] {
        for policy in [FreePolicy::Fail, FreePolicy::Wait(soon()), FreePolicy::Wait(Wait::Forever)]
        {
            let pool = Pool::new(8 * MIB);
            let fs = pool.mount();
            let root = fs.root().unwrap();
            let files = shared(&fs);
            let pin = pinned(&files[pinned_file], pages(1, 3));
            drop(files);

            assert_eq!(fs.unlink_with(&root, &name("a"), policy).unwrap().len(), 0);
            assert!(is_intact(&pin));
            assert!(contents(&lookup(&fs, "b")) == pattern(1, SIZE));
            fs.verify().unwrap();

            // One file has them alone, but for the pin from before (rule 27).
            assert_eq!(fs.unlink_with(&root, &name("b"), policy).unwrap().len(), 0);
            assert_eq!(fs.usage().limbo, Pages(2));
            assert!(is_intact(&pin));
            drop(pin);
            assert_eq!(fs.usage().limbo, Pages(0));
            fs.verify().unwrap();
        }
    }
}

/// What is shared holds nobody off, and what is the file's alone does.
#[test]
fn a_removal_waits_for_a_pin_of_the_pages_that_the_file_has_alone() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let root = fs.root().unwrap();
    let [a, b] = shared(&fs);
    a.write_at(&[7; 10], 2 * PAGE).unwrap();
    let pin = pinned(&a, pages(0, 3));
    drop((a, b));

    let refused = fs.unlink_with(&root, &name("a"), FreePolicy::Fail).unwrap_err();
    assert!(refused.to_string().contains("page 2 of the file is pinned"), "{refused}");
    let deferred = fs.unlink_with(&root, &name("a"), FreePolicy::Defer).unwrap();
    assert_eq!(deferred.into_iter().map(|pin| pin.range).collect::<Vec<_>>(), [pages(2, 3)]);
    assert_eq!(fs.usage().limbo, Pages(1));
    drop(pin);
    fs.verify().unwrap();
}

/// Takes page 1 away from file `called`, or the file.
type End = fn(&Filesystem, &str);

fn cut(fs: &Filesystem, called: &str) {
    lookup(fs, called).truncate(0, FreePolicy::Wait(Wait::Never)).unwrap();
}

fn punch(fs: &Filesystem, called: &str) {
    lookup(fs, called).punch(0..SIZE, FreePolicy::Defer).unwrap();
}

/// Nobody is told for as long as somebody has the pages, and once when nobody has.
#[test]
fn the_holder_of_shared_pages_is_told_when_the_last_file_gives_them_up() {
    let ends: [End; 3] = [cut, punch, unlink];
    for (first, second) in ends.into_iter().flat_map(|one| ends.map(|other| (one, other))) {
        for pinned_file in [0, 1] {
            let pool = Pool::new(8 * MIB);
            let fs = pool.mount();
            let files = shared(&fs);
            let told = Arc::new(Mutex::new(Vec::new()));
            let note = Arc::clone(&told);
            let recall =
                Recall::call(move |event| note.lock().push((event.range.clone(), event.why)));
            let info = pin_info("the device", PinKind::Read);
            let pin = files[pinned_file].pin_leased(pages(1, 3), info, recall).unwrap();
            drop(files);

            first(&fs, "a");
            assert_eq!((fs.usage().limbo, told.lock().len()), (Pages(0), 0));
            second(&fs, "b");
            assert_eq!(fs.usage().limbo, Pages(2));
            assert_eq!(*told.lock(), [(pages(1, 3), RecallReason::Deferred)]);
            assert!(pin.lease().is_recalled() && is_intact(&pin));
            drop(pin);
            assert_eq!(fs.usage().limbo, Pages(0));
            fs.verify().unwrap();
        }
    }
}

/// It is told once, of all that it has pinned, and is listed with the pages that it had.
#[test]
fn the_holder_of_own_and_shared_pages_is_told_once() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let [a, b] = shared(&fs);
    a.write_at(&[7; 10], 3 * PAGE).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&told);
    let recall = Recall::call(move |event| note.lock().push(event.range.clone()));
    let pin = a.pin_leased(pages(0, 4), pin_info("the device", PinKind::Read), recall).unwrap();
    b.truncate(0, FreePolicy::Fail).unwrap();
    assert_eq!(*told.lock(), []);

    let deferred = a.truncate(PAGE, FreePolicy::Defer).unwrap();

    assert_eq!(deferred.into_iter().map(|pin| pin.range).collect::<Vec<_>>(), [pages(1, 4)]);
    assert_eq!(*told.lock(), [pages(0, 4)]);
    assert_eq!(fs.usage().limbo, Pages(3));
    drop(pin);
    fs.verify().unwrap();
}

#[test]
fn a_pin_of_shared_pages_is_listed_with_every_file_that_has_them() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let [a, b] = shared(&fs);
    let pin = pinned(&b, pages(0, 3));
    b.punch(0..PAGE, FreePolicy::Defer).unwrap();
    let listed = || -> Vec<_> {
        let pins = fs.pins().into_iter();
        let mut listed: Vec<_> =
            pins.map(|(ino, pin)| (ino, pin.range.start.0, pin.range.end.0)).collect();
        listed.sort_unstable();
        listed
    };
    let (of_a, of_b) = (Some(a.ino()), Some(b.ino()));
    assert_eq!(listed(), [(of_a, 0, 3), (of_b, 1, 3)]);
    a.truncate(0, FreePolicy::Defer).unwrap();
    let first = listed()[0];
    assert_eq!((first.0, first.2 - first.1), (None, 1), "nobody has the first page any more");
    assert_eq!(listed()[1..], [(of_b, 1, 3)]);
    drop(pin);
    assert_eq!(listed(), []);
    fs.verify().unwrap();
}

/// What a device would read, late, from page `page` of the pool.
fn late_read(pool: &Pool, page: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(PAGE).unwrap()];
    pool.media.read(page * PAGE, &mut bytes).unwrap();
    bytes
}

/// Rule 27 across a death: the device of the file that is gone still reads. The file goes before its
/// owner dies, at once or when somebody finds it without a name, or after that.
fn check_late_reader(is_removed_before: bool, is_open: bool) {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let [a, b] = shared(&fs);
    let at = a.extents().unwrap()[0].device.0 + 1;
    let mut info = pin_info("the device", PinKind::Read);
    info.owner.process = u32::MAX;
    let pin = a.pin(pages(1, 2), info).unwrap();
    if is_open {
        std::mem::forget(a);
    } else {
        drop(a);
    }
    if is_removed_before {
        unlink(&fs, "a");
    }
    std::mem::forget(pin);
    drop((b, fs));

    let fs = pool.mount();
    if !is_removed_before {
        unlink(&fs, "a");
    }
    let b = lookup(&fs, "b");
    fs.verify().unwrap();
    let before = late_read(&pool, at);
    b.write_at(&[9; 100], PAGE).unwrap();
    assert!(late_read(&pool, at) == before, "{is_removed_before} {is_open}");
    assert_eq!(contents(&b)[4096..4196], [9; 100]);
    assert_eq!(fs.usage().quarantined, Pages(1), "nobody has the page any more");
    fs.verify().unwrap();

    let place = b.extents().unwrap();
    b.write_at(&[8; 100], 2 * PAGE).unwrap();
    assert_eq!(b.extents().unwrap(), place, "no device reads the others");
    fs.verify().unwrap();
}

#[test]
fn a_late_device_that_reads_never_sees_a_store_of_another_file() {
    check_late_reader(true, false);
    check_late_reader(true, true);
    check_late_reader(false, false);
}

#[test]
fn pages_that_a_late_device_read_are_stored_to_once_it_is_released() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let [a, b] = shared(&fs);
    let pin = pinned(&a, pages(0, 4));
    drop(a);
    unlink(&fs, "a");
    std::mem::forget(pin);
    drop((b, fs));
    let fs = pool.mount();
    let b = lookup(&fs, "b");
    let place = b.extents().unwrap();
    assert!(place[0].is_shared);
    assert_eq!(fs.usage().shared, Pages(0));
    fs.release_quarantine(&Release::All, LivingOwner::Ignore).unwrap();
    b.write_at(&[9; 100], PAGE).unwrap();
    for extent in b.extents().unwrap() {
        assert!(!extent.is_shared);
        assert_eq!(extent.device, place[0].device + Pages(extent.index.0), "it has stayed");
    }
    fs.verify().unwrap();
}
