//! Which parts of a medium page maps describe.
//!
//! This file owns the list that each medium keeps, and the lease that takes a part off it again. A
//! page map holds its leases from its activation until it is dead, so no two of them describe one
//! page at a time (I-05), and none does after the last (Absent).

use crate::media::Media;
use crate::sync::{Arc, Mutex};
use std::collections::BTreeMap;
use std::ops::Range;

/// The parts of one medium that page maps describe at present. Whoever implements [`Media`] keeps
/// one, and a medium in front of another answers with that of the other.
#[derive(Debug, Default)]
pub struct Active(Mutex<BTreeMap<u64, u64>>);

/// A part of a medium that one page map describes; until it is dropped, nobody else does.
#[derive(Debug)]
pub(crate) struct Lease {
    media: Arc<dyn Media>,
    start: u64,
}

impl Active {
    /// Adds bytes to the list, or returns the first part of it that overlaps them: the whole ranges
    /// are compared, not their ends.
    fn add(&self, bytes: &Range<u64>) -> Result<(), Range<u64>> {
        let mut active = self.0.lock();
        let mut parts = active.iter().map(|(&start, &end)| start..end);
        if let Some(taken) = parts.find(|part| part.start < bytes.end && bytes.start < part.end) {
            return Err(taken);
        }
        active.insert(bytes.start, bytes.end);
        Ok(())
    }

    fn remove(&self, start: u64) {
        let removed = self.0.lock().remove(&start);
        assert!(removed.is_some(), "I-05: a part of a medium is given back once");
    }
}

impl Lease {
    /// Takes a part of `media` for one page map.
    ///
    /// # Errors
    ///
    /// The first part that another page map describes, if they overlap.
    pub(crate) fn new(media: &Arc<dyn Media>, bytes: &Range<u64>) -> Result<Lease, Range<u64>> {
        media.active().add(bytes)?;
        Ok(Lease { media: Arc::clone(media), start: bytes.start })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.media.active().remove(self.start);
    }
}
