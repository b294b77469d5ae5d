//! What is stored past the mount, by mappings and devices of the pool: who reads over the mount sees
//! it within the time that the mount promises, though the kernel has pages of the file.
//! These tests need root and `/dev/fuse`; without them they say so and show nothing.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::served::{BYTES, Served};
use udax::{Access, File, MapOptions, OpenOptions, PinKind, PinOptions};

/// Much longer than the second for which the kernel may trust what it knows.
const PATIENCE: Duration = Duration::from_secs(20);

fn file(served: &Served) -> File {
    OpenOptions::new().read(true).write(true).open(&served.pool, "/file").unwrap()
}

/// Checks that what `store` leaves in the first bytes of the file is read over the mount.
fn check(served: &Served, mut store: impl FnMut(&[u8])) {
    assert!(fs::read(served.at("file")).unwrap() == BYTES, "the kernel has the pages");
    // No fault tells of the second store.
    for bytes in [b"first", b"again"] {
        store(bytes);
        let end = Instant::now() + PATIENCE;
        while !fs::read(served.at("file")).unwrap().starts_with(bytes) {
            assert!(Instant::now() < end, "the mount shows what was there before {bytes:?}");
            thread::yield_now();
        }
    }
}

#[test]
fn what_is_stored_through_a_mapping_of_the_pool_and_flushed_is_read_over_the_mount() {
    let Some(served) = Served::new() else { return };
    let map = file(&served).map(0..4096, &MapOptions::new().access(Access::Write)).unwrap();
    check(&served, |bytes| {
        map.write(bytes, 0).unwrap();
        map.flush(0..5).unwrap();
    });
    drop(map);
    served.finish();
}

#[test]
fn what_a_device_has_stored_is_read_over_the_mount_after_a_sync() {
    let Some(served) = Served::new() else { return };
    let file = file(&served);
    let pin = file.pin(0..4096, &PinOptions::new("device").kind(PinKind::Write)).unwrap();
    check(&served, |bytes| {
        pin.write(bytes, 0).unwrap();
        file.sync_all().unwrap();
    });
    drop((pin, file));
    served.finish();
}
