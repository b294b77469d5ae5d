//! The recorder: a medium that remembers every store, flush and fence.
//!
//! This file owns the log and its order. It does not know what the events mean for a crash: the
//! model of which bytes may survive is in the `udax-crash` tool, which replays the log.
//!
//! Faults are planted here, by [`LeftOut`], so that the code under test has no switch for them.

use crate::active::Active;
use crate::image::{
    Image, LINE_SIZE, UNIT_SIZE, check_range, in_memory, line_bytes, simulated_facts, unit_bytes,
};
use crate::media::{Media, MediaError, MediaFacts, Site};
use crate::sync::Mutex;
use std::fmt;

/// One thing that happened to the medium.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// An aligned unit of 8 bytes received a value. A longer store is one event for each unit it
    /// touches, in ascending order; a shorter one is logged as the whole unit it left behind.
    Store {
        /// The byte at which the unit starts.
        at: u64,
        /// The unit, little-endian.
        value: u64,
    },
    /// One line was sent towards the persistence domain.
    Flush {
        /// The number of the line.
        line: u64,
        /// Who asked.
        site: Site,
    },
    /// Everything flushed before is in the persistence domain.
    Fence {
        /// Who asked.
        site: Site,
    },
    /// An operation of the workload began or ended.
    Mark(Mark),
}

/// One line: what happened, where, and who asked.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Store { at, value } => write!(f, "store {at} {value:#018x}"),
            Event::Flush { line, site } => {
                write!(f, "flush {line} {}:{}", site.file(), site.line())
            }
            Event::Fence { site } => write!(f, "fence {}:{}", site.file(), site.line()),
            Event::Mark(Mark::Begin(operation)) => write!(f, "begin {operation}"),
            Event::Mark(Mark::End(operation)) => write!(f, "end {operation}"),
        }
    }
}

/// Where an operation of the workload lies in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// The operation with this number was called.
    Begin(usize),
    /// It returned: what it promises to be durable is durable.
    End(usize),
}

/// A persistence fault: every flush, or every fence, that one source line asks for does not happen.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum LeftOut {
    /// The flushes of this line.
    Flush(Site),
    /// The fences of this line.
    Fence(Site),
}

/// A medium in memory that logs what is done to it.
///
/// ```
/// use udax_mm::Media;
/// use udax_mm::image::Image;
/// use udax_mm::recorder::{Event, Recorder};
/// use std::panic::Location;
/// let media = Recorder::new(Image::zeroed(4096));
/// media.store_u64(64, 5)?;
/// media.flush(64, 8, Location::caller())?;
/// let log = media.take_events();
/// assert_eq!(log[0], Event::Store { at: 64, value: 5 });
/// assert!(matches!(log[1], Event::Flush { line: 1, .. }));
/// # Ok::<(), udax_mm::MediaError>(())
/// ```
#[derive(Debug)]
pub struct Recorder {
    len: u64,
    left_out: Option<LeftOut>,
    log: Mutex<Log>,
    active: Active,
}

/// The bytes and how they came to be: they change together, so that the order of the events is the
/// order of the stores.
#[derive(Debug)]
struct Log {
    image: Image,
    events: Vec<Event>,
}

impl Recorder {
    /// A recorder whose medium starts as `image`.
    pub fn new(image: Image) -> Recorder {
        Recorder {
            len: image.len(),
            left_out: None,
            log: Mutex::new(Log { image, events: Vec::new() }),
            active: Active::default(),
        }
    }

    /// A recorder that does not carry out one flush or fence.
    pub fn leaving_out(image: Image, left_out: LeftOut) -> Recorder {
        Recorder { left_out: Some(left_out), ..Recorder::new(image) }
    }

    /// Notes where the workload is.
    pub fn mark(&self, mark: Mark) {
        self.log.lock().events.push(Event::Mark(mark));
    }

    /// Takes the log: every event since the start or the last call.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.log.lock().events)
    }

    /// What a load sees: all stores, persistent or not.
    pub fn image(&self) -> Image {
        self.log.lock().image.clone()
    }
}

impl Log {
    fn store(&mut self, at: u64, bytes: &[u8]) {
        self.image.write(at, bytes);
        let end = at + u64::try_from(bytes.len()).expect("a length fits 64 bits");
        let first = at / unit_bytes() * unit_bytes();
        for at in (first..end).step_by(UNIT_SIZE) {
            let mut unit = [0; UNIT_SIZE];
            self.image.read(at, &mut unit);
            self.events.push(Event::Store { at, value: u64::from_le_bytes(unit) });
        }
    }
}

impl Media for Recorder {
    fn len(&self) -> u64 {
        self.len
    }

    fn facts(&self) -> MediaFacts {
        simulated_facts()
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MediaError> {
        check_range(at, into.len(), self.len)?;
        self.log.lock().image.read(at, into);
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        check_range(at, bytes.len(), self.len)?;
        self.log.lock().store(at, bytes);
        Ok(())
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), MediaError> {
        self.write(at, &vec![0; in_memory(len)])
    }

    fn load_u64(&self, at: u64) -> Result<u64, MediaError> {
        let mut unit = [0; UNIT_SIZE];
        self.read(at, &mut unit)?;
        Ok(u64::from_le_bytes(unit))
    }

    fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> {
        self.write(at, &value.to_le_bytes())
    }

    fn flush(&self, at: u64, len: u64, site: Site) -> Result<(), MediaError> {
        let range = check_range(at, in_memory(len), self.len)?;
        if range.is_empty() || self.left_out == Some(LeftOut::Flush(site)) {
            return Ok(());
        }
        let first = range.start / line_bytes() * line_bytes();
        let lines = (first..range.end).step_by(LINE_SIZE);
        let flushes = lines.map(|at| Event::Flush { line: at / line_bytes(), site });
        self.log.lock().events.extend(flushes);
        Ok(())
    }

    fn fence(&self, site: Site) -> Result<(), MediaError> {
        if self.left_out != Some(LeftOut::Fence(site)) {
            self.log.lock().events.push(Event::Fence { site });
        }
        Ok(())
    }

    fn active(&self) -> &Active {
        &self.active
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::Location;

    fn recorder() -> Recorder {
        Recorder::new(Image::zeroed(8192))
    }

    fn stores(media: &Recorder) -> Vec<(u64, u64)> {
        let store = |event| match event {
            Event::Store { at, value } => Some((at, value)),
            _ => None,
        };
        media.take_events().into_iter().filter_map(store).collect()
    }

    #[test]
    fn an_unaligned_store_is_logged_as_the_whole_units_it_leaves() {
        let media = recorder();
        media.write(4, &[1; 8]).unwrap();
        assert_eq!(stores(&media), [(0, 0x0101_0101_0000_0000), (8, 0x0000_0000_0101_0101)]);
    }

    #[test]
    fn a_short_store_keeps_its_neighbours_in_the_unit() {
        let media = recorder();
        media.store_u64(8, u64::MAX).unwrap();
        media.write(9, &[0]).unwrap();
        assert_eq!(stores(&media)[1], (8, 0xffff_ffff_ffff_00ff));
    }

    #[test]
    fn a_flush_names_every_line_it_touches() {
        let media = recorder();
        let site = Location::caller();
        media.flush(60, 70, site).unwrap();
        let lines = [0, 1, 2].map(|line| Event::Flush { line, site });
        assert_eq!(media.take_events(), lines);
    }

    #[test]
    fn a_flush_of_nothing_touches_no_line() {
        let media = recorder();
        media.flush(70, 0, Location::caller()).unwrap();
        assert_eq!(media.take_events(), []);
    }

    #[test]
    fn only_the_site_left_out_is_left_out() {
        let (skipped, kept) = (Location::caller(), Location::caller());
        let media = Recorder::leaving_out(Image::zeroed(4096), LeftOut::Fence(skipped));
        media.fence(skipped).unwrap();
        assert_eq!(media.take_events(), []);
        media.fence(kept).unwrap();
        media.flush(0, 1, skipped).unwrap();
        assert_eq!(media.take_events().len(), 2);
    }

    #[test]
    fn marks_keep_their_place_among_the_stores() {
        let media = recorder();
        media.mark(Mark::Begin(3));
        media.store_u64(0, 1).unwrap();
        media.mark(Mark::End(3));
        let expected = [
            Event::Mark(Mark::Begin(3)),
            Event::Store { at: 0, value: 1 },
            Event::Mark(Mark::End(3)),
        ];
        assert_eq!(media.take_events(), expected);
    }
}
