//! File media: what a program sees of a mapped file, and what happens when the host takes it away.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::panic::Location;
use std::path::PathBuf;
use std::thread;

use tempfile::TempDir;
use udax_mm::media::{Durability, FileMedia, Persistence};
use udax_mm::{Media, MediaError, PAGE_SIZE};

const PAGE: u64 = 4096;

/// A directory that is most likely on a disk, and a path in it.
fn place() -> (TempDir, PathBuf) {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("medium");
    (dir, path)
}

fn other_handle(path: &PathBuf) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn assert_fault<T: std::fmt::Debug>(result: &Result<T, MediaError>, byte: u64) {
    assert!(matches!(result, Err(MediaError::Fault { at }) if *at == byte), "{result:?}");
}

#[test]
fn a_store_is_in_the_file() {
    let (_dir, path) = place();
    let media = FileMedia::create(&path, 4 * PAGE, Durability::Process).unwrap();

    media.write(PAGE + 3, b"bytes").unwrap();
    media.store_u64(2 * PAGE, 0x0102_0304_0506_0708).unwrap();

    let mut bytes = [0; 5];
    other_handle(&path).read_exact_at(&mut bytes, PAGE + 3).unwrap();
    assert_eq!(&bytes, b"bytes");
    let mut word = [0; 8];
    other_handle(&path).read_exact_at(&mut word, 2 * PAGE).unwrap();
    assert_eq!(word, [8, 7, 6, 5, 4, 3, 2, 1]);
}

#[test]
fn a_medium_is_reopened_with_its_bytes() {
    let (_dir, path) = place();
    let media = FileMedia::create(&path, PAGE, Durability::Process).unwrap();
    media.write(9, b"kept").unwrap();
    drop(media);

    let media = FileMedia::open(&path, Durability::Process).unwrap();
    let mut bytes = [0; 4];
    media.read(9, &mut bytes).unwrap();
    assert_eq!((&bytes, media.len()), (b"kept", PAGE));
}

#[test]
fn create_refuses_a_file_that_exists_and_keeps_it() {
    let (_dir, path) = place();
    std::fs::write(&path, b"mine").unwrap();
    let created = FileMedia::create(&path, PAGE, Durability::Process);
    assert!(matches!(created, Err(MediaError::Create { .. })), "{created:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn create_leaves_no_file_when_it_fails() {
    for len in [0, 5000, u64::MAX - 4095] {
        let (_dir, path) = place();
        FileMedia::create(&path, len, Durability::Process).unwrap_err();
        assert!(!path.exists(), "{len} bytes");
    }
}

#[test]
fn a_file_of_partial_pages_is_no_medium() {
    let (_dir, path) = place();
    std::fs::write(&path, [1; 4097]).unwrap();
    let opened = FileMedia::open(&path, Durability::Process);
    assert!(matches!(opened, Err(MediaError::PartialPage { len: 4097, page: PAGE_SIZE })));

    std::fs::write(&path, []).unwrap();
    let opened = FileMedia::open(&path, Durability::Process);
    assert!(matches!(opened, Err(MediaError::Empty)));
}

#[test]
fn an_error_of_open_names_the_file() {
    let (_dir, path) = place();
    let error = FileMedia::open(&path, Durability::Process).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot open {}", path.display()));
}

#[test]
fn a_read_only_medium_refuses_stores() {
    let (_dir, path) = place();
    std::fs::write(&path, [7; PAGE_SIZE]).unwrap();
    let media = FileMedia::open_read_only(&path).unwrap();

    assert!(!media.facts().is_writable);
    assert_eq!(media.load_u64(8).unwrap(), 0x0707_0707_0707_0707);
    for refused in
        [media.write(0, b"x"), media.zero(0, 1), media.store_u64(0, 1), media.discard(0, PAGE)]
    {
        assert!(matches!(refused, Err(MediaError::ReadOnly)), "{refused:?}");
    }
}

#[test]
fn a_range_outside_the_medium_is_refused_before_a_byte_is_copied() {
    let media = FileMedia::memfd("outside", 2 * PAGE).unwrap();
    let len = 2 * PAGE;
    let mut bytes = [0xee; 2];
    for refused in [
        media.write(len - 1, b"xy"),
        media.read(len - 1, &mut bytes),
        media.zero(len - 1, 2),
        media.zero(1, u64::MAX),
        media.read(u64::MAX, &mut bytes),
        media.store_u64(len - 4, 1),
        media.flush(len, 1, Location::caller()),
        media.flush(u64::MAX, 2, Location::caller()),
        media.discard(PAGE, len),
    ] {
        assert!(matches!(refused, Err(MediaError::OutOfRange { .. })), "{refused:?}");
    }
    media.read(len - 1, &mut bytes[..1]).unwrap();
    assert_eq!(bytes, [0, 0xee]);
}

#[test]
fn an_unaligned_word_is_refused() {
    let media = FileMedia::memfd("unaligned", PAGE).unwrap();
    assert!(matches!(media.load_u64(4), Err(MediaError::Misaligned { at: 4 })));
    assert!(matches!(media.store_u64(9, 1), Err(MediaError::Misaligned { at: 9 })));
}

#[test]
fn copies_of_every_alignment_change_their_bytes_only() {
    let media = FileMedia::memfd("alignments", PAGE).unwrap();
    let bytes: Vec<u8> = (1..=255).chain(1..=255).collect();
    for start in 0..8_usize {
        for len in (0..40).chain([255, 256, 257, 400]) {
            let at = u64::try_from(start).unwrap();
            let mut page = vec![0; PAGE_SIZE];
            let mut expected = page.clone();
            expected[start..start + len].copy_from_slice(&bytes[..len]);

            media.zero(0, PAGE).unwrap();
            media.write(at, &bytes[..len]).unwrap();
            media.read(0, &mut page).unwrap();
            assert_eq!(page, expected, "{len} bytes to {start}");

            let mut copy = vec![0xee; len];
            media.read(at, &mut copy).unwrap();
            assert_eq!(copy, bytes[..len], "{len} bytes from {start}");

            expected.fill(0xff);
            media.write(0, &expected).unwrap();
            expected[start..start + len].fill(0);
            media.zero(at, u64::try_from(len).unwrap()).unwrap();
            media.read(0, &mut page).unwrap();
            assert_eq!(page, expected, "{len} zeros from {start}");
        }
    }
}

#[test]
fn a_copy_of_a_truncated_file_names_the_first_byte_that_is_gone() {
    let (_dir, path) = place();
    let media = FileMedia::create(&path, 64 * PAGE, Durability::Process).unwrap();
    media.write(0, &[5; 2 * PAGE_SIZE]).unwrap();
    other_handle(&path).set_len(2 * PAGE).unwrap();

    let mut bytes = vec![0; 4 * PAGE_SIZE];
    assert_fault(&media.read(PAGE - 3, &mut bytes), 2 * PAGE);
    assert!(bytes[..PAGE_SIZE + 3].iter().all(|&byte| byte == 5));
    assert_fault(&media.read(2 * PAGE + 7, &mut bytes[..3]), 2 * PAGE + 7);
    assert_fault(&media.read(2 * PAGE + 8, &mut bytes), 2 * PAGE + 8);
    assert_fault(&media.write(2 * PAGE - 50, &[1; 90]), 2 * PAGE);
    assert_fault(&media.write(2 * PAGE - 50, &[1; 9000]), 2 * PAGE);
    assert_fault(&media.zero(1, 63 * PAGE), 2 * PAGE);
    assert_fault(&media.zero(2 * PAGE + 1, 3), 2 * PAGE + 1);
    assert_fault(&media.load_u64(2 * PAGE), 2 * PAGE);
    assert_fault(&media.store_u64(3 * PAGE, 1), 3 * PAGE);

    media.read(PAGE, &mut bytes[..PAGE_SIZE]).unwrap();
}

#[test]
fn faults_in_many_threads_are_errors_in_each() {
    let (_dir, path) = place();
    let media = FileMedia::create(&path, 8 * PAGE, Durability::Process).unwrap();
    other_handle(&path).set_len(PAGE).unwrap();
    thread::scope(|scope| {
        for byte in [PAGE, 3 * PAGE, 5 * PAGE] {
            let media = &media;
            scope.spawn(move || {
                for _ in 0..500 {
                    assert_fault(&media.read(byte, &mut [0; 100]), byte);
                }
            });
        }
    });
}

#[test]
fn an_aligned_word_is_never_torn_by_a_copy() {
    let media = FileMedia::memfd("torn", PAGE).unwrap();
    let is_whole = |word: u64| word.to_le_bytes().windows(2).all(|pair| pair[0] == pair[1]);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..20_000_u32 {
                media.write(8, &[round.to_le_bytes()[0]; 600]).unwrap();
            }
        });
        while !writer.is_finished() {
            let mut bytes = [0; 8];
            media.read(16, &mut bytes).unwrap();
            assert!(is_whole(u64::from_le_bytes(bytes)), "{bytes:?}");
            assert!(is_whole(media.load_u64(512).unwrap()));
        }
    });
}

#[test]
fn a_memfd_is_volatile_registrable_and_sealed() {
    let media = FileMedia::memfd("facts", PAGE).unwrap();
    let facts = media.facts();
    assert_eq!(facts.persistence, Persistence::Volatile);
    assert!(facts.is_registrable);
    assert!(facts.is_writable);

    let (file, start) = media.backing().unwrap();
    let file = File::from(file.try_clone_to_owned().unwrap());
    assert_eq!(start, 0);
    file.set_len(0).unwrap_err();
}

#[test]
fn a_file_in_memory_cannot_promise_to_survive_power_loss() {
    let memory = FileMedia::memfd("memory", PAGE).unwrap();
    let file = memory.backing().unwrap().0.try_clone_to_owned().unwrap();
    let media = FileMedia::from_file(File::from(file), Durability::Power);
    assert!(matches!(media, Err(MediaError::InMemory)), "{media:?}");
}

#[test]
fn discard_gives_memory_back_and_touches_whole_pages_only() {
    let media = FileMedia::memfd("discard", 8 * PAGE).unwrap();
    media.write(0, &vec![1; 8 * PAGE_SIZE]).unwrap();
    let file = File::from(media.backing().unwrap().0.try_clone_to_owned().unwrap());
    let before = file.metadata().unwrap().blocks();

    media.discard(PAGE - 1, 4 * PAGE).unwrap();

    let pages_given_back = (before - file.metadata().unwrap().blocks()) * 512 / PAGE;
    assert_eq!(pages_given_back, 3);
    let mut bytes = vec![0; PAGE_SIZE];
    media.read(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 1));
    media.read(4 * PAGE, &mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 1));
}

/// Kilobytes of a mapped file that the kernel has still to write, from `/proc/self/smaps`.
fn dirty_kilobytes(path: &str) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let lines = maps.lines().skip_while(|line| !line.contains(path)).skip(1);
    let fields = lines.take_while(|line| !line.starts_with("VmFlags"));
    let dirty = fields.filter(|line| line.contains("_Dirty:"));
    dirty.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_fence_writes_what_was_flushed_when_power_loss_is_to_be_survived() {
    let (_dir, path) = place();
    let media = match FileMedia::create(&path, 16 * PAGE, Durability::Power) {
        Ok(media) if media.facts().persistence == Persistence::Msync => media,
        // The directory is in memory or on persistent memory: there is no msync to see.
        _ => return,
    };
    let path = path.to_str().unwrap();
    let here = Location::caller();
    media.write(0, &vec![1; 16 * PAGE_SIZE]).unwrap();
    media.flush(0, 16 * PAGE, here).unwrap();
    media.fence(here).unwrap();
    assert_eq!(dirty_kilobytes(path), 0);

    media.write(2 * PAGE + 5, b"x").unwrap();
    media.flush(2 * PAGE + 5, 1, here).unwrap();
    assert_ne!(dirty_kilobytes(path), 0, "a flush alone writes nothing");
    media.fence(here).unwrap();
    assert_eq!(dirty_kilobytes(path), 0);
}
