//! What is no pool, or not one for this version, is refused by name and left alone.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{KIB, MIB, Pool, create, same_bytes};
use udax_fs::{Filesystem, FormatOptions, FsError, MountMode};
use udax_mm::{Media, Pages};

fn refusal(pool: &Pool, pages: Pages) -> FsError {
    let before = pool.copy();
    let check = Filesystem::check(pool.device_of(pages)).unwrap_err();
    let mount = Filesystem::mount(pool.device_of(pages), MountMode::ReadWrite, None).unwrap_err();
    assert_eq!(check.to_string(), mount.to_string());
    assert!(same_bytes(&before, pool));
    mount
}

#[test]
fn zeros_and_foreign_bytes_are_no_pool() {
    let pool = Pool::raw(4 * MIB);
    assert!(matches!(refusal(&pool, Pages(1024)), FsError::NotAPool));
    pool.media.write(0, &common::pattern(1, 4 * MIB)).unwrap();
    let refused = refusal(&pool, Pages(1024));
    assert!(refused.to_string().contains("udax create"), "{refused}");
}

#[test]
fn a_truncated_pool_says_how_large_it_was() {
    let pool = Pool::new(4 * MIB);
    for left in [1023, 600, 2] {
        match refusal(&pool, Pages(left)) {
            FsError::Truncated { expected, found } => {
                assert_eq!((expected, found), (Pages(1024), Pages(left)));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_pool_smaller_than_2_mib_is_not_made() {
    let pool = Pool::raw(MIB);
    let refused = Filesystem::format(pool.device(), &FormatOptions::default());
    assert!(matches!(refused, Err(FsError::TooSmall { min: Pages(512), found: Pages(256) })));
    assert!(same_bytes(&Pool::raw(MIB), &pool));
    Pool::new(2 * MIB).check();
}

#[test]
fn a_device_that_is_mounted_is_not_formatted() {
    let pool = Pool::new(4 * MIB);
    let device = pool.device();
    let (fs, _) = Filesystem::mount(device.clone(), MountMode::ReadWrite, None).unwrap();
    create(&fs, "kept");
    let before = pool.copy();
    let refused = Filesystem::format(device.clone(), &FormatOptions::default());
    assert!(matches!(refused, Err(FsError::Holder(_))));
    assert!(same_bytes(&before, &pool));
    fs.unmount().unwrap();
    Filesystem::format(device, &FormatOptions::default()).unwrap();
}

#[test]
fn a_device_is_mounted_once() {
    let pool = Pool::new(4 * MIB);
    let device = pool.device();
    let mount = || Filesystem::mount(device.clone(), MountMode::ReadWrite, None);
    let (fs, _) = mount().unwrap();
    assert!(matches!(mount(), Err(FsError::Holder(_))));
    fs.unmount().unwrap();
    let (second, _) = mount().unwrap();
    drop(second);
    mount().unwrap();
}

#[test]
fn a_name_and_an_identity_are_kept() {
    let pool = Pool::raw(4 * MIB);
    let options = FormatOptions { label: "models".to_owned(), uuid: Some([7; 16]) };
    Filesystem::format(pool.device(), &options).unwrap();
    let fs = pool.mount();
    assert_eq!((fs.label(), fs.uuid()), ("models".to_owned(), [7; 16]));
}

#[test]
fn a_file_larger_than_the_format_allows_is_refused() {
    let pool = Pool::new(4 * MIB);
    let fs = pool.mount();
    let file = create(&fs, "a");
    let policy = udax_fs::FreePolicy::Defer;
    assert!(matches!(file.truncate(u64::MAX, policy), Err(FsError::TooLarge { .. })));
    assert!(matches!(file.write_at(b"x", u64::MAX - 5), Err(FsError::TooLarge { .. })));
    assert!(matches!(file.allocate(0..u64::MAX), Err(FsError::TooLarge { .. })));
    assert!(matches!(file.allocate(0..64 * KIB * KIB), Err(FsError::NoSpace { .. })));
    assert_eq!(file.attr().size, 0);
    file.truncate(1 << 48, policy).unwrap();
    file.punch(0..u64::MAX, policy).unwrap();
    fs.verify().unwrap();
}
