//! Memory that fails under a device: what is lost with it, and how it comes back.

use crate::{MIB, bytes_of, device, each_way, error, fail, for_stores, map};
use udax::{DevDax, DevDaxError, ErrorKind, OpenDevDax, Order, PinKind, PinOptions, Wait};

/// B-22, I-64, I-68: the folio of the page that failed is lost, and neither of its neighbours,
/// wherever in the folio it was touched.
#[test]
fn a_failed_page_is_lost_with_its_folio_and_no_other() {
    for order in [Order::Base, Order::Pmd] {
        let folio = bytes_of(order);
        each_way(order, 3, |device| {
            let (one, other) = (map(device, 0..3 * folio), map(device, folio..2 * folio));
            for at in [0, folio, 2 * folio - 8, 2 * folio] {
                one.store(at, 7).unwrap();
            }
            other.load(folio - 8).unwrap();

            fail(device, 2 * folio - 8);

            let lost = 2 * folio - 4096..2 * folio;
            assert_eq!(device.bad_ranges().unwrap(), std::slice::from_ref(&lost));
            for at in [folio, folio + folio / 2, 2 * folio - 8] {
                one.load(at).expect_err("I-68: the folio is lost");
                other.store(at - folio, 8).expect_err("I-68: the folio is lost");
            }
            assert!(other.last_fault_error().is_some_and(|why| why.contains("poisoned")));
            assert_eq!(one.load(0).unwrap(), 7, "B-22: the folio before");
            assert_eq!(one.load(2 * folio).unwrap(), 7, "B-22: the folio behind");
            assert_eq!(device.verify(), Ok(()));
            let stats = device.stats();
            let others = Order::ALL.into_iter().filter(|other| *other != order);
            assert!(others.into_iter().all(|other| stats.faults(other) == 0), "I-68");
        });
    }
}

#[test]
fn lost_bytes_are_refused_by_name_and_healed_by_an_overwrite() {
    each_way(Order::Pmd, 2, |device| {
        let map = map(device, 0..4 * MIB);
        map.store(8192, 7).unwrap();
        fail(device, 12_288);
        fail(device, 16_384);

        let lost = DevDaxError::Lost { start: 12_288, end: 20_480 };
        let refused = error(device.read_at(&mut [0; 8], 12_280 + 4));
        assert_eq!(refused.kind(), ErrorKind::Media);
        assert_eq!(
            refused.as_devdax_error(),
            Some(&DevDaxError::Lost { start: 12_288, end: 16_384 })
        );
        let refused = error(device.read_at(&mut [0; 16_384], 8192));
        assert_eq!(refused.as_devdax_error(), Some(&lost));
        let part = DevDaxError::PartlyLost { start: 16_384, end: 20_480 };
        for refused in [device.write_at(&[9; 8192], 12_288 - 1), device.zero(12_288..20_000)] {
            let refused = error(refused);
            let is_part = matches!(refused.as_devdax_error(), Some(DevDaxError::PartlyLost { .. }));
            assert!(is_part, "{refused}");
        }
        let refused = error(device.write_at(&[9; 4097], 12_288));
        assert_eq!(refused.as_devdax_error(), Some(&part));
        assert_eq!(
            device.bad_ranges().unwrap(),
            std::iter::once(12_288..20_480).collect::<Vec<_>>()
        );
        let pinned = error(device.pin(8192..8200, &PinOptions::new("nic")));
        assert_eq!(pinned.kind(), ErrorKind::Media, "its folio has failed pages");
        map.load(8192).unwrap_err();

        device.write_at(&[9; 4096], 12_288).unwrap();
        map.load(8192).expect_err("one page of the folio is lost still");
        device.zero(16_000..20_480).unwrap();

        assert_eq!(device.bad_ranges().unwrap(), []);
        assert_eq!(map.load(8192).unwrap(), 7, "what was good is as it was");
        assert_eq!(map.load(12_288).unwrap(), 0x0909_0909_0909_0909);
        assert_eq!(map.load(16_384).unwrap(), 0);
        map.store(16_384, 5).unwrap();
        assert_eq!(device.stats().faults(Order::Base), 0, "I-68");
    });
}

/// Memory that fails when it is copied is noticed then, and is told to who has it mapped.
#[test]
fn a_failure_that_a_copy_meets_is_told_to_every_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("device");
    let host = std::fs::File::create_new(&path).unwrap();
    host.set_len(16_384).unwrap();
    let device = DevDax::open(&path, &OpenDevDax::new().alignment(Order::Base)).unwrap();
    let map = map(&device, 0..16_384);
    map.store(0, 7).unwrap();
    map.store(12_288, 8).unwrap();

    host.set_len(12_288).unwrap();
    let refused = error(device.read_at(&mut [0; 16_384], 0));

    let lost = DevDaxError::Lost { start: 12_288, end: 16_384 };
    assert_eq!(refused.as_devdax_error(), Some(&lost));
    map.load(12_288).unwrap_err();
    assert!(map.last_fault_error().is_some_and(|why| why.contains("poisoned")), "it was told");
    assert_eq!(map.load(0).unwrap(), 7);
    device.write_at(&[3; 4096], 12_288).unwrap();
    assert_eq!(map.load(12_288).unwrap(), 0x0303_0303_0303_0303);
    assert_eq!(device.verify(), Ok(()));
}

/// Who pins a page keeps it: its memory is not replaced under a device.
#[test]
fn a_failed_page_that_is_pinned_is_healed_when_the_pin_goes() {
    let device = device(Order::Pmd, 2);
    let pin = device.pin(0..8, &PinOptions::new("nic").kind(PinKind::Write)).unwrap();
    fail(&device, 4096);

    assert_eq!(error(device.write_at(&[1; 4096], 4096)).kind(), ErrorKind::Pinned);
    let refused = error(device.map(0..2 * MIB, &for_stores()).and_then(|map| map.load(0)));
    assert_ne!(refused.kind(), ErrorKind::Pinned);
    drop(pin);
    device.write_at(&[1; 4096], 4096).unwrap();
    map(&device, 0..2 * MIB).load(4096).unwrap();
    device.kill(Wait::Never).unwrap();
}

/// The mark of the first page was gone when the second one was refused, and nobody ever healed what
/// mappings showed of the first.
#[test]
fn what_is_healed_before_a_write_is_refused_is_seen_by_mappings() {
    each_way(Order::Base, 2, |device| {
        let map = map(device, 0..8192);
        map.store(0, 7).unwrap();
        let pin = device.pin(4096..4104, &PinOptions::new("nic").kind(PinKind::Write)).unwrap();
        fail(device, 0);
        fail(device, 4096);
        map.load(0).unwrap_err();

        assert_eq!(error(device.write_at(&[9; 8192], 0)).kind(), ErrorKind::Pinned);

        assert_eq!(device.bad_ranges().unwrap(), std::iter::once(4096..8192).collect::<Vec<_>>());
        device.read_at(&mut [0; 4096], 0).unwrap();
        assert_eq!(map.load(0).unwrap(), 0x0909_0909_0909_0909);
        map.load(4096).expect_err("it is lost still");
        drop(pin);
        device.write_at(&[8; 8192], 0).unwrap();
        assert_eq!(map.load(4096).unwrap(), 0x0808_0808_0808_0808);
    });
}
