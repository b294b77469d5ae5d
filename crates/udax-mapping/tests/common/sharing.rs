//! A file that shares all its pages, and moves away from each with the first store to it.

use super::PAGE;
use std::ops::Range;
use udax_dev::{DaxBytes, DaxDevice, DaxSpan, PgmapDevice};
use udax_mapping::{Iomap, IomapError, IomapOps, Mapping, New};
use udax_mm::media::FileMedia;
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::{Arc, Mutex, Weak};
use udax_mm::{
    Access, DeviceOff, FaultService, FileIndex, MediaRange, MemoryType, Pages, Pgmap, PgmapOff,
    Wait,
};

/// Page n is page n of the device while it is shared, and then page `PAGES + n`.
pub struct SharingFile {
    pub pgmap: Pgmap,
    pub mapping: Arc<Mapping>,
    device: Arc<dyn DaxDevice>,
    is_own: Mutex<Vec<bool>>,
    left: Mutex<Vec<Left>>,
    /// Whether there is no room for copies.
    pub is_full: AtomicBool,
}

/// How a page was in use at the moment in which the file moved away from it. Whoever has it alone
/// then may store to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Left {
    Idle,
    /// The others know, and leave it alone.
    Pinned,
    Counted,
}

impl SharingFile {
    pub fn new(pages: u64, service: Option<Arc<FaultService>>) -> Arc<SharingFile> {
        let all = Pages(2 * pages);
        let media = Arc::new(FileMedia::memfd("sharing", all.bytes()).expect("memory for a test"));
        let range = MediaRange { media, start: 0, pages: all };
        let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).expect("one range");
        let device = Arc::new(PgmapDevice::new(pgmap.clone()));
        Arc::new_cyclic(|weak: &Weak<SharingFile>| SharingFile {
            pgmap,
            mapping: Mapping::new(weak.clone(), service),
            device,
            is_own: Mutex::new(vec![false; usize::try_from(pages).expect("a small file")]),
            left: Mutex::default(),
            is_full: AtomicBool::new(false),
        })
    }

    /// What became of the pages that the file left, in order.
    pub fn left(&self) -> Vec<Left> {
        self.left.lock().clone()
    }

    /// Gives the pages of its own up for those that others have, too.
    pub fn share_again(&self) {
        let broken = self.mapping.break_layout(FileIndex(0)..self.end(), Wait::Never);
        let broken = broken.expect("nobody pins a page");
        self.is_own.lock().fill(false);
        drop(broken);
    }

    fn leave(&self, is_own: &mut [bool], page: usize) -> Result<(), IomapError> {
        let old = PgmapOff(block_of(is_own, page));
        let live = self.pgmap.try_get_live().expect("the device lives");
        let left = match (live.first_pinned(old.span(Pages(1))), live.get_folio(old)) {
            (Some(_), _) => Left::Pinned,
            (None, Some(_)) => Left::Counted,
            (None, None) => Left::Idle,
        };
        self.left.lock().push(left);
        is_own[page] = true;
        let bytes = DaxBytes::new(Arc::clone(&self.device));
        let mut copy = [0; 4096];
        let copied = bytes
            .read(old.0 * PAGE, &mut copy)
            .and_then(|()| bytes.write(block_of(is_own, page) * PAGE, &copy));
        copied.map_err(|error| IomapError(error.into()))
    }
}

impl IomapOps for SharingFile {
    fn iomap(&self, index: FileIndex, access: Access) -> Result<Iomap, IomapError> {
        let mut is_own = self.is_own.lock();
        let page = usize::try_from(index.0).expect("a small file");
        if page >= is_own.len() {
            return Ok(Iomap::PastEnd);
        }
        let mut new = New::Nothing;
        if access == Access::Write && !is_own[page] {
            if self.is_full.load(Ordering::Relaxed) {
                return Err(IomapError("no room for a copy".into()));
            }
            self.leave(&mut is_own, page)?;
            new = New::Copied(index);
        }
        let like = |other: &&bool| **other == is_own[page];
        let before = is_own[..page].iter().rev().take_while(like).count();
        let behind = is_own[page..].iter().take_while(like).count();
        let (start, block) = (page - before, block_of(&is_own, page - before));
        let count = |pages: usize| u64::try_from(pages).expect("a small file");
        let span = self.device.direct_access(DeviceOff(block), Pages(count(before + behind)));
        Ok(Iomap::Data {
            span: span.map_err(|error| IomapError(error.into()))?,
            start: FileIndex(count(start)),
            is_shared: !is_own[page],
            new,
        })
    }

    fn end(&self) -> FileIndex {
        FileIndex(u64::try_from(self.is_own.lock().len()).expect("a small file"))
    }

    fn spans(&self, range: Range<FileIndex>) -> Result<Vec<(FileIndex, DaxSpan)>, IomapError> {
        let is_own = self.is_own.lock();
        let own = (0..is_own.len()).filter(|page| is_own[*page]);
        let spans = own.map(|page| {
            let at = DeviceOff(block_of(&is_own, page));
            let span = self.device.direct_access(at, Pages(1));
            let index = FileIndex(u64::try_from(page).expect("a small file"));
            Ok((index, span.map_err(|error| IomapError(error.into()))?))
        });
        spans.filter(|span| span.as_ref().map_or(true, |(at, _)| range.contains(at))).collect()
    }
}

/// Where a page lies.
fn block_of(is_own: &[bool], page: usize) -> u64 {
    let first = if is_own[page] { is_own.len() } else { 0 };
    u64::try_from(first + page).expect("a small file")
}
