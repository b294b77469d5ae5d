//! How a device is opened: the options, and the way from a host file to a device. Owns no state.

use std::fs::File as HostFile;
use std::path::Path;

use udax_dev::DaxDevice;
use udax_mm::media::{Durability, FileMedia};
use udax_mm::sync::{Arc, Weak};
use udax_mm::{Media, MemoryType, Order};

use super::core::Core;
use super::refused::DevDaxError;
use super::{DevDax, Inner};
use crate::error::{At, Cause, Result};
use crate::faulting::{Service, service};
use crate::lock::{LockMode, PoolLock};
use crate::stack::{self, How};

/// How a device is opened.
///
/// ```
/// use udax::{DevDax, OpenDevDax, Order};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("device");
/// std::fs::File::create_new(&path)?.set_len(4 << 20)?;
///
/// let device = DevDax::open(&path, &OpenDevDax::new().alignment(Order::Base))?;
/// device.write_at(b"raw", 4095)?;
/// assert_eq!(std::fs::read(&path)?[4095..4098], *b"raw");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct OpenDevDax {
    alignment: Order,
    durability: Durability,
    is_eager: bool,
}

impl OpenDevDax {
    /// With an alignment of 2 MiB, safe against the death of the process, mappings lazy where the host
    /// permits userfaultfd.
    pub fn new() -> OpenDevDax {
        OpenDevDax { alignment: Order::Pmd, durability: Durability::Process, is_eager: false }
    }

    /// Sets the size of the folios.
    #[must_use]
    pub fn alignment(mut self, alignment: Order) -> OpenDevDax {
        self.alignment = alignment;
        self
    }

    /// Sets what a completed call survives.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> OpenDevDax {
        self.durability = durability;
        self
    }

    /// Sets whether mappings are filled when they are made, even if they ask to be lazy;
    /// [`Mapping::why_eager`](crate::Mapping::why_eager) then says so.
    #[must_use]
    pub fn eager_mappings(mut self, eager: bool) -> OpenDevDax {
        self.is_eager = eager;
        self
    }
}

impl Default for OpenDevDax {
    fn default() -> OpenDevDax {
        OpenDevDax::new()
    }
}

pub(super) fn open(path: &Path, options: &OpenDevDax) -> Result<DevDax> {
    if stack::is_table(path) {
        let (kind, lock) = (MemoryType::Generic(options.alignment), Some(LockMode::Exclusive));
        let how = How { kind, durability: options.durability, lock, is_writable: true };
        let opened = stack::open_table(path, &how)?;
        return on_device(path, opened.device, opened.locks, service(options.is_eager));
    }
    let host = HostFile::options().read(true).write(true).open(path).at(path)?;
    let lock = PoolLock::acquire(&host, LockMode::Exclusive).at(path)?;
    let media = FileMedia::from_file(host, options.durability).at(path)?;
    let device = device(media, options.alignment).at(path)?;
    on_device(path, device, vec![lock], service(options.is_eager))
}

pub(super) fn create_in_memory(name: &str, size: u64, alignment: Order) -> Result<DevDax> {
    let path = Path::new(name);
    check_size(size, alignment).at(path)?;
    let media = FileMedia::memfd(name, size).at(path)?;
    on_device(path, device(media, alignment).at(path)?, Vec::new(), service(false))
}

pub(super) fn on_device(
    path: &Path,
    device: Arc<dyn DaxDevice>,
    locks: Vec<PoolLock>,
    service: Service,
) -> Result<DevDax> {
    device.dax().at(path)?;
    let (service, why_eager) = (service.as_ref().ok().cloned(), service.err());
    let core = Core::new(device, service).at(path)?;
    let holder: Weak<Core> = Arc::downgrade(&core);
    let hold = core.device().hold(holder).at(path)?;
    let path = path.to_owned();
    Ok(DevDax { inner: Arc::new(Inner { path, core, why_eager, _hold: hold, _locks: locks }) })
}

fn device(media: FileMedia, alignment: Order) -> Result<Arc<dyn DaxDevice>, Cause> {
    check_size(media.len(), alignment)?;
    stack::device(media, MemoryType::Generic(alignment))
}

fn check_size(size: u64, alignment: Order) -> Result<(), DevDaxError> {
    if size.is_multiple_of(alignment.pages().bytes()) {
        return Ok(());
    }
    Err(DevDaxError::Misaligned { what: "end", at: size, alignment })
}
