//! Kinds of media: what is found out about each file that this host can offer.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::panic::Location;
use std::path::Path;

use tempfile::TempDir;
use udax_mm::media::{Durability, FileMedia, HugePage, Persistence};
use udax_mm::{
    Access, Media, MediaError, MediaFacts, MediaRange, MemoryType, Order, PAGE_SIZE, Pages,
};
use udax_mm::{Pgmap, PgmapOff, Vma, VmaOff};

const PAGE: u64 = 4096;
const HUGE: u64 = 2 << 20;

/// A medium of this many huge pages of 2 MiB; None, which it says, where the host has too few.
fn huge(pages: u64) -> Option<FileMedia> {
    match FileMedia::huge_memfd("huge", pages * HUGE, HugePage::TwoMib) {
        Ok(media) => Some(media),
        Err(error) => {
            // Past the capture of the test harness, so that it is seen.
            let _ = writeln!(std::io::stderr(), "SKIPPED, nothing is shown: {error}");
            assert!(matches!(
                error,
                MediaError::NoHugePages { .. } | MediaError::NoSuchHugePage { .. }
            ));
            None
        }
    }
}

#[test]
fn a_file_on_tmpfs_survives_the_process_and_is_registrable() {
    let Ok(dir) = TempDir::new_in("/dev/shm") else {
        // Past the capture of the test harness, so that it is seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED, nothing is shown: there is no /dev/shm");
        return;
    };
    let path = dir.path().join("medium");
    let media = FileMedia::create(&path, 4 * PAGE, Durability::Process).unwrap();
    let expected = MediaFacts {
        persistence: Persistence::Process,
        host_page: PAGE_SIZE,
        is_registrable: true,
        is_writable: true,
        is_dax: false,
    };
    assert_eq!(media.facts(), expected);
    let refused = FileMedia::open(&path, Durability::Power);
    assert!(matches!(refused, Err(MediaError::InMemory)), "{refused:?}");
    let for_reading = FileMedia::open_read_only(&path).unwrap().facts();
    assert!(!for_reading.is_writable && !for_reading.is_registrable);
}

#[test]
fn a_file_that_lost_its_name_is_volatile() {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("medium");
    std::fs::write(&path, [0; PAGE_SIZE]).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let other_handle = file.try_clone().unwrap();
    let media = FileMedia::from_file(file, Durability::Process).unwrap();
    assert_eq!(media.facts().persistence, Persistence::Volatile);
    let refused = FileMedia::from_file(other_handle, Durability::Power);
    assert!(matches!(refused, Err(MediaError::InMemory)), "{refused:?}");
}

#[test]
fn what_is_no_file_of_bytes_is_no_medium() {
    for path in ["/dev/null", "/dev", "/dev/zero"] {
        let opened = FileMedia::open_read_only(Path::new(path));
        assert!(matches!(opened, Err(MediaError::NotAMedium)), "{path}: {opened:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("medium");
    std::fs::write(&path, [0; PAGE_SIZE]).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let error = FileMedia::from_file(file, Durability::Power).unwrap_err();
    assert!(error.to_string().starts_with("Permission denied"), "{error}");
}

#[test]
fn huge_pages_are_found_to_be_huge() {
    let Some(media) = huge(2) else { return };
    let facts = media.facts();
    assert_eq!((facts.host_page, media.len()), (2 << 20, 2 * HUGE));
    assert_eq!(facts.persistence, Persistence::Volatile);
    assert!(facts.is_registrable && facts.is_writable);
}

#[test]
fn huge_pages_hold_bytes_and_are_kept_when_they_are_discarded() {
    let Some(media) = huge(2) else { return };
    let file = File::from(media.backing().unwrap().0.try_clone_to_owned().unwrap());
    media.write(HUGE - 4, b"both ends").unwrap();
    media.flush(0, 2 * HUGE, Location::caller()).unwrap();
    media.fence(Location::caller()).unwrap();
    let before = file.metadata().unwrap().blocks();
    media.discard(0, 2 * HUGE).unwrap();
    assert_eq!(file.metadata().unwrap().blocks(), before, "another process would take them");
    let mut bytes = [1; 9];
    media.read(HUGE - 4, &mut bytes).unwrap();
    assert_eq!(&bytes, b"both ends");
}

#[test]
fn a_recovery_write_covers_huge_pages_as_a_whole() {
    let Some(media) = huge(2) else { return };
    let refused = media.recover(4096, &[1; PAGE_SIZE]);
    let page = HugePage::TwoMib.bytes();
    assert!(
        matches!(refused, Err(MediaError::PartialRecovery { page: found, .. }) if found == page),
        "{refused:?}"
    );
    media.recover(HUGE, &vec![7; page]).unwrap();
    assert_eq!(media.load_u64(2 * HUGE - 8).unwrap(), 0x0707_0707_0707_0707);
    let len = media.len();
    let range = MediaRange { media: udax_mm::sync::Arc::new(media), start: 0, pages: Pages(1024) };
    let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).unwrap();
    assert_eq!((pgmap.facts().host_page, pgmap.size().bytes()), (page, len));
}

#[test]
fn too_few_huge_pages_are_an_error_that_says_how_to_reserve_them() {
    // A terabyte is more than any test machine sets aside.
    for page in [HugePage::TwoMib, HugePage::OneGib] {
        let error = FileMedia::huge_memfd("huge", 1 << 40, page).unwrap_err();
        match error {
            MediaError::NoHugePages { needed, free, total, .. } => {
                assert_eq!(needed, (1 << 40) / u64::try_from(page.bytes()).unwrap());
                assert!(total >= needed - free);
                let path = "/sys/kernel/mm/hugepages/hugepages-";
                assert!(error.to_string().contains(path), "{error}");
            }
            // This host has no pages of this size.
            MediaError::NoSuchHugePage { page: found } => assert_eq!(found, page.bytes()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_length_that_is_no_whole_number_of_huge_pages_is_refused() {
    let refused = FileMedia::huge_memfd("huge", HUGE + PAGE, HugePage::TwoMib);
    assert!(matches!(refused, Err(MediaError::PartialPage { .. })), "{refused:?}");
    let refused = FileMedia::huge_memfd("huge", 0, HugePage::TwoMib);
    assert!(matches!(refused, Err(MediaError::Empty)), "{refused:?}");
}

#[test]
fn a_part_of_a_huge_page_is_not_mapped_for_users() {
    let Some(media) = huge(2) else { return };
    let range = MediaRange { media: udax_mm::sync::Arc::new(media), start: 0, pages: Pages(1024) };
    let pgmap = Pgmap::new(vec![range], MemoryType::FsDax).unwrap().try_get_live().unwrap();
    let vma = Vma::reserve(Pages(512)).unwrap();
    let folio = pgmap.request_folio(PgmapOff(0), Order::Base).unwrap();
    let refused = vma.map(VmaOff(0), folio.borrow(), folio.pages(), Access::Write).unwrap_err();
    assert!(refused.to_string().contains("2097152"), "{refused}");
    let folio = pgmap.request_folio(PgmapOff(512), Order::Pmd).unwrap();
    vma.map(VmaOff(0), folio.borrow(), folio.pages(), Access::Write).unwrap();
}
