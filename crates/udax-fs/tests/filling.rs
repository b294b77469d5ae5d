//! A fault that fills a hole makes more pages data than it shows. Until it is through, others find them.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod common;

use common::{MIB, Pool, create};
use std::thread;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use udax_fs::FreePolicy;
use udax_mapping::{MapMode, Populate};
use udax_mm::sync::{Mutex, mpsc};
use udax_mm::{Access, FileIndex, Order, Pages, Wait};

/// Stops its thread when a folio is shown the first time, until it may go on.
struct Pause {
    reached: Mutex<Option<mpsc::Sender<()>>>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Subscriber for Pause {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "udax_mapping"
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if event.metadata().name() != "dax_insert_mapping" {
            return;
        }
        if let Some(reached) = self.reached.lock().take() {
            reached.send(()).unwrap();
            self.go_on.lock().recv().unwrap();
        }
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

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
    let (reached, is_reached) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let pause = Pause { reached: Mutex::new(Some(reached)), go_on: Mutex::new(may_go_on) };

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
