//! Holders: who pins pages that somebody wants, and how they are told.
//!
//! Owns the way from pages to the pins on them, and the list of ranges that somebody waits for. It
//! asks the page maps and not the list of the file, because a pin outlives the address space of the
//! file that it was taken through. A pin that is taken while somebody waits is told by who takes it.

use crate::events;
use crate::pins::FilePin;
use std::ops::Range;
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{FileIndex, Lease, PgmapOff, PgmapRef, RecallEvent, RecallReason, Wait};

/// The pins that were in the way of whoever did not wait: their pages belong to no file any more,
/// and are free with the last unpin.
///
/// # Examples
///
/// ```
/// # mod owner { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/owner.inc")); }
/// # use owner::WholeDevice;
/// # use std::time::Instant;
/// # use udax_mm::{FileIndex, IdleSpan, LimboSink, Pages, Recall, sync::Arc};
/// # use udax_mm::{PinInfo, PinKind, PinOwner, PinTerm};
/// # struct Forget;
/// # impl LimboSink for Forget { fn returned(&self, _: IdleSpan) {} }
/// # let sink: Arc<dyn LimboSink> = Arc::new(Forget);
/// # let owner = PinOwner { process: 1, connection: 0, label: "nic".into() };
/// # let info = PinInfo { owner, since: Instant::now(), kind: PinKind::Read, term: PinTerm::Long };
/// let file = WholeDevice::new(Pages(4))?;
/// let pin = file.mapping.pin_leased(FileIndex(1)..FileIndex(3), info, Recall::default())?;
///
/// let mut broken = file.mapping.break_layout_deferred(FileIndex(2)..FileIndex(4), &sink)?;
/// let deferred = broken.take_deferred();
/// drop(broken); // the owner would give up the range first
///
/// assert_eq!(deferred.pins()[0].range, FileIndex(2)..FileIndex(3));
/// assert_eq!(deferred.tell().len(), 1);
/// assert!(pin.lease().is_recalled());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "the holders are told by `tell`, when no lock is held"]
pub struct Deferred {
    holders: Holders,
}

/// Pins, oldest first for each part of the file, with the pages that are wanted of each.
#[derive(Debug, Default)]
pub(crate) struct Holders(Vec<Holder>);

#[derive(Debug)]
struct Holder {
    pin: FilePin,
    lease: Option<Lease>,
    /// What the holder is asked for, in pages of the file that it pinned.
    wanted: Range<FileIndex>,
}

/// A range of a file that somebody wants, and waits for.
#[derive(Debug)]
pub(crate) struct Wanted {
    range: Range<FileIndex>,
    wait: Wait,
    /// Who was told: once is enough.
    told: Mutex<Vec<Lease>>,
}

/// The ranges of a file that are waited for.
#[derive(Debug, Default)]
pub(crate) struct WantedRanges(Mutex<Vec<Arc<Wanted>>>);

/// A place in that list. Dropping it takes the range off.
#[derive(Debug)]
pub(crate) struct Waiting<'m> {
    ranges: &'m WantedRanges,
    wanted: Arc<Wanted>,
}

impl Deferred {
    pub(crate) fn new(holders: Holders) -> Deferred {
        Deferred { holders }
    }

    /// Adds the pins on pages that the file may have shared and gave up as the last that had them;
    /// they begin at page `index` of the file. What is named already is not added again.
    ///
    /// They may have been pinned by way of another file, at another place: a holder is asked for all
    /// that it pinned.
    pub fn add_shared(&mut self, index: FileIndex, pgmap: &PgmapRef, pages: &Range<PgmapOff>) {
        let mut found = Holders::default();
        found.add(index, pgmap, pages);
        for mut holder in found.0 {
            let names = |other: &Holder| {
                let (named, range) = (&other.pin.range, &holder.pin.range);
                other.is_same(&holder) && named.start <= range.start && range.end <= named.end
            };
            if !self.holders.0.iter().any(names) {
                if let Some(lease) = &holder.lease {
                    holder.wanted = lease.range();
                }
                self.holders.join(holder);
            }
        }
    }

    /// Whether nobody was in the way.
    pub fn is_empty(&self) -> bool {
        self.holders.0.is_empty()
    }

    /// The pins, each with the pages that it held of the range.
    pub fn pins(&self) -> Vec<FilePin> {
        self.holders.0.iter().map(|holder| holder.pin.clone()).collect()
    }

    /// Tells the holders that the file has given up the range, and returns the pins. To be called
    /// when that is so, with no lock held.
    pub fn tell(self) -> Vec<FilePin> {
        for holder in &self.holders.0 {
            let range = holder.wanted.clone();
            let event = RecallEvent { range, deadline: None, why: RecallReason::Deferred };
            if let Some(lease) = &holder.lease {
                events::recall(&event.range, event.why);
                lease.recall(&event);
            }
        }
        self.pins()
    }
}

impl Holders {
    /// Adds the pins on `pages`, which begin at page `index` of the file.
    pub(crate) fn add(&mut self, index: FileIndex, pgmap: &PgmapRef, pages: &Range<PgmapOff>) {
        for record in pgmap.pins_in(pages.clone()) {
            let start = index + record.pages.start.max(pages.start).since(pages.start);
            let end = index + record.pages.end.min(pages.end).since(pages.start);
            self.join(Holder {
                pin: FilePin { range: start..end, info: record.info },
                lease: record.lease,
                wanted: start..end,
            });
        }
    }

    /// Adds a holder, or makes more of it if it is named already.
    fn join(&mut self, holder: Holder) {
        let hull = |one: &mut Range<FileIndex>, other: &Range<FileIndex>| {
            *one = one.start.min(other.start)..one.end.max(other.end);
        };
        match self.0.iter_mut().find(|other| other.is_same(&holder)) {
            Some(other) => {
                hull(&mut other.pin.range, &holder.pin.range);
                hull(&mut other.wanted, &holder.wanted);
            }
            None => self.0.push(holder),
        }
    }

    /// Recalls those that were not recalled yet.
    pub(crate) fn recall(&self, wanted: &Wanted) {
        for holder in &self.0 {
            if let Some(lease) = &holder.lease {
                wanted.recall(lease, holder.pin.range.clone());
            }
        }
    }
}

impl Wanted {
    fn recall(&self, lease: &Lease, range: Range<FileIndex>) {
        let mut told = self.told.lock();
        if told.iter().any(|other| other.is_same(lease)) {
            return;
        }
        told.push(lease.clone());
        drop(told);
        let deadline = match self.wait {
            Wait::Until(deadline) => Some(deadline),
            Wait::Never | Wait::Forever => None,
        };
        events::recall(&range, RecallReason::Wait);
        lease.recall(&RecallEvent { range, deadline, why: RecallReason::Wait });
    }
}

impl WantedRanges {
    /// Lists a range. Called with the layout lock held exclusively, so that every pin is either
    /// counted already, or finds the range here.
    pub(crate) fn add(&self, range: Range<FileIndex>, wait: Wait) -> Waiting<'_> {
        let wanted = Arc::new(Wanted { range, wait, told: Mutex::default() });
        self.0.lock().push(Arc::clone(&wanted));
        Waiting { ranges: self, wanted }
    }

    /// Recalls a lease that was just granted on folios that hold `range`, if somebody waits for any
    /// of it. Called with no lock held.
    pub(crate) fn recall(&self, lease: &Lease, range: &Range<FileIndex>) {
        let overlaps = |wanted: &&Arc<Wanted>| {
            wanted.range.start < range.end && range.start < wanted.range.end
        };
        let found: Vec<_> = self.0.lock().iter().filter(overlaps).cloned().collect();
        for wanted in found {
            let start = wanted.range.start.max(range.start);
            wanted.recall(lease, start..wanted.range.end.min(range.end));
        }
    }
}

impl Waiting<'_> {
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Takes the range off the list. What is returned holds the leases of who was told: perhaps the
    /// last of them, and with one goes whatever its callback owns. To be dropped with no lock held.
    pub(crate) fn end(self) -> Arc<Wanted> {
        Arc::clone(&self.wanted)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.ranges.0.lock().retain(|other| !Arc::ptr_eq(other, &self.wanted));
    }
}

impl Holder {
    /// Whether both are parts of one pin.
    fn is_same(&self, other: &Holder) -> bool {
        match (&self.lease, &other.lease) {
            (Some(lease), Some(other)) => lease.is_same(other),
            (None, None) => {
                let (info, others) = (&self.pin.info, &other.pin.info);
                self.pin.range.end == other.pin.range.start
                    && info.since == others.since
                    && info.owner == others.owner
            }
            _ => false,
        }
    }
}
