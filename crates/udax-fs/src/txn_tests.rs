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

/// What a crash can leave when no line is persistent before its fence, and when every store is
/// persistent at once. The enumerator tries what lies between.
#[test]
fn a_crash_leaves_one_transaction_or_the_next_and_never_a_part() {
    let recorder = Arc::new(Recorder::new(Image::zeroed(SIZE.bytes())));
    let store = testing::store_on(testing::device_of(recorder.clone()));
    (1..4).for_each(|uid| commit(&store, uid));

    let (mut eager, mut lazy) = (Image::zeroed(SIZE.bytes()), Image::zeroed(SIZE.bytes()));
    let (mut flushed, mut uids) = (Vec::new(), [0, 0]);
    for event in recorder.take_events() {
        match event {
            Event::Store { at, value } => eager.write(at, &value.to_le_bytes()),
            Event::Flush { line, .. } => flushed.push((line * 64, eager.line(line))),
            Event::Fence { .. } => {
                flushed.drain(..).for_each(|(at, bytes)| lazy.write(at, &bytes));
            }
            Event::Mark(_) => {}
        }
        for (uid, image) in uids.iter_mut().zip([&eager, &lazy]) {
            let media = Arc::new(ImageMedia::new(image.clone()));
            let store = testing::store_on(testing::device_of(media));
            store.recover().unwrap();
            let found = read(&store, 0);
            assert_eq!(found, read(&store, 1));
            assert!(found.is_intact() && (*uid..*uid + 2).contains(&found.uid.get()));
            *uid = found.uid.get();
        }
    }
    assert_eq!(uids, [3, 3]);
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
