//! What several devices promise together.

use crate::Table;
use udax_mm::media::Persistence;
use udax_mm::{MediaFacts, PAGE_SIZE};

impl Table {
    /// The weakest of what the devices below promise (I-66). A table without a device promises
    /// memory that is gone with the process.
    pub fn facts(&self) -> MediaFacts {
        let facts = self.below().iter().map(|below| below.device.facts());
        facts.reduce(MediaFacts::weakest).unwrap_or(MediaFacts {
            persistence: Persistence::Volatile,
            host_page: PAGE_SIZE,
            is_registrable: false,
            is_writable: true,
            is_dax: false,
        })
    }
}
