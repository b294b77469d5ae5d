//! Byte access: across devices, within the device, and with the right source lines.

mod common;

use common::{Seen, Witness, device};
use std::panic::Location;
use udax_dev::{AccessError, DaxBytes, IoError, Mapped};
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, Pages, Wait};

const PAGE: u64 = 4096;

/// Three devices of one, two and one pages.
fn joined() -> DaxBytes {
    let devices = vec![device(1), device(2), device(1)];
    DaxBytes::new(Arc::new(Mapped::concat(devices).expect("the devices join")))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

#[test]
fn bytes_are_read_back_from_where_they_were_written() {
    let cases = [(0, 4096), (4095, 2), (1, 4 * 4096 - 1), (4096, 8192), (100, 0), (16384, 0)];
    for (at, len) in cases {
        let bytes = joined();
        let written = pattern(len);

        bytes.write(at, &written).unwrap();

        let mut read = vec![0; len];
        bytes.read(at, &mut read).unwrap();
        assert!(read == written, "{at}+{len}");
    }
}

#[test]
fn a_write_stays_between_its_ends() {
    let bytes = joined();
    bytes.write(4090, &pattern(4100)).unwrap();

    let mut all = vec![0; 4 * 4096];
    bytes.read(0, &mut all).unwrap();

    assert!(all[..4090].iter().chain(&all[8190..]).all(|&byte| byte == 0));
    assert!(all[4090..8190] == pattern(4100));
}

#[test]
fn zeros_reach_every_device_of_the_range() {
    let bytes = joined();
    bytes.write(0, &vec![7; 4 * 4096]).unwrap();

    bytes.zero(4000, 8400).unwrap();

    let mut all = vec![0; 4 * 4096];
    bytes.read(0, &mut all).unwrap();
    assert!(all[4000..12400].iter().all(|&byte| byte == 0));
    assert!(all[..4000].iter().chain(&all[12400..]).all(|&byte| byte == 7));
}

#[test]
fn an_access_that_leaves_the_device_changes_nothing() {
    let bytes = joined();
    let outside = AccessError::OutOfRange { at: DeviceOff(4), size: Pages(4) };

    let error = bytes.write(4 * PAGE - 3, b"four").unwrap_err();

    assert!(matches!(error, IoError::Access(access) if access == outside));
    let mut last = [9; 3];
    bytes.read(4 * PAGE - 3, &mut last).unwrap();
    assert_eq!(last, [0; 3]);
    assert!(bytes.read(u64::MAX, &mut last).is_err());
    assert!(bytes.load_u64(4 * PAGE).is_err());
    assert!(bytes.flush(4 * PAGE, 1).is_err());
}

#[test]
fn a_word_is_stored_little_endian_on_its_device() {
    let bytes = joined();
    bytes.store_u64(3 * PAGE + 8, 0x0102_0304).unwrap();

    let mut read = [0; 8];
    bytes.read(3 * PAGE + 8, &mut read).unwrap();

    assert_eq!(read, 0x0102_0304_u64.to_le_bytes());
    assert_eq!(bytes.load_u64(3 * PAGE + 8).unwrap(), 0x0102_0304);
}

#[test]
fn a_flush_covers_its_bytes_on_each_device_with_the_callers_line() {
    let (a, b) = (Witness::new(1), Witness::new(2));
    let bytes = DaxBytes::new(Arc::new(Mapped::concat(vec![a.device(), b.device()]).unwrap()));

    let (line, flushed) = (Location::caller().line(), bytes.flush(4000, 200));

    flushed.unwrap();
    let (seen_a, seen_b) = (a.take(), b.take());
    assert!(matches!(seen_a[..], [Seen::Flush(4000, 96, site)] if site.line() == line));
    assert!(matches!(seen_b[..], [Seen::Flush(0, 104, site)] if site.line() == line));
}

#[test]
fn a_helper_that_is_tracked_hands_its_callers_line_down() {
    #[track_caller]
    fn flush_and_fence(bytes: &DaxBytes) {
        bytes.flush(0, 8).unwrap();
        bytes.fence().unwrap();
    }
    let witness = Witness::new(1);
    let bytes = DaxBytes::new(witness.device());
    bytes.write(0, &[1; 8]).unwrap();

    let line = line!() + 1;
    flush_and_fence(&bytes);

    let seen = witness.take();
    assert!(
        matches!(seen[..], [Seen::Flush(0, 8, flush), Seen::Fence(fence)]
            if flush.line() == line && fence.line() == line),
        "{seen:?}"
    );
}

#[test]
fn a_removed_device_refuses_bytes_and_fences() {
    let bytes = joined();
    bytes.device().kill(Wait::Never).unwrap();

    assert!(matches!(bytes.load_u64(0), Err(IoError::Access(AccessError::Dead))));
    assert!(matches!(bytes.fence(), Err(IoError::Access(AccessError::Dead))));
}
