//! Transfers: what the caller asked for, made of one request for each run of addresses.

use std::io;

/// A transfer of a registration.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TransferId(pub(crate) u64);

/// The end of a transfer.
#[derive(Debug)]
pub struct Completion {
    /// Which one.
    pub transfer: TransferId,
    /// How many bytes were moved, from the start of the range on and without a gap; less than were
    /// asked for at the end of the file. Or the first error.
    pub result: io::Result<u64>,
}

/// A transfer under way.
#[derive(Debug)]
pub(crate) struct Progress {
    /// What each request returned, in the order of the range.
    parts: Vec<Part>,
    open: usize,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    wanted: u32,
    /// A number of bytes, or an errno below zero.
    result: i32,
}

impl Progress {
    /// A transfer in pieces of these lengths.
    pub(crate) fn new(lengths: impl Iterator<Item = u32>) -> Progress {
        let parts: Vec<Part> = lengths.map(|wanted| Part { wanted, result: 0 }).collect();
        Progress { open: parts.len(), parts }
    }

    /// Notes what the request for the piece `part` returned. True once all have.
    pub(crate) fn note(&mut self, part: usize, result: i32) -> bool {
        self.parts[part].result = result;
        self.open -= 1;
        self.open == 0
    }

    /// What the transfer came to.
    pub(crate) fn result(&self) -> io::Result<u64> {
        let mut moved = 0;
        let mut is_whole = true;
        for part in &self.parts {
            let Ok(bytes) = u32::try_from(part.result) else {
                return Err(io::Error::from_raw_os_error(-part.result));
            };
            if is_whole {
                moved += u64::from(bytes);
            }
            is_whole &= bytes == part.wanted;
        }
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pieces of 10 bytes, and what their requests returned.
    fn result(first: i32, second: i32) -> Result<u64, i32> {
        let mut progress = Progress::new([10, 10].into_iter());
        assert!(!progress.note(1, second));
        assert!(progress.note(0, first));
        progress.result().map_err(|error| error.raw_os_error().unwrap())
    }

    #[test]
    fn a_transfer_counts_bytes_without_a_gap_and_reports_the_first_error() {
        assert_eq!(result(10, 10), Ok(20));
        assert_eq!(result(10, 4), Ok(14));
        assert_eq!(result(4, 10), Ok(4));
        assert_eq!(result(0, 0), Ok(0));
        assert_eq!(result(10, -5), Err(5));
        assert_eq!(result(-5, -14), Err(5));
    }
}
