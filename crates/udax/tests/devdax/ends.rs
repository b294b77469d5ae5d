//! The end of a device, its lock, and its holder.

use std::thread;
use std::time::{Duration, Instant};

use crate::{MIB, device, each_way, error, for_stores, map, raw};
use udax::{DevDax, ErrorKind, OpenDevDax, Order, PinOptions, Pool, Wait};
use udax_mm::MemoryType;
use udax_mm::sync::{Arc, Mutex, mpsc};

/// Rows of the dead: a touch is SIGBUS, and every call says that the device is gone.
#[test]
fn after_the_end_a_touch_fails_and_every_call_says_why() {
    each_way(Order::Pmd, 2, |device| {
        let (whole, untouched) = (map(device, 0..4 * MIB), map(device, 0..2 * MIB));
        whole.store(0, 7).unwrap();
        whole.store(2 * MIB, 7).unwrap();

        device.kill(Wait::Never).unwrap();
        device.kill(Wait::Never).unwrap();

        for at in [0, 4096, 2 * MIB] {
            whole.load(at).unwrap_err();
        }
        untouched.store(0, 1).unwrap_err();
        let calls = [
            device.read_at(&mut [0], 0),
            device.write_at(&[0], 0),
            device.zero(0..1),
            device.flush(0..1),
            whole.flush(0..1),
            device.map(0..2 * MIB, &for_stores()).map(drop),
            device.pin(0..1, &PinOptions::new("late")).map(drop),
            device.bad_ranges().map(drop),
        ];
        for refused in calls {
            let refused = error(refused);
            assert_eq!(refused.kind(), ErrorKind::DeviceGone, "{refused}");
        }
        assert_eq!((device.size(), device.pins().len()), (4 * MIB, 0));
    });
}

#[test]
fn the_end_waits_for_pins_and_says_who_holds_them() {
    let device = device(Order::Pmd, 2);
    let map = map(&device, 0..2 * MIB);
    let pin = device.pin(2 * MIB..2 * MIB + 1, &PinOptions::new("nic")).unwrap();
    let soon = Wait::Until(Instant::now() + Duration::from_millis(20));

    for wait in [Wait::Never, soon] {
        let busy = error(device.kill(wait));
        assert_eq!(busy.kind(), ErrorKind::Pinned);
        assert!(busy.to_string().contains("nic"), "{busy}");
    }
    map.load(0).expect_err("access ended at once");
    assert!(pin.is_recalled(), "the holder was asked");
    assert_eq!(device.pins().len(), 1);
    pin.read(&mut [0], 0).expect("who pins keeps the pages");

    thread::scope(|scope| {
        let killed = scope.spawn(|| device.kill(Wait::Forever));
        drop(pin);
        killed.join().unwrap().unwrap();
    });
}

#[test]
fn a_holder_that_lets_go_when_it_is_asked_is_not_in_the_way() {
    let device = device(Order::Base, 4);
    let cached = Arc::new(Mutex::new(None));
    let (asked, was_asked) = mpsc::channel();
    let options = PinOptions::new("cache").on_recall({
        let cached = Arc::clone(&cached);
        move |recalled| {
            asked.send(recalled.range.clone()).unwrap();
            drop(cached.lock().take());
        }
    });
    *cached.lock() = Some(device.pin(4096..12_288, &options).unwrap());

    device.kill(Wait::Never).unwrap();

    assert_eq!(was_asked.recv().unwrap(), 4096..12_288);
    assert!(was_asked.try_recv().is_err(), "it was asked once");
}

#[test]
fn mappings_and_pins_keep_the_device_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("device");
    std::fs::File::create_new(&path).unwrap().set_len(4 * MIB).unwrap();
    let open = || DevDax::open(&path, &OpenDevDax::new());
    let device = open().unwrap();
    let map = map(&device, 0..2 * MIB);
    let pin = device.pin(0..8, &PinOptions::new("nic")).unwrap();
    drop(device);

    map.store(0, 7).unwrap();
    let in_use = error(open());
    assert_eq!(in_use.kind(), ErrorKind::InUse);
    assert!(in_use.to_string().contains(&std::process::id().to_string()), "{in_use}");
    assert_eq!(error(Pool::open(&path)).kind(), ErrorKind::InUse, "as a pool neither");
    drop(map);
    assert_eq!(error(open()).kind(), ErrorKind::InUse);
    drop(pin);
    let mut bytes = [0; 8];
    open().unwrap().read_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes[0], 7);
}

#[test]
fn a_device_has_one_user() {
    let below = raw(MemoryType::Generic(Order::Pmd), 1024);
    let device = DevDax::on_device("one", Arc::clone(&below)).unwrap();
    let held = error(DevDax::on_device("other", Arc::clone(&below)));
    assert_eq!(held.kind(), ErrorKind::InUse);
    drop(device);
    DevDax::on_device("other", below).unwrap();
}
