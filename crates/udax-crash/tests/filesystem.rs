//! A part of the crash enumeration that runs with every build: a few histories, with fewer images
//! of each epoch than `cargo xtask crash`.

use udax_crash::plant::{plant, sites};
use udax_crash::report::Report;
use udax_crash::run::{Options, run};
use udax_crash::workload::Workload;
use udax_crash::workloads;
use udax_mm::recorder::LeftOut;

#[test]
fn every_crash_image_mounts_and_equals_an_allowed_tree() {
    let mut report = Report::default();
    for workload in workloads::smoke() {
        report.add(run(&workload, Options::smoke(1), None));
    }
    assert!(report.is_good(), "{report}");
    assert!(report.images.tried > 1000, "{report}");
    assert!(report.recoveries.tried > 1000, "{report}");
}

/// F-27: a page appears only after its block is durable, so whoever flushes what it has stored there
/// needs no call. If the order is broken, the store is gone.
#[test]
fn a_synchronous_store_needs_every_fence_before_its_page_appears() {
    let is_wanted = |workload: &Workload| workload.name == workloads::SYNCHRONOUS;
    let workload = workloads::smoke().into_iter().find(is_wanted).unwrap();
    let report = run(&workload, Options::smoke(1), None);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let workloads = std::slice::from_ref(&workload);
    let reports = std::slice::from_ref(&report);
    for site in sites(reports) {
        let LeftOut::Fence(place) = site else { continue };
        // What the last handle of a file does is for stores that nobody has flushed.
        if place.file().ends_with("mapped.rs") {
            continue;
        }
        let fault = plant(site, workloads, reports, Options::smoke(1));
        assert!(fault.noticed.is_some(), "nobody needs the fence at {}", fault.site);
    }
}
