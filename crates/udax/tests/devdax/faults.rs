//! What is mapped, in which folios, and what is refused.

use std::thread;

use crate::{GIB, KIB, MIB, behind, bytes_of, device, each_way, error, for_stores, is_lazy, map};
use udax::{DevDaxError, ErrorKind, Fallback, MapOptions, Order, PinKind, PinOptions};

/// F-50, I-68: a device is mapped by folios of its alignment, and by nothing else.
#[test]
fn a_device_is_mapped_by_folios_of_its_alignment_only() {
    for order in Order::ALL {
        let folio = bytes_of(order);
        each_way(order, 2, |device| {
            assert_eq!((device.alignment(), device.size()), (order, 2 * folio));
            let both = map(device, 0..2 * folio);
            let second = map(device, folio..2 * folio);
            for at in [8, folio - 8, folio, 2 * folio - 8] {
                both.store(at, at + 1).unwrap();
            }
            assert_eq!(second.load(folio - 8).unwrap(), 2 * folio - 7);

            for at in [0, folio / 2, folio] {
                let (pgmap, page) = behind(device, at);
                let found = pgmap.get_folio(page).expect("it is mapped");
                assert_eq!((found.order(), found.head()), (order, page.align_down(order)));
            }
            let stats = device.stats();
            for other in Order::ALL {
                assert_eq!(stats.faults(other) > 0, other == order, "I-68: {other} on {order}");
            }
            let reasons: Vec<_> = stats.reasons().map(|(reason, _)| reason).collect();
            let expected = if order == Order::Base { vec![Fallback::DeviceOrder] } else { vec![] };
            assert_eq!(reasons, expected);
        });
    }
}

/// F-26: one fault for each GiB.
#[test]
fn a_device_of_gigabytes_faults_once_for_each() {
    let device = device(Order::Pud, 2);
    if !is_lazy(&device) {
        return;
    }
    let map = map(&device, 0..2 * GIB);
    for at in [0, 4 * KIB, 700 * MIB, GIB - 8] {
        map.store(at, 1).unwrap();
    }
    assert_eq!(device.stats().faults(Order::Pud), 1);
    assert_eq!(map.addr() % usize::try_from(GIB).unwrap(), 0, "the host can map it by one page");
    map.store(GIB, 2).unwrap();
    assert_eq!(device.stats().faults(Order::Pud), 2);
    assert_eq!(device.verify(), Ok(()));
}

/// F-50: what would divide a folio is refused by name, and nothing is mapped.
#[test]
fn what_would_divide_a_folio_is_refused_and_names_the_alignment() {
    for (order, name) in [(Order::Base, "4 KiB"), (Order::Pmd, "2 MiB"), (Order::Pud, "1 GiB")] {
        let (device, folio) = (device(order, 2), bytes_of(order));
        let cases = [
            (8..folio, "start", 8),
            (folio / 2..2 * folio, "start", folio / 2),
            (0..folio - 1, "end", folio - 1),
            (folio..2 * folio - folio / 2, "end", 2 * folio - folio / 2),
        ];
        for (range, what, at) in cases {
            let refused = error(device.map(range, &for_stores()));
            let expected = DevDaxError::Misaligned { what, at, alignment: order };
            assert_eq!(refused.as_devdax_error(), Some(&expected));
            assert_eq!(refused.kind(), ErrorKind::Misaligned);
            assert!(refused.to_string().contains(name), "{refused}");
        }
        let refused = error(device.map(0..folio, &MapOptions::new().private()));
        let expected = DevDaxError::Private { alignment: order };
        assert_eq!(refused.as_devdax_error(), Some(&expected));
        assert!(refused.to_string().contains(name), "{refused}");

        let past_end = error(device.map(folio..3 * folio, &for_stores()));
        assert_eq!(past_end.kind(), ErrorKind::OutOfRange);
        assert_eq!(error(device.map(0..0, &for_stores())).kind(), ErrorKind::InvalidInput);
        if let Some(larger) = order.larger() {
            let refused = error(device.map(0..folio, &for_stores().floor(larger)));
            assert_eq!(refused.kind(), ErrorKind::TooFragmented, "{refused}");
        }
        assert_eq!(device.stats(), udax::Stats::default(), "nothing was faulted");
        assert_eq!(device.verify(), Ok(()));
    }
}

#[test]
fn a_device_is_a_whole_number_of_folios() {
    for (size, order) in [(4096 + 8, Order::Base), (3 * MIB, Order::Pmd), (GIB / 2, Order::Pud)] {
        let refused = error(udax::DevDax::create_in_memory("test", size, order));
        let expected = DevDaxError::Misaligned { what: "end", at: size, alignment: order };
        assert_eq!(refused.as_devdax_error(), Some(&expected));
    }
    assert!(udax::DevDax::create_in_memory("test", 0, Order::Pmd).is_err());
}

#[test]
fn a_mapping_that_is_asked_to_be_synchronous_needs_memory_that_is() {
    let device = device(Order::Base, 2);
    let refused = error(device.map(0..4096, &for_stores().sync()));
    assert_eq!(refused.kind(), ErrorKind::NotSynchronous);
    assert!(refused.to_string().contains("is gone with its last handle"), "{refused}");
}

/// B-13: faults of different pages of one folio, from several threads and mappings, lock one thing.
#[test]
fn threads_that_fault_all_over_the_same_folios_come_to_an_end() {
    each_way(Order::Pmd, 4, |device| {
        let maps = [0, 1].map(|first| map(device, first * 2 * MIB..8 * MIB));
        thread::scope(|scope| {
            for (thread, map) in [0_u64, 1, 2, 3].into_iter().zip(maps.iter().cycle()) {
                scope.spawn(move || {
                    for step in 0..64 {
                        let page = (step * 367 + thread * 97) % (map.len() / 4096);
                        map.store(page * 4096 + thread * 8, step + 1).unwrap();
                    }
                });
            }
        });
        assert_eq!(device.stats().faults(Order::Base), 0, "I-68, B-13");
        assert_eq!(device.verify(), Ok(()));
    });
}

/// I-68: a pin is of the folios around its range, however short it is.
#[test]
fn a_pin_holds_whole_folios_for_as_long_as_it_likes() {
    for order in Order::ALL {
        let (device, folio) = (device(order, 2), bytes_of(order));
        let options = PinOptions::new("nic").kind(PinKind::Write);
        let (start, end) = (folio / 2 + 8, folio + 16);
        let pin = device.pin(start..end, &options).unwrap();

        assert_eq!(pin.range(), start..end);
        let listed = device.pins();
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].range(), &*listed[0].owner().label), (0..2 * folio, "nic"));
        pin.write(b"from a device", folio - start - 4).unwrap();
        let mut bytes = [0; 13];
        device.read_at(&mut bytes, folio - 4).unwrap();
        assert_eq!(&bytes, b"from a device");
        let iovecs = pin.iovecs().unwrap();
        let len: usize = iovecs.iter().map(|iovec| iovec.len).sum();
        assert_eq!(u64::try_from(len).unwrap(), end - start);
        let (pgmap, page) = behind(&device, start);
        assert_eq!(pgmap.get_folio(page).map(|folio| folio.order()), Some(order), "I-68");
        assert_eq!(device.verify(), Ok(()));
        device.flush(start..end).unwrap();

        assert_eq!(error(device.pin(0..3 * folio, &options)).kind(), ErrorKind::OutOfRange);
        drop((pgmap, pin));
        assert!(device.pins().is_empty());
    }
}

#[test]
fn bytes_are_copied_at_any_place() {
    let device = device(Order::Pmd, 2);
    let map = map(&device, 0..4 * MIB);
    device.write_at(b"across folios", 2 * MIB - 6).unwrap();
    let mut bytes = [0; 13];
    map.read(&mut bytes, 2 * MIB - 6).unwrap();
    assert_eq!(&bytes, b"across folios");
    map.write(b"ACROSS", 2 * MIB - 6).unwrap();
    map.flush(2 * MIB - 6..2 * MIB).unwrap();
    device.zero(2 * MIB + 1..2 * MIB + 3).unwrap();
    device.read_at(&mut bytes, 2 * MIB - 6).unwrap();
    assert_eq!(&bytes, b"ACROSS \0\0lios");

    let outside = [
        device.read_at(&mut bytes, 4 * MIB - 12),
        device.write_at(&bytes, u64::MAX),
        device.zero(0..4 * MIB + 1),
        device.flush(4 * MIB..4 * MIB + 1),
    ];
    for refused in outside {
        assert_eq!(error(refused).kind(), ErrorKind::OutOfRange);
    }
}
