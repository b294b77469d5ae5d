//! Leases: a holder is asked to let go, before anybody waits for it, once; and nothing is taken.

mod common;

use common::{TestFile, data, info, range};
use std::ops::Range;
use std::time::{Duration, Instant};
use udax_mapping::{BreakError, PinnedFolios};
use udax_mm::sync::{Arc, Mutex, mpsc};
use udax_mm::{FileIndex, PinKind, Recall, RecallEvent, RecallReason, Wait};

/// Where a holder keeps its pin, and what it has heard.
#[derive(Default)]
struct Holder {
    pin: Mutex<Option<PinnedFolios>>,
    heard: Mutex<Vec<RecallEvent>>,
}

impl Holder {
    /// A holder that hears, and lets go if `lets_go`.
    fn of(file: &TestFile, pages: Range<FileIndex>, lets_go: bool) -> Arc<Holder> {
        let holder = Arc::new(Holder::default());
        let recall = Recall::call({
            let holder = Arc::downgrade(&holder);
            move |event: &RecallEvent| {
                let Some(holder) = holder.upgrade() else { return };
                holder.heard.lock().push(event.clone());
                if lets_go {
                    let pin = holder.pin.lock().take();
                    drop(pin);
                }
            }
        });
        let pin = file.mapping.pin_leased(pages, info("holder", PinKind::Write), recall);
        let pin = pin.expect("the pages can be pinned");
        *holder.pin.lock() = Some(pin);
        holder
    }

    fn heard(&self) -> Vec<(Range<FileIndex>, Option<Instant>, RecallReason)> {
        let heard = self.heard.lock();
        heard.iter().map(|event| (event.range.clone(), event.deadline, event.why)).collect()
    }
}

#[test]
fn a_holder_that_lets_go_when_recalled_makes_the_truncate_succeed() {
    let file = TestFile::new(8, &data(0, 8));
    let holder = Holder::of(&file, range(2, 5), true);

    file.truncate(3, Wait::Forever).unwrap();

    assert_eq!(holder.heard(), [(range(3, 5), None, RecallReason::Wait)]);
    file.verify();
}

#[test]
fn a_deadline_that_passes_names_the_holder_and_leaves_the_lease() {
    let file = TestFile::new(8, &data(0, 8));
    let holder = Holder::of(&file, range(2, 5), false);
    let deadline = Instant::now() + Duration::from_millis(10);

    let error = file.truncate(0, Wait::Until(deadline)).unwrap_err();

    let BreakError::Pinned { pins, .. } = &error else { panic!("{error}") };
    assert_eq!(&*pins[0].info.owner.label, "holder");
    assert_eq!(holder.heard(), [(range(2, 5), Some(deadline), RecallReason::Wait)]);
    let pin = holder.pin.lock().take().expect("nothing is taken by force");
    assert!(pin.lease().is_recalled());
    pin.write(0, b"mine").unwrap();
}

#[test]
fn who_does_not_wait_recalls_nobody() {
    let file = TestFile::new(8, &data(0, 8));
    let holder = Holder::of(&file, range(2, 5), true);

    assert!(file.truncate(0, Wait::Never).is_err());

    assert!(holder.heard().is_empty());
}

#[test]
fn only_holders_of_the_range_are_recalled_and_each_once() {
    let file = TestFile::new(8, &[Some(0), Some(5), Some(2), Some(7)]);
    let outside = Holder::of(&file, range(0, 1), true);
    // Three extents, and two pins in the way of each other's end.
    let first = Holder::of(&file, range(1, 4), true);
    let second = Holder::of(&file, range(3, 4), true);

    file.punch(range(1, 4), Wait::Forever).unwrap();

    assert!(outside.heard().is_empty());
    assert_eq!(first.heard(), [(range(1, 4), None, RecallReason::Wait)]);
    assert_eq!(second.heard(), [(range(3, 4), None, RecallReason::Wait)]);
}

#[test]
fn a_pin_that_is_taken_while_somebody_waits_is_recalled_too() {
    let file = TestFile::new(8, &data(0, 8));
    let holder = Holder::of(&file, range(2, 5), false);
    let (asked, is_asked) = mpsc::channel();
    let pin = file.mapping.pin_leased(
        range(4, 5),
        info("first", PinKind::Read),
        Recall::call(move |_: &RecallEvent| asked.send(()).expect("the test listens")),
    );
    let late = std::thread::scope(|scope| {
        let truncate = scope.spawn(|| file.truncate(0, Wait::Forever));
        is_asked.recv().unwrap();
        // It waits for the first pinned page, and holds no lock.
        let late = Holder::of(&file, range(4, 6), false);
        let heard_at_once = late.heard();
        let waits = file.mapping.stats().waits;
        drop(holder.pin.lock().take());
        while file.mapping.stats().waits == waits {
            std::thread::yield_now();
        }
        // It waits for the next one, and tells nobody twice.
        drop(pin);
        let pin = late.pin.lock().take().unwrap();
        let is_recalled = pin.lease().is_recalled();
        drop(pin);
        truncate.join().unwrap().unwrap();
        assert!(is_recalled);
        assert_eq!(heard_at_once, [(range(4, 6), None, RecallReason::Wait)]);
        late
    });
    assert_eq!(late.heard().len(), 1);
    file.grow(8);
    let after = Holder::of(&file, range(0, 8), false);
    assert!(after.heard().is_empty(), "nobody waits any more");
    drop(after.pin.lock().take());
}

#[test]
fn a_callback_may_use_the_file() {
    let file = TestFile::new(8, &data(0, 8));
    let holder = Arc::new(Mutex::new(None));
    let recall = Recall::call({
        let (file, holder) = (Arc::downgrade(&file), Arc::clone(&holder));
        move |_: &RecallEvent| {
            let file = file.upgrade().expect("the caller has it");
            // Each takes the layout lock, one of them exclusively.
            drop(file.mapping.pin(range(0, 1), info("callback", PinKind::Read)).unwrap());
            file.truncate(7, Wait::Never).unwrap();
            drop(holder.lock().take());
        }
    });
    let pin = file.mapping.pin_leased(range(2, 3), info("holder", PinKind::Read), recall);
    *holder.lock() = Some(pin.unwrap());

    file.truncate(1, Wait::Forever).unwrap();

    file.verify();
}

#[test]
fn a_deferred_break_tells_the_holders_what_the_file_gave_up() {
    let file = TestFile::new(8, &data(0, 8));
    let holder = Holder::of(&file, range(2, 5), false);

    let mut broken = file.mapping.break_layout_deferred(range(3, u64::MAX), &file.sink).unwrap();
    let deferred = broken.take_deferred();
    assert!(holder.heard().is_empty(), "not while the lock is held");
    broken.give_up();
    file.cut(3, broken);
    assert_eq!(deferred.tell().len(), 1);

    assert_eq!(holder.heard(), [(range(3, 5), None, RecallReason::Deferred)]);
    let pin = holder.pin.lock().take().unwrap();
    pin.write(2 * common::PAGE, b"still mine").unwrap();
}

#[test]
fn a_pin_is_found_and_recalled_through_another_address_space_of_the_file() {
    let file = TestFile::new(8, &data(0, 8));
    let holder = Holder::of(&file, range(2, 5), true);
    // The file was closed and opened again: its address space does not know the pin.
    let again = file.reopened();
    assert!(again.mapping.pins().is_empty());

    again.truncate(0, Wait::Forever).unwrap();

    assert_eq!(holder.heard(), [(range(2, 5), None, RecallReason::Wait)]);
}

#[test]
fn a_pin_of_a_part_of_a_folio_is_recalled_for_another_part_of_it() {
    let file = TestFile::new(1024, &data(512, 512));
    let whole = file.mapping.pin(range(0, 512), info("whole", PinKind::Read)).unwrap();
    let part = Holder::of(&file, range(0, 1), true);
    drop(whole);

    file.truncate(100, Wait::Forever).unwrap();

    assert_eq!(part.heard(), [(range(100, 512), None, RecallReason::Wait)]);
}

/// Uses the file when it goes, as the owner of a cache may that its callback keeps.
struct Guard {
    file: Arc<TestFile>,
    gone: mpsc::Sender<()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.file.mapping.break_layout(range(7, 8), Wait::Never));
        self.gone.send(()).expect("the test listens");
    }
}

/// Where a pin is kept.
type Place = Mutex<Option<PinnedFolios>>;

/// A pin whose callback keeps a guard, and lets go of the pin if it is recalled. Says when the guard
/// is gone.
fn guarded(file: &Arc<TestFile>) -> (Arc<Place>, mpsc::Receiver<()>) {
    let (gone, is_gone) = mpsc::channel();
    let (guard, place) = (Guard { file: Arc::clone(file), gone }, Arc::new(Mutex::new(None)));
    let recall = Recall::call({
        let place = Arc::downgrade(&place);
        move |_: &RecallEvent| {
            let _guard = &guard;
            let pin = place.upgrade().and_then(|place| place.lock().take());
            drop(pin);
        }
    });
    let pin = file.mapping.pin_leased(range(2, 5), info("cache", PinKind::Write), recall);
    *place.lock() = Some(pin.expect("the pages can be pinned"));
    (place, is_gone)
}

/// Runs `ends` in a thread of its own, and finds that it ends, with the guard gone.
#[track_caller]
fn check_guard_goes(ends: impl FnOnce(&TestFile, &Place) + Send + 'static) {
    let file = TestFile::new(8, &data(0, 8));
    let (place, is_gone) = guarded(&file);
    let (done, is_done) = mpsc::channel();
    let thread = std::thread::spawn({
        let file = Arc::clone(&file);
        move || {
            ends(&file, &place);
            done.send(()).expect("the test listens");
        }
    });
    let long = Duration::from_secs(10);
    is_gone.recv_timeout(long).expect("the guard goes when no lock is held");
    is_done.recv_timeout(long).expect("nobody waits for a lock that it has");
    thread.join().expect("it ended as it should");
    file.verify();
}

#[test]
fn what_a_callback_owns_goes_when_the_layout_is_not_locked_any_more() {
    check_guard_goes(|file, _| file.truncate(0, Wait::Forever).unwrap());
}

#[test]
fn what_the_callback_of_a_deferred_pin_owns_goes_when_the_layout_is_not_locked_any_more() {
    check_guard_goes(|file, place| {
        let broken = file.mapping.break_layout_deferred(range(0, 8), &file.sink).unwrap();
        // Unpinned meanwhile: the proof has the last lease.
        let pin = place.lock().take();
        drop(pin);
        drop(broken);
    });
}

#[test]
fn what_the_callback_of_a_pin_that_fails_owns_goes_when_the_layout_is_not_locked_any_more() {
    // There is no block for its last page.
    let file = TestFile::new(8, &[data(0, 8), vec![None]].concat());
    let (gone, is_gone) = mpsc::channel();
    let guard = Guard { file: Arc::clone(&file), gone };
    let thread = std::thread::spawn(move || {
        let recall = Recall::call(move |_: &RecallEvent| drop(guard.gone.clone()));
        file.mapping.pin_leased(range(2, 9), info("nic", PinKind::Write), recall).unwrap_err();
    });
    let long = Duration::from_secs(10);
    is_gone.recv_timeout(long).expect("the guard goes when no lock is held");
    thread.join().expect("it ended as it should");
}
