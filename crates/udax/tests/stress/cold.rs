//! A file that is frozen while threads store to it, pin it, map it and clone it.
//!
//! Exactly one thing changes: until it is frozen its bytes are what each thread stored last, and
//! from then on every attempt is refused, by whatever way, and they are that for ever. A store that
//! is refused has changed nothing. While a thread keeps a way to store to it, it cannot be frozen,
//! and that way cannot be refused.

use crate::actor::{Actor, Done, ensure};
use crate::model::{COLD, PAGE, us};
use crate::world::{Shared, own_cell};
use std::ops::Range;
use std::time::{Duration, Instant};
use udax::{
    Access, Error, ErrorKind, File, MapOptions, Mapping, Pin, PinKind, PinOptions, Populate, Wait,
};
use udax_mm::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// The pages of the file.
pub(crate) const COLD_PAGES: u64 = 24;

/// Whether the file is frozen.
#[derive(Debug, Default)]
pub(crate) struct Cold {
    is_frozen: AtomicBool,
}

/// A way to store to the file that a thread keeps.
pub(crate) enum Hold {
    Map(Mapping),
    Pin(Pin),
}

impl Cold {
    pub(crate) fn is_frozen(&self) -> bool {
        self.is_frozen.load(SeqCst)
    }
}

impl Actor {
    pub(crate) fn use_cold(&mut self, shared: &Shared) -> (&'static str, Done) {
        match self.rng.below(20) {
            0 => self.freeze(shared),
            1 => ("cold-punch", self.punch_cold(shared)),
            2..10 if self.hold.is_some() => ("cold-held", self.use_hold(shared)),
            2..4 => self.hold_cold(shared),
            4..10 => self.store_cold(shared),
            10..15 => ("cold-read", self.read_cold(shared)),
            _ => ("frozen", self.look_at_frozen(shared)),
        }
    }

    /// Freezes it, unless somebody can store to it.
    fn freeze(&mut self, shared: &Shared) -> (&'static str, Done) {
        // Long enough for others to let go of it, and to come.
        let until = Instant::now() + Duration::from_millis(30);
        let wait = if self.rng.once_in(3) { Wait::Never } else { Wait::Until(until) };
        let error = match shared.files[COLD].freeze(wait) {
            Ok(()) => {
                shared.cold.is_frozen.store(true, SeqCst);
                let is_held = self.hold.is_some();
                return ("freeze", ensure(!is_held, || "this thread can store to it".into()));
            }
            Err(error) => error,
        };
        let is_in_use = matches!(error.kind(), ErrorKind::MappedForWriting | ErrorKind::Pinned);
        let was_frozen = shared.cold.is_frozen();
        let is_expected = is_in_use && !was_frozen;
        ("freeze-refused", ensure(is_expected, || format!("{error}, frozen: {was_frozen}")))
    }

    /// Tries to take pages of a frozen file.
    fn punch_cold(&mut self, shared: &Shared) -> Done {
        if !shared.cold.is_frozen() {
            return Ok(());
        }
        let (file, page) = (&shared.files[COLD], self.rng.below(COLD_PAGES));
        let done = if self.rng.once_in(2) {
            file.punch_hole(page * PAGE..(page + 1) * PAGE)
        } else {
            file.set_len(page * PAGE)
        };
        let is_refused = done.as_ref().is_err_and(|error| error.kind() == ErrorKind::Frozen);
        ensure(is_refused, || format!("{done:?}"))
    }

    /// Stores to it in one of the ways, if it is not frozen.
    fn store_cold(&mut self, shared: &Shared) -> (&'static str, Done) {
        let at = own_cell(self.thread, &mut self.rng, COLD_PAGES * PAGE);
        let bytes = self.rng.bytes(at.end - at.start);
        let (was_frozen, start) = (shared.cold.is_frozen(), shared.now());
        let stored = match self.rng.below(3) {
            0 => shared.files[COLD].write_all_at(&bytes, at.start),
            1 => store_mapped(shared, &at, &bytes),
            _ => store_pinned(shared, &at, &bytes),
        };
        match stored {
            Ok(()) if was_frozen => ("cold-store", Err("a frozen file was stored to".into())),
            Ok(()) => {
                self.known.store(&shared.rules, COLD, at.start, &bytes, start);
                ("cold-store", Ok(()))
            }
            Err(error) => {
                let is_expected = error.kind() == ErrorKind::Frozen;
                ("cold-store-refused", ensure(is_expected, || error.to_string()))
            }
        }
    }

    /// Begins to keep a way to store to it, if it is not frozen.
    fn hold_cold(&mut self, shared: &Shared) -> (&'static str, Done) {
        let (was_frozen, file) = (shared.cold.is_frozen(), &shared.files[COLD]);
        let hold = if self.rng.once_in(2) {
            map_for_stores(file).map(Hold::Map)
        } else {
            let page = self.rng.below(COLD_PAGES - 3);
            let range = page * PAGE..(page + 1 + self.rng.below(3)) * PAGE;
            file.pin(range, &PinOptions::new("held").kind(PinKind::Write)).map(Hold::Pin)
        };
        match hold {
            Ok(_) if was_frozen => ("cold-hold", Err("a frozen file can be stored to".into())),
            Ok(hold) => {
                self.hold = Some(hold);
                ("cold-hold", Ok(()))
            }
            Err(error) => {
                let is_expected = error.kind() == ErrorKind::Frozen;
                ("cold-hold-refused", ensure(is_expected, || error.to_string()))
            }
        }
    }

    /// Stores by the way that this thread keeps, looks there, or lets go of it.
    fn use_hold(&mut self, shared: &Shared) -> Done {
        let Some(hold) = self.hold.take() else { return Ok(()) };
        if self.rng.once_in(3) {
            return Ok(());
        }
        let (rules, hold) = (&shared.rules, self.hold.insert(hold));
        let range = hold.range();
        let len = range.end - range.start;
        let cell = own_cell(self.thread, &mut self.rng, len);
        let at = range.start + cell.start..range.start + cell.end;
        if cell.end > len {
            return Ok(());
        }
        let (mut bytes, start) = (self.rng.bytes(cell.end - cell.start), shared.now());
        let is_store = self.rng.once_in(2);
        let done = match hold {
            Hold::Map(map) if is_store => map.write(&bytes, cell.start),
            Hold::Map(map) => map.read(&mut bytes, cell.start),
            Hold::Pin(pin) if is_store => pin.write(&bytes, cell.start),
            Hold::Pin(pin) => pin.read(&mut bytes, cell.start),
        };
        match done {
            Ok(()) if is_store => self.known.store(rules, COLD, at.start, &bytes, start),
            Ok(()) => self.known.check(rules, COLD, at.start, &bytes, start)?,
            Err(error) => {
                ensure(hold.is_eager() && error.kind() == ErrorKind::Media, || error.to_string())?;
                self.known.forget(rules, COLD, at, start);
            }
        }
        Ok(())
    }

    fn read_cold(&mut self, shared: &Shared) -> Done {
        let at = own_cell(self.thread, &mut self.rng, COLD_PAGES * PAGE);
        let (mut bytes, start) = (vec![0; us(at.end - at.start)], shared.now());
        let file = &shared.files[COLD];
        let read = if self.rng.once_in(2) {
            file.read_exact_at(&mut bytes, at.start)
        } else {
            let map = file.map(0..COLD_PAGES * PAGE, &MapOptions::new());
            map.and_then(|map| map.read(&mut bytes, at.start))
        };
        read.map_err(|error| error.to_string())?;
        self.known.check(&shared.rules, COLD, at.start, &bytes, start)
    }

    /// Looks at the slice of a frozen file, which this thread keeps for the round.
    fn look_at_frozen(&mut self, shared: &Shared) -> Done {
        if self.frozen.is_none() && shared.cold.is_frozen() {
            match shared.files[COLD].frozen() {
                Ok(frozen) => self.frozen = Some(frozen),
                Err(error) => {
                    return ensure(error.kind() == ErrorKind::Pinned, || error.to_string());
                }
            }
        }
        let start = shared.now();
        match &self.frozen {
            Some(frozen) => self.known.check(&shared.rules, COLD, 0, frozen, start),
            None => Ok(()),
        }
    }
}

impl Hold {
    /// The bytes of the file that can be stored to.
    fn range(&self) -> Range<u64> {
        match self {
            Hold::Map(map) => 0..map.len(),
            Hold::Pin(pin) => pin.range(),
        }
    }

    fn is_eager(&self) -> bool {
        matches!(self, Hold::Map(map) if map.faulting() == Populate::Eager)
    }
}

fn map_for_stores(file: &File) -> Result<Mapping, Error> {
    file.map(0..COLD_PAGES * PAGE, &MapOptions::new().access(Access::Write))
}

fn store_mapped(shared: &Shared, at: &Range<u64>, bytes: &[u8]) -> Result<(), Error> {
    map_for_stores(&shared.files[COLD])?.write(bytes, at.start)
}

fn store_pinned(shared: &Shared, at: &Range<u64>, bytes: &[u8]) -> Result<(), Error> {
    let pin = shared.files[COLD].pin(at.clone(), &PinOptions::new("cold").kind(PinKind::Write))?;
    pin.write(bytes, 0)
}
