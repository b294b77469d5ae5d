//! Idle spans: the exclusive claim on pages that nobody counts.
use crate::*;
use std::ops::Range;
/// Exclusive claim; dropping retires it (pages idle again). Linear: not Clone. Holds a PgmapRef.
#[must_use]
#[derive(Debug)]
pub struct IdleSpan(());
#[allow(unused_variables)]
impl IdleSpan {
    /// x
    pub fn pages(&self) -> Range<PgmapOff> { todo!() }
    /// x
    pub fn pgmap(&self) -> &PgmapRef { todo!() }
    /// splits at `at`: (before, from at on)
    pub fn split(self, at: PgmapOff) -> (IdleSpan, IdleSpan) { todo!() }
    /// All pages become folios of `order` with one reference each. Err gives the span back if misaligned or crossing a range.
    pub fn activate(self, order: Order) -> Result<FolioSpan, (IdleSpan, RequestError)> { todo!() }
    /// zero all bytes of the span (nobody can see them)
    pub fn zero(&self) -> Result<(), MediaError> { todo!() }
}
