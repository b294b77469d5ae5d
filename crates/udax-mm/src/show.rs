//! How pages of media are shown in user mappings: shared, as private copies, or as failed memory.
//!
//! This file owns the checks that come before, and the division of a range at the borders of media.
//! It keeps no list of what is shown where: a file mapping does, and it holds the references.

use crate::faults::FaultService;
use crate::folio::FolioRef;
use crate::folio_span::FolioSpan;
use crate::memory::check_mappable;
use crate::pagemap::Pagemap;
use crate::pgmap::PgmapRef;
use crate::reserve::{Reservation, Sharing};
use crate::sync::OnceLock;
use crate::units::{PAGE_SIZE, Pages, PgmapOff, VmaOff};
use crate::vma::{Access, Prefault, Vma};
use std::io;
use std::ops::Range;
use std::path::Path;

/// What a touch of pages raises that show failed memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// SIGBUS with the code `BUS_MCEERR_AR` and the address: the memory there failed.
    OfMemory,
    /// SIGBUS with the code `BUS_ADRERR` and the address: there is no such memory. The vma is not
    /// lazy, or the host is older than Linux 6.6 or built without `CONFIG_MEMORY_FAILURE`.
    OfAddress,
}

/// Pages of media, and how they are mapped.
pub(crate) struct Shown<'a> {
    pub(crate) pgmap: &'a PgmapRef,
    pub(crate) pages: Range<PgmapOff>,
    pub(crate) access: Access,
    pub(crate) sharing: Sharing,
}

impl Vma {
    /// Maps pages of a folio at `at`. They replace what was there, in one step.
    ///
    /// The caller keeps the folio counted until it has zapped the pages, and maps with
    /// [`Access::Write`] where stores are permitted at all: a store through [`Access::Read`] is
    /// SIGSEGV and does not ask the sink, because the host reports no such fault for files.
    ///
    /// # Errors
    ///
    /// Returns an error of kind [`io::ErrorKind::PermissionDenied`] if a frozen folio would become
    /// writable, [`io::ErrorKind::Unsupported`] if the medium has no file or the memory is private
    /// to its device, one that names the page if it is poisoned, or the host's error.
    ///
    /// # Panics
    ///
    /// Panics if `pages` reach outside the folio.
    pub fn map(
        &self,
        at: VmaOff,
        folio: FolioRef<'_>,
        pages: Range<PgmapOff>,
        access: Access,
    ) -> io::Result<()> {
        check_inside(&pages, &folio.pages());
        if access == Access::Write && folio.is_frozen() {
            return Err(frozen(pages.start));
        }
        self.show(at, &Shown { pgmap: folio.pgmap(), pages, access, sharing: Sharing::Shared })
    }

    /// Maps pages of adjacent folios at `at`, with one call of the host for each medium that they
    /// lie in. They replace what was there.
    ///
    /// As with [`Vma::map`], the caller keeps the folios counted until it has zapped the pages.
    ///
    /// # Errors
    ///
    /// Those of [`Vma::map`]. If the host refuses the second of several media, the pages of the
    /// first are mapped.
    ///
    /// # Panics
    ///
    /// Panics if `pages` reach outside the folios.
    pub fn map_span(
        &self,
        at: VmaOff,
        folios: &FolioSpan,
        pages: Range<PgmapOff>,
        access: Access,
        prefault: Prefault,
    ) -> io::Result<()> {
        check_inside(&pages, &folios.pages());
        if access == Access::Write
            && let Some(page) = folios.first_frozen(&pages)
        {
            return Err(frozen(page.max(pages.start)));
        }
        let sharing = match prefault {
            Prefault::No => Sharing::Shared,
            Prefault::Yes => Sharing::Prefaulted,
        };
        self.show(at, &Shown { pgmap: folios.pgmap(), pages, access, sharing })
    }

    /// Maps pages of adjacent folios at `at` as private copies: the host copies a page with the
    /// first store to it, and nobody else sees that. Until then it is the page of the medium, as
    /// others change it. They replace what was there.
    ///
    /// Frozen folios may be mapped for writing, because no store reaches them. The copies are gone
    /// when the pages are zapped or something is mapped over them; [`Vma::copied_pages`] says which
    /// there are.
    ///
    /// # Errors
    ///
    /// Those of [`Vma::map_span`], but for frozen folios.
    ///
    /// # Panics
    ///
    /// Panics if `pages` reach outside the folios.
    pub fn map_private(
        &self,
        at: VmaOff,
        folios: &FolioSpan,
        pages: Range<PgmapOff>,
        access: Access,
    ) -> io::Result<()> {
        check_inside(&pages, &folios.pages());
        self.show(at, &Shown { pgmap: folios.pgmap(), pages, access, sharing: Sharing::Private })
    }

    /// Maps pages of zeros at `at` that nobody else has, for loads and stores: what a private copy
    /// of a hole is.
    ///
    /// # Errors
    ///
    /// Returns the host's error.
    pub fn map_private_hole(&self, at: VmaOff, pages: Pages) -> io::Result<()> {
        let bytes = self.space().bytes(at, pages);
        self.space().reservation().map_private_zeros(bytes.clone())?;
        self.space().reservation().keep_from_children(bytes.clone())?;
        self.space().answered(&bytes, |_| true);
        Ok(())
    }

    /// Makes a touch of pages the failure of memory that it is on a machine whose memory failed, and
    /// says whether the host can do that. The next zap takes it back.
    ///
    /// A copy through the vma gets [`MediaError::Fault`](crate::MediaError::Fault) in any case.
    ///
    /// # Blocking
    ///
    /// As [`Vma::zap`].
    ///
    /// # Errors
    ///
    /// Returns the host's error.
    pub fn map_poison(&self, at: VmaOff, pages: Pages) -> io::Result<Failure> {
        let bytes = self.space().bytes(at, pages);
        let reservation = self.space().reservation();
        let mark = |service: &FaultService| reservation.map_failed(bytes.clone(), service.uffd());
        let service = self.space().service().filter(|_| host_signals_failed_memory());
        let is_marked = service.is_some_and(|service| mark(service).is_ok());
        if !is_marked {
            reservation.map_void(bytes.clone())?;
        }
        self.space().answered(&bytes, |_| true);
        Ok(if is_marked { Failure::OfMemory } else { Failure::OfAddress })
    }

    /// Opens what [`Vma::copied_pages`] reads, once for all mappings of this process. From then on it
    /// can tell, also when descriptors have run out. A child that was forked has to do it again.
    ///
    /// # Errors
    ///
    /// Returns the host's error, and what helps, if `/proc/self/pagemap` cannot be opened.
    pub fn open_copied_pages() -> io::Result<()> {
        Pagemap::of_this_process().map(drop)
    }

    /// Which pages of `range` are memory of this process and not of a medium: copies that the host
    /// made of pages that were [mapped privately](Vma::map_private), and touched pages of
    /// [holes](Vma::map_hole).
    ///
    /// # Errors
    ///
    /// Returns the host's error if `/proc/self/pagemap` cannot be opened, which
    /// [`Vma::open_copied_pages`] tells before it matters.
    pub fn copied_pages(&self, range: Range<VmaOff>) -> io::Result<Vec<Range<VmaOff>>> {
        let bytes = self.space().bytes(range.start, range.end.since(range.start));
        let address = self.space().first_address() + bytes.start;
        let own = Pagemap::of_this_process()?.own_pages(address, bytes.len() / PAGE_SIZE)?;
        let page = |number: usize| range.start + Pages(wide(number));
        Ok(own.into_iter().map(|own| page(own.start)..page(own.end)).collect())
    }

    fn show(&self, at: VmaOff, shown: &Shown<'_>) -> io::Result<()> {
        let bytes = self.space().bytes(at, shown.pages.end.since(shown.pages.start));
        shown.map(self.space().reservation(), bytes.clone())?;
        self.space().answered(&bytes, |_| true);
        Ok(())
    }
}

impl Shown<'_> {
    /// Maps the pages over a range of reserved bytes.
    pub(crate) fn map(&self, reservation: &Reservation, bytes: Range<usize>) -> io::Result<()> {
        check_mappable(self.pgmap, &self.pages)?;
        let start = reservation.window().start().addr().get() + bytes.start;
        self.parts().try_for_each(|(skipped, part)| self.check(start + skipped, &part))?;
        for (skipped, part) in self.parts() {
            let (media, byte) = self.pgmap.locate(part.start);
            let (file, first) = media.backing().ok_or_else(no_file)?;
            let at = bytes.start + skipped;
            let at = at..at + in_memory(part.end.since(part.start));
            reservation.map_file(at, file, first + byte, self.access, self.sharing)?;
        }
        reservation.keep_from_children(bytes)
    }

    /// The pages, medium by medium, with the bytes before each.
    fn parts(&self) -> impl Iterator<Item = (usize, Range<PgmapOff>)> + '_ {
        let mut at = self.pages.start;
        std::iter::from_fn(move || {
            let rest = (at < self.pages.end).then(|| self.pages.end.since(at))?;
            let part = at.span(rest.min(self.pgmap.contiguous(at)));
            at = part.end;
            Some((in_memory(part.start.since(self.pages.start)), part))
        })
    }

    /// Whether the host can map pages of one medium at an address.
    fn check(&self, address: usize, part: &Range<PgmapOff>) -> io::Result<()> {
        let (media, byte) = self.pgmap.locate(part.start);
        let (_, first) = media.backing().ok_or_else(no_file)?;
        let page = media.facts().host_page;
        let starts = address.is_multiple_of(page) && (first + byte).is_multiple_of(wide(page));
        if !starts || !part.end.since(part.start).bytes().is_multiple_of(wide(page)) {
            // The host would refuse it, or map all of a huge page, over what is beside.
            let message = format!("the host maps this medium in whole pages of {page} bytes only");
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        Ok(())
    }
}

/// Whether the host tells failed memory from memory that is not there, when a touch finds a mark.
fn host_signals_failed_memory() -> bool {
    // The one setting that comes with `CONFIG_MEMORY_FAILURE`.
    static SIGNALS: OnceLock<bool> = OnceLock::new();
    *SIGNALS.get_or_init(|| Path::new("/proc/sys/vm/memory_failure_early_kill").exists())
}

fn check_inside(pages: &Range<PgmapOff>, inside: &Range<PgmapOff>) {
    assert!(inside.start <= pages.start, "vma: the pages begin inside the folio");
    assert!(pages.end <= inside.end, "vma: the pages end inside the folio");
}

fn frozen(page: PgmapOff) -> io::Error {
    let message = format!("page {page} is frozen and cannot be mapped writable");
    io::Error::new(io::ErrorKind::PermissionDenied, message)
}

fn no_file() -> io::Error {
    let message = "the medium has no file that could be mapped";
    io::Error::new(io::ErrorKind::Unsupported, message)
}

/// Bytes of pages that are mapped in this process.
fn in_memory(pages: Pages) -> usize {
    usize::try_from(pages.bytes()).expect("the vma has that many")
}

/// An address or a length in the unit of media.
fn wide(value: usize) -> u64 {
    u64::try_from(value).expect("usize has at most 64 bits")
}
