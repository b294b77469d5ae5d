//! Files that are open for writing by somebody whose stores come late, and are not frozen meanwhile.
//!
//! A write through [`Inode`] is over when the call is, and one that comes after a freeze is refused. A
//! program that has a file of a mount open may also map it, and then stores to a copy of the kernel,
//! which the filesystem hears of when the kernel writes it back. This file owns the count that keeps
//! such a file from being frozen, as `get_write_access` and `deny_write_access` of Linux do.

use udax_mm::sync::Arc;
use udax_mm::{CountedUse, Patience};

use super::Inode;
use crate::FsError;

/// The right to write a file later: it is not frozen while this exists. Drop gives it back.
///
/// Keeps the file, as every handle of it does.
#[must_use]
#[derive(Debug)]
pub struct WriteAccess {
    // Counted by the one inode there is, for which the handle must live as long.
    _counted: CountedUse,
    inode: Arc<Inode>,
}

impl WriteAccess {
    /// The file.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }
}

impl Inode {
    /// Keeps the file from being frozen, for a server whose clients write it later than they say so.
    ///
    /// Any number of them may exist. None is needed for the calls of this type, which a freeze
    /// refuses from then on.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Frozen`] for a frozen file, [`FsError::ReadOnly`] on a read-only mount, and
    /// [`FsError::IsADirectory`] and [`FsError::NotAFile`] for what is no file.
    ///
    /// # Examples
    ///
    /// ```
    /// use udax_dev::PgmapDevice;
    /// use udax_fs::{Filesystem, FormatOptions, FsError, Kind, MountMode, Name};
    /// # use udax_mm::media::FileMedia;
    /// # use udax_mm::sync::Arc;
    /// # use udax_mm::{MediaRange, MemoryType, Pages, Pgmap};
    /// use udax_mm::Wait;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let media = Arc::new(FileMedia::memfd("example", 1 << 22)?);
    /// # let range = MediaRange { media, start: 0, pages: Pages(1024) };
    /// # let pgmap = Pgmap::new(vec![range], MemoryType::FsDax)?;
    /// # let device = Arc::new(PgmapDevice::new(pgmap));
    /// Filesystem::format(device.clone(), &FormatOptions::default())?;
    /// let (fs, _) = Filesystem::mount(device, MountMode::ReadWrite, None)?;
    /// let name = Name::new("file".as_ref())?;
    /// let file = fs.create(&fs.root()?, &name, Kind::File, 0o644, 0, 0)?;
    ///
    /// // A client opens the file for writing, and closes it.
    /// let access = file.write_access()?;
    /// let refused = file.freeze(Wait::Never);
    /// assert!(matches!(refused, Err(FsError::OpenForWriting { handles: 1 })));
    /// drop(access);
    ///
    /// file.freeze(Wait::Never)?;
    /// assert!(matches!(file.write_access(), Err(FsError::Frozen)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_access(self: &Arc<Inode>) -> Result<WriteAccess, FsError> {
        self.check_file()?;
        self.node.core.check_writable()?;
        let state = self.node.read();
        state.check_not_frozen()?;
        // Under the lock, exclusively under which a freeze looks at the count and sets the flag.
        let counted = self.writers.enter();
        Ok(WriteAccess { _counted: counted, inode: Arc::clone(self) })
    }

    /// Waits until nobody has access, once: who comes later is seen by who looks under the lock.
    pub(super) fn wait_writers_gone(&self, patience: Patience<'_>) -> Result<(), FsError> {
        self.writers.wait_unused(patience).map_err(|handles| {
            if patience.is_interrupted() {
                FsError::Interrupted { handles }
            } else {
                FsError::OpenForWriting { handles }
            }
        })
    }
}
