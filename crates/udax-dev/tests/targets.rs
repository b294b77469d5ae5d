//! What each target does with its pages, and what a table makes of all of them.

mod common;

use common::{Witness, device, pgmap};
use std::ops::Range;
use std::panic::Location;
use std::time::Duration;
use udax_dev::{
    AccessError, DaxBytes, DaxDevice, Delay, Holder, IoError, Line, Linear, LogWrites, Mapped,
    Member, NoDax, PgmapDevice, Problem, Striped, Table, Target,
};
use udax_mm::media::Persistence;
use udax_mm::recorder::Event;
use udax_mm::sync::{Arc, Mutex, Weak};
use udax_mm::{
    DeviceMemory, DeviceOff, Folio, FolioRef, IdleSpan, MediaError, MediaRange, MemoryType,
    MigrateError, Pages, Pgmap, PgmapOff, PrivateMemory, Wait,
};

fn linear(device: &Arc<dyn DaxDevice>) -> Target {
    Target::Linear(Linear::new(Arc::clone(device), DeviceOff(0)))
}

/// Lines one behind the other.
fn mapped(lines: Vec<(u64, Target)>) -> Mapped {
    let mut start = DeviceOff(0);
    let line = |(pages, target): (u64, Target)| {
        let line = Line { start, pages: Pages(pages), target };
        start = start + Pages(pages);
        line
    };
    let table = Table::new(lines.into_iter().map(line).collect()).expect("the table is good");
    Mapped::new(table).expect("nobody has the devices")
}

fn stripes(chunk: u64, devices: &[Arc<dyn DaxDevice>]) -> Target {
    let member =
        |device: &Arc<dyn DaxDevice>| Member { device: Arc::clone(device), from: DeviceOff(0) };
    Target::Striped(Striped::new(Pages(chunk), devices.iter().map(member).collect()))
}

/// F-48: one device or sixteen, and no grant crosses a chunk.
#[test]
fn stripes_take_turns_and_clip_at_chunks() {
    for width in [1, 2, 3, 4, 16_u64] {
        let devices: Vec<_> = (0..width).map(|_| device(12)).collect();
        let striped = mapped(vec![(12 * width, stripes(4, &devices))]);

        for at in 0..12 * width {
            let span = striped.direct_access(DeviceOff(at), Pages(u64::from(u32::MAX))).unwrap();

            let (chunk, within) = (at / 4, at % 4);
            let below = &devices[usize::try_from(chunk % width).unwrap()];
            assert!(*span.pgmap().pgmap() == below.pgmaps()[0], "page {at} of {width} stripes");
            let page = PgmapOff(chunk / width * 4 + within);
            assert_eq!((span.at(), span.pages()), (page, Pages(4 - within)), "I-62");
        }
    }
}

/// F-14: every row of the table of errors that can be told here.
#[test]
fn direct_access_is_refused_for_its_reason() {
    let a = device(4);
    let good = mapped(vec![(4, linear(&a)), (2, Target::Error)]);
    let refused = |at| good.direct_access(DeviceOff(at), Pages(1)).unwrap_err();

    let by = "line 2 of the table (error)".into();
    assert_eq!(refused(5), AccessError::Failed { at: DeviceOff(5), pages: Pages(1), by });
    assert_eq!(refused(6), AccessError::OutOfRange { at: DeviceOff(6), size: Pages(6) });
    a.kill(Wait::Never).unwrap();
    assert_eq!(refused(0), AccessError::Dead);
    assert_eq!(refused(5), AccessError::Dead, "the whole is dead");
    let error = DaxBytes::new(Arc::new(good)).read(0, &mut [0]).unwrap_err();
    assert!(matches!(error, IoError::Access(AccessError::Dead)));
}

/// I-62: a span is all good or all failed, and who recovers gets both.
#[test]
fn grants_are_clipped_where_memory_failed() {
    let a = device(8);
    let top = mapped(vec![(8, linear(&a))]);
    let live = a.pgmaps()[0].try_get_live().unwrap();
    live.memory_failure(PgmapOff(2)..PgmapOff(4));

    let granted = |at| top.direct_access(DeviceOff(at), Pages(8)).unwrap().pages();
    assert_eq!([granted(0), granted(1)], [Pages(2), Pages(1)]);
    assert_eq!([granted(2), granted(3)], [Pages(2), Pages(1)]);
    assert_eq!(granted(4), Pages(4));
    assert_eq!(top.recovery_access(DeviceOff(0), Pages(8)).unwrap().pages(), Pages(8));

    let bytes = DaxBytes::new(Arc::new(top));
    let error = bytes.read(2 * 4096, &mut [0]).unwrap_err();
    assert!(matches!(error, IoError::Media(MediaError::Poisoned { .. })), "{error}");
}

/// I-66, F-48: one line without direct access takes it from all, and is named through the stack.
#[test]
fn one_line_without_direct_access_takes_it_from_the_whole_and_is_named() {
    let (a, b) = (device(4), device(4));
    let lower: Arc<dyn DaxDevice> = Arc::new(mapped(vec![(4, linear(&a)), (1, Target::Zero)]));
    let top = mapped(vec![(4, linear(&b)), (4, linear(&lower))]);

    let reason = "line 2 of the table (linear): line 2 of the table (zero): it forgets what is \
                  stored, which memory cannot do";
    assert_eq!(top.dax(), Err(NoDax { reason: reason.into() }));
    let error = top.direct_access(DeviceOff(0), Pages(1)).unwrap_err();
    assert_eq!(error.to_string(), format!("the device has no direct access: {reason}"));

    let bytes = DaxBytes::new(Arc::new(top));
    bytes.write(0, b"copies go on").unwrap();
    let mut read = [0; 12];
    bytes.read(0, &mut read).unwrap();
    assert_eq!(&read, b"copies go on");
}

#[test]
fn zeros_forget_what_is_stored() {
    let bytes = DaxBytes::new(Arc::new(mapped(vec![(3, Target::Zero)])));

    bytes.write(4000, &[1; 200]).unwrap();
    bytes.store_u64(8, 7).unwrap();
    bytes.flush(0, 4096).unwrap();
    bytes.fence().unwrap();

    let mut read = [9; 300];
    bytes.read(3950, &mut read).unwrap();
    assert_eq!(read, [0; 300]);
    assert_eq!(bytes.load_u64(8).unwrap(), 0);
}

/// F-49: a promise of all is the weakest of any.
#[test]
fn promises_are_those_that_every_device_makes() {
    let strong = Witness::with_facts(4, |facts| {
        facts.persistence = Persistence::CacheLines;
        facts.is_dax = true;
    })
    .device();
    let weak = Witness::with_facts(4, |facts| {
        facts.persistence = Persistence::Msync;
        facts.is_dax = false;
    })
    .device();

    let both = mapped(vec![(8, stripes(2, &[Arc::clone(&strong), weak]))]);
    assert_eq!((both.facts().persistence, both.facts().is_dax), (Persistence::Msync, false));
    drop(both);
    let one = mapped(vec![(4, linear(&strong)), (1, Target::Error)]);
    assert_eq!((one.facts().persistence, one.facts().is_dax), (Persistence::CacheLines, true));
}

/// Memory that the processor cannot address: a device that exists, and says why not.
#[test]
fn private_memory_has_no_direct_access() {
    #[derive(Debug)]
    struct Gpu;
    impl DeviceMemory for Gpu {
        fn folio_free(&self, _: IdleSpan) {}
    }
    impl PrivateMemory for Gpu {
        fn migrate_to_ram(&self, _: FolioRef<'_>) -> Result<Folio, MigrateError> {
            Err(MigrateError::NoMemory(udax_mm::Order::Base))
        }
    }
    let range = MediaRange { media: common::memory(4), start: 0, pages: Pages(4) };
    let pgmap = Pgmap::new(vec![range], MemoryType::Private(Arc::new(Gpu))).unwrap();
    let gpu: Arc<dyn DaxDevice> = Arc::new(PgmapDevice::new(pgmap));

    let top = mapped(vec![(4, linear(&gpu))]);

    let error = top.direct_access(DeviceOff(0), Pages(1)).unwrap_err();
    let message = "the device has no direct access: line 1 of the table (linear): its memory is \
                   private to it, and the processor cannot address it";
    assert_eq!(error.to_string(), message);
}

/// What the line recorded, without the sites.
fn taken(log: &Mutex<Vec<Event>>) -> Vec<Event> {
    std::mem::take(&mut *log.lock())
}

#[test]
fn what_is_stored_to_a_logged_line_is_recorded_in_its_bytes() {
    let leaf: Arc<dyn DaxDevice> = Arc::new(PgmapDevice::new(pgmap(&[2, 3])));
    let shifted = Target::Linear(Linear::new(leaf, DeviceOff(1)));
    let below: Arc<dyn DaxDevice> = Arc::new(mapped(vec![(4, shifted)]));
    let log: Arc<Mutex<Vec<Event>>> = Arc::default();
    let logged = Target::LogWrites(LogWrites::new(Arc::clone(&below), log.clone()));
    let other = device(4);
    let top = Arc::new(mapped(vec![(4, linear(&other)), (3, logged)]));
    let bytes = DaxBytes::new(top.clone());
    let line = 4 * 4096;

    bytes.write(line + 8188, &[1; 8]).unwrap();
    let units: Vec<_> = taken(&log);
    let half = |at, value| Event::Store { at, value };
    let expected = [half(8184, 0x0101_0101 << 32), half(8192, 0x0101_0101)];
    assert_eq!(units, expected, "across a boundary, whole units as they are left");

    bytes.write(0, &[1; 16]).unwrap();
    DaxBytes::new(below.clone()).store_u64(3 * 4096, 5).unwrap();
    assert_eq!(taken(&log), [], "what lies in no logged line is not recorded");

    bytes.flush(line + 60, 8).unwrap();
    let site = Location::caller();
    bytes.fence().unwrap();
    let events = taken(&log);
    assert!(matches!(events[..2], [Event::Flush { line: 0, .. }, Event::Flush { line: 1, .. }]));
    let Event::Fence { site: fence } = events[2] else { panic!("{events:?}") };
    assert_eq!((fence.file(), fence.line()), (site.file(), site.line() + 1));

    let lines = vec![
        Line { start: DeviceOff(0), pages: Pages(4), target: linear(&other) },
        Line { start: DeviceOff(4), pages: Pages(3), target: linear(&below) },
    ];
    top.swap(Table::new(lines).unwrap(), Wait::Never).unwrap();
    bytes.write(line, &[1; 8]).unwrap();
    assert_eq!(taken(&log), [], "the table has no such line any more");
}

/// What a holder at the top heard.
#[derive(Default)]
struct Heard(Mutex<Vec<Range<DeviceOff>>>);

impl Holder for Heard {
    fn removing(&self) {}

    fn failed(&self, pages: Range<DeviceOff>) {
        self.0.lock().push(pages);
    }

    fn suspended(&self, change: &mut dyn FnMut()) {
        change();
    }
}

/// F-46, B-37: a range goes up through stripes whole, to the last page.
#[test]
fn a_range_that_failed_goes_up_through_stripes_as_ranges() {
    let devices = [device(8), device(8)];
    let striped: Arc<dyn DaxDevice> = Arc::new(mapped(vec![(16, stripes(2, &devices))]));
    let upper = Target::Linear(Linear::new(striped, DeviceOff(3)));
    let top = mapped(vec![(1, Target::Error), (13, upper)]);
    let heard = Arc::new(Heard::default());
    let weak: Weak<Heard> = Arc::downgrade(&heard);
    let _hold = top.hold(weak).unwrap();

    let live = devices[1].pgmaps()[0].try_get_live().unwrap();
    live.memory_failure(PgmapOff(0)..PgmapOff(5));

    // Pages 0..5 of the second device are 2, 3, 6, 7, 10 of the stripes, which start at 3 here.
    let expected = [1..2, 4..6, 8..9].map(|range| DeviceOff(range.start)..DeviceOff(range.end));
    assert_eq!(*heard.0.lock(), expected);
}

/// Whoever makes the line in code gets the answer of whoever writes it.
#[test]
fn a_delay_that_looks_like_a_hang_is_refused_in_code_too() {
    let delay = Delay::new(device(8), DeviceOff(0), Delay::MOST + Duration::from_millis(1));
    let line = Line { start: DeviceOff(0), pages: Pages(8), target: Target::Delay(delay) };
    let error = Table::new(vec![line]).unwrap_err();
    assert!(matches!(error.problem, Problem::TooLate { .. }), "{error}");
}
