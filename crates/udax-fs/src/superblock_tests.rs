//! How pools are recognised, and what bad ones are called.

use super::*;
use crate::testing;

const SIZE: Pages = Pages(1024);

fn pool() -> (DaxBytes, Superblock) {
    let superblock = Superblock {
        geometry: Geometry::of(SIZE),
        uuid: testing::UUID,
        label: "models".to_owned(),
        created: 17,
    };
    let bytes = DaxBytes::new(testing::device(SIZE));
    Superblock::wipe(&bytes, &superblock.geometry).unwrap();
    superblock.write(&bytes).unwrap();
    (bytes, superblock)
}

/// A pool whose superblocks `change` altered, with checksums that fit again.
fn altered(change: impl Fn(&mut SuperblockRecord)) -> Result<Superblock, FsError> {
    let (bytes, superblock) = pool();
    let mut record = superblock.record();
    change(&mut record);
    record.checksum = checksum(&record).into();
    for page in [DeviceOff(0), superblock.geometry.end] {
        bytes.write(page.byte(), record.as_bytes()).unwrap();
    }
    Superblock::read(&bytes).map(|(superblock, _)| superblock)
}

fn flip(bytes: &DaxBytes, at: u64, bit: u32) {
    let mut byte = [0];
    bytes.read(at, &mut byte).unwrap();
    bytes.write(at, &[byte[0] ^ 1 << bit]).unwrap();
}

#[test]
fn a_superblock_is_read_as_it_was_written() {
    let (bytes, superblock) = pool();
    assert_eq!(Superblock::read(&bytes).unwrap(), (superblock, Source::Primary));
}

#[test]
fn any_flipped_bit_makes_the_mirror_be_used() {
    let (bytes, superblock) = pool();
    for at in 0..len_of(&superblock.record()) {
        let bit = u32::try_from(at % 8).unwrap();
        flip(&bytes, at, bit);
        assert_eq!(Superblock::read(&bytes).unwrap(), (superblock.clone(), Source::Mirror));
        flip(&bytes, at, bit);
    }
}

#[test]
fn writing_a_superblock_repairs_both_copies() {
    let (bytes, superblock) = pool();
    flip(&bytes, 40, 0);
    superblock.write(&bytes).unwrap();
    assert_eq!(Superblock::read(&bytes).unwrap().1, Source::Primary);
}

#[test]
fn a_device_of_zeros_is_no_pool() {
    let bytes = DaxBytes::new(testing::device(SIZE));
    assert!(matches!(Superblock::read(&bytes), Err(FsError::NotAPool)));
}

#[test]
fn a_wiped_pool_is_no_pool() {
    let (bytes, superblock) = pool();
    Superblock::wipe(&bytes, &superblock.geometry).unwrap();
    assert!(matches!(Superblock::read(&bytes), Err(FsError::NotAPool)));
}

#[test]
fn two_bad_copies_are_a_corrupt_superblock() {
    let (bytes, superblock) = pool();
    flip(&bytes, 100, 0);
    flip(&bytes, superblock.geometry.end.byte() + 100, 0);
    assert!(matches!(Superblock::read(&bytes), Err(FsError::Corrupt { .. })));
}

#[test]
fn a_newer_version_is_refused() {
    let error = altered(|record| record.version = 2.into()).unwrap_err();
    assert!(matches!(error, FsError::NewerVersion { found: 2, known: 1 }), "{error}");
}

#[test]
fn an_unknown_feature_is_refused() {
    let error = altered(|record| record.features = 8.into()).unwrap_err();
    assert!(matches!(error, FsError::UnknownFeatures(8)), "{error}");
}

#[test]
fn areas_that_overlap_are_refused() {
    let error = altered(|record| record.itable_page = 3.into()).unwrap_err();
    assert!(matches!(error, FsError::Corrupt { .. }), "{error}");
}

#[test]
fn a_truncated_pool_is_refused() {
    let (_, superblock) = pool();
    let short = DaxBytes::new(testing::device(Pages(1000)));
    short.write(0, superblock.record().as_bytes()).unwrap();
    let error = Superblock::read(&short).unwrap_err();
    assert!(matches!(error, FsError::Truncated { expected: SIZE, found: Pages(1000) }), "{error}");
}

#[test]
fn a_mirror_of_a_pool_of_another_size_is_not_used() {
    let (_, superblock) = pool();
    let bytes = DaxBytes::new(testing::device(Pages(1000)));
    bytes.write(DeviceOff(999).byte(), superblock.record().as_bytes()).unwrap();
    assert!(matches!(Superblock::read(&bytes), Err(FsError::Corrupt { .. })));
}

#[test]
fn a_label_is_cut_between_characters() {
    let (_, mut superblock) = pool();
    superblock.label = "é".repeat(40);
    let read = Superblock::of(&superblock.record(), SIZE).unwrap();
    assert_eq!(read.label, "é".repeat(32));
}

#[test]
fn a_session_that_was_not_closed_says_whose_it_was() {
    let (bytes, _) = pool();
    Session::open(&bytes).unwrap();
    let open = Session::Open { pid: std::process::id(), rebooted: false };
    assert_eq!(Session::read(&bytes).unwrap(), open);
    Session::close(&bytes).unwrap();
    assert_eq!(Session::read(&bytes).unwrap(), Session::Closed);
}

#[test]
fn a_torn_session_record_is_an_open_session() {
    let (bytes, _) = pool();
    flip(&bytes, SESSION_PAGE.byte() + 8, 0);
    assert_eq!(Session::read(&bytes).unwrap(), Session::Open { pid: 0, rebooted: false });
}

#[test]
fn a_session_of_another_boot_says_so() {
    let (bytes, _) = pool();
    let mut record = SessionRecord::new_zeroed();
    record.state = STATE_OPEN.into();
    record.pid = 9.into();
    record.boot_id = [3; 16];
    record.checksum = crc32fast::hash(&record.as_bytes()[4..]).into();
    bytes.write(SESSION_PAGE.byte(), record.as_bytes()).unwrap();
    assert_eq!(Session::read(&bytes).unwrap(), Session::Open { pid: 9, rebooted: true });
}
