//! A filesystem on a stack of tables: what happens to the devices below reaches its files.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{MIB, contents, create, fault_service, pattern, pin_info};
use std::time::Duration;
use udax_dev::{
    AccessError, DaxBytes, DaxDevice, Delay, IoError, Line, Linear, Mapped, Member, PgmapDevice,
    Striped, SwapError, Table, Target,
};
use udax_fs::{Filesystem, FormatOptions, FsError, MountMode};
use udax_mapping::{MapMode, Populate};
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::{
    Access, DeviceOff, FaultService, FileIndex, MediaError, MediaRange, MemoryType, Order,
    PAGE_SIZE, Pages, Pgmap, PgmapOff, PinKind, Wait,
};

const PAGE: u64 = 4096;

/// A device of `sizes` MiB, each in a memory of its own.
fn device(sizes: &[u64]) -> Arc<dyn DaxDevice> {
    let range = |mib: &u64| {
        let media = Arc::new(FileMedia::memfd("stack", mib * MIB).unwrap());
        MediaRange { media, start: 0, pages: Pages(mib * MIB / PAGE) }
    };
    let ranges = sizes.iter().map(range).collect();
    Arc::new(PgmapDevice::new(Pgmap::new(ranges, MemoryType::FsDax).unwrap()))
}

fn line(start: u64, pages: u64, target: Target) -> Line {
    Line { start: DeviceOff(start), pages: Pages(pages), target }
}

fn linear(device: &Arc<dyn DaxDevice>, from: u64) -> Target {
    Target::Linear(Linear::new(Arc::clone(device), DeviceOff(from)))
}

/// Two layers: stripes of two devices of two ranges each, and from its second chunk on a linear
/// line, behind a line of another device.
struct Stack {
    leaves: Vec<Arc<dyn DaxDevice>>,
    stripes: Arc<dyn DaxDevice>,
    top: Arc<Mapped>,
}

const CHUNK: u64 = 512;
const HEAD: u64 = 1024;

impl Stack {
    fn new() -> Stack {
        let leaves = vec![device(&[4, 4]), device(&[4, 4]), device(&[4])];
        let member =
            |leaf: &Arc<dyn DaxDevice>| Member { device: Arc::clone(leaf), from: DeviceOff(0) };
        let members = leaves[..2].iter().map(member).collect();
        let striped = Target::Striped(Striped::new(Pages(CHUNK), members));
        let table = Table::new(vec![line(0, 4096, striped)]).unwrap();
        let stripes: Arc<dyn DaxDevice> = Arc::new(Mapped::new(table).unwrap());
        let top = Table::new(vec![
            line(0, HEAD, linear(&leaves[2], 0)),
            line(HEAD, 3072, linear(&stripes, CHUNK)),
        ]);
        Stack { leaves, stripes, top: Arc::new(Mapped::new(top.unwrap()).unwrap()) }
    }

    fn mount(&self, service: Option<Arc<FaultService>>) -> Arc<Filesystem> {
        let device: Arc<dyn DaxDevice> = self.top.clone();
        Filesystem::format(Arc::clone(&device), &FormatOptions::default()).unwrap();
        Filesystem::mount(device, MountMode::ReadWrite, service).unwrap().0
    }

    /// The leaf and its page behind a page of the top, worked out by hand.
    fn below(&self, at: DeviceOff) -> (&Arc<dyn DaxDevice>, PgmapOff) {
        if at.0 < HEAD {
            return (&self.leaves[2], PgmapOff(at.0));
        }
        let striped = at.0 - HEAD + CHUNK;
        let (chunk, within) = (striped / CHUNK, striped % CHUNK);
        let leaf = usize::try_from(chunk % 2).unwrap();
        (&self.leaves[leaf], PgmapOff(chunk / 2 * CHUNK + within))
    }
}

/// Lazy mappings where the host permits them, and eager ones.
fn both(test: impl Fn(&Stack, &Arc<Filesystem>, Populate)) {
    let lazy = fault_service().map(Some);
    for service in lazy.into_iter().chain([None]) {
        let populate = if service.is_some() { Populate::Lazy } else { Populate::Eager };
        let stack = Stack::new();
        let fs = stack.mount(service);
        test(&stack, &fs, populate);
    }
}

fn writable(populate: Populate) -> MapMode {
    MapMode { access: Access::Write, populate, ..MapMode::default() }
}

/// F-46, B-35, I-64: through a linear line over stripes of devices of several ranges.
#[test]
fn a_failure_below_a_stack_reaches_the_page_of_the_file() {
    both(|stack, fs, populate| {
        let bytes = pattern(1, 9 * MIB);
        let file = create(fs, "a");
        assert_eq!(file.write_at(&bytes, 0).unwrap(), bytes.len());
        let mapped = file.map(FileIndex(0), Pages(9 * 256), writable(populate)).unwrap();
        for index in [3, 700, 1200, 2303_u64] {
            mapped.vma().load_u64(index * PAGE).unwrap();
            let extents = file.extents().unwrap();
            let extent = extents.iter().rfind(|extent| extent.index.0 <= index).unwrap();
            let at = extent.device + Pages(index - extent.index.0);
            let (leaf, page) = stack.below(at);

            let live = leaf.pgmaps()[0].try_get_live().unwrap();
            live.memory_failure(page..page + Pages(1));

            let lost = mapped.vma().load_u64(index * PAGE + 8);
            let at_once = matches!(lost, Err(MediaError::Fault { at }) if at == index * PAGE + 8);
            assert!(at_once, "page {index}: {lost:?}");
            let read = file.read_at(&mut [0; 4], index * PAGE);
            assert!(
                matches!(read, Err(FsError::Lost { at, .. }) if at == index * PAGE),
                "{read:?}"
            );
            mapped.vma().load_u64((index - 1) * PAGE).unwrap();
        }
        let bad = file.bad_ranges().unwrap();
        let expected = [3, 700, 1200, 2303].map(|index: u64| index * PAGE..(index + 1) * PAGE);
        assert_eq!(bad, expected);
        for index in [3, 700, 1200, 2303] {
            let at = usize::try_from(index).unwrap() * PAGE_SIZE;
            file.write_at(&bytes[at..at + PAGE_SIZE], index * PAGE).unwrap();
        }
        assert!(contents(&file) == bytes, "F-45: healed");
        fs.verify().unwrap();
    });
}

/// Stripes of 2 MiB keep folios of 2 MiB: what is aligned above is aligned below.
#[test]
fn a_file_on_stripes_of_two_megabytes_is_mapped_by_folios_of_two_megabytes() {
    both(|_, fs, populate| {
        let file = create(fs, "a");
        file.write_at(&pattern(1, 8 * MIB), 0).unwrap();
        let mapped = file.map(FileIndex(0), Pages(8 * 256), writable(populate)).unwrap();

        for page in (0..2048).step_by(16) {
            mapped.vma().load_u64(page * PAGE).unwrap();
        }

        let stats = file.stats();
        assert_eq!((stats.faults(Order::Pmd), stats.faults(Order::Base)), (4, 0), "{stats:?}");
    });
}

/// F-47: the removal of one leaf ends the whole, and a pin holds it up.
#[test]
fn the_removal_of_a_leaf_takes_every_translation_back_and_waits_for_pins() {
    both(|stack, fs, populate| {
        let file = create(fs, "a");
        file.write_at(&pattern(1, 9 * MIB), 0).unwrap();
        let mapped = file.map(FileIndex(0), Pages(9 * 256), writable(populate)).unwrap();
        mapped.vma().load_u64(0).unwrap();
        let pin = file.pin(FileIndex(0)..FileIndex(2304), pin_info("nic", PinKind::Write)).unwrap();

        let busy = stack.leaves[0].kill(Wait::Never).unwrap_err();

        assert!(busy.pins.iter().all(|pin| &*pin.info.owner.label == "nic"), "{busy}");
        assert!(!busy.pins.is_empty());
        for page in 0..2304 {
            assert!(mapped.vma().load_u64(page * PAGE).is_err(), "page {page} is mapped still");
        }
        assert!(file.read_at(&mut [0], 0).is_err());
        drop((pin, mapped));
        stack.leaves[0].kill(Wait::Forever).unwrap();
    });
}

/// A table with `pages` of the top turned into the `error` target.
fn with_errors(stack: &Stack, pages: std::ops::Range<u64>) -> Table {
    let (start, end) = (pages.start, pages.end);
    assert!(start > HEAD, "of the second line");
    Table::new(vec![
        line(0, HEAD, linear(&stack.leaves[2], 0)),
        line(HEAD, start - HEAD, linear(&stack.stripes, CHUNK)),
        line(start, end - start, Target::Error),
        line(end, 4096 - end, linear(&stack.stripes, end - HEAD + CHUNK)),
    ])
    .unwrap()
}

fn whole(stack: &Stack) -> Table {
    Table::new(vec![
        line(0, HEAD, linear(&stack.leaves[2], 0)),
        line(HEAD, 3072, linear(&stack.stripes, CHUNK)),
    ])
    .unwrap()
}

/// What tests of filesystems do with the `error` target: it comes and goes under a mounted one.
#[test]
fn pages_fail_while_the_table_says_so_and_are_back_when_it_does_not() {
    both(|stack, fs, populate| {
        let bytes = pattern(1, 9 * MIB);
        let file = create(fs, "a");
        file.write_at(&bytes, 0).unwrap();
        let mapped = file.map(FileIndex(0), Pages(9 * 256), writable(populate)).unwrap();
        mapped.vma().write(0, b"first").unwrap();
        let last = *file.extents().unwrap().last().unwrap();
        let (index, at) = (last.index.0, last.device.0);
        assert!(at > HEAD && last.pages.0 > 8, "the end of the file is in the second line");
        mapped.vma().write(index * PAGE, b"stored before").unwrap();

        stack.top.swap(with_errors(stack, at..at + 8), Wait::Forever).unwrap();

        assert!(mapped.vma().load_u64(index * PAGE).is_err(), "its translation was taken back");
        let failed = file.read_at(&mut [0], index * PAGE).unwrap_err();
        let FsError::Device(IoError::Access(AccessError::Failed { at: page, .. })) = failed else {
            panic!("{failed:?}");
        };
        assert_eq!(page, DeviceOff(at));
        assert_eq!(file.read_at(&mut [0; 5], 0).unwrap(), 5, "the rest of the file is there");
        let mut start = [0; 5];
        mapped.vma().read(0, &mut start).unwrap();
        assert_eq!(&start, b"first");

        stack.top.swap(whole(stack), Wait::Forever).unwrap();

        let mut back = [0; 13];
        file.read_at(&mut back, index * PAGE).unwrap();
        assert_eq!(&back, b"stored before");
        if populate == Populate::Lazy {
            mapped.vma().read(index * PAGE, &mut back).unwrap();
            assert_eq!(&back, b"stored before");
        }
        fs.verify().unwrap();
    });
}

/// A filesystem keeps claims of pages, so its pages stay where they are.
#[test]
fn a_table_that_would_move_pages_of_a_mounted_filesystem_is_refused() {
    let stack = Stack::new();
    let fs = stack.mount(None);
    let moved = Table::new(vec![
        line(0, 3072, linear(&stack.stripes, CHUNK)),
        line(3072, HEAD, linear(&stack.leaves[2], 0)),
    ]);

    let error = stack.top.swap(moved.unwrap(), Wait::Forever).unwrap_err();

    assert!(matches!(error, SwapError::InPlace), "{error}");
    let delayed = Target::Delay(Delay::new(
        Arc::clone(&stack.stripes),
        DeviceOff(CHUNK),
        Duration::from_micros(1),
    ));
    let slower = vec![line(0, HEAD, linear(&stack.leaves[2], 0)), line(HEAD, 3072, delayed)];
    stack.top.swap(Table::new(slower).unwrap(), Wait::Forever).expect("every page stays");
    let file = create(&fs, "a");
    file.write_at(b"slowly", 0).unwrap();
    fs.verify().unwrap();
}

/// I-66, patch 15: a device without direct access holds no filesystem, and says why.
#[test]
fn a_device_without_direct_access_holds_no_filesystem() {
    let leaf = device(&[4]);
    let table = vec![line(0, 1024, linear(&leaf, 0)), line(1024, 8, Target::Zero)];
    let device: Arc<dyn DaxDevice> = Arc::new(Mapped::new(Table::new(table).unwrap()).unwrap());
    DaxBytes::new(Arc::clone(&device)).write(0, b"untouched").unwrap();

    let refused = Filesystem::format(Arc::clone(&device), &FormatOptions::default()).unwrap_err();

    let no_dax = matches!(&refused, FsError::Device(IoError::Access(AccessError::NoDax(_))));
    assert!(no_dax, "{refused:?}");
    let mounted = Filesystem::mount(Arc::clone(&device), MountMode::ReadOnly, None).err().unwrap();
    assert!(matches!(&mounted, FsError::Device(IoError::Access(AccessError::NoDax(_)))));
    let mut read = [0; 9];
    DaxBytes::new(device).read(0, &mut read).unwrap();
    assert_eq!(&read, b"untouched");
}
