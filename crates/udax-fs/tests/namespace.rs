//! Names: what each change of the namespace does, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::ffi::OsStr;

use common::{MIB, Pool, contents, create, lookup, mkdir, name, names, pattern, unlink};
use udax_fs::{Filesystem, FsError, Inode, Kind, Name, RenameMode};
use udax_mm::sync::Arc;

/// A small tree: `d/` with `d/sub/`, `a` holding "a", `b` holding "b".
fn sample() -> (Pool, Arc<Filesystem>) {
    let pool = Pool::new(4 * MIB);
    let fs = pool.mount();
    let root = fs.root().unwrap();
    let d = mkdir(&fs, &root, "d");
    mkdir(&fs, &d, "sub");
    create(&fs, "a").write_at(b"a", 0).unwrap();
    create(&fs, "b").write_at(b"b", 0).unwrap();
    (pool, fs)
}

fn rename(fs: &Filesystem, from: &str, to: &str, mode: RenameMode) -> Result<(), FsError> {
    let (from_dir, from) = resolve_parent(fs, from);
    let (to_dir, to) = resolve_parent(fs, to);
    fs.rename(&from_dir, &from, &to_dir, &to, mode)
}

fn resolve_parent(fs: &Filesystem, path: &str) -> (Arc<Inode>, Name) {
    let mut parts: Vec<&str> = path.split('/').collect();
    let last = parts.pop().unwrap();
    let mut dir = fs.root().unwrap();
    for part in parts {
        dir = fs.lookup(&dir, &name(part)).unwrap();
    }
    (dir, name(last))
}

/// The namespace is sound, in memory and on the medium, and still so after a remount.
fn sound(pool: &Pool, fs: &Arc<Filesystem>) {
    fs.verify().unwrap();
    fs.unmount().unwrap();
    pool.check();
    pool.mount().verify().unwrap();
}

#[test]
fn a_directory_lists_what_was_created_in_it() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let root = fs.root().unwrap();
    let long = "n".repeat(250);
    let expected: Vec<String> = (0..300)
        .map(|at| if at % 3 == 0 { format!("{long}{at}") } else { format!("{at}") })
        .collect();
    for (at, called) in expected.iter().enumerate() {
        let kind = if at % 7 == 0 { Kind::Dir } else { Kind::File };
        fs.create(&root, &name(called), kind, 0o700, 1, 2).unwrap();
    }
    let mut sorted = expected.clone();
    sorted.sort();
    assert_eq!(names(&fs, &root), sorted);
    for called in expected.iter().step_by(2) {
        let inode = fs.lookup(&root, &name(called)).unwrap();
        match inode.attr().kind {
            Kind::Dir => fs.rmdir(&root, &name(called)).unwrap(),
            _ => fs.unlink(&root, &name(called)).unwrap(),
        }
    }
    let mut rest: Vec<String> = expected.iter().skip(1).step_by(2).cloned().collect();
    rest.sort();
    assert_eq!(names(&fs, &root), rest);
    sound(&pool, &fs);
}

#[test]
fn a_listing_in_pieces_is_a_whole_listing() {
    let (_pool, fs) = sample();
    let root = fs.root().unwrap();
    let mut seen = Vec::new();
    let mut cookie = 0;
    loop {
        let entries = fs.read_dir(&root, cookie, 1).unwrap();
        let Some(entry) = entries.first() else { break };
        seen.push(entry.name.to_string());
        cookie = entry.next;
    }
    seen.sort();
    assert_eq!(seen, ["a", "b", "d"]);
}

#[test]
fn names_that_are_no_names_are_refused() {
    for (bad, is_long) in [("", false), (".", false), ("a/b", false), (&*"x".repeat(256), true)] {
        match Name::new(OsStr::new(bad)) {
            Err(FsError::NameTooLong(256)) => assert!(is_long),
            Err(FsError::BadName { .. }) => assert!(!is_long),
            other => panic!("{bad:?}: {other:?}"),
        }
    }
}

#[test]
fn a_path_through_a_file_is_refused() {
    let (_pool, fs) = sample();
    let file = lookup(&fs, "a");
    let x = name("x");
    assert!(matches!(fs.lookup(&file, &x), Err(FsError::NotADirectory)));
    assert!(matches!(fs.create(&file, &x, Kind::File, 0, 0, 0), Err(FsError::NotADirectory)));
    assert!(matches!(fs.unlink(&file, &x), Err(FsError::NotADirectory)));
    assert!(matches!(fs.rmdir(&file, &x), Err(FsError::NotADirectory)));
    assert!(matches!(fs.read_dir(&file, 0, 1), Err(FsError::NotADirectory)));
}

#[test]
fn create_refuses_a_name_that_is_taken() {
    let (pool, fs) = sample();
    let root = fs.root().unwrap();
    for kind in [Kind::File, Kind::Dir] {
        for taken in ["a", "d"] {
            let refused = fs.create(&root, &name(taken), kind, 0, 0, 0);
            assert!(matches!(refused, Err(FsError::Exists)));
        }
    }
    assert!(matches!(fs.symlink(&root, &name("a"), b"t", 0, 0), Err(FsError::Exists)));
    assert!(matches!(fs.link(&lookup(&fs, "a"), &root, &name("b")), Err(FsError::Exists)));
    sound(&pool, &fs);
}

#[test]
fn each_name_of_a_file_leads_to_it_until_the_last_is_gone() {
    let (pool, fs) = sample();
    let root = fs.root().unwrap();
    let file = lookup(&fs, "a");
    fs.link(&file, &lookup(&fs, "d"), &name("c")).unwrap();
    assert_eq!(file.attr().links, 2);
    drop(file);
    unlink(&fs, "a");
    let d = lookup(&fs, "d");
    assert_eq!(contents(&fs.lookup(&d, &name("c")).unwrap()), b"a");
    let free = fs.usage().free.0;
    fs.unlink(&d, &name("c")).unwrap();
    assert_eq!(fs.usage().free.0, free + 1);
    assert!(matches!(fs.lookup(&root, &name("a")), Err(FsError::NotFound)));
    assert!(matches!(fs.link(&d, &root, &name("e")), Err(FsError::IsADirectory)));
    sound(&pool, &fs);
}

#[test]
fn a_symbolic_link_keeps_its_target() {
    let (pool, fs) = sample();
    let root = fs.root().unwrap();
    let longest = vec![b't'; 4095];
    for (called, target) in [("l", &b"some/where"[..]), ("m", &longest)] {
        let link = fs.symlink(&root, &name(called), target, 3, 4).unwrap();
        assert_eq!(link.read_link().unwrap(), target);
        assert!(matches!(link.write_at(b"x", 0), Err(FsError::NotAFile)));
    }
    for bad in [0, 4096] {
        let refused = fs.symlink(&root, &name("n"), &vec![b't'; bad], 0, 0);
        assert!(matches!(refused, Err(FsError::BadTarget(len)) if len == bad));
    }
    assert!(matches!(lookup(&fs, "a").read_link(), Err(FsError::NotASymlink)));
    sound(&pool, &fs);
}

#[test]
fn a_file_without_a_name_lives_until_its_last_handle() {
    let (pool, fs) = sample();
    let file = create(&fs, "open");
    let free = fs.usage().free;
    file.write_at(&pattern(1, 100_000), 0).unwrap();
    unlink(&fs, "open");
    assert_eq!(file.attr().links, 0);
    assert!(contents(&file) == pattern(1, 100_000));
    file.write_at(b"still", 0).unwrap();
    assert!(matches!(fs.link(&file, &fs.root().unwrap(), &name("again")), Err(FsError::NotFound)));
    let ino = file.ino();
    drop(file);
    assert_eq!(fs.usage().free, free);
    assert!(matches!(fs.inode(ino), Err(FsError::Stale(_))));
    sound(&pool, &fs);
}

#[test]
fn a_crash_frees_files_without_a_name() {
    let (pool, fs) = sample();
    let free = fs.usage().free;
    let file = create(&fs, "open");
    file.write_at(&pattern(1, 100_000), 0).unwrap();
    unlink(&fs, "open");
    let crashed = pool.copy();
    assert_eq!(Filesystem::check(crashed.device()).unwrap().orphans, 1);
    crashed.check();
    let (after, recovered) = crashed.mount_saying();
    assert_eq!(recovered.orphans, 1);
    assert_eq!(after.usage().free, free);
    after.verify().unwrap();
}

#[test]
fn only_an_empty_directory_is_removed() {
    let (pool, fs) = sample();
    let root = fs.root().unwrap();
    let d = lookup(&fs, "d");
    assert!(matches!(fs.rmdir(&root, &name("d")), Err(FsError::NotEmpty)));
    assert!(matches!(fs.unlink(&root, &name("d")), Err(FsError::IsADirectory)));
    assert!(matches!(fs.rmdir(&root, &name("a")), Err(FsError::NotADirectory)));
    fs.rmdir(&d, &name("sub")).unwrap();
    assert_eq!(d.attr().links, 2);
    fs.rmdir(&root, &name("d")).unwrap();
    assert_eq!(root.attr().links, 2);
    let refused = fs.create(&d, &name("x"), Kind::File, 0, 0, 0);
    assert!(matches!(refused, Err(FsError::NotFound)));
    drop(d);
    sound(&pool, &fs);
}

#[test]
fn a_removed_directory_gives_its_pages_back() {
    let (pool, fs) = sample();
    let root = fs.root().unwrap();
    let d = lookup(&fs, "d");
    fs.rmdir(&d, &name("sub")).unwrap();
    drop(d);
    let free = fs.usage().free.0;
    fs.rmdir(&root, &name("d")).unwrap();
    assert_eq!(fs.usage().free.0, free + 1);
    sound(&pool, &fs);
}

#[test]
fn rename_moves_files_and_directories() {
    let (pool, fs) = sample();
    rename(&fs, "a", "d/sub/moved", RenameMode::Replace).unwrap();
    rename(&fs, "d/sub", "top", RenameMode::NoReplace).unwrap();
    rename(&fs, "b", "renamed", RenameMode::Replace).unwrap();
    rename(&fs, "renamed", "renamed", RenameMode::Replace).unwrap();
    let root = fs.root().unwrap();
    assert_eq!(names(&fs, &root), ["d", "renamed", "top"]);
    let top = lookup(&fs, "top");
    assert_eq!(contents(&fs.lookup(&top, &name("moved")).unwrap()), b"a");
    assert_eq!(fs.parent(&top).unwrap().ino(), root.ino());
    assert_eq!(root.attr().links, 4);
    assert_eq!(lookup(&fs, "d").attr().links, 2);
    sound(&pool, &fs);
}

#[test]
fn rename_replaces_like_with_like() {
    let (pool, fs) = sample();
    let root = fs.root().unwrap();
    mkdir(&fs, &root, "empty");
    let used = fs.usage().used;
    rename(&fs, "a", "b", RenameMode::Replace).unwrap();
    assert_eq!(contents(&lookup(&fs, "b")), b"a");
    assert_eq!(fs.usage().used.0, used.0 - 1);
    rename(&fs, "d", "empty", RenameMode::Replace).unwrap();
    assert_eq!(names(&fs, &root), ["b", "empty"]);
    assert_eq!(names(&fs, &lookup(&fs, "empty")), ["sub"]);
    assert_eq!(root.attr().links, 3);
    sound(&pool, &fs);
}

#[test]
fn rename_of_two_names_of_one_file_changes_nothing() {
    let (pool, fs) = sample();
    let root = fs.root().unwrap();
    fs.link(&lookup(&fs, "a"), &root, &name("c")).unwrap();
    rename(&fs, "a", "c", RenameMode::Replace).unwrap();
    assert_eq!(names(&fs, &root), ["a", "b", "c", "d"]);
    sound(&pool, &fs);
}

#[test]
fn rename_exchanges_two_names() {
    let (pool, fs) = sample();
    rename(&fs, "a", "b", RenameMode::Exchange).unwrap();
    assert_eq!(contents(&lookup(&fs, "a")), b"b");
    rename(&fs, "a", "d/sub", RenameMode::Exchange).unwrap();
    let moved = lookup(&fs, "a");
    assert_eq!(moved.attr().kind, Kind::Dir);
    assert_eq!(fs.parent(&moved).unwrap().ino(), fs.root().unwrap().ino());
    assert_eq!(lookup(&fs, "d").attr().links, 2);
    sound(&pool, &fs);
}

#[test]
fn rename_refuses_what_cannot_be() {
    use RenameMode::{Exchange, NoReplace, Replace};
    let (pool, fs) = sample();
    let refused = |from, to, mode| rename(&fs, from, to, mode).unwrap_err();
    assert!(matches!(refused("none", "x", Replace), FsError::NotFound));
    assert!(matches!(refused("a", "none", Exchange), FsError::NotFound));
    assert!(matches!(refused("a", "b", NoReplace), FsError::Exists));
    assert!(matches!(refused("a", "d", Replace), FsError::IsADirectory));
    assert!(matches!(refused("d", "a", Replace), FsError::NotADirectory));
    assert!(matches!(refused("d/sub", "d", Replace), FsError::NotEmpty));
    assert!(matches!(refused("d", "d/x", Replace), FsError::Loop));
    assert!(matches!(refused("d", "d/sub/x", Replace), FsError::Loop));
    assert!(matches!(refused("d", "d/sub", Exchange), FsError::Loop));
    assert!(matches!(refused("d/sub", "d", Exchange), FsError::Loop));
    sound(&pool, &fs);
}

#[test]
fn attributes_are_kept() {
    let (pool, fs) = sample();
    let file = lookup(&fs, "a");
    let set = udax_fs::SetAttr {
        mode: Some(0o170_751),
        uid: Some(7),
        gid: Some(8),
        atime: Some(-5),
        mtime: Some(1_000_000_000),
    };
    let attr = file.set_attr(&set).unwrap();
    assert_eq!((attr.mode, attr.uid, attr.gid), (0o751, 7, 8));
    assert_eq!((attr.atime, attr.mtime), (-5, 1_000_000_000));
    assert_eq!(attr.kind, Kind::File);
    drop(file);
    fs.unmount().unwrap();
    assert_eq!(lookup(&pool.mount(), "a").attr(), attr);
}
