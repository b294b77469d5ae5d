//! What a fault of a lazy vma and a zap cost, beside the least that the host asks for them.
//!
//! A fault is that of an address range alone, without a file: that is in the bench `fault` of udax.

mod turns;

use std::fs::File;
use std::hint::black_box;
use turns::{compare, timed};
use udax_mm::floor::{BareFaults, BareMapping};
use udax_mm::media::FileMedia;
use udax_mm::sync::{Arc, OnceLock, Weak};
use udax_mm::{
    Access, FaultService, FaultSink, FolioSpan, Media, MediaRange, MemoryType, Order, Pages, Pgmap,
    PgmapOff, PgmapRef, Prefault, Vma, VmaOff,
};

/// Pages that are touched one after the other.
const FAULTS: u64 = 512;

fn main() {
    if let Err(error) = FaultService::new() {
        println!("SKIPPED: {error}");
        return;
    }
    faults();
    zaps();
}

/// Maps the page that is touched, as the bare handler does.
struct Sink {
    vma: OnceLock<Weak<Vma>>,
    folios: FolioSpan,
}

impl FaultSink for Sink {
    fn fault(&self, at: VmaOff, _access: Access) {
        let vma = self.vma.get().and_then(Weak::upgrade).expect("it is being touched");
        let page = PgmapOff(at.0).span(Pages(1));
        let mapped = vma.map_span(at, &self.folios, page, Access::Write, Prefault::No);
        mapped.expect("the host maps it");
    }
}

fn pgmap(pages: Pages) -> (File, Pgmap, PgmapRef) {
    let media = Arc::new(FileMedia::memfd("bench", pages.bytes()).expect("memfd works"));
    let (file, _) = media.backing().expect("it is a file");
    let file = File::from(file.try_clone_to_owned().expect("a descriptor is free"));
    let range = MediaRange { media, start: 0, pages };
    let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).expect("the range is good");
    let live = pgmap.try_get_live().expect("nobody killed it");
    live.zero(0, pages.bytes()).expect("memory works");
    (file, pgmap, live)
}

fn folios(pgmap: &PgmapRef, order: Order) -> FolioSpan {
    let nr = pgmap.size().0 / order.pages().0;
    pgmap.acquire_folios(PgmapOff(0), order, nr).expect("nobody claims them")
}

/// The first touch of one page after the other.
fn faults() {
    let (file, _owner, pgmap) = pgmap(Pages(FAULTS));
    let bare = BareFaults::new(file).expect("a userfaultfd");
    let service = FaultService::new().expect("a userfaultfd");
    let sink = Arc::new(Sink { vma: OnceLock::new(), folios: folios(&pgmap, Order::Base) });
    let vma = Vma::reserve_lazy(Pages(FAULTS), &service, sink.clone()).expect("addresses");
    let vma = Arc::new(vma);
    assert!(sink.vma.set(Arc::downgrade(&vma)).is_ok(), "it is set once");
    let touch_bare = || {
        bare.make_missing().expect("the host unmaps it");
        (0..FAULTS).map(|page| timed(|| bare.touch(page, Access::Read))).collect()
    };
    let touch = || {
        vma.zap(VmaOff(0), Pages(FAULTS)).expect("the host unmaps it");
        let load = |page| vma.load_u64(Pages(page).bytes()).expect("the sink maps it");
        (0..FAULTS).map(|page| timed(|| assert!(black_box(load(page)) == 0))).collect()
    };
    compare("lazy fault", 40, touch_bare, touch);
}

/// Taking back 1 GiB that was mapped 2 MiB at a time.
fn zaps() {
    let pages = Order::Pud.pages();
    let (file, _owner, pgmap) = pgmap(pages);
    let service = FaultService::new().expect("a userfaultfd");
    let sink = Arc::new(Sink { vma: OnceLock::new(), folios: folios(&pgmap, Order::Pmd) });
    let vma = Vma::reserve_lazy(pages, &service, sink.clone()).expect("addresses");
    let unmap_bare = || {
        let mapping = BareMapping::new(&file).expect("addresses");
        vec![timed(|| mapping.unmap())]
    };
    let zap = || {
        for first in (0..pages.0).step_by(512) {
            let leaf = PgmapOff(first).span(Order::Pmd.pages());
            let (folios, at) = (&sink.folios, VmaOff(first));
            let mapped = vma.map_span(at, folios, leaf, Access::Write, Prefault::Yes);
            mapped.expect("the host maps it");
        }
        vec![timed(|| vma.zap(VmaOff(0), pages).expect("the host unmaps it"))]
    };
    compare("zap of 1 GiB", 5, unmap_bare, zap);
}
