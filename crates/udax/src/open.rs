//! How a pool is created and opened: the options, and the way from a host file to a mounted
//! filesystem. Owns no state.

use std::fs::File as HostFile;
use std::io;
use std::path::Path;

use udax_dev::{DaxDevice, Mapped};
use udax_fs::{
    CheckReport, Filesystem, FormatOptions, FsError, MountMode, Owners, RecordedPin, SetAttr,
};
use udax_mm::media::{Durability, FileMedia};
use udax_mm::sync::Arc;
use udax_mm::{MediaError, MemoryType, Pages};

use crate::error::{At, Cause, Error, Result};
use crate::faulting;
use crate::kind::ErrorKind;
use crate::lock::{LockMode, PoolLock};
use crate::paths::caller;
use crate::pool::Pool;
use crate::stack::{self, How, Opened};

/// How a pool is created.
///
/// ```
/// use udax::{CreateOptions, Durability};
/// let options = CreateOptions::new().label("weights").durability(Durability::Power);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct CreateOptions {
    label: String,
    durability: Durability,
    is_forced: bool,
}

/// How an existing pool is opened.
///
/// ```
/// use udax::OpenPool;
/// let options = OpenPool::new().read_only(true);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct OpenPool {
    is_read_only: bool,
    durability: Durability,
    is_eager: bool,
}

impl CreateOptions {
    /// The most bytes of a label.
    pub const MAX_LABEL: usize = 64;

    /// No label, safe against the death of the process.
    pub fn new() -> CreateOptions {
        CreateOptions { label: String::new(), durability: Durability::Process, is_forced: false }
    }

    /// Sets the label, a free text of at most [`CreateOptions::MAX_LABEL`] bytes that `df` shows.
    #[must_use]
    pub fn label(mut self, label: &str) -> CreateOptions {
        label.clone_into(&mut self.label);
        self
    }

    /// Sets whether a pool that is on the devices of a table already is lost.
    #[must_use]
    pub fn force(mut self, force: bool) -> CreateOptions {
        self.is_forced = force;
        self
    }

    /// Sets what a completed call survives.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> CreateOptions {
        self.durability = durability;
        self
    }
}

impl Default for CreateOptions {
    fn default() -> CreateOptions {
        CreateOptions::new()
    }
}

impl OpenPool {
    /// For reading and writing, safe against the death of the process, mappings lazy where the host
    /// permits userfaultfd.
    pub fn new() -> OpenPool {
        OpenPool { is_read_only: false, durability: Durability::Process, is_eager: false }
    }

    /// Sets whether nothing may be written; several processes may then have the pool open.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> OpenPool {
        self.is_read_only = read_only;
        self
    }

    /// Sets what a completed call survives.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> OpenPool {
        self.durability = durability;
        self
    }

    /// Sets whether mappings are filled when they are made, even if they ask to be lazy;
    /// [`Mapping::why_eager`](crate::Mapping::why_eager) then says so.
    #[must_use]
    pub fn eager_mappings(mut self, eager: bool) -> OpenPool {
        self.is_eager = eager;
        self
    }
}

impl Default for OpenPool {
    fn default() -> OpenPool {
        OpenPool::new()
    }
}

/// Creates the host file `path` with an empty pool in it; removes it again if that fails.
pub(crate) fn create(path: &Path, size: u64, options: &CreateOptions) -> Result<Pool> {
    check_size(size).at(path)?;
    check_label(path, options)?;
    let host = HostFile::options().read(true).write(true).create_new(true).open(path);
    let host = match host {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::new(path, Cause::PoolExists));
        }
        host => host.at(path)?,
    };
    format_file(path, &host, size, options).inspect_err(|_| {
        // The error that made this necessary is the one worth reporting.
        let _ = std::fs::remove_file(path);
    })
}

/// Creates an empty pool on the devices of the table `path`.
pub(crate) fn create_on_table(path: &Path, options: &CreateOptions) -> Result<Pool> {
    check_label(path, options)?;
    let lock = Some(LockMode::Exclusive);
    let how = How { lock, is_writable: true, ..how(options.durability) };
    let opened = stack::open_table(path, &how)?;
    if !options.is_forced && holds_pool(&opened.device) {
        return Err(Error::new(path, Cause::HoldsPool));
    }
    check_size(opened.device.size().bytes()).at(path)?;
    let format = FormatOptions { label: options.label.clone(), uuid: None };
    Filesystem::format(Arc::clone(&opened.device), &format).at(path)?;
    let pool = mount(path, opened.device, opened.locks, MountMode::ReadWrite, false)?;
    give_to_caller(&pool)?;
    Ok(pool)
}

/// Opens the pool in the host file `path`, or on the devices of a table.
pub(crate) fn open(path: &Path, options: &OpenPool) -> Result<Pool> {
    let lock = if options.is_read_only { LockMode::Shared } else { LockMode::Exclusive };
    let is_writable = !options.is_read_only;
    let how = How { lock: Some(lock), is_writable, ..how(options.durability) };
    let opened = open_device(path, &how)?;
    let mode = if options.is_read_only { MountMode::ReadOnly } else { MountMode::ReadWrite };
    mount(path, opened.device, opened.locks, mode, options.is_eager)
}

/// Makes a pool in volatile memory that only this process sees.
pub(crate) fn create_in_memory(name: &str, size: u64) -> Result<Pool> {
    let path = Path::new(name);
    check_size(size).at(path)?;
    let media = FileMedia::memfd(name, Pages::holding(size).bytes()).at(path)?;
    let device = stack::device(media, MemoryType::FsDax).at(path)?;
    let options = FormatOptions { label: name.to_owned(), uuid: None };
    Filesystem::format(Arc::clone(&device), &options).at(path)?;
    let pool = mount(path, device, Vec::new(), MountMode::ReadWrite, false)?;
    give_to_caller(&pool)?;
    Ok(pool)
}

/// Walks everything in the pool at `path` without opening it.
pub(crate) fn check(path: &Path) -> Result<CheckReport> {
    let how = How { lock: Some(LockMode::Shared), ..how(Durability::Process) };
    let opened = open_device(path, &how)?;
    Filesystem::check(opened.device).at(path)
}

/// The long-term pins that the pool at `path` names, whoever has it open.
pub(crate) fn recorded_pins(path: &Path) -> Result<Vec<RecordedPin>> {
    let unlocked = how(Durability::Process);
    let locked = How { lock: Some(LockMode::Shared), ..unlocked.clone() };
    // Locked while the table is read, if nobody writes to the pool: then nobody holds a pin either.
    let (opened, owners) = match open_device(path, &locked) {
        Err(error) if error.kind() == ErrorKind::InUse => {
            (open_device(path, &unlocked)?, Owners::MayLive)
        }
        opened => (opened?, Owners::AreGone),
    };
    Filesystem::recorded_pins(opened.device, owners).at(path)
}

/// Opens what is at `path`: a host file, or the devices of a table.
fn open_device(path: &Path, how: &How) -> Result<Opened> {
    if stack::is_table(path) {
        return stack::open_table(path, how);
    }
    let host = HostFile::options().read(true).write(how.is_writable).open(path).at(path)?;
    refuse_directory(&host).at(path)?;
    let lock = how.lock.map(|mode| PoolLock::acquire(&host, mode)).transpose().at(path)?;
    let media = media(host, how.durability).at(path)?;
    let device = stack::device(media, how.kind.clone()).at(path)?;
    Ok(Opened { device, locks: lock.into_iter().collect() })
}

/// For reading, by a filesystem, with others.
fn how(durability: Durability) -> How {
    How { kind: MemoryType::FsDax, durability, lock: None, is_writable: false }
}

/// Whether a pool is on a device, or on any device below its table.
pub(crate) fn holds_pool(device: &Arc<dyn DaxDevice>) -> bool {
    let table = device.as_mapped().and_then(Mapped::table);
    let lines = table.iter().flat_map(|table| table.lines());
    let mut members = lines.flat_map(|line| line.target.members());
    Filesystem::is_on(device) || members.any(|member| holds_pool(&member.device))
}

fn check_label(path: &Path, options: &CreateOptions) -> Result<()> {
    if options.label.len() > CreateOptions::MAX_LABEL {
        return Err(Error::new(path, Cause::InvalidInput("a label has at most 64 bytes")));
    }
    Ok(())
}

fn format_file(path: &Path, host: &HostFile, size: u64, options: &CreateOptions) -> Result<Pool> {
    let lock = PoolLock::acquire(host, LockMode::Exclusive).at(path)?;
    host.set_len(Pages::holding(size).bytes()).at(path)?;
    let media = FileMedia::from_file(host.try_clone().at(path)?, options.durability).at(path)?;
    let device = stack::device(media, MemoryType::FsDax).at(path)?;
    let format = FormatOptions { label: options.label.clone(), uuid: None };
    Filesystem::format(Arc::clone(&device), &format).at(path)?;
    let pool = mount(path, device, vec![lock], MountMode::ReadWrite, false)?;
    give_to_caller(&pool)?;
    Ok(pool)
}

/// Makes the root directory that of who creates the pool, who could not write to it over a mount
/// otherwise.
fn give_to_caller(pool: &Pool) -> Result<()> {
    let (uid, gid) = caller();
    let own = SetAttr { uid: Some(uid), gid: Some(gid), ..SetAttr::default() };
    let root = pool.filesystem().root();
    root.and_then(|root| root.set_attr(&own)).map(drop).at(pool.path())
}

/// Mounts the filesystem on a device.
pub(crate) fn mount(
    path: &Path,
    device: Arc<dyn DaxDevice>,
    locks: Vec<PoolLock>,
    mode: MountMode,
    is_eager: bool,
) -> Result<Pool> {
    let (service, facts) = (faulting::service(is_eager), device.facts());
    let (service, why_eager) = (service.as_ref().ok().cloned(), service.err());
    let (filesystem, recovered) = Filesystem::mount(device, mode, service).at(path)?;
    Ok(Pool::new(path, filesystem, recovered, facts, locks, why_eager))
}

/// Maps a file that should hold a pool, for writing if it is open for that.
fn media(host: HostFile, durability: Durability) -> Result<FileMedia, Cause> {
    let len = host.metadata()?.len();
    FileMedia::from_file(host, durability).map_err(|error| match error {
        MediaError::Empty | MediaError::PartialPage { .. } => Cause::PartialPages(len),
        error => error.into(),
    })
}

fn check_size(size: u64) -> Result<(), Cause> {
    if size == 0 {
        return Err(Cause::InvalidInput("a pool of size zero holds nothing; give a size"));
    }
    if size > u64::MAX / 2 {
        return Err(Cause::InvalidInput("no host file can be that large"));
    }
    let (min, found) = (Filesystem::MIN_PAGES, Pages::holding(size));
    if found < min {
        return Err(FsError::TooSmall { min, found }.into());
    }
    Ok(())
}

fn refuse_directory(host: &HostFile) -> Result<(), Cause> {
    if host.metadata()?.is_dir() {
        return Err(FsError::IsADirectory.into());
    }
    Ok(())
}
