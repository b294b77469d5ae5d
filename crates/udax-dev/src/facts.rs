//! What several devices promise together.

use crate::Table;
use udax_mm::media::Persistence;
use udax_mm::{MediaFacts, PAGE_SIZE};

impl Table {
    /// The weakest of what the devices below promise (I-66). A table without a device promises
    /// memory that is gone with the process.
    pub fn facts(&self) -> MediaFacts {
        let facts = self.below().iter().map(|below| below.device.facts());
        facts.reduce(weakest).unwrap_or(MediaFacts {
            persistence: Persistence::Volatile,
            host_page: PAGE_SIZE,
            is_registrable: false,
            is_writable: true,
            is_dax: false,
        })
    }
}

/// What two devices both promise.
pub(crate) fn weakest(one: MediaFacts, other: MediaFacts) -> MediaFacts {
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
