//! What the check of a pool says of structures that are sound by themselves and contradict others.

use udax_dev::{DaxBytes, DaxDevice};
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, FileIndex, Pages};
use zerocopy::IntoBytes as _;

use crate::dir::{CELL_BYTES, Cell};
use crate::entry::{Entry, Place};
use crate::format::{FLAG_SHARES, InodeRecord, ROOT_INO};
use crate::num::to_u64;
use crate::scan::Scan;
use crate::testing::{device, store_on};
use crate::tree::{Lookup, Tree};
use crate::{Filesystem, FormatOptions, FsError, Ino, Kind, MountMode, Name, SetAttr};

const DIR: Ino = Ino(2);
const FILE: Ino = Ino(3);
const OTHER: Ino = Ino(4);
const LINK: Ino = Ino(5);
const FREE: Ino = Ino(9);

fn name(name: &str) -> Name {
    Name::from_bytes(name.as_bytes()).unwrap()
}

/// A pool with the directory, the files and the symbolic link named above, in the root directory.
fn sample() -> Arc<dyn DaxDevice> {
    let device = device(Pages(512));
    Filesystem::format(Arc::clone(&device), &FormatOptions::default()).unwrap();
    let (fs, _) = Filesystem::mount(Arc::clone(&device), MountMode::ReadWrite, None).unwrap();
    let root = fs.root().unwrap();
    let create = |called, kind| fs.create(&root, &name(called), kind, 0o644, 0, 0).unwrap();
    assert_eq!(create("dir", Kind::Dir).ino(), DIR);
    for (called, ino) in [("file", FILE), ("other", OTHER)] {
        let file = create(called, Kind::File);
        assert_eq!(file.ino(), ino);
        file.write_at(b"bytes", 0).unwrap();
    }
    assert_eq!(fs.symlink(&root, &name("link"), b"file", 0, 0).unwrap().ino(), LINK);
    // The last transaction can be repeated, so it is about nothing that is damaged below.
    let spare = create("spare", Kind::File);
    spare.set_attr(&SetAttr::default()).unwrap();
    drop((root, spare));
    fs.unmount().unwrap();
    device
}

/// Changes an inode record, and seals it.
fn edit(device: &Arc<dyn DaxDevice>, ino: Ino, change: impl FnOnce(&mut InodeRecord)) {
    let scan = Scan::of(&store_on(Arc::clone(device))).unwrap().0;
    let mut record = scan.inodes.iter().find(|inode| inode.ino == ino).unwrap().record;
    change(&mut record);
    let at = scan.table.slot(ino).unwrap().byte();
    DaxBytes::new(Arc::clone(device)).write(at, record.sealed().as_bytes()).unwrap();
}

/// The page of the device behind the first page of an inode.
fn first_page(device: &Arc<dyn DaxDevice>, ino: Ino) -> DeviceOff {
    let store = store_on(Arc::clone(device));
    let scan = Scan::of(&store).unwrap().0;
    let record = scan.inodes.iter().find(|inode| inode.ino == ino).unwrap().record;
    let tree = Tree::of(&record).unwrap();
    match tree.lookup(&store, FileIndex(0), FileIndex(0)..FileIndex(1)).unwrap() {
        Lookup::Run(run) => run.device,
        Lookup::Hole(_) => panic!("the inode has a page"),
    }
}

/// Writes an entry into the root directory.
fn put(device: &Arc<dyn DaxDevice>, number: u64, called: &str, ino: Ino, kind: Kind) {
    let cell = Cell { name: name(called), ino, kind };
    write_cell(device, number, &cell.encode(ROOT_INO, number));
}

fn write_cell(device: &Arc<dyn DaxDevice>, number: u64, bytes: &[u8]) {
    let at = first_page(device, ROOT_INO).byte() + number * to_u64(CELL_BYTES);
    DaxBytes::new(Arc::clone(device)).write(at, bytes).unwrap();
}

/// Damages a pool, and compares the problems that the check finds.
fn check(damage: impl FnOnce(&Arc<dyn DaxDevice>), expected: &[(&str, &str)]) {
    let device = sample();
    damage(&device);
    let report = Filesystem::check(device).unwrap();
    let found: Vec<(&str, &str)> =
        report.problems.iter().map(|problem| (&*problem.object, &*problem.found)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_sound_pool_is_counted() {
    let report = Filesystem::check(sample()).unwrap();
    assert_eq!((report.files, report.dirs, report.symlinks, report.orphans), (3, 2, 1, 0));
    assert_eq!(report.used + report.free, 512);
    assert_eq!(report.problems, []);
}

#[test]
fn link_counts_are_those_of_names() {
    let links = |ino, links: u32| move |device: &_| edit(device, ino, |r| r.links.set(links));
    check(links(FILE, 2), &[("inode 3", "1 links, and a link count of 2")]);
    check(links(DIR, 3), &[("inode 2", "2 links, and a link count of 3")]);
    check(links(ROOT_INO, 2), &[("inode 1", "3 links, and a link count of 2")]);
    check(links(FILE, 0), &[("inode 3", "1 names, and a link count of 0")]);
    check(
        |device| write_cell(device, 1, &[0; CELL_BYTES]),
        &[("inode 3", "no name, and a link count of 1")],
    );
}

#[test]
fn directories_know_their_parent_and_have_one_name() {
    check(
        |device| edit(device, DIR, |record| record.parent.set(DIR.0)),
        &[("inode 2", "its parent is 1, recorded is 2")],
    );
    check(
        |device| put(device, 9, "again", DIR, Kind::Dir),
        &[("inode 2", "a directory with two names"), ("inode 1", "4 links, and a link count of 3")],
    );
}

#[test]
fn entries_name_inodes_of_their_kind_once() {
    check(
        |device| put(device, 9, "lost", FREE, Kind::File),
        &[("directory 1, cell 9", "lost names inode 9, which is free")],
    );
    check(
        |device| put(device, 1, "file", FILE, Kind::Symlink),
        &[("directory 1, cell 1", "file is Symlink, its inode File")],
    );
    check(
        |device| put(device, 1, "other", FILE, Kind::File),
        &[("directory 1, cell 2", "a second entry named other")],
    );
}

#[test]
fn no_page_is_used_twice() {
    let double = |device: &Arc<dyn DaxDevice>| {
        let page = first_page(device, FILE);
        let place = Place { ino: OTHER, first: FileIndex(0), level: 0 };
        edit(device, OTHER, |record| record.root.set(Entry::Data(page).encode(&place)));
    };
    let page = first_page(&sample(), FILE);
    check(double, &[("inode 4", &format!("page {page} is used twice"))]);
    let device = sample();
    double(&device);
    let refused = Filesystem::mount(device, MountMode::ReadWrite, None).unwrap_err();
    assert!(matches!(refused, FsError::Corrupt { object, .. } if object == "inode 4"));
}

#[test]
fn sizes_and_counts_agree_with_trees() {
    check(
        |device| edit(device, FILE, |record| record.pages.set(2)),
        &[("inode 3", "it has 1 pages and counts 2")],
    );
    check(
        |device| edit(device, FILE, |record| record.size.set(0)),
        &[("inode 3", "data at index 0, past the end")],
    );
    check(
        |device| edit(device, ROOT_INO, |record| record.size.set(8192)),
        &[("inode 1", "8192 bytes, its pages hold 4096")],
    );
    check(
        |device| edit(device, LINK, |record| record.size.set(4096)),
        &[("inode 5", "a symbolic link to 4096 bytes")],
    );
}

/// Lets two files refer to the page of the first, and say that they may share as told.
fn share(device: &Arc<dyn DaxDevice>, flags: [u32; 2]) {
    let page = first_page(device, FILE);
    let place = Place { ino: OTHER, first: FileIndex(0), level: 0 };
    edit(device, FILE, |record| record.flags.set(flags[0]));
    edit(device, OTHER, |record| {
        record.flags.set(flags[1]);
        record.root.set(Entry::Data(page).encode(&place));
    });
}

#[test]
fn data_is_shared_only_by_files_that_say_so() {
    let page = first_page(&sample(), FILE);
    let found = format!("page {page} is used twice");
    check(|device| share(device, [FLAG_SHARES; 2]), &[]);
    check(|device| share(device, [0, 0]), &[("inode 4", &found)]);
    check(|device| share(device, [0, FLAG_SHARES]), &[("inode 4", &found)]);
    check(|device| share(device, [FLAG_SHARES, 0]), &[("inode 3", &found)]);
}

#[test]
fn a_page_of_data_is_no_node_of_another_tree() {
    let page = first_page(&sample(), FILE);
    let found = format!("page {page} is used twice");
    check(
        |device| {
            share(device, [FLAG_SHARES; 2]);
            let place = Place { ino: OTHER, first: FileIndex(0), level: 1 };
            // A node of holes, where the data of the other file lies.
            DaxBytes::new(Arc::clone(device)).zero(page.byte(), 4096).unwrap();
            edit(device, OTHER, |record| {
                record.depth.set(1);
                record.root.set(Entry::Node(page).encode(&place));
            });
        },
        &[("inode 3", &found)],
    );
}

#[test]
fn only_files_share_data() {
    let damage = |device: &Arc<dyn DaxDevice>| {
        edit(device, LINK, |record| record.flags.set(FLAG_SHARES));
    };
    let device = sample();
    damage(&device);
    let report = Filesystem::check(device).unwrap();
    assert_eq!(report.problems[0].found, "it shares data and is not a file");
}
