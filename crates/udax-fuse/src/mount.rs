//! Mounting and unmounting. Owns the options, the checks before, and the life of a session.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use fuser::{Config, MountOption, SessionACL, SessionUnmounter};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use udax::Pool;
use udax_mm::sync::{Arc, Mutex};

use crate::server::Server;

/// Where the kernel talks to servers of filesystems.
const DEVICE: &str = "/dev/fuse";

/// How a pool is mounted.
///
/// ```
/// use udax_fuse::MountOptions;
/// let options = MountOptions::new().threads(4);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct MountOptions {
    is_read_only: bool,
    threads: usize,
}

/// A mounted pool. Serves while [`Session::run`] runs; dropping it unmounts.
#[derive(Debug)]
pub struct Session {
    session: fuser::Session<Server>,
    unmounter: Unmounter,
}

/// Ends a session from another thread, as the handler of Ctrl-C does.
#[derive(Clone, Debug)]
pub struct Unmounter {
    dir: Arc<Path>,
    device: Option<Device>,
    helper: Arc<Mutex<SessionUnmounter>>,
}

/// What became of a mount that was to be unmounted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Unmounted {
    /// Nobody used it; the session ends.
    Ended,
    /// Files in it are open. The directory is free, and the session serves them until the last is
    /// closed; calls that run finish as ever.
    InUse,
}

/// The number of a mounted filesystem, major and minor.
type Device = (u32, u32);

/// Why a pool was not mounted, or not unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE, or the container does not get to see it.
    #[error(
        "{DEVICE} is missing; load the kernel module (`modprobe fuse`) or give the container the \
         device"
    )]
    NoDevice,

    /// The device is there for others.
    #[error("{DEVICE} may not be opened; run as root, or let users open it (`chmod 666 {DEVICE}`)")]
    DeviceDenied(#[source] io::Error),

    /// The caller may not mount.
    #[error("mounting on {} is not permitted; run as root or install fusermount3", .dir.display())]
    NotPermitted {
        /// Where it was to be mounted.
        dir: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },

    /// A pool is mounted on a directory.
    #[error("{}: not a directory; a pool is mounted on an empty directory", .0.display())]
    NotADirectory(PathBuf),

    /// What is in the directory would be hidden.
    #[error("{}: the directory is not empty, and mounting would hide what is in it", .0.display())]
    NotEmpty(PathBuf),

    /// Something is mounted there.
    #[error("{0}: something is mounted there already; `umount {0}` first", .dir.display())]
    AlreadyMounted {
        /// The directory.
        dir: PathBuf,
    },

    /// The host refused something else.
    #[error("{}: {source}", .dir.display())]
    Host {
        /// The directory.
        dir: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

/// Mounts `pool` on the empty directory `dir`.
///
/// Run by root, every user may use the mount, and the kernel checks the permissions of files; run
/// by anybody else, only they may use it.
///
/// The process that serves a mount must not map files of it: a fault would wait for a server that
/// may wait for the fault. Its other threads may use them by any other call, and it has the pool.
///
/// # Errors
///
/// Says which of the device, the rights and the directory stands in the way.
pub fn mount(
    pool: Pool,
    dir: impl AsRef<Path>,
    options: &MountOptions,
) -> Result<Session, MountError> {
    let dir = dir.as_ref();
    check_directory(dir)?;
    match fs::File::options().read(true).write(true).open(DEVICE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(MountError::NoDevice),
        opened => drop(opened.map_err(MountError::DeviceDenied)?),
    }
    let config = options.to_config(&pool);
    let mut session = fuser::Session::new(Server::new(pool), dir, &config)
        .map_err(|source| refused(dir, source))?;
    let dir = dir.canonicalize().map_err(|source| host(dir, source))?;
    let unmounter = Unmounter {
        device: device(&dir),
        dir: dir.into(),
        helper: Arc::new(Mutex::new(session.unmount_callable())),
    };
    Ok(Session { session, unmounter })
}

impl MountOptions {
    /// Writable if the pool is, with one thread per processor.
    pub fn new() -> MountOptions {
        let threads = available_parallelism().map_or(2, |count| count.get().clamp(2, 16));
        MountOptions { is_read_only: false, threads }
    }

    /// Sets whether nothing may be written through the mount.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> MountOptions {
        self.is_read_only = read_only;
        self
    }

    /// Sets how many requests are served at a time, at least one.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> MountOptions {
        self.threads = threads.max(1);
        self
    }

    fn to_config(&self, pool: &Pool) -> Config {
        let is_read_only = self.is_read_only || !pool.facts().is_writable;
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(pool.path().display().to_string().replace(',', "_")),
            MountOption::Subtype("udax".to_owned()),
            MountOption::DefaultPermissions,
            if is_read_only { MountOption::RO } else { MountOption::RW },
        ];
        if rustix::process::geteuid().is_root() {
            config.acl = SessionACL::All;
        }
        config.n_threads = Some(self.threads);
        config.clone_fd = true;
        config
    }
}

impl Default for MountOptions {
    fn default() -> MountOptions {
        MountOptions::new()
    }
}

impl Session {
    /// Where the pool is mounted.
    pub fn dir(&self) -> &Path {
        &self.unmounter.dir
    }

    /// A handle that ends the session.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }

    /// Serves until the directory is unmounted, by [`Unmounter::unmount`] or by `umount`.
    ///
    /// # Errors
    ///
    /// Fails if the kernel ends the connection in any other way.
    pub fn run(self) -> Result<(), MountError> {
        let unmounter = self.unmounter;
        match self.session.run() {
            // Said of an unmount that the kernel carries out while it hands a message over.
            Err(error) if is_aborted(&error) && unmounter.is_unmounted() => Ok(()),
            ended => ended.map_err(|source| host(&unmounter.dir, source)),
        }
    }
}

fn is_aborted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionAborted
}

impl Unmounter {
    /// Unmounts. Calls that run are not cut off, and what is open stays open: the answer says
    /// whether the session goes on for that. What others mounted in the place of this mount stays.
    ///
    /// # Errors
    ///
    /// Fails if the host does not permit it.
    pub fn unmount(&self) -> Result<Unmounted, MountError> {
        if self.is_unmounted() {
            // Somebody took it off before; what is open in it keeps the session.
            return Ok(Unmounted::InUse);
        }
        match unmount(&*self.dir, UnmountFlags::empty()) {
            Ok(()) => Ok(Unmounted::Ended),
            Err(Errno::BUSY) => self.detach().map(|()| Unmounted::InUse),
            Err(Errno::PERM) => self.ask_helper().map(|()| Unmounted::InUse),
            Err(error) => Err(host(&self.dir, error.into())),
        }
    }

    /// Whether something else is at the directory now.
    fn is_unmounted(&self) -> bool {
        self.device.is_some() && device(&self.dir) != self.device
    }

    fn detach(&self) -> Result<(), MountError> {
        unmount(&*self.dir, UnmountFlags::DETACH).map_err(|error| host(&self.dir, error.into()))
    }

    /// Unmounts with fusermount3, by whoever mounted with it. It detaches, used or not.
    fn ask_helper(&self) -> Result<(), MountError> {
        self.helper.lock().unmount().map_err(|source| refused(&self.dir, source))
    }
}

/// What is mounted on `dir`, asking the kernel alone: the server of a mount may not answer.
fn device(dir: &Path) -> Option<Device> {
    let found = statx(CWD, dir, AtFlags::STATX_DONT_SYNC, StatxFlags::empty()).ok()?;
    Some((found.stx_dev_major, found.stx_dev_minor))
}

/// Refuses everything but an empty directory that nothing is mounted on.
fn check_directory(dir: &Path) -> Result<(), MountError> {
    let found = match fs::metadata(dir) {
        // A mount whose server died: the kernel answers for it.
        Err(error) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {
            return Err(MountError::AlreadyMounted { dir: dir.to_owned() });
        }
        found => found.map_err(|source| host(dir, source))?,
    };
    if !found.is_dir() {
        return Err(MountError::NotADirectory(dir.to_owned()));
    }
    let above = fs::metadata(dir.join("..")).map_err(|source| host(dir, source))?;
    if above.dev() != found.dev() {
        return Err(MountError::AlreadyMounted { dir: dir.to_owned() });
    }
    if fs::read_dir(dir).map_err(|source| host(dir, source))?.next().is_some() {
        return Err(MountError::NotEmpty(dir.to_owned()));
    }
    Ok(())
}

fn refused(dir: &Path, source: io::Error) -> MountError {
    match source.kind() {
        // `fusermount3`, the way for everybody but root, is not there.
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            MountError::NotPermitted { dir: dir.to_owned(), source }
        }
        _ => host(dir, source),
    }
}

fn host(dir: &Path, source: io::Error) -> MountError {
    MountError::Host { dir: dir.to_owned(), source }
}
