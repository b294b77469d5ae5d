//! Break layout: the one way to take pages away from a file.
//!
//! Owns the exclusive side of the layout lock, the waiting for pins without it (rule 7), and the
//! proof that the pages behind a range are idle. What is done with them is the owner's.

use crate::events;
use crate::holders::{Deferred, Holders, Waiting, Wanted};
use crate::iomap::{IomapError, IomapOps};
use crate::mapping::{Layout, Mapping};
use crate::pins::FilePin;
use crate::poison::around_failed;
use crate::stats::Event;
use crate::table::Spare;
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};
use udax_dev::DaxSpan;
use udax_mm::sync::thread::yield_now;
use udax_mm::sync::{Arc, RwLockWriteGuard};
use udax_mm::{
    FileIndex, IdleSpan, LimboSink, Pages, Patience, PgmapOff, PgmapRef, PinKind, PinRecord,
    RequestError, Wait,
};

/// How long a page that is counted but not pinned is looked at again. Such a reference lasts for
/// the moment between an unpin and its put; one that lasts longer is held by somebody who is not
/// waited for (rule 6).
const PATIENCE: Duration = Duration::from_secs(1);
/// The same if nobody may wait.
const LITTLE_PATIENCE: Duration = Duration::from_millis(10);

/// Why a layout could not be broken. The file is as it was; translations come back with the next
/// fault (rule 8).
#[derive(Debug, thiserror::Error)]
pub enum BreakError {
    /// A page is pinned, and the time to wait ran out.
    #[error("page {index} of the file is pinned{}", held_by(.pins))]
    Pinned {
        /// The first pinned page.
        index: FileIndex,
        /// The pins that hold it.
        pins: Vec<FilePin>,
    },

    /// The wait for a page was interrupted.
    #[error("the wait for page {0} of the file was interrupted")]
    Interrupted(FileIndex),

    /// A page is referenced by something that is not a pin, and stays so.
    #[error("page {0} of the file is in use")]
    Busy(FileIndex),

    /// The owner of the file is gone.
    #[error("the file was closed")]
    Closed,

    /// The owner could not say where the pages lie.
    #[error(transparent)]
    Iomap(#[from] IomapError),

    /// The pages could not be claimed.
    #[error("the pages of the file cannot be claimed")]
    Request(#[from] RequestError),
}

/// Proof that a range of a file can be changed: nobody maps it, nobody pins it, nobody can.
///
/// Owns the layout lock exclusively, and the claims on the pages behind the range. Dropping it
/// first lets the claims go that were not taken, then the lock, and then fills eager mappings with
/// what the file has become.
///
/// # Invariants
///
/// 1. No translation and no entry refers to the range (I-51), and none can come (I-52, rule 9).
/// 2. Each page behind the range is claimed by this or by who took the claim, or is in limbo, or
///    has failed and is held by nobody.
///
/// # Examples
///
/// ```
/// # mod owner { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/owner.inc")); }
/// # use owner::WholeDevice;
/// # use udax_mm::{FileIndex, Pages, Wait};
/// let file = WholeDevice::new(Pages(4))?;
/// let mut broken = file.mapping.break_layout(FileIndex(1)..FileIndex(3), Wait::Never)?;
///
/// for idle in broken.take_idle() {
///     idle.zero()?; // nobody can see it
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping the proof ends it"]
pub struct LayoutBroken<'m> {
    mapping: &'m Mapping,
    range: Range<FileIndex>,
    /// From where to where something was taken back.
    taken: Range<FileIndex>,
    idle: Vec<IdleSpan>,
    limbo: Vec<(PgmapRef, Range<PgmapOff>)>,
    deferred: Deferred,
    failed: Vec<(PgmapRef, Range<PgmapOff>)>,
    /// Taken by the drop.
    layout: Option<RwLockWriteGuard<'m, Layout>>,
    /// Put after the lock is released: the last reference of an owner may break its layout.
    owner: Arc<dyn IomapOps>,
    /// Who was told before. Let go after the lock is released, as `deferred` is: with the last lease
    /// goes whatever its callback owns, and that may use the file.
    told: Option<Arc<Wanted>>,
}

/// What stood in the way of a claim.
struct Obstacle {
    index: FileIndex,
    pgmap: PgmapRef,
    page: PgmapOff,
    is_pinned: bool,
}

/// What one break has seen on the way.
#[derive(Default)]
struct Progress<'m> {
    /// Since when pages were in the way that nobody pins.
    busy_since: Option<Instant>,
    /// Set before it waits for a pin.
    waiting: Option<Waiting<'m>>,
}

enum Attempt<'m> {
    Broken(LayoutBroken<'m>),
    Blocked(Obstacle, Holders),
}

impl Mapping {
    /// Empties `range` of the file and waits until nobody pins its pages.
    ///
    /// Translations in the range are taken back at once. Pins cannot be: they are waited for, as
    /// `patience` says (a [`Wait`], or one that can be interrupted), and their holders are [recalled](udax_mm::Lease) before, once each. A page that
    /// is faulted again while this waits is simply taken back again (rule 6). A translation of
    /// 2 MiB that the range cuts is taken back as a whole (rule 10).
    ///
    /// # Blocking
    ///
    /// Calls holders back and waits without holding the layout lock, because the holder of a pin may need to fault in this
    /// file before it can unpin (rule 7).
    ///
    /// # Errors
    ///
    /// [`BreakError::Pinned`] with the first pinned page and its pins if the wait runs out;
    /// [`BreakError::Interrupted`] if its interrupt is raised while there is something to wait for;
    /// [`BreakError::Busy`] if a page stays counted by something else for a second at most;
    /// [`BreakError`] of other kinds as they say. Every entry is still there (I-51).
    pub fn break_layout<'i>(
        &self,
        range: Range<FileIndex>,
        patience: impl Into<Patience<'i>>,
    ) -> Result<LayoutBroken<'_>, BreakError> {
        let patience = patience.into();
        let span = events::break_layout(&range);
        span.run("broken", || self.break_patiently(&range, &patience))
    }

    fn break_patiently(
        &self,
        range: &Range<FileIndex>,
        patience: &Patience<'_>,
    ) -> Result<LayoutBroken<'_>, BreakError> {
        let owner = self.owner().ok_or(BreakError::Closed)?;
        let mut progress = Progress::default();
        loop {
            match self.try_break(&owner, range.clone(), patience.wait(), &mut progress)? {
                Attempt::Broken(mut broken) => {
                    broken.told = progress.waiting.take().map(Waiting::end);
                    self.counters().event(Event::Break);
                    return Ok(broken);
                }
                Attempt::Blocked(obstacle, holders) => {
                    events::break_layout_blocked(obstacle.index, obstacle.is_pinned);
                    if let Some(waiting) = &progress.waiting {
                        holders.recall(waiting.wanted());
                    }
                    obstacle.wait(self, patience, &mut progress)?;
                }
            }
        }
    }

    /// Empties `range` of the file without waiting: what is pinned goes to limbo, and `sink` gets
    /// it, claimed, with the last put.
    ///
    /// An owner that has given up the range says so by [`LayoutBroken::give_up`]. One that could not
    /// keeps its pages: no word is left on them then, and their pins are pins of the file as before.
    ///
    /// # Errors
    ///
    /// [`BreakError`], never `Pinned`.
    pub fn break_layout_deferred(
        &self,
        range: Range<FileIndex>,
        sink: &Arc<dyn LimboSink>,
    ) -> Result<LayoutBroken<'_>, BreakError> {
        events::break_layout(&range).run("broken", || self.break_deferring(range.clone(), sink))
    }

    fn break_deferring(
        &self,
        range: Range<FileIndex>,
        sink: &Arc<dyn LimboSink>,
    ) -> Result<LayoutBroken<'_>, BreakError> {
        let owner = self.owner().ok_or(BreakError::Closed)?;
        // Before the proof, so that an error drops them when the lock is released.
        let mut holders = Holders::default();
        let mut broken = LayoutBroken::zapped(self, Arc::clone(&owner), range);
        if let Err(error) = broken.defer(sink, &mut holders) {
            // Every entry is still there, dirty where devices store.
            broken.withdraw();
            return Err(error);
        }
        broken.deferred = Deferred::new(holders);
        self.index().remove(&broken.range);
        self.counters().event(Event::Break);
        Ok(broken)
    }

    fn try_break<'m>(
        &'m self,
        owner: &Arc<dyn IomapOps>,
        range: Range<FileIndex>,
        wait: Wait,
        progress: &mut Progress<'m>,
    ) -> Result<Attempt<'m>, BreakError> {
        let mut broken = LayoutBroken::zapped(self, Arc::clone(owner), range);
        let spans = owner.spans(broken.range())?;
        for (start, span) in &spans {
            if let Some(obstacle) = broken.claim(*start, span)? {
                let mut holders = Holders::default();
                if wait != Wait::Never && obstacle.is_pinned {
                    let list = || self.wanted().add(broken.range(), wait);
                    progress.waiting.get_or_insert_with(list);
                    // All of the range: whoever waits for one pin waits for each.
                    for (start, span) in &spans {
                        holders.add(*start, span.pgmap(), &span.range());
                    }
                }
                return Ok(Attempt::Blocked(obstacle, holders));
            }
        }
        self.index().remove(&broken.range);
        Ok(Attempt::Broken(broken))
    }
}

impl<'m> LayoutBroken<'m> {
    /// Takes the lock and the translations of `range`.
    fn zapped(
        mapping: &'m Mapping,
        owner: Arc<dyn IomapOps>,
        range: Range<FileIndex>,
    ) -> LayoutBroken<'m> {
        let layout = Some(mapping.layout().write());
        // An entry that is still locked would be a guard that outlived its layout guard.
        assert!(!mapping.index().is_locked(), "I-28: an entry lock needs the layout lock");
        let taken = mapping.zap(&range).unwrap_or(range.start..range.start);
        let (idle, limbo, failed) = (Vec::new(), Vec::new(), Vec::new());
        let deferred = Deferred::default();
        let told = None;
        LayoutBroken { mapping, range, taken, idle, limbo, deferred, failed, layout, owner, told }
    }

    /// Claims the pages of a span that starts at index `start` of the file, but for those that
    /// failed and that nobody holds. Returns what is in the way.
    fn claim(
        &mut self,
        start: FileIndex,
        span: &DaxSpan,
    ) -> Result<Option<Obstacle>, RequestError> {
        for part in self.set_failed_aside(span) {
            match span.pgmap().claim(part) {
                Ok(idle) => self.idle.push(idle),
                // What failed after the look, or was let go, is set aside by the next attempt.
                Err(RequestError::Busy(page) | RequestError::Poisoned(page)) => {
                    return Ok(Some(Obstacle::of(start, span, page.max(span.at()))));
                }
                Err(other) => return Err(other),
            }
        }
        Ok(None)
    }

    /// Claims what is idle and leaves what is not to limbo, whose holders are added.
    fn defer(
        &mut self,
        sink: &Arc<dyn LimboSink>,
        holders: &mut Holders,
    ) -> Result<(), BreakError> {
        for (start, span) in self.owner.spans(self.range())? {
            for part in self.set_failed_aside(&span) {
                let (idle, limbo) = span.pgmap().claim_or_defer(part, sink)?;
                self.idle.extend(idle);
                for pages in &limbo {
                    holders.add(start + pages.start.since(span.at()), span.pgmap(), pages);
                }
                let of_pgmap = |pages| (span.pgmap().clone(), pages);
                self.limbo.extend(limbo.into_iter().map(of_pgmap));
            }
        }
        Ok(())
    }

    /// Takes the words of limbo back: the pages are not delivered.
    fn withdraw(&mut self) {
        for (pgmap, pages) in self.limbo.drain(..) {
            pgmap.withdraw(pages);
        }
    }

    /// Notes which pages of a span failed and are held by nobody, and returns what is between them.
    fn set_failed_aside(&mut self, span: &DaxSpan) -> Vec<Range<PgmapOff>> {
        let (parts, failed) = around_failed(span);
        self.failed.extend(failed.into_iter().map(|pages| (span.pgmap().clone(), pages)));
        parts
    }

    /// The pages of the file that may be changed.
    pub fn range(&self) -> Range<FileIndex> {
        self.range.clone()
    }

    /// Takes the claims on the pages behind the range, in file order.
    pub fn take_idle(&mut self) -> Vec<IdleSpan> {
        std::mem::take(&mut self.idle)
    }

    /// Takes back what private mappings have stored to the range, too: the file ends before it. A
    /// hole that is punched spares it.
    pub fn discard_private(&self) {
        self.mapping.zap_sparing(&self.range, Spare::Nothing);
    }

    /// The owner has given up the range: what is in limbo goes to the sink, and the pins on it are no
    /// pins of the file any more.
    pub fn give_up(&mut self) {
        self.limbo.clear();
        self.mapping.pin_list().detach(&self.range);
    }

    /// Lets a file keep what is in limbo: its pages are not delivered, and those that devices store
    /// to are dirty again.
    fn keep_limbo(&mut self) -> Result<(), IomapError> {
        self.withdraw();
        let pins = self.mapping.pin_list().overlapping(&self.range);
        for pin in pins.iter().filter(|pin| pin.info.kind == PinKind::Write) {
            let part = pin.range.start.max(self.range.start)..pin.range.end.min(self.range.end);
            for (start, span) in self.owner.spans(part)? {
                self.mapping.index().insert_dirty(start, &span);
            }
        }
        Ok(())
    }

    /// Takes the pins that a deferred break left. Their holders are to be told when the owner has
    /// given up the range and this proof is dropped.
    pub fn take_deferred(&mut self) -> Deferred {
        std::mem::take(&mut self.deferred)
    }

    /// The pages behind the range whose memory failed, and that nobody holds. Nobody is given them
    /// until their marks go; an owner that gives up the range keeps them out of its free space.
    pub fn failed(&self) -> &[(PgmapRef, Range<PgmapOff>)] {
        &self.failed
    }

    /// The pages behind the range that are still in use, and go to the sink later.
    pub fn limbo(&self) -> &[(PgmapRef, Range<PgmapOff>)] {
        &self.limbo
    }
}

impl Drop for LayoutBroken<'_> {
    fn drop(&mut self) {
        self.idle.clear();
        if !self.limbo.is_empty() {
            // An owner that cannot say where its pages lie has no device to flush, either.
            let _ = self.keep_limbo();
        }
        self.layout = None;
        drop(self.told.take());
        // Of the range too what was shown nowhere: it may have become data.
        let (start, end) =
            (self.range.start.min(self.taken.start), self.range.end.max(self.taken.end));
        let around = start..end;
        if !self.mapping.eager_users(&around).is_empty() {
            self.mapping.faults().refill(&around);
        }
    }
}

impl fmt::Debug for LayoutBroken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayoutBroken")
            .field("range", &self.range)
            .field("idle", &self.idle)
            .field("limbo", &self.limbo)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Obstacle {
    /// Page `page` of a span that starts at index `start` of the file.
    fn of(start: FileIndex, span: &DaxSpan, page: PgmapOff) -> Obstacle {
        let pgmap = span.pgmap().clone();
        let is_pinned = pgmap.first_pinned(page.span(Pages(1))).is_some();
        Obstacle { index: start + page.since(span.at()), pgmap, page, is_pinned }
    }

    /// Sleeps until the page is not pinned, with no lock held.
    fn wait(
        &self,
        mapping: &Mapping,
        patience: &Patience<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<(), BreakError> {
        let interrupted =
            || patience.is_interrupted().then_some(BreakError::Interrupted(self.index));
        if self.is_pinned {
            let page = self.page.span(Pages(1));
            progress.busy_since = None;
            let sleeps = may_sleep(patience);
            if sleeps {
                mapping.counters().event(Event::Wait);
            }
            if self.pgmap.wait_unpinned(page, *patience).is_err() {
                return Err(interrupted().unwrap_or_else(|| self.to_error(mapping)));
            }
            if sleeps {
                mapping.counters().event(Event::Wakeup);
            }
            return Ok(());
        }
        if let Some(interrupted) = interrupted() {
            return Err(interrupted);
        }
        let now = Instant::now();
        let since = *progress.busy_since.get_or_insert(now);
        let end = match patience.wait() {
            Wait::Never => since + LITTLE_PATIENCE,
            Wait::Until(deadline) => deadline.min(since + PATIENCE),
            Wait::Forever => since + PATIENCE,
        };
        if now >= end {
            return Err(BreakError::Busy(self.index));
        }
        yield_now();
        Ok(())
    }

    fn to_error(&self, mapping: &Mapping) -> BreakError {
        let range = self.index.span(Pages(1));
        let listed = mapping.pin_list().overlapping(&range);
        // Only the page map knows who holds the page. The file may list a pin of a page that it has
        // left, and lists none that came by way of a larger folio or another file, or is frozen.
        let to_pin = |record: PinRecord| {
            let is_same = |pin: &&FilePin| {
                pin.info.since == record.info.since && pin.info.owner == record.info.owner
            };
            let whole = listed.iter().find(is_same).map(|pin| pin.range.clone());
            FilePin { range: whole.unwrap_or_else(|| range.clone()), info: record.info }
        };
        let records = self.pgmap.pins_in(self.page.span(Pages(1)));
        let mut pins: Vec<_> = records.into_iter().map(to_pin).collect();
        if pins.is_empty() {
            // Counted, and not on record yet.
            pins = listed;
        }
        BreakError::Pinned { index: self.index, pins }
    }
}

/// Whether any time is left to wait.
fn may_sleep(patience: &Patience<'_>) -> bool {
    let has_time = match patience.wait() {
        Wait::Never => false,
        Wait::Until(deadline) => Instant::now() < deadline,
        Wait::Forever => true,
    };
    has_time && !patience.is_interrupted()
}

fn held_by(pins: &[FilePin]) -> String {
    let Some(pin) = pins.first() else { return String::new() };
    let owner = &pin.info.owner;
    let age = pin.info.since.elapsed().as_secs_f64();
    let more = match pins.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(" by {} (process {}) for {age:.1} s{more}", owner.label, owner.process)
}
