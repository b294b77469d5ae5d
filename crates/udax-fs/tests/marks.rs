//! Which pages a sync flushes: those that can have been stored to through mappings, and none that a
//! write has made durable already (F-34).
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "../../udax-mapping/tests/common/witness.rs"]
#[allow(dead_code, reason = "it can do more for other tests")]
mod witness;

use common::{MIB, create, pattern, pin_info};
use udax_dev::{DaxDevice, PgmapDevice};
use udax_fs::{Filesystem, FormatOptions, FreePolicy, FsError, Inode, MountMode};
use udax_mapping::{MapMode, Populate, Sharing};
use udax_mm::sync::Arc;
use udax_mm::{Access, FileIndex, MediaRange, MemoryType, Pages, Pgmap, PinKind, Wait};
use witness::{Seen, Witness};

const PAGE: u64 = 4096;

/// A file of ten pages, the last two of them holes, on a medium that remembers.
struct World {
    medium: Arc<Witness>,
    device: Arc<PgmapDevice>,
    fs: Arc<Filesystem>,
    file: Arc<Inode>,
}

impl World {
    fn new() -> World {
        let medium = Witness::new(Pages::holding(8 * MIB).0);
        let range = MediaRange { media: medium.clone(), start: 0, pages: Pages::holding(8 * MIB) };
        let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).unwrap();
        let device = Arc::new(PgmapDevice::new(pgmap));
        Filesystem::format(device.clone(), &FormatOptions::default()).unwrap();
        let (fs, _) = Filesystem::mount(device.clone(), MountMode::ReadWrite, None).unwrap();
        let file = create(&fs, "a");
        file.write_at(&pattern(1, 8 * PAGE), 0).unwrap();
        file.truncate(10 * PAGE, FreePolicy::Fail).unwrap();
        World { medium, device, fs, file }
    }

    fn mode(access: Access, sharing: Sharing) -> MapMode {
        MapMode { access, sharing, populate: Populate::Eager, ..MapMode::default() }
    }

    /// The pages of the file of which `run` flushes a byte.
    fn flushed(&self, run: impl FnOnce()) -> Vec<u64> {
        self.medium.take();
        run();
        let seen = self.medium.take();
        let has = |seen: &Seen, at: u64| match *seen {
            Seen::Flush(from, len) => from < at + PAGE && at < from + len,
            Seen::Fence => false,
        };
        let is_flushed = |at: u64| seen.iter().any(|seen| has(seen, at));
        let extents = self.file.extents().unwrap();
        let pages = extents.iter().flat_map(|extent| {
            (0..extent.pages.0).map(|page| (extent.index.0 + page, extent.device.0 + page))
        });
        pages.filter(|&(_, at)| is_flushed(at * PAGE)).map(|(page, _)| page).collect()
    }

    /// Writes in place, into a hole, and past the end; each flushes what it writes, and the sync
    /// after it nothing.
    fn check_writes(&self, how: &str) {
        let file = &self.file;
        let writes = [(2, 3 * PAGE - 50, 100), (5, 5 * PAGE, PAGE), (8, 8 * PAGE + 7, 9)];
        for (page, at, len) in writes {
            let written = self.flushed(|| assert!(file.write_at(&pattern(7, len), at).is_ok()));
            assert!(written.contains(&page), "{how}: {written:?}");
            assert_eq!(self.flushed(|| file.flush(0..20 * PAGE).unwrap()), [], "{how}, {page}");
            assert_eq!(self.flushed(|| file.sync().unwrap()), [], "{how}, {page}");
        }
        self.flushed(|| assert!(file.append(&pattern(7, PAGE)).is_ok()));
        assert_eq!(self.flushed(|| file.sync().unwrap()), [], "{how}, an append");
        self.fs.verify().unwrap();
    }
}

#[test]
fn a_write_marks_no_page_that_others_read() {
    let world = World::new();
    world.check_writes("no entry");

    let world = World::new();
    let mode = World::mode(Access::Read, Sharing::Shared);
    drop(world.file.map(FileIndex(0), Pages(10), mode).unwrap());
    world.check_writes("was mapped for reading");
    let reader = world.file.map(FileIndex(0), Pages(10), mode).unwrap();
    world.check_writes("is mapped for reading");
    drop(reader);

    let world = World::new();
    let mode = World::mode(Access::Write, Sharing::Private);
    let private = world.file.map(FileIndex(0), Pages(10), mode).unwrap();
    private.vma().write(4 * PAGE, b"my own").unwrap();
    world.check_writes("is mapped privately");

    let world = World::new();
    let range = FileIndex(0)..FileIndex(8);
    let pin = world.file.pin(range, pin_info("reader", PinKind::Read)).unwrap();
    world.check_writes("is pinned for reading");
    drop(pin);
    world.check_writes("was pinned for reading");
}

/// The copy of a shared page is durable when the write returns, too.
#[test]
fn a_write_to_shared_data_marks_nothing() {
    let world = World::new();
    let clone = create(&world.fs, "b");
    let mode = World::mode(Access::Read, Sharing::Shared);
    drop(world.file.map(FileIndex(0), Pages(10), mode).unwrap());
    world.file.clone_range(0..8 * PAGE, &clone, 0, Wait::Never).unwrap();
    world.check_writes("shared");
}

/// What can have been stored to is flushed, and what is written is no reason to take it for clean.
#[test]
fn a_write_takes_no_mark_off() {
    let world = World::new();
    let mode = World::mode(Access::Write, Sharing::Shared);
    let writer = world.file.map(FileIndex(4), Pages(2), mode).unwrap();
    writer.vma().write(PAGE, b"stored").unwrap();
    drop(writer);
    world.file.write_at(b"written", 5 * PAGE).unwrap();
    assert_eq!(world.flushed(|| world.file.sync().unwrap()), [4, 5]);
    assert_eq!(world.flushed(|| world.file.sync().unwrap()), []);
}

/// The break before it forgets what was stored through mappings.
#[test]
fn a_freeze_that_is_refused_has_made_durable_what_was_stored() {
    let world = World::new();
    let mode = World::mode(Access::Write, Sharing::Shared);
    let mapped = world.file.map(FileIndex(0), Pages(8), mode).unwrap();
    mapped.vma().write(4 * PAGE, b"stored").unwrap();
    drop(mapped);
    let first = world.file.extents().unwrap()[0];
    let failed = world.device.direct_access(first.device, Pages(1)).unwrap();
    failed.pgmap().memory_failure(failed.range());

    let flushed = world.flushed(|| {
        let refused = world.file.freeze(Wait::Never).unwrap_err();
        assert!(matches!(refused, FsError::Lost { .. }), "{refused:?}");
    });

    assert!(flushed.contains(&4), "{flushed:?}");
    world.fs.verify().unwrap();
}
