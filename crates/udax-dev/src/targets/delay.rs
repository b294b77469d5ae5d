//! `delay DEVICE START MILLISECONDS`: pages of one device, each access of which takes a while.

use crate::plan::{Plan, Way};
use crate::table::{Advice, Field, Placed, Problem};
use crate::targets::{Member, Rules};
use crate::{AccessError, DaxDevice, Route};
use std::thread;
use std::time::Duration;
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, Pages};

/// Pages of one device, each access of which takes a while (`dm-delay`).
///
/// What waits is the translation: each part of a copy, and each fault. A load of what is mapped
/// already cannot be delayed.
#[derive(Clone, Debug)]
pub struct Delay {
    member: Member,
    delay: Duration,
}

/// Where the pages of a delayed line go.
#[derive(Debug)]
pub(crate) struct Delayed {
    delay: Duration,
    pub(crate) plan: Plan,
}

impl Delay {
    /// The longest delay of a table: one that is longer looks like a hang.
    pub const MOST: Duration = Duration::from_mins(1);

    /// The pages of `device` from `from` on, `delay` late.
    pub fn new(device: Arc<dyn DaxDevice>, from: DeviceOff, delay: Duration) -> Delay {
        Delay { member: Member { device, from }, delay }
    }

    /// Refuses what cannot be the delay of a line.
    pub(crate) fn check_delay(delay: Duration) -> Result<(), (Field, Problem)> {
        if delay > Delay::MOST {
            return Err((Field::Argument(3), Problem::TooLate { delay }));
        }
        Ok(())
    }
}

impl Delayed {
    pub(crate) fn route(&self, at: DeviceOff, max: Pages) -> Result<Route, AccessError> {
        thread::sleep(self.delay);
        self.plan.route(at, max)
    }
}

impl Rules for Delay {
    fn name(&self) -> &'static str {
        "delay"
    }

    fn members(&self) -> &[Member] {
        std::slice::from_ref(&self.member)
    }

    fn check(&self, _pages: Pages) -> Result<(), (Field, Problem)> {
        Delay::check_delay(self.delay)
    }

    fn plan(&self, pages: Pages, _line: &str) -> Plan {
        let plan = self.member.plan(pages);
        let way = Delayed { delay: self.delay, plan };
        Plan::one(Way::Delayed(Arc::new(way)), &DeviceOff(0).span(pages))
    }

    fn advice(&self, line: &Placed<'_>) -> Option<Advice> {
        line.of_pages()
    }
}
