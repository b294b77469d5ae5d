//! One device of a region, as a device, as a filesystem, and as a device again.

use crate::{MIB, error, fail, map};
use udax::dev::{DaxDevice, Mode, Region, RegionDevice, RegionError};
use udax::fs::{Filesystem, FormatOptions, Inode, Kind, MountMode, Name};
use udax::{DevDax, ErrorKind, Order, PinOptions, Wait};
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::{FileIndex, Pages, Pgmap, PgmapOff};

const PAGES: Pages = Pages(4 * 512);

fn region_device() -> RegionDevice {
    let region = Region::new(Arc::new(FileMedia::memfd("region", PAGES.bytes()).unwrap()));
    region.create("one", PAGES, Order::Pmd).unwrap()
}

/// Uses the memory as a device does, and returns its page map.
fn use_as_device(bound: &RegionDevice) -> Pgmap {
    let device: Arc<dyn DaxDevice> = bound.bind(Mode::DevDax).unwrap();
    let pgmap = device.pgmaps().remove(0);
    check_clean(&pgmap);
    let device = DevDax::on_device("device", device).unwrap();
    let map = map(&device, 0..8 * MIB);
    map.store(6 * MIB, 7).unwrap();
    let pin = device.pin(2 * MIB..2 * MIB + 8, &PinOptions::new("nic")).unwrap();
    assert_eq!(device.stats().faults(Order::Base), 0, "I-63: no order of a filesystem");

    let refused = bound.unbind(Wait::Never).unwrap_err();
    assert!(matches!(refused, RegionError::Busy(_)), "the pin is waited for: {refused:?}");
    assert!(pin.is_recalled());
    drop(pin);
    bound.unbind(Wait::Never).unwrap();
    map.load(6 * MIB).unwrap_err();
    assert_eq!(error(device.read_at(&mut [0], 0)).kind(), ErrorKind::DeviceGone);
    pgmap
}

/// Uses the memory as a filesystem does, in small folios and large, and returns its page map.
fn use_as_filesystem(bound: &RegionDevice) -> Pgmap {
    let device: Arc<dyn DaxDevice> = bound.bind(Mode::FsDax).unwrap();
    let pgmap = device.pgmaps().remove(0);
    check_clean(&pgmap);
    let refused = error(DevDax::on_device("device", Arc::clone(&device)));
    assert_eq!(refused.as_devdax_error(), Some(&udax::DevDaxError::AnyOrder), "{refused}");

    let options = FormatOptions { label: "mode".to_owned(), uuid: None };
    Filesystem::format(Arc::clone(&device), &options).unwrap();
    let (filesystem, _) = Filesystem::mount(device, MountMode::ReadWrite, None).unwrap();
    let file = create(&filesystem);
    file.write_at(&[3; 10_000], 0).unwrap();
    let mapped = file.map(FileIndex(0), Pages(2), udax_mapping::MapMode::default()).unwrap();
    assert_eq!(mapped.vma().load_u64(4096).unwrap(), 0x0303_0303_0303_0303);
    let small = pgmap.try_get_live().unwrap();
    let mut orders = (0..PAGES.0).filter_map(|page| small.get_folio(PgmapOff(page)));
    assert!(orders.any(|folio| folio.order() == Order::Base), "I-63: no order of a device");
    drop((small, mapped, file));
    filesystem.unmount().unwrap();
    drop(filesystem);
    bound.unbind(Wait::Never).unwrap();
    pgmap
}

fn create(filesystem: &Filesystem) -> Arc<Inode> {
    let (root, name) = (filesystem.root().unwrap(), Name::new("file".as_ref()).unwrap());
    filesystem.create(&root, &name, Kind::File, 0o600, 0, 0).unwrap()
}

/// Nobody has, claims, pins or defers any page, and no word says that anybody did.
#[track_caller]
fn check_clean(pgmap: &Pgmap) {
    pgmap.verify().expect("B-36: the folio state is clean");
    assert!(pgmap.busy().is_empty() && pgmap.pins().is_empty(), "B-36, I-63");
}

/// F-51, B-36, I-63.
#[test]
fn a_device_becomes_a_filesystem_and_a_device_again() {
    let bound = region_device();
    for _ in 0..2 {
        check_clean(&use_as_device(&bound));
        assert_eq!(bound.mode().unwrap(), None);
        check_clean(&use_as_filesystem(&bound));
    }
    check_clean(&use_as_device(&bound));
}

/// B-36, I-65: a page that failed under one mode is known to be bad in the next.
#[test]
fn a_page_that_failed_as_a_device_is_never_given_to_a_file() {
    let bound = region_device();
    let device = DevDax::on_device("device", bound.bind(Mode::DevDax).unwrap()).unwrap();
    fail(&device, 6 * MIB);
    // By who has the device, and not by the region.
    device.kill(Wait::Never).unwrap();

    let device: Arc<dyn DaxDevice> = bound.bind(Mode::FsDax).unwrap();
    let bad = 6 * MIB / 4096;
    assert_eq!(bound.bad_pages().unwrap()[0].0, bad);
    let options = FormatOptions { label: "mode".to_owned(), uuid: None };
    Filesystem::format(Arc::clone(&device), &options).unwrap();
    let mounted = Filesystem::mount(Arc::clone(&device), MountMode::ReadWrite, None).unwrap();
    let filesystem = mounted.0;
    assert_eq!(filesystem.usage().limbo, Pages(1), "I-65: it is not free");
    let file = create(&filesystem);
    while file.append(&vec![3; 65_536]).is_ok() {}
    let extents = file.extents().unwrap();
    assert!(extents.iter().any(|extent| extent.device.0 > bad), "everything else was given");
    let has_bad = extents
        .iter()
        .any(|extent| extent.device.0 <= bad && bad < extent.device.0 + extent.pages.0);
    assert!(!has_bad, "I-65: {extents:?}");
    assert_eq!(filesystem.verify(), Ok(()));
    drop(file);
    filesystem.unmount().unwrap();
    drop(filesystem);
    bound.unbind(Wait::Never).unwrap();

    let device = DevDax::on_device("device", bound.bind(Mode::DevDax).unwrap()).unwrap();
    assert_eq!(device.bad_ranges().unwrap()[0].start, 6 * MIB);
    device.write_at(&[1; 4096], 6 * MIB).unwrap();
    assert_eq!(bound.bad_pages().unwrap(), []);
    device.kill(Wait::Never).unwrap();
    assert_eq!(bound.bad_pages().unwrap(), []);
}
