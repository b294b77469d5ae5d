//! What a vma shows that is no page of a medium: zeros, copies that may become the program's, and
//! pages that could not be had.
//!
//! Holes and the space past the end are in [`vma`](super); the decision what belongs where is that
//! of a file mapping.

use super::{Access, Vma};
use crate::areas::{self, Cost};
use crate::units::{PAGE_SIZE, Pages, VmaOff};
use rustix::io::Errno;
use std::io;

impl Vma {
    /// Makes pages read as zeros that nobody can store to: a store is SIGSEGV. For a mapping that
    /// is only for reading, which needs no memory for them.
    ///
    /// It answers a store, too, that the host has reported before it looked at what is permitted.
    ///
    /// # Errors
    ///
    /// Returns the host's error.
    pub fn map_zeros(&self, at: VmaOff, pages: Pages) -> io::Result<()> {
        let bytes = self.space().bytes(at, pages);
        self.space().reservation().map_zeros(bytes.clone())?;
        self.space().answered(&bytes, |_| true);
        Ok(())
    }

    /// Shows a copy of `bytes`, whole pages, that is protected against writing: a store asks the
    /// sink.
    ///
    /// # Errors
    ///
    /// Returns an error of kind [`io::ErrorKind::Unsupported`] if the vma is not lazy, or the
    /// host's. Part of the range may be zapped then.
    ///
    /// # Panics
    ///
    /// Panics if `bytes` are not whole pages.
    pub fn map_copy(&self, at: VmaOff, bytes: &[u8]) -> io::Result<()> {
        assert!(bytes.len().is_multiple_of(PAGE_SIZE), "vma: a copy is made of whole pages");
        let pages =
            Pages(bytes.len().div_ceil(PAGE_SIZE).try_into().expect("memory of this process"));
        let range = self.space().bytes(at, pages);
        let uffd = self.uffd()?;
        match self.space().reservation().fill_copy(range.clone(), bytes, uffd) {
            // Something else is mapped in the range.
            Err(Errno::NOENT | Errno::EXIST) => {
                self.zap(at, pages)?;
                self.space().reservation().fill_copy(range.clone(), bytes, uffd)?;
            }
            filled => filled?,
        }
        self.space().answered(&range, |wanted| wanted == Access::Read);
        Ok(())
    }

    /// Permits stores to pages of a [hole](Vma::map_hole) or [copy](Vma::map_copy), which are the
    /// program's own from then on.
    ///
    /// # Errors
    ///
    /// Returns an error of kind [`io::ErrorKind::Unsupported`] if the vma is not lazy, or the
    /// host's.
    pub fn unprotect(&self, at: VmaOff, pages: Pages) -> io::Result<()> {
        let bytes = self.space().bytes(at, pages);
        self.space().reservation().unprotect(bytes.clone(), self.uffd()?)?;
        self.space().answered(&bytes, |_| true);
        Ok(())
    }

    /// Makes a touch of pages SIGBUS for now, because they could not be had. A moment later the sink of
    /// a lazy vma is told to let them be [asked for again](FaultSink::retry), if this was called in
    /// answer to a fault.
    ///
    /// Where the host has no area left for that (`vm.max_map_count`), the touch of a page that is
    /// missing in a lazy vma is that of [failed memory](Vma::map_poison) until then.
    ///
    /// # Errors
    ///
    /// Returns the host's error.
    pub fn refuse(&self, at: VmaOff, pages: Pages) -> io::Result<()> {
        let bytes = self.space().bytes(at, pages);
        let reservation = self.space().reservation();
        let voided = areas::with_spare(Cost::Some, || reservation.map_void(bytes.clone()));
        match self.space().service() {
            // A mark takes no area. It says that memory failed, for a moment.
            Some(service) if voided.is_err() => {
                reservation.mark_failed(bytes.clone(), service.uffd())?;
            }
            _ => voided?,
        }
        self.space().refused(&bytes);
        Ok(())
    }

    /// Answers who waits for pages that are the program's own: one that it gave back to the host
    /// (`MADV_DONTNEED`) is zeros again, and the others stay as they are.
    ///
    /// # Errors
    ///
    /// Returns the host's error.
    pub fn renew_own(&self, at: VmaOff, pages: Pages) -> io::Result<()> {
        let bytes = self.space().bytes(at, pages);
        if let Ok(uffd) = self.uffd() {
            let reservation = self.space().reservation();
            let filled = reservation.fill_hole(bytes.clone(), uffd);
            match filled.and_then(|()| reservation.unprotect(bytes.clone(), uffd)) {
                // The host finds the page by itself, as in any private mapping.
                Ok(()) | Err(Errno::NOENT) => (),
                Err(error) => return Err(error.into()),
            }
        }
        self.space().answered(&bytes, |_| true);
        Ok(())
    }

    fn uffd(&self) -> io::Result<&crate::reserve::Uffd> {
        let service = self.space().service().ok_or(io::ErrorKind::Unsupported)?;
        Ok(service.uffd())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

    use crate::sync::{Arc, Mutex};
    use crate::units::{PAGE_SIZE, Pages, VmaOff};
    use crate::vma::{Access, FaultSink, Vma};

    /// Shows a copy of sevens, and gives the page to who stores to it.
    #[derive(Default)]
    struct CopyOnWrite(Mutex<Option<Vma>>);

    impl FaultSink for CopyOnWrite {
        fn fault(&self, at: VmaOff, access: Access) {
            let vma = self.0.lock();
            let vma = vma.as_ref().unwrap();
            match access {
                Access::Read => vma.map_copy(at, &[7; PAGE_SIZE]).unwrap(),
                Access::Write => {
                    vma.map_copy(at, &[8; PAGE_SIZE]).unwrap();
                    vma.unprotect(at, Pages(1)).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_copy_is_read_in_place_and_asks_before_it_is_stored_to() {
        let Some(service) = crate::faults::of_test() else { return };
        let sink = Arc::new(CopyOnWrite::default());
        let vma = Vma::reserve_lazy(Pages(2), &service, sink.clone()).unwrap();
        let window = vma.addr();
        *sink.0.lock() = Some(vma);
        let space = sink.0.lock().as_ref().map(|vma| Arc::clone(&vma.space)).unwrap();
        assert_eq!(space.first_address(), window);
        let bytes = space.reservation().window();

        let mut byte = [0];
        bytes.read(5, &mut byte).unwrap();
        assert_eq!(byte, [7]);
        bytes.write(5, &[9]).unwrap();
        bytes.read(4, &mut byte).unwrap();
        assert_eq!(byte, [8], "the sink was asked before the store");
        bytes.read(5, &mut byte).unwrap();
        assert_eq!(byte, [9]);
        *sink.0.lock() = None;
    }
}
