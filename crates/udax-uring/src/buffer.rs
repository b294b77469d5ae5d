//! Fixed buffers: what the kernel may be given, and where it lies.

use std::ops::Range;

use udax::{Pin, PinKind};
use udax_mm::media::FileMedia;
use udax_mm::{Iovec, Media, PinTerm};

use crate::error::RegisterError;

/// Memory that stays mapped and belongs to nobody else for as long as the value exists.
///
/// Nobody else can implement it: what is registered must not move or be given up under the kernel.
/// A [`Pin`] is the one to use. A [`FileMedia`], the mapping of a whole file of the host, is here so
/// that udax can be compared with other files; it promises nothing about what the file does.
pub trait FixedBuffer: Sealed {}

/// The runs of addresses of a fixed buffer.
///
/// # Invariants
///
/// What `runs` returns is memory that this process has mapped, shared, from now on until the value
/// is dropped, also if it is moved meanwhile. If it is writable, nobody makes a reference of it.
pub trait Sealed {
    /// Where the bytes are, in order.
    #[doc(hidden)]
    fn runs(&self) -> Result<Vec<Run>, RegisterError>;

    /// Whether the kernel may store to the bytes.
    #[doc(hidden)]
    fn is_writable(&self) -> bool;

    /// For how long the bytes are promised.
    #[doc(hidden)]
    fn term(&self) -> PinTerm;
}

/// Bytes side by side in the address space of the process that registers them. One run is one
/// fixed buffer of the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    pub(crate) addr: usize,
    pub(crate) len: usize,
}

/// The part of a run that a request is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Piece {
    /// The number of the fixed buffer in the kernel's table.
    pub(crate) slot: u16,
    pub(crate) addr: usize,
    pub(crate) len: u32,
    /// Bytes between the start of the transfer and this piece.
    pub(crate) from: u64,
}

/// Where the buffers of a registration lie.
#[derive(Debug)]
pub(crate) struct Layout {
    buffers: Vec<Vec<(u16, Run)>>,
}

impl Run {
    /// The most that the kernel takes as one fixed buffer.
    const MAX: usize = 1 << 30;

    /// Cuts runs that are longer than the kernel takes.
    fn cut(self) -> impl Iterator<Item = Run> {
        (0..self.len)
            .step_by(Run::MAX)
            .map(move |from| Run { addr: self.addr + from, len: Run::MAX.min(self.len - from) })
    }

    fn of(iovec: Iovec) -> Run {
        Run { addr: iovec.start.as_ptr().expose_provenance(), len: iovec.len }
    }
}

impl Layout {
    /// Asks each buffer where it is. A ring is a device that may be late, so one that is promised for
    /// a call is refused (rule 35).
    pub(crate) fn of<B: FixedBuffer>(buffers: &[B]) -> Result<Layout, RegisterError> {
        if let Some(short) = buffers.iter().position(|buffer| buffer.term() == PinTerm::Short) {
            return Err(RegisterError::ShortTerm(short));
        }
        let runs: Result<_, _> = buffers.iter().map(B::runs).collect();
        Layout::of_runs(runs?)
    }

    /// Numbers the runs of each buffer.
    pub(crate) fn of_runs(buffers: Vec<Vec<Run>>) -> Result<Layout, RegisterError> {
        let mut layout = Layout { buffers: Vec::new() };
        let mut slots = 0..=u16::MAX;
        for runs in buffers {
            let runs = runs.into_iter().flat_map(Run::cut);
            let numbered = runs.map(|run| slots.next().map(|slot| (slot, run)));
            let numbered: Option<Vec<_>> = numbered.collect();
            layout.buffers.push(numbered.ok_or(RegisterError::TooMany)?);
        }
        Ok(layout)
    }

    /// Every run, in the order of its slot.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run> {
        self.buffers.iter().flatten().map(|(_, run)| *run)
    }

    /// The bytes of a buffer, if there is one of that number.
    pub(crate) fn len(&self, buffer: usize) -> Option<u64> {
        let runs = self.buffers.get(buffer)?;
        Some(runs.iter().map(|(_, run)| wide(run.len)).sum())
    }

    /// The pieces of a range that lies in the buffer.
    pub(crate) fn pieces(&self, buffer: usize, range: &Range<u64>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut start = 0;
        for (slot, run) in &self.buffers[buffer] {
            let end = start + wide(run.len);
            let (first, last) = (range.start.max(start), range.end.min(end));
            if first < last {
                let skip = usize::try_from(first - start).expect("it lies in the run");
                pieces.push(Piece {
                    slot: *slot,
                    addr: run.addr + skip,
                    len: u32::try_from(last - first).expect("a run has at most 1 GiB"),
                    from: first - range.start,
                });
            }
            start = end;
        }
        pieces
    }
}

impl FixedBuffer for Pin {}

impl Sealed for Pin {
    fn runs(&self) -> Result<Vec<Run>, RegisterError> {
        let runs: Vec<Run> = self.iovecs()?.into_iter().map(Run::of).collect();
        let range = self.range();
        let found: u64 = runs.iter().map(|run| wide(run.len)).sum();
        assert_eq!(found, range.end - range.start, "a pin has an address for each of its bytes");
        Ok(runs)
    }

    /// A file that is pinned for reading may be frozen, and then others have references of its
    /// bytes.
    fn is_writable(&self) -> bool {
        self.kind() == PinKind::Write
    }

    fn term(&self) -> PinTerm {
        self.term()
    }
}

impl FixedBuffer for FileMedia {}

impl Sealed for FileMedia {
    fn runs(&self) -> Result<Vec<Run>, RegisterError> {
        let start = self.address().expect("a file is mapped");
        let len = usize::try_from(self.len()).expect("a file is mapped");
        Ok(vec![Run::of(Iovec { start, len })])
    }

    fn is_writable(&self) -> bool {
        self.facts().is_writable
    }

    /// Nothing is recorded of it, and nobody gives its pages to others.
    fn term(&self) -> PinTerm {
        PinTerm::Long
    }
}

/// A number of bytes in memory as one of a file.
fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("usize has at most 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(buffers: &[&[(usize, usize)]]) -> Layout {
        let mut slots = 0..;
        let runs = |runs: &&[(usize, usize)]| {
            runs.iter()
                .map(|&(addr, len)| (slots.next().unwrap(), Run { addr, len }))
                .collect::<Vec<_>>()
        };
        Layout { buffers: buffers.iter().map(runs).collect() }
    }

    #[test]
    fn a_range_is_cut_where_runs_meet() {
        let layout = layout(&[&[(100, 10)], &[(200, 10), (500, 20), (300, 5)]]);
        let piece = |slot, addr, len, from| Piece { slot, addr, len, from };
        let cases = [
            (0, 0..10, vec![piece(0, 100, 10, 0)]),
            (0, 3..4, vec![piece(0, 103, 1, 0)]),
            (1, 0..10, vec![piece(1, 200, 10, 0)]),
            (1, 9..31, vec![piece(1, 209, 1, 0), piece(2, 500, 20, 1), piece(3, 300, 1, 21)]),
            (1, 10..30, vec![piece(2, 500, 20, 0)]),
            (1, 34..35, vec![piece(3, 304, 1, 0)]),
        ];
        for (buffer, range, pieces) in cases {
            assert_eq!(layout.pieces(buffer, &range), pieces, "{range:?} of buffer {buffer}");
        }
        assert_eq!((layout.len(0), layout.len(1), layout.len(2)), (Some(10), Some(35), None));
    }

    #[test]
    fn a_run_is_cut_into_what_the_kernel_takes() {
        let cut: Vec<Run> = Run { addr: 7, len: (2 << 30) + 1 }.cut().collect();
        let run = |addr, len| Run { addr, len };
        assert_eq!(cut, [run(7, 1 << 30), run(7 + (1 << 30), 1 << 30), run(7 + (2 << 30), 1)]);
    }
}
