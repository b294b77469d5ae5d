//! A part of the crash enumeration that runs with every build: a few histories, with fewer images
//! of each epoch than `cargo xtask crash`.

use udax_crash::report::Report;
use udax_crash::run::{Options, run};
use udax_crash::workloads;

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
