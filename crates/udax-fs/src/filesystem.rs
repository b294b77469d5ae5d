//! x
use crate::*;
use udax_dev::DaxDevice;
use udax_mm::sync::Arc;
use udax_mm::{FaultService, Pages, Wait};
use udax_mapping::FilePin;
/// x
#[derive(Clone, Debug, Default)]
pub struct FormatOptions { /// x
    pub label: String, /// None: a random one
    pub uuid: Option<[u8; 16]> }
/// x
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MountMode { /// x
    ReadWrite, /// writes nothing, not even recovery; refused if recovery is needed
    ReadOnly }
/// What mounting found
#[derive(Clone, Debug, Default)]
pub struct Recovered { /// a previous session did not close the pool (its pid)
    pub unclean: Option<u32>, /// ... and the host has rebooted since
    pub rebooted: bool, /// the superblock was bad and its mirror was used (and written back)
    pub mirror_used: bool, /// journal transaction replayed (changed something)
    pub replayed: bool, /// files with no name left that were freed
    pub orphans: u64, /// corrupt inodes found (read-only mount only)
    pub corrupt: Vec<Ino> }
/// x
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage { /// x
    pub total: Pages, /// x
    pub used: Pages, /// x
    pub free: Pages, /// freed, still pinned
    pub limbo: Pages, /// x
    pub inodes: u64, /// wholly free 2 MiB blocks
    pub huge_free: u64 }
/// A mounted filesystem
#[derive(Debug)]
pub struct Filesystem(());
#[allow(unused_variables)]
impl Filesystem {
    /// Smallest device, 2 MiB
    pub const MIN_PAGES: Pages = Pages(512);
    /// writes an empty filesystem; refuses a device that holds one already? (no: the facade checks)
    pub fn format(device: Arc<dyn DaxDevice>, options: &FormatOptions) -> Result<(), FsError> { todo!() }
    /// recovers; `service` None: mappings are eager
    pub fn mount(device: Arc<dyn DaxDevice>, mode: MountMode, service: Option<Arc<FaultService>>) -> Result<(Arc<Filesystem>, Recovered), FsError> { todo!() }
    /// marks the session closed. (Dropping without it = an unclean end.)
    pub fn unmount(&self) -> Result<(), FsError> { todo!() }
    /// offline check of everything; writes nothing. Err only if it cannot even start
    pub fn check(device: Arc<dyn DaxDevice>) -> Result<CheckReport, FsError> { todo!() }
    /// walk of the live state: media against memory (allocator, inode cache, directories, mappings, page words)
    pub fn verify(&self) -> Result<(), String> { todo!() }
    /// x
    pub fn uuid(&self) -> [u8; 16] { todo!() }
    /// x
    pub fn label(&self) -> String { todo!() }
    /// x
    pub fn usage(&self) -> Usage { todo!() }
    /// root directory
    pub fn root(&self) -> Result<Arc<Inode>, FsError> { todo!() }
    /// an inode by number (fuse)
    pub fn inode(&self, ino: Ino) -> Result<Arc<Inode>, FsError> { todo!() }
    /// fence everything flushed
    pub fn sync(&self) -> Result<(), FsError> { todo!() }
    /// pins by file: (ino, pin), and pins on pages that belong to no file any more (None)
    pub fn pins(&self) -> Vec<(Option<Ino>, FilePin)> { todo!() }
    /// kills the device below: zaps every mapping (PRE_REMOVE), refuses new access, drains
    pub fn kill_device(&self, wait: Wait) -> Result<(), udax_mm::StillBusy> { todo!() }

    /// x
    pub fn lookup(&self, dir: &Arc<Inode>, name: &Name) -> Result<Arc<Inode>, FsError> { todo!() }
    /// all entries from cookie on (cookie of an entry = where to continue after it); without . and ..
    pub fn read_dir(&self, dir: &Arc<Inode>, cookie: u64, max: usize) -> Result<Vec<DirEntry>, FsError> { todo!() }
    /// parent directory of a directory (root: itself)
    pub fn parent(&self, dir: &Arc<Inode>) -> Result<Arc<Inode>, FsError> { todo!() }
    /// Kind::File or Kind::Dir; Exists if the name is taken
    pub fn create(&self, dir: &Arc<Inode>, name: &Name, kind: Kind, mode: u32, uid: u32, gid: u32) -> Result<Arc<Inode>, FsError> { todo!() }
    /// x
    pub fn symlink(&self, dir: &Arc<Inode>, name: &Name, target: &[u8], uid: u32, gid: u32) -> Result<Arc<Inode>, FsError> { todo!() }
    /// x
    pub fn link(&self, inode: &Arc<Inode>, dir: &Arc<Inode>, name: &Name) -> Result<(), FsError> { todo!() }
    /// removes a name of a file or symlink; what is pinned goes to limbo; open handles keep the file
    pub fn unlink(&self, dir: &Arc<Inode>, name: &Name) -> Result<(), FsError> { todo!() }
    /// x
    pub fn rmdir(&self, dir: &Arc<Inode>, name: &Name) -> Result<(), FsError> { todo!() }
    /// x
    pub fn rename(&self, from_dir: &Arc<Inode>, from: &Name, to_dir: &Arc<Inode>, to: &Name, mode: RenameMode) -> Result<(), FsError> { todo!() }
}
