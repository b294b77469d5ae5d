//! Linear tables: several devices joined end to end (device-mapper's `linear` target).
//!
//! Owns the table and its checks, and the way up from a page below to a page of the joined device.
//! The pages themselves stay with the devices below.

use crate::failure::OfTarget;
use crate::{AccessError, DaxDevice, DaxSpan, Hold, Holder, HolderError, HolderSlot, IoError};
use std::ops::Range;
use udax_mm::media::{Persistence, Site};
use udax_mm::sync::{Arc, Weak};
use udax_mm::{DeviceOff, MediaFacts, Pages, Pgmap, PgmapOff, StillBusy, Wait};

/// One line of a table: `pages` pages of `device`, from `from` on, appear at `at`.
#[derive(Clone, Debug)]
pub struct LinearTarget {
    /// First page of the joined device.
    pub at: DeviceOff,
    /// Number of pages.
    pub pages: Pages,
    /// The device below.
    pub device: Arc<dyn DaxDevice>,
    /// First page of the device below.
    pub from: DeviceOff,
}

/// What is wrong with a table. Lines count from 1.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TableError {
    /// There is no line.
    #[error("the table has no line; it needs at least one target")]
    Empty,

    /// A line has no pages.
    #[error("line {line} of the table has no pages; remove it or give it a length")]
    ZeroLength {
        /// The line.
        line: usize,
    },

    /// No line gives the pages before this one.
    #[error(
        "line {line} of the table starts at page {}, but pages {}..{} before it are in no line",
        .missing.end, .missing.start, .missing.end
    )]
    Gap {
        /// The line that starts too late.
        line: usize,
        /// The pages in no line.
        missing: Range<DeviceOff>,
    },

    /// A line gives pages again that an earlier line gives.
    #[error(
        "line {line} of the table starts at page {}, but earlier lines reach to page {}",
        .shared.start, .shared.end
    )]
    Overlap {
        /// The line that starts too early.
        line: usize,
        /// From its first page to the end of the earlier lines.
        shared: Range<DeviceOff>,
    },

    /// A line reaches past the end of its device.
    #[error(
        "line {line} of the table takes {pages} pages from page {from} on, but its device has {size}"
    )]
    OutOfRange {
        /// The line.
        line: usize,
        /// The first page it takes.
        from: DeviceOff,
        /// How many it takes.
        pages: Pages,
        /// The size of its device.
        size: Pages,
    },

    /// Two lines take the same page of one device, so that one page would have two addresses.
    #[error(
        "lines {first} and {line} of the table both take pages {}..{} of one device",
        .pages.start, .pages.end
    )]
    Aliased {
        /// The earlier line.
        first: usize,
        /// The later line.
        line: usize,
        /// The pages of the device below that both take.
        pages: Range<DeviceOff>,
    },

    /// The device of a line could not be claimed.
    #[error("the device of line {line} of the table cannot be used")]
    Claim {
        /// The line.
        line: usize,
        /// Why.
        source: HolderError,
    },
}

/// Several devices, joined end to end.
///
/// It is the holder of each device below, so no device is in two tables, and the removal of any of
/// them is told to the holder of the whole and ends access to the whole (I-66). Memory that fails in
/// one of them is told in pages of the whole; what is in no line is nobody's.
///
/// # Examples
///
/// ```
/// # use udax_mm::{DeviceOff, MediaRange, MemoryType, Pages, Pgmap, media::FileMedia, sync::Arc};
/// # use udax_dev::{DaxDevice, Linear, PgmapDevice};
/// # fn device(pages: Pages) -> Result<Arc<dyn DaxDevice>, Box<dyn std::error::Error>> {
/// #     let media = Arc::new(FileMedia::memfd("linear", pages.bytes())?);
/// #     let ranges = vec![MediaRange { media, start: 0, pages }];
/// #     Ok(Arc::new(PgmapDevice::new(Pgmap::new(ranges, MemoryType::FsDax)?)))
/// # }
/// let joined = Linear::concat(vec![device(Pages(4))?, device(Pages(8))?])?;
/// assert_eq!(joined.size(), Pages(12));
///
/// // Access never crosses from one device into the next.
/// assert_eq!(joined.direct_access(DeviceOff(1), Pages(12))?.pages(), Pages(3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Linear {
    /// In order of `at`, without a gap from page 0 on.
    lines: Vec<LinearTarget>,
    /// The devices of the lines, each once, with this table's claim on it.
    below: Vec<Below>,
    slot: Arc<HolderSlot>,
}

#[derive(Debug)]
struct Below {
    device: Arc<dyn DaxDevice>,
    _hold: Hold,
    /// Kept, because the device does not keep its holder.
    _holder: Arc<OfTarget>,
}

impl Linear {
    /// Joins the lines of `table`, which are given in order and cover every page from 0 on.
    ///
    /// # Errors
    ///
    /// [`TableError`] names the first line that is wrong. No device is claimed then.
    pub fn new(table: Vec<LinearTarget>) -> Result<Linear, TableError> {
        if table.is_empty() {
            return Err(TableError::Empty);
        }
        let mut end = DeviceOff(0);
        for (index, target) in table.iter().enumerate() {
            target.check(index + 1, end)?;
            check_aliases(&table[..index], target)?;
            end = target.range().end;
        }
        let slot = HolderSlot::new();
        let below = claim_all(&table, &slot)?;
        Ok(Linear { lines: table, below, slot })
    }

    /// Joins whole devices, end to end in the given order.
    ///
    /// # Errors
    ///
    /// [`TableError`] if there is no device, one is empty, is named twice, or cannot be claimed.
    pub fn concat(devices: Vec<Arc<dyn DaxDevice>>) -> Result<Linear, TableError> {
        let mut at = DeviceOff(0);
        let line = |device: Arc<dyn DaxDevice>| {
            let target = LinearTarget { at, pages: device.size(), device, from: DeviceOff(0) };
            at = target.range().end;
            target
        };
        Linear::new(devices.into_iter().map(line).collect())
    }

    fn line_of(&self, at: DeviceOff) -> Option<&LinearTarget> {
        let after = self.lines.partition_point(|line| line.at <= at);
        let line = &self.lines[after.checked_sub(1)?];
        line.range().contains(&at).then_some(line)
    }
}

impl LinearTarget {
    /// Its pages of the joined device.
    fn range(&self) -> Range<DeviceOff> {
        self.at.span(self.pages)
    }

    /// Its pages of the device below.
    fn range_below(&self) -> Range<DeviceOff> {
        self.from.span(self.pages)
    }

    /// Checks this line, whose predecessors end at `end`.
    fn check(&self, line: usize, end: DeviceOff) -> Result<(), TableError> {
        let size = self.device.size();
        if self.pages.is_empty() {
            return Err(TableError::ZeroLength { line });
        }
        if self.from.0.checked_add(self.pages.0).is_none_or(|last| last > size.0) {
            let (from, pages) = (self.from, self.pages);
            return Err(TableError::OutOfRange { line, from, pages, size });
        }
        if self.at > end {
            return Err(TableError::Gap { line, missing: end..self.at });
        }
        if self.at < end {
            return Err(TableError::Overlap { line, shared: self.at..end });
        }
        Ok(())
    }
}

impl DaxDevice for Linear {
    fn size(&self) -> Pages {
        let last = self.lines.last().expect("a table has a line");
        last.range().end.since(DeviceOff(0))
    }

    fn direct_access(&self, at: DeviceOff, max: Pages) -> Result<DaxSpan, AccessError> {
        if !self.slot.is_live() {
            return Err(AccessError::Dead);
        }
        let line = self.line_of(at).ok_or(AccessError::OutOfRange { at, size: self.size() })?;
        let left = line.range().end.since(at);
        let span = line.device.direct_access(line.from + at.since(line.at), max.min(left))?;
        assert!(span.pages() <= left, "I-62: a span does not cross the end of its line");
        Ok(span)
    }

    fn fence(&self, site: Site) -> Result<(), IoError> {
        self.below.iter().try_for_each(|below| below.device.fence(site))
    }

    fn facts(&self) -> MediaFacts {
        let facts = self.below.iter().map(|below| below.device.facts());
        facts.reduce(weakest).expect("a table has a line")
    }

    fn pgmaps(&self) -> Vec<Pgmap> {
        let mut pgmaps: Vec<Pgmap> = Vec::new();
        for pgmap in self.below.iter().flat_map(|below| below.device.pgmaps()) {
            if !pgmaps.contains(&pgmap) {
                pgmaps.push(pgmap);
            }
        }
        pgmaps
    }

    fn device_off(&self, pgmap: &Pgmap, at: PgmapOff) -> Option<DeviceOff> {
        self.lines.iter().find_map(|line| {
            let below = line.device.device_off(pgmap, at)?;
            line.range_below().contains(&below).then(|| line.at + below.since(line.from))
        })
    }

    fn hold(&self, holder: Weak<dyn Holder>) -> Result<Hold, HolderError> {
        self.slot.claim(holder)
    }

    fn kill(&self, wait: Wait) -> Result<(), StillBusy> {
        let mut busy: Option<StillBusy> = None;
        // The first device tells our holder, because our slot holds it. All are killed even if one
        // is busy: a table with a dead device gives no access.
        for below in &self.below {
            if let Err(found) = below.device.kill(wait) {
                match &mut busy {
                    Some(busy) => {
                        busy.pins.extend(found.pins);
                        busy.pages.extend(found.pages);
                    }
                    None => busy = Some(found),
                }
            }
        }
        busy.map_or(Ok(()), Err)
    }
}

/// Refuses a line that takes pages of a device which an earlier line takes too.
fn check_aliases(earlier: &[LinearTarget], target: &LinearTarget) -> Result<(), TableError> {
    let (ours, line) = (target.range_below(), earlier.len() + 1);
    for (index, other) in earlier.iter().enumerate() {
        let theirs = other.range_below();
        let pages = ours.start.max(theirs.start)..ours.end.min(theirs.end);
        if is_same(&other.device, &target.device) && pages.start < pages.end {
            return Err(TableError::Aliased { first: index + 1, line, pages });
        }
    }
    Ok(())
}

/// Claims every device of the table once, or none.
fn claim_all(table: &[LinearTarget], slot: &Arc<HolderSlot>) -> Result<Vec<Below>, TableError> {
    let mut below: Vec<Below> = Vec::new();
    for (index, target) in table.iter().enumerate() {
        if below.iter().any(|claimed| is_same(&claimed.device, &target.device)) {
            continue;
        }
        let lines = table.iter().filter(|line| is_same(&line.device, &target.device));
        let parts = lines.map(|line| (line.range_below(), line.at)).collect();
        let holder = Arc::new(OfTarget { slot: Arc::clone(slot), parts });
        let weak: Weak<OfTarget> = Arc::downgrade(&holder);
        let hold = target
            .device
            .hold(weak)
            .map_err(|source| TableError::Claim { line: index + 1, source })?;
        below.push(Below { device: Arc::clone(&target.device), _hold: hold, _holder: holder });
    }
    Ok(below)
}

fn is_same(one: &Arc<dyn DaxDevice>, other: &Arc<dyn DaxDevice>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

/// What two devices both promise.
fn weakest(one: MediaFacts, other: MediaFacts) -> MediaFacts {
    let rank = |facts: &MediaFacts| match facts.persistence {
        Persistence::Volatile => 0,
        Persistence::Process => 1,
        Persistence::Msync => 2,
        Persistence::CacheLines => 3,
    };
    MediaFacts {
        persistence: if rank(&one) <= rank(&other) { one.persistence } else { other.persistence },
        host_page: one.host_page.min(other.host_page),
        is_registrable: one.is_registrable && other.is_registrable,
        is_writable: one.is_writable && other.is_writable,
        is_dax: one.is_dax && other.is_dax,
    }
}
