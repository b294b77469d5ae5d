//! Writeback: what is flushed, when an entry stops being dirty, and what a failure leaves.

mod common;

use common::{PAGE, TestFile, data, info, mode, range};
use std::os::fd::BorrowedFd;
use std::panic::Location;
use udax_mapping::{Populate, UserMapping};
use udax_mm::media::{FileMedia, Site};
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{Access, Active, FileIndex, Media, MediaError, MediaFacts, Pages, PinKind, Wait};

#[derive(Clone, Debug, Eq, PartialEq)]
enum Seen {
    /// First byte and length.
    Flush(u64, u64),
    Fence,
}

/// Memory that remembers flushes and fences, and can fail them.
#[derive(Debug)]
struct Witness {
    memory: FileMedia,
    seen: Mutex<Vec<(Seen, Site)>>,
    fails_flush: AtomicBool,
    fails_fence: AtomicBool,
}

impl Witness {
    fn new(pages: u64) -> Arc<Witness> {
        let memory = FileMedia::memfd("witness", Pages(pages).bytes());
        Arc::new(Witness {
            memory: memory.expect("memory for a test"),
            seen: Mutex::default(),
            fails_flush: AtomicBool::new(false),
            fails_fence: AtomicBool::new(false),
        })
    }

    fn take(&self) -> Vec<Seen> {
        self.take_sites().into_iter().map(|(seen, _)| seen).collect()
    }

    fn take_sites(&self) -> Vec<(Seen, Site)> {
        std::mem::take(&mut *self.seen.lock())
    }

    fn answer(&self, seen: Seen, site: Site, fails: &AtomicBool) -> Result<(), MediaError> {
        if fails.swap(false, Ordering::Relaxed) {
            return Err(MediaError::Fault { at: 0 });
        }
        self.seen.lock().push((seen, site));
        Ok(())
    }
}

impl Media for Witness {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn facts(&self) -> MediaFacts {
        self.memory.facts()
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MediaError> {
        self.memory.read(at, into)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        self.memory.write(at, bytes)
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), MediaError> {
        self.memory.zero(at, len)
    }

    fn load_u64(&self, at: u64) -> Result<u64, MediaError> {
        self.memory.load_u64(at)
    }

    fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> {
        self.memory.store_u64(at, value)
    }

    fn flush(&self, at: u64, len: u64, site: Site) -> Result<(), MediaError> {
        self.answer(Seen::Flush(at, len), site, &self.fails_flush)
    }

    fn fence(&self, site: Site) -> Result<(), MediaError> {
        self.answer(Seen::Fence, site, &self.fails_fence)
    }

    fn backing(&self) -> Option<(BorrowedFd<'_>, u64)> {
        self.memory.backing()
    }

    fn active(&self) -> &Active {
        self.memory.active()
    }
}

fn file(pages: &[Option<u64>]) -> (Arc<Witness>, Arc<TestFile>) {
    let witness = Witness::new(1024);
    let file = TestFile::on(witness.clone(), pages, None);
    (witness, file)
}

fn map(file: &TestFile, from: u64, pages: u64, access: Access) -> UserMapping {
    let mapped = file.mapping.map(FileIndex(from), Pages(pages), mode(access, Populate::Eager));
    mapped.expect("the file can be mapped")
}

fn all() -> std::ops::Range<FileIndex> {
    range(0, u64::MAX)
}

#[test]
fn every_dirty_page_is_flushed_and_then_fenced_on_the_callers_line() {
    let (witness, file) = file(&[Some(7), None, Some(3)]);
    let _mapped = map(&file, 0, 1, Access::Write);
    let _other = map(&file, 2, 1, Access::Write);
    witness.take();

    let (line, written) = (Location::caller().line(), file.mapping.writeback(all()));

    written.unwrap();
    let seen = witness.take_sites();
    assert!(seen.iter().all(|(_, site)| site.line() == line), "{seen:?}");
    let seen: Vec<_> = seen.into_iter().map(|(seen, _)| seen).collect();
    let flush = |block: u64| Seen::Flush(block * 4096, 4096);
    assert_eq!(seen, [flush(7), flush(3), Seen::Fence], "I-41");
}

#[test]
fn only_what_overlaps_the_range_is_flushed() {
    let (witness, file) = file(&data(0, 8));
    let _mapped = map(&file, 0, 8, Access::Write);

    file.mapping.writeback(range(2, 4)).unwrap();

    let flush = |block: u64| Seen::Flush(block * 4096, 4096);
    assert_eq!(witness.take(), [flush(2), flush(3), Seen::Fence]);
}

#[test]
fn a_large_page_is_flushed_as_a_whole() {
    let (witness, file) = file(&data(512, 512));
    let _mapped = map(&file, 0, 512, Access::Write);

    file.mapping.writeback(range(100, 101)).unwrap();

    assert_eq!(witness.take(), [Seen::Flush(512 * 4096, 512 * 4096), Seen::Fence], "B-10");
}

#[test]
fn a_page_that_is_only_read_is_not_flushed() {
    let (witness, file) = file(&data(0, 4));
    let _mapped = map(&file, 0, 4, Access::Read);
    let _pin = file.mapping.pin(range(0, 2), info("reader", PinKind::Read)).unwrap();

    file.mapping.writeback(all()).unwrap();

    assert_eq!(witness.take(), []);
}

#[test]
fn a_page_that_is_no_longer_mapped_is_flushed_once() {
    let (witness, file) = file(&data(0, 2));
    drop(map(&file, 0, 1, Access::Write));

    file.mapping.writeback(all()).unwrap();
    assert_eq!(
        witness.take(),
        [Seen::Flush(0, 4096), Seen::Fence],
        "I-15: dirty without a mapping"
    );

    file.mapping.writeback(all()).unwrap();
    assert_eq!(witness.take(), []);
    file.verify();
}

#[test]
fn a_page_that_can_still_be_stored_to_is_flushed_each_time() {
    let (witness, file) = file(&data(0, 2));
    let _mapped = map(&file, 0, 1, Access::Write);
    let pin = file.mapping.pin(range(1, 2), info("writer", PinKind::Write)).unwrap();
    let both = [Seen::Flush(0, 4096), Seen::Flush(4096, 4096), Seen::Fence];

    for _ in 0..2 {
        file.mapping.writeback(all()).unwrap();
        assert_eq!(witness.take(), both, "I-34, I-42");
        file.verify();
    }

    drop(pin);
    file.mapping.writeback(all()).unwrap();
    assert_eq!(witness.take(), both, "what the device stored last");
    file.mapping.writeback(all()).unwrap();
    assert_eq!(witness.take(), [Seen::Flush(0, 4096), Seen::Fence]);
}

#[test]
fn a_failed_flush_or_fence_is_tried_again() {
    let (witness, file) = file(&data(0, 2));
    drop(map(&file, 0, 2, Access::Write));
    let whole = [Seen::Flush(0, 4096), Seen::Flush(4096, 4096), Seen::Fence];

    witness.fails_fence.store(true, Ordering::Relaxed);
    file.mapping.writeback(all()).unwrap_err();
    assert_eq!(witness.take(), whole[..2]);

    witness.fails_flush.store(true, Ordering::Relaxed);
    file.mapping.writeback(all()).unwrap_err();
    assert_eq!(witness.take(), []);

    file.mapping.writeback(all()).unwrap();
    assert_eq!(witness.take(), whole, "I-41");
}

#[test]
fn stores_beside_a_cut_in_a_large_page_are_still_flushed() {
    let (witness, file) = file(&data(512, 512));
    drop(map(&file, 0, 512, Access::Write));

    file.truncate(2, Wait::Never).unwrap();
    file.mapping.writeback(all()).unwrap();

    let flush = |block: u64| Seen::Flush(block * 4096, 4096);
    assert_eq!(witness.take(), [flush(512), flush(513), Seen::Fence]);
    file.verify();
}

/// A table below changed, and this page stayed where it was.
#[test]
fn what_a_pin_may_store_to_stays_dirty_when_everything_is_looked_up_again() {
    let (witness, file) = file(&data(0, 4));
    drop(map(&file, 0, 4, Access::Write));
    let pin = file.mapping.pin(range(1, 2), info("writer", PinKind::Write)).unwrap();

    file.mapping.suspended(|| ()).unwrap();
    let before = witness.take();
    assert!(before.contains(&Seen::Flush(PAGE, PAGE)), "{before:?}");
    file.verify();

    for _ in 0..2 {
        file.mapping.writeback(all()).unwrap();
        assert_eq!(witness.take(), [Seen::Flush(PAGE, PAGE), Seen::Fence], "I-41");
    }
    drop(pin);
    file.mapping.suspended(|| ()).unwrap();
    witness.take();
    file.mapping.writeback(all()).unwrap();
    assert_eq!(witness.take(), [], "nobody stores to it any more, and it was flushed");
}

#[test]
fn a_removed_device_cannot_be_written_back() {
    let (_witness, file) = file(&data(0, 1));
    drop(map(&file, 0, 1, Access::Write));

    file.device.kill(Wait::Never).unwrap();

    let error = file.mapping.writeback(all()).unwrap_err();
    assert!(error.to_string().starts_with("the device was removed"), "{error}");
}
