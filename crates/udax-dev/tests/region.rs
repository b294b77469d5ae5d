//! Devices carved from one medium: their parts, their bindings, and what stays of a binding.

mod common;

use common::{Witness, memory};
use udax_dev::{AccessError, DaxBytes, DaxDevice, Mode, Region, RegionDevice, RegionError};
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::sync::{Arc, Weak};
use udax_mm::{
    DeviceOff, MediaRange, MemoryFailure, MemoryType, Order, Pages, Pgmap, PgmapError, PgmapOff,
    RequestError, Wait,
};

const HUGE: u64 = 512;

fn region(pages: u64) -> Region {
    Region::new(memory(pages))
}

fn live(pgmap: &Pgmap) -> udax_mm::PgmapRef {
    pgmap.try_get_live().expect("the device lives")
}

/// The first pages and lengths of the parts of a device.
fn parts(device: &RegionDevice) -> Vec<(u64, u64)> {
    let ranges = device.ranges().expect("the device exists");
    ranges.iter().map(|range| (range.start / 4096, range.pages.0)).collect()
}

#[test]
fn a_device_in_several_parts_is_one_device() {
    let region = region(16);
    let one = region.create("one", Pages(4), Order::Base).unwrap();
    let other = region.create("other", Pages(4), Order::Base).unwrap();
    one.resize(Pages(8)).unwrap();
    assert_eq!(parts(&one), [(0, 4), (8, 4)]);

    let device: Arc<dyn DaxDevice> = one.bind(Mode::FsDax).unwrap();
    assert_eq!(device.size(), Pages(8));
    let span = device.direct_access(DeviceOff(2), Pages(9)).unwrap();
    assert_eq!(span.pages(), Pages(2), "I-62: a span ends with its part");
    DaxBytes::new(device.clone()).write(3 * 4096, &[7; 8192]).unwrap();

    let mut bytes = [0; 8];
    region_media(&other).read(8 * 4096, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 8], "page 4 of the device is page 8 of the medium");
}

fn region_media(device: &RegionDevice) -> Arc<dyn udax_mm::Media> {
    device.ranges().expect("the device exists").remove(0).media
}

#[test]
fn devices_grow_into_what_is_free_and_give_their_end_back() {
    let region = region(16);
    let one = region.create("one", Pages(4), Order::Base).unwrap();
    let other = region.create("other", Pages(8), Order::Base).unwrap();
    assert_eq!((parts(&other), region.free(Order::Base)), (vec![(4, 8)], Pages(4)));

    let refused = one.resize(Pages(9)).unwrap_err();
    let expected = matches!(refused, RegionError::NoSpace { wanted: Pages(5), free: Pages(4) });
    assert!(expected, "{refused:?}");
    other.resize(Pages(6)).unwrap();
    one.resize(Pages(9)).unwrap();

    assert_eq!(parts(&one), [(0, 4), (10, 5)]);
    one.resize(Pages(3)).unwrap();
    assert_eq!((parts(&one), region.free(Order::Base)), (vec![(0, 3)], Pages(7)));
}

#[test]
fn parts_are_aligned_as_the_device_is() {
    let region = region(4 * HUGE);
    let small = region.create("small", Pages(1), Order::Base).unwrap();
    let huge = region.create("huge", Pages(2 * HUGE), Order::Pmd).unwrap();
    assert_eq!(parts(&huge), [(HUGE, 2 * HUGE)]);
    assert_eq!(region.free(Order::Pmd), Pages(HUGE));

    for refused in [huge.resize(Pages(3)), huge.resize(Pages(HUGE + 1))] {
        let expected = matches!(refused, Err(RegionError::Misaligned { align: Order::Pmd, .. }));
        assert!(expected, "{refused:?}");
    }
    let message = huge.resize(Pages(3)).unwrap_err().to_string();
    assert!(message.contains("512 pages, the alignment"), "{message}");
    drop(small);
    assert_eq!(region.devices().len(), 2, "a handle that goes removes nothing");
}

#[test]
fn a_device_is_not_carved_wrongly() {
    let region = region(16);
    let device = region.create("one", Pages(4), Order::Base).unwrap();
    let taken = region.create("one", Pages(4), Order::Base).unwrap_err();
    assert!(matches!(taken, RegionError::NameTaken(_)), "{taken:?}");
    for empty in [region.create("none", Pages(0), Order::Base).map(drop), device.resize(Pages(0))] {
        assert!(matches!(empty, Err(RegionError::Empty)), "{empty:?}");
    }
    assert_eq!(region.devices().len(), 1, "nothing was created");

    let huge_pages = Witness::with_facts(1024, |facts| facts.host_page = 2 << 20);
    let refused = Region::new(huge_pages).create("one", Pages(4), Order::Base).unwrap_err();
    assert!(matches!(refused, RegionError::HostPage { align: Order::Base, .. }), "{refused:?}");
}

/// F-52: what is bound is not resized, removed or bound again, by any name of it.
#[test]
fn what_is_bound_is_left_alone() {
    let region = region(16);
    let device = region.create("one", Pages(4), Order::Base).unwrap();
    let dax = device.bind(Mode::DevDax).unwrap();

    let refused = [
        device.resize(Pages(8)),
        device.resize(Pages(1)),
        device.remove(),
        device.bind(Mode::DevDax).map(drop),
        region.devices()[0].bind(Mode::FsDax).map(drop),
    ];
    for refused in refused {
        let is_bound = matches!(refused, Err(RegionError::Bound { mode: Mode::DevDax, .. }));
        assert!(is_bound, "F-52: {refused:?}");
    }
    assert_eq!(device.mode().unwrap(), Some(Mode::DevDax));
    assert_eq!(dax.direct_access(DeviceOff(0), Pages(9)).unwrap().pages(), Pages(4));

    device.unbind(Wait::Never).unwrap();
    device.unbind(Wait::Never).unwrap();
    device.resize(Pages(8)).unwrap();
    device.remove().unwrap();
}

/// F-52, B-36: a bind that fails leaves the device bindable.
#[test]
fn a_bind_that_fails_can_be_tried_again() {
    let media = memory(16);
    let region = Region::new(Arc::clone(&media));
    let device = region.create("one", Pages(4), Order::Base).unwrap();
    let range = MediaRange { media, start: 3 * 4096, pages: Pages(1) };
    let stranger = Pgmap::new(vec![range], MemoryType::FsDax).unwrap();

    let refused = device.bind(Mode::DevDax).unwrap_err();
    assert!(matches!(refused, RegionError::Pgmap(PgmapError::InUse { .. })), "{refused:?}");
    assert_eq!(device.mode().unwrap(), None);
    device.resize(Pages(3)).unwrap();
    device.bind(Mode::DevDax).unwrap();
    device.unbind(Wait::Never).unwrap();
    device.resize(Pages(4)).unwrap();

    let _dead = stranger.kill(Wait::Never).unwrap();
    device.bind(Mode::DevDax).unwrap();
}

/// An unbind that ran out of time has begun: the device is neither bound nor idle.
#[test]
fn an_unbind_waits_for_users_and_goes_on_later() {
    let region = region(16);
    let device = region.create("one", Pages(4), Order::Base).unwrap();
    let dax = device.bind(Mode::DevDax).unwrap();
    let folio = live(&dax.pgmaps()[0]).request_folio(PgmapOff(1), Order::Base).unwrap();

    let refused = [
        device.unbind(Wait::Never),
        device.bind(Mode::FsDax).map(drop),
        device.resize(Pages(8)),
        device.remove(),
    ];
    for refused in refused {
        let Err(RegionError::Busy(busy)) = refused else { panic!("{refused:?}") };
        assert_eq!(busy.pages, vec![PgmapOff(1)..PgmapOff(2)], "it says who is in the way");
    }
    assert_eq!(dax.direct_access(DeviceOff(0), Pages(1)).unwrap_err(), AccessError::Dead);

    drop(folio);
    device.bind(Mode::FsDax).unwrap();
    assert_eq!(dax.direct_access(DeviceOff(0), Pages(1)).unwrap_err(), AccessError::Dead);
}

/// Counts what it hears.
#[derive(Default)]
struct Heard(AtomicU64);

impl MemoryFailure for Heard {
    fn memory_failure(&self, _pages: std::ops::Range<PgmapOff>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// F-51, B-36, I-63: folios of one mode, their order, their claims, their holder and who hears of
/// failures are gone in the next.
#[test]
fn a_mode_switch_leaves_nothing_of_the_mode_before() {
    let region = region(4 * HUGE);
    let device = region.create("one", Pages(4 * HUGE), Order::Pmd).unwrap();
    let heard = Arc::new(Heard::default());
    let mut old: Option<Pgmap> = None;

    for mode in [Mode::DevDax, Mode::FsDax, Mode::DevDax, Mode::FsDax] {
        let dax = device.bind(mode).unwrap();
        let pgmap = dax.pgmaps().remove(0);
        pgmap.verify().expect("a bound device is clean");
        assert!(pgmap.busy().is_empty() && pgmap.pins().is_empty(), "I-63");
        assert!(old.as_ref() != Some(&pgmap), "a binding has a page map of its own");
        let wrong = live(&pgmap).request_folio(PgmapOff(0), Order::Base).err();
        let is_small = matches!(wrong, Some(RequestError::WrongOrder { fixed: Order::Pmd, .. }));
        assert_eq!(is_small, mode == Mode::DevDax, "I-63: the order is that of this mode");

        let pmd = live(&pgmap).request_folio(PgmapOff(HUGE), Order::Pmd).unwrap();
        live(&pgmap).memory_failure(PgmapOff(3 * HUGE)..PgmapOff(3 * HUGE + 1));
        live(&pgmap).clear_poison(PgmapOff(3 * HUGE));
        assert_eq!(heard.0.load(Ordering::Relaxed), 0, "B-36: a listener of the mode before");
        let listener: Weak<Heard> = Arc::downgrade(&heard);
        pgmap.listen_for_failure(listener);
        let told = Arc::new(NoHolder);
        let weak: Weak<NoHolder> = Arc::downgrade(&told);
        let hold = dax.hold(weak).expect("B-36: the holder of the mode before is gone");

        drop(pmd);
        device.unbind(Wait::Never).unwrap();
        pgmap.verify().expect("an unbound device is clean");
        drop(hold);
        old = Some(pgmap);
    }
}

struct NoHolder;

impl udax_dev::Holder for NoHolder {
    fn removing(&self) {}

    fn failed(&self, pages: std::ops::Range<DeviceOff>) {
        unreachable!("no memory of this binding failed, not even {pages:?}");
    }

    fn suspended(&self, change: &mut dyn FnMut()) {
        change();
        unreachable!("a page map has no table");
    }
}

/// B-36, I-65: mark and record go together, through every binding, size and carving.
#[test]
fn what_is_known_of_bad_pages_outlives_the_binding() {
    let region = region(16);
    let one = region.create("one", Pages(4), Order::Base).unwrap();
    let dax = one.bind(Mode::FsDax).unwrap();
    let pgmap = live(&dax.pgmaps()[0]);
    pgmap.poison(PgmapOff(1));
    pgmap.poison(PgmapOff(3));
    drop(pgmap);
    assert_eq!(one.bad_pages().unwrap(), [DeviceOff(1), DeviceOff(3)]);

    // The device was killed by whoever had it, and not by the region.
    dax.kill(Wait::Never).unwrap();
    let dax = one.bind(Mode::DevDax).unwrap();
    let pgmap = live(&dax.pgmaps()[0]);
    assert_eq!(pgmap.first_poisoned(PgmapOff(0)..PgmapOff(4)), Some(PgmapOff(1)));
    pgmap.recover(4096, &[1; 4096]).unwrap();
    drop(pgmap);
    one.unbind(Wait::Never).unwrap();
    assert_eq!(one.bad_pages().unwrap(), [DeviceOff(3)], "what was healed is good");

    one.resize(Pages(2)).unwrap();
    assert_eq!(one.bad_pages().unwrap(), []);
    let other = region.create("other", Pages(8), Order::Base).unwrap();
    assert_eq!(parts(&other), [(2, 8)]);
    assert_eq!(other.bad_pages().unwrap(), [DeviceOff(1)], "the page is as bad under another name");
    let dax = other.bind(Mode::FsDax).unwrap();
    assert!(live(&dax.pgmaps()[0]).claim(PgmapOff(1)..PgmapOff(2)).is_err());
}

/// B-21: a name that was removed stays valid as a name, and is never another device's; a device
/// outlives its region.
#[test]
fn a_removed_device_is_no_other_device() {
    let region = region(16);
    let first = region.create("one", Pages(4), Order::Base).unwrap();
    first.remove().unwrap();
    let second = region.create("one", Pages(4), Order::Base).unwrap();

    let refused = [
        first.resize(Pages(8)),
        first.remove(),
        first.bind(Mode::FsDax).map(drop),
        first.unbind(Wait::Never),
        first.ranges().map(drop),
        first.bad_pages().map(drop),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(RegionError::Removed)), "B-21: {refused:?}");
    }
    let dax = second.bind(Mode::FsDax).unwrap();
    drop((region, first));
    assert_eq!(&*second.name().unwrap(), "one");
    drop(second);
    assert_eq!(dax.direct_access(DeviceOff(0), Pages(9)).unwrap().pages(), Pages(4));
}
