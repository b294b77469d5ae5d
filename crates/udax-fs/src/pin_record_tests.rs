//! What a record of a pin says, and what a torn one does not.

use super::*;
use udax_mm::{PinOwner, PinTerm};

fn geometry() -> Geometry {
    Geometry::of(Pages(1024))
}

fn extent() -> Extent {
    Extent { start: DeviceOff(100), pages: Pages(3) }
}

fn holder(process: u32, label: &str) -> PinHolder {
    PinHolder::of(&PinInfo {
        owner: PinOwner { process, connection: 0, label: label.into() },
        since: std::time::Instant::now(),
        kind: PinKind::Write,
        term: PinTerm::Long,
    })
}

fn record() -> PinRecord {
    PinRecord::of(PinState::Held, &holder(7, "nic ring"), extent())
}

#[test]
fn a_record_is_read_as_it_was_written() {
    for (state, label) in [(PinState::Held, "nic ring"), (PinState::Quarantined, "")] {
        let holder = holder(std::process::id(), label);
        let record = PinRecord::of(state, &holder, extent());
        let pin = PinEntry { state, holder, extent: extent() };
        assert_eq!(record.examine(&geometry()), Found::Pin(pin));
    }
}

/// Of a crash while it is written a record has the old bytes in some places and the new in others.
#[test]
fn a_record_of_two_is_torn() {
    let (old, new) = (record(), PinRecord::of(PinState::Held, &holder(8, "gpu"), extent()));
    let (old, new) = (old.as_bytes(), new.as_bytes());
    for line in [0..64, 64..128] {
        for cut in line.clone().step_by(8) {
            let mut bytes: [u8; 128] = old.try_into().unwrap();
            bytes[line.start..cut].copy_from_slice(&new[line.start..cut]);
            if bytes == *old {
                continue;
            }
            let mixed: PinRecord = zerocopy::transmute!(bytes);
            assert_eq!(mixed.examine(&geometry()), Found::Torn, "cut at {cut}");
        }
    }
}

#[test]
fn any_flipped_bit_makes_a_record_torn() {
    for bit in 0..1024 {
        let mut record = record();
        record.as_mut_bytes()[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(record.examine(&geometry()), Found::Torn, "bit {bit}");
    }
}

#[test]
fn zeros_in_place_of_the_first_word_free_a_record() {
    let mut record = record();
    record.as_mut_bytes()[..8].fill(0);
    assert_eq!(record.examine(&geometry()), Found::Free);
}

#[test]
fn pages_that_are_no_data_are_not_believed() {
    let geometry = geometry();
    let pages = [(1, 1), (100, 0), (1020, 10), (u64::MAX, 2)];
    for (start, pages) in pages {
        let extent = Extent { start: DeviceOff(start), pages: Pages(pages) };
        let record = PinRecord::of(PinState::Held, &holder(7, "x"), extent);
        assert_eq!(record.examine(&geometry), Found::Torn, "{start} {pages}");
    }
}

#[test]
fn a_label_is_cut_between_characters() {
    assert_eq!(holder(7, &"é".repeat(40)).label, "é".repeat(32));
    assert_eq!(holder(7, &"€".repeat(40)).label, "€".repeat(21));
}

#[test]
fn a_process_is_told_from_a_later_one_of_its_number() {
    let own = holder(std::process::id(), "me");
    assert!(own.is_alive());
    assert!(!PinHolder { process_start: own.process_start + 1, ..own.clone() }.is_alive());
    assert!(!PinHolder { boot: [3; 16], ..own.clone() }.is_alive());
    assert!(PinHolder { process_start: 0, ..own }.is_alive());
}

#[test]
fn a_process_that_waits_to_be_reaped_is_dead() {
    let mut child = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let holder = holder(child.id(), "child");
    assert!(holder.is_alive());
    child.kill().unwrap();
    // Until it is reaped its number stays.
    while holder.is_alive() {
        std::thread::yield_now();
    }
    child.wait().unwrap();
    assert!(!holder.is_alive());
}

#[test]
fn the_name_of_a_process_may_hold_anything() {
    let after: Vec<String> = (4..=24).map(|field| field.to_string()).collect();
    let stat = format!("17 (a) b (c)) S {}", after.join(" "));
    assert_eq!(parse_stat(&stat), Some(('S', 22)));
    assert_eq!(parse_stat("17 (cut"), None);
}
