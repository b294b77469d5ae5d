//! Devices that are mapped as they are.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod ends;
mod faults;
mod lost;
mod modes;
mod stacks;

use std::io::Write as _;
use std::ops::Range;

use udax::dev::{DaxDevice, PgmapDevice};
use udax::{Access, DevDax, Error, MapOptions, Mapping, OpenDevDax, Order, Populate};
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, MediaRange, MemoryType, Pages, Pgmap, PgmapRef};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

pub(crate) fn bytes_of(order: Order) -> u64 {
    order.pages().bytes()
}

/// A device of `folios` folios in memory, which costs what is touched of it.
pub(crate) fn device(order: Order, folios: u64) -> DevDax {
    DevDax::create_in_memory("test", folios * bytes_of(order), order).unwrap()
}

/// A page map device, for tables and regions.
pub(crate) fn raw(kind: MemoryType, pages: u64) -> Arc<dyn DaxDevice> {
    let media = Arc::new(FileMedia::memfd("raw", Pages(pages).bytes()).unwrap());
    let range = MediaRange { media, start: 0, pages: Pages(pages) };
    Arc::new(PgmapDevice::new(Pgmap::new(vec![range], kind).unwrap()))
}

/// Runs `test` on a device of `folios` folios, with lazy mappings and with eager ones: not with
/// eager ones of 1 GiB, which would take all of it from the host.
pub(crate) fn each_way(order: Order, folios: u64, test: impl Fn(&DevDax)) {
    let lazy = device(order, folios);
    if is_lazy(&lazy) {
        test(&lazy);
        assert_eq!(lazy.verify(), Ok(()));
    }
    if order == Order::Pud {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("device");
    let host = std::fs::File::create_new(&path).unwrap();
    host.set_len(folios * bytes_of(order)).unwrap();
    let options = OpenDevDax::new().alignment(order).eager_mappings(true);
    let eager = DevDax::open(&path, &options).unwrap();
    test(&eager);
    assert_eq!(eager.verify(), Ok(()));
}

/// Whether its mappings are lazy. Says so if not: they would take all of the device from the host.
pub(crate) fn is_lazy(device: &DevDax) -> bool {
    if udax_mm::FaultService::new().is_ok() {
        return true;
    }
    // Past the capture of the test harness, so that it is seen.
    let size = device.size();
    let _ = writeln!(std::io::stderr(), "SKIPPED lazy mappings of {size} bytes: no userfaultfd");
    false
}

pub(crate) fn for_stores() -> MapOptions {
    MapOptions::new().access(Access::Write).populate(Populate::Lazy)
}

pub(crate) fn map(device: &DevDax, range: Range<u64>) -> Mapping {
    device.map(range, &for_stores()).unwrap()
}

/// The error of a call that has to fail.
#[track_caller]
pub(crate) fn error<T>(result: Result<T, Error>) -> Error {
    match result {
        Ok(_) => panic!("the call should have failed"),
        Err(error) => error,
    }
}

/// The live page map behind byte `at`, and its page there.
pub(crate) fn behind(device: &DevDax, at: u64) -> (PgmapRef, udax_mm::PgmapOff) {
    let span = device.device().recovery_access(DeviceOff::of_byte(at), Pages(1)).unwrap();
    (span.pgmap().clone(), span.at())
}

/// The memory of the page at byte `at` fails, and is reported.
pub(crate) fn fail(device: &DevDax, at: u64) {
    let (pgmap, page) = behind(device, at);
    pgmap.memory_failure(page.span(Pages(1)));
}
