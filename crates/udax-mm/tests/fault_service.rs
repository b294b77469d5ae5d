//! The threads of the fault service, in a process of their own so that they can be counted.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::io::Write;
use std::thread;

use udax_mm::sync::Arc;
use udax_mm::{Access, FaultService, FaultSink, Pages, Vma, VmaOff};

struct Silent;

impl FaultSink for Silent {
    fn fault(&self, _at: VmaOff, _access: Access) {}
}

/// Threads of this process whose name begins with `name`.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread that has just ended has no name.
    let names = tasks.filter_map(|task| std::fs::read(task.unwrap().path().join("comm")).ok());
    names.filter(|comm| comm.starts_with(name.as_bytes())).count()
}

#[test]
fn the_threads_end_with_the_service_and_its_last_vma() {
    let service = match FaultService::new() {
        Ok(service) => service,
        Err(error) => {
            // Past the capture of the test harness, so that it is seen.
            let _ = writeln!(std::io::stderr(), "SKIPPED, nothing is shown: {error}");
            return;
        }
    };
    let vma = Vma::reserve_lazy(Pages(4), &service, Arc::new(Silent)).unwrap();
    drop(service);
    vma.load_u64(0).unwrap_err();
    // A thread that has not run yet has the name of this one; one is enough to answer.
    while threads("udax-fault") < 2 {
        thread::yield_now();
    }
    assert_eq!(threads("udax-fault"), 2);

    drop(vma);
    // Nobody waits for the thread that calls sinks.
    while threads("udax-fault") > 0 {
        thread::yield_now();
    }
}
