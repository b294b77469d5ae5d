//! Interrupts: how somebody ends the wait of another thread.
//!
//! This file owns the flag and the list of those who sleep with it. What they sleep for is in
//! [`wait`](crate::wait).

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};
use crate::wait::Sleeper;

/// Ends waits, those under way and those to come. Clone is another handle of the same one.
///
/// ```
/// # use udax_mm::{MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff, Wait};
/// # use udax_mm::{PinInfo, PinKind, PinOwner, PinTerm, media::FileMedia, sync::Arc};
/// use udax_mm::Interrupt;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let media = Arc::new(FileMedia::memfd("example", 1 << 20)?);
/// # let range = MediaRange { media, start: 0, pages: Pages(256) };
/// # let pgmap = Pgmap::new(vec![range], MemoryType::FsDax)?.try_get_live().unwrap();
/// # let owner = PinOwner { process: 1, connection: 0, label: "example".into() };
/// # let since = std::time::Instant::now();
/// # let info = PinInfo { owner, since, kind: PinKind::Read, term: PinTerm::Short };
/// let _pin = pgmap.request_folio(PgmapOff(7), Order::Base)?.pin(info);
/// let interrupt = Interrupt::new();
/// let raiser = std::thread::spawn({
///     let interrupt = interrupt.clone();
///     move || interrupt.raise()
/// });
/// let pages = PgmapOff(0)..PgmapOff(256);
/// assert_eq!(pgmap.wait_unpinned(pages, Wait::Forever.unless(&interrupt)), Err(PgmapOff(7)));
/// assert!(interrupt.is_raised());
/// # raiser.join().unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_raised: AtomicBool,
    sleepers: Mutex<Vec<Sleeper>>,
}

/// The place of a sleeper in the list. Drop takes it off.
pub(crate) struct Listed<'a> {
    interrupt: &'a Interrupt,
    sleeper: Sleeper,
}

impl Interrupt {
    /// One that is not raised.
    pub fn new() -> Interrupt {
        Interrupt::default()
    }

    /// Ends every wait with this interrupt, for good.
    ///
    /// The flag first: who is listed later finds it.
    ///
    /// Release pairs with the Acquire in `is_raised`.
    pub fn raise(&self) {
        self.0.is_raised.store(true, Ordering::Release);
        let sleepers = self.0.sleepers.lock().clone();
        sleepers.iter().for_each(Sleeper::wake);
    }

    /// Whether it was raised.
    ///
    /// Acquire pairs with the Release in `raise`: whoever is interrupted sees what came before.
    pub fn is_raised(&self) -> bool {
        self.0.is_raised.load(Ordering::Acquire)
    }

    /// Has `sleeper` be woken by a raise from here on. It looks at the flag after that, and before
    /// it sleeps.
    pub(crate) fn list(&self, sleeper: Sleeper) -> Listed<'_> {
        self.0.sleepers.lock().push(sleeper.clone());
        Listed { interrupt: self, sleeper }
    }
}

/// Handles of the same one are equal.
impl PartialEq for Interrupt {
    fn eq(&self, other: &Interrupt) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Interrupt {}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut sleepers = self.interrupt.0.sleepers.lock();
        // Those of one queue are alike.
        let place = sleepers.iter().position(|sleeper| *sleeper == self.sleeper);
        sleepers.swap_remove(place.expect("it was listed"));
    }
}
