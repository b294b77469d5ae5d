//! F-56: an index takes memory for what is touched, whatever the size of the file, and gives it back.

mod common;

use common::{PAGE, fault_service, info, mode, range};
use std::ops::Range;
use udax_dev::{DaxDevice, DaxSpan, PgmapDevice};
use udax_mapping::{Iomap, IomapError, IomapOps, Mapping, New, Populate};
use udax_mm::media::FileMedia;
use udax_mm::sync::{Arc, Weak};
use udax_mm::{Access, DeviceOff, FileIndex, MediaRange, MemoryType, Pages, Pgmap, PinKind, Wait};

/// Pages of data, one in each `STRIDE` pages of the file; the rest is a hole.
const BLOCKS: u64 = 1000;
/// So that the file has 256 GiB, and no two of them lie in one node.
const STRIDE: u64 = 1 << 16;
const END: u64 = BLOCKS << 16;

/// A file of a few pages far apart.
struct Sparse {
    device: PgmapDevice,
    mapping: Arc<Mapping>,
}

impl Sparse {
    fn new(service: bool) -> Option<Arc<Sparse>> {
        let service = if service { Some(fault_service()?) } else { None };
        let media = FileMedia::memfd("sparse", Pages(BLOCKS).bytes()).expect("memory for a test");
        let range = MediaRange { media: Arc::new(media), start: 0, pages: Pages(BLOCKS) };
        let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).expect("one range");
        Some(Arc::new_cyclic(|owner: &Weak<Sparse>| Sparse {
            device: PgmapDevice::new(pgmap),
            mapping: Mapping::new(owner.clone(), service),
        }))
    }

    fn page(&self, block: u64) -> Result<DaxSpan, IomapError> {
        let span = self.device.direct_access(DeviceOff(block), Pages(1));
        span.map_err(|error| IomapError(error.into()))
    }

    /// Gives up nothing, but breaks the layout of all of it.
    fn break_all(&self) {
        let all = self.mapping.break_layout(range(0, u64::MAX), Wait::Never);
        drop(all.expect("nobody pins a page"));
    }
}

impl IomapOps for Sparse {
    fn iomap(&self, index: FileIndex, _access: Access) -> Result<Iomap, IomapError> {
        if index.0 >= END {
            return Ok(Iomap::PastEnd);
        }
        if !index.0.is_multiple_of(STRIDE) {
            return Ok(Iomap::Hole { pages: Pages(STRIDE - index.0 % STRIDE) });
        }
        let span = self.page(index.0 / STRIDE)?;
        Ok(Iomap::Data { span, start: index, is_shared: false, new: New::Nothing })
    }

    fn end(&self) -> FileIndex {
        FileIndex(END)
    }

    fn spans(&self, range: Range<FileIndex>) -> Result<Vec<(FileIndex, DaxSpan)>, IomapError> {
        let blocks = range.start.0.div_ceil(STRIDE)..range.end.0.min(END).div_ceil(STRIDE);
        blocks.map(|block| Ok((FileIndex(block * STRIDE), self.page(block)?))).collect()
    }
}

/// What an index may take for so many entries that lie alone: a word of 8 bytes each, with room for its
/// neighbours.
fn bound(entries: u64) -> usize {
    usize::try_from(entries).expect("few") * 640
}

#[test]
fn pins_of_a_few_pages_of_a_huge_file_take_memory_for_those_pages() {
    let file = Sparse::new(false).expect("no host is asked for more");
    assert_eq!(file.mapping.entry_bytes(), 0);
    let mut one = 0;
    for block in 0..BLOCKS {
        let at = block * STRIDE;
        drop(file.mapping.pin(range(at, at + 1), info("far apart", PinKind::Write)).unwrap());
        let bytes = file.mapping.entry_bytes();
        one = if block == 0 { bytes } else { one };
        let count = usize::try_from(block + 1).unwrap();
        assert_eq!(bytes, count * one, "the same for each, however far it is");
    }
    assert_eq!(file.mapping.entry_pages(), Pages(BLOCKS));
    assert!(file.mapping.entry_bytes() <= bound(BLOCKS), "{}", file.mapping.entry_bytes());
    file.mapping.verify().unwrap();

    // A half goes, and its memory.
    let half = range(0, END / 2);
    drop(file.mapping.break_layout(half, Wait::Never).expect("nobody pins a page"));
    assert_eq!(file.mapping.entry_bytes(), usize::try_from(BLOCKS / 2).unwrap() * one);
    file.break_all();
    assert_eq!((file.mapping.entry_pages(), file.mapping.entry_bytes()), (Pages(0), 0));
}

#[test]
fn a_sparse_mapping_of_a_huge_file_takes_memory_for_what_is_touched() {
    let Some(file) = Sparse::new(true) else { return };
    let mapped = file.mapping.map(FileIndex(0), Pages(END), mode(Access::Write, Populate::Lazy));
    let mapped = mapped.expect("there are that many addresses");
    assert_eq!(file.mapping.entry_bytes(), 0, "nothing is touched");
    // A page of data, and one of the hole on the other side of the same stretch.
    for block in 0..BLOCKS {
        mapped.vma().store_u64(block * STRIDE * PAGE, block + 1).unwrap();
        let hole = (block * STRIDE + STRIDE / 2) * PAGE;
        assert_eq!(mapped.vma().load_u64(hole).unwrap(), 0);
    }
    for block in 0..BLOCKS {
        assert_eq!(mapped.vma().load_u64(block * STRIDE * PAGE).unwrap(), block + 1);
    }
    assert_eq!(file.mapping.entry_pages(), Pages(2 * BLOCKS));
    assert!(file.mapping.entry_bytes() <= bound(2 * BLOCKS), "{}", file.mapping.entry_bytes());
    file.mapping.verify().unwrap();

    file.break_all();

    assert_eq!((file.mapping.entry_pages(), file.mapping.entry_bytes()), (Pages(0), 0));
    assert_eq!(mapped.vma().load_u64(0).unwrap(), 1, "it comes in again");
    drop(mapped);
    file.break_all();
    assert_eq!(file.mapping.entry_bytes(), 0);
    file.mapping.verify().unwrap();
}
