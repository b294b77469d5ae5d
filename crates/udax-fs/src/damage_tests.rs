//! Damage anywhere on the medium: a check finds it where it matters, and nothing panics on it.
//!
//! The damage is a changed byte or a flipped bit. Where it matters is taken from a walk over the
//! sound pool: superblocks, inode records, tree nodes and directories. Elsewhere lie file data,
//! free pages, and a journal whose transaction was completed; nothing there can be told from what
//! should be there.

use std::ops::Range;

use udax_dev::{DaxBytes, DaxDevice};
use udax_mm::media::{FileMedia, Media};
use udax_mm::sync::Arc;
use udax_mm::units::PAGE_BYTES;
use udax_mm::{DeviceOff, FileIndex, Pages};

use crate::inode::END;
use crate::num::to_usize;
use crate::scan::Scan;
use crate::testing::{device_of, store_on};
use crate::tree::{Tree, Visit};
use crate::{Filesystem, FormatOptions, FsError, Inode, Kind, MountMode, Name};

const PAGES: Pages = Pages(512);

/// A small pool with one of everything.
struct Sample {
    media: Arc<FileMedia>,
    /// Bytes in which damage matters.
    vital: Vec<Range<u64>>,
}

impl Sample {
    fn new() -> Sample {
        let media = Arc::new(FileMedia::memfd("damage", PAGES.bytes()).unwrap());
        let sample = Sample { media, vital: Vec::new() };
        Filesystem::format(sample.device(), &FormatOptions::default()).unwrap();
        fill(&sample.mount(MountMode::ReadWrite).unwrap()).unwrap();
        let vital = vital(sample.device());
        Sample { vital, ..sample }
    }

    fn device(&self) -> Arc<dyn DaxDevice> {
        let media = Arc::clone(&self.media);
        device_of(media)
    }

    fn copy(&self) -> Sample {
        let media = Arc::new(FileMedia::memfd("damage", PAGES.bytes()).unwrap());
        let mut bytes = vec![0; to_usize(PAGES.bytes())];
        self.media.read(0, &mut bytes).unwrap();
        media.write(0, &bytes).unwrap();
        Sample { media, vital: self.vital.clone() }
    }

    fn mount(&self, mode: MountMode) -> Result<Arc<Filesystem>, FsError> {
        Filesystem::mount(self.device(), mode, None).map(|(fs, _)| fs)
    }

    /// Changes a byte for as long as `during` runs.
    fn with_damage<R>(&self, at: u64, xor: u8, during: impl FnOnce() -> R) -> R {
        let mut byte = [0];
        self.media.read(at, &mut byte).unwrap();
        self.media.write(at, &[byte[0] ^ xor]).unwrap();
        let result = during();
        self.media.write(at, &byte).unwrap();
        result
    }

    fn is_found_by_check(&self) -> bool {
        Filesystem::check(self.device()).map_or(true, |report| !report.problems.is_empty())
    }

    /// The byte at a place of the vital ones, counted from the first.
    fn vital_byte(&self, mut nth: u64) -> u64 {
        for range in &self.vital {
            let len = range.end - range.start;
            if nth < len {
                return range.start + nth;
            }
            nth -= len;
        }
        panic!("there are fewer vital bytes");
    }

    fn vital_len(&self) -> u64 {
        self.vital.iter().map(|range| range.end - range.start).sum()
    }
}

fn name(name: &str) -> Name {
    Name::from_bytes(name.as_bytes()).unwrap()
}

fn fill(fs: &Arc<Filesystem>) -> Result<(), FsError> {
    let root = fs.root()?;
    let dir = fs.create(&root, &name("dir"), Kind::Dir, 0o755, 0, 0)?;
    for called in ["a", &"long".repeat(60)] {
        fs.create(&dir, &name(called), Kind::File, 0o644, 0, 0)?.write_at(&[7; 9000], 0)?;
    }
    let sparse = fs.create(&root, &name("sparse"), Kind::File, 0o644, 0, 0)?;
    sparse.write_at(b"far away", 3 << 31)?;
    fs.symlink(&root, &name("link"), b"dir/a", 0, 0)?;
    fs.link(&sparse, &dir, &name("again"))?;
    fs.unmount()
}

/// The bytes of everything but data, free pages, session, journal and records of pins.
fn vital(device: Arc<dyn DaxDevice>) -> Vec<Range<u64>> {
    let store = store_on(device);
    let page = |page: DeviceOff| page.byte()..(page + Pages(1)).byte();
    let record = |page: DeviceOff| page.byte()..page.byte() + 256;
    let geometry = store.geometry();
    let mut vital = vec![record(DeviceOff(0)), record(geometry.end), record(geometry.itable)];
    let next_pin_page = geometry.pins.byte();
    let scan = Scan::of(&store).unwrap().0;
    vital.extend(scan.table.pages.iter().map(|at| page(*at)));
    // Number 0 names nothing, so its record is not read.
    vital[3].start += 256;
    vital.push(next_pin_page..next_pin_page + 8);
    let records = scan.inodes.iter().map(|inode| (inode.record, inode.kind == Kind::Dir));
    for (record, is_dir) in records.chain([(scan.table.record, false)]) {
        let tree = Tree::of(&record).unwrap();
        tree.walk(&store, &mut |visit| {
            if let Visit::Node(node) = visit {
                vital.push(page(node));
            }
            Ok(())
        })
        .unwrap();
        if is_dir {
            for run in tree.runs(&store, FileIndex(0)..END).unwrap() {
                vital.push(run.device.byte()..run.device.byte() + run.pages.bytes());
            }
        }
    }
    vital
}

/// Looks at everything that can be looked at.
fn walk(fs: &Arc<Filesystem>, dir: &Arc<Inode>, depth: u32) -> Result<(), FsError> {
    for entry in fs.read_dir(dir, 0, 100)? {
        let Ok(inode) = fs.lookup(dir, &entry.name) else { continue };
        let mut bytes = [0; 64];
        let _ = inode.read_at(&mut bytes, 0);
        let _ = inode.read_at(&mut bytes, inode.attr().size.saturating_sub(10));
        let _ = (inode.read_link(), inode.extents(), inode.seek_data(1), inode.seek_hole(0));
        if entry.kind == Kind::Dir && depth < 4 {
            let _ = walk(fs, &inode, depth + 1);
        }
    }
    Ok(())
}

/// Changes everything that can be changed.
fn change(fs: &Arc<Filesystem>) -> Result<(), FsError> {
    let root = fs.root()?;
    let _ = fs.create(&root, &name("new"), Kind::File, 0, 0, 0);
    for entry in fs.read_dir(&root, 0, 100)? {
        let Ok(inode) = fs.lookup(&root, &entry.name) else { continue };
        let _ = inode.write_at(&[1; 5000], 100);
        let _ = inode.truncate(10, crate::FreePolicy::Defer);
        let _ = fs.unlink(&root, &entry.name);
        let _ = fs.rmdir(&root, &entry.name);
    }
    fs.unmount()
}

/// Numbers without a pattern, the same in every run.
fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(seed.max(1)), |state| {
        let mut x = *state;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        Some(x)
    })
}

#[test]
fn a_sound_pool_has_no_problems() {
    let sample = Sample::new();
    assert!(!sample.is_found_by_check());
    walk(&sample.mount(MountMode::ReadOnly).unwrap(), &root(&sample), 0).unwrap();
}

fn root(sample: &Sample) -> Arc<Inode> {
    sample.mount(MountMode::ReadOnly).unwrap().root().unwrap()
}

#[test]
fn a_flipped_bit_in_what_matters_is_found() {
    let sample = Sample::new();
    let mut numbers = numbers(1);
    for _ in 0..6000 {
        let (at, bit) = (numbers.next().unwrap(), numbers.next().unwrap());
        let at = sample.vital_byte(at % sample.vital_len());
        let found = sample.with_damage(at, 1 << (bit % 8), || sample.is_found_by_check());
        assert!(found, "byte {at} of page {}, bit {}", at / PAGE_BYTES, bit % 8);
    }
}

#[test]
fn no_damaged_byte_makes_a_mount_panic() {
    let sample = Sample::new();
    let mut numbers = numbers(2);
    for round in 0..3000 {
        let [at, xor] = [0; 2].map(|_| numbers.next().unwrap());
        let at = if round % 2 == 0 {
            sample.vital_byte(at % sample.vital_len())
        } else {
            at % PAGES.bytes()
        };
        let xor = u8::try_from(xor % 255 + 1).unwrap();
        sample.with_damage(at, xor, || {
            let _ = sample.is_found_by_check();
            if let Ok(fs) = sample.mount(MountMode::ReadOnly) {
                let _ = fs.root().and_then(|root| walk(&fs, &root, 0));
            }
        });
    }
}

#[test]
fn no_damaged_byte_makes_a_change_panic() {
    let sample = Sample::new();
    let mut numbers = numbers(3);
    for _ in 0..400 {
        let [at, xor] = [0; 2].map(|_| numbers.next().unwrap());
        let damaged = sample.copy();
        let at = sample.vital_byte(at % sample.vital_len());
        damaged.with_damage(at, u8::try_from(xor % 255 + 1).unwrap(), || {
            if let Ok(fs) = damaged.mount(MountMode::ReadWrite) {
                let _ = change(&fs);
            }
        });
    }
}

#[test]
fn a_damaged_superblock_is_replaced_by_its_mirror() {
    let sample = Sample::new();
    sample.media.write(20, &[0xff]).unwrap();
    let report = Filesystem::check(sample.device()).unwrap();
    assert_eq!(report.problems[0].object, "superblock");
    let (fs, recovered) = Filesystem::mount(sample.device(), MountMode::ReadWrite, None).unwrap();
    assert!(recovered.mirror_used);
    fs.unmount().unwrap();
    assert!(!sample.is_found_by_check());
    let mirror = DaxBytes::new(sample.device());
    mirror.write((PAGES.0 - 1) * PAGE_BYTES + 30, &[0xff]).unwrap();
    assert!(sample.is_found_by_check());
    sample.mount(MountMode::ReadWrite).unwrap().unmount().unwrap();
    assert!(!sample.is_found_by_check());
}

#[test]
fn a_damaged_inode_is_named_and_keeps_writers_out() {
    let sample = Sample::new();
    let store = store_on(sample.device());
    let scan = Scan::of(&store).unwrap().0;
    let file = scan.inodes.iter().find(|inode| inode.kind == Kind::File).unwrap();
    let at = scan.table.slot(file.ino).unwrap().byte() + 33;
    sample.with_damage(at, 4, || {
        let refused = sample.mount(MountMode::ReadWrite).unwrap_err();
        let named = format!("inode {}", file.ino.0);
        assert!(matches!(&refused, FsError::Corrupt { object, .. } if *object == named));
        let (fs, recovered) =
            Filesystem::mount(sample.device(), MountMode::ReadOnly, None).unwrap();
        assert_eq!(recovered.corrupt, [file.ino]);
        assert!(matches!(fs.inode(file.ino), Err(FsError::Corrupt { .. })));
        let others = scan.inodes.iter().filter(|inode| inode.ino != file.ino);
        assert!(others.into_iter().all(|inode| fs.inode(inode.ino).is_ok()));
    });
}
