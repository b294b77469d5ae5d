//! What mounting makes of records of another run of the host, of torn ones, and of a broken chain.

use super::*;
use crate::format::{PinRecord, SessionRecord};
use crate::testing::{Failing, device, device_of, store_on};
use crate::{FormatOptions, Ino, Kind, Name};
use udax_dev::{DaxBytes, DaxDevice};
use udax_mm::{FileIndex, PinInfo, PinOwner, PinTerm};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const PAGES: Pages = Pages(1024);

/// Of the file that is pinned.
const PINNED: Pages = Pages(3);

fn info() -> PinInfo {
    PinInfo {
        owner: PinOwner { process: u32::MAX, connection: 0, label: "nic".into() },
        since: std::time::Instant::now(),
        kind: PinKind::Write,
        term: PinTerm::Long,
    }
}

fn mount(device: &Arc<dyn DaxDevice>) -> Result<(Arc<Filesystem>, crate::Recovered), FsError> {
    Filesystem::mount(Arc::clone(device), MountMode::ReadWrite, None)
}

fn formatted(device: &Arc<dyn DaxDevice>) -> Arc<Filesystem> {
    Filesystem::format(Arc::clone(device), &FormatOptions::default()).unwrap();
    let (fs, _) = mount(device).unwrap();
    let name = Name::from_bytes(b"a").unwrap();
    let file = fs.create(&fs.root().unwrap(), &name, Kind::File, 0o644, 0, 0).unwrap();
    file.write_at(&[7; 9000], 0).unwrap();
    fs
}

fn pin(fs: &Filesystem) -> Result<crate::HeldPin, FsError> {
    fs.inode(Ino(2))?.pin(FileIndex(0).span(PINNED), info())
}

/// A pool whose owner died with a pin, and the first byte of its pin table.
fn died() -> (Arc<dyn DaxDevice>, u64) {
    let device = device(PAGES);
    let fs = formatted(&device);
    std::mem::forget(pin(&fs).unwrap());
    let table = fs.core().store.geometry().pins.byte();
    (device, table)
}

/// Changes the session and the first record as `record` does, with checksums that fit.
fn edit(device: &Arc<dyn DaxDevice>, table: u64, record: impl Fn(&mut PinRecord)) {
    let bytes = DaxBytes::new(Arc::clone(device));
    let mut pin = [0; 128];
    bytes.read(table + 128, &mut pin).unwrap();
    let mut pin = PinRecord::read_from_bytes(&pin).unwrap();
    record(&mut pin);
    pin.checksum = crc32fast::hash(&pin.as_bytes()[4..]).into();
    bytes.write(table + 128, pin.as_bytes()).unwrap();
}

/// Makes the last session one of another run of the host.
fn reboot(device: &Arc<dyn DaxDevice>) {
    let bytes = DaxBytes::new(Arc::clone(device));
    let mut session = SessionRecord::new_zeroed();
    session.boot_id = [3; 16];
    session.checksum = crc32fast::hash(&session.as_bytes()[4..]).into();
    bytes.write(4096, session.as_bytes()).unwrap();
}

#[test]
fn the_start_of_the_host_ends_what_was_pinned_before() {
    let (device, table) = died();
    edit(&device, table, |record| record.boot_id = [3; 16]);
    assert!(Filesystem::recorded_pins(Arc::clone(&device), Owners::AreGone).unwrap().is_empty());
    let (fs, recovered) = mount(&device).unwrap();
    assert_eq!((recovered.quarantined, recovered.released), (0, 1));
    fs.verify().unwrap();
    drop(fs);
    assert_eq!(mount(&device).unwrap().1.released, 0, "it is out of the table");
}

#[test]
fn a_host_that_does_not_tell_its_runs_apart_ends_nothing() {
    let (device, table) = died();
    edit(&device, table, |record| record.boot_id = [0; 16]);
    let (fs, recovered) = mount(&device).unwrap();
    assert_eq!((recovered.quarantined, recovered.released), (1, 0));
    assert_eq!(fs.release_quarantine(&Release::All, LivingOwner::Refuse).unwrap().len(), 1);
    fs.verify().unwrap();
}

#[test]
fn a_torn_record_is_that_of_a_pin_which_was_not_granted() {
    let (device, table) = died();
    let bytes = DaxBytes::new(Arc::clone(&device));
    bytes.write(table + 128 + 70, b"torn").unwrap();
    let (fs, recovered) = mount(&device).unwrap();
    assert_eq!(recovered.quarantined, 0);
    assert_eq!(bytes.load_u64(table + 128).unwrap(), 0, "its place is free");
    let _held = pin(&fs).unwrap();
    fs.verify().unwrap();
}

#[test]
fn a_table_that_cannot_be_followed_keeps_writers_out_until_the_host_is_started_again() {
    let (device, table) = died();
    let bytes = DaxBytes::new(Arc::clone(&device));
    for word in [17, u64::MAX, 1 << 63] {
        bytes.store_u64(table, word).unwrap();
        let refused = mount(&device).unwrap_err();
        assert!(matches!(&refused, FsError::Corrupt { object, .. } if object == "the pin table"));
        assert!(refused.to_string().contains("until the host is started again"), "{refused}");
        let report = Filesystem::check(Arc::clone(&device)).unwrap();
        assert_eq!(report.problems[0].object, "pin table");
        let read_only = Filesystem::mount(Arc::clone(&device), MountMode::ReadOnly, None);
        assert_eq!(read_only.unwrap().0.quarantine().len(), 1, "what can be read is believed");
    }
    reboot(&device);
    mount(&device).unwrap().0.verify().unwrap();
    assert_eq!(bytes.load_u64(table).unwrap(), 0);
}

#[test]
fn a_pin_whose_record_is_not_durable_is_not_granted() {
    let media = Failing::new(PAGES);
    let device = device_of(media.clone());
    let fs = formatted(&device);
    media.set(true);
    assert!(matches!(pin(&fs), Err(FsError::Device(_))));
    media.set(false);
    assert!(fs.pins().is_empty());
    fs.verify().unwrap();
    let _held = pin(&fs).unwrap();
    fs.verify().unwrap();
}

/// The device fails while a pin is dropped: its record stays, and a clean end takes it out.
#[test]
fn a_clean_end_leaves_no_record_of_a_dropped_pin() {
    let media = Failing::new(PAGES);
    let device = device_of(media.clone());
    let fs = formatted(&device);
    let held = pin(&fs).unwrap();
    let table = fs.core().store.geometry().pins.byte();
    media.set(true);
    drop(held);
    media.set(false);
    let bytes = DaxBytes::new(Arc::clone(&device));
    // As if the store had not come through.
    bytes.write(table + 128, &[9; 8]).unwrap();
    fs.unmount().unwrap();
    assert_eq!(bytes.load_u64(table + 128).unwrap(), 0);
}

/// Between the two another file could get the pages, and freeze.
#[test]
fn a_record_is_taken_out_before_the_pages_go() {
    let media = Failing::new(PAGES);
    let fs = formatted(&device_of(media.clone()));
    let held = pin(&fs).unwrap();
    fs.unlink(&fs.root().unwrap(), &Name::from_bytes(b"a").unwrap()).unwrap();
    assert_eq!(fs.usage().limbo, PINNED);
    let record = fs.core().store.geometry().pins.byte() + 128;
    let (seen, saw) = (Arc::new(Mutex::new(Vec::new())), Arc::downgrade(&fs));
    let note = Arc::clone(&seen);
    media.watch(move |at| {
        if at == record {
            note.lock().push(saw.upgrade().unwrap().usage().limbo);
        }
    });
    drop(held);
    assert_eq!(*seen.lock(), [PINNED]);
    assert_eq!(fs.usage().limbo, Pages(0));
}

/// Its checksum covers what stands behind the zero that ends its label.
#[test]
fn a_record_that_says_more_than_is_read_of_it_is_marked_and_taken_out() {
    let (device, table) = died();
    edit(&device, table, |record| record.label[..5].copy_from_slice(b"a\0\xffbc"));
    for _ in 0..2 {
        let (fs, recovered) = mount(&device).unwrap();
        assert_eq!((recovered.quarantined, fs.quarantine()[0].label()), (1, "a"));
        let recorded = Filesystem::recorded_pins(Arc::clone(&device), Owners::MayLive).unwrap();
        assert!(recorded[0].is_quarantined());
        fs.verify().unwrap();
    }
    let (fs, _) = mount(&device).unwrap();
    assert_eq!(fs.release_quarantine(&Release::All, LivingOwner::Refuse).unwrap().len(), 1);
    fs.verify().unwrap();
    let bytes = DaxBytes::new(Arc::clone(&device));
    assert_eq!(bytes.load_u64(table + 128).unwrap(), 0, "its place is free");
}

#[test]
fn what_is_released_is_free_if_the_device_fails_while_the_table_shrinks() {
    let media = Failing::new(PAGES);
    let fs = formatted(&device_of(media.clone()));
    // More records than a page of the table has.
    std::mem::forget((0..40).map(|_| pin(&fs).unwrap()).collect::<Vec<_>>());
    drop(fs);
    let media = media.again();
    let (fs, recovered) = mount(&device_of(media.clone())).unwrap();
    assert_eq!(recovered.quarantined, 40);
    fs.unlink(&fs.root().unwrap(), &Name::from_bytes(b"a").unwrap()).unwrap();
    let before = fs.usage();
    assert_eq!(before.quarantined, PINNED);
    let chain = fs.core().store.geometry().pins.byte();
    let failing = Arc::downgrade(&media);
    media.watch(move |at| {
        if at == chain {
            failing.upgrade().unwrap().set(true);
        }
    });

    let failed = fs.release_quarantine(&Release::All, LivingOwner::Refuse).unwrap_err();

    assert!(matches!(failed, FsError::Device(_)), "{failed}");
    assert!(fs.quarantine().is_empty());
    let after = fs.usage();
    assert_eq!((after.quarantined, after.free), (Pages(0), before.free + PINNED));
}

/// Another session may have given the place of a record to another pin.
#[test]
fn a_pin_of_an_older_mount_takes_out_no_record_but_its_own() {
    let (device, table) = died();
    let old = mount(&device).unwrap().0;
    old.release_quarantine(&Release::All, LivingOwner::Refuse).unwrap();
    let held = pin(&old).unwrap();
    let bytes = DaxBytes::new(Arc::clone(&device));
    let word = bytes.load_u64(table + 128).unwrap();
    bytes.store_u64(table + 128, word ^ 1).unwrap();
    drop(held);
    assert_eq!(bytes.load_u64(table + 128).unwrap(), word ^ 1);
}

#[test]
fn a_store_without_pins_withholds_nothing() {
    let store = store_on(device(PAGES));
    let free = store.free_pages();
    let fresh = store.allocate_page().unwrap();
    let extent = fresh.extent();
    fresh.keep();
    store.give_back(vec![extent]);
    assert_eq!((store.free_pages(), store.quarantine.withheld()), (free, Pages(0)));
}
