//! `udax pins`: which processes hold pages of a pool for devices, and which died with some.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use udax::{PinKind, Pool, RecordedPin};

use crate::moment::Moment;
use crate::opening::InPool;
use crate::output::{Human, Name, Output};
use crate::size::human;

/// Show who holds pages of a pool for devices, and who died with some.
///
/// Works while another process has the pool open, and changes nothing. A pin is "held" while its
/// process has the pool open. If that died, the pages are in "quarantine": no other file gets them,
/// because a device may still reach them, until `udax release` or the next start of the host.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax pins data.udax
  udax pins --json data.udax | jq '.pins[] | select(.state == \"quarantine\")'")]
pub(crate) struct PinsArgs {
    /// The pool.
    pool: PathBuf,
}

/// What `pins` prints.
#[derive(Debug, Serialize)]
struct Pins {
    #[serde(flatten)]
    path: Name,
    pins: Vec<PinFacts>,
}

/// One pin; sizes in bytes.
#[derive(Debug, Serialize)]
pub(crate) struct PinFacts {
    state: &'static str,
    label: String,
    process: u32,
    alive: bool,
    /// What the device does.
    device: &'static str,
    since: Moment,
    bytes: u64,
    /// Those of them that no file has, where the pool was opened.
    withheld: u64,
    ranges: Vec<DeviceRange>,
}

/// Where pages of a pin lie in the pool, in bytes.
#[derive(Debug, Serialize)]
struct DeviceRange {
    device: u64,
    len: u64,
}

impl PinsArgs {
    /// Prints every pin that the pool names.
    ///
    /// # Errors
    ///
    /// Returns why the pool cannot be read.
    pub(crate) fn run(&self, out: &mut Output) -> anyhow::Result<()> {
        let pins = Pool::recorded_pins(&self.pool).of(&self.pool)?;
        let path = Name::new(self.pool.as_os_str());
        Ok(out.facts(&Pins { path, pins: pins.iter().map(PinFacts::of).collect() })?)
    }
}

impl PinFacts {
    /// What is known of `pin`.
    pub(crate) fn of(pin: &RecordedPin) -> PinFacts {
        let ranges = pin.ranges().into_iter();
        PinFacts {
            state: if pin.is_quarantined() { "quarantine" } else { "held" },
            label: pin.label().to_owned(),
            process: pin.process(),
            alive: pin.is_owner_alive(),
            device: match pin.kind() {
                PinKind::Read => "reads",
                PinKind::Write => "writes",
            },
            since: Moment(pin.since()),
            bytes: pin.pages().bytes(),
            withheld: pin.withheld().bytes(),
            ranges: ranges
                .map(|range| DeviceRange {
                    device: range.start.byte(),
                    len: range.end.byte() - range.start.byte(),
                })
                .collect(),
        }
    }

    /// Writes who holds how much for what, without an end of the line.
    pub(crate) fn line(&self, out: &mut dyn Write) -> io::Result<()> {
        let PinFacts { label, process, alive, device, since, .. } = self;
        let bytes = human(self.bytes);
        write!(out, "{bytes:>12}  a device of {} {device}", label.escape_debug())?;
        let state = if *alive { "" } else { ", which is gone" };
        write!(out, ", since {since}, for process {process}{state}")
    }
}

impl Human for Pins {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.pins.is_empty() {
            return writeln!(out, "no long-term pins");
        }
        for pin in &self.pins {
            write!(out, "{:<10}", pin.state)?;
            pin.line(out)?;
            writeln!(out)?;
        }
        Ok(())
    }
}
