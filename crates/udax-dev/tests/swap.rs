//! A device that follows another table from one moment on.

mod common;

use common::device;
use std::thread;
use std::time::Instant;
use udax_dev::{
    AccessError, DaxBytes, DaxDevice, Holder, HolderError, Line, Linear, Mapped, SwapError, Table,
    TableError, Target,
};
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::sync::{Arc, Weak, mpsc};
use udax_mm::{DeviceOff, Order, Pages, PgmapOff, PinInfo, PinKind, PinOwner, PinTerm, Wait};

/// Lines of one device each: (pages, device, from); no device is the `error` target.
type Row<'a> = (u64, Option<&'a Arc<dyn DaxDevice>>, u64);

fn table(lines: &[Row<'_>]) -> Table {
    let mut start = DeviceOff(0);
    let line = |&(pages, device, from): &Row<'_>| {
        let target = match device {
            Some(device) => Target::Linear(Linear::new(Arc::clone(device), DeviceOff(from))),
            None => Target::Error,
        };
        let line = Line { start, pages: Pages(pages), target };
        start = start + Pages(pages);
        line
    };
    Table::new(lines.iter().map(line).collect()).expect("the table is good")
}

/// A holder that lets pages move, or does not, and counts what it is told.
struct User {
    permits_move: bool,
    moves: AtomicU64,
    removals: AtomicU64,
}

impl User {
    fn new(permits_move: bool) -> Arc<User> {
        let none = || AtomicU64::new(0);
        Arc::new(User { permits_move, moves: none(), removals: none() })
    }

    fn weak(self: &Arc<Self>) -> Weak<dyn Holder> {
        let weak: Weak<User> = Arc::downgrade(self);
        weak
    }
}

impl Holder for User {
    fn removing(&self) {
        self.removals.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, _: std::ops::Range<DeviceOff>) {}

    fn permits_move(&self) -> bool {
        self.permits_move
    }

    fn suspended(&self, change: &mut dyn FnMut()) {
        change();
        self.moves.fetch_add(1, Ordering::Relaxed);
    }
}

/// The first page below page `at`, and whose.
fn place(device: &dyn DaxDevice, at: u64) -> (PgmapOff, udax_mm::Pgmap) {
    let span = device.direct_access(DeviceOff(at), Pages(1)).expect("it lives");
    (span.at(), span.pgmap().pgmap().clone())
}

fn lies_in(device: &dyn DaxDevice, at: u64, below: &Arc<dyn DaxDevice>) -> bool {
    place(device, at).1 == below.pgmaps()[0]
}

#[test]
fn later_accesses_go_by_the_new_table_and_the_old_device_is_let_go() {
    let (a, b) = (device(8), device(8));
    let mapped = Mapped::new(table(&[(8, Some(&a), 0)])).unwrap();

    let swapped = mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap();

    assert!(swapped.is_drained);
    assert!(swapped.left.is_empty());
    assert!(lies_in(&mapped, 0, &b));
    Mapped::new(table(&[(8, Some(&a), 0)])).expect("nobody holds it any more");
    let user = User::new(true);
    assert_eq!(b.hold(user.weak()).unwrap_err(), HolderError::Held);
}

#[test]
fn a_swap_waits_for_what_was_found_through_the_old_table() {
    let (a, b) = (device(8), device(8));
    let mapped = Arc::new(Mapped::new(table(&[(8, Some(&a), 0)])).unwrap());
    let span = mapped.direct_access(DeviceOff(3), Pages(2)).unwrap();
    let part = span.slice(Pages(1), Pages(1));
    drop(span);
    let (swapped, was_swapped) = mpsc::channel();
    let swapper = thread::spawn({
        let (mapped, b) = (Arc::clone(&mapped), Arc::clone(&b));
        move || swapped.send(mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Forever).unwrap())
    });
    while !lies_in(&*mapped, 0, &b) {
        thread::yield_now();
    }

    assert!(was_swapped.try_recv().is_err(), "a part of a span is in use");
    part.pgmap().write(part.at().byte(), b"old").expect("what was begun ends on the old table");
    drop(part);

    assert!(was_swapped.recv().unwrap().is_drained);
    swapper.join().unwrap().unwrap();
    let mut old = [0; 3];
    DaxBytes::new(a).read(4 * 4096, &mut old).unwrap();
    assert_eq!(&old, b"old");
}

#[test]
fn a_swap_that_may_not_wait_says_that_somebody_still_uses_the_old_table() {
    let (a, b) = (device(8), device(8));
    let mapped = Mapped::new(table(&[(8, Some(&a), 0)])).unwrap();
    let span = mapped.direct_access(DeviceOff(3), Pages(2)).unwrap();
    let part = span.slice(Pages(1), Pages(1));
    drop(span);

    let swapped = mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap();

    assert!(!swapped.is_drained);
    let user = User::new(true);
    assert_eq!(a.hold(user.weak()).unwrap_err(), HolderError::Held, "it is used still");
    drop(part);
    let _hold = a.hold(user.weak()).expect("the last user of the old table let it go");
}

#[test]
fn pins_stay_valid_and_the_swap_names_them() {
    let (a, b) = (device(8), device(8));
    let mapped = Mapped::new(table(&[(8, Some(&a), 0)])).unwrap();
    let span = mapped.direct_access(DeviceOff(3), Pages(1)).unwrap();
    let folio = span.pgmap().request_folio(span.at(), Order::Base).unwrap();
    let owner = PinOwner { process: 7, connection: 0, label: "nic".into() };
    let (since, kind) = (Instant::now(), PinKind::Write);
    let pin = folio.pin(PinInfo { owner, since, kind, term: PinTerm::Long });
    drop((span, folio));

    let swapped = mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap();

    assert!(swapped.is_drained, "a pin keeps no table");
    let [left] = &swapped.left[..] else { panic!("one device is left: {swapped:?}") };
    assert!(Arc::ptr_eq(&left.device, &a));
    assert_eq!(left.pins.len(), 1);
    assert_eq!(left.pages, [PgmapOff(3)..PgmapOff(4)]);
    assert!(a.kill(Wait::Never).is_err(), "the page is pinned");
    drop(pin);
    a.kill(Wait::Never).unwrap();
    assert!(lies_in(&mapped, 3, &b), "the new table does not care");
}

#[test]
fn the_holder_takes_back_what_it_shows_and_pages_stay_where_it_says_so() {
    let (a, b) = (device(8), device(8));
    let mapped = Mapped::new(table(&[(8, Some(&a), 0)])).unwrap();
    let filesystem = User::new(false);
    let hold = mapped.hold(filesystem.weak()).unwrap();

    let error = mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap_err();
    assert!(matches!(error, SwapError::InPlace), "{error}");
    let error = mapped.swap(table(&[(4, Some(&a), 4), (4, Some(&a), 0)]), Wait::Never).unwrap_err();
    assert!(matches!(error, SwapError::InPlace), "{error}");
    assert_eq!(place(&mapped, 0).0, PgmapOff(0), "nothing changed");
    Mapped::new(table(&[(8, Some(&b), 0)])).expect("it was let go after the refusal");

    // Pages that stay, or come and go.
    let cut = table(&[(2, Some(&a), 0), (2, None, 0), (4, Some(&a), 4)]);
    mapped.swap(cut, Wait::Never).unwrap();
    let error = mapped.direct_access(DeviceOff(3), Pages(1)).unwrap_err();
    assert_eq!(error.to_string(), "page 3 of the device fails: line 2 of the table (error)");
    mapped.swap(table(&[(8, Some(&a), 0)]), Wait::Never).unwrap();
    assert_eq!(place(&mapped, 3).0, PgmapOff(3));
    assert_eq!(filesystem.moves.load(Ordering::Relaxed), 2);

    drop(hold);
    mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Never).expect("nobody holds it");
}

/// A page that fails for a while may not come back elsewhere.
#[test]
fn pages_do_not_move_by_way_of_an_error() {
    let (a, b) = (device(8), device(8));
    let mapped = Mapped::new(table(&[(8, Some(&a), 0)])).unwrap();
    let filesystem = User::new(false);
    let _hold = mapped.hold(filesystem.weak()).unwrap();
    let refuses = |table: Table| {
        let error = mapped.swap(table, Wait::Never).unwrap_err();
        assert!(matches!(error, SwapError::InPlace), "{error}");
    };

    mapped.swap(table(&[(8, None, 0)]), Wait::Never).expect("all of it may fail");
    refuses(table(&[(8, Some(&b), 0)]));
    mapped.swap(table(&[(4, None, 0), (4, Some(&a), 4)]), Wait::Never).unwrap();
    refuses(table(&[(4, Some(&b), 0), (4, Some(&a), 4)]));
    refuses(table(&[(4, Some(&a), 0), (4, Some(&b), 4)]));
    mapped.swap(table(&[(8, Some(&a), 0)]), Wait::Never).expect("every page is back");
}

/// Nor by way of tables below, whichever of the two changes.
#[test]
fn pages_do_not_move_by_way_of_an_error_in_a_stack() {
    let (a, b) = (device(8), device(8));
    let lower: Arc<dyn DaxDevice> = Arc::new(Mapped::new(table(&[(8, Some(&a), 0)])).unwrap());
    let top = Mapped::new(table(&[(8, Some(&lower), 0)])).unwrap();
    let filesystem = User::new(false);
    let _hold = top.hold(filesystem.weak()).unwrap();
    let below = lower.as_mapped().expect("it follows a table");
    let refuses = |device: &Mapped, table: Table| {
        let error = device.swap(table, Wait::Never).unwrap_err();
        assert!(matches!(error, SwapError::InPlace), "{error}");
    };

    refuses(below, table(&[(8, None, 0)]));
    top.swap(table(&[(4, Some(&lower), 0), (4, None, 0)]), Wait::Never).expect("at the top it may");
    below.swap(table(&[(2, Some(&a), 0), (6, Some(&a), 2)]), Wait::Never).expect("nothing moves");

    top.swap(table(&[(8, None, 0)]), Wait::Never).unwrap();
    below.swap(table(&[(8, Some(&b), 0)]), Wait::Never).expect("nobody holds it");
    refuses(&top, table(&[(8, Some(&lower), 0)]));
    below.swap(table(&[(6, Some(&a), 0), (2, None, 0)]), Wait::Never).unwrap();
    top.swap(table(&[(8, Some(&lower), 0)]), Wait::Never).expect("what is there is in its place");
    refuses(below, table(&[(6, Some(&a), 0), (2, Some(&b), 0)]));
    assert_eq!(place(&top, 5).0, PgmapOff(5));
}

/// F-13, I-60: also of what was found by a table before.
#[test]
fn the_end_waits_for_those_who_use_an_old_table() {
    let (a, b) = (device(8), device(8));
    let mapped = Mapped::new(table(&[(8, Some(&a), 0)])).unwrap();
    let span = mapped.direct_access(DeviceOff(3), Pages(2)).unwrap();
    mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap();

    mapped.kill(Wait::Never).expect_err("a span of the first table is in use");
    drop(span);
    mapped.kill(Wait::Never).unwrap();
}

/// The last user of a table that is gone keeps its claims, and answers for nobody.
#[test]
fn a_table_that_is_gone_keeps_no_page_in_place() {
    let (a, b) = (device(8), device(8));
    let lower: Arc<dyn DaxDevice> = Arc::new(Mapped::new(table(&[(8, Some(&a), 0)])).unwrap());
    let top = Mapped::new(table(&[(8, Some(&lower), 0)])).unwrap();
    let span = top.direct_access(DeviceOff(0), Pages(1)).unwrap();
    drop(top);

    let lower = lower.as_mapped().expect("it follows a table");
    lower.swap(table(&[(8, Some(&b), 0)]), Wait::Never).expect("no filesystem is there");
    drop(span);
}

#[test]
fn the_end_of_a_device_that_left_is_nothing_to_the_table() {
    let (a, b) = (device(8), device(8));
    let mapped = Mapped::new(table(&[(8, Some(&a), 0)])).unwrap();
    let user = User::new(true);
    let _hold = mapped.hold(user.weak()).unwrap();
    let span = mapped.direct_access(DeviceOff(3), Pages(2)).unwrap();
    assert!(!mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap().is_drained);

    assert!(a.kill(Wait::Never).is_err(), "a span of it is in use");

    assert!(lies_in(&mapped, 0, &b), "the device lives");
    assert_eq!(user.removals.load(Ordering::Relaxed), 0);
    drop(span);
    a.kill(Wait::Never).unwrap();
    DaxBytes::new(Arc::new(mapped)).fence().expect("what left and is gone is not asked");
}

#[test]
fn a_swap_waits_for_every_table_before_and_takes_back_a_device_that_just_left() {
    let (a, b) = (device(8), device(8));
    let mapped = Mapped::new(table(&[(8, Some(&a), 0)])).unwrap();
    let span = mapped.direct_access(DeviceOff(3), Pages(2)).unwrap();
    assert!(!mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap().is_drained);

    let again = mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap();
    assert!(!again.is_drained, "a span of the first table is in use");
    let back = mapped.swap(table(&[(8, Some(&a), 0)]), Wait::Never).expect("it is claimed by us");
    assert!(!back.is_drained);

    drop(span);
    assert!(mapped.swap(table(&[(8, Some(&a), 0)]), Wait::Never).unwrap().is_drained);
    let user = User::new(true);
    drop(b.hold(user.weak()).expect("it was let go"));
}

#[test]
fn a_device_does_not_stand_on_itself() {
    let a = device(8);
    let lower: Arc<dyn DaxDevice> = Arc::new(Mapped::new(table(&[(8, Some(&a), 0)])).unwrap());
    let top: Arc<dyn DaxDevice> = Arc::new(Mapped::new(table(&[(8, Some(&lower), 0)])).unwrap());
    for (device, below) in [(&lower, &lower), (&lower, &top), (&top, &top)] {
        let mapped = device.as_mapped().expect("it follows a table");
        let error = mapped.swap(table(&[(8, Some(below), 0)]), Wait::Never).unwrap_err();
        assert!(error.to_string().ends_with("a stack has an end"), "{error}");
    }
}

/// What was flushed to a device before it left is made persistent by the next fence or the swap.
#[test]
fn a_swap_fences_what_leaves() {
    let (witness, b) = (common::Witness::new(8), device(8));
    let mapped = Mapped::new(table(&[(8, Some(&witness.device()), 0)])).unwrap();
    let span = mapped.direct_access(DeviceOff(3), Pages(2)).unwrap();
    assert!(!mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap().is_drained);
    let fences =
        || witness.take().iter().filter(|seen| matches!(seen, common::Seen::Fence(_))).count();
    let mapped = Arc::new(mapped);

    DaxBytes::new(mapped.clone()).fence().unwrap();
    assert_eq!(fences(), 1, "it may have been flushed by the old table");

    drop(span);
    assert!(mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap().is_drained);
    assert_eq!(fences(), 1, "once, when nobody uses the old table any more");
    DaxBytes::new(mapped).fence().unwrap();
    assert_eq!(fences(), 0);
}

/// The tables of a stack are worked out into one: a change below has to reach the top.
#[test]
fn a_change_below_reaches_the_top_and_its_holder_and_waits_for_its_users() {
    let (a, b) = (device(8), device(8));
    let lower: Arc<dyn DaxDevice> = Arc::new(Mapped::new(table(&[(8, Some(&a), 0)])).unwrap());
    let middle: Arc<dyn DaxDevice> = Arc::new(Mapped::new(table(&[(6, Some(&lower), 2)])).unwrap());
    let top = Mapped::new(table(&[(4, Some(&middle), 1)])).unwrap();
    let user = User::new(true);
    let _hold = top.hold(user.weak()).unwrap();
    assert_eq!(place(&top, 0).0, PgmapOff(3));
    let span = top.direct_access(DeviceOff(0), Pages(1)).unwrap();
    let swap = |device: &Arc<dyn DaxDevice>| {
        let lower = lower.as_mapped().expect("it follows a table");
        lower.swap(table(&[(4, Some(device), 4), (4, Some(device), 0)]), Wait::Never).unwrap()
    };

    assert!(!swap(&b).is_drained, "a span of the top is in use");
    assert_eq!(place(&top, 0), (PgmapOff(7), b.pgmaps().remove(0)));
    drop(span);

    assert!(swap(&a).is_drained);
    assert_eq!(place(&top, 1), (PgmapOff(0), a.pgmaps().remove(0)));
    assert_eq!(user.moves.load(Ordering::Relaxed), 2);
    b.hold(User::new(true).weak()).map(drop).expect("the old table is gone, and its claim");
}

#[test]
fn a_holder_at_the_top_keeps_tables_below_from_moving_its_pages() {
    let (a, b) = (device(8), device(8));
    let lower: Arc<dyn DaxDevice> = Arc::new(Mapped::new(table(&[(8, Some(&a), 0)])).unwrap());
    let top = Mapped::new(table(&[(8, Some(&lower), 0)])).unwrap();
    let filesystem = User::new(false);
    let _hold = top.hold(filesystem.weak()).unwrap();

    let lower = lower.as_mapped().expect("it follows a table");
    let error = lower.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap_err();

    assert!(matches!(error, SwapError::InPlace), "{error}");
}

/// I-66, B-47.
#[test]
fn a_device_stays_what_it_is() {
    let (a, b) = (device(8), device(8));
    let mapped = Mapped::new(table(&[(8, Some(&a), 0)])).unwrap();
    let zero = |pages| Line { start: DeviceOff(0), pages: Pages(pages), target: Target::Zero };

    let error = mapped.swap(table(&[(7, Some(&a), 0)]), Wait::Never).unwrap_err();
    let message = "the table has 56 sectors, and the device has 64; give it lines for just as many";
    assert_eq!(error.to_string(), message);

    let error = mapped.swap(Table::new(vec![zero(8)]).unwrap(), Wait::Never).unwrap_err();
    let message = "the device has direct access, and would have none: line 1 of the table (zero): \
                   it forgets what is stored, which memory cannot do";
    assert_eq!(error.to_string(), message);

    let without = Mapped::new(Table::new(vec![zero(8)]).unwrap()).unwrap();
    let error = without.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap_err();
    assert!(matches!(error, SwapError::Dax(_)), "{error}");

    let readable = common::Witness::with_facts(8, |facts| facts.is_writable = false).device();
    let error = mapped.swap(table(&[(8, Some(&readable), 0)]), Wait::Never).unwrap_err();
    assert!(matches!(error, SwapError::Weaker), "{error}");

    let taken = Mapped::new(table(&[(8, Some(&b), 0)])).unwrap();
    let error = mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap_err();
    assert!(matches!(error, SwapError::Table(TableError { line: 1, .. })), "{error}");
    drop(taken);

    assert!(lies_in(&mapped, 0, &a), "it follows its old table");
}

#[test]
fn a_device_that_was_removed_follows_no_table() {
    let (a, b) = (device(8), device(8));
    let mapped = Mapped::new(table(&[(8, Some(&a), 0)])).unwrap();
    let user = User::new(true);
    let _hold = mapped.hold(user.weak()).unwrap();
    a.kill(Wait::Never).unwrap();

    let error = mapped.swap(table(&[(8, Some(&b), 0)]), Wait::Never).unwrap_err();

    assert!(matches!(error, SwapError::Dead), "{error}");
    assert!(mapped.table().is_none());
    assert_eq!(user.removals.load(Ordering::Relaxed), 1);
    assert_eq!(mapped.direct_access(DeviceOff(0), Pages(1)).unwrap_err(), AccessError::Dead);
    b.hold(user.weak()).map(drop).expect("the refused table claimed nothing");
}

/// Readers and writers on both processors, while the table goes back and forth.
#[test]
fn no_byte_is_lost_while_the_table_changes_under_load() {
    let a = device(64);
    let mapped = Arc::new(Mapped::new(table(&[(64, Some(&a), 0)])).unwrap());
    let halves = || table(&[(32, Some(&a), 0), (32, Some(&a), 32)]);
    let whole = || table(&[(64, Some(&a), 0)]);

    thread::scope(|scope| {
        let writers: Vec<_> = (0..2_u64)
            .map(|writer| {
                let bytes = DaxBytes::new(mapped.clone());
                scope.spawn(move || {
                    for round in 1..400_u64 {
                        for page in (writer..64).step_by(2) {
                            let at = page * 4096 + 4088;
                            assert_eq!(bytes.load_u64(at).unwrap(), round - 1, "page {page}");
                            bytes.store_u64(at, round).unwrap();
                        }
                    }
                })
            })
            .collect();
        let mut swaps = 0_u64;
        while writers.iter().any(|writer| !writer.is_finished()) {
            let next = if swaps.is_multiple_of(2) { halves() } else { whole() };
            assert!(mapped.swap(next, Wait::Forever).unwrap().is_drained);
            swaps += 1;
        }
    });
}
