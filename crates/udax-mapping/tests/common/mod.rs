//! A small owner of one file: a list of blocks over a page map, without a filesystem.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod sharing;
#[cfg(not(shuttle))]
pub mod witness;

use std::collections::HashSet;
use std::io::Write as _;
use std::ops::Range;
use std::time::Instant;
use udax_dev::{DaxBytes, DaxDevice, DaxSpan, PgmapDevice};
use udax_mapping::{
    BreakError, Iomap, IomapError, IomapOps, LayoutBroken, MapMode, Mapping, New, PinnedFolios,
    Populate,
};
use udax_mm::media::FileMedia;
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::{Arc, Mutex, Weak};
use udax_mm::{
    Access, DeviceOff, FaultService, FileIndex, IdleSpan, LimboSink, Media, MediaRange, MemoryType,
    Order, Pages, Pgmap, PgmapOff, PinInfo, PinKind, PinOwner, PinTerm, Wait,
};

pub const PAGE: u64 = 4096;

/// A hook that a test runs while the owner answers.
type Hook = Box<dyn FnOnce() + Send>;

/// One file on one device.
pub struct TestFile {
    pub device: Arc<dyn DaxDevice>,
    pub mapping: Arc<Mapping>,
    pub sink: Arc<dyn LimboSink>,
    returned: Arc<Returned>,
    blocks: Mutex<Blocks>,
    /// Run after the next answer to `iomap` is known, before it is given.
    hook: Mutex<Option<Hook>>,
    /// Run at the next call of `spans`, with the layout lock held exclusively.
    spans_hook: Mutex<Option<Hook>>,
    permits_stores: AtomicBool,
    fills_holes: AtomicBool,
}

#[derive(Default)]
struct Blocks {
    /// The block of each page of the file; `None` is a hole.
    pages: Vec<Option<u64>>,
    /// Blocks that no file has, in the order in which they are given out.
    free: Vec<u64>,
}

/// Where limbo delivers.
#[derive(Default)]
struct Returned(Mutex<Vec<IdleSpan>>);

impl LimboSink for Returned {
    fn returned(&self, span: IdleSpan) {
        self.0.lock().push(span);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no block is free")]
pub struct NoSpace;

impl TestFile {
    /// A file with these blocks, on a device of `device_pages` pages of memory.
    pub fn new(device_pages: u64, pages: &[Option<u64>]) -> Arc<TestFile> {
        let media = FileMedia::memfd("test", Pages(device_pages).bytes());
        TestFile::on(Arc::new(media.expect("memory for a test")), pages, None)
    }

    /// The same, with faults answered by userfaultfd; `None` where the host does not permit it.
    pub fn lazy(device_pages: u64, pages: &[Option<u64>]) -> Option<Arc<TestFile>> {
        let service = fault_service()?;
        let media = FileMedia::memfd("test", Pages(device_pages).bytes());
        let media = Arc::new(media.expect("memory for a test"));
        Some(TestFile::on(media, pages, Some(service)))
    }

    /// The same, on a given medium.
    pub fn on(
        media: Arc<dyn Media>,
        pages: &[Option<u64>],
        service: Option<Arc<FaultService>>,
    ) -> Arc<TestFile> {
        TestFile::of_kind(media, MemoryType::FsDax, pages, service)
    }

    /// The same, on a page map of a given kind.
    pub fn of_kind(
        media: Arc<dyn Media>,
        kind: MemoryType,
        pages: &[Option<u64>],
        service: Option<Arc<FaultService>>,
    ) -> Arc<TestFile> {
        let all = Pages::holding(media.len());
        let range = MediaRange { media, start: 0, pages: all };
        let pgmap = Pgmap::new(vec![range], kind).expect("one range");
        let taken: HashSet<u64> = pages.iter().copied().flatten().collect();
        let used = |block: &u64| taken.contains(block);
        let free = (0..all.0).rev().filter(|block| !used(block)).collect();
        let returned = Arc::new(Returned::default());
        Arc::new_cyclic(|weak: &Weak<TestFile>| TestFile {
            device: Arc::new(PgmapDevice::new(pgmap)),
            mapping: Mapping::new(weak.clone(), service),
            sink: returned.clone(),
            returned,
            blocks: Mutex::new(Blocks { pages: pages.to_vec(), free }),
            hook: Mutex::new(None),
            spans_hook: Mutex::new(None),
            permits_stores: AtomicBool::new(true),
            fills_holes: AtomicBool::new(false),
        })
    }

    /// The same file with an address space of its own, as after it was closed and opened again.
    pub fn reopened(&self) -> Arc<TestFile> {
        Arc::new_cyclic(|weak: &Weak<TestFile>| TestFile {
            device: Arc::clone(&self.device),
            mapping: Mapping::new(weak.clone(), None),
            sink: self.sink.clone(),
            returned: Arc::clone(&self.returned),
            blocks: Mutex::new(Blocks { pages: self.blocks(), free: Vec::new() }),
            hook: Mutex::new(None),
            spans_hook: Mutex::new(None),
            permits_stores: AtomicBool::new(true),
            fills_holes: AtomicBool::new(false),
        })
    }

    pub fn pgmap(&self) -> Pgmap {
        self.device.pgmaps().remove(0)
    }

    /// Fills page `block` of the device with one byte.
    pub fn fill_block(&self, block: u64, byte: u8) {
        let bytes = DaxBytes::new(Arc::clone(&self.device));
        bytes.write(block * PAGE, &[byte; 4096]).expect("the device lives");
    }

    /// The first byte of page `block` of the device.
    pub fn byte_of_block(&self, block: u64) -> u8 {
        let mut byte = [0];
        let bytes = DaxBytes::new(Arc::clone(&self.device));
        bytes.read(block * PAGE, &mut byte).expect("the device lives");
        byte[0]
    }

    /// The block of each page.
    pub fn blocks(&self) -> Vec<Option<u64>> {
        self.blocks.lock().pages.clone()
    }

    pub fn free_blocks(&self) -> usize {
        self.blocks.lock().free.len()
    }

    /// Lets a store to a hole fill all of it.
    pub fn fill_holes(&self) {
        self.fills_holes.store(true, Ordering::Relaxed);
    }

    /// Runs `hook` after the next answer to `iomap` is known, before it is given.
    pub fn hook_next_iomap(&self, hook: impl FnOnce() + Send + 'static) {
        *self.hook.lock() = Some(Box::new(hook));
    }

    /// Permits no stores from here on, as a file does that is frozen.
    pub fn forbid_stores(&self) {
        let all = range(0, u64::MAX);
        let _broken = self.mapping.break_layout(all, Wait::Never).expect("nobody pins it");
        self.permits_stores.store(false, Ordering::Relaxed);
    }

    /// Runs `hook` when a layout is broken the next time, with the layout lock held exclusively.
    pub fn hook_next_spans(&self, hook: impl FnOnce() + Send + 'static) {
        *self.spans_hook.lock() = Some(Box::new(hook));
    }

    /// Gives a hole a block that no mapping knows of yet, and says which.
    pub fn publish(&self, index: u64) -> u64 {
        let mut blocks = self.blocks.lock();
        blocks.allocate(&self.device, index).expect("a block is free");
        blocks.pages[to_usize(index)].expect("it was allocated")
    }

    /// Gives a hole a block, as a write to the file does.
    pub fn allocate(&self, index: u64) {
        self.publish(index);
        self.mapping.invalidate_holes(range(index, index + 1));
    }

    /// Gives the 2 MiB from page `index` on one aligned run of blocks, if they are all holes and
    /// there is such a run.
    pub fn allocate_huge(&self, index: u64) -> bool {
        let mut blocks = self.blocks.lock();
        let holes = &blocks.pages[to_usize(index)..to_usize(index + 512)];
        if holes.iter().any(Option::is_some) {
            return false;
        }
        let is_free = |head: &u64| (*head..*head + 512).all(|block| blocks.free.contains(&block));
        let Some(head) = (0..8).map(|huge| huge * 512).find(is_free) else { return false };
        let run = head..head + 512;
        blocks.free.retain(|block| !run.contains(block));
        for (offset, block) in run.enumerate() {
            blocks.pages[to_usize(index) + offset] = Some(block);
        }
        let bytes = DaxBytes::new(Arc::clone(&self.device));
        bytes.zero(head * PAGE, 512 * PAGE).expect("the device lives");
        drop(blocks);
        self.mapping.invalidate_holes(range(index, index + 512));
        true
    }

    /// Lets each of two pages lie where the other lay, while nobody can look one up.
    pub fn exchange(&self, one: usize, other: usize) {
        let change = || self.blocks.lock().pages.swap(one, other);
        self.mapping.suspended(change).expect("the device lives");
    }

    /// Makes the file longer by holes.
    pub fn grow(&self, pages: usize) {
        let old = self.blocks().len();
        self.publish_growth(pages);
        self.mapping.invalidate_end(range(count(old), count(pages)));
    }

    /// Makes the file longer by holes that no mapping knows of yet.
    pub fn publish_growth(&self, pages: usize) {
        self.blocks.lock().pages.resize(pages, None);
    }

    /// Makes the file shorter, and frees its blocks when nobody pins them.
    pub fn truncate(&self, pages: usize, wait: Wait) -> Result<(), BreakError> {
        let broken = self.mapping.break_layout(range(count(pages), u64::MAX), wait)?;
        self.cut(pages, broken);
        Ok(())
    }

    /// The same, and private mappings lose what they have stored there.
    pub fn truncate_private(&self, pages: usize) {
        let all = range(count(pages), u64::MAX);
        let broken = self.mapping.break_layout(all, Wait::Never).expect("nobody pins a page");
        broken.discard_private();
        self.cut(pages, broken);
    }

    /// The same, but leaves what is pinned to limbo.
    pub fn truncate_deferred(&self, pages: usize) -> Result<(), BreakError> {
        let range = range(count(pages), u64::MAX);
        let mut broken = self.mapping.break_layout_deferred(range, &self.sink)?;
        broken.give_up();
        self.cut(pages, broken);
        Ok(())
    }

    /// Turns pages into holes, and frees their blocks when nobody pins them.
    pub fn punch(&self, range: Range<FileIndex>, wait: Wait) -> Result<(), BreakError> {
        let mut broken = self.mapping.break_layout(range.clone(), wait)?;
        let mut blocks = self.blocks.lock();
        blocks.free_idle(broken.take_idle());
        for index in range.start.0..range.end.0 {
            blocks.pages[to_usize(index)] = None;
        }
        Ok(())
    }

    /// Punches a page, and has its block before mappings are filled again.
    pub fn take_block(&self, page: u64) -> u64 {
        let broken = self.mapping.break_layout(range(page, page + 1), Wait::Never);
        let _broken = broken.expect("nobody pins it");
        self.blocks.lock().pages[to_usize(page)].take().expect("it has a block")
    }

    /// Lets files have a block.
    pub fn give_block(&self, block: u64) {
        self.blocks.lock().free.push(block);
    }

    /// Frees what limbo has delivered, and says how many blocks that were.
    pub fn collect_limbo(&self) -> usize {
        let spans = std::mem::take(&mut *self.returned.0.lock());
        let mut blocks = self.blocks.lock();
        let before = blocks.free.len();
        blocks.free_idle(spans);
        blocks.free.len() - before
    }

    #[track_caller]
    pub fn verify(&self) {
        self.mapping.verify().expect("the mapping keeps its invariants");
        self.pgmap().verify().expect("the page map keeps its invariants");
    }

    /// Gives up the pages from `pages` on, whose layout is broken.
    pub fn cut(&self, pages: usize, mut broken: LayoutBroken<'_>) {
        let mut blocks = self.blocks.lock();
        blocks.free_idle(broken.take_idle());
        blocks.pages.truncate(pages);
    }
}

impl Blocks {
    fn allocate(&mut self, device: &Arc<dyn DaxDevice>, index: u64) -> Result<(), NoSpace> {
        let slot = &mut self.pages[to_usize(index)];
        if slot.is_none() {
            let block = self.free.pop().ok_or(NoSpace)?;
            let bytes = DaxBytes::new(Arc::clone(device));
            bytes.zero(block * PAGE, PAGE).expect("the device lives");
            *slot = Some(block);
        }
        Ok(())
    }

    fn free_idle(&mut self, spans: Vec<IdleSpan>) {
        for span in spans {
            let pages = span.pages();
            self.free.extend(pages.start.0..pages.end.0);
        }
    }

    /// The contiguous run of blocks around a page that has one, as (first page, first block, len).
    fn run(&self, index: u64) -> (u64, u64, u64) {
        let block_of = |index: u64| self.pages.get(to_usize(index)).copied().flatten();
        let block = block_of(index).expect("the page has a block");
        let mut start = index;
        while start > 0 && block > index - start {
            if block_of(start - 1) != Some(block - (index - start) - 1) {
                break;
            }
            start -= 1;
        }
        let mut end = index + 1;
        while block_of(end) == Some(block + (end - index)) {
            end += 1;
        }
        (start, block - (index - start), end - start)
    }

    /// The hole around a page; none if it has a block.
    fn hole_around(&self, index: u64) -> Range<u64> {
        let is_hole = |page: &u64| self.pages[to_usize(*page)].is_none();
        let before = (0..index).rev().take_while(is_hole).count();
        index - count(before)..index + self.hole_len(index)
    }

    fn hole_len(&self, index: u64) -> u64 {
        count(self.pages[to_usize(index)..].iter().take_while(|page| page.is_none()).count())
    }
}

/// Says that lazy mappings are not tested, past the capture of the test harness, so that it is seen.
pub fn skipped(error: &std::io::Error) {
    let _ = writeln!(std::io::stderr(), "SKIPPED lazy mappings: {error}");
}

/// What answers faults by userfaultfd; `None` where the host does not permit it.
pub fn fault_service() -> Option<Arc<FaultService>> {
    FaultService::new().inspect_err(skipped).ok().map(Arc::new)
}

/// Runs `test` with lazy mappings where the host permits them, and with eager ones.
pub fn both(device_pages: u64, pages: &[Option<u64>], test: impl Fn(&TestFile, Populate)) {
    if let Some(file) = TestFile::lazy(device_pages, pages) {
        test(&file, Populate::Lazy);
        file.verify();
    }
    let file = TestFile::new(device_pages, pages);
    test(&file, Populate::Eager);
    file.verify();
}

/// A shared mapping.
pub fn mode(access: Access, populate: Populate) -> MapMode {
    MapMode { access, populate, ..MapMode::default() }
}

/// The folios that a pin holds, as (first page, order).
pub fn folios(pin: &PinnedFolios) -> Vec<(PgmapOff, Order)> {
    let mut folios = Vec::new();
    for span in pin.spans() {
        let mut at = span.pages().start;
        while at < span.pages().end {
            let folio = span.pgmap().get_folio(at).expect("it is pinned");
            folios.push((folio.head(), folio.order()));
            at = folio.pages().end;
        }
    }
    folios
}

impl IomapOps for TestFile {
    fn iomap(&self, index: FileIndex, access: Access) -> Result<Iomap, IomapError> {
        let mut blocks = self.blocks.lock();
        let answer = match blocks.pages.get(to_usize(index.0)).copied() {
            None => Iomap::PastEnd,
            Some(None) if access == Access::Read => {
                Iomap::Hole { pages: Pages(blocks.hole_len(index.0)) }
            }
            Some(_) => {
                let fills = self.fills_holes.load(Ordering::Relaxed);
                let hole = if fills { blocks.hole_around(index.0) } else { index.0..index.0 + 1 };
                let is_new = blocks.pages[to_usize(index.0)].is_none();
                for page in hole.clone() {
                    let allocated = blocks.allocate(&self.device, page);
                    allocated.map_err(|error| IomapError(error.into()))?;
                }
                let hole = FileIndex(hole.start)..FileIndex(hole.end);
                let new = if is_new { New::Allocated(hole) } else { New::Nothing };
                let (start, block, pages) = blocks.run(index.0);
                let span = self.device.recovery_access(DeviceOff(block), Pages(pages));
                let span = span.map_err(|error| IomapError(error.into()))?;
                Iomap::Data { span, start: FileIndex(start), is_shared: false, new }
            }
        };
        drop(blocks);
        let hook = self.hook.lock().take();
        if let Some(hook) = hook {
            hook();
        }
        Ok(answer)
    }

    fn end(&self) -> FileIndex {
        FileIndex(count(self.blocks().len()))
    }

    fn permits_stores(&self) -> bool {
        self.permits_stores.load(Ordering::Relaxed)
    }

    fn spans(&self, range: Range<FileIndex>) -> Result<Vec<(FileIndex, DaxSpan)>, IomapError> {
        let hook = self.spans_hook.lock().take();
        if let Some(hook) = hook {
            hook();
        }
        let blocks = self.blocks.lock();
        let mut spans = Vec::new();
        let mut index = range.start.0;
        let end = range.end.0.min(count(blocks.pages.len()));
        while index < end {
            if blocks.pages[to_usize(index)].is_none() {
                index += 1;
                continue;
            }
            let (start, block, pages) = blocks.run(index);
            let pages = (start + pages).min(end) - index;
            let at = DeviceOff(block + (index - start));
            let span = self.device.recovery_access(at, Pages(pages));
            spans.push((FileIndex(index), span.map_err(|error| IomapError(error.into()))?));
            index += pages;
        }
        Ok(spans)
    }
}

pub fn range(from: u64, to: u64) -> Range<FileIndex> {
    FileIndex(from)..FileIndex(to)
}

/// A contiguous file: `pages` pages from block `block` on.
pub fn data(block: u64, pages: u64) -> Vec<Option<u64>> {
    (block..block + pages).map(Some).collect()
}

pub fn info(label: &str, kind: PinKind) -> PinInfo {
    let owner = PinOwner { process: std::process::id(), connection: 0, label: label.into() };
    PinInfo { owner, since: Instant::now(), kind, term: PinTerm::Long }
}

fn to_usize(index: u64) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

fn count(len: usize) -> u64 {
    u64::try_from(len).expect("a test file is short")
}
