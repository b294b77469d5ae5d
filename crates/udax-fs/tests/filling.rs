//! A fault that fills a hole, stopped on its way: others find the data before it is shown, and nobody
//! moves it.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use common::pause::Pause;
use common::{MIB, Pool, contents, create};
use std::thread::{self, yield_now};
use udax_fs::FreePolicy;
use udax_mapping::{MapMode, Populate};
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::{Access, FileIndex, Order, Pages, Wait};

fn mode(access: Access) -> MapMode {
    MapMode { access, populate: Populate::Eager, ..MapMode::default() }
}

/// B-12: the bytes of a write that is done are seen by every mapping, also in a page that a fault has
/// just made.
#[test]
fn a_write_beside_a_fault_that_fills_a_hole_is_seen_by_every_mapping() {
    let fs = Pool::new(16 * MIB).mount();
    let file = create(&fs, "a");
    file.truncate(4 * MIB, FreePolicy::Wait(Wait::Never)).unwrap();
    let reader = file.map(FileIndex(0), Pages(32), mode(Access::Read)).unwrap();
    let page = |index: u64| {
        let mut byte = [0];
        reader.vma().read(index * 4096, &mut byte).unwrap();
        byte[0]
    };
    assert_eq!(page(16), 0);
    let (pause, is_reached, go_on) = Pause::at("dax_insert_mapping");

    thread::scope(|scope| {
        // Dropped if an assertion fails, so that the other thread ends.
        let go_on = go_on;
        let filler = scope.spawn(|| {
            let map = || file.map(FileIndex(3), Pages(1), mode(Access::Write)).map(drop);
            tracing::subscriber::with_default(pause, map).unwrap();
        });
        is_reached.recv().unwrap();
        let extents = file.extents().unwrap();
        assert_eq!(
            (extents[0].index, extents[0].order),
            (FileIndex(0), Order::Pmd),
            "all is filled"
        );
        file.write_at(&[133], 16 * 4096).unwrap();
        assert_eq!(page(16), 133);
        go_on.send(()).unwrap();
        filler.join().unwrap();
    });
    assert_eq!(page(16), 133);
    fs.verify().unwrap();
}

/// O-4: the kernel makes the block of a synchronous store durable, and then shows the page that it has
/// noted down without a look at the entry. Here nobody moves the page in between.
#[test]
fn the_block_that_was_made_durable_is_the_one_that_is_shown() {
    const AT: u64 = 3 * 4096;
    let fs = Pool::new(8 * MIB).mount();
    let (file, other) = (create(&fs, "a"), create(&fs, "b"));
    file.truncate(16 * 4096, FreePolicy::Wait(Wait::Never)).unwrap();
    // The durable answer is there, the page is not.
    let (in_fault, is_answered, show) = Pause::at("dax_pte_fault");
    let (in_punch, is_breaking, go_on) = Pause::at("dax_break_layout");
    go_on.send(()).unwrap();
    let is_moved = AtomicBool::new(false);

    let mapped = thread::scope(|scope| {
        let show = show;
        let storer = scope.spawn(|| {
            let map = || file.map(FileIndex(3), Pages(1), mode(Access::Write));
            tracing::subscriber::with_default(in_fault, map).unwrap()
        });
        is_answered.recv().unwrap();
        let mover = scope.spawn(|| {
            let punch = || file.punch(AT..AT + 4096, FreePolicy::Wait(Wait::Never)).unwrap();
            tracing::subscriber::with_default(in_punch, punch);
            // The block goes to another file, and this one gets a new one.
            other.write_at(&[2; 4096], 0).unwrap();
            file.write_at(&[1; 4096], AT).unwrap();
            is_moved.store(true, Ordering::Release);
        });
        is_breaking.recv().unwrap();
        for _ in 0..1000 {
            yield_now();
            assert!(!is_moved.load(Ordering::Acquire), "O-4: the fault is not through");
        }
        show.send(()).unwrap();
        mover.join().unwrap();
        storer.join().unwrap()
    });

    let mut bytes = [0; 4096];
    mapped.vma().read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [1; 4096], "the page of the entry is shown");
    mapped.vma().write(0, &[3; 4096]).unwrap();
    assert!(contents(&other) == [2; 4096], "O-4: a store reaches no other file");
    assert_eq!(contents(&file)[3 * 4096], 3);
    fs.verify().unwrap();
}
