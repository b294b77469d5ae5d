//! Kinds of memory: who gets pages back, and how private memory becomes addressable.

use crate::{PMD, live, medium, pages, pinned_by, range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use udax_mm::sync::{Arc, Mutex, Weak};
use udax_mm::{
    DeviceMemory, Folio, FolioRef, IdleSpan, LimboSink, Media, MediaError, MemoryFailure,
    MemoryType, MigrateError, Order, Pgmap, PgmapError, PgmapOff, PgmapRef, PrivateMemory,
    RequestError,
};

/// A driver that notes what it gets back, and lets it be idle.
#[derive(Debug, Default)]
pub(crate) struct Freeing {
    freed: Mutex<Vec<u64>>,
}

impl DeviceMemory for Freeing {
    fn folio_free(&self, span: IdleSpan) {
        let claimed = span.pgmap().claim(span.pages());
        assert!(matches!(claimed, Err(RequestError::Busy(_))), "nobody gets it between");
        self.freed.lock().extend(span.pages().start.0..span.pages().end.0);
    }
}

impl PrivateMemory for Freeing {
    fn migrate_to_ram(&self, folio: FolioRef<'_>) -> Result<Folio, MigrateError> {
        Err(MigrateError::NoMemory(folio.order()))
    }
}

/// A device with memory of its own, which it copies to pages of another page map.
#[derive(Debug)]
struct Accelerator {
    memory: Arc<dyn Media>,
    home: PgmapRef,
    freed: Mutex<Vec<PgmapOff>>,
}

impl Accelerator {
    fn new(pages: u64, home: PgmapRef) -> Arc<Accelerator> {
        Arc::new(Accelerator { memory: medium(pages), home, freed: Mutex::default() })
    }

    fn pgmap(self: &Arc<Accelerator>) -> PgmapRef {
        let pages = self.memory.len() / 4096;
        let kind = MemoryType::Private(self.clone());
        let pgmap = Pgmap::new(vec![range(&self.memory, 0, pages)], kind).expect("one range");
        pgmap.try_get_live().expect("nobody killed it")
    }
}

impl DeviceMemory for Accelerator {
    fn folio_free(&self, span: IdleSpan) {
        self.freed.lock().push(span.pages().start);
    }
}

impl PrivateMemory for Accelerator {
    fn migrate_to_ram(&self, folio: FolioRef<'_>) -> Result<Folio, MigrateError> {
        let no_memory = |_| MigrateError::NoMemory(folio.order());
        let ram = self.home.request_folio(folio.head(), folio.order()).map_err(no_memory)?;
        let (memory, byte) = folio.pgmap().locate(folio.head());
        let len = usize::try_from(folio.order().pages().bytes()).expect("a small folio");
        let mut bytes = vec![0; len];
        memory.read(byte, &mut bytes)?;
        self.home.write(ram.head().byte(), &bytes)?;
        Ok(ram)
    }
}

fn coherent(pages: u64) -> (Arc<Freeing>, PgmapRef) {
    let driver = Arc::new(Freeing::default());
    let kind = MemoryType::Coherent(driver.clone());
    let pgmap = Pgmap::new(vec![range(&medium(pages), 0, pages)], kind).expect("one range");
    (driver, pgmap.try_get_live().expect("nobody killed it"))
}

#[test]
fn the_last_put_of_device_memory_frees_it_once() {
    let (driver, pgmap) = coherent(PMD);
    let folio = pgmap.request_folio(PgmapOff(3), Order::Base).unwrap();
    let pin = folio.pin(pinned_by("device"));
    drop(folio);
    assert!(driver.freed.lock().is_empty());

    drop(pin);

    assert_eq!(*driver.freed.lock(), [3]);
    assert_eq!(pgmap.pgmap().verify(), Ok(()));
    assert!(pgmap.claim(pages(0..PMD)).is_ok(), "the driver let it be idle");
}

#[test]
fn a_claim_of_device_memory_that_was_never_activated_is_not_freed() {
    let (driver, pgmap) = coherent(4);
    drop(pgmap.claim(pages(0..4)).unwrap());
    assert!(driver.freed.lock().is_empty());
}

#[test]
fn every_folio_of_a_span_is_freed() {
    let (driver, pgmap) = coherent(2 * PMD);
    drop(pgmap.request_folios(PgmapOff(0), Order::Base, 3).unwrap());
    drop(pgmap.request_folios(PgmapOff(PMD), Order::Pmd, 1).unwrap().into_pinned(pinned_by("d")));
    let expected: Vec<u64> = (0..3).chain(PMD..2 * PMD).collect();
    assert_eq!(*driver.freed.lock(), expected);
}

#[test]
fn a_deferred_page_goes_to_who_deferred_it_and_not_to_the_driver() {
    #[derive(Default)]
    struct Sink(Mutex<Vec<IdleSpan>>);
    impl LimboSink for Sink {
        fn returned(&self, span: IdleSpan) {
            self.0.lock().push(span);
        }
    }
    let (driver, pgmap) = coherent(PMD);
    let folio = pgmap.request_folio(PgmapOff(0), Order::Pmd).unwrap();
    let kept = Arc::new(Sink::default());
    let sink: Arc<dyn LimboSink> = kept.clone();
    pgmap.claim_or_defer(pages(10..20), &sink).unwrap();

    drop(folio);

    let returned: Vec<_> = kept.0.lock().drain(..).map(|span| span.pages()).collect();
    assert_eq!(returned, [pages(10..20)]);
    let expected: Vec<u64> = (0..10).chain(20..PMD).collect();
    assert_eq!(*driver.freed.lock(), expected);
}

#[test]
fn the_bytes_of_private_memory_are_not_addressable() {
    let device = Accelerator::new(4, live(4));
    let pgmap = device.pgmap();
    let refused = |result: Result<(), MediaError>| {
        assert!(matches!(result, Err(MediaError::NotAddressable { at: 4096 })), "{result:?}");
    };
    refused(pgmap.read(4096, &mut [0]));
    refused(pgmap.write(4096, &[1]));
    refused(pgmap.zero(4096, 1));
    refused(pgmap.load_u64(4096).map(drop));
    refused(pgmap.store_u64(4096, 1));
    assert!(pgmap.read(4 * 4096, &mut [0]).is_err());
}

#[test]
fn private_memory_is_brought_to_memory_that_holds_the_same_bytes() {
    let home = live(2 * PMD);
    let device = Accelerator::new(2 * PMD, home.clone());
    let pgmap = device.pgmap();
    for (at, order) in [(5, Order::Base), (PMD, Order::Pmd)] {
        let folio = pgmap.request_folio(PgmapOff(at), order).unwrap();
        device.memory.write(PgmapOff(at).byte() + 7, b"from the device").unwrap();

        let ram = folio.to_ram().unwrap();
        drop(folio);

        assert_eq!((ram.order(), ram.pgmap().pgmap()), (order, home.pgmap()));
        let mut bytes = [0; 15];
        ram.pgmap().read(ram.head().byte() + 7, &mut bytes).unwrap();
        assert_eq!(&bytes, b"from the device");
    }
    assert_eq!(*device.freed.lock(), [PgmapOff(5), PgmapOff(PMD)], "the device has them back");
}

#[test]
fn a_folio_of_addressable_memory_is_in_ram_already() {
    let folio = live(4).request_folio(PgmapOff(1), Order::Base).unwrap();
    assert_eq!(folio.to_ram().unwrap().head(), PgmapOff(1));
}

#[test]
fn without_memory_to_go_to_the_bytes_stay_where_they_are() {
    let home = live(4);
    let device = Accelerator::new(4, home.clone());
    let folio = device.pgmap().request_folio(PgmapOff(1), Order::Base).unwrap();
    let _full = home.claim(pages(0..4)).unwrap();
    assert!(matches!(folio.to_ram(), Err(MigrateError::NoMemory(Order::Base))));
    assert!(device.freed.lock().is_empty());
}

#[test]
fn a_driver_that_answers_with_another_order_is_noticed() {
    #[derive(Debug)]
    struct Careless(PgmapRef);
    impl DeviceMemory for Careless {
        fn folio_free(&self, span: IdleSpan) {
            drop(span);
        }
    }
    impl PrivateMemory for Careless {
        fn migrate_to_ram(&self, folio: FolioRef<'_>) -> Result<Folio, MigrateError> {
            let page = self.0.request_folio(PgmapOff(0), Order::Base);
            page.map_err(|_| MigrateError::NoMemory(folio.order()))
        }
    }
    let kind = MemoryType::Private(Arc::new(Careless(live(1))));
    let pgmap = Pgmap::new(vec![range(&medium(PMD), 0, PMD)], kind).unwrap();
    let live = pgmap.try_get_live().unwrap();
    let folio = live.request_folio(PgmapOff(0), Order::Pmd).unwrap();

    let answer = catch_unwind(AssertUnwindSafe(|| drop(folio.to_ram())));

    assert!(answer.is_err());
}

/// F-08. What is no kind cannot be written down: [`MemoryType`] is an enum, and each kind carries
/// what it requires of its driver.
#[test]
fn every_kind_idles_at_zero_and_device_memory_goes_back_to_its_driver() {
    let driver = Arc::new(Freeing::default());
    let kinds = [
        (MemoryType::FsDax, false),
        (MemoryType::Generic(Order::Base), false),
        (MemoryType::Private(driver.clone()), true),
        (MemoryType::Coherent(driver.clone()), true),
        (MemoryType::P2pdma(driver.clone()), true),
    ];
    for (kind, goes_back) in kinds {
        let pgmap = Pgmap::new(vec![range(&medium(4), 0, 4)], kind).unwrap();
        let live = pgmap.try_get_live().unwrap();
        let folio = live.request_folio(PgmapOff(3), Order::Base).unwrap();
        drop(folio.clone());
        assert!(driver.freed.lock().is_empty());

        drop(folio);

        let freed = std::mem::take(&mut *driver.freed.lock());
        assert_eq!(freed, if goes_back { vec![3] } else { vec![] }, "{:?}", pgmap.kind());
        drop(live.claim(pages(0..4)).expect("an idle page is zero, whatever its kind"));
        assert_eq!(pgmap.verify(), Ok(()));
    }
}

/// F-09.
#[test]
fn folios_of_a_fixed_order_fill_the_ranges_of_their_pgmap() {
    let kind = || MemoryType::Generic(Order::Pmd);
    let media = medium(2 * PMD + 8);
    for bad in [range(&media, 0, PMD + 8), range(&media, 8, PMD)] {
        let good = range(&medium(PMD), 0, PMD);
        let refused = Pgmap::new(vec![good, bad], kind()).unwrap_err();
        assert!(matches!(refused, PgmapError::NotWholeFolios { range: 1, order: Order::Pmd }));
    }
    let pgmap = Pgmap::new(vec![range(&media, 0, 2 * PMD)], kind()).unwrap();
    let live = pgmap.try_get_live().unwrap();
    let folios = live.request_folios(PgmapOff(0), Order::Pmd, 2).unwrap();
    assert_eq!(folios.into_folios().count(), 2, "one for each 2^9 pages");
}

/// B-36: the listener may be gone.
#[test]
fn memory_that_fails_is_told_to_whoever_listens_while_it_exists() {
    #[derive(Default)]
    struct Log(Mutex<Vec<u64>>);
    impl MemoryFailure for Log {
        fn memory_failure(&self, pages: std::ops::Range<PgmapOff>) {
            self.0.lock().extend([pages.start.0, pages.end.0]);
        }
    }
    let pgmap = live(8);
    let log = Arc::new(Log::default());
    let listener: Arc<dyn MemoryFailure> = log.clone();
    pgmap.pgmap().listen_for_failure(Arc::downgrade(&listener));

    pgmap.memory_failure(pages(2..5));
    assert_eq!(*log.0.lock(), [2, 5]);
    assert_eq!(pgmap.claim(pages(0..8)).unwrap_err(), RequestError::Poisoned(PgmapOff(2)));

    let weak: Weak<Log> = Arc::downgrade(&log);
    drop((listener, log));
    assert!(weak.upgrade().is_none(), "the page map does not keep it");
    pgmap.memory_failure(pages(6..7));
    assert_eq!(pgmap.first_poisoned(pages(5..8)), Some(PgmapOff(6)));
}

/// A deferral that is refused takes its word back, so the cure of an idle page frees nothing.
#[test]
fn a_refused_deferral_does_not_make_a_cured_page_go_to_its_driver_again() {
    struct Sink;
    impl LimboSink for Sink {
        fn returned(&self, span: IdleSpan) {
            panic!("{span:?} was not deferred");
        }
    }
    let (driver, pgmap) = coherent(8);
    let folio = pgmap.request_folio(PgmapOff(3), Order::Base).unwrap();
    pgmap.poison(PgmapOff(3));
    drop(folio);
    assert_eq!(*driver.freed.lock(), [3]);
    let claimed = pgmap.claim(pages(5..6)).unwrap();
    let sink: Arc<dyn LimboSink> = Arc::new(Sink);
    assert!(pgmap.claim_or_defer(pages(3..8), &sink).is_err());
    drop(claimed);

    pgmap.clear_poison(PgmapOff(3));

    assert_eq!(*driver.freed.lock(), [3], "it was put last once");
    assert_eq!(pgmap.pgmap().verify(), Ok(()));
    assert!(pgmap.claim(pages(0..8)).is_ok());
}

#[test]
fn a_failure_outside_the_pgmap_marks_no_page() {
    let pgmap = live(8);
    let outside = std::panic::AssertUnwindSafe(|| pgmap.memory_failure(pages(7..9)));
    assert!(std::panic::catch_unwind(outside).is_err());
    assert_eq!(pgmap.first_poisoned(pages(0..8)), None);
}
