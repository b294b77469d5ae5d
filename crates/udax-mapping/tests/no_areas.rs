//! A process that has as many areas of addresses as the host grants (`vm.max_map_count`). Taking a page
//! out of the middle of one takes two more, and yet a zap cannot be refused: whoever frees the pages
//! behind it relies on it. What cannot be shown meanwhile is SIGBUS. In a test program of its own,
//! because areas are those of the whole process.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{PAGE, TestFile, both, mode, range};
use memmap2::{Mmap, MmapMut};
use std::process::Command;
use udax_mapping::{MapMode, Sharing, UserMapping};
use udax_mm::{Access, FileIndex, Pages, VmaOff, Wait};

/// Fewer than a folio of 2 MiB has, so that each is taken back on its own; more than there are areas
/// in reserve.
const PAGES: u64 = 110;

/// What the last of the private stores leaves.
const STORED: u8 = 99;

/// Areas, no two neighbours of one kind.
#[derive(Default)]
struct Areas(Vec<MmapMut>, Vec<Mmap>);

/// Takes areas until the host refuses.
fn take_all_areas() -> Areas {
    let mut areas = Areas::default();
    while let Ok(one) = MmapMut::map_anon(4096) {
        areas.0.push(one);
        let Ok(other) = MmapMut::map_anon(4096).and_then(MmapMut::make_read_only) else { break };
        areas.1.push(other);
        assert!(areas.1.len() < 1 << 20, "they are joined, or there is no limit");
    }
    areas
}

fn map(file: &TestFile, mode: MapMode) -> UserMapping {
    file.mapping.map(FileIndex(0), Pages(PAGES), mode).unwrap()
}

/// Checks that each page shows what `of` says, if it shows anything. Returns how many do.
fn shown(mapped: &UserMapping, of: impl Fn(u64) -> u8) -> usize {
    let loads = (0..PAGES).map(|page| (page, mapped.vma().load_u64(page * PAGE)));
    let loaded = loads.filter_map(|(page, load)| Some((page, load.ok()?.to_le_bytes()[0])));
    loaded.inspect(|&(page, loaded)| assert_eq!(loaded, of(page), "page {page}")).count()
}

/// The environment variable of the program that is run with room in its heap: an allocation that the
/// host refuses would end it.
const PROGRAM: &str = "UDAX_TEST_NO_AREAS";

#[test]
fn pages_are_taken_back_though_the_host_grants_no_area() {
    if std::env::var_os(PROGRAM).is_some() {
        return take_back();
    }
    let mut program = Command::new(std::env::current_exe().unwrap());
    let name = "pages_are_taken_back_though_the_host_grants_no_area";
    program.args(["--exact", name, "--nocapture"]).env(PROGRAM, "1");
    program.env("MALLOC_ARENA_MAX", "1").env("MALLOC_TOP_PAD_", "67108864");
    program.env("MALLOC_TRIM_THRESHOLD_", "1073741824").env("MALLOC_MMAP_THRESHOLD_", "33554432");
    let output = program.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("panicked"), "{output:?}");
}

fn take_back() {
    let pages: Vec<Option<u64>> = (0..PAGES).map(Some).collect();
    both(PAGES, &pages, |file, populate| {
        let of_file = |page: u64| u8::try_from(page % 50 + 1).unwrap();
        (0..PAGES).for_each(|page| file.fill_block(page, of_file(page)));
        let shared = map(file, mode(Access::Read, populate));
        let private = mode(Access::Write, populate);
        let private = map(file, MapMode { sharing: Sharing::Private, ..private });
        for mapped in [&shared, &private] {
            assert_eq!(shown(mapped, of_file), usize::try_from(PAGES).unwrap());
        }
        let is_stored = |page: u64| page % 64 == 7;
        let stored = (0..PAGES).filter(|&page| is_stored(page));
        stored.clone().for_each(|page| private.vma().write(page * PAGE, &[STORED]).unwrap());

        let areas = take_all_areas();
        let punched = (1..PAGES).step_by(2);
        for page in punched.clone() {
            file.punch(range(page, page + 1), Wait::Never).unwrap();
        }
        let of_shared = |page: u64| if page % 2 == 1 { 0 } else { of_file(page) };
        let of_private = |page| if is_stored(page) { STORED } else { of_shared(page) };
        assert_eq!(file.free_blocks(), punched.count(), "I-50");
        // Few: the host may grant a stack to one more thread that serves faults, and then not what the
        // standard library wants beside it, which ends the process.
        let touched = [0, 7].map(|page| shared.vma().load_u64(page * PAGE));
        let kept = private.vma().load_u64(7 * PAGE);
        drop(areas);
        for (page, load) in [0, 7].into_iter().zip(touched) {
            let is_right = |word: u64| word.to_le_bytes()[0] == of_shared(page);
            assert!(load.map_or(true, is_right), "page {page}");
        }
        assert!(kept.is_ok_and(|word| word.to_le_bytes()[0] == STORED) || !private.vma().is_lazy());

        for mapped in [&shared, &private] {
            mapped.retry(VmaOff(0)..VmaOff(PAGES));
        }
        let all = usize::try_from(PAGES).unwrap();
        let lost = if private.vma().is_lazy() { 0 } else { stored.count() };
        assert_eq!(shown(&shared, of_shared), all, "all comes again");
        assert!(shown(&private, of_private) >= all - lost, "all comes again");
        file.verify();
    });
}
