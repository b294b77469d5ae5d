//! Points in time, as UTC.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// A time; shown to the minute, and in JSON to the nanosecond, in the form of RFC 3339.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(pub(crate) SystemTime);

/// A time of the Gregorian calendar.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
    nanos: i64,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { year, month, day, second_of_day: second, .. } = civil(self.0);
        let (hour, minute) = (second / 3600, second / 60 % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Civil { year, month, day, second_of_day: second, nanos } = civil(self.0);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        serializer.serialize_str(&format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z"
        ))
    }
}

/// Nanoseconds since 1970, limited to what 64 bits hold (the years 1678 to 2261).
fn nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    }
}

/// Counts years from the first of March, so that a leap day is the last day of its year.
fn civil(time: SystemTime) -> Civil {
    let nanos = nanos(time);
    let seconds = nanos.div_euclid(1_000_000_000);
    let days = seconds.div_euclid(86_400) + DAYS_BEFORE_1970;
    let era = days.div_euclid(DAYS_IN_ERA);
    let day = days.rem_euclid(DAYS_IN_ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    Civil {
        year: year + era * 400 + carry,
        month,
        day,
        second_of_day: seconds.rem_euclid(86_400),
        nanos: nanos.rem_euclid(1_000_000_000),
    }
}

/// From the first of March of the year 0 to the first of January 1970.
const DAYS_BEFORE_1970: i64 = 719_468;

/// The days of 400 years.
const DAYS_IN_ERA: i64 = 146_097;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seconds_since_1970_become_dates() {
        let cases = [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (951_868_800, "2000-03-01 00:00"),
            (1_704_067_199, "2023-12-31 23:59"),
            (4_107_542_400, "2100-03-01 00:00"),
        ];
        for (seconds, text) in cases {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(Moment(time).to_string(), text, "{seconds}");
        }
    }

    #[test]
    fn times_before_1970_are_dates_too() {
        let time = UNIX_EPOCH - Duration::from_nanos(1);
        let json = serde_json::to_string(&Moment(time)).unwrap();
        assert_eq!(json, "\"1969-12-31T23:59:59.999999999Z\"");
    }
}
