//! Sizes as people write them: `4G`, `512M`, `64KiB`, `4096`; and bytes as people read them.
//!
//! Units follow GNU: `K`, `M`, `G`, `T` and their `KiB` forms are powers of 1024, `KB`, `MB`, `GB`
//! and `TB` are powers of 1000. Case does not matter.

use std::str::FromStr;

/// A number of bytes greater than zero, given on the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Size(u64);

/// Why a text is no size.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum SizeError {
    /// No digit at the start.
    #[error("it does not start with a number; write a size as 4G, 512M or 64KiB")]
    NoNumber,
    /// Digits, then something that is no unit.
    #[error("`{0}` is not a unit; use K, M, G or T (powers of 1024) or KB, MB, GB or TB")]
    UnknownUnit(String),
    /// A fraction of a unit.
    #[error("a size is a whole number; write 1536M for 1.5G")]
    Fraction,
    /// Zero bytes.
    #[error("a size of zero holds nothing; give at least one byte")]
    Zero,
    /// More than 2^64 - 1 bytes.
    #[error("it is larger than 16 EiB; give a smaller size")]
    TooLarge,
}

impl Size {
    /// The number of bytes.
    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Size, SizeError> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(SizeError::NoNumber);
        }
        let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
        if unit.starts_with(['.', ',']) {
            return Err(SizeError::Fraction);
        }
        let factor = factor(unit).ok_or_else(|| SizeError::UnknownUnit(unit.to_owned()))?;
        match number.checked_mul(factor) {
            Some(0) => Err(SizeError::Zero),
            Some(bytes) => Ok(Size(bytes)),
            None => Err(SizeError::TooLarge),
        }
    }
}

/// The bytes in one `unit`.
fn factor(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    let Some(prefix) = unit.chars().next() else { return Some(1) };
    if unit == "b" {
        return Some(1);
    }
    let power = match prefix {
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        _ => return None,
    };
    match unit.get(1..)? {
        "" | "ib" => Some(1024_u64.pow(power)),
        "b" => Some(1000_u64.pow(power)),
        _ => None,
    }
}

/// Renders `bytes` with the largest binary unit that leaves at least one: `1.5 MiB`.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut shift = 0_u32;
    let mut unit = "B";
    for name in UNITS {
        if bytes >> shift < 1024 {
            break;
        }
        shift += 10;
        unit = name;
    }
    if shift == 0 {
        return format!("{bytes} B");
    }
    let whole = bytes >> shift;
    let tenths = ((bytes >> (shift - 10)) & 1023) * 10 / 1024;
    format!("{whole}.{tenths} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024_unless_they_end_in_a_bare_b() {
        let cases = [
            ("4096", 4096),
            ("7b", 7),
            ("64KiB", 64 << 10),
            ("512M", 512 << 20),
            ("4G", 4 << 30),
            ("4gib", 4 << 30),
            ("2T", 2 << 40),
            ("3KB", 3000),
            ("1MB", 1_000_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_named() {
        let cases = [
            ("", SizeError::NoNumber),
            ("G", SizeError::NoNumber),
            ("-1G", SizeError::NoNumber),
            ("0", SizeError::Zero),
            ("0K", SizeError::Zero),
            ("4X", SizeError::UnknownUnit("X".to_owned())),
            ("4 G", SizeError::UnknownUnit(" G".to_owned())),
            ("1.5G", SizeError::Fraction),
            ("1,5G", SizeError::Fraction),
            ("4€", SizeError::UnknownUnit("€".to_owned())),
            ("4K€", SizeError::UnknownUnit("K€".to_owned())),
            ("18446744073709551616", SizeError::TooLarge),
            ("99999999999T", SizeError::TooLarge),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Size>(), Err(error), "{text}");
        }
    }

    #[test]
    fn bytes_are_shown_with_one_decimal_of_the_largest_unit() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
    }
}
