//! Pins: references that others wait for, with an owner and a time.
//!
//! This file owns the handle of a pin and the list of all pins of a page map. The count that is
//! waited for stands in the page word.

use crate::folio::{Folio, FolioRef};
use crate::pgmap::PgmapRef;
use crate::recall::Lease;
use crate::sync::{Arc, Mutex};
use crate::units::{Order, PgmapOff};
use crate::word::Unpin;
use std::fmt;
use std::ops::Range;
use std::time::Instant;

/// Who pins. A value, so that a lease can outlive a call and cross a process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PinOwner {
    /// The process, by its id.
    pub process: u32,
    /// The connection it came over; 0 is this process itself.
    pub connection: u64,
    /// What the owner calls itself.
    pub label: Arc<str>,
}

/// What the device does with the pages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PinKind {
    /// It reads them.
    Read,
    /// It writes them.
    Write,
}

/// How long a pin is meant to last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PinTerm {
    /// Until the call returns that took it.
    Short,
    /// A lease, until its owner lets go.
    Long,
}

/// What is known of a pin.
#[derive(Clone, Debug)]
pub struct PinInfo {
    /// Who holds it.
    pub owner: PinOwner,
    /// Since when.
    pub since: Instant,
    /// What for.
    pub kind: PinKind,
    /// For how long.
    pub term: PinTerm,
}

/// A pin as the page map lists it.
#[derive(Clone, Debug)]
pub struct PinRecord {
    /// The pages of the folio that is pinned.
    pub pages: Range<PgmapOff>,
    /// What is known of the pin.
    pub info: PinInfo,
    /// How to ask its holder to let go, if it can be asked.
    pub lease: Option<Lease>,
}

/// A pinned folio: a reference that truncation waits for. Drop is unpin; not Clone.
///
/// ```
/// # use udax_mm::{MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff, Wait};
/// # use udax_mm::{PinInfo, PinKind, PinOwner, PinTerm, media::FileMedia, sync::Arc};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let media = Arc::new(FileMedia::memfd("example", 1 << 20)?);
/// # let range = MediaRange { media, start: 0, pages: Pages(256) };
/// # let pgmap = Pgmap::new(vec![range], MemoryType::FsDax)?.try_get_live().unwrap();
/// # let owner = PinOwner { process: 1, connection: 0, label: "example".into() };
/// # let since = std::time::Instant::now();
/// # let info = PinInfo { owner, since, kind: PinKind::Read, term: PinTerm::Short };
/// let folio = pgmap.request_folio(PgmapOff(7), Order::Base)?;
/// let pin = folio.pin(info);
/// let pages = PgmapOff(0)..PgmapOff(256);
/// assert_eq!(pgmap.wait_unpinned(pages.clone(), Wait::Never), Err(PgmapOff(7)));
/// assert_eq!(&*pgmap.pins_in(pages.clone())[0].info.owner.label, "example");
/// drop(pin);
/// assert_eq!(pgmap.wait_unpinned(pages, Wait::Forever), Ok(()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PinnedFolio {
    folio: Folio,
    listed: Listed,
    info: PinInfo,
}

/// Every pin of a page map.
///
/// A pin is listed after the word counts it, and taken off the list before the word forgets it:
/// whoever is listed is counted.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<List>);

/// The place of a pin in the list, until it is taken off.
#[derive(Debug)]
pub(crate) struct Listed(usize);

#[derive(Debug, Default)]
struct List {
    places: Vec<Option<PinRecord>>,
    /// Places that are free.
    free: Vec<usize>,
}

impl fmt::Display for PinRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PinOwner { process, label, .. } = &self.info.owner;
        let age = self.info.since.elapsed();
        let Range { start, end } = self.pages;
        write!(f, "by {label} (process {process}) on pages {start}..{end} for {age:.1?}")
    }
}

impl PinnedFolio {
    /// The first page.
    pub fn head(&self) -> PgmapOff {
        self.folio.head()
    }

    /// The size.
    pub fn order(&self) -> Order {
        self.folio.order()
    }

    /// All pages.
    pub fn pages(&self) -> Range<PgmapOff> {
        self.folio.pages()
    }

    /// The page map it belongs to.
    pub fn pgmap(&self) -> &PgmapRef {
        self.folio.pgmap()
    }

    /// What the page map tells of this pin.
    pub fn info(&self) -> &PinInfo {
        &self.info
    }

    /// Lends the folio for as long as the pin stays.
    pub fn borrow(&self) -> FolioRef<'_> {
        self.folio.borrow()
    }

    /// The handle of a pin that the word counts already; `folio` is its reference.
    pub(crate) fn pinned(folio: Folio, info: PinInfo) -> PinnedFolio {
        let record = PinRecord { pages: folio.pages(), info: info.clone(), lease: None };
        let listed = folio.pgmap().pgmap().registry().add(record);
        PinnedFolio { folio, listed, info }
    }
}

impl Drop for PinnedFolio {
    /// Unpins; the reference is put when `folio` is dropped.
    fn drop(&mut self) {
        let pgmap = self.folio.pgmap().pgmap();
        pgmap.registry().remove(&self.listed);
        if let Unpin::Wake = self.folio.word().unpin() {
            pgmap.queues().wake(self.folio.block());
        }
    }
}

impl Pins {
    /// Every pin, oldest first.
    pub(crate) fn all(&self) -> Vec<PinRecord> {
        self.select(|_| true)
    }

    /// The pins of folios that share a page with `pages`, oldest first.
    pub(crate) fn within(&self, pages: &Range<PgmapOff>) -> Vec<PinRecord> {
        self.select(|pin| pin.pages.start < pages.end && pages.start < pin.pages.end)
    }

    fn select(&self, wanted: impl Fn(&PinRecord) -> bool) -> Vec<PinRecord> {
        let list = self.0.lock();
        let held = list.places.iter().flatten();
        let mut pins: Vec<_> =
            held.filter(|pin| !pin.pages.is_empty() && wanted(pin)).cloned().collect();
        pins.sort_by_key(|pin| pin.info.since);
        pins
    }

    pub(crate) fn add(&self, pin: PinRecord) -> Listed {
        let mut list = self.0.lock();
        let place = list.free.pop().unwrap_or_else(|| {
            list.places.push(None);
            list.places.len() - 1
        });
        list.places[place] = Some(pin);
        Listed(place)
    }

    pub(crate) fn remove(&self, listed: &Listed) {
        let mut list = self.0.lock();
        let pin = list.places[listed.0].take();
        assert!(pin.is_some(), "I-58: a pin is returned once");
        list.free.push(listed.0);
        drop(list);
        // After the lock: with the lease goes whatever its callback owns.
        drop(pin);
    }
}
