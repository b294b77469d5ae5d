//! Every way to copy, over bytes that are there and bytes that fail.

use super::{MediaError, Window};
use crate::PAGE_SIZE;
use crate::copies::Copies;
use crate::reserve::{Reservation, Sharing};
use crate::vma::Access;
use std::fs::File;
use std::os::fd::AsFd;

/// Two pages of memory and one that fails, behind a window for each way to copy.
fn check_each(check: impl Fn(&Window)) {
    let file =
        File::from(rustix::fs::memfd_create("copies", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.set_len(u64::try_from(2 * PAGE_SIZE).unwrap()).unwrap();
    let memory = Reservation::new(3 * PAGE_SIZE).unwrap();
    memory.map_file(0..3 * PAGE_SIZE, file.as_fd(), 0, Access::Write, Sharing::Shared).unwrap();
    let found = Copies::of_this_processor();
    for copies in [Copies::by_words(usize::MAX), found, Copies::by_words(0)] {
        let window = memory.window().copied(copies);
        window.zero(0, bytes(2 * PAGE_SIZE)).unwrap();
        check(&window);
    }
}

fn bytes(len: usize) -> u64 {
    u64::try_from(len).unwrap()
}

/// Bytes no two neighbours of which, and no two words, are alike.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251).to_le_bytes()[0] ^ (n / 251).to_le_bytes()[0]).collect()
}

/// Starts and lengths around the boundaries of words, vectors and pages.
fn cases() -> impl Iterator<Item = (usize, usize, usize)> {
    let lens = [0, 7, 8, 63, 64, 72, 120, 128, 160, 255, 256, 257, 384, 392, 1000, 3000];
    // The last two are where a copy past the caches begins between two of its vectors.
    let buffers = (0..32).step_by(5).chain([8, 24]);
    (0..32).step_by(3).flat_map(move |at| {
        buffers.clone().flat_map(move |buffer| lens.map(|len| (at, buffer, len)))
    })
}

#[test]
fn each_way_copies_in_exactly_the_bytes_it_was_given() {
    check_each(|window| {
        for (at, buffer, len) in cases() {
            let from = pattern(buffer + len);
            let mut expected = vec![0xee; PAGE_SIZE];
            window.write(0, &expected).unwrap();
            expected[at..at + len].copy_from_slice(&from[buffer..]);

            window.write(bytes(at), &from[buffer..]).unwrap();

            let mut found = vec![0; PAGE_SIZE];
            window.read(0, &mut found).unwrap();
            assert!(found == expected, "{len} bytes from {buffer} to {at}, {window:?}");
        }
    });
}

#[test]
fn each_way_copies_out_exactly_the_bytes_it_was_asked_for() {
    check_each(|window| {
        let from = pattern(PAGE_SIZE);
        window.write(0, &from).unwrap();
        for (at, buffer, len) in cases() {
            let mut expected = vec![0xee; PAGE_SIZE];
            let mut found = expected.clone();
            expected[buffer..buffer + len].copy_from_slice(&from[at..at + len]);

            window.read(bytes(at), &mut found[buffer..buffer + len]).unwrap();

            assert!(found == expected, "{len} bytes from {at} to {buffer}, {window:?}");
        }
    });
}

/// Starts before the page that fails, by words of every place in a vector.
fn starts() -> impl Iterator<Item = (usize, usize)> {
    let before = (1..40).chain([64, 100, 128, 136, 250, 256, 300, 512, 520, 1000]);
    before.flat_map(|before| [0, 8, 24, 5].map(|buffer| (before, buffer)))
}

#[test]
fn each_way_out_names_the_first_byte_that_fails_and_has_copied_those_before_it() {
    check_each(|window| {
        let from = pattern(2 * PAGE_SIZE);
        window.write(0, &from).unwrap();
        for (before, buffer) in starts() {
            let at = 2 * PAGE_SIZE - before;
            let mut found = vec![0xee; buffer + 2000];

            let fault = window.read(bytes(at), &mut found[buffer..]);

            assert!(matches!(fault, Err(MediaError::Fault { at: 8192 })), "{fault:?} {window:?}");
            assert!(found[buffer..buffer + before] == from[at..], "{before} to {buffer}");
            assert!(found[buffer + before..].iter().all(|&byte| byte == 0xee), "{before}");
        }
    });
}

#[test]
fn each_way_in_names_the_first_byte_that_fails_and_has_copied_those_before_it() {
    check_each(|window| {
        let from = pattern(2100);
        for (before, buffer) in starts() {
            let at = 2 * PAGE_SIZE - before;
            window.zero(0, bytes(2 * PAGE_SIZE)).unwrap();

            let fault = window.write(bytes(at), &from[buffer..buffer + 2000]);

            assert!(matches!(fault, Err(MediaError::Fault { at: 8192 })), "{fault:?} {window:?}");
            let mut found = vec![0; before];
            window.read(bytes(at), &mut found).unwrap();
            assert!(found == from[buffer..buffer + before], "{before} from {buffer}");
        }
    });
}

#[test]
fn each_way_zeroes_exactly_the_bytes_it_was_given() {
    check_each(|window| {
        for (at, _, len) in cases().filter(|&(_, buffer, _)| buffer == 0) {
            let mut expected = vec![0xee; PAGE_SIZE];
            window.write(0, &expected).unwrap();
            expected[at..at + len].fill(0);

            window.zero(bytes(at), bytes(len)).unwrap();

            let mut found = vec![0; PAGE_SIZE];
            window.read(0, &mut found).unwrap();
            assert!(found == expected, "{len} zeros to {at}, {window:?}");
        }
    });
}

#[test]
fn zeros_name_the_first_byte_that_fails_and_are_stored_before_it() {
    check_each(|window| {
        for (before, _) in starts().filter(|&(_, buffer)| buffer == 0) {
            let at = 2 * PAGE_SIZE - before;
            window.write(0, &vec![0xee; 2 * PAGE_SIZE]).unwrap();

            let fault = window.zero(bytes(at), 2000);

            assert!(matches!(fault, Err(MediaError::Fault { at: 8192 })), "{fault:?} {window:?}");
            let mut found = vec![0xee; before];
            window.read(bytes(at), &mut found).unwrap();
            assert!(found.iter().all(|&byte| byte == 0), "{before} zeros");
        }
    });
}

#[test]
fn every_write_back_instruction_of_this_processor_takes_a_range_and_faults_as_a_copy_does() {
    let reservation = Reservation::new(2 * PAGE_SIZE).unwrap();
    reservation.map_zeros(0..PAGE_SIZE).unwrap();
    let window: &Window = reservation.window();
    for how in crate::persist::write_back_instructions() {
        window.write_back(5, 4000, how).unwrap();
        window.write_back(0, 0, how).unwrap();
        let fault = window.write_back(4000, 200, how);
        assert!(matches!(fault, Err(MediaError::Fault { at: 4096 })), "{how:?}: {fault:?}");
    }
}
