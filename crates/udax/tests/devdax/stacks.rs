//! Devices on tables: one alignment all the way down, or none.

use crate::{GIB, MIB, bytes_of, error, fail, map, raw};
use udax::dev::{
    AccessError, DaxDevice, Field, Hold, Holder, HolderError, IoError, Line, Linear, Mapped,
    Member, Mode, Region, Route, Striped, SwapError, Table, Target,
};
use udax::{DevDax, DevDaxError, ErrorKind, Order, PinOptions, Wait};
use udax_mm::media::{FileMedia, Site};
use udax_mm::sync::{Arc, Weak};
use udax_mm::{DeviceOff, MediaFacts, MemoryType, Pages, Pgmap, PgmapOff, StillBusy};

const GENERIC: MemoryType = MemoryType::Generic(Order::Pmd);

/// Lines of one device each: (pages, device, from); no device is a given target.
fn table(lines: Vec<(u64, Target)>) -> Table {
    let mut start = DeviceOff(0);
    let line = |(pages, target)| {
        let line = Line { start, pages: Pages(pages), target };
        start = start + Pages(pages);
        line
    };
    Table::new(lines.into_iter().map(line).collect()).unwrap()
}

fn linear(device: &Arc<dyn DaxDevice>, from: u64) -> Target {
    Target::Linear(Linear::new(Arc::clone(device), DeviceOff(from)))
}

fn on(table: Table) -> Result<DevDax, udax::Error> {
    DevDax::on_device("stack", Arc::new(Mapped::new(table).unwrap()))
}

#[test]
fn a_stack_of_one_alignment_is_a_device() {
    let (one, other) = (raw(GENERIC, 1024), raw(GENERIC, 1024));
    let device = on(table(vec![(512, linear(&one, 512)), (1024, linear(&other, 0))])).unwrap();
    assert_eq!((device.alignment(), device.size()), (Order::Pmd, 6 * MIB));

    let map = map(&device, 0..6 * MIB);
    for folio in 0..3 {
        map.store(folio * 2 * MIB + 8, folio + 1).unwrap();
    }
    assert_eq!(device.stats().faults(Order::Base), 0, "I-68");
    let pin = device.pin(2 * MIB - 8..2 * MIB + 8, &PinOptions::new("nic")).unwrap();
    assert_eq!(device.pins()[0].range(), 0..4 * MIB, "it holds a folio of each");
    drop(pin);
    assert_eq!(device.verify(), Ok(()));

    // B-35, I-64: told in bytes of the whole.
    fail(&device, 4 * MIB + 4096);
    assert_eq!(device.bad_ranges().unwrap()[0].start, 4 * MIB + 4096);
    map.load(4 * MIB + 8).unwrap_err();
    assert_eq!(map.load(2 * MIB + 8).unwrap(), 2);
    assert_eq!(device.verify(), Ok(()));

    one.kill(Wait::Never).unwrap();
    map.load(2 * MIB + 8).expect_err("I-66: the whole is gone with a part");
}

#[test]
fn what_is_no_device_of_one_alignment_is_refused_with_the_reason() {
    let generic = || raw(GENERIC, 1024);
    let refused = |table| error(on(table));

    let any = refused(table(vec![(1024, linear(&raw(MemoryType::FsDax, 1024), 0))]));
    assert_eq!(any.as_devdax_error(), Some(&DevDaxError::AnyOrder));
    let small = raw(MemoryType::Generic(Order::Base), 1024);
    let mixed = refused(table(vec![(512, linear(&generic(), 0)), (512, linear(&small, 0))]));
    let sizes = DevDaxError::Mixed { one: Order::Base, other: Order::Pmd };
    assert_eq!(mixed.as_devdax_error(), Some(&sizes));

    let none = refused(table(vec![(512, linear(&generic(), 0)), (512, Target::Zero)]));
    assert_eq!(none.kind(), ErrorKind::NoDax);
    assert!(none.to_string().contains("line 2 of the table (zero)"), "{none}");
}

/// A device whose memory the host maps in pages of 2 MiB.
#[derive(Debug)]
struct OfHugePages(Arc<dyn DaxDevice>);

impl DaxDevice for OfHugePages {
    fn size(&self) -> Pages {
        self.0.size()
    }

    fn route(&self, at: DeviceOff, max: Pages) -> Result<Route, AccessError> {
        self.0.route(at, max)
    }

    fn fence(&self, site: Site) -> Result<(), IoError> {
        self.0.fence(site)
    }

    fn facts(&self) -> MediaFacts {
        MediaFacts { host_page: 2 << 20, ..self.0.facts() }
    }

    fn pgmaps(&self) -> Vec<Pgmap> {
        self.0.pgmaps()
    }

    fn device_off(&self, pgmap: &Pgmap, at: PgmapOff) -> Option<DeviceOff> {
        self.0.device_off(pgmap, at)
    }

    fn hold(&self, holder: Weak<dyn Holder>) -> Result<Hold, HolderError> {
        self.0.hold(holder)
    }

    fn kill(&self, wait: Wait) -> Result<(), StillBusy> {
        self.0.kill(wait)
    }
}

/// Also below a table: the host could not map one folio alone.
#[test]
fn folios_smaller_than_a_page_of_the_host_are_refused() {
    let huge = |kind| -> Arc<dyn DaxDevice> { Arc::new(OfHugePages(raw(kind, 1024))) };
    let base = error(on(table(vec![(1024, linear(&huge(MemoryType::Generic(Order::Base)), 0))])));
    let expected = DevDaxError::HostPage { host_page: 2 << 20, alignment: Order::Base };
    assert_eq!(base.as_devdax_error(), Some(&expected));
    on(table(vec![(1024, linear(&huge(GENERIC), 0))])).unwrap();
}

/// I-68: also when a table is loaded below a device that is mapped.
#[test]
fn a_line_that_divides_a_folio_is_refused() {
    let device = raw(GENERIC, 2048);
    let refused = |start, pages, from| {
        let mut lines =
            vec![Line { start: DeviceOff(0), pages: Pages(start), target: Target::Error }];
        lines.retain(|line| !line.pages.is_empty());
        lines.push(Line {
            start: DeviceOff(start),
            pages: Pages(pages),
            target: linear(&device, from),
        });
        let error = Table::new(lines).unwrap_err();
        (error.line, error.field, error.problem.to_string())
    };
    let what = |sectors, better| {
        format!(
            "{sectors} sectors are no multiple of 4096, the folio of the device, which has none \
             smaller; {better} would be"
        )
    };
    let first = refused(0, 700, 0);
    assert_eq!(first, (1, Field::Length, what(5600, "4096 or 8192")));
    assert_eq!(refused(0, 512, 256), (1, Field::Argument(2), what(2048, "4096")));
    assert_eq!(refused(100, 512, 0), (1, Field::Length, what(800, "4096")), "what fails, too");

    let member = |from| Member { device: Arc::clone(&device), from: DeviceOff(from) };
    let target = Target::Striped(Striped::new(Pages(256), vec![member(0), member(1024)]));
    let line = Line { start: DeviceOff(0), pages: Pages(1024), target };
    let error = Table::new(vec![line]).unwrap_err();
    assert_eq!(error.field, Field::Argument(2), "a chunk does it as well: {error}");
}

/// I-68: what a table may have is what its first one had, whatever it follows at the moment.
#[test]
fn a_table_that_fails_for_a_while_has_the_folios_that_it_had() {
    let generic = raw(GENERIC, 1024);
    let lower = Arc::new(Mapped::new(table(vec![(1024, linear(&generic, 0))])).unwrap());
    lower.swap(table(vec![(1024, Target::Error)]), Wait::Never).unwrap();
    let below: Arc<dyn DaxDevice> = lower;
    let line = Line { start: DeviceOff(0), pages: Pages(512), target: linear(&below, 1) };
    let divides = Table::new(vec![line]).unwrap_err();
    assert_eq!(divides.field, Field::Argument(2), "{divides}");

    let small = raw(MemoryType::Generic(Order::Base), 512);
    let both = table(vec![(512, linear(&raw(GENERIC, 512), 0)), (512, linear(&small, 0))]);
    let mixed = Arc::new(Mapped::new(both).unwrap());
    mixed.swap(table(vec![(1024, Target::Error)]), Wait::Never).unwrap();
    let refused = error(DevDax::on_device("mixed", mixed));
    assert!(matches!(refused.as_devdax_error(), Some(DevDaxError::Mixed { .. })), "{refused}");

    // One that had no memory gets none that could be divided.
    let none = Mapped::new(table(vec![(512, Target::Error)])).unwrap();
    let refused = none.swap(table(vec![(512, linear(&raw(GENERIC, 512), 0))]), Wait::Never);
    assert!(matches!(refused.unwrap_err(), SwapError::Folios));
}

/// A table that changes moves what is touched next, and leaves what is pinned.
#[test]
fn a_device_follows_its_table_and_pins_stay_where_they_are() {
    let (one, other) = (raw(GENERIC, 512), raw(GENERIC, 512));
    let mapped = Arc::new(Mapped::new(table(vec![(512, linear(&one, 0))])).unwrap());
    let below: Arc<dyn DaxDevice> = mapped.clone();
    let device = DevDax::on_device("stack", below).unwrap();
    let map = map(&device, 0..2 * MIB);
    map.store(0, 1).unwrap();
    let pin = device.pin(0..8, &PinOptions::new("nic")).unwrap();

    let swapped = mapped.swap(table(vec![(512, linear(&other, 0))]), Wait::Forever).unwrap();

    assert_eq!(swapped.left.len(), 1, "the pin lives in the old one");
    assert_eq!(map.load(0).unwrap(), 0, "what is touched is in the new one");
    let mut bytes = [0; 8];
    pin.read(&mut bytes, 0).unwrap();
    assert_eq!(bytes[0], 1);
    device.flush(0..8).unwrap();
    drop(pin);
    assert_eq!(device.verify(), Ok(()));
}

/// Two devices of one region under one table: the folios of each are in its own parts.
#[test]
fn devices_of_a_region_make_one_device() {
    let region = Region::new(Arc::new(FileMedia::memfd("region", GIB).unwrap()));
    let (first, gap) = ("first", "gap");
    let one = region.create(first, Pages(512), Order::Pmd).unwrap();
    let gap = region.create(gap, Pages(512), Order::Pmd).unwrap();
    one.resize(Pages(3 * 512)).unwrap();
    gap.remove().unwrap();
    assert_eq!(one.ranges().unwrap().len(), 2);

    let below: Arc<dyn DaxDevice> = one.bind(Mode::DevDax).unwrap();
    let device = DevDax::on_device(first, below).unwrap();
    let map = map(&device, 0..3 * bytes_of(Order::Pmd));
    map.write(&[7; 8], 2 * MIB - 4).unwrap();
    let mut bytes = [0; 8];
    device.read_at(&mut bytes, 2 * MIB - 4).unwrap();
    assert_eq!(bytes, [7; 8], "across the parts");
    assert_eq!(device.stats().faults(Order::Base), 0, "I-68");
    assert_eq!(device.verify(), Ok(()));
}
