//! Interrupts: who sleeps for a pin is woken by whoever ends the wait.

use crate::support::info;
use crate::{NEXT, PAGE, page, pgmap, request, verify, with};
use loom::model;
use udax_mm::sync::thread::spawn;
use udax_mm::{Interrupt, Wait};

/// The flag is looked at between being listed and sleeping, and raised before the list is read.
///
/// Kills: a raise that tells the sleepers first; a sleeper that does not look; a wake-up that does
/// not pass the lock of the queue.
#[test]
fn a_raise_is_not_missed_by_who_is_about_to_sleep() {
    model(|| {
        let pgmap = pgmap(1);
        let _pin = request(&pgmap, PAGE).pin(info());
        let interrupt = Interrupt::new();
        let raise = spawn({
            let interrupt = interrupt.clone();
            move || interrupt.raise()
        });

        let waited = pgmap.wait_unpinned(page(PAGE), Wait::Forever.unless(&interrupt));

        assert_eq!(waited, Err(PAGE));
        raise.join().unwrap();
        verify(&pgmap);
    });
}

/// Two that sleep for different pages are woken by one raise, and only those who asked for it.
///
/// Kills: a raise that wakes the first of the list.
#[test]
fn everybody_who_sleeps_with_an_interrupt_is_woken() {
    model(|| {
        let pgmap = pgmap(2);
        let _pins = [PAGE, NEXT].map(|at| request(&pgmap, at).pin(info()));
        let interrupt = Interrupt::new();
        let sleeper = with(&pgmap, {
            let interrupt = interrupt.clone();
            move |pgmap| pgmap.wait_unpinned(page(NEXT), Wait::Forever.unless(&interrupt))
        });
        let raise = spawn({
            let interrupt = interrupt.clone();
            move || interrupt.raise()
        });

        let waited = pgmap.wait_unpinned(page(PAGE), Wait::Forever.unless(&interrupt));

        assert_eq!((waited, sleeper.join().unwrap()), (Err(PAGE), Err(NEXT)));
        raise.join().unwrap();
    });
}

/// Whichever comes first, the sleeper is woken.
///
/// Kills: a sleeper that is interrupted though nothing is pinned.
#[test]
fn an_unpin_and_a_raise_at_once_end_the_wait() {
    model(|| {
        let pgmap = pgmap(1);
        let pin = request(&pgmap, PAGE).pin(info());
        let interrupt = Interrupt::new();
        let raise = spawn({
            let interrupt = interrupt.clone();
            move || interrupt.raise()
        });
        let unpin = spawn(move || drop(pin));

        let waited = pgmap.wait_unpinned(page(PAGE), Wait::Forever.unless(&interrupt));

        (raise.join().unwrap(), unpin.join().unwrap());
        assert!(waited.is_ok() || interrupt.is_raised());
        let again = pgmap.wait_unpinned(page(PAGE), Wait::Forever.unless(&interrupt));
        assert_eq!(again, Ok(()), "there is nothing to wait for");
    });
}
