//! Open files: copies, sizes, maps, pins and freezing. The stream traits are in `position.rs`.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use udax_fs::{FileExtent, FreePolicy, Inode, SetAttr};
use udax_mm::Patience;
use udax_mm::sync::{Arc, Mutex, MutexGuard};

use crate::error::{At, Cause, Error, Result};
use crate::frozen::Frozen;
use crate::mapping::{MapOptions, Mapping};
use crate::metadata::{Metadata, Times};
use crate::pin::{self, Deferred, Pin, PinOptions};
use crate::pool::Inner;
use crate::range::byte_count;

/// An open file. All methods take `&self`; threads may share it.
///
/// The file stays readable through its handles after its last name was removed, and is freed with
/// the last handle.
///
/// ```
/// use std::io::{Read, Write, Seek};
///
/// let pool = udax::Pool::create_in_memory("example", 8 << 20)?;
/// let mut file = pool.create_file("/notes")?;
/// file.write_all(b"first")?;
/// file.write_at(b"F", 0)?;
/// file.rewind()?;
/// let mut text = String::new();
/// file.read_to_string(&mut text)?;
/// assert_eq!(text, "First");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct File {
    // Before the pool: the last handle of a file without a name frees it, for which the pool is open.
    inode: Arc<Inode>,
    pool: Arc<Inner>,
    path: PathBuf,
    rights: Rights,
    position: Mutex<u64>,
}

/// What a handle was opened for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rights {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
}

impl File {
    /// The path the file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The attributes.
    pub fn metadata(&self) -> Metadata {
        Metadata::new(self.inode.attr())
    }

    /// Reads from byte `at` on; fewer bytes than asked for only at the end of the file, and before
    /// [bytes that are lost](File::bad_ranges).
    ///
    /// # Errors
    ///
    /// Fails if the handle is not open for reading, or the medium fails.
    pub fn read_at(&self, into: &mut [u8], at: u64) -> Result<usize> {
        self.require_read()?;
        self.inode.read_at(into, at).at(&self.path)
    }

    /// Fills `into` from byte `at` on.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::OutOfRange`](crate::ErrorKind) if the file ends before, and with
    /// [`ErrorKind::Media`](crate::ErrorKind) if a byte is lost.
    pub fn read_exact_at(&self, into: &mut [u8], at: u64) -> Result<()> {
        let read = self.read_full_at(into, at)?;
        if read < into.len() {
            let (wanted, len) = (byte_count(into.len()), self.metadata().len());
            return Err(self.error(Cause::OutOfRange { what: "file", at, wanted, len }));
        }
        Ok(())
    }

    /// Writes at byte `at`, growing the file if need be; returns how many bytes.
    ///
    /// What it returns is durable, as far as the medium is. Bytes between the old end and `at` read
    /// as zeros. With [`append`](crate::OpenOptions::append), `at` means nothing.
    ///
    /// # Errors
    ///
    /// Fails, and has changed nothing, if the pool is full or the file is frozen.
    pub fn write_at(&self, bytes: &[u8], at: u64) -> Result<usize> {
        if self.rights.append {
            return self.append(bytes).map(|_| bytes.len());
        }
        self.require(self.rights.write, "writing")?;
        self.inode.write_at(bytes, at).at(&self.path)
    }

    /// Writes all of `bytes` at byte `at`.
    ///
    /// # Errors
    ///
    /// As [`File::write_at`]; of a long write the first part may have been done.
    pub fn write_all_at(&self, mut bytes: &[u8], mut at: u64) -> Result<()> {
        while !bytes.is_empty() {
            let written = self.write_at(bytes, at)?;
            bytes = &bytes[written..];
            at += byte_count(written);
        }
        Ok(())
    }

    /// Writes at the end of the file, all or nothing; returns where.
    ///
    /// # Errors
    ///
    /// As [`File::write_at`].
    pub fn append(&self, bytes: &[u8]) -> Result<u64> {
        self.require_write()?;
        self.inode.append(bytes).at(&self.path)
    }

    /// Sets the size. What is cut off and pinned goes to limbo; this does not wait for it.
    ///
    /// # Errors
    ///
    /// Fails if the file is frozen or would be too large.
    pub fn set_len(&self, len: u64) -> Result<()> {
        self.set_len_with(len, FreePolicy::Defer).map(drop)
    }

    /// Sets the size; `policy` says what happens to pages that are cut off and pinned. Returns the
    /// pins that were deferred.
    ///
    /// # Blocking
    ///
    /// With [`FreePolicy::Wait`], recalls the pins in the range and waits for them, holding no lock.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::Pinned`](crate::ErrorKind), naming the holders and since when, if
    /// the wait runs out; the size is then as it was.
    pub fn set_len_with(&self, len: u64, policy: FreePolicy<'_>) -> Result<Deferred> {
        self.require_write()?;
        let pins = self.inode.truncate(len, policy).at(&self.path)?;
        Ok(Deferred::new(&self.path, &pins))
    }

    /// Makes a range read as zeros and frees the whole pages in it. Does not wait for pins.
    ///
    /// # Errors
    ///
    /// Fails if the file is frozen.
    pub fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.punch_hole_with(range, FreePolicy::Defer).map(drop)
    }

    /// Makes a range read as zeros; `policy` says what happens to pages that are pinned. Returns the
    /// pins that were deferred.
    ///
    /// # Blocking
    ///
    /// With [`FreePolicy::Wait`], waits for the pins in the range, holding no lock.
    ///
    /// # Errors
    ///
    /// As [`File::set_len_with`].
    pub fn punch_hole_with(&self, range: Range<u64>, policy: FreePolicy<'_>) -> Result<Deferred> {
        self.require_write()?;
        let pins = self.inode.punch(range, policy).at(&self.path)?;
        Ok(Deferred::new(&self.path, &pins))
    }

    /// Gives every page of a range a place in the pool, zeroed where there was none, and grows the
    /// file to the end of the range.
    ///
    /// # Errors
    ///
    /// Fails, and has changed nothing, if the pool is full.
    pub fn allocate(&self, range: Range<u64>) -> Result<()> {
        self.require_write()?;
        self.inode.allocate(range).at(&self.path)
    }

    /// Waits until everything written so far, stores through mappings too, is durable.
    ///
    /// # Errors
    ///
    /// Fails if the medium does.
    pub fn sync_all(&self) -> Result<()> {
        self.inode.sync().at(&self.path)
    }

    /// The same as [`File::sync_all`]: attributes are durable when the call that set them returns.
    ///
    /// # Errors
    ///
    /// Fails if the medium does.
    pub fn sync_data(&self) -> Result<()> {
        self.sync_all()
    }

    /// Sets the times.
    ///
    /// # Errors
    ///
    /// Fails if the pool is read-only.
    pub fn set_times(&self, times: &Times) -> Result<()> {
        self.inode.set_attr(&times.to_set_attr()).map(drop).at(&self.path)
    }

    /// Sets the permission bits.
    ///
    /// # Errors
    ///
    /// Fails if the pool is read-only.
    pub fn set_permissions(&self, mode: u32) -> Result<()> {
        let set = SetAttr { mode: Some(mode & 0o7777), ..SetAttr::default() };
        self.inode.set_attr(&set).map(drop).at(&self.path)
    }

    /// Maps a range of bytes into the address space.
    ///
    /// The range may start and end anywhere, also past the end of the file: what lies there can be
    /// touched when the file has grown.
    ///
    /// # Errors
    ///
    /// Fails if the range is empty, if the handle's rights do not allow the access, or if the file
    /// is frozen and the access is a write.
    pub fn map(&self, range: Range<u64>, options: &MapOptions) -> Result<Mapping> {
        self.require(self.rights.read, "reading, which a mapping needs")?;
        if options.is_write() {
            self.require(self.rights.write, "writing")?;
        }
        let pool = Arc::clone(&self.pool);
        Mapping::new(pool, &self.inode, range, options, &self.path).at(&self.path)
    }

    /// Pins a range of bytes: their pages stay where they are until the pin is dropped.
    ///
    /// Holes in the range get pages. The file may lose the range while it is pinned; the pin then
    /// still reads and writes the same memory, which nobody else gets.
    ///
    /// # Errors
    ///
    /// Fails if the range is empty or goes past the end of the file, or if the pool is full.
    pub fn pin(&self, range: Range<u64>, options: &PinOptions) -> Result<Pin> {
        self.require(self.rights.read, "reading, which a pin needs")?;
        if options.is_write() {
            self.require(self.rights.write, "writing")?;
        }
        Pin::new(Arc::clone(&self.pool), &self.inode, range, options, &self.path).at(&self.path)
    }

    /// Every pin held in this file.
    pub fn pins(&self) -> Vec<crate::PoolPin> {
        let place = crate::PinnedFile::Path(self.path.clone());
        self.inode.pins().iter().map(|found| crate::PoolPin::new(place.clone(), found)).collect()
    }

    /// Makes the file immutable until it is removed.
    ///
    /// # Blocking
    ///
    /// Waits, as long as `wait` says, for pins and for programs that have the file open for writing
    /// over a mount. The kernel tells of a close some time after the program made it, so who closes a
    /// file there and freezes it here allows for a wait.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::MappedForWriting`](crate::ErrorKind), naming the addresses, if
    /// somebody has the file mapped for writing, with
    /// [`ErrorKind::OpenForWriting`](crate::ErrorKind), counting the handles, if it is open over a
    /// mount for longer, and with [`ErrorKind::Pinned`](crate::ErrorKind), naming the holders, if a
    /// pin is held longer.
    pub fn freeze<'i>(&self, wait: impl Into<Patience<'i>>) -> Result<()> {
        self.require_write_or_read()?;
        self.inode.freeze(wait).at(&self.path)
    }

    /// The bytes of a frozen file, without a copy.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::NotFrozen`](crate::ErrorKind) if it is not frozen.
    pub fn frozen(&self) -> Result<Frozen> {
        self.require_read()?;
        let info = pin::info("frozen", udax_mm::PinKind::Read, udax_mm::PinTerm::Long);
        let bytes = self.inode.frozen_bytes(&info).at(&self.path)?;
        Ok(Frozen::new(Arc::clone(&self.pool), bytes))
    }

    /// Where the bytes lie on the device.
    ///
    /// # Errors
    ///
    /// Fails if the tree of the file cannot be read.
    pub fn extents(&self) -> Result<Vec<FileExtent>> {
        self.inode.extents().at(&self.path)
    }

    /// The bytes that are lost because their memory failed, as far as anybody has noticed; in order.
    ///
    /// To read them is an error of kind [`ErrorKind::Media`](crate::ErrorKind), to touch them in a
    /// mapping SIGBUS. A write that covers the whole page of 4 KiB, or its rest up to the end of the
    /// file, heals it.
    ///
    /// # Errors
    ///
    /// Fails if the tree of the file cannot be read.
    ///
    /// # Examples
    ///
    /// ```
    /// use udax::{OpenOptions, Pool};
    ///
    /// let pool = Pool::create_in_memory("example", 8 << 20)?;
    /// pool.write("/a", [7; 5000])?;
    /// let file = OpenOptions::new().read(true).write(true).open(&pool, "/a")?;
    ///
    /// for lost in file.bad_ranges()? {
    ///     println!("bytes {} to {} have to come from a copy", lost.start, lost.end);
    /// }
    /// # Ok::<(), udax::Error>(())
    /// ```
    pub fn bad_ranges(&self) -> Result<Vec<Range<u64>>> {
        self.inode.bad_ranges().at(&self.path)
    }

    /// The inode below; what a mount uses.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    pub(crate) fn new(pool: Arc<Inner>, inode: Arc<Inode>, path: &Path, rights: Rights) -> File {
        File { pool, inode, path: path.to_owned(), rights, position: Mutex::new(0) }
    }

    pub(crate) fn read_to_vec(&self) -> Result<Vec<u8>> {
        let len = usize::try_from(self.metadata().len())
            .map_err(|_| self.error(Cause::InvalidInput("the file does not fit into memory")))?;
        let mut bytes = vec![0; len];
        let read = self.read_full_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Reads until `into` is full or the file ends: a read also ends before a byte that is lost.
    fn read_full_at(&self, into: &mut [u8], at: u64) -> Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.read_at(&mut into[done..], at + byte_count(done))? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    pub(crate) fn is_append(&self) -> bool {
        self.rights.append
    }

    pub(crate) fn position(&self) -> MutexGuard<'_, u64> {
        self.position.lock()
    }

    fn require(&self, is_granted: bool, what: &'static str) -> Result<()> {
        if is_granted { Ok(()) } else { Err(self.error(Cause::BadHandle(what))) }
    }

    pub(crate) fn require_read(&self) -> Result<()> {
        self.require(self.rights.read, "reading")
    }

    pub(crate) fn require_write(&self) -> Result<()> {
        self.require(self.rights.write || self.rights.append, "writing")
    }

    fn require_write_or_read(&self) -> Result<()> {
        self.require(self.rights.write || self.rights.read, "reading or writing")
    }

    fn error(&self, cause: Cause) -> Error {
        Error::new(&self.path, cause)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("path", &self.path)
            .field("ino", &self.inode.ino())
            .field("rights", &self.rights)
            .finish_non_exhaustive()
    }
}
