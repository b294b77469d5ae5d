//! `/proc/self/pagemap`: which pages of this process are memory of its own.
//!
//! This file owns the descriptor, and how an entry is read. It is opened before the first private
//! mapping is made, because whoever has to know it later cannot do without: `/proc` may not be there
//! any more, and descriptors may have run out.

use crate::sync::{Arc, Mutex, OnceLock};
use crate::units::PAGE_SIZE;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The size of an entry.
const ENTRY: usize = 8;

/// The page table of this process, as it is shown to programs.
#[derive(Debug)]
pub(crate) struct Pagemap {
    /// A descriptor tells of the process that opened it, which a child of that is not.
    process: u32,
    file: File,
}

impl Pagemap {
    /// The one of this process, opened if this is the first call in it.
    ///
    /// # Errors
    ///
    /// Returns the host's error, with what helps, if it cannot be opened.
    pub(crate) fn of_this_process() -> io::Result<Arc<Pagemap>> {
        static OPEN: OnceLock<Mutex<Option<Arc<Pagemap>>>> = OnceLock::new();
        let process = std::process::id();
        let mut open = OPEN.get_or_init(Mutex::default).lock();
        if let Some(pagemap) = open.as_ref().filter(|pagemap| pagemap.process == process) {
            return Ok(Arc::clone(pagemap));
        }
        let file = File::open("/proc/self/pagemap").map_err(|error| refused(&error))?;
        let pagemap = Arc::new(Pagemap { process, file });
        *open = Some(Arc::clone(&pagemap));
        Ok(pagemap)
    }

    /// The pages at these addresses that are anonymous memory, as ranges of numbers counted from the
    /// first.
    pub(crate) fn own_pages(&self, at: usize, count: usize) -> io::Result<Vec<Range<usize>>> {
        let first = at / PAGE_SIZE;
        let mut own: Vec<Range<usize>> = Vec::new();
        let mut entries = [0; 512 * ENTRY];
        for done in (0..count).step_by(512) {
            let entries = &mut entries[..(count - done).min(512) * ENTRY];
            let place = u64::try_from((first + done) * ENTRY).expect("usize has at most 64 bits");
            self.file.read_exact_at(entries, place)?;
            for (page, entry) in (done..).zip(entries.as_chunks::<ENTRY>().0) {
                match own.last_mut() {
                    _ if !is_own_page(u64::from_ne_bytes(*entry)) => (),
                    Some(last) if last.end == page => last.end = page + 1,
                    _ => own.push(page..page + 1),
                }
            }
        }
        Ok(own)
    }
}

/// Whether an entry is of anonymous memory (`Documentation/admin-guide/mm/pagemap.rst` of Linux): it
/// is present or swapped out, and not of a file.
fn is_own_page(entry: u64) -> bool {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const FILE: u64 = 1 << 61;
    entry & (PRESENT | SWAPPED) != 0 && entry & FILE == 0
}

/// Says what a program needs that may not see its own pages.
fn refused(error: &io::Error) -> io::Error {
    let message = format!(
        "no private mapping without /proc/self/pagemap, which tells what it has stored: {error}; \
         mount /proc, or raise the limit of open files"
    );
    io::Error::new(error.kind(), message)
}
