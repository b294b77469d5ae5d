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

/// Workloads whose images are tried before the rules are asked, which take less time and say less.
const FIRST: usize = 40;

/// Leaves out `left_out` in the workloads that reach it, quick ones first, until it is noticed.
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
    reached.sort_by(|(_, one), (_, other)| one.seconds.total_cmp(&other.seconds));
    let reached: Vec<&Workload> = reached.into_iter().map(|(workload, _)| workload).collect();
    let (first, rest) = reached.split_at(FIRST.min(reached.len()));
    let has_bad_image =
        |workload: &Workload| !run(workload, options, Some(left_out)).failures.is_empty();
    let by_image = |workloads: &[&Workload]| {
        let found = workloads.iter().find(|workload| has_bad_image(workload))?;
        Some(Noticed::Image(found.name.clone()))
    };
    let breaks_rule = |workload: &Workload| {
        record(workload, Some(left_out)).is_ok_and(|found| !found.trace.rules().lost.is_empty())
    };
    let by_rule = || {
        let found = reached.iter().find(|workload| breaks_rule(workload))?;
        Some(Noticed::Rule(found.name.clone()))
    };
    let noticed = by_image(first).or_else(by_rule).or_else(|| by_image(rest));
    Fault::new(left_out, noticed)
}
