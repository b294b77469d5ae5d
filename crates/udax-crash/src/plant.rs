//! Plants faults: leaves out each flush and fence in turn, and sees whether anybody notices.
//!
//! A site that is never noticed is redundant, or no workload tests it.

use crate::record::record;
use crate::report::{Fault, Noticed, WorkloadReport};
use crate::run::{Options, run};
use crate::workload::Workload;
use std::collections::BTreeSet;
use udax_mm::recorder::LeftOut;

/// Every fault that the workloads of `reports` can have.
pub fn sites(reports: &[WorkloadReport]) -> BTreeSet<LeftOut> {
    reports.iter().flat_map(|report| report.sites.iter().copied()).collect()
}

/// Leaves out `left_out` in the workloads that reach it, cheap ones first, until it is noticed.
///
/// `reports` are those of `workloads`, in the same order.
pub fn plant(
    left_out: LeftOut,
    workloads: &[Workload],
    reports: &[WorkloadReport],
    options: Options,
) -> Fault {
    let mut reached: Vec<(&Workload, &WorkloadReport)> = workloads
        .iter()
        .zip(reports)
        .filter(|(_, report)| report.sites.contains(&left_out))
        .collect();
    reached.sort_by_key(|(_, report)| report.images.tried);
    let has_bad_image =
        |workload: &Workload| !run(workload, options, Some(left_out)).failures.is_empty();
    let by_image = reached.iter().find(|(workload, _)| has_bad_image(workload));
    let breaks_rule = |workload: &Workload| {
        record(workload, Some(left_out)).is_ok_and(|found| !found.trace.rules().lost.is_empty())
    };
    let noticed = match by_image {
        Some((workload, _)) => Some(Noticed::Image(workload.name.clone())),
        None => reached
            .iter()
            .find(|(workload, _)| breaks_rule(workload))
            .map(|(workload, _)| Noticed::Rule(workload.name.clone())),
    };
    Fault::new(left_out, noticed)
}
