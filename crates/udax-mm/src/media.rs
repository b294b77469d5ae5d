//! Media: what memory is made of.
use crate::sync::Arc;
use crate::*;
use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::panic::Location;
use std::path::Path;
/// The source line that asked for a flush or a fence; the recorder names it, tests leave it out.
pub type Site = &'static Location<'static>;
/// x
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Persistence { /// survives the process, not power: flush and fence cost nothing
    Process, /// flush + fence of cache lines
    CacheLines, /// msync of a page-cache file
    Msync, /// volatile: gone with the last handle (memfd)
    Volatile }
/// What was discovered of a medium
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MediaFacts { /// x
    pub persistence: Persistence, /// bytes of a host page behind it
    pub host_page: usize, /// the host kernel registers it for I/O (io_uring, RDMA, CUDA)
    pub is_registrable: bool, /// x
    pub is_writable: bool }
/// x
#[derive(Debug, thiserror::Error)]
pub enum MediaError { /// SIGBUS while copying
    #[error("the medium failed at byte {at}")]
    Fault { /// x
        at: u64 }, /// x
    #[error("bytes {at}..+{len} lie outside the medium")]
    OutOfRange { /// x
        at: u64, /// x
        len: u64 }, /// x
    #[error("the medium is read-only")]
    ReadOnly, /// x
    #[error("{0}")]
    Io(#[from] std::io::Error) }
/// The seam: every load, store, flush and fence of a medium goes through here.
pub trait Media: Send + Sync + Debug {
    /// bytes, a multiple of the page size
    fn len(&self) -> u64;
    /// x
    fn facts(&self) -> MediaFacts;
    /// x
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MediaError>;
    /// x
    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError>;
    /// x
    fn zero(&self, at: u64, len: u64) -> Result<(), MediaError>;
    /// x
    fn load_u64(&self, at: u64) -> Result<u64, MediaError>;
    /// x
    fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError>;
    /// x
    fn flush(&self, at: u64, len: u64, site: Site) -> Result<(), MediaError>;
    /// x
    fn fence(&self, site: Site) -> Result<(), MediaError>;
    /// The file to map for user mappings (media byte 0 = file byte `1`), or None where there is none (recorder, image).
    fn backing(&self) -> Option<(BorrowedFd<'_>, u64)> { None }
    /// punches the host file so that freed pages cost no host memory (best effort)
    fn discard(&self, at: u64, len: u64) -> Result<(), MediaError> { let _ = (at, len); Ok(()) }
}
/// A run of whole pages of one medium
#[derive(Clone, Debug)]
pub struct MediaRange { /// x
    pub media: Arc<dyn Media>, /// first byte, page aligned
    pub start: u64, /// x
    pub pages: Pages }
/// A plain file (or any mappable file), mapped shared.
#[derive(Debug)]
pub struct FileMedia(());
/// What a file medium promises
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability { /// safe against the death of the process at any instruction
    Process, /// and against power loss: a fence is an msync
    Power }
#[allow(unused_variables)]
impl FileMedia {
    /// Creates a sparse file of `len` bytes (fails if it exists).
    pub fn create(path: &Path, len: u64, durability: Durability) -> Result<FileMedia, MediaError> { todo!() }
    /// Opens and maps an existing file
    pub fn open(path: &Path, durability: Durability) -> Result<FileMedia, MediaError> { todo!() }
    /// x
    pub fn open_read_only(path: &Path) -> Result<FileMedia, MediaError> { todo!() }
    /// A memfd (volatile) of `len` bytes
    pub fn memfd(name: &str, len: u64) -> Result<FileMedia, MediaError> { todo!() }
    /// from an open file
    pub fn from_file(file: std::fs::File, durability: Durability) -> Result<FileMedia, MediaError> { todo!() }
}
