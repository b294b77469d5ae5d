//! `error` and `zero`: targets over no device.

use crate::NoDax;
use crate::plan::{Plan, Way};
use crate::targets::Rules;
use udax_mm::{DeviceOff, Pages};

/// Every access fails (`dm-error`).
pub(super) struct Error;
/// Reads as zeros, forgets what is stored (`dm-zero`).
pub(super) struct Zero;

pub(super) const ERROR: Error = Error;
pub(super) const ZERO: Zero = Zero;

impl Rules for Error {
    fn name(&self) -> &'static str {
        "error"
    }

    fn plan(&self, pages: Pages, line: &str) -> Plan {
        Plan::one(Way::Fails(line.into()), &DeviceOff(0).span(pages))
    }
}

impl Rules for Zero {
    fn name(&self) -> &'static str {
        "zero"
    }

    fn dax(&self) -> Result<(), NoDax> {
        Err(NoDax { reason: "it forgets what is stored, which memory cannot do".into() })
    }

    fn plan(&self, pages: Pages, _line: &str) -> Plan {
        Plan::one(Way::Zeros, &DeviceOff(0).span(pages))
    }
}
