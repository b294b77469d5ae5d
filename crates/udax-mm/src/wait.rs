//! How long a caller is ready to wait, and the queues it waits in.

use std::time::Instant;

/// How long to wait for what stands in the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// Not at all: an error says at once what stands in the way.
    Never,
    /// Until this moment; then an error says what still stands in the way.
    Until(Instant),
    /// For as long as it takes.
    Forever,
}
