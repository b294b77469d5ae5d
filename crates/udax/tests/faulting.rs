//! Whether mappings are filled at the first touch, and what a user is told if they are not.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use common::{Helper, child_pool, in_memory, on_file, say, skipped, wait_for_parent};
use udax::{DevDax, MapOptions, Mapping, OpenDevDax, OpenPool, Order, Pool, Populate, WhyEager};

const PAGE: u64 = 4096;

/// Maps a file of two pages, of which the mapping then shows the bytes.
fn map(pool: &Pool, populate: Populate) -> Mapping {
    pool.write("/file", [7; 8192]).unwrap();
    let file = pool.open_file("/file").unwrap();
    let map = file.map(0..2 * PAGE, &MapOptions::new().populate(populate)).unwrap();
    let mut bytes = [0; 8192];
    map.read(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [7; 8192]);
    map
}

fn code(map: &Mapping) -> Option<&'static str> {
    map.why_eager().map(|why| why.code())
}

#[test]
fn a_lazy_mapping_has_no_reason_and_one_that_was_asked_to_be_eager_has() {
    let pool = in_memory();
    if let Some(why) = pool.why_eager() {
        return skipped(why);
    }
    for (populate, code, untouched) in
        [(Populate::Lazy, None, 0), (Populate::Eager, Some("asked"), 2)]
    {
        let path = format!("/{populate:?}");
        pool.write(&path, [7; 8192]).unwrap();
        let file = pool.open_file(&path).unwrap();
        let map = file.map(0..2 * PAGE, &MapOptions::new().populate(populate)).unwrap();
        assert_eq!((map.faulting(), self::code(&map)), (populate, code));
        assert_eq!(map.stats().faults(Order::Base), untouched, "nobody has touched it");
    }
}

#[test]
fn a_pool_that_is_opened_with_eager_mappings_has_no_lazy_ones_and_says_so() {
    let (_dir, path, pool) = on_file();
    pool.close().unwrap();
    let pool = Pool::open_with(&path, &OpenPool::new().eager_mappings(true)).unwrap();
    assert!(matches!(pool.why_eager(), Some(WhyEager::OpenedSo)));

    let lazy = map(&pool, Populate::Lazy);
    assert_eq!((lazy.faulting(), code(&lazy)), (Populate::Eager, Some("opened")));
    assert!(lazy.why_eager().unwrap().to_string().contains("opened with eager mappings"));
    let eager = map(&pool, Populate::Eager);
    assert_eq!((eager.faulting(), code(&eager)), (Populate::Eager, Some("asked")));
}

#[test]
fn a_device_that_is_opened_with_eager_mappings_has_no_lazy_ones_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("device");
    std::fs::File::create_new(&path).unwrap().set_len(4 * PAGE).unwrap();
    let options = OpenDevDax::new().alignment(Order::Base).eager_mappings(true);
    let device = DevDax::open(&path, &options).unwrap();
    assert!(matches!(device.why_eager(), Some(WhyEager::OpenedSo)));

    let map = device.map(0..4 * PAGE, &MapOptions::new()).unwrap();

    assert_eq!((map.faulting(), code(&map)), (Populate::Eager, Some("opened")));
    assert_eq!(map.stats().faults(Order::Base), 4, "nobody has touched it");
}

#[test]
fn a_process_that_gets_no_userfaultfd_maps_eagerly_and_is_told_what_would_help() {
    let name = "child_without_rights";
    let mut child = match Helper::start_without_rights(name, "in memory".as_ref()) {
        Ok(child) => child,
        Err(error) => return skipped(format_args!("nobody else may run this test: {error}")),
    };
    let told = child.wait_for("faulting");
    child.kill();
    if told == "Lazy" {
        return skipped("this host permits userfaultfd to everybody");
    }
    let (how, why) = told.split_once(' ').unwrap();
    assert_eq!(how, "Eager");
    assert!(why.starts_with("userfaultfd: no userfaultfd for lazy mappings: "), "{why}");
    for cure in ["CAP_SYS_PTRACE", "vm.unprivileged_userfaultfd", "/dev/userfaultfd"] {
        assert!(why.contains(cure), "{cure}: {why}");
    }
}

#[test]
fn child_without_rights() {
    if child_pool().is_none() {
        return;
    }
    let pool = in_memory();
    let map = map(&pool, Populate::Lazy);
    match map.why_eager() {
        None => say("faulting", "Lazy"),
        Some(why) => say("faulting", format_args!("{:?} {}: {why}", map.faulting(), why.code())),
    }
    wait_for_parent();
}
