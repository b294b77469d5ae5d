//! User mappings: what a thread finds at an address while pages come and go.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::io::Write;
use std::thread;
use std::time::Instant;

use udax_mm::media::FileMedia;
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use udax_mm::{
    Access, DeviceMemory, FaultService, FaultSink, Folio, FolioRef, FrozenBytes, FrozenFolio,
    IdleSpan, Media, MediaError, MediaRange, MemoryType, MigrateError, Order, PAGE_SIZE, Pages,
    Pgmap, PgmapOff, PgmapRef, PinInfo, PinKind, PinOwner, PinTerm, PrivateMemory, Vma, VmaOff,
};

const PAGE: u64 = 4096;

/// A page map of 4 MiB in which every word of page `n` is `n + 1`.
fn pgmap() -> PgmapRef {
    let media = Arc::new(FileMedia::memfd("vma", 1024 * PAGE).unwrap());
    let range = MediaRange { media, start: 0, pages: Pages(1024) };
    let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).unwrap().try_get_live().unwrap();
    for page in 0..1024_u64 {
        let words = (page + 1).to_le_bytes().repeat(PAGE_SIZE / 8);
        pgmap.write(page * PAGE, &words).unwrap();
    }
    pgmap
}

fn folio(pgmap: &PgmapRef, page: u64) -> Folio {
    pgmap.request_folio(PgmapOff(page), Order::Base).unwrap()
}

fn map(vma: &Vma, at: u64, folio: &Folio, access: Access) {
    vma.map(VmaOff(at), folio.borrow(), folio.pages(), access).unwrap();
}

fn assert_fault<T: std::fmt::Debug>(result: &Result<T, MediaError>, byte: u64) {
    assert!(matches!(result, Err(MediaError::Fault { at }) if *at == byte), "{result:?}");
}

/// A lazy vma, what answers its faults, and the faults so far.
struct Lazy {
    vma: Arc<Vma>,
    faults: Arc<Faults>,
}

type Answer = Box<dyn Fn(&Vma, VmaOff, Access) + Send + Sync>;

struct Faults {
    vma: OnceLock<Weak<Vma>>,
    answer: Answer,
    seen: Mutex<Vec<(u64, Access)>>,
}

impl FaultSink for Faults {
    fn fault(&self, at: VmaOff, access: Access) {
        self.seen.lock().push((at.0, access));
        if let Some(vma) = self.vma.get().and_then(Weak::upgrade) {
            (self.answer)(&vma, at, access);
        }
    }
}

/// Whether the host permits lazy vmas; says that a test skips if not.
fn lazy_is_permitted() -> bool {
    let service = FaultService::new();
    if let Err(error) = &service {
        // Past the capture of the test harness, so that it is seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED, nothing is shown: {error}");
    }
    service.is_ok()
}

impl Lazy {
    fn new(pages: u64, answer: impl Fn(&Vma, VmaOff, Access) + Send + Sync + 'static) -> Lazy {
        let service = FaultService::new().unwrap();
        let answer: Answer = Box::new(answer);
        let faults = Faults { vma: OnceLock::new(), answer, seen: Mutex::default() };
        let faults = Arc::new(faults);
        let vma = Vma::reserve_lazy(Pages(pages), &service, faults.clone()).unwrap();
        let vma = Arc::new(vma);
        faults.vma.set(Arc::downgrade(&vma)).unwrap();
        Lazy { vma, faults }
    }

    fn seen(&self) -> Vec<(u64, Access)> {
        self.faults.seen.lock().clone()
    }
}

#[test]
fn a_mapped_page_is_the_memory_of_the_medium() {
    let pgmap = pgmap();
    let vma = Vma::reserve(Pages(4)).unwrap();
    let folio = folio(&pgmap, 7);
    map(&vma, 2, &folio, Access::Write);

    assert_eq!(vma.load_u64(2 * PAGE).unwrap(), 8);
    vma.store_u64(2 * PAGE + 8, 99).unwrap();
    assert_eq!(pgmap.load_u64(7 * PAGE + 8).unwrap(), 99);
    assert_eq!(vma.compare_exchange_u64(2 * PAGE + 8, 98, 1).unwrap(), Err(99));
    assert_eq!(vma.compare_exchange_u64(2 * PAGE + 8, 99, 1).unwrap(), Ok(99));
    assert_eq!(pgmap.load_u64(7 * PAGE + 8).unwrap(), 1);
    pgmap.store_u64(7 * PAGE, 5).unwrap();
    assert_eq!(vma.load_u64(2 * PAGE).unwrap(), 5);
}

#[test]
fn a_part_of_a_large_folio_is_mapped_where_it_lies() {
    let pgmap = pgmap();
    let folio = pgmap.request_folio(PgmapOff(512), Order::Pmd).unwrap();
    let vma = Vma::reserve(Pages(512)).unwrap();
    assert_eq!(vma.addr() % (2 << 20), 0);

    vma.map(VmaOff(0), folio.borrow(), folio.pages(), Access::Read).unwrap();
    assert_eq!(vma.load_u64(511 * PAGE).unwrap(), 1024);
    let part = PgmapOff(600)..PgmapOff(602);
    vma.map(VmaOff(0), folio.borrow(), part, Access::Read).unwrap();
    assert_eq!(vma.load_u64(0).unwrap(), 601);
    assert_eq!(vma.load_u64(2 * PAGE).unwrap(), 515);
}

#[test]
fn what_an_eager_vma_does_not_permit_is_an_error() {
    let pgmap = pgmap();
    let vma = Vma::reserve(Pages(4)).unwrap();
    assert_fault(&vma.load_u64(0), 0);

    map(&vma, 0, &folio(&pgmap, 0), Access::Read);
    assert_fault(&vma.write(9, b"x"), 9);

    vma.map_hole(VmaOff(1), Pages(1)).unwrap();
    assert_eq!(vma.load_u64(PAGE).unwrap(), 0);
    assert_fault(&vma.store_u64(PAGE, 1), PAGE);

    vma.map_void(VmaOff(0), Pages(1)).unwrap();
    assert_fault(&vma.load_u64(8), 8);
    vma.zap(VmaOff(1), Pages(1)).unwrap();
    assert_fault(&vma.load_u64(PAGE), PAGE);
}

#[test]
fn the_first_touch_asks_the_sink_and_the_second_does_not() {
    if !lazy_is_permitted() {
        return;
    }
    let pgmap = pgmap();
    let first = folio(&pgmap, 0);
    let lazy = Lazy::new(8, move |vma, at, _| map(vma, at.0, &first, Access::Write));
    let vma = &lazy.vma;

    assert!(vma.is_lazy());
    assert_eq!(vma.load_u64(3 * PAGE + 16).unwrap(), 1);
    vma.store_u64(3 * PAGE, 4).unwrap();
    vma.store_u64(5 * PAGE, 4).unwrap();
    assert_eq!(lazy.seen(), [(3, Access::Read), (5, Access::Write)]);
}

#[test]
fn a_zapped_page_asks_the_sink_again() {
    if !lazy_is_permitted() {
        return;
    }
    let pgmap = pgmap();
    let first = folio(&pgmap, 0);
    let lazy = Lazy::new(8, move |vma, at, _| map(vma, at.0, &first, Access::Write));
    lazy.vma.load_u64(0).unwrap();
    lazy.vma.load_u64(PAGE).unwrap();

    lazy.vma.zap(VmaOff(0), Pages(1)).unwrap();
    assert_eq!(lazy.vma.load_u64(0).unwrap(), 1);
    assert_eq!(lazy.vma.load_u64(PAGE).unwrap(), 1);
    assert_eq!(lazy.seen(), [(0, Access::Read), (1, Access::Read), (0, Access::Read)]);
}

#[test]
fn a_hole_reads_as_zeros_and_its_first_store_asks_the_sink() {
    if !lazy_is_permitted() {
        return;
    }
    let pgmap = pgmap();
    let block = folio(&pgmap, 3);
    pgmap.zero(3 * PAGE, PAGE).unwrap();
    let lazy = Lazy::new(64, move |vma, at, access| match access {
        Access::Read => vma.map_hole(VmaOff(0), Pages(64)).unwrap(),
        Access::Write => map(vma, at.0, &block, Access::Write),
    });

    let mut bytes = vec![1; 64 * PAGE_SIZE];
    lazy.vma.read(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0));
    assert_eq!(lazy.seen(), [(0, Access::Read)]);

    lazy.vma.store_u64(9 * PAGE + 8, 77).unwrap();
    assert_eq!(lazy.seen()[1..], [(9, Access::Write)]);
    assert_eq!(pgmap.load_u64(3 * PAGE + 8).unwrap(), 77);
}

#[test]
fn a_hole_replaces_media_and_is_zapped_like_them() {
    if !lazy_is_permitted() {
        return;
    }
    let pgmap = pgmap();
    let block = folio(&pgmap, 3);
    let lazy = Lazy::new(8, move |vma, at, _| map(vma, at.0, &block, Access::Write));
    lazy.vma.load_u64(2 * PAGE).unwrap();

    lazy.vma.map_hole(VmaOff(1), Pages(4)).unwrap();
    assert_eq!(lazy.vma.load_u64(2 * PAGE).unwrap(), 0);
    lazy.vma.zap(VmaOff(0), Pages(8)).unwrap();
    assert_eq!(lazy.vma.load_u64(2 * PAGE).unwrap(), 4);
}

#[test]
fn a_hole_may_overlap_another_hole() {
    if !lazy_is_permitted() {
        return;
    }
    let lazy = Lazy::new(8, |_, _, _| {});
    lazy.vma.map_hole(VmaOff(3), Pages(1)).unwrap();
    lazy.vma.map_hole(VmaOff(0), Pages(8)).unwrap();
    lazy.vma.read(0, &mut vec![0; 8 * PAGE_SIZE]).unwrap();
    assert_eq!(lazy.seen(), []);
}

#[test]
fn a_hole_can_be_mapped_while_other_pages_are_zapped() {
    if !lazy_is_permitted() {
        return;
    }
    let lazy = Lazy::new(8, |_, _, _| {});
    thread::scope(|scope| {
        let zaps = scope.spawn(|| {
            for _ in 0..500 {
                lazy.vma.zap(VmaOff(0), Pages(2)).unwrap();
            }
        });
        while !zaps.is_finished() {
            lazy.vma.map_hole(VmaOff(4), Pages(2)).unwrap();
            lazy.vma.zap(VmaOff(4), Pages(2)).unwrap();
        }
    });
}

#[test]
fn a_fault_that_nobody_answers_is_an_error_and_not_a_hang() {
    if !lazy_is_permitted() {
        return;
    }
    let silent = Lazy::new(4, |_, _, _| {});
    assert_fault(&silent.vma.load_u64(PAGE), PAGE);
    assert_fault(&silent.vma.store_u64(2 * PAGE, 1), 2 * PAGE);

    let hole_only = Lazy::new(4, |vma, at, _| vma.map_hole(at, Pages(1)).unwrap());
    assert_fault(&hole_only.vma.store_u64(PAGE, 1), PAGE);

    let panics = Lazy::new(4, |_, _, _| panic!("the test's sink panics"));
    assert_fault(&panics.vma.load_u64(PAGE), PAGE);
    assert_fault(&panics.vma.load_u64(2 * PAGE), 2 * PAGE);
}

#[test]
fn a_sink_may_answer_with_a_void() {
    if !lazy_is_permitted() {
        return;
    }
    let lazy = Lazy::new(4, |vma, _, _| vma.map_void(VmaOff(0), Pages(4)).unwrap());
    assert_fault(&lazy.vma.load_u64(PAGE), PAGE);
    assert_fault(&lazy.vma.load_u64(2 * PAGE), 2 * PAGE);
    assert_eq!(lazy.seen().len(), 1);
}

/// As one does whose fault is stale.
#[test]
fn a_sink_may_have_the_thread_look_again() {
    if !lazy_is_permitted() {
        return;
    }
    let pgmap = pgmap();
    let block = folio(&pgmap, 3);
    let was_asked = AtomicBool::new(false);
    let lazy = Lazy::new(1, move |vma, at, _| {
        if was_asked.swap(true, Ordering::Relaxed) {
            map(vma, at.0, &block, Access::Read);
        } else {
            vma.look_again(at, Pages(1));
        }
    });
    assert_eq!(lazy.vma.load_u64(0).unwrap(), 4);
    assert_eq!(lazy.seen(), [(0, Access::Read), (0, Access::Read)]);
}

#[test]
fn a_sink_that_waits_does_not_hold_up_a_zap() {
    if !lazy_is_permitted() {
        return;
    }
    let pgmap = pgmap();
    let block = folio(&pgmap, 0);
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let (entered, has_entered) = mpsc::channel();
    let lazy = Lazy::new(4, move |vma, at, _| {
        entered.send(()).unwrap();
        let _ = released.lock().recv();
        map(vma, at.0, &block, Access::Read);
    });
    thread::scope(|scope| {
        let touch = scope.spawn(|| lazy.vma.load_u64(0).unwrap());
        has_entered.recv().unwrap();
        lazy.vma.zap(VmaOff(2), Pages(2)).unwrap();
        drop(release);
        assert_eq!(touch.join().unwrap(), 1);
    });
}

#[test]
fn a_zap_never_shows_zeros_to_threads_that_touch_the_page() {
    if !lazy_is_permitted() {
        return;
    }
    let pgmap = pgmap();
    let folios: Vec<Folio> = (0..4).map(|page| folio(&pgmap, page)).collect();
    let lazy = Lazy::new(4, move |vma, at, _| {
        let page = usize::try_from(at.0).unwrap();
        map(vma, at.0, &folios[page], Access::Write);
    });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for page in 0..4 {
                        assert_eq!(lazy.vma.load_u64(page * PAGE + 64).unwrap(), page + 1);
                    }
                }
            });
        }
        for round in 0..1500_u64 {
            lazy.vma.zap(VmaOff(round % 4), Pages(1)).unwrap();
            if round % 5 == 0 {
                lazy.vma.zap(VmaOff(0), Pages(4)).unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn no_store_is_lost_between_a_hole_and_its_block() {
    if !lazy_is_permitted() {
        return;
    }
    let pgmap = pgmap();
    for page in 0..200 {
        pgmap.zero(page * PAGE, PAGE).unwrap();
        let block = folio(&pgmap, page);
        let is_allocated = AtomicBool::new(false);
        let lazy = Lazy::new(1, move |vma, at, access| {
            // A read may have been queued before the write that allocated.
            if access == Access::Write || is_allocated.load(Ordering::Relaxed) {
                is_allocated.store(true, Ordering::Relaxed);
                map(vma, at.0, &block, Access::Write);
            } else {
                vma.map_hole(at, Pages(1)).unwrap();
            }
        });
        thread::scope(|scope| {
            for word in 0..2 {
                let vma = &lazy.vma;
                scope.spawn(move || {
                    vma.load_u64(word * 8).unwrap();
                    vma.store_u64(word * 8, word + 1).unwrap();
                });
            }
        });
        assert_eq!((lazy.vma.load_u64(0).unwrap(), lazy.vma.load_u64(8).unwrap()), (1, 2));
        assert_eq!(pgmap.load_u64(page * PAGE + 8).unwrap(), 2);
    }
}

/// The flags of every host mapping that lies in a vma.
fn host_flags(vma: &Vma) -> Vec<String> {
    let (first, len) = (vma.addr(), usize::try_from(vma.pages().bytes()).unwrap());
    let mut flags = Vec::new();
    let mut is_inside = false;
    for line in std::fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        let range = line.split(' ').next().unwrap().split_once('-');
        if let Some((start, _)) = range
            && let Ok(start) = usize::from_str_radix(start, 16)
        {
            is_inside = (first..first + len).contains(&start);
        } else if is_inside && line.starts_with("VmFlags:") {
            flags.push(line.to_owned());
        }
    }
    flags
}

#[test]
fn children_have_no_page_of_a_lazy_vma() {
    if !lazy_is_permitted() {
        return;
    }
    let pgmap = pgmap();
    let block = folio(&pgmap, 6);
    let lazy = Lazy::new(8, |_, _, _| {});
    map(&lazy.vma, 2, &block, Access::Write);
    lazy.vma.map_hole(VmaOff(4), Pages(1)).unwrap();
    lazy.vma.zap(VmaOff(6), Pages(1)).unwrap();

    let flags = host_flags(&lazy.vma);
    assert!(flags.len() >= 3, "{flags:?}");
    assert!(flags.iter().all(|flags| flags.contains(" dc")), "{flags:?}");
}

#[test]
fn many_zaps_leave_one_host_mapping() {
    if !lazy_is_permitted() {
        return;
    }
    let lazy = Lazy::new(64, |_, _, _| {});
    for page in 0..64 {
        lazy.vma.zap(VmaOff(page), Pages(1)).unwrap();
    }
    assert_eq!(host_flags(&lazy.vma).len(), 1);
}

fn pin() -> PinInfo {
    let owner = PinOwner { process: 1, connection: 0, label: "test".into() };
    PinInfo { owner, since: Instant::now(), kind: PinKind::Read, term: PinTerm::Long }
}

fn freeze(pgmap: &PgmapRef, page: u64, pages: u64) -> Vec<FrozenFolio> {
    let span = pgmap.claim(PgmapOff(page).span(Pages(pages))).unwrap();
    FrozenFolio::freeze(span, Order::Base, &pin()).unwrap()
}

#[test]
fn frozen_bytes_are_one_slice_in_the_order_of_the_folios() {
    let pgmap = pgmap();
    let mut folios = freeze(&pgmap, 9, 1);
    folios.extend(freeze(&pgmap, 4, 2));
    let bytes = FrozenBytes::map(folios, 2 * PAGE_SIZE + 100).unwrap();

    assert_eq!(bytes.len(), 2 * PAGE_SIZE + 100);
    let firsts = [bytes[0], bytes[PAGE_SIZE], bytes[2 * PAGE_SIZE]];
    assert_eq!(firsts, [10, 5, 6]);
    assert!(pgmap.first_pinned(PgmapOff(4)..PgmapOff(5)).is_some());
    drop(bytes);
    assert!(pgmap.first_pinned(PgmapOff(0)..PgmapOff(1024)).is_none());
}

#[test]
fn frozen_bytes_need_as_many_pages_and_may_be_none() {
    let pgmap = pgmap();
    let error = FrozenBytes::map(freeze(&pgmap, 0, 1), PAGE_SIZE + 1).unwrap_err();
    assert_eq!(error.to_string(), "4097 bytes do not fit into 4096 bytes of frozen pages");
    assert!(FrozenBytes::map(Vec::new(), 0).unwrap().is_empty());
}

#[test]
fn a_frozen_folio_is_mapped_for_reading_only() {
    let pgmap = pgmap();
    let folios = freeze(&pgmap, 0, 1);
    let vma = Vma::reserve(Pages(1)).unwrap();
    let folio = folios[0].borrow();

    vma.map(VmaOff(0), folio, folio.pages(), Access::Read).unwrap();
    let error = vma.map(VmaOff(0), folio, folio.pages(), Access::Write).unwrap_err();
    assert_eq!(error.to_string(), "page 0 is frozen and cannot be mapped writable");
    assert_fault(&vma.store_u64(0, 1), 0);
}

#[test]
fn neighbouring_voids_are_one_area_of_the_host() {
    let vma = Vma::reserve(Pages(4)).unwrap();
    let pgmap = pgmap();
    let held = folio(&pgmap, 0);
    for page in 0..4 {
        map(&vma, page, &held, Access::Read);
    }
    for page in 0..4 {
        vma.map_void(VmaOff(page), Pages(1)).unwrap();
    }

    let (start, end) = (vma.addr(), vma.addr() + 4 * PAGE_SIZE);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let first = |line: &str| usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
    let inside = maps.lines().map(first).filter(|at| (start..end).contains(at));
    assert_eq!(inside.count(), 1);
}

/// A device whose memory is another medium, and which copies it to pages of `home` on request.
#[derive(Debug)]
struct Accelerator {
    memory: Arc<FileMedia>,
    home: PgmapRef,
}

impl DeviceMemory for Accelerator {
    fn folio_free(&self, pages: IdleSpan) {
        drop(pages);
    }
}

impl PrivateMemory for Accelerator {
    fn migrate_to_ram(&self, folio: FolioRef<'_>) -> Result<Folio, MigrateError> {
        let ram = self.home.request_folio(folio.head(), folio.order());
        let ram = ram.map_err(|_| MigrateError::NoMemory(folio.order()))?;
        let mut bytes = vec![0; PAGE_SIZE];
        self.memory.read(folio.head().byte(), &mut bytes)?;
        self.home.write(ram.head().byte(), &bytes)?;
        Ok(ram)
    }
}

/// `migrate_to_ram`: the touch of a program brings private memory to where it can be addressed.
#[test]
fn a_touch_of_private_memory_finds_its_bytes_in_ram() {
    if !lazy_is_permitted() {
        return;
    }
    let memory = Arc::new(FileMedia::memfd("device", 8 * PAGE).unwrap());
    memory.store_u64(3 * PAGE + 16, 42).unwrap();
    let device = Arc::new(Accelerator { memory: memory.clone(), home: pgmap() });
    let range = MediaRange { media: memory.clone(), start: 0, pages: Pages(8) };
    let kind = MemoryType::Private(device.clone());
    let private = Pgmap::new(vec![range], kind).unwrap().try_get_live().unwrap();
    let resident = Mutex::new(Some(folio(&private, 3)));
    let in_ram: Arc<OnceLock<Folio>> = Arc::default();
    let lazy = Lazy::new(1, {
        let in_ram = in_ram.clone();
        move |vma, at, _| {
            let folio = resident.lock().take().expect("one fault");
            let refused = vma.map(at, folio.borrow(), folio.pages(), Access::Write);
            assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::Unsupported);
            let ram = in_ram.get_or_init(|| folio.to_ram().unwrap());
            map(vma, at.0, ram, Access::Write);
        }
    });

    assert_eq!(lazy.vma.load_u64(16).unwrap(), 42);
    lazy.vma.store_u64(16, 43).unwrap();

    assert_eq!(lazy.seen(), [(0, Access::Read)]);
    assert_eq!(device.home.load_u64(3 * PAGE + 16).unwrap(), 43);
    assert_eq!(memory.load_u64(3 * PAGE + 16).unwrap(), 42, "the device's copy is its own again");
    assert!(private.claim(PgmapOff(3)..PgmapOff(4)).is_ok(), "its page is free");
    drop(in_ram);
}
