//! Page maps: memory from one or several media under one lifetime.
use crate::sync::Arc;
use crate::*;
use std::ops::Range;

/// What kind of memory a page map describes (`enum memory_type` of Linux).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MemoryType { /// Memory of a filesystem: idle at zero.
    FsDax, /// A device mapped as it is.
    Generic }
/// Live, dying or dead; Clone is another strong handle (keeps the *media mapped*, not the pgmap live).
#[derive(Clone, Debug)]
pub struct Pgmap { inner: Arc<()> }
/// Proof that a pgmap is live. Clone = another live reference. Drop lets `kill` drain.
#[derive(Clone, Debug)]
pub struct PgmapRef { inner: Arc<()> }
/// Proof of a drained pgmap
#[must_use] #[derive(Debug)]
pub struct Dead(());
/// kill ran out of time
#[derive(Debug, thiserror::Error)]
#[error("pgmap still busy")]
pub struct StillBusy { /// pins that hold it
    pub pins: Vec<PinRecord>, /// first non-idle pages, at most 64
    pub pages: Vec<PgmapOff> }
/// new() failed
#[derive(Debug, thiserror::Error)]
#[error("pgmap")]
pub enum PgmapError { /// no range given
    Empty, /// (also: Misaligned, Overlap of ranges of one medium, Media(MediaError))
    Media(#[from] MediaError) }
/// Why a request failed
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("request")]
pub enum RequestError { /// x
    OutOfRange(Range<PgmapOff>), /// x
    Misaligned { /// x
        offset: PgmapOff, /// x
        order: Order }, /// x
    Busy(PgmapOff), /// x
    Poisoned(PgmapOff) }

#[allow(unused_variables)]
impl Pgmap {
    /// x
    pub fn new(ranges: Vec<MediaRange>, kind: MemoryType) -> Result<Pgmap, PgmapError> { todo!() }
    /// None from kill onward
    pub fn try_get_live(&self) -> Option<PgmapRef> { todo!() }
    /// Refuses new references at once, then waits until the last one is gone. Idempotent: may be called again after StillBusy.
    pub fn kill(&self, wait: Wait) -> Result<Dead, StillBusy> { todo!() }
    /// total pages
    pub fn size(&self) -> Pages { todo!() }
    /// every pin held now, oldest first
    pub fn pins(&self) -> Vec<PinRecord> { todo!() }
    /// wakes every waiter whose PgmapRef/pin state may have changed. Checks every I-nn that can be checked from the words: levels agree, at quiescence.
    pub fn verify(&self) -> Result<(), String> { todo!() }
    /// facts of the media (combined: weakest persistence, smallest host page)
    pub fn facts(&self) -> MediaFacts { todo!() }
}
#[allow(unused_variables)]
impl PgmapRef {
    /// x
    pub fn pgmap(&self) -> &Pgmap { todo!() }
    /// total pages
    pub fn size(&self) -> Pages { todo!() }
    /// Claims idle pages, all or none.
    pub fn claim(&self, pages: Range<PgmapOff>) -> Result<IdleSpan, RequestError> { todo!() }
    /// Claims what is idle, and leaves word on the rest: each page somebody still counts is handed to `sink` with its last put,
    /// claimed, so that nobody can request it between. Returns the spans idle now and the ranges in limbo.
    pub fn claim_or_defer(&self, pages: Range<PgmapOff>, sink: &Arc<dyn LimboSink>) -> Result<(Vec<IdleSpan>, Vec<Range<PgmapOff>>), RequestError> { todo!() }
    /// claim + activate: each folio leaves with one reference.
    pub fn request_folios(&self, at: PgmapOff, order: Order, nr: u32) -> Result<FolioSpan, RequestError> { todo!() }
    /// request of one
    pub fn request_folio(&self, at: PgmapOff, order: Order) -> Result<Folio, RequestError> { todo!() }
    /// The folio that covers `at`, only if somebody counts it already (never raises 0 to 1). None also for a claimed page.
    pub fn get_folio(&self, at: PgmapOff) -> Option<Folio> { todo!() }
    /// Waits until no page of `pages` is pinned (not: until idle). Err(first pinned page) when `wait` runs out.
    pub fn wait_unpinned(&self, pages: Range<PgmapOff>, wait: Wait) -> Result<(), PgmapOff> { todo!() }
    /// first pinned page in range
    pub fn first_pinned(&self, pages: Range<PgmapOff>) -> Option<PgmapOff> { todo!() }
    /// The pins that cover any page of the range.
    pub fn pins_in(&self, pages: Range<PgmapOff>) -> Vec<PinRecord> { todo!() }
    /// How far the memory from `at` on is contiguous in one medium (a user mapping and an order-9 folio must not cross). 
    pub fn contiguous(&self, at: PgmapOff) -> Pages { todo!() }
    /// Where the page lives: the medium and the page offset inside it, for Vma::map.
    pub fn locate(&self, at: PgmapOff) -> (&Arc<dyn Media>, u64 /* byte in medium */) { todo!() }

    /// Copies out bytes from byte `from` of the pgmap; may cross range boundaries.
    pub fn read(&self, from: u64, into: &mut [u8]) -> Result<(), MediaError> { todo!() }
    /// Copies in (ordinary stores; not persistent until flushed and fenced).
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> { todo!() }
    /// zero bytes
    pub fn zero(&self, at: u64, len: u64) -> Result<(), MediaError> { todo!() }
    /// aligned 8-byte atomic load
    pub fn load_u64(&self, at: u64) -> Result<u64, MediaError> { todo!() }
    /// aligned 8-byte atomic store (little endian on media)
    pub fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> { todo!() }
    /// Starts the lines of [at, at+len) on their way to the persistence domain, on behalf of `site`.
    pub fn flush(&self, at: u64, len: u64, site: media::Site) -> Result<(), MediaError> { todo!() }
    /// Waits until everything flushed before is in the persistence domain (all media of the pgmap), on behalf of `site`.
    pub fn fence(&self, site: media::Site) -> Result<(), MediaError> { todo!() }
}
/// Two handles are equal if they are of one page map.
impl PartialEq for Pgmap {
    fn eq(&self, other: &Pgmap) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}
impl Eq for Pgmap {}
