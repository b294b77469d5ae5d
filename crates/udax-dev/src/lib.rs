//! DAX devices over page maps, and tables that join several devices into one.
//!
//! A device gives out spans of live page maps ([`DaxSpan`]); it knows nothing of folios' users and files.
#![forbid(unsafe_code)]
use std::fmt::Debug;
use udax_mm::sync::Arc;
use udax_mm::*;

/// An address in one live pgmap: no bytes, no state. Clone = another live reference.
#[derive(Clone, Debug)]
pub struct DaxSpan(());
/// Why direct access was refused
#[derive(Debug, thiserror::Error)]
#[error("access")]
pub enum AccessError { /// killed
    Dead, /// x
    OutOfRange { /// x
        at: DeviceOff, /// x
        size: Pages } }
/// Told before a device is taken away (PRE_REMOVE). Must take back every translation; pins are waited for by the device.
pub trait Holder: Send + Sync {
    /// x
    fn removing(&self);
}
/// A DAX device
pub trait DaxDevice: Send + Sync + Debug {
    /// x
    fn size(&self) -> Pages;
    /// 1..=max pages, contiguous in one medium
    fn direct_access(&self, at: DeviceOff, max: Pages) -> Result<DaxSpan, AccessError>;
    /// Waits until all flushed before is persistent, on every pgmap below.
    fn fence(&self, site: media::Site) -> Result<(), IoError>;
    /// combined facts
    fn facts(&self) -> MediaFacts;
    /// the page maps below, for pins() and kill
    fn pgmaps(&self) -> Vec<Pgmap>;
    /// Where a page of one of the pgmaps lies on this device (for limbo and pins), None if not here
    fn device_off(&self, pgmap: &Pgmap, at: PgmapOff) -> Option<DeviceOff>;
    /// who is told of removal; second holder refused
    fn hold(&self, holder: Arc<dyn Holder>) -> Result<(), HolderError>;
    /// x
    fn release(&self);
    /// PRE_REMOVE to the holder, refuses new access at once, drains.
    fn kill(&self, wait: Wait) -> Result<(), StillBusy>;
}
/// x
#[derive(Debug, thiserror::Error)]
#[error("the device has a holder already")]
pub struct HolderError;
/// byte access failed
#[derive(Debug, thiserror::Error)]
pub enum IoError { /// x
    #[error(transparent)]
    Access(#[from] AccessError), /// x
    #[error(transparent)]
    Media(#[from] MediaError) }
#[allow(unused_variables)]
impl DaxSpan {
    /// x
    pub fn pgmap(&self) -> &PgmapRef { todo!() }
    /// first page
    pub fn at(&self) -> PgmapOff { todo!() }
    /// x
    pub fn pages(&self) -> Pages { todo!() }
    /// the part [from, from+pages)
    pub fn slice(&self, from: Pages, pages: Pages) -> DaxSpan { todo!() }
}
/// A device over one whole pgmap
#[derive(Debug)]
pub struct PgmapDevice(());
#[allow(unused_variables)]
impl PgmapDevice {
    /// x
    pub fn new(pgmap: Pgmap) -> PgmapDevice { todo!() }
}
/// One line of a table: `pages` of `device` from `from` on appear at `at`
#[derive(Debug)]
pub struct LinearTarget { /// x
    pub at: DeviceOff, /// x
    pub pages: Pages, /// x
    pub device: Arc<dyn DaxDevice>, /// x
    pub from: DeviceOff }
/// Several devices, joined end to end
#[derive(Debug)]
pub struct Linear(());
/// Bad table (Empty, Gap, Overlap, OutOfRange, Zero length)
#[derive(Debug, thiserror::Error)]
#[error("table")]
pub enum TableError { /// x
    Empty }
#[allow(unused_variables)]
impl Linear {
    /// x
    pub fn new(table: Vec<LinearTarget>) -> Result<Linear, TableError> { todo!() }
    /// end to end in order
    pub fn concat(devices: Vec<Arc<dyn DaxDevice>>) -> Result<Linear, TableError> { todo!() }
}
/// Byte access to a device by byte offset, across spans. For metadata and copies. Clone = Arc clone.
#[derive(Clone, Debug)]
pub struct DaxBytes(());
#[allow(unused_variables)]
impl DaxBytes {
    /// x
    pub fn new(device: Arc<dyn DaxDevice>) -> DaxBytes { todo!() }
    /// x
    pub fn device(&self) -> &Arc<dyn DaxDevice> { todo!() }
    /// x
    pub fn read(&self, from: u64, into: &mut [u8]) -> Result<(), IoError> { todo!() }
    /// x
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), IoError> { todo!() }
    /// x
    pub fn zero(&self, at: u64, len: u64) -> Result<(), IoError> { todo!() }
    /// x
    pub fn load_u64(&self, at: u64) -> Result<u64, IoError> { todo!() }
    /// x
    pub fn store_u64(&self, at: u64, value: u64) -> Result<(), IoError> { todo!() }
    /// x
    #[track_caller]
    pub fn flush(&self, at: u64, len: u64) -> Result<(), IoError> { todo!() }
    /// x
    #[track_caller]
    pub fn fence(&self) -> Result<(), IoError> { todo!() }
}
