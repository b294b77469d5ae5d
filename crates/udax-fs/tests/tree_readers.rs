//! Who looks where a file lies while other threads take nodes from its tree.
//!
//! A truncate frees them under the layout lock; a store to a page that the file shares frees the
//! node that held nothing but this page under the lock of the state alone. Who walked a copy of the
//! tree met nodes that were something else by then, and called the file corrupt.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::thread;

use common::{MIB, Pool, create, pattern, pin_info};
use udax_fs::{FreePolicy, FsError, Inode};
use udax_mm::sync::Arc;
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::{FileIndex, Pages, PinInfo, PinKind, PinTerm, Wait};

/// Pages of the file, each in a leaf node of its own.
const PAGES: u64 = 256;
/// From one to the next.
const STRIDE: u64 = 2 * MIB;
const ROUNDS: u64 = 20;

/// Says that a loop is over, also when the test fails.
#[derive(Default)]
struct Over(AtomicBool);

impl Over {
    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn at_end(&self) -> impl Drop + '_ {
        struct AtEnd<'o>(&'o AtomicBool);
        impl Drop for AtEnd<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        AtEnd(&self.0)
    }
}

fn page(number: u64) -> FileIndex {
    FileIndex::of_byte(number * STRIDE)
}

/// Gives the file a page of its own for each that it shares, as a store through a mapping does.
fn store_to_all(file: &Arc<Inode>) {
    let info = PinInfo { term: PinTerm::Short, ..pin_info("store", PinKind::Write) };
    // Not the first, which stays pinned.
    for number in 1..PAGES {
        drop(file.pin(page(number)..page(number) + Pages(1), info.clone()).unwrap());
    }
}

#[test]
fn stores_to_shared_pages_are_no_corruption_for_who_looks_where_the_file_lies() {
    let pool = Pool::new(16 * MIB);
    let fs = pool.mount();
    let (source, file) = (create(&fs, "source"), create(&fs, "file"));
    for number in 0..PAGES {
        source.write_at(&pattern(number, 4096), number * STRIDE).unwrap();
    }
    let len = source.attr().size;
    source.clone_range(0..len, &file, 0, Wait::Never).unwrap();
    let pin = file.pin(page(0)..page(0) + Pages(1), pin_info("reader", PinKind::Read)).unwrap();
    let over = Over::default();
    let is_pinned = || file.pins().iter().any(|pin| pin.info.owner.label == "reader".into());
    let last = (PAGES - 1) * STRIDE;
    thread::scope(|scope| {
        let _at_end = over.at_end();
        scope.spawn(|| {
            while !over.is_over() {
                assert!(is_pinned());
                assert!(file.extents().unwrap().len() > 1);
                assert_eq!(file.seek_data(last - 5000).unwrap(), Some(last));
                assert_eq!(file.bad_ranges().unwrap(), []);
            }
        });
        for _ in 0..ROUNDS {
            store_to_all(&file);
            source.clone_range(0..len, &file, 0, Wait::Forever).unwrap();
        }
    });
    drop(pin);
    fs.verify().unwrap();
}

#[test]
fn an_allocation_beside_a_truncate_finds_no_corruption() {
    let pool = Pool::new(4 * MIB);
    let fs = pool.mount();
    let (file, other) = (create(&fs, "file"), create(&fs, "other"));
    let over = Over::default();
    thread::scope(|scope| {
        let _at_end = over.at_end();
        scope.spawn(|| {
            while !over.is_over() {
                // More than the pool has, as soon as there is a byte.
                match file.allocate_within(0..PAGES * STRIDE) {
                    Ok(()) | Err(FsError::NoSpace { .. }) => (),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        for round in 0..5 * ROUNDS {
            for number in (0..PAGES).rev() {
                file.write_at(&[1; 8], number * STRIDE).unwrap();
            }
            file.truncate(0, FreePolicy::Wait(Wait::Forever)).unwrap();
            // Takes the pages of the nodes.
            other.write_at(&pattern(round, PAGES * 4096), 0).unwrap();
            other.truncate(0, FreePolicy::Wait(Wait::Forever)).unwrap();
        }
    });
    fs.verify().unwrap();
}
