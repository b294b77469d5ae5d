//! What a transaction changes, when, and what recovery makes of one that was cut short.

use super::*;
use crate::format::Ino;
use crate::testing::{self, Failing};
use std::panic::{AssertUnwindSafe, catch_unwind};
use udax_mm::Pages;
use udax_mm::image::{Image, ImageMedia};
use udax_mm::recorder::{Event, Recorder};

const INO: Ino = Ino(12);
const SIZE: Pages = Pages(1024);

/// The record of `uid` where a test keeps one: on the page of the inode table's record.
fn slot(store: &Store, number: u64) -> Slot<InodeRecord> {
    Slot::record(store.geometry().itable.byte() + number * INODE_RECORD_BYTES)
}

fn record(uid: u32) -> InodeRecord {
    let mut record = testing::record(INO);
    record.uid = uid.into();
    record.sealed()
}

fn read(store: &Store, number: u64) -> InodeRecord {
    let mut record = testing::record(INO);
    store.read(slot(store, number).at, record.as_mut_bytes()).unwrap();
    record
}

fn commit(store: &Arc<Store>, uid: u32) {
    let mut txn = Txn::new(store);
    (0..2).for_each(|number| txn.write(slot(store, number), &record(uid)));
    txn.commit().unwrap();
}

/// Puts the two records back, as if the last transaction had not reached its home.
fn lose_home(store: &Store, uid: u32) {
    let bytes = testing::bytes(store);
    (0..2).for_each(|number| bytes.write(slot(store, number).at, record(uid).as_bytes()).unwrap());
}

/// Each takes 16 bytes in front; the header takes 64.
fn records_that_fit(store: &Store) -> u64 {
    (store.geometry().journal_pages.bytes() - 64) / (INODE_RECORD_BYTES + 16)
}

fn reopened(store: &Store) -> Arc<Store> {
    testing::store_on(Arc::clone(store.device()))
}

#[test]
fn a_transaction_that_is_dropped_changes_nothing() {
    let store = testing::store(SIZE);
    let free = store.free_pages();
    let mut txn = Txn::new(&store);
    let tree = txn.publish(testing::graft(&store, &testing::tree(INO), 0..3));
    txn.write(slot(&store, 0), &record(1));
    assert_eq!(store.free_pages(), free - tree.pages);
    drop(txn);
    assert_eq!(store.free_pages(), free);
    assert_eq!(read(&store, 0).mode.get(), 0);
}

#[test]
fn pages_that_are_cut_are_free_after_the_commit_only() {
    let store = testing::store(SIZE);
    let empty = store.free_pages();
    let tree = testing::insert(&store, &testing::tree(INO), 0..3);
    let free = store.free_pages();

    let cut = || {
        let cut = testing::cut(&store, &tree, 0..3);
        let vacant = Vacant::claim(&store, cut.freed()).unwrap();
        let mut txn = Txn::new(&store);
        assert!(txn.cut(cut, vacant).unwrap().is_empty());
        txn
    };
    drop(cut());
    assert_eq!(store.free_pages(), free);
    cut().commit().unwrap();
    assert_eq!(store.free_pages(), empty);
}

#[test]
fn a_transaction_that_is_too_large_is_refused_before_anything_is_written() {
    let store = testing::store(SIZE);
    let free = store.free_pages();
    let mut txn = Txn::new(&store);
    let _ = txn.publish(testing::graft(&store, &testing::tree(INO), 0..3));
    (0..=records_that_fit(&store)).for_each(|_| txn.write(slot(&store, 0), &record(1)));
    let error = txn.commit().unwrap_err();
    assert!(matches!(error, FsError::TransactionTooLarge { .. }), "{error}");
    assert_eq!((read(&store, 0).mode.get(), store.free_pages()), (0, free));
    assert!(!reopened(&store).needs_recovery().unwrap());
    commit(&store, 1);
}

#[test]
fn a_full_journal_is_not_too_large() {
    let store = testing::store(SIZE);
    let mut txn = Txn::new(&store);
    (0..records_that_fit(&store)).for_each(|_| txn.write(slot(&store, 0), &record(1)));
    txn.commit().unwrap();
    assert_eq!(read(&store, 0), record(1));
}

#[test]
fn recovery_repeats_the_last_transaction() {
    let store = testing::store(SIZE);
    commit(&store, 1);
    commit(&store, 2);
    lose_home(&store, 1);

    let store = reopened(&store);
    assert!(store.needs_recovery().unwrap());
    assert!(store.recover().unwrap());
    assert_eq!((read(&store, 0), read(&store, 1)), (record(2), record(2)));
    assert!(!store.needs_recovery().unwrap());
    assert!(!store.recover().unwrap());
}

#[test]
fn a_transaction_after_recovery_is_the_one_that_recovery_repeats() {
    let store = testing::store(SIZE);
    commit(&store, 1);
    let store = reopened(&store);
    store.recover().unwrap();
    commit(&store, 2);
    lose_home(&store, 1);
    assert!(reopened(&store).recover().unwrap());
    assert_eq!(read(&store, 1), record(2));
}

#[test]
fn a_record_with_any_bit_flipped_is_not_repeated() {
    let store = testing::store(SIZE);
    commit(&store, 2);
    lose_home(&store, 1);
    let journal = testing::bytes(&store);
    let start = store.geometry().journal.byte();
    for at in start..start + 64 + 2 * (16 + 256) {
        let mut byte = [0];
        journal.read(at, &mut byte).unwrap();
        journal.write(at, &[byte[0] ^ 4]).unwrap();
        assert!(!reopened(&store).recover().unwrap(), "byte {at}");
        journal.write(at, &byte).unwrap();
    }
    assert!(reopened(&store).recover().unwrap());
}

#[test]
fn the_journal_of_an_older_pool_on_the_device_is_not_repeated() {
    let store = testing::store(SIZE);
    commit(&store, 2);
    lose_home(&store, 1);
    let device = Arc::clone(store.device());
    let other = Store::new(device, *store.geometry(), *b"an other pool...");
    assert!(!other.recover().unwrap());
}

/// Three media that lose power: one keeps every store at once, one only what was flushed and
/// fenced, one the stores to the journal at once and others when fenced. The enumerator tries
/// what lies between.
struct Losing {
    journal: std::ops::Range<u64>,
    images: [Image; 3],
    flushed: Vec<u64>,
}

impl Losing {
    fn happen(&mut self, event: Event, all: &Image) {
        match event {
            Event::Store { at, value } => {
                self.images[0].write(at, &value.to_le_bytes());
                if self.journal.contains(&at) {
                    self.images[2].write(at, &value.to_le_bytes());
                }
            }
            Event::Flush { line, .. } => self.flushed.push(line),
            Event::Fence { .. } => {
                for line in self.flushed.drain(..) {
                    self.images[1].write(line * 64, &all.line(line));
                    self.images[2].write(line * 64, &all.line(line));
                }
            }
            Event::Mark(_) => {}
        }
    }
}

/// The records that recovery leaves on `image`.
fn recovered(image: &Image) -> u32 {
    let media = Arc::new(ImageMedia::new(image.clone()));
    let store = testing::store_on(testing::device_of(media));
    store.recover().unwrap();
    let found = read(&store, 0);
    assert!(found.is_intact());
    assert_eq!(found, read(&store, 1));
    found.uid.get()
}

#[test]
fn a_crash_leaves_one_transaction_or_the_next_and_never_a_part() {
    let recorder = Arc::new(Recorder::new(Image::zeroed(SIZE.bytes())));
    let store = testing::store_on(testing::device_of(recorder.clone()));
    let journal = store.geometry().journal.byte()..store.geometry().itable.byte();
    let images = [(); 3].map(|()| Image::zeroed(SIZE.bytes()));
    let mut losing = Losing { journal, images, flushed: Vec::new() };
    let mut all = Image::zeroed(SIZE.bytes());
    for uid in 1..4 {
        commit(&store, uid);
        for event in recorder.take_events() {
            if let Event::Store { at, value } = event {
                all.write(at, &value.to_le_bytes());
            }
            losing.happen(event, &all);
            let found = losing.images.each_ref().map(recovered);
            assert!(found.iter().all(|found| (uid - 1..=uid).contains(found)), "{found:?}");
        }
        assert_eq!(losing.images.each_ref().map(recovered), [uid; 3], "a commit is durable");
    }
}

/// A process dies before the flush of its record; the cache keeps the record, the next process
/// repeats it, and then the power fails. Only this needs the fence before a repetition.
#[test]
fn a_record_that_only_a_cache_holds_is_durable_before_it_is_repeated() {
    let recorder = Arc::new(Recorder::new(Image::zeroed(SIZE.bytes())));
    let store = testing::store_on(testing::device_of(recorder.clone()));
    commit(&store, 1);
    let (mut durable, mut cached) = (recorder.image(), recorder.image());
    let _ = recorder.take_events();
    commit(&store, 2);
    let journal = store.geometry().journal.byte()..store.geometry().itable.byte();
    for event in recorder.take_events() {
        match event {
            Event::Store { at, value } if journal.contains(&at) => {
                cached.write(at, &value.to_le_bytes());
            }
            _ => {}
        }
    }

    // One line of the record has reached the medium, so the older record is gone from there.
    durable.write(journal.start, &cached.line(journal.start / 64));

    let recorder = Arc::new(Recorder::new(cached.clone()));
    let store = testing::store_on(testing::device_of(recorder.clone()));
    assert!(store.recover().unwrap());
    let mut flushed = Vec::new();
    for event in recorder.take_events() {
        match event {
            Event::Store { at, value } => durable.write(at, &value.to_le_bytes()),
            Event::Flush { line, .. } => flushed.push(line),
            Event::Fence { .. } => {
                for line in flushed.drain(..) {
                    durable.write(line * 64, &cached.line(line));
                }
            }
            Event::Mark(_) => {}
        }
        assert!((1..=2).contains(&recovered(&durable)));
    }
}

#[test]
fn transactions_are_numbered_across_sessions() {
    let store = testing::store(SIZE);
    let sequence = |store: &Store| store.load_u64(store.geometry().journal.byte() + 8).unwrap();
    commit(&store, 1);
    let first = sequence(&store);
    let store = reopened(&store);
    store.recover().unwrap();
    commit(&store, 2);
    assert_eq!(sequence(&store), first + 1);
}

#[test]
fn a_write_to_a_page_that_is_freed_is_refused() {
    let store = testing::store(SIZE);
    let tree = testing::insert(&store, &testing::tree(INO), 0..1);
    let cut = testing::cut(&store, &tree, 0..1);
    let cell = Slot::cell(cut.freed()[0].start.byte() + CELL_BYTES);
    let vacant = Vacant::claim(&store, cut.freed()).unwrap();
    let mut txn = Txn::new(&store);
    let _ = txn.cut(cut, vacant).unwrap();
    txn.clear_cells(cell, 1);
    assert!(catch_unwind(AssertUnwindSafe(|| txn.commit())).is_err());
}

#[test]
fn a_cut_without_proof_for_every_page_is_refused() {
    let store = testing::store(SIZE);
    let tree = testing::insert(&store, &testing::tree(INO), 0..3);
    let cut = testing::cut(&store, &tree, 0..3);
    let mut part = cut.freed().to_vec();
    part[0].pages = Pages(2);
    let vacant = Vacant::claim(&store, &part).unwrap();
    let mut txn = Txn::new(&store);
    assert!(catch_unwind(AssertUnwindSafe(|| txn.cut(cut, vacant).is_ok())).is_err());
}

#[test]
fn a_store_whose_medium_fails_in_a_commit_takes_no_more_writes() {
    let media = Failing::new(SIZE);
    let store = testing::store_on(testing::device_of(media.clone()));
    commit(&store, 1);
    let mut txn = Txn::new(&store);
    let _ = txn.publish(testing::graft(&store, &testing::tree(INO), 0..3));
    let free = store.free_pages();
    txn.write(slot(&store, 0), &record(2));
    media.set(true);
    assert!(matches!(txn.commit(), Err(FsError::Device(_))));
    media.set(false);

    // The transaction may have happened, so its pages are not given to anybody else.
    assert_eq!(store.free_pages(), free);
    let refused = [
        Txn { writes: writes(), ..Txn::new(&store) }.commit(),
        store.allocate_page().map(drop),
        store.write_in_place(store.geometry().data.byte(), b"x"),
    ];
    assert!(refused.iter().all(|result| matches!(result, Err(FsError::Stopped(_)))));
}

fn writes() -> Writes {
    let mut writes = Writes::default();
    writes.bytes(0, b"x");
    writes
}

#[test]
fn fresh_pages_are_nobodys_until_the_commit_and_can_be_mapped_after_it() {
    let store = testing::store(SIZE);
    let graft = testing::graft(&store, &testing::tree(INO), 0..1);
    let page = graft.object().grown.fresh[0].extent();
    let request = || {
        let span = store.span(page).unwrap();
        span.pgmap().request_folio(span.at(), udax_mm::Order::Base)
    };
    assert!(request().is_err());
    let mut txn = Txn::new(&store);
    let _ = txn.publish(graft);
    assert!(request().is_err());
    txn.commit().unwrap();
    assert!(request().is_ok());
}

/// Each thread fills and empties a file of its own; what one frees, another takes.
#[test]
fn transactions_of_several_threads_do_not_meet() {
    let store = testing::store(SIZE);
    let free = store.free_pages();
    std::thread::scope(|scope| {
        for ino in 1..5 {
            let store = &store;
            scope.spawn(move || {
                let mut tree = testing::tree(Ino(ino));
                for round in 0..60 {
                    tree = testing::insert(store, &tree, round..round + 20);
                    tree = testing::clear(store, &tree, round..round + 20);
                }
                assert!(tree.is_empty());
            });
        }
    });
    assert_eq!(store.free_pages(), free);
}
