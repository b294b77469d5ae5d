//! Where pinned pages are in this process: what a device is told.
//!
//! This file owns the list of addresses. A pin keeps them good.

use crate::media::MediaError;
use crate::pinned_span::PinnedSpan;
use crate::sync::Arc;
use crate::units::{Pages, PgmapOff};
use std::ptr::{self, NonNull};

/// Bytes side by side in this process (`struct iovec`).
///
/// The memory is shared with other threads, processes and devices: it is for a kernel or a device
/// to read and write, and for nobody to make a reference of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Iovec {
    /// The first byte.
    pub start: NonNull<u8>,
    /// The number of bytes.
    pub len: usize,
}

impl PinnedSpan {
    /// The addresses of the pinned pages, in order, one for each run of pages that lie side by
    /// side. They stay good for as long as the pin does.
    ///
    /// ```
    /// # use udax_mm::{MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff};
    /// # use udax_mm::{PinInfo, PinKind, PinOwner, PinTerm, media::FileMedia, sync::Arc};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let medium = || Arc::new(FileMedia::memfd("example", 1 << 20).unwrap());
    /// # let range = |media| MediaRange { media, start: 0, pages: Pages(256) };
    /// # let ranges = vec![range(medium()), range(medium())];
    /// # let pgmap = Pgmap::new(ranges, MemoryType::FsDax)?.try_get_live().unwrap();
    /// # let owner = PinOwner { process: 1, connection: 0, label: "example".into() };
    /// # let since = std::time::Instant::now();
    /// # let info = PinInfo { owner, since, kind: PinKind::Write, term: PinTerm::Long };
    /// // The first medium ends at page 256.
    /// let pin = pgmap.request_folios(PgmapOff(250), Order::Base, 10)?.into_pinned(info);
    /// let lengths: Vec<usize> = pin.iovecs()?.iter().map(|iovec| iovec.len / 4096).collect();
    /// assert_eq!(lengths, [6, 4]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`MediaError::NotAddressable`] with the first byte that this process has not mapped: memory
    /// that is private to its device, or no memory at all (a recorder, a crash image).
    /// [`MediaError::Poisoned`] if a page failed.
    pub fn iovecs(&self) -> Result<Vec<Iovec>, MediaError> {
        let mut iovecs: Vec<Iovec> = Vec::new();
        let pages = self.pages();
        if let Some(page) = self.pgmap().first_poisoned(self.pages()) {
            return Err(MediaError::Poisoned { at: page.byte() });
        }
        let mut at = pages.start;
        while at < pages.end {
            let run = self.pgmap().contiguous(at).min(pages.end.since(at));
            let next = self.iovec(at, run)?;
            // Media side by side are mappings of their own, and a device may want one at a time.
            let is_same = at > pages.start && self.is_one_medium(at);
            match iovecs.last_mut() {
                Some(last) if is_same && last.end() == next.start => last.len += next.len,
                _ => iovecs.push(next),
            }
            at = at + run;
        }
        Ok(iovecs)
    }

    /// Whether the page before `at` lies in the same medium.
    fn is_one_medium(&self, at: PgmapOff) -> bool {
        let medium = |at| Arc::as_ptr(self.pgmap().locate(at).0);
        ptr::addr_eq(medium(at), medium(PgmapOff(at.0 - 1)))
    }

    /// The addresses of pages that lie in one medium.
    fn iovec(&self, at: PgmapOff, pages: Pages) -> Result<Iovec, MediaError> {
        let refused = MediaError::NotAddressable { at: at.byte() };
        let (media, byte) = self.pgmap().locate(at);
        let is_addressable = self.pgmap().pgmap().kind().is_addressable();
        let Some(start) = media.address().filter(|_| is_addressable) else { return Err(refused) };
        let in_memory = |bytes| usize::try_from(bytes).expect("it is mapped");
        let address = start.addr().checked_add(in_memory(byte)).expect("it is mapped");
        Ok(Iovec { start: start.with_addr(address), len: in_memory(pages.bytes()) })
    }
}

impl Iovec {
    /// The address behind the last byte.
    fn end(&self) -> NonNull<u8> {
        let end = self.start.addr().checked_add(self.len).expect("it is mapped");
        self.start.with_addr(end)
    }
}
