//! What devices store through pins becomes durable, whoever asks: a device tells nobody of it.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::thread;

use common::pause::Pause;
use common::{KIB, MIB, create, name, pattern, pin_info};
use udax_dev::PgmapDevice;
use udax_fs::{Filesystem, FormatOptions, FreePolicy, FsError, HeldPin, Inode, MountMode};
use udax_mm::image::{Image, LINE_SIZE};
use udax_mm::recorder::{Event, Recorder};
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, FileIndex, MediaRange, MemoryType, Pages, Pgmap, PinKind};

const PAGE: u64 = 4 * KIB;

/// A filesystem on a medium that remembers flushes and fences.
struct World {
    medium: Arc<Recorder>,
    fs: Arc<Filesystem>,
}

impl World {
    fn new(bytes: u64) -> World {
        let medium = Arc::new(Recorder::new(Image::zeroed(bytes)));
        let range = MediaRange { media: medium.clone(), start: 0, pages: Pages::holding(bytes) };
        let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).unwrap();
        let device = Arc::new(PgmapDevice::new(pgmap));
        Filesystem::format(device.clone(), &FormatOptions::default()).unwrap();
        let (fs, _) = Filesystem::mount(device, MountMode::ReadWrite, None).unwrap();
        World { medium, fs }
    }

    fn file(&self, pages: u64) -> Arc<Inode> {
        let file = create(&self.fs, "a");
        file.write_at(&pattern(1, pages * PAGE), 0).unwrap();
        file.sync().unwrap();
        file
    }

    fn open(&self) -> Arc<Inode> {
        self.fs.lookup(&self.fs.root().unwrap(), &name("a")).unwrap()
    }

    /// Runs `run`, and says whether page `at` of the device, the last that was stored to, is flushed
    /// and fenced after it.
    fn makes_durable(&self, at: DeviceOff, run: impl FnOnce()) -> bool {
        let _ = self.medium.take_events();
        run();
        let events = self.medium.take_events();
        let line = at.byte() / u64::try_from(LINE_SIZE).unwrap();
        let is_flush = |event: &Event| matches!(event, Event::Flush { line: l, .. } if *l == line);
        let flushed = events.iter().position(is_flush);
        let is_fence = |event: &Event| matches!(event, Event::Fence { .. });
        flushed.is_some_and(|flushed| events[flushed..].iter().any(is_fence))
    }
}

fn pinned(file: &Arc<Inode>, page: u64) -> HeldPin {
    let pages = FileIndex(page)..FileIndex(page + 1);
    file.pin(pages, pin_info("device", PinKind::Write)).unwrap()
}

/// Where page `page` of the file lies.
fn place(file: &Inode, page: u64) -> DeviceOff {
    let extents = file.extents().unwrap();
    let found = extents.iter().rfind(|extent| extent.index.0 <= page).unwrap();
    found.device + FileIndex(page).since(found.index)
}

/// I-41: whoever opens the file again knows of the device.
#[test]
fn a_sync_of_a_file_that_was_closed_and_opened_finds_what_a_device_stored() {
    let world = World::new(8 * MIB);
    let file = world.file(8);
    let (pin, at) = (pinned(&file, 3), place(&file, 3));
    file.sync().unwrap();
    drop(file);

    pin.write(0, &[7; 8]).unwrap();
    let file = world.open();
    assert_eq!(file.pins().len(), 1);
    assert!(world.makes_durable(at, || file.sync().unwrap()));
    pin.write(0, &[8; 8]).unwrap();
    assert!(world.makes_durable(at, || file.sync().unwrap()), "nobody tells of the next store");
    drop(pin);
    world.fs.verify().unwrap();
}

#[test]
fn what_a_device_stored_to_a_closed_file_is_durable_once_the_pin_is_gone() {
    let world = World::new(8 * MIB);
    let file = world.file(8);
    let (pin, at) = (pinned(&file, 3), place(&file, 3));
    let other = pinned(&file, 4);
    drop(file);
    pin.write(0, &[7; 8]).unwrap();
    drop(other);
    assert!(world.makes_durable(at, || drop(pin)));
    world.fs.verify().unwrap();
}

/// A file without a name is nobody's to open.
#[test]
fn a_pin_for_writing_keeps_no_file_without_a_name() {
    let world = World::new(8 * MIB);
    let root = world.fs.root().unwrap();
    let free = world.fs.usage().free;
    let file = world.file(40);
    let pin = pinned(&file, 3);
    let other = create(&world.fs, "b");
    world.fs.unlink(&root, &name("a")).unwrap();
    let late = pinned(&file, 5);
    drop(file);
    assert_eq!(world.fs.usage().limbo, Pages(2));

    // A file that another one replaces, too.
    other.write_at(&[1; 100], 0).unwrap();
    let third = pinned(&other, 0);
    drop(other);
    drop(create(&world.fs, "c"));
    world.fs.rename(&root, &name("c"), &root, &name("b"), udax_fs::RenameMode::Replace).unwrap();
    assert_eq!(world.fs.usage().limbo, Pages(3));
    drop((pin, late, third));
    world.fs.unlink(&root, &name("b")).unwrap();
    assert!(world.fs.usage().free >= free - Pages(2), "the directory, and its node");
    world.fs.verify().unwrap();
}

/// A file that could not give a page up keeps it, its pin, and what is known of its stores.
#[test]
fn a_deferral_that_fails_leaves_the_file_what_it_had() {
    let world = World::new(12 * MIB);
    let file = world.file(1024);
    let filler = create(&world.fs, "filler");
    while world.fs.usage().free > Pages(0) {
        let len = (world.fs.usage().free.0 * PAGE).min(256 * KIB);
        if filler.append(&pattern(1, len)).is_err() {
            filler.append(&[1; 4096]).unwrap();
        }
    }
    let (pin, at) = (pinned(&file, 600), place(&file, 600));

    // No page for a node.
    let refused = file.punch(600 * PAGE..610 * PAGE, FreePolicy::Defer).unwrap_err();
    assert!(matches!(refused, FsError::NoSpace { .. }), "{refused}");

    assert_eq!(file.pins()[0].range, FileIndex(600)..FileIndex(601));
    pin.write(0, &[7; 8]).unwrap();
    assert!(world.makes_durable(at, || file.sync().unwrap()), "I-41");
    // It has a page to give, and gives all of them up: the pinned one comes back with the pin.
    world.fs.unlink(&world.fs.root().unwrap(), &name("a")).unwrap();
    drop(file);
    assert_eq!(world.fs.usage().limbo, Pages(1));
    let free = world.fs.usage().free;
    drop(pin);
    assert_eq!(world.fs.usage().free, free + Pages(1));
    world.fs.verify().unwrap();
}

/// A punch up to the end of the file broke the layout of the page in which the file ended. A file that
/// grew before keeps the page, and what a device stored to it afterwards was never flushed.
#[test]
fn a_punch_that_a_growing_file_overtakes_leaves_it_the_pin_of_the_page_that_it_keeps() {
    let world = World::new(8 * MIB);
    let file = create(&world.fs, "a");
    file.write_at(&pattern(1, 5000), 0).unwrap();
    let (pin, at) = (pinned(&file, 1), place(&file, 1));
    let (in_punch, is_breaking, go_on) = Pause::at("dax_break_layout");

    let deferred = thread::scope(|scope| {
        let go_on = go_on;
        let puncher = scope.spawn(|| {
            let punch = || file.punch(4096..6000, FreePolicy::Defer).unwrap();
            tracing::subscriber::with_default(in_punch, punch)
        });
        is_breaking.recv().unwrap();
        file.write_at(&pattern(1, 9000), 0).unwrap();
        go_on.send(()).unwrap();
        puncher.join().unwrap()
    });

    let mut expected = pattern(1, 9000);
    expected[4096..6000].fill(0);
    assert!(common::contents(&file) == expected);
    pin.write(0, &[7; 8]).unwrap();
    assert!(world.makes_durable(at, || file.sync().unwrap()), "I-41");
    assert!(deferred.is_empty(), "nothing is given up");
    world.fs.verify().unwrap();
}
