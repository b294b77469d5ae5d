//! Tables: which are refused and why, and how access, fences and removal pass through them.

mod common;

use common::{Seen, Witness, device};
use std::ops::Range;
use std::panic::Location;
use udax_dev::{
    AccessError, DaxDevice, Holder, Linear, Mapped, PgmapDevice, Table, TableError, Target,
};
use udax_mm::media::Persistence;
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::sync::{Arc, Mutex, Weak};
use udax_mm::{DeviceOff, Pages, PgmapOff, Wait};

/// A line: (start, pages, device, from).
type Line<'a> = (u64, u64, &'a Arc<dyn DaxDevice>, u64);

fn table(lines: &[Line<'_>]) -> Result<Mapped, TableError> {
    let line = |&(start, pages, device, from): &Line<'_>| udax_dev::Line {
        start: DeviceOff(start),
        pages: Pages(pages),
        target: Target::Linear(Linear::new(Arc::clone(device), DeviceOff(from))),
    };
    Mapped::new(Table::new(lines.iter().map(line).collect())?)
}

#[track_caller]
fn check_refused(lines: &[Line<'_>], message: &str) {
    assert_eq!(table(lines).expect_err("the table is bad").to_string(), message);
}

#[test]
fn a_wrong_table_is_refused_with_the_line_and_the_pages() {
    let (a, b) = (device(8), device(8));

    check_refused(
        &[],
        "line 1 of the table: a table needs at least one line: `START LENGTH TARGET ARGUMENT...`",
    );
    check_refused(
        &[(0, 8, &a, 0), (8, 0, &b, 0)],
        "line 2 of the table: the line has length 0; leave it out, or give it 8 sectors (4 KiB) at \
         least",
    );
    check_refused(
        &[(0, 4, &a, 0), (6, 2, &b, 0)],
        "line 2 of the table: sectors 32..48 are in no line; start this one at 32",
    );
    check_refused(
        &[(2, 4, &a, 0)],
        "line 1 of the table: sectors 0..16 are in no line; start this one at 0",
    );
    check_refused(
        &[(0, 8, &a, 0), (5, 3, &b, 0)],
        "line 2 of the table: sectors 40..64 are in the line before already; start this one at 64",
    );
    check_refused(
        &[(0, 8, &a, 0), (8, 4, &b, 5)],
        "line 2 of the table: the line takes sectors 40..72 of a device that has 64; from there on it has 24",
    );
    check_refused(
        &[(0, 2, &a, 8)],
        "line 1 of the table: the line takes sectors 64..80 of a device that has 64; it ends before \
         that, so take it from an earlier sector on",
    );
    check_refused(
        &[(0, 4, &a, 0), (4, 8, &b, 0), (12, 4, &a, 2)],
        "line 3 of the table: line 1 takes sectors 16..32 of this device already; take others",
    );
}

#[test]
fn a_refused_table_holds_no_device() {
    let (a, b) = (device(8), device(8));
    let taken = table(&[(0, 8, &b, 0)]).unwrap();

    let error = table(&[(0, 8, &a, 0), (8, 8, &b, 0)]).unwrap_err();

    assert_eq!(
        error.to_string(),
        "line 2 of the table: the device cannot be used: the device is in use by another filesystem or \
         table; close that first"
    );
    table(&[(0, 8, &a, 0)]).expect("the first device was let go");
    drop(taken);
    table(&[(0, 8, &b, 0)]).expect("a dropped table lets its devices go");
}

#[test]
fn access_is_clipped_at_the_end_of_a_line() {
    let (a, b) = (device(8), device(8));
    let linear = table(&[(0, 3, &a, 5), (3, 4, &b, 1), (7, 2, &a, 0)]).unwrap();
    assert_eq!(linear.size(), Pages(9));

    let cases = [
        ((0, 9), (&a, 5, 3)),
        ((2, 9), (&a, 7, 1)),
        ((3, 2), (&b, 1, 2)),
        ((6, 9), (&b, 4, 1)),
        ((7, 9), (&a, 0, 2)),
    ];
    for ((at, max), (below, first, pages)) in cases {
        let span = linear.direct_access(DeviceOff(at), Pages(max)).unwrap();
        let found = (span.pgmap().pgmap() == &below.pgmaps()[0], span.at(), span.pages());
        assert_eq!(found, (true, PgmapOff(first), Pages(pages)), "I-62: {at}+{max}");
    }
    let error = linear.direct_access(DeviceOff(9), Pages(1)).unwrap_err();
    assert_eq!(error, AccessError::OutOfRange { at: DeviceOff(9), size: Pages(9) });
}

#[test]
fn a_page_below_is_found_on_the_joined_device() {
    let (a, b) = (device(8), device(8));
    let linear = table(&[(0, 3, &a, 5), (3, 4, &b, 1), (7, 2, &a, 0)]).unwrap();
    let (below_a, below_b) = (&a.pgmaps()[0], &b.pgmaps()[0]);

    let cases = [
        (below_a, 5, Some(0)),
        (below_a, 7, Some(2)),
        (below_a, 1, Some(8)),
        (below_a, 2, None),
        (below_b, 4, Some(6)),
        (below_b, 0, None),
        (below_b, 9, None),
    ];
    for (pgmap, at, expected) in cases {
        let found = linear.device_off(pgmap, PgmapOff(at));
        assert_eq!(found, expected.map(DeviceOff), "page {at}");
    }
    assert_eq!(linear.pgmaps().len(), 2, "each pgmap once");
}

#[test]
fn a_page_below_is_found_through_two_tables() {
    let (a, b) = (device(4), device(4));
    let inner: Arc<dyn DaxDevice> = Arc::new(table(&[(0, 2, &a, 2)]).unwrap());
    let outer = table(&[(0, 4, &b, 0), (4, 2, &inner, 0)]).unwrap();

    let span = outer.direct_access(DeviceOff(5), Pages(9)).unwrap();

    assert_eq!((span.at(), span.pages()), (PgmapOff(3), Pages(1)));
    assert_eq!(outer.device_off(&a.pgmaps()[0], PgmapOff(3)), Some(DeviceOff(5)));
}

#[test]
fn a_fence_reaches_every_page_map_once() {
    let (a, b) = (Witness::new(4), Witness::new(4));
    let (below_a, below_b) = (a.device(), b.device());
    let linear = table(&[(0, 2, &below_a, 0), (2, 4, &below_b, 0), (6, 2, &below_a, 2)]).unwrap();
    let bytes = udax_dev::DaxBytes::new(Arc::new(linear));
    for page in 0..8 {
        bytes.write(page * 4096, &[1]).unwrap();
        bytes.flush(page * 4096, 1).unwrap();
    }
    drop((a.take(), b.take()));

    let site = Location::caller();
    bytes.device().fence(site).unwrap();

    assert_eq!(a.take(), [Seen::Fence(site)]);
    assert_eq!(b.take(), [Seen::Fence(site)]);
}

#[test]
fn the_facts_are_the_weakest_below() {
    let strong = Witness::with_facts(4, |facts| {
        facts.persistence = Persistence::CacheLines;
        facts.host_page = 2 << 20;
        facts.is_registrable = true;
        facts.is_writable = true;
    });
    let weak = Witness::with_facts(4, |facts| {
        facts.persistence = Persistence::Process;
        facts.host_page = 4096;
        facts.is_registrable = false;
        facts.is_writable = false;
    });

    let expected = weak.device().facts();

    for devices in [[&strong, &weak], [&weak, &strong]] {
        let linear = Mapped::concat(devices.map(Witness::device).to_vec()).unwrap();

        assert_eq!(linear.facts(), expected);
    }
}

#[derive(Default)]
struct Told(AtomicU64, Mutex<Vec<(u64, u64)>>);

impl Holder for Told {
    fn removing(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, pages: Range<DeviceOff>) {
        self.1.lock().push((pages.start.0, pages.end.0));
    }

    fn suspended(&self, change: &mut dyn FnMut()) {
        change();
    }
}

#[test]
fn killing_the_whole_kills_every_device_and_tells_the_holder_once() {
    let (a, b) = (device(4), device(4));
    let linear = Mapped::concat(vec![Arc::clone(&a), Arc::clone(&b)]).unwrap();
    let told = Arc::new(Told::default());
    let weak: Weak<Told> = Arc::downgrade(&told);
    let _hold = linear.hold(weak).unwrap();
    let span = linear.direct_access(DeviceOff(0), Pages(1)).unwrap();

    assert!(linear.kill(Wait::Never).is_err(), "a span is out");
    assert_eq!(b.direct_access(DeviceOff(0), Pages(1)).unwrap_err(), AccessError::Dead);

    drop(span);
    linear.kill(Wait::Never).unwrap();
    assert_eq!(told.0.load(Ordering::Relaxed), 1, "I-61");
}

#[test]
fn removal_of_one_device_is_told_upwards_and_ends_access_to_the_whole() {
    let (a, b) = (device(4), device(4));
    let linear = Mapped::concat(vec![Arc::clone(&a), b]).unwrap();
    let told = Arc::new(Told::default());
    let weak: Weak<Told> = Arc::downgrade(&told);
    let _hold = linear.hold(weak).unwrap();

    a.kill(Wait::Never).unwrap();

    assert_eq!(told.0.load(Ordering::Relaxed), 1);
    assert_eq!(
        linear.direct_access(DeviceOff(4), Pages(1)).unwrap_err(),
        AccessError::Dead,
        "I-66: the other device still lives, the whole does not"
    );
}

#[test]
fn a_busy_kill_names_what_is_in_use_on_every_device() {
    let (a, b) = (device(4), device(4));
    let linear = Mapped::concat(vec![a, b]).unwrap();
    let fold = |at| linear.direct_access(DeviceOff(at), Pages(1)).unwrap();
    let claims =
        [1, 6].map(|at| fold(at).pgmap().claim(fold(at).range()).expect("the page is idle"));

    let busy = linear.kill(Wait::Never).unwrap_err();

    let page = |at| PgmapOff(at)..PgmapOff(at + 1);
    assert_eq!(busy.pages, [page(1), page(2)]);
    drop(claims);
    linear.kill(Wait::Never).unwrap();
}

/// A page map of two media, 4 + 4 pages, of which a table takes pages 2 to 6 and 7 to 8, the latter
/// first, behind another device of 3 pages.
#[test]
fn a_failure_below_is_told_in_pages_of_the_whole_and_clipped_to_each_line() {
    let pgmap = common::pgmap(&[4, 4]);
    let below: Arc<dyn DaxDevice> = Arc::new(PgmapDevice::new(pgmap.clone()));
    let joined = table(&[(0, 3, &device(3), 0), (3, 1, &below, 7), (4, 4, &below, 2)]).unwrap();
    let joined: Arc<dyn DaxDevice> = Arc::new(joined);
    let whole = table(&[(0, 5, &device(5), 0), (5, 8, &joined, 0)]).unwrap();
    let told = Arc::new(Told::default());
    let weak: Weak<Told> = Arc::downgrade(&told);
    let _hold = whole.hold(weak).unwrap();
    let live = pgmap.try_get_live().unwrap();
    let fail = |pages: Range<u64>| {
        live.memory_failure(PgmapOff(pages.start)..PgmapOff(pages.end));
        std::mem::take(&mut *told.1.lock())
    };

    assert_eq!(fail(0..2), [], "in no line");
    assert_eq!(fail(1..4), [(9, 11)], "F-46: only what is in the line");
    assert_eq!(fail(4..5), [(11, 12)], "B-35: the second medium");
    assert_eq!(fail(5..8), [(8, 9), (12, 13)], "two lines, each with its own pages");
    for at in [8, 9, 12] {
        let span = whole.direct_access(DeviceOff(at), Pages(1)).unwrap();
        assert!(span.pgmap().first_poisoned(span.range()).is_some(), "page {at} is the failed one");
    }
}
