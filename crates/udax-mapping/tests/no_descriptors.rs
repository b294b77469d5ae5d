//! A process that has no descriptor left, or no `/proc`: whatever a private mapping needs to know of
//! its pages it has opened when it was made, because a punch cannot be refused for that. In a test
//! program of its own, because descriptors are those of the whole process.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{PAGE, both, mode, range};
use std::error::Error;
use std::fs::File;
use udax_mapping::{FaultError, MapMode, Sharing};
use udax_mm::{Access, FileIndex, Pages, Wait};

const PAGES: u64 = 8;

/// Opens files until the host refuses.
fn take_all_descriptors() -> Vec<File> {
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    files
}

/// The first thing that the program does with private mappings: nothing has been opened for them.
#[test]
fn a_private_mapping_is_refused_at_once_or_can_always_be_punched() {
    let mut limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limits.current = Some(100);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limits).unwrap();
    let pages: Vec<Option<u64>> = (0..PAGES).map(Some).collect();
    let is_first = std::cell::Cell::new(true);

    both(16, &pages, |file, populate| {
        (0..PAGES).for_each(|page| file.fill_block(page, u8::try_from(page + 1).unwrap()));
        let private = MapMode { sharing: Sharing::Private, ..mode(Access::Write, populate) };
        let map = || file.mapping.map(FileIndex(0), Pages(PAGES), private);
        if is_first.replace(false) {
            let none_left = take_all_descriptors();
            let refused = map().unwrap_err();
            drop(none_left);
            let why = refused.source().expect("the host said why").to_string();
            assert!(matches!(refused, FaultError::Io(_)), "{refused:?}");
            assert!(why.contains("/proc/self/pagemap") && why.contains("limit"), "{why}");
        }
        let mapped = map().unwrap();
        let load = |page: u64| mapped.vma().load_u64(page * PAGE).unwrap().to_le_bytes()[0];
        assert_eq!(load(1), 2);
        mapped.vma().store_u64(3 * PAGE, 99).unwrap();

        let none_left = take_all_descriptors();
        file.punch(range(2, 5), Wait::Never).unwrap();
        let seen = [1, 2, 3, 4, 5].map(load);
        file.truncate(1, Wait::Never).unwrap();
        let past_end = mapped.vma().load_u64(6 * PAGE);
        drop(none_left);

        assert_eq!(seen, [2, 0, 99, 0, 6]);
        assert!(past_end.is_err(), "there is SIGBUS without a descriptor");
    });
}
