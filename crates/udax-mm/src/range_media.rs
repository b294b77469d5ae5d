//! A range of an existing mapping as a medium: the memory of a guest, a window of a device.
//!
//! This file owns what is said about such a range. Whether its addresses may be touched is promised
//! by whoever makes one, in [`reserve`](crate::reserve).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

use crate::active::Active;
use crate::bytes::Window;
use crate::host::Host;
use crate::media::{Media, MediaError, MediaFacts, Site};
use crate::persist::Persist;
use crate::units::PAGE_SIZE;

/// A range of an existing mapping, which others may use as well: the memory of a guest that a
/// virtual machine monitor has mapped, the window (BAR) of a device.
///
/// What the host would say about a file has to be told. A copy of bytes that are gone is an error
/// here too.
///
/// # Examples
///
/// ```
/// use std::ptr::NonNull;
/// use udax_mm::{Media, MediaFacts, PAGE_SIZE};
/// use udax_mm::media::{Persistence, RangeMedia};
/// # use std::alloc::{Layout, alloc_zeroed};
/// # let layout = Layout::from_size_align(PAGE_SIZE, PAGE_SIZE).unwrap();
/// # let memory = unsafe { alloc_zeroed(layout) };
/// let start = NonNull::new(memory).expect("there is memory");
/// let facts = MediaFacts {
///     persistence: Persistence::Volatile,
///     host_page: PAGE_SIZE,
///     is_registrable: true,
///     is_writable: true,
///     is_dax: false,
/// };
/// // SAFETY: nobody has a reference to the memory, and it is not given back.
/// let media = unsafe { RangeMedia::new(start, PAGE_SIZE, facts) }?;
/// media.store_u64(8, 42)?;
/// assert_eq!(media.load_u64(8)?, 42);
/// # Ok::<(), udax_mm::MediaError>(())
/// ```
#[derive(Debug)]
pub struct RangeMedia {
    window: Window,
    facts: MediaFacts,
    persist: Persist,
    backing: Option<(File, u64)>,
    active: Active,
}

impl RangeMedia {
    /// Keeps the file that the range maps, if it can be that.
    pub(crate) fn with_backing(mut self, file: File, start: u64) -> Result<RangeMedia, MediaError> {
        let host = Host::of(&file)?;
        let page = host.page();
        self.facts.host_page = self.facts.host_page.max(page);
        RangeMedia::check(self.window.start().addr().get(), self.window.len(), self.facts)?;
        if !usize::try_from(start).is_ok_and(|start| start.is_multiple_of(page)) {
            return Err(MediaError::Misaligned { at: start });
        }
        let file_len = u64::try_from(host.check_len(&file)?).expect("usize has at most 64 bits");
        let len = self.len();
        if start.checked_add(len).is_none_or(|end| end > file_len) {
            return Err(MediaError::NotInFile { start, len, file_len });
        }
        self.backing = Some((file, start));
        Ok(self)
    }

    /// Refuses a range that is no medium.
    pub(crate) fn check(start: usize, len: usize, facts: MediaFacts) -> Result<(), MediaError> {
        let page = facts.host_page.max(PAGE_SIZE);
        let bytes = |value| u64::try_from(value).expect("usize has at most 64 bits");
        if len == 0 {
            return Err(MediaError::Empty);
        }
        if !start.is_multiple_of(page) {
            return Err(MediaError::UnalignedRange { address: start, page });
        }
        if !len.is_multiple_of(page) {
            return Err(MediaError::PartialPage { len: bytes(len), page });
        }
        Ok(())
    }

    pub(crate) fn of_window(window: Window, told: MediaFacts) -> RangeMedia {
        let facts = MediaFacts { is_registrable: told.is_registrable && told.is_writable, ..told };
        let (persist, active) = (Persist::new(facts.persistence), Active::default());
        RangeMedia { window, facts, persist, backing: None, active }
    }

    /// Refuses a store if none was permitted.
    fn check_writable(&self) -> Result<(), MediaError> {
        if self.facts.is_writable { Ok(()) } else { Err(MediaError::ReadOnly) }
    }
}

impl Media for RangeMedia {
    fn len(&self) -> u64 {
        u64::try_from(self.window.len()).expect("usize has at most 64 bits")
    }

    fn facts(&self) -> MediaFacts {
        self.facts
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MediaError> {
        self.window.read(at, into)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        self.check_writable()?;
        self.window.write(at, bytes)
    }

    fn read_part(&self, at: u64, into: &mut [u8], whole: u64) -> Result<(), MediaError> {
        self.window.read_part(at, into, whole)
    }

    fn write_part(&self, at: u64, bytes: &[u8], whole: u64) -> Result<(), MediaError> {
        self.check_writable()?;
        self.window.write_part(at, bytes, whole)
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), MediaError> {
        self.check_writable()?;
        self.window.zero(at, len)
    }

    fn load_u64(&self, at: u64) -> Result<u64, MediaError> {
        self.window.load_u64(at)
    }

    fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> {
        self.check_writable()?;
        self.window.store_u64(at, value)
    }

    fn flush(&self, at: u64, len: u64, _site: Site) -> Result<(), MediaError> {
        self.persist.flush(&self.window, at, len)
    }

    fn fence(&self, _site: Site) -> Result<(), MediaError> {
        self.persist.fence(&self.window)
    }

    fn backing(&self) -> Option<(BorrowedFd<'_>, u64)> {
        self.backing.as_ref().map(|(file, start)| (file.as_fd(), *start))
    }

    fn active(&self) -> &Active {
        &self.active
    }

    fn address(&self) -> Option<NonNull<u8>> {
        Some(self.window.start())
    }
}

#[cfg(test)]
mod tests {
    use super::RangeMedia;
    use crate::copies::Copies;
    use crate::media::{Media, MediaError, MediaFacts, Persistence};
    use crate::reserve::{Reservation, Sharing};
    use crate::units::PAGE_SIZE;
    use crate::vma::Access;
    use std::fs::File;
    use std::os::fd::AsFd;

    const FACTS: MediaFacts = MediaFacts {
        persistence: Persistence::CacheLines,
        host_page: PAGE_SIZE,
        is_registrable: false,
        is_writable: true,
        is_dax: true,
    };

    /// Two pages of memory and one that cannot be touched, as a range of a reservation that the
    /// test keeps.
    fn range(facts: MediaFacts) -> (Reservation, RangeMedia) {
        let memory = Reservation::new(3 * PAGE_SIZE).unwrap();
        let file = rustix::fs::memfd_create("range", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 12288).unwrap();
        let whole = 0..3 * PAGE_SIZE;
        memory.map_file(whole, file.as_fd(), 0, Access::Write, Sharing::Shared).unwrap();
        let window = memory.window().copied(Copies::of_this_processor());
        let file = File::from(file);
        let other_handle = file.try_clone().unwrap();
        let range = RangeMedia::of_window(window, facts).with_backing(file, 0).unwrap();
        other_handle.set_len(8192).unwrap();
        (memory, range)
    }

    #[test]
    fn a_range_holds_the_bytes_of_its_mapping() {
        let (memory, range) = range(FACTS);
        memory.window().write(5000, b"theirs").unwrap();
        let mut bytes = [0; 6];
        range.read(5000, &mut bytes).unwrap();
        assert_eq!(&bytes, b"theirs");
        range.write(100, b"ours").unwrap();
        range.flush(100, 4, std::panic::Location::caller()).unwrap();
        range.fence(std::panic::Location::caller()).unwrap();
        memory.window().read(100, &mut bytes[..4]).unwrap();
        assert_eq!(&bytes[..4], b"ours");
    }

    #[test]
    fn a_part_of_a_range_that_is_gone_is_an_error() {
        let (_memory, range) = range(FACTS);
        let fault = range.read(8000, &mut [0; 400]);
        assert!(matches!(fault, Err(MediaError::Fault { at: 8192 })), "{fault:?}");
    }

    #[test]
    fn a_file_that_ends_before_the_range_is_refused() {
        for (start, file_len) in [(4096, 12288), (0, 8192), (0_u64.wrapping_sub(8192), 12288)] {
            let memory = Reservation::new(3 * PAGE_SIZE).unwrap();
            let window = memory.window().copied(Copies::of_this_processor());
            let file = rustix::fs::memfd_create("short", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
            rustix::fs::ftruncate(&file, file_len).unwrap();

            let refused = RangeMedia::of_window(window, FACTS).with_backing(file.into(), start);

            assert!(matches!(refused, Err(MediaError::NotInFile { .. })), "{start}: {refused:?}");
        }
    }

    #[test]
    fn a_range_for_reading_refuses_stores() {
        let facts = MediaFacts { is_writable: false, is_registrable: true, ..FACTS };
        let (_memory, range) = range(facts);
        assert!(!range.facts().is_registrable, "registration pins for storing");
        for refused in [range.write(0, b"x"), range.zero(0, 1), range.store_u64(0, 1)] {
            assert!(matches!(refused, Err(MediaError::ReadOnly)), "{refused:?}");
        }
    }

    #[test]
    fn a_range_of_partial_pages_is_refused() {
        let check = |start, len| RangeMedia::check(start, len, FACTS);
        assert!(matches!(check(4096, 0), Err(MediaError::Empty)));
        assert!(matches!(check(4096, 4097), Err(MediaError::PartialPage { len: 4097, .. })));
        let refused = check(4104, 4096);
        assert!(matches!(refused, Err(MediaError::UnalignedRange { address: 4104, .. })));
        check(4096, 8192).unwrap();
        let huge = MediaFacts { host_page: 2 << 20, ..FACTS };
        assert!(RangeMedia::check(4096, 2 << 20, huge).is_err());
    }
}
