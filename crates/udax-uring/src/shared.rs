//! Buffers of one process in the ring of another: a device that outlives who uses it.

use std::os::fd::BorrowedFd;

use crate::buffer::{FixedBuffer, Layout, Run};
use crate::error::RegisterError;
use crate::ring::Refused;
use crate::table;

/// A buffer that another process registers: where it lies there.
///
/// The addresses are numbers here. Nothing is read or written through them; the kernel compares them
/// with what is registered.
///
/// ```
/// use udax_uring::Foreign;
/// let foreign = Foreign::at(vec![(0x7000_0000, 4096)]);
/// assert_eq!(foreign.runs(), [(0x7000_0000, 4096)]);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Foreign {
    runs: Vec<(usize, usize)>,
}

/// Registers `buffers` with the ring that another process made and uses, for as long as this
/// process lives, and longer if that one keeps the ring.
///
/// The buffers are never dropped: the other process may use them at any time. Returns where they
/// lie, for [`Ring::adopt`](crate::Ring::adopt) over there.
///
/// # Errors
///
/// Gives the buffers back if the kernel refuses them, `ring` is no ring, or one of them is pinned
/// for reading or for [`PinTerm::Short`](udax::PinTerm::Short).
pub fn lend<B: FixedBuffer>(ring: BorrowedFd<'_>, buffers: Vec<B>) -> Result<Foreign, Refused<B>> {
    let layout = match Layout::of(&buffers) {
        Ok(layout) => layout,
        Err(error) => return Err(Refused { buffers, error }),
    };
    if let Some(read_only) = buffers.iter().position(|buffer| !buffer.is_writable()) {
        return Err(Refused { buffers, error: RegisterError::ReadOnly(read_only) });
    }
    let runs: Vec<Run> = layout.runs().collect();
    match table::register_for_good(ring, buffers, &runs) {
        Ok(()) => Ok(Foreign { runs: runs.iter().map(|run| (run.addr, run.len)).collect() }),
        Err((buffers, error)) => Err(Refused { buffers, error: RegisterError::of(error) }),
    }
}

impl Foreign {
    /// A buffer that lies, one after the other, at these addresses of the other process, each with
    /// its length.
    pub fn at(runs: Vec<(usize, usize)>) -> Foreign {
        Foreign { runs }
    }

    /// Addresses and lengths, in order.
    pub fn runs(&self) -> &[(usize, usize)] {
        &self.runs
    }

    /// Where the bytes are.
    pub(crate) fn layout(&self) -> Result<Layout, RegisterError> {
        Layout::of_runs(vec![self.runs.iter().map(|&(addr, len)| Run { addr, len }).collect()])
    }
}
