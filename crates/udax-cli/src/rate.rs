//! Durations and rates as figures, in integers.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A duration, shown in seconds with three decimals, and in JSON as a number of seconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Elapsed(pub(crate) Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0.as_secs_f64())
    }
}

impl Serialize for Elapsed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

/// How often something happens in a second that happened `count` times in `time`.
pub(crate) fn per_second(count: u64, time: Duration) -> u64 {
    let nanos = time.as_nanos().max(1);
    u64::try_from(u128::from(count) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// The nanoseconds each of `count` things took that took `time` together.
pub(crate) fn nanos_each(count: u64, time: Duration) -> u64 {
    u64::try_from(time.as_nanos() / u128::from(count.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_counts_by_time() {
        assert_eq!(per_second(10, Duration::from_millis(100)), 100);
        assert_eq!(per_second(10, Duration::ZERO), 10_000_000_000);
        assert_eq!(nanos_each(1000, Duration::from_micros(5)), 5);
        assert_eq!(nanos_each(0, Duration::from_nanos(7)), 7);
    }
}
