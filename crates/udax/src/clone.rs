//! Files that share pages: clones, deduplication, and pages of one's own again.

use std::ops::Range;
use std::path::Path;

use udax_fs::{Deduped, FsError};
use udax_mm::Patience;

use crate::error::{At, Error, Result};
use crate::file::File;
use crate::options::OpenOptions;
use crate::pool::Pool;

impl File {
    /// Makes the bytes of `range` appear in `target` from byte `at` on, without a copy: both files
    /// have the same pages until one of them is stored to. Returns how many bytes.
    ///
    /// Places are borders of pages; the range may end where this file does, if `target` then ends
    /// there, too. What was stored to the range before, also through mappings, is in the clone. It
    /// may be a range of the same file, and this file may be frozen.
    ///
    /// ```
    /// use udax::{Pool, Wait};
    ///
    /// let pool = Pool::create_in_memory("example", 8 << 20)?;
    /// pool.write("/model", vec![7; 1 << 20])?;
    /// let (model, tuned) = (pool.open_file("/model")?, pool.create_file("/tuned")?);
    ///
    /// assert_eq!(model.clone_range(0..1 << 20, &tuned, 0, Wait::Forever)?, 1 << 20);
    /// tuned.write_at(b"other bytes", 4096)?;
    /// assert_eq!(pool.read("/model")?, vec![7; 1 << 20]);
    /// # Ok::<(), udax::Error>(())
    /// ```
    ///
    /// # Blocking
    ///
    /// Waits for the pins of both ranges, as long as `wait` says.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::OtherPool`](crate::ErrorKind) for files of two pools, with
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind) for a place inside a page and for ranges of one
    /// file that overlap, with [`ErrorKind::Pinned`](crate::ErrorKind) if the wait runs out, and if
    /// `target` cannot be written.
    pub fn clone_range<'i>(
        &self,
        range: Range<u64>,
        target: &File,
        at: u64,
        wait: impl Into<Patience<'i>>,
    ) -> Result<u64> {
        self.require_read()?;
        target.require_write()?;
        let cloned = self.inode().clone_range(range, target.inode(), at, wait);
        cloned.map_err(|error| self.refusal(target, error))
    }

    /// Compares `range` with as many bytes of `target` from byte `at` on, and if they are the same,
    /// gives `target` the pages of this file instead of its own.
    ///
    /// What lies past the end of either file is not compared; data that is zeros differs from a
    /// hole.
    ///
    /// # Blocking
    ///
    /// As [`File::clone_range`].
    ///
    /// # Errors
    ///
    /// As [`File::clone_range`]. Bytes that differ are no error, bytes that cannot be read are.
    pub fn dedupe_range<'i>(
        &self,
        range: Range<u64>,
        target: &File,
        at: u64,
        wait: impl Into<Patience<'i>>,
    ) -> Result<Deduped> {
        self.require_read()?;
        target.require_write()?;
        let deduped = self.inode().dedupe_range(range, target.inode(), at, wait);
        deduped.map_err(|error| self.refusal(target, error))
    }

    /// Gives the file pages of its own for a range, rounded to whole pages, so that later stores
    /// to it need no copy and no room. Holes stay holes.
    ///
    /// # Errors
    ///
    /// Fails if the pool is full, or the medium fails.
    pub fn unshare(&self, range: Range<u64>) -> Result<()> {
        self.require_write()?;
        self.inode().unshare(range).at(self.path())
    }

    /// An error of what was to come out of this file into `target`, with the path of the one that it
    /// is about.
    fn refusal(&self, target: &File, error: FsError) -> Error {
        let is_about_source = matches!(
            error,
            FsError::Source(_) | FsError::PastEnd { .. } | FsError::Quarantined { .. }
        );
        Error::new(if is_about_source { self.path() } else { target.path() }, error)
    }
}

impl Pool {
    /// Makes the file `to`, which must not exist, a clone of the file `from`, with its permissions.
    /// Returns its size.
    ///
    /// # Blocking
    ///
    /// Waits for the pins of `from`, as long as `wait` says.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::AlreadyExists`](crate::ErrorKind), and as [`File::clone_range`]; no
    /// file is left then.
    pub fn clone_file<'i>(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        wait: impl Into<Patience<'i>>,
    ) -> Result<u64> {
        let source = self.open_file(from)?;
        let (metadata, to) = (source.metadata(), to.as_ref());
        let mut options = OpenOptions::new();
        let target = options.write(true).create_new(true).mode(metadata.mode()).open(self, to)?;
        clone_all(&source, &target, wait.into()).or_else(|error| {
            self.remove_file(to)?;
            Err(error)
        })
    }
}

/// Makes the empty file `target` a clone of all of `source`. Returns its size.
fn clone_all(source: &File, target: &File, wait: Patience<'_>) -> Result<u64> {
    let len = source.metadata().len();
    loop {
        let done = source.clone_range(0..len, target, 0, wait)?;
        if done == len {
            return Ok(len);
        }
        // The first step of the rest says why. If it is done, there is room again, and all is cloned
        // again, so that the clone is what the file held at one moment.
        source.clone_range(done..len, target, done, wait)?;
    }
}
