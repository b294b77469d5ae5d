//! Counts of users: who waits until nobody is left is woken by the last.

use loom::model;
use udax_mm::sync::thread::spawn;
use udax_mm::{Interrupt, UseCount, Wait};

/// The last of two wakes, whichever it is.
///
/// Kills: a wake-up by the first; none; one that does not pass the lock of the queue.
#[test]
fn the_last_user_wakes_who_waits_for_none() {
    model(|| {
        let count = UseCount::default();
        let (first, second) = (count.enter(), count.enter());
        let leave = spawn(move || drop(first));
        let leave_too = spawn(move || drop(second));

        assert_eq!(count.wait_unused(Wait::Forever), Ok(()));

        assert_eq!(count.users(), 0);
        (leave.join().unwrap(), leave_too.join().unwrap());
    });
}

/// Kills: a sleeper that is not listed; a raise that wakes sleepers for pins only.
#[test]
fn a_raise_wakes_who_waits_for_users() {
    model(|| {
        let count = UseCount::default();
        let _user = count.enter();
        let interrupt = Interrupt::new();
        let raise = spawn({
            let interrupt = interrupt.clone();
            move || interrupt.raise()
        });

        assert_eq!(count.wait_unused(Wait::Forever.unless(&interrupt)), Err(1));

        raise.join().unwrap();
    });
}
