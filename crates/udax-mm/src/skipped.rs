//! How a test of this crate says that it skips.

use std::fmt::Display;
use std::io::{Write, stderr};

/// Says that a test shows nothing on this host, past the capture of the test harness.
pub(crate) fn skipped(why: impl Display) {
    let _ = writeln!(stderr(), "SKIPPED, nothing is shown: {why}");
}
