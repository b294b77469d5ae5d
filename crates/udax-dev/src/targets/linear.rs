//! `linear DEVICE START`: pages of one device, in order.

use crate::DaxDevice;
use crate::plan::Plan;
use crate::table::{Advice, Placed};
use crate::targets::{Member, Rules};
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, Pages};

/// Pages of one device, in order (`dm-linear`).
#[derive(Clone, Debug)]
pub struct Linear {
    member: Member,
}

impl Linear {
    /// The pages of `device` from `from` on.
    pub fn new(device: Arc<dyn DaxDevice>, from: DeviceOff) -> Linear {
        Linear { member: Member { device, from } }
    }
}

impl Rules for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn members(&self) -> &[Member] {
        std::slice::from_ref(&self.member)
    }

    fn plan(&self, pages: Pages, _line: &str) -> Plan {
        self.member.plan(pages)
    }

    fn advice(&self, line: &Placed<'_>) -> Option<Advice> {
        line.of_pages()
    }
}
