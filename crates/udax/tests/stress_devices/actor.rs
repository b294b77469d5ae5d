//! One thread that uses a device in every way there is, and knows what its words hold.

use crate::rng::Rng;
use std::ops::Range;
use udax::{Access, DevDax, MapOptions, PinKind, PinOptions};
use udax_dev::AccessError;
use udax_mm::sync::Arc;
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::{DeviceOff, Pages};

/// Pages that stay in their memory, and keep what is stored to them.
pub(crate) const PAGES: u64 = 320;
/// All pages of the device. Those behind come to lie in other memory, and fail, so nothing is known of
/// what they hold; they are used all the same.
pub(crate) const ALL: u64 = PAGES + 32;
pub(crate) const ACTORS: u64 = 4;

const PAGE: u64 = 4096;
/// What an actor still tries once the device was killed.
const AFTERWARDS: u64 = 40;

/// Where the life of the device is.
#[derive(Debug, Default)]
pub(crate) struct Moment {
    is_killing: AtomicBool,
    is_killed: AtomicBool,
}

impl Moment {
    pub(crate) fn killing(&self) {
        self.is_killing.store(true, Ordering::Release);
    }

    /// To be called when `kill` has returned.
    pub(crate) fn killed(&self) {
        self.is_killed.store(true, Ordering::Release);
    }
}

/// What the words of an actor hold.
pub(crate) struct Known {
    number: u64,
    /// For each page what was stored last, and what stores that failed since may have left: one that
    /// was made and could not be flushed fails too.
    words: Vec<Vec<u64>>,
    pub(crate) operations: u64,
}

pub(crate) struct Actor {
    device: DevDax,
    rng: Rng,
    moment: Arc<Moment>,
    known: Known,
}

impl Known {
    pub(crate) fn check(&self, word: impl Fn(u64, u64) -> u64) {
        for (page, allowed) in (0_u64..).zip(&self.words) {
            let found = word(page, self.number);
            assert!(allowed.contains(&found), "page {page}: {found} instead of {allowed:?}");
        }
    }
}

impl Actor {
    pub(crate) fn new(number: u64, device: DevDax, rng: Rng, moment: Arc<Moment>) -> Actor {
        let words = vec![vec![0]; usize::try_from(PAGES).unwrap()];
        Actor { device, rng, moment, known: Known { number, words, operations: 0 } }
    }

    /// Works until the device is gone, and for a while after.
    pub(crate) fn run(mut self) -> Known {
        let mut afterwards = 0;
        while afterwards < AFTERWARDS {
            let is_killed = self.moment.is_killed.load(Ordering::Acquire);
            let worked = self.once();
            assert!(!(is_killed && worked), "an access after the kill");
            afterwards += u64::from(is_killed);
            self.known.operations += 1;
        }
        self.known
    }

    /// Returns whether anything of the device was reached.
    fn once(&mut self) -> bool {
        match self.rng.below(4) {
            0 => self.copies(),
            1 => self.maps(),
            2 => self.pins(),
            _ => self.spans(),
        }
    }

    fn copies(&mut self) -> bool {
        let mut reached = false;
        for _ in 0..16 {
            let page = self.rng.below(ALL);
            let (at, mut word) = (self.at(page), [0; 8]);
            if self.rng.once_in(2) {
                let device = self.device.clone();
                reached |=
                    self.store(page, |value| device.write_at(&value.to_le_bytes(), at).is_ok());
            } else if self.device.read_at(&mut word, at).is_ok() {
                reached = true;
                self.saw(page, u64::from_le_bytes(word));
            }
        }
        reached
    }

    fn maps(&mut self) -> bool {
        let pages = self.range(64);
        let bytes = pages.start * PAGE..pages.end * PAGE;
        let options = MapOptions::new().access(Access::Write);
        let Ok(map) = self.device.map(bytes, &options) else { return false };
        let mut reached = false;
        for _ in 0..32 {
            let page = pages.start + self.rng.below(pages.end - pages.start);
            let at = (page - pages.start) * PAGE + 8 * self.known.number;
            if self.rng.once_in(2) {
                reached |= self.store(page, |value| map.store(at, value).is_ok());
            } else if let Ok(word) = map.load(at) {
                reached = true;
                self.saw(page, word);
            }
        }
        reached
    }

    fn pins(&mut self) -> bool {
        let pages = self.range(4);
        let bytes = pages.start * PAGE..pages.end * PAGE;
        let Ok(pin) = self.device.pin(bytes, &PinOptions::new("stress").kind(PinKind::Write))
        else {
            return false;
        };
        for page in pages.clone() {
            let (at, mut word) = ((page - pages.start) * PAGE + 8 * self.known.number, [0; 8]);
            let is_stored = self.store(page, |value| pin.write(&value.to_le_bytes(), at).is_ok());
            // Whatever becomes of the table meanwhile; only failed memory fails.
            let is_read = pin.read(&mut word, at).is_ok();
            assert!(is_stored && is_read || page >= PAGES);
            self.saw(page, u64::from_le_bytes(word));
        }
        true
    }

    fn spans(&mut self) -> bool {
        let (page, most) = (self.rng.below(ALL), Pages(1 + self.rng.below(8)));
        let span = match self.device.device().direct_access(DeviceOff(page), most) {
            Ok(span) => span,
            Err(AccessError::Dead | AccessError::Failed { .. }) => return false,
            Err(other) => panic!("{other}"),
        };
        for index in 0..span.pages().0 {
            let byte = (span.at() + Pages(index)).byte() + 8 * self.known.number;
            let is_stored =
                self.store(page + index, |value| span.pgmap().store_u64(byte, value).is_ok());
            let word = span.pgmap().load_u64(byte);
            assert!(is_stored && word.is_ok() || page + index >= PAGES);
            self.saw(page + index, word.unwrap_or_default());
        }
        true
    }

    /// Stores the next value of a page. One that failed may or may not be there.
    fn store(&mut self, page: u64, store: impl FnOnce(u64) -> bool) -> bool {
        let value = self.known.operations << 8 | self.rng.below(256);
        let is_stored = store(value);
        let Some(words) = self.known.words.get_mut(usize::try_from(page).unwrap()) else {
            return is_stored;
        };
        if is_stored {
            words.clear();
        }
        words.push(value);
        is_stored
    }

    fn saw(&mut self, page: u64, word: u64) {
        let Some(words) = self.known.words.get_mut(usize::try_from(page).unwrap()) else {
            return;
        };
        assert!(words.contains(&word), "page {page}: {word} instead of {words:?}");
        *words = vec![word];
    }

    fn range(&mut self, most: u64) -> Range<u64> {
        let start = self.rng.below(ALL);
        start..(start + 1 + self.rng.below(most)).min(ALL)
    }

    fn at(&self, page: u64) -> u64 {
        page * PAGE + 8 * self.known.number
    }
}
