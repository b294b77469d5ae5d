//! The places of records, and the words by which pages are chained.

use super::*;
use crate::testing;
use udax_mm::{PinInfo, PinKind, PinOwner, PinTerm};

fn holder() -> PinHolder {
    PinHolder::of(&PinInfo {
        owner: PinOwner { process: 7, connection: 0, label: "nic".into() },
        since: std::time::Instant::now(),
        kind: PinKind::Write,
        term: PinTerm::Long,
    })
}

/// Extents of one page each.
fn extents(store: &Store, count: u64) -> Vec<Extent> {
    let first = store.geometry().data;
    (0..count).map(|page| Extent { start: first + Pages(2 * page), pages: Pages(1) }).collect()
}

/// What another session finds.
fn loaded(store: &Store) -> Loaded {
    Loaded::of(&testing::store_on(Arc::clone(store.device()))).unwrap()
}

fn found(store: &Store) -> Vec<Extent> {
    loaded(store).pins.iter().map(|found| found.pin.extent).collect()
}

#[test]
fn what_is_recorded_is_found_and_gone_when_dropped() {
    let store = testing::store(Pages(4096));
    for count in [1, 30, 31, 32, 62, 63, 200] {
        let extents = extents(&store, count);
        let grant = PinGrant::record(&store, &holder(), &extents).unwrap();
        assert_eq!(found(&store), extents, "{count}");
        assert_eq!(store.pins.verify(&loaded(&store)), Ok(()));
        drop(grant);
        assert_eq!(found(&store), [], "{count}");
        assert_eq!(store.pins.verify(&loaded(&store)), Ok(()));
    }
    assert_eq!(loaded(&store).pages.len(), 7, "a table that grew keeps its pages");
    assert_eq!(store.pins.trim(&store).unwrap().len(), 6);
    assert_eq!(loaded(&store).pages.len(), 1);
}

#[test]
fn a_page_in_the_middle_of_the_chain_stays_while_one_behind_it_has_a_record() {
    let store = testing::store(Pages(4096));
    let record = |count| PinGrant::record(&store, &holder(), &extents(&store, count)).unwrap();
    let (first, middle, last) = (record(31), record(31), record(1));
    drop((first, middle));
    assert_eq!(store.pins.trim(&store).unwrap(), []);
    drop(last);
    assert_eq!(store.pins.trim(&store).unwrap().len(), 2);
    assert_eq!(store.pins.verify(&loaded(&store)), Ok(()));
}

#[test]
fn a_closed_table_takes_no_record_and_does_not_close_over_one() {
    let store = testing::store(Pages(1024));
    let extents = extents(&store, 1);
    let grant = PinGrant::record(&store, &holder(), &extents).unwrap();
    assert!(matches!(store.pins.close(&store), Err(FsError::Pinned { .. })));
    drop(grant);
    store.pins.close(&store).unwrap();
    let refused = PinGrant::record(&store, &holder(), &extents);
    assert!(matches!(refused, Err(FsError::Closed)));
}

#[test]
fn memory_that_disagrees_with_the_medium_is_found() {
    let store = testing::store(Pages(1024));
    let grant = PinGrant::record(&store, &holder(), &extents(&store, 2)).unwrap();
    let at = grant.written[0].at;
    let word = store.load_u64(at).unwrap();
    testing::bytes(&store).store_u64(at, 0).unwrap();
    assert!(store.pins.verify(&loaded(&store)).is_err());
    testing::bytes(&store).store_u64(at, word).unwrap();
    assert_eq!(store.pins.verify(&loaded(&store)), Ok(()));
}

#[test]
fn a_word_names_one_page_and_only_from_its_own() {
    let (page, next) = (DeviceOff(10), DeviceOff(70));
    let word = encode_next(page, next);
    assert_eq!(decode_next(page, word), Next::Page(next));
    assert_eq!(decode_next(page, 0), Next::End);
    assert_eq!(decode_next(DeviceOff(11), word), Next::Invalid);
    for bit in 0..64 {
        assert_eq!(decode_next(page, word ^ 1 << bit), Next::Invalid, "bit {bit}");
    }
}

#[test]
fn records_side_by_side_are_written_at_once() {
    let written = |at: u64| Written { place: Place(0), at, word: 0 };
    let all: Vec<Written> = [128, 256, 384, 4224, 4352, 8320].map(written).to_vec();
    assert_eq!(runs(&all), [0..3, 3..5, 5..6]);
    assert_eq!(runs(&[]), []);
}
