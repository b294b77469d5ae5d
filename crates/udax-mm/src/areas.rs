//! Areas of addresses in reserve. A process may have only so many (`vm.max_map_count`), and taking
//! pages back out of the middle of one takes two more.
//!
//! This file owns a few areas that show nothing, and gives them up for what must not fail: a page that
//! is taken back, a touch that ends as SIGBUS. Making more of a file visible may fail.

use crate::reserve::Reservation;
use crate::sync::{Mutex, OnceLock};
use crate::units::PAGE_SIZE;
use std::io;

/// How many areas are in reserve: a page of each, and one between two of them.
const SPARE: usize = 129;

/// How many of them are kept for changes that leave fewer areas than there were.
const LAST: usize = 32;

/// Areas that show nothing.
#[derive(Debug)]
struct Spare {
    /// Given back as a whole.
    _reservation: Reservation,
    /// How many the host has granted.
    areas: usize,
}

/// What a change does to the number of areas, when it is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cost {
    /// It may divide one.
    Some,
    /// It replaces all of a reservation by one.
    None,
}

/// Takes areas in reserve, as many as the host grants, if there are fewer.
pub(crate) fn keep_spare() {
    let few = spare().lock().take_if(|spare| spare.areas < SPARE);
    drop(few);
    let is_missing = spare().lock().is_none();
    if is_missing && let Ok(taken) = Spare::take() {
        // Of another thread that was as fast.
        let surplus = spare().lock().replace(taken);
        drop(surplus);
    }
}

/// Makes a change that must not fail. If the host has no area left for it, those in reserve are given
/// up and it is made again; the last ones only for a change without cost.
///
/// # Errors
///
/// Returns the host's error.
pub(crate) fn with_spare(cost: Cost, mut change: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let refused = match change() {
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => error,
        made => return made,
    };
    // Not locked while the change is made: that may wait for the fault service.
    let is_enough = |spare: &mut Spare| cost == Cost::None || spare.areas > LAST;
    let Some(given_up) = spare().lock().take_if(is_enough) else { return Err(refused) };
    drop(given_up);
    let made = change();
    keep_spare();
    made
}

fn spare() -> &'static Mutex<Option<Spare>> {
    static SPARES: OnceLock<Mutex<Option<Spare>>> = OnceLock::new();
    SPARES.get_or_init(Mutex::default)
}

impl Spare {
    fn take() -> io::Result<Spare> {
        let reservation = Reservation::new(SPARE * PAGE_SIZE)?;
        // Neighbours of one kind would be one area.
        let pages = (1..SPARE).step_by(2).map(|page| page * PAGE_SIZE);
        let granted = pages.map(|at| reservation.map_zeros(at..at + PAGE_SIZE));
        let granted = granted.take_while(Result::is_ok).count();
        Ok(Spare { _reservation: reservation, areas: 2 * granted + 1 })
    }
}
