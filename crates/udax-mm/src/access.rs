//! Bytes of a page map, addressed as one space over all its media.
//!
//! This file owns the walk over the ranges, the refusal to touch poisoned pages and the refusal to
//! change frozen ones. The copies themselves, and what they mean for persistence, belong to
//! [`Media`](crate::Media).

use crate::media::{MediaError, Site};
use crate::pgmap::PgmapRef;
use crate::ranges::Placed;
use crate::sync::RwLock;
use crate::tap::{flush_through, store_through};
use crate::units::{PAGE_BYTES, Pages, PgmapOff};
use std::ops::Range;

const SHARDS: usize = 8;

/// Lets `freeze` wait for the stores that began before it.
///
/// A store holds one shard, shared, from its look at the page words until its last byte; any shard
/// will do, because freezing passes through all of them.
#[derive(Debug, Default)]
pub(crate) struct Stores([RwLock<Shard>; SHARDS]);

/// What a lock of [`Stores`] is around.
#[derive(Debug, Default)]
struct Shard;

impl Stores {
    /// Waits for every store that may not have seen the page words as they are.
    pub(crate) fn synchronize(&self) {
        self.0.iter().for_each(|shard| drop(shard.write()));
    }

    fn shard(&self, at: u64) -> &RwLock<Shard> {
        let shards = u64::try_from(SHARDS).expect("a small constant");
        &self.0[usize::try_from(at / PAGE_BYTES % shards).expect("a small remainder")]
    }
}

/// Bytes of the page map that lie in one medium.
struct Segment<'a> {
    placed: &'a Placed,
    /// First byte in the page map.
    at: u64,
    len: u64,
}

impl Segment<'_> {
    fn byte(&self) -> u64 {
        self.placed.byte_in_media(self.at)
    }

    /// Says an error of the medium in bytes of the page map.
    fn located(&self, mut error: MediaError) -> MediaError {
        if let MediaError::Fault { at }
        | MediaError::Poisoned { at }
        | MediaError::PartialRecovery { at, .. }
        | MediaError::OutOfRange { at, .. }
        | MediaError::Misaligned { at }
        | MediaError::NotAddressable { at }
        | MediaError::Frozen { at } = &mut error
        {
            *at = self.placed.byte_in_pgmap(*at);
        }
        error
    }
}

impl PgmapRef {
    /// Copies out the bytes from byte `from` of the pgmap on. They may cross from one medium into
    /// the next.
    ///
    /// # Errors
    ///
    /// [`MediaError::OutOfRange`] if they do not lie in the pgmap, [`MediaError::Poisoned`] if a
    /// page is poisoned (nothing was copied), and what the medium reports.
    pub fn read(&self, from: u64, into: &mut [u8]) -> Result<(), MediaError> {
        let whole = len_of(into);
        self.read_part(from, into, whole)
    }

    /// Copies out a part of a read of `whole` bytes, which decide whether it goes past the caches.
    ///
    /// # Errors
    ///
    /// As [`PgmapRef::read`].
    pub fn read_part(&self, from: u64, mut into: &mut [u8], whole: u64) -> Result<(), MediaError> {
        self.check(from, len_of(into))?;
        self.check_not_poisoned(from, len_of(into))?;
        for part in self.segments(from, len_of(into)) {
            let (bytes, rest) = into.split_at_mut(in_memory(part.len));
            let read = part.placed.media().read_part(part.byte(), bytes, whole);
            read.map_err(|e| part.located(e))?;
            into = rest;
        }
        Ok(())
    }

    /// Copies `bytes` in by ordinary stores: not persistent until flushed and fenced.
    ///
    /// # Errors
    ///
    /// [`MediaError::OutOfRange`] if they do not lie in the pgmap, [`MediaError::Frozen`] or
    /// [`MediaError::Poisoned`] if a page is (nothing was stored), and what the medium reports
    /// (some may be stored).
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        self.write_part(at, bytes, len_of(bytes))
    }

    /// Copies in a part of a write of `whole` bytes, which decide whether it goes past the caches.
    ///
    /// # Errors
    ///
    /// As [`PgmapRef::write`].
    pub fn write_part(&self, at: u64, mut bytes: &[u8], whole: u64) -> Result<(), MediaError> {
        self.store(at, len_of(bytes), |part| {
            let (here, rest) = bytes.split_at(in_memory(part.len));
            bytes = rest;
            part.placed.media().write_part(part.byte(), here, whole)
        })
    }

    /// Stores `len` zeros.
    ///
    /// # Errors
    ///
    /// As [`PgmapRef::write`].
    pub fn zero(&self, at: u64, len: u64) -> Result<(), MediaError> {
        self.store(at, len, |part| part.placed.media().zero(part.byte(), part.len))
    }

    /// Loads the 8 bytes at `at`, a multiple of 8, in one atomic step.
    ///
    /// # Errors
    ///
    /// [`MediaError::Misaligned`], and those of [`PgmapRef::read`].
    pub fn load_u64(&self, at: u64) -> Result<u64, MediaError> {
        self.check_u64(at)?;
        self.check_not_poisoned(at, 8)?;
        let part = self.segment(at, 8);
        part.placed.media().load_u64(part.byte()).map_err(|e| part.located(e))
    }

    /// Stores 8 bytes, little endian, at `at`, a multiple of 8, in one atomic step.
    ///
    /// # Errors
    ///
    /// [`MediaError::Misaligned`], and those of [`PgmapRef::write`].
    pub fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> {
        self.check_u64(at)?;
        self.store(at, 8, |part| part.placed.media().store_u64(part.byte(), value))
    }

    /// Starts `len` bytes from `at` on their way to the persistence domain, on behalf of `site`.
    ///
    /// # Errors
    ///
    /// [`MediaError::OutOfRange`] if they do not lie in the pgmap, and what the medium reports.
    pub fn flush(&self, at: u64, len: u64, site: Site) -> Result<(), MediaError> {
        self.check(at, len)?;
        let mut flush = || {
            self.segments(at, len).try_for_each(|part| {
                let flushed = part.placed.media().flush(part.byte(), part.len, site);
                flushed.map_err(|e| part.located(e))
            })
        };
        match &*self.pgmap().taps().all() {
            [] => flush(),
            taps => flush_through(taps, self, &(at..at + len), site, &mut flush),
        }
    }

    /// Waits until everything that this thread flushed before is in the persistence domain of every
    /// medium of the pgmap, on behalf of `site`.
    ///
    /// # Errors
    ///
    /// What a medium reports.
    pub fn fence(&self, site: Site) -> Result<(), MediaError> {
        self.pgmap().ranges().media().try_for_each(|media| media.fence(site))?;
        self.pgmap().taps().all().iter().for_each(|tap| tap.fenced(site));
        Ok(())
    }

    /// Copies in bytes that replace whole pages, poisoned ones too.
    pub(crate) fn replace(&self, at: u64, mut bytes: &[u8]) -> Result<(), MediaError> {
        self.store_anyway(at, len_of(bytes), |part| {
            let (here, rest) = bytes.split_at(in_memory(part.len));
            bytes = rest;
            part.placed.media().recover(part.byte(), here)
        })
    }

    fn store(
        &self,
        at: u64,
        len: u64,
        part: impl FnMut(&Segment<'_>) -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        self.check(at, len)?;
        self.check_not_poisoned(at, len)?;
        self.store_anyway(at, len, part)
    }

    /// Stores to the segments of a range, whatever is known of its memory.
    fn store_anyway(
        &self,
        at: u64,
        len: u64,
        mut part: impl FnMut(&Segment<'_>) -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        self.check(at, len)?;
        let shard = self.pgmap().stores().shard(at).read();
        self.check_not_frozen(at, len)?;
        let mut store =
            || self.segments(at, len).try_for_each(|p| part(&p).map_err(|e| p.located(e)));
        let stored = match &*self.pgmap().taps().all() {
            [] => store(),
            taps => store_through(taps, self, &(at..at + len), &mut store),
        };
        drop(shard);
        stored
    }

    fn check_not_poisoned(&self, at: u64, len: u64) -> Result<(), MediaError> {
        match self.first_poisoned(pages_of(at, len)) {
            Some(page) => Err(MediaError::Poisoned { at: page.byte().max(at) }),
            None => Ok(()),
        }
    }

    pub(crate) fn check_not_frozen(&self, at: u64, len: u64) -> Result<(), MediaError> {
        let mut leaves = self.pgmap().table().leaves(pages_of(at, len));
        match leaves.find(|(_, value)| value.is_frozen()) {
            Some((leaf, _)) => Err(MediaError::Frozen { at: leaf.head().byte().max(at) }),
            None => Ok(()),
        }
    }

    pub(crate) fn check(&self, at: u64, len: u64) -> Result<(), MediaError> {
        let end = at.checked_add(len);
        if end.is_none_or(|end| end > self.size().bytes()) {
            return Err(MediaError::OutOfRange { at, len });
        }
        if !self.pgmap().kind().is_addressable() {
            return Err(MediaError::NotAddressable { at });
        }
        Ok(())
    }

    fn check_u64(&self, at: u64) -> Result<(), MediaError> {
        if !at.is_multiple_of(8) {
            return Err(MediaError::Misaligned { at });
        }
        self.check(at, 8)
    }

    fn segment(&self, at: u64, len: u64) -> Segment<'_> {
        let page = PgmapOff::of_byte(at);
        let placed = self.pgmap().ranges().of(page);
        let room = page.byte() + self.contiguous(page).bytes() - at;
        Segment { placed, at, len: len.min(room) }
    }

    fn segments(&self, at: u64, len: u64) -> impl Iterator<Item = Segment<'_>> {
        let (mut at, end) = (at, at + len);
        std::iter::from_fn(move || {
            let segment = (at < end).then(|| self.segment(at, end - at))?;
            at += segment.len;
            Some(segment)
        })
    }
}

/// The pages that hold a range of bytes.
fn pages_of(at: u64, len: u64) -> Range<PgmapOff> {
    let start = PgmapOff::of_byte(at);
    if len == 0 { start..start } else { start..PgmapOff(Pages::holding(at + len).0) }
}

pub(crate) fn len_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a slice is shorter than 2^64 bytes")
}

fn in_memory(len: u64) -> usize {
    usize::try_from(len).expect("a part of a slice is as long as memory at most")
}
