//! What a line of a table can do with its pages: one file for each target.

mod delay;
mod linear;
mod log_writes;
mod simple;
mod striped;

pub use delay::Delay;
pub use linear::Linear;
pub use log_writes::{EventSink, LogWrites};
pub use striped::Striped;

pub(crate) use delay::Delayed;
pub(crate) use log_writes::Tap;
pub(crate) use striped::Stripes;

use crate::plan::Plan;
use crate::table::{Advice, Field, Placed, Problem};
use crate::{DaxDevice, NoDax};
use simple::{ERROR, ZERO};
use std::ops::Range;
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, Pages};

/// What a line of a table does with its pages (the targets of device-mapper).
#[derive(Clone, Debug)]
pub enum Target {
    /// Pages of one device, in order.
    Linear(Linear),
    /// Pages of several devices, in turns.
    Striped(Striped),
    /// Every access fails.
    Error,
    /// Reads as zeros and forgets what is stored. Memory cannot do that, so a table with such a line
    /// has no direct access.
    Zero,
    /// Pages of one device, each access of which takes a while.
    Delay(Delay),
    /// Pages of one device, the stores to which are recorded.
    LogWrites(LogWrites),
}

/// Pages of a device below a table: as many as the line needs, from one of them on.
#[derive(Clone, Debug)]
pub struct Member {
    /// The device.
    pub device: Arc<dyn DaxDevice>,
    /// Its first page that the line takes.
    pub from: DeviceOff,
}

/// What every target has to say.
pub(crate) trait Rules {
    /// Its name in a table.
    fn name(&self) -> &'static str;

    /// The devices below, in the order of the arguments.
    fn members(&self) -> &[Member] {
        &[]
    }

    /// The argument that says from which page on the line takes a member.
    fn argument_of(&self, _member: usize) -> Field {
        Field::Argument(2)
    }

    /// Refuses arguments that do not fit a line of `pages` pages, which is not empty.
    fn check(&self, _pages: Pages) -> Result<(), (Field, Problem)> {
        Ok(())
    }

    /// How many pages of each member a line of `pages` pages takes.
    fn pages_below(&self, pages: Pages) -> Pages {
        pages
    }

    /// How many pages of a line of `pages` pages lie side by side below, and what says so.
    fn run(&self, pages: Pages) -> (Field, Pages) {
        (Field::Length, pages)
    }

    /// Where pages of a member, counted from its first, lie in the line.
    fn up(&self, _member: usize, below: &Range<DeviceOff>) -> Vec<Range<DeviceOff>> {
        vec![below.clone()]
    }

    /// Whether the target has direct access, if the members have it.
    fn dax(&self) -> Result<(), NoDax> {
        Ok(())
    }

    /// Where a line of `pages` pages goes. `line` names it, for errors.
    fn plan(&self, pages: Pages, line: &str) -> Plan;

    /// What keeps huge folios out of a line of it, and what would let them in.
    fn advice(&self, _line: &Placed<'_>) -> Option<Advice> {
        None
    }
}

impl Target {
    pub(crate) fn rules(&self) -> &dyn Rules {
        match self {
            Target::Linear(linear) => linear,
            Target::Striped(striped) => striped,
            Target::Error => &ERROR,
            Target::Zero => &ZERO,
            Target::Delay(delay) => delay,
            Target::LogWrites(log) => log,
        }
    }

    /// Its name in a table.
    pub fn name(&self) -> &'static str {
        self.rules().name()
    }

    /// The devices below, in the order of the arguments.
    pub fn members(&self) -> &[Member] {
        self.rules().members()
    }
}

impl Member {
    /// The `pages` pages from its first on.
    pub(crate) fn range(&self, pages: Pages) -> Range<DeviceOff> {
        self.from.span(pages)
    }

    pub(crate) fn plan(&self, pages: Pages) -> Plan {
        Plan::of(&self.device, &self.range(pages))
    }
}
