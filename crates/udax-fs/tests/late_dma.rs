//! Late DMA: a device that still works for a process that died reaches no page of another file.
//!
//! A death is played by forgetting the pins and dropping the filesystem: nothing is given back.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::ops::Range;

use common::{KIB, MIB, Pool, contents, create, file_of, lookup, pattern, pin_info, unlink};
use udax_fs::{
    Filesystem, FreePolicy, FsError, HeldPin, Inode, LivingOwner, MountMode, Owners, RecordedPin,
    Release,
};
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, FileIndex, Pages, PinInfo, PinKind, PinTerm, Wait};

/// The number of no process.
const NOBODY: u32 = u32::MAX;

fn lease(label: &str, kind: PinKind) -> PinInfo {
    let mut info = pin_info(label, kind);
    info.owner.process = NOBODY;
    info
}

fn pin(file: &Arc<Inode>, pages: Range<u64>, info: PinInfo) -> HeldPin {
    file.pin(FileIndex(pages.start)..FileIndex(pages.end), info).unwrap()
}

/// The pages of the device behind pages of a file.
fn device_pages(file: &Inode, pages: Range<u64>) -> Vec<u64> {
    let extents = file.extents().unwrap().into_iter();
    let all = extents.flat_map(|extent| {
        (0..extent.pages.0).map(move |page| (extent.index.0 + page, extent.device.0 + page))
    });
    all.filter(|(index, _)| pages.contains(index)).map(|(_, device)| device).collect()
}

fn quarantined_pages(fs: &Filesystem) -> Vec<u64> {
    let ranges = fs.quarantine().into_iter().flat_map(|pin| pin.ranges());
    let mut pages: Vec<u64> =
        ranges.flat_map(|Range { start: DeviceOff(from), end: DeviceOff(to) }| from..to).collect();
    pages.sort_unstable();
    pages
}

/// Fills the pool with new files, and returns all pages that they got.
fn fill(fs: &Filesystem) -> Vec<u64> {
    let mut pages = Vec::new();
    for number in 0.. {
        let file = create(fs, &format!("filler {number}"));
        let step = [256 * KIB, 4 * KIB].into_iter().find(|&step| grow(&file, step) > 0);
        pages.extend(device_pages(&file, 0..u64::MAX));
        if step.is_none() {
            return pages;
        }
    }
    unreachable!("a pool is full one day")
}

/// Allocates in steps until there is no space for one. Returns how many there were.
fn grow(file: &Inode, step: u64) -> u64 {
    for number in 0.. {
        match file.allocate(number * step..(number + 1) * step) {
            Ok(()) => {}
            Err(FsError::NoSpace { .. }) => return number,
            Err(error) => panic!("{error}"),
        }
    }
    0
}

/// The process dies: its pins are never dropped, the pool is never closed.
fn die(fs: Arc<Filesystem>, pins: impl IntoIterator<Item = HeldPin>) {
    pins.into_iter().for_each(std::mem::forget);
    drop(fs);
}

/// A pool whose owner died with pages 10 to 20 of the file `a` pinned, and these pages.
fn died(kind: PinKind) -> (Pool, Vec<u64>) {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 160 * KIB));
    let held = pin(&file, 10..20, lease("nic", kind));
    let pages = device_pages(&file, 10..20);
    assert_eq!(pages.len(), 10);
    drop(file);
    die(fs, [held]);
    (pool, pages)
}

#[test]
fn pages_that_a_dead_owner_pinned_are_never_allocated() {
    for kind in [PinKind::Read, PinKind::Write] {
        let (pool, pinned) = died(kind);
        let (fs, recovered) = pool.mount_saying();
        assert_eq!((recovered.quarantined, recovered.released), (1, 0));
        assert_eq!(quarantined_pages(&fs), pinned);
        unlink(&fs, "a");
        assert_eq!(fs.usage().quarantined, Pages(10));
        fs.verify().unwrap();

        let filled = fill(&fs);
        assert!(filled.len() > 1000);
        assert!(filled.iter().all(|page| !pinned.contains(page)));
        fs.verify().unwrap();
        pool.check();
    }
}

#[test]
fn a_quarantine_tells_who_what_and_how_much() {
    let (pool, _) = died(PinKind::Write);
    let fs = pool.mount();
    let [pin] = &fs.quarantine()[..] else { panic!("one pin") };
    assert_eq!((pin.process(), pin.label(), pin.kind()), (NOBODY, "nic", PinKind::Write));
    assert!(pin.is_quarantined() && !pin.is_owner_alive());
    assert_eq!((pin.pages(), pin.withheld()), (Pages(10), Pages(0)));
    lookup(&fs, "a").truncate(15 * 4096, FreePolicy::Wait(Wait::Never)).unwrap();
    assert_eq!(fs.quarantine()[0].withheld(), Pages(5));
    drop(fs);
    let report = Filesystem::check(pool.device()).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(report.quarantine[0].label(), "nic");
    assert_eq!(report.quarantine[0].withheld(), Pages(5));
    let fs = pool.mount();
    assert_eq!(report.free, fs.usage().free.0);
    assert_eq!(fs.usage().quarantined, Pages(5));
}

#[test]
fn a_file_keeps_its_pages_and_is_used_as_before() {
    let (pool, pinned) = died(PinKind::Write);
    let fs = pool.mount();
    let file = lookup(&fs, "a");
    assert!(contents(&file) == pattern(1, 160 * KIB));
    file.write_at(&pattern(2, 100 * KIB), 0).unwrap();
    assert_eq!(device_pages(&file, 10..20), pinned);
    assert_eq!(fs.usage().quarantined, Pages(0));

    file.punch(40 * KIB..60 * KIB, FreePolicy::Defer).unwrap();
    assert_eq!(fs.usage().quarantined, Pages(5));
    file.write_at(&pattern(3, 40 * KIB), 40 * KIB).unwrap();
    assert!(device_pages(&file, 10..15).iter().all(|page| !pinned.contains(page)));
    fs.verify().unwrap();
}

#[test]
fn a_page_that_is_pinned_again_goes_to_quarantine_when_it_comes_out_of_limbo() {
    let (pool, pinned) = died(PinKind::Write);
    let fs = pool.mount();
    let file = lookup(&fs, "a");
    let again = pin(&file, 5..15, lease("again", PinKind::Write));
    file.truncate(0, FreePolicy::Defer).unwrap();
    assert_eq!((fs.usage().limbo, fs.usage().quarantined), (Pages(10), Pages(5)));
    drop(again);
    assert_eq!((fs.usage().limbo, fs.usage().quarantined), (Pages(0), Pages(10)));
    fs.verify().unwrap();
    assert!(fill(&fs).iter().all(|page| !pinned.contains(page)));
}

#[test]
fn a_file_without_a_name_leaves_its_pinned_pages_in_quarantine() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 160 * KIB));
    let held = pin(&file, 10..20, lease("nic", PinKind::Write));
    let pinned = device_pages(&file, 10..20);
    unlink(&fs, "a");
    std::mem::forget(file);
    die(fs, [held]);
    let (fs, recovered) = pool.mount_saying();
    assert_eq!(recovered.orphans, 1);
    assert_eq!(fs.usage().quarantined, Pages(10));
    assert!(fill(&fs).iter().all(|page| !pinned.contains(page)));
    fs.verify().unwrap();
}

#[test]
fn only_long_term_pins_are_recorded_and_a_dropped_one_is_not() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 160 * KIB));
    let recorded = || Filesystem::recorded_pins(pool.device(), Owners::MayLive).unwrap();
    let short = pin(&file, 0..4, PinInfo { term: PinTerm::Short, ..lease("call", PinKind::Read) });
    assert!(recorded().is_empty());
    let long = pin(&file, 0..4, lease("nic", PinKind::Read));
    assert_eq!(recorded().len(), 1);
    assert!(!recorded()[0].is_quarantined());
    fs.verify().unwrap();
    drop(long);
    assert!(recorded().is_empty());
    drop(file);
    die(fs, [short]);
    assert_eq!(pool.mount_saying().1.quarantined, 0);
}

#[test]
fn a_quarantine_outlives_clean_ends_and_further_deaths() {
    let (pool, pinned) = died(PinKind::Write);
    pool.mount().unmount().unwrap();
    let fs = pool.mount();
    assert_eq!(quarantined_pages(&fs), pinned);
    let other = file_of(&fs, "b", &pattern(2, 8 * KIB));
    let second = pin(&other, 0..2, lease("gpu", PinKind::Write));
    drop(other);
    die(fs, [second]);
    let (fs, recovered) = pool.mount_saying();
    assert_eq!(recovered.quarantined, 2);
    let labels: Vec<_> = fs.quarantine().iter().map(|pin| pin.label().to_owned()).collect();
    assert_eq!(labels, ["nic", "gpu"]);
    fs.verify().unwrap();
    fs.unmount().unwrap();
}

#[test]
fn an_explicit_release_frees_what_no_file_has() {
    let (pool, _) = died(PinKind::Write);
    let fs = pool.mount();
    let none = fs.release_quarantine(&Release::Label("gpu".into()), LivingOwner::Refuse).unwrap();
    assert!(none.is_empty());
    let none = fs.release_quarantine(&Release::Process(1), LivingOwner::Refuse).unwrap();
    assert!(none.is_empty());
    lookup(&fs, "a").truncate(15 * 4096, FreePolicy::Defer).unwrap();
    let free = fs.usage().free;

    let released = fs.release_quarantine(&Release::Process(NOBODY), LivingOwner::Refuse).unwrap();
    assert_eq!((released[0].label(), released[0].withheld()), ("nic", Pages(5)));
    assert!(fs.quarantine().is_empty());
    assert_eq!((fs.usage().free, fs.usage().quarantined), (free + Pages(5), Pages(0)));
    fs.verify().unwrap();
    fill(&fs);
    assert_eq!(fs.usage().used, fs.usage().total, "all are used again");
    drop(fs);
    assert_eq!(pool.mount_saying().1.quarantined, 0);
}

/// A record holds 64 bytes of a label, up to its first zero.
#[test]
fn a_pin_of_whose_label_a_record_has_a_part_is_released_for_good() {
    let long = "l".repeat(100);
    let label = |label: &str| Release::Label(label.to_owned());
    let cases = [
        ("a\0b", "a", Release::All),
        ("a\0b", "a", label("a")),
        ("a\0b", "a", label("a\0b")),
        (&*long, &long[..64], label(&long)),
    ];
    for (given, recorded, which) in cases {
        let pool = Pool::new(8 * MIB);
        let fs = pool.mount();
        let file = file_of(&fs, "a", &pattern(1, 8 * KIB));
        let held = pin(&file, 0..2, lease(given, PinKind::Write));
        drop(file);
        die(fs, [held]);
        let fs = pool.mount();
        assert_eq!(fs.quarantine()[0].label(), recorded);
        assert_eq!(fs.release_quarantine(&which, LivingOwner::Refuse).unwrap().len(), 1);
        fs.verify().unwrap();
        die(fs, []);
        assert!(pool.mount().quarantine().is_empty(), "{which:?}");
    }
}

#[test]
fn pages_of_two_pins_stay_until_both_are_released() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 160 * KIB));
    let pins = [(0..10, "nic"), (5..20, "gpu")];
    let pins = pins.map(|(pages, label)| pin(&file, pages, lease(label, PinKind::Write)));
    drop(file);
    die(fs, pins);
    let fs = pool.mount();
    unlink(&fs, "a");
    assert_eq!(fs.usage().quarantined, Pages(20));
    let withheld =
        |fs: &Filesystem| fs.quarantine().iter().map(|pin| pin.withheld().0).collect::<Vec<_>>();
    assert_eq!(withheld(&fs), [10, 15]);
    fs.release_quarantine(&Release::Label("nic".into()), LivingOwner::Refuse).unwrap();
    assert_eq!((fs.usage().quarantined, withheld(&fs)), (Pages(15), vec![15]));
    fs.verify().unwrap();
    fs.release_quarantine(&Release::All, LivingOwner::Refuse).unwrap();
    assert_eq!(fs.usage().quarantined, Pages(0));
    fs.verify().unwrap();
}

#[test]
fn a_living_owner_is_not_taken_for_dead() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = file_of(&fs, "a", &pattern(1, 8 * KIB));
    let mut info = lease("me", PinKind::Write);
    info.owner.process = std::process::id();
    let held = pin(&file, 0..2, info);
    drop(file);
    die(fs, [held]);
    let fs = pool.mount();
    match fs.release_quarantine(&Release::All, LivingOwner::Refuse).unwrap_err() {
        FsError::OwnerAlive { process, label } => {
            assert_eq!((process, &*label), (std::process::id(), "me"));
        }
        other => panic!("{other}"),
    }
    assert_eq!(fs.quarantine().len(), 1);
    assert_eq!(fs.release_quarantine(&Release::All, LivingOwner::Ignore).unwrap().len(), 1);
    assert_eq!(fs.quarantine().len(), 0);
}

#[test]
fn a_file_that_a_late_device_may_write_is_not_frozen() {
    let (pool, _) = died(PinKind::Write);
    let fs = pool.mount();
    let file = lookup(&fs, "a");
    match file.freeze(Wait::Never).unwrap_err() {
        FsError::Quarantined { label } => assert_eq!(label, "nic"),
        other => panic!("{other}"),
    }
    fs.release_quarantine(&Release::All, LivingOwner::Refuse).unwrap();
    file.freeze(Wait::Never).unwrap();

    let (pool, _) = died(PinKind::Read);
    let fs = pool.mount();
    lookup(&fs, "a").freeze(Wait::Never).unwrap();
}

/// A store of the device would reach both files.
#[test]
fn pages_that_a_late_device_may_write_are_not_shared() {
    let (pool, pinned) = died(PinKind::Write);
    let fs = pool.mount();
    let (file, other) = (lookup(&fs, "a"), file_of(&fs, "b", &pattern(1, 160 * KIB)));
    let before = (file.extents().unwrap(), other.extents().unwrap(), other.attr().size);
    let clone = |from: &Inode, to: &Inode| from.clone_range(0..160 * KIB, to, 0, Wait::Never);
    let refused = [
        clone(&file, &other).err(),
        file.dedupe_range(0..160 * KIB, &other, 0, Wait::Never).err(),
        file.clone_range(76 * KIB..80 * KIB, &other, 0, Wait::Never).err(),
    ];
    for why in refused {
        let Some(FsError::Quarantined { label }) = why else { panic!("{why:?}") };
        assert_eq!(label, "nic");
    }
    let after = (file.extents().unwrap(), other.extents().unwrap(), other.attr().size);
    assert_eq!(after, before, "nothing has changed");
    assert_eq!(file.clone_range(80 * KIB..160 * KIB, &other, 0, Wait::Never).unwrap(), 80 * KIB);
    fs.verify().unwrap();

    // The other way, the pages leave the file, and nobody gets them.
    clone(&other, &file).unwrap();
    assert_eq!(fs.usage().quarantined, Pages(10));
    assert!(device_pages(&file, 0..40).iter().all(|page| !pinned.contains(page)));
    fs.release_quarantine(&Release::All, LivingOwner::Refuse).unwrap();
    fs.verify().unwrap();
}

/// A file each of whose pages lies apart from the others, and another one between them.
fn scattered(fs: &Filesystem, pages: u64) -> Arc<Inode> {
    let (file, other) = (create(fs, "scattered"), create(fs, "between"));
    for page in 0..pages {
        file.append(&pattern(page, 4096)).unwrap();
        other.append(&pattern(page, 4096)).unwrap();
    }
    file
}

#[test]
fn a_table_that_is_full_grows_and_shrinks() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = scattered(&fs, 100);
    assert_eq!(file.extents().unwrap().len(), 100, "the pages lie apart");
    let used = fs.usage().used;
    let held = pin(&file, 0..100, lease("nic", PinKind::Write));
    let pinned = device_pages(&file, 0..100);
    assert_eq!(fs.usage().used, used + Pages(3));
    fs.verify().unwrap();
    drop(file);
    die(fs, [held]);

    let (fs, recovered) = pool.mount_saying();
    assert_eq!(recovered.quarantined, 1);
    let mut sorted = pinned;
    sorted.sort_unstable();
    assert_eq!(quarantined_pages(&fs), sorted);
    assert_eq!(fs.usage().used, used + Pages(3));
    fs.verify().unwrap();
    pool.check();
    fs.release_quarantine(&Release::All, LivingOwner::Refuse).unwrap();
    assert_eq!(fs.usage().used, used);
    fs.verify().unwrap();
    pool.check();
}

#[test]
fn a_pin_that_cannot_be_recorded_is_refused() {
    let pool = Pool::new(8 * MIB);
    let fs = pool.mount();
    let file = scattered(&fs, 100);
    let first = pin(&file, 0..20, lease("fits", PinKind::Write));
    fill(&fs);
    let refused = file.pin(FileIndex(0)..FileIndex(100), lease("nic", PinKind::Write));
    let error = refused.unwrap_err();
    assert!(matches!(error, FsError::PinTableFull { .. }), "{error}");
    assert!(error.to_string().contains("udax release"), "{error}");
    assert_eq!(fs.pins().len(), 1, "the first");
    fs.verify().unwrap();
    drop(first);
    let _fits = pin(&file, 0..31, lease("fits again", PinKind::Write));
    fs.verify().unwrap();
}

#[test]
fn a_read_only_mount_knows_the_quarantine_and_grants_no_lease() {
    let (pool, pinned) = died(PinKind::Write);
    let (fs, recovered) = Filesystem::mount(pool.device(), MountMode::ReadOnly, None).unwrap();
    assert_eq!(recovered.quarantined, 1);
    assert_eq!(quarantined_pages(&fs), pinned);
    let file = lookup(&fs, "a");
    let refused = file.pin(FileIndex(0)..FileIndex(1), lease("nic", PinKind::Read));
    assert!(matches!(refused, Err(FsError::ReadOnlyLease)));
    let _short = pin(&file, 0..1, PinInfo { term: PinTerm::Short, ..lease("call", PinKind::Read) });
    let released = fs.release_quarantine(&Release::All, LivingOwner::Refuse);
    assert!(matches!(released, Err(FsError::ReadOnly)));
}

#[test]
fn the_table_tells_what_is_held_to_who_does_not_mount() {
    let (pool, _) = died(PinKind::Write);
    let fs = pool.mount();
    let other = file_of(&fs, "b", &pattern(2, 8 * KIB));
    let held = pin(&other, 0..2, lease("gpu", PinKind::Read));
    let recorded = Filesystem::recorded_pins(pool.device(), Owners::MayLive).unwrap();
    let told = recorded.iter().map(|pin| (pin.label(), pin.is_quarantined(), pin.pages().0));
    assert_eq!(told.collect::<Vec<_>>(), [("nic", true, 10), ("gpu", false, 2)]);
    let gone = Filesystem::recorded_pins(pool.device(), Owners::AreGone).unwrap();
    assert!(gone.iter().all(RecordedPin::is_quarantined));
    drop((held, other));
    fs.release_quarantine(&Release::All, LivingOwner::Refuse).unwrap();
    fs.unmount().unwrap();
    assert!(Filesystem::recorded_pins(pool.device(), Owners::MayLive).unwrap().is_empty());
}
