//! What a device gives out, whom it tells of its removal, and when it is gone.

mod common;

use common::{device, pgmap};
use std::ops::Range;
use std::thread;
use udax_dev::{AccessError, DaxDevice, Holder, HolderError, PgmapDevice};
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::sync::{Arc, Mutex, Weak, mpsc};
use udax_mm::{DeviceOff, Pages, PgmapOff, Wait};

/// Counts notices, and what the device answered while it gave one.
#[derive(Default)]
struct Told {
    device: Mutex<Option<Arc<dyn DaxDevice>>>,
    notices: AtomicU64,
    saw: Mutex<Option<AccessError>>,
    failed: Mutex<Vec<Range<DeviceOff>>>,
}

impl Holder for Told {
    fn removing(&self) {
        self.notices.fetch_add(1, Ordering::Relaxed);
        if let Some(device) = &*self.device.lock() {
            *self.saw.lock() = device.direct_access(DeviceOff(0), Pages(1)).err();
        }
    }

    fn failed(&self, pages: Range<DeviceOff>) {
        self.failed.lock().push(pages);
    }

    fn suspended(&self, change: &mut dyn FnMut()) {
        change();
        unreachable!("a page map has no table");
    }
}

fn holder() -> (Arc<Told>, Weak<dyn Holder>) {
    let told = Arc::new(Told::default());
    let weak: Weak<Told> = Arc::downgrade(&told);
    (told, weak)
}

#[test]
fn a_span_is_clipped_to_what_is_asked_and_to_the_medium() {
    let device = PgmapDevice::new(pgmap(&[4, 8]));
    let cases = [((0, 2), (0, 2)), ((1, 9), (1, 3)), ((3, 1), (3, 1)), ((4, 99), (4, 8))];

    for ((at, max), (first, pages)) in cases {
        let span = device.direct_access(DeviceOff(at), Pages(max)).unwrap();
        assert_eq!((span.at(), span.pages()), (PgmapOff(first), Pages(pages)), "I-62: {at}+{max}");
    }
}

#[test]
fn a_page_behind_the_last_is_out_of_range() {
    let error = device(4).direct_access(DeviceOff(4), Pages(1)).unwrap_err();

    assert_eq!(error, AccessError::OutOfRange { at: DeviceOff(4), size: Pages(4) });
    assert_eq!(error.to_string(), "page 4 lies outside the device, which has 4 pages");
}

#[test]
fn a_slice_is_the_same_pages() {
    let span = device(8).direct_access(DeviceOff(2), Pages(6)).unwrap();

    let part = span.slice(Pages(3), Pages(2));

    assert_eq!(part.range(), PgmapOff(5)..PgmapOff(7));
}

#[test]
fn a_span_keeps_the_device_from_dying() {
    let device = device(4);
    let span = device.direct_access(DeviceOff(0), Pages(1)).unwrap();

    assert!(device.kill(Wait::Never).is_err(), "I-60: an address of the device is in use");

    drop(span);
    device.kill(Wait::Never).unwrap();
}

#[test]
fn a_removed_device_gives_no_access() {
    let device = device(4);
    device.kill(Wait::Never).unwrap();

    let error = device.direct_access(DeviceOff(0), Pages(1)).unwrap_err();

    assert_eq!(error, AccessError::Dead, "I-59");
    assert_eq!(device.size(), Pages(4));
}

#[test]
fn the_holder_is_told_once_however_often_the_device_is_killed() {
    let device = device(4);
    let (told, weak) = holder();
    let _hold = device.hold(weak).unwrap();
    let span = device.direct_access(DeviceOff(0), Pages(1)).unwrap();

    assert!(device.kill(Wait::Never).is_err());
    drop(span);
    device.kill(Wait::Never).unwrap();

    assert_eq!(told.notices.load(Ordering::Relaxed), 1, "I-61");
}

#[test]
fn access_is_refused_before_the_holder_is_told() {
    let device = device(4);
    let (told, weak) = holder();
    *told.device.lock() = Some(Arc::clone(&device));
    let _hold = device.hold(weak).unwrap();

    device.kill(Wait::Never).unwrap();

    assert_eq!(*told.saw.lock(), Some(AccessError::Dead));
}

#[test]
fn a_second_holder_is_refused_until_the_first_lets_go() {
    let device = device(4);
    let (_first, weak) = holder();
    let hold = device.hold(weak).unwrap();
    let (second, weak) = holder();

    assert_eq!(device.hold(weak.clone()).unwrap_err(), HolderError::Held, "I-61");

    drop(hold);
    let _hold = device.hold(weak).unwrap();
    device.kill(Wait::Never).unwrap();
    assert_eq!(second.notices.load(Ordering::Relaxed), 1);
}

#[test]
fn a_holder_that_let_go_is_not_told() {
    let device = device(4);
    let (told, weak) = holder();
    drop(device.hold(weak).unwrap());

    device.kill(Wait::Never).unwrap();

    assert_eq!(told.notices.load(Ordering::Relaxed), 0);
}

#[test]
fn a_holder_that_is_gone_is_not_told() {
    let device = device(4);
    let (told, weak) = holder();
    let hold = device.hold(weak).unwrap();

    drop(told);
    device.kill(Wait::Never).unwrap();
    drop(hold);
}

#[test]
fn a_removed_device_takes_no_holder() {
    let device = device(4);
    device.kill(Wait::Never).unwrap();

    assert_eq!(device.hold(holder().1).unwrap_err(), HolderError::Removed);
}

/// Waits in its notice until it is let go on.
struct Slow {
    entered: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
    is_done: AtomicU64,
}

impl Holder for Slow {
    fn removing(&self) {
        self.entered.send(()).expect("the test waits");
        self.go_on.lock().recv().expect("the test lets it go on");
        self.is_done.store(1, Ordering::Release);
    }

    fn failed(&self, pages: Range<DeviceOff>) {
        unreachable!("no memory failed, not even {pages:?}");
    }

    fn suspended(&self, change: &mut dyn FnMut()) {
        change();
        unreachable!("a page map has no table");
    }
}

#[test]
fn a_second_kill_waits_for_the_notice_of_the_first() {
    let (entered, was_entered) = mpsc::channel();
    let (let_go, go_on) = mpsc::channel();
    let slow = Arc::new(Slow { entered, go_on: Mutex::new(go_on), is_done: AtomicU64::new(0) });
    let device = device(4);
    let weak: Weak<Slow> = Arc::downgrade(&slow);
    let _hold = device.hold(weak).unwrap();

    thread::scope(|scope| {
        let first = scope.spawn(|| device.kill(Wait::Forever));
        was_entered.recv().unwrap();
        let second = scope.spawn(|| {
            device.kill(Wait::Forever).unwrap();
            assert_eq!(slow.is_done.load(Ordering::Acquire), 1, "killed before the holder knew");
        });
        let_go.send(()).unwrap();
        first.join().unwrap().unwrap();
        second.join().unwrap();
    });
}

#[test]
fn a_failure_in_the_second_medium_is_told_in_pages_of_the_device() {
    let pgmap = pgmap(&[4, 8]);
    let device = PgmapDevice::new(pgmap.clone());
    let (told, weak) = holder();
    let _hold = device.hold(weak).unwrap();

    pgmap.try_get_live().unwrap().memory_failure(PgmapOff(3)..PgmapOff(6));

    assert_eq!(*told.failed.lock(), [DeviceOff(3)..DeviceOff(6)], "B-35");
    let span = device.direct_access(DeviceOff(4), Pages(1)).unwrap();
    assert_eq!(span.pgmap().first_poisoned(span.range()), Some(PgmapOff(4)));
}

#[test]
fn a_holder_that_let_go_does_not_hear_of_failures() {
    let pgmap = pgmap(&[4]);
    let device = PgmapDevice::new(pgmap.clone());
    let (told, weak) = holder();
    drop(device.hold(weak).unwrap());

    pgmap.try_get_live().unwrap().memory_failure(PgmapOff(0)..PgmapOff(1));

    assert_eq!(*told.failed.lock(), []);
    let (later, weak) = holder();
    let _hold = device.hold(weak).unwrap();
    pgmap.try_get_live().unwrap().memory_failure(PgmapOff(2)..PgmapOff(3));
    assert_eq!(*later.failed.lock(), [DeviceOff(2)..DeviceOff(3)]);
}
