//! Pins: references that others wait for, with an owner and a time.
use crate::*;
use std::ops::Range;
use std::sync::Arc as StdArc;
use std::time::Instant;
/// Who pins. A value, so that a lease can outlive a call and cross a process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PinOwner { /// pid
    pub process: u32, /// connection (0: this process)
    pub connection: u64, /// free text
    pub label: StdArc<str> }
/// What the device does with it
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PinKind { /// x
    Read, /// x
    Write }
/// how long
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PinTerm { /// ends with the call
    Short, /// lease
    Long }
/// What is known of a pin
#[derive(Clone, Debug)]
pub struct PinInfo { /// x
    pub owner: PinOwner, /// x
    pub since: Instant, /// x
    pub kind: PinKind, /// x
    pub term: PinTerm }
/// a pin as the pgmap lists it
#[derive(Clone, Debug)]
pub struct PinRecord { /// x
    pub pages: Range<PgmapOff>, /// x
    pub info: PinInfo }
/// A pinned folio; drop = unpin. Not Clone.
#[derive(Debug)]
pub struct PinnedFolio(());
impl PinnedFolio {
    /// x
    pub fn head(&self) -> PgmapOff { todo!() }
    /// x
    pub fn order(&self) -> Order { todo!() }
    /// x
    pub fn pages(&self) -> Range<PgmapOff> { todo!() }
    /// x
    pub fn pgmap(&self) -> &PgmapRef { todo!() }
    /// x
    pub fn info(&self) -> &PinInfo { todo!() }
}
