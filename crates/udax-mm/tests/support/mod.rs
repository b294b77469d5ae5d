//! What the tests of interleavings share: a medium without bytes, and the description of a pin.
//!
//! Real memory would be one more thing that they have to set up for each of their executions.

#![allow(dead_code, reason = "no test target uses all of it")]

use std::time::Instant;
use udax_mm::media::{Persistence, Site};
use udax_mm::sync::atomic::{AtomicU64, Ordering};
use udax_mm::{Active, Media, MediaError, MediaFacts, PinInfo, PinKind, PinOwner, PinTerm};

/// Counts stores instead of keeping bytes.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64, Active);

impl Counter {
    pub(crate) fn stores(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Media for Counter {
    fn len(&self) -> u64 {
        u64::MAX
    }
    fn facts(&self) -> MediaFacts {
        let persistence = Persistence::Volatile;
        MediaFacts {
            persistence,
            host_page: 4096,
            is_registrable: false,
            is_writable: true,
            is_dax: false,
        }
    }
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), MediaError> {
        Ok(())
    }
    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        self.zero(at, u64::try_from(bytes.len()).expect("a slice is short"))
    }
    fn zero(&self, _: u64, _: u64) -> Result<(), MediaError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn load_u64(&self, _: u64) -> Result<u64, MediaError> {
        Ok(0)
    }
    fn store_u64(&self, at: u64, _: u64) -> Result<(), MediaError> {
        self.zero(at, 8)
    }
    fn flush(&self, _: u64, _: u64, _: Site) -> Result<(), MediaError> {
        Ok(())
    }
    fn fence(&self, _: Site) -> Result<(), MediaError> {
        Ok(())
    }
    fn active(&self) -> &Active {
        &self.1
    }
}

pub(crate) fn info() -> PinInfo {
    let owner = PinOwner { process: 1, connection: 0, label: "test".into() };
    PinInfo { owner, since: Instant::now(), kind: PinKind::Read, term: PinTerm::Short }
}
