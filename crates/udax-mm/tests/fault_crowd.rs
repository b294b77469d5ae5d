//! Many faults at once: one that waits keeps none of the others from being answered.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::io::Write;
use std::thread;
use udax_mm::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
use udax_mm::{Access, FaultService, FaultSink, MediaError, PAGE_SIZE, Pages, Vma, VmaOff};

/// The service, or none if the host permits none.
fn service() -> Option<FaultService> {
    let refused = |error: &std::io::Error| {
        // Past the capture of the test harness, so that it is seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED, nothing is shown: {error}");
    };
    FaultService::new().inspect_err(refused).ok()
}

/// Holds up the faults of the pages before `open`, and answers all with a hole.
#[derive(Default)]
struct Gate {
    vma: OnceLock<Weak<Vma>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Pages whose faults wait, in the order in which they came.
    held: Vec<u64>,
    /// Pages from here on are not held up.
    open: u64,
}

impl FaultSink for Gate {
    fn fault(&self, at: VmaOff, _access: Access) {
        let mut state = self.state.lock();
        if at.0 < state.open {
            state.held.push(at.0);
            self.changed.notify_all();
        }
        while at.0 < state.open {
            state = self.changed.wait(state);
        }
        drop(state);
        if let Some(vma) = self.vma.get().and_then(Weak::upgrade) {
            vma.map_hole(at, Pages(1)).unwrap();
        }
    }
}

impl Gate {
    /// A vma whose first `held` pages are held up.
    fn new(service: &FaultService, pages: u64, held: u64) -> (Arc<Gate>, Arc<Vma>) {
        let gate = Arc::new(Gate::default());
        gate.state.lock().open = held;
        let vma = Arc::new(Vma::reserve_lazy(Pages(pages), service, gate.clone()).unwrap());
        gate.vma.set(Arc::downgrade(&vma)).unwrap();
        (gate, vma)
    }

    fn wait_until_held(&self, count: usize) {
        let mut state = self.state.lock();
        while state.held.len() < count {
            state = self.changed.wait(state);
        }
    }

    fn open(&self) {
        self.state.lock().open = 0;
        self.changed.notify_all();
    }
}

fn load(vma: &Vma, page: u64) -> Result<u64, MediaError> {
    vma.load_u64(Pages(page).bytes())
}

#[test]
fn a_fault_that_waits_keeps_no_other_page_from_being_answered() {
    let Some(service) = service() else { return };
    let (gate, vma) = Gate::new(&service, 4, 1);
    let (_other_gate, other) = Gate::new(&service, 4, 0);
    thread::scope(|scope| {
        let held = scope.spawn(|| load(&vma, 0).unwrap());
        gate.wait_until_held(1);

        assert_eq!(load(&vma, 1).unwrap(), 0, "another page of the vma");
        assert_eq!(load(&other, 0).unwrap(), 0, "a page of another vma");
        vma.zap(VmaOff(1), Pages(1)).unwrap();
        assert_eq!(load(&vma, 1).unwrap(), 0, "it was taken back, and faults again");

        assert!(!held.is_finished());
        gate.open();
        assert_eq!(held.join().unwrap(), 0);
    });
}

/// Two threads that touch one page may be served at once, and each is woken.
#[test]
fn two_faults_of_one_page_are_both_answered() {
    let Some(service) = service() else { return };
    let (gate, vma) = Gate::new(&service, 1, 1);
    thread::scope(|scope| {
        let touches = [(); 2].map(|()| scope.spawn(|| load(&vma, 0).unwrap()));
        gate.wait_until_held(2);
        gate.open();
        assert_eq!(touches.map(|touch| touch.join().unwrap()), [0, 0]);
    });
}

/// More faults wait than threads serve: messages are read all the same, so a zap goes on, and what
/// waits for its turn gets it.
#[test]
fn a_zap_goes_on_while_as_many_faults_wait_as_may() {
    const SERVED: usize = 64;
    const FAULTS: u64 = 70;
    let Some(service) = service() else { return };
    let (gate, vma) = Gate::new(&service, FAULTS + 2, FAULTS);
    thread::scope(|scope| {
        let vma = &vma;
        let touches: Vec<_> =
            (0..FAULTS).map(|page| scope.spawn(move || load(vma, page).unwrap())).collect();
        gate.wait_until_held(SERVED);

        vma.zap(VmaOff(FAULTS), Pages(2)).unwrap();

        assert_eq!(gate.state.lock().held.len(), SERVED);
        gate.open();
        for touch in touches {
            assert_eq!(touch.join().unwrap(), 0);
        }
    });
    assert_eq!(vma.read(0, &mut vec![1; PAGE_SIZE]).ok(), Some(()));
}

/// Each thread has its fault answered though the mapping goes at the same time.
#[test]
fn a_vma_may_be_dropped_while_many_of_its_faults_are_answered() {
    let Some(service) = service() else { return };
    let (gate, vma) = Gate::new(&service, 8, 8);
    thread::scope(|scope| {
        let touches: Vec<_> = (0..8)
            .map(|page| {
                let vma = Arc::clone(&vma);
                scope.spawn(move || load(&vma, page))
            })
            .collect();
        gate.wait_until_held(8);
        drop(service);
        drop(vma);
        gate.open();
        for touch in touches {
            assert_eq!(touch.join().unwrap().unwrap(), 0);
        }
    });
}

/// Maps the whole vma when it is asked for the second page, and nothing for the first.
struct Whole {
    vma: OnceLock<Weak<Vma>>,
    asked: Mutex<Vec<u64>>,
    changed: Condvar,
}

impl FaultSink for Whole {
    fn fault(&self, at: VmaOff, _access: Access) {
        let mut asked = self.asked.lock();
        asked.push(at.0);
        self.changed.notify_all();
        while asked.len() < 2 {
            asked = self.changed.wait(asked);
        }
        if at.0 == 1
            && let Some(vma) = self.vma.get().and_then(Weak::upgrade)
        {
            vma.map_hole(VmaOff(0), Pages(2)).unwrap();
            asked.push(2);
            self.changed.notify_all();
        }
        while asked.len() < 3 {
            asked = self.changed.wait(asked);
        }
    }
}

/// What one sink maps answers the faults of others, which leave no void over it.
#[test]
fn a_sink_may_answer_for_other_faults() {
    let Some(service) = service() else { return };
    let (vma, asked, changed) = (OnceLock::new(), Mutex::default(), Condvar::new());
    let sink = Arc::new(Whole { vma, asked, changed });
    let vma = Arc::new(Vma::reserve_lazy(Pages(2), &service, sink.clone()).unwrap());
    sink.vma.set(Arc::downgrade(&vma)).unwrap();
    thread::scope(|scope| {
        let touches = [0, 1].map(|page| {
            let vma = &vma;
            scope.spawn(move || load(vma, page).unwrap())
        });
        assert_eq!(touches.map(|touch| touch.join().unwrap()), [0, 0]);
    });
}
